//! `target check` and `target pin`: what can be said of a configuration without a request.

use std::io::Write;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use relay_policy::{Configuration, Pin};
use relay_protocol::Digest;
use relay_protocol::outcome::ExitCode;

/// A file could not be read.
pub(crate) fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("{}: {error}", file.display()))
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

fn parse(file: &Path, text: &str) -> Result<Configuration, Failure> {
    Configuration::parse(text).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// A configuration's text and what it says.
pub(crate) fn load(file: &Path) -> Result<(String, Configuration), Failure> {
    let text = read(file)?;
    let configuration = parse(file, &text)?;
    Ok((text, configuration))
}

/// Checks each file, whatever is wrong with those before it; returns the worst exit code.
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

/// Whether there is nothing to say of it.
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
        writeln!(out, "{name}: {}: {}", finding.field, finding.problem)?;
    }
    if findings.is_empty() {
        writeln!(out, "{name}: ok, sha256 {}", Digest::of(text.as_bytes()))?;
    }
    Ok(findings.is_empty())
}

/// Prints what only the task definition can hold (clause RUN-1).
pub(crate) fn pin(file: &Path, runner: &str, out: &mut impl Write) -> Result<u8, Failure> {
    let (text, configuration) = load(file)?;
    let pin = Pin::of(&configuration.target, &text);
    // The names are those of a task definition in JSON.
    let json = serde_json::json!({
        "family": configuration.target.family(),
        "entryPoint": pin.entry_point(runner),
    });
    writeln!(out, "{json:#}")?;
    Ok(0)
}
