//! `target check` and `target pin`: what a configuration shows without a request. It also loads
//! configurations for the other commands.

use std::io::Write;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use relay_policy::{Configuration, Pin};
use relay_protocol::Digest;
use relay_protocol::outcome::ExitCode;

/// Returns the failure for a file that cannot be read or written.
pub(crate) fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", file.display()))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

fn parse(file: &Path, text: &str) -> Result<Configuration, Failure> {
    Configuration::parse(text).map_err(|error| {
        let words = error.to_string();
        let failure = Failure::usage(format!("{}: {words}", file.display()));
        match advice(&words) {
            Some(advice) => failure.hint(advice),
            None => failure,
        }
    })
}

/// What to do about an error of the TOML parser.
fn advice(words: &str) -> Option<String> {
    if words.contains("missing escaped value") {
        return Some(r"write regular expressions in single quotes, such as pattern = 'v\d+'".to_owned());
    }
    // unknown field `buckett`, expected one of `target`, `topic`, …
    let (_, rest) = words.split_once("unknown field `")?;
    let mut names = rest.split('`').step_by(2);
    let wrong = names.next()?;
    let nearest = names.map(|name| (strsim::damerau_levenshtein(wrong, name), name)).min()?;
    (nearest.0 <= 2).then(|| format!("did you mean `{}`?", nearest.1))
}

/// Reads and parses a configuration. Returns its text as well.
pub(crate) fn load(file: &Path) -> Result<(String, Configuration), Failure> {
    let text = read(file)?;
    let configuration = parse(file, &text)?;
    Ok((text, configuration))
}

/// Checks every file, even after one has failed. Returns the highest exit code.
pub(crate) fn check(files: &[PathBuf], out: &mut impl Write, err: &mut impl Write) -> Result<u8, Failure> {
    let mut worst = 0;
    for file in files {
        let fine = match read(file) {
            Ok(text) => check_one(file, &text, out, err)?,
            Err(failure) => {
                writeln!(err, "{failure}")?;
                worst = worst.max(failure.exit.code());
                continue;
            }
        };
        worst = worst.max(if fine { 0 } else { ExitCode::No.code() });
    }
    Ok(worst)
}

/// Returns whether the configuration has neither errors nor findings.
fn check_one(file: &Path, text: &str, out: &mut impl Write, err: &mut impl Write) -> Result<bool, Failure> {
    let configuration = match parse(file, text) {
        Ok(configuration) => configuration,
        Err(failure) => {
            writeln!(err, "{failure}")?;
            return Ok(false);
        }
    };
    let (name, findings) = (file.display(), relay_policy::check(&configuration));
    for finding in &findings {
        writeln!(out, "{name}: warning: {}: {}", finding.field, finding.problem)?;
    }
    if findings.is_empty() {
        writeln!(out, "{name}: ok, sha256 {}", Digest::of(text.as_bytes()))?;
    }
    Ok(findings.is_empty())
}

/// Prints the parts of the task definition that pin the configuration (clause RUN-1).
pub(crate) fn pin(file: &Path, runner: &str, out: &mut impl Write) -> Result<u8, Failure> {
    let (text, configuration) = load(file)?;
    let pin = Pin::of(&configuration.target, &text);
    // The names are those of the task definition's JSON.
    let json = serde_json::json!({
        "family": configuration.target.family(),
        "entryPoint": pin.entry_point(runner),
    });
    writeln!(out, "{json:#}")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_toml_has_a_hint() {
        let of = |text: &str| parse(Path::new("x.toml"), text).unwrap_err().hints.join("\n");
        assert_eq!(of("buckett = 1"), "did you mean `bucket`?");
        assert_eq!(of("[[rollbacks]]\nname = \"x\""), "did you mean `rollback`?");
        assert_eq!(of("weather = 1"), "");
        assert!(of("[parameters]\nv = { pattern = \"v\\d+\" }").contains("single quotes"), "{}", of("v = \"\\d\""));
    }
}
