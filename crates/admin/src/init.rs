//! `init`: writes the files of a first target from a few answers. It never overwrites a file, and
//! checks for existing files before it writes the first.

mod accounts;
mod answers;
mod apply;
mod files;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

use relay_console::Failure;

use crate::cli::Init;
use accounts::Accounts;
use answers::{Questions, answers};
use files::{KEY_FILE, write_new};

/// Asks for what the flags leave out, writes the files and prints the next steps. Without a
/// terminal a missing flag is an error.
pub(crate) fn init(
    arguments: Init,
    terminal: Option<&mut dyn BufRead>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<u8, Failure> {
    let mut questions = Questions { terminal, err };
    let accounts = Accounts::of(&arguments)?;
    let answers = answers(&arguments, accounts.as_ref(), &mut questions)?;
    if let Some(accounts) = accounts.as_ref().filter(|_| arguments.apply) {
        return apply::apply(answers, accounts, &arguments, &mut questions, out);
    }
    let dir = arguments.dir;
    let files = answers.files()?;
    let key = answers.new_key.as_ref().map(|key| (PathBuf::from(KEY_FILE), key.to_pem()));
    let paths: Vec<&Path> =
        files.iter().map(|(path, _)| path.as_path()).chain(key.as_ref().map(|k| k.0.as_path())).collect();
    // A dangling link counts as existing: a write would go through it.
    let there: Vec<String> = paths
        .iter()
        .filter(|path| dir.join(path).symlink_metadata().is_ok())
        .map(|path| dir.join(path).display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::usage(format!("nothing was written, as these files exist: {}", there.join(", "))));
    }
    for (path, text) in &files {
        write_new(&dir.join(path), text, 0o644)?;
    }
    if let Some((path, pem)) = &key {
        write_new(&dir.join(path), pem, 0o600)?;
    }
    for path in paths {
        writeln!(out, "wrote {}", dir.join(path).display())?;
    }
    write!(out, "{}", answers.next())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    /// Returns the exit code, standard output and the questions that were asked.
    fn at_a_terminal(dir: &Path, flags: &[&str], typed: &str) -> (Result<u8, Failure>, String, String) {
        let arguments = [&["relay-admin", "init", dir.to_str().unwrap()], flags].concat();
        let Command::Init(arguments) = Cli::try_parse_from(arguments).unwrap().command else { panic!("not init") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = init(*arguments, Some(&mut typed.as_bytes()), &mut out, &mut err);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn it_asks_for_what_the_flags_do_not_say_until_it_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let typed = "payments\npayments/production\n22\n222222222222\n111111111111\nteamcity\njenkins\n\
                     arn:aws:iam::999999999999:role/agents\narn:aws:iam::111111111111:role/ci/agents\ncode-bucket\n\n";
        let (result, out, err) = at_a_terminal(dir.path(), &["--region", "eu-west-1"], typed);
        assert_eq!(result.unwrap(), 0, "{err}");
        assert!(!err.contains("region"), "{err}");
        for asked_again in [
            "not a target such as",
            "not an AWS account id",
            "invalid variant",
            "begins with arn:aws:iam::111111111111:role/",
        ] {
            assert!(err.contains(asked_again), "{asked_again}: {err}");
        }
        assert!(out.contains("ci/Jenkinsfile") && out.contains("keys/ci.pem"), "{out}");
        let parameters = std::fs::read_to_string(dir.path().join("parameters/ci-account.json")).unwrap();
        assert!(parameters.contains("\"agents\"") && parameters.contains("\"none\""), "{parameters}");
    }

    #[test]
    fn a_person_who_leaves_has_written_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (result, _, _) = at_a_terminal(dir.path(), &[], "payments/production\n");
        assert!(result.unwrap_err().to_string().contains("--target-account is missing"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
