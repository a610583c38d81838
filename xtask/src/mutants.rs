//! `mutants`: whether the tests notice a changed decision. It runs cargo-mutants, which it does not
//! install, over the files below, and judges by unit tests and vectors. A mutant that survives
//! needs a test, or a line with a reason in `mutants.txt`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::run::{answers, cargo_command, said};
use crate::tree::{root, target};

/// The files whose functions decide: what is believed, what is allowed, what is called next, and
/// how a deployment has ended.
const FILES: &[&str] = &[
    "crates/protocol/src/approval.rs",
    "crates/protocol/src/bundle.rs",
    "crates/protocol/src/claim.rs",
    "crates/protocol/src/control.rs",
    "crates/protocol/src/envelope.rs",
    "crates/protocol/src/keys/public.rs",
    "crates/protocol/src/keys/roots.rs",
    "crates/protocol/src/overrides.rs",
    "crates/protocol/src/record.rs",
    "crates/protocol/src/request.rs",
    "crates/protocol/src/vouch.rs",
    "crates/policy/src/decide.rs",
    "crates/policy/src/substitute.rs",
    "crates/engine/src/claim.rs",
    "crates/engine/src/conclude.rs",
    "crates/engine/src/inbox/accounts.rs",
    "crates/engine/src/inbox/authenticate.rs",
    "crates/engine/src/launch/admission.rs",
    "crates/engine/src/launch/cancel.rs",
    "crates/engine/src/launch/end.rs",
    "crates/engine/src/launch/prior.rs",
    "crates/engine/src/launch/reasons.rs",
    "crates/engine/src/lock.rs",
    "crates/engine/src/proof.rs",
    "crates/engine/src/run.rs",
];

/// The packages whose tests judge.
const JUDGES: &str = "relay-protocol,relay-policy,relay-engine,relay-tests";

/// The tests of these packages that judge: unit tests, vectors and decisions. They take seconds.
const TESTS: &[&str] = &[
    "--lib",
    "--test",
    "conformance",
    "--test",
    "decisions",
    "--test",
    "forms",
    "--test",
    "doubt",
    "--test",
    "believed",
    "--test",
    "conclude",
    "--test",
    "late",
    "--test",
    "reordering",
];

/// Each line is the name of a mutant, two spaces, and the reason for which it may survive.
const SURVIVORS: &str = "xtask/mutants.txt";

/// The most mutants that a run for one change judges, at about 20 s each. A larger change is judged
/// by hand, in shards.
const CHANGE_MAX: usize = 60;

/// The choice of mutants.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these files; may be given more than once.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Only the lines of these files that changed since this commit.
    #[arg(long, value_name = "COMMIT", conflicts_with = "files")]
    changed_since: Option<String>,
    /// One of N equal parts, such as 0/8.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
}

/// Judges the mutants of what changed since a commit; says so if there are too many for one run.
pub(crate) fn of_change(commit: &str) -> Outcome {
    run(&Options { files: Vec::new(), changed_since: Some(commit.to_owned()), shard: None })
}

/// Whether the program is there that `mutants` needs.
pub(crate) fn can_run() -> bool {
    answers("cargo", &["mutants", "--version"])
}

/// Runs the mutants, writes the results to `mutants.out` in the target folder, and fails if a
/// mutant survives that is not in the file of survivors.
pub(crate) fn run(options: &Options) -> Outcome {
    if !can_run() {
        return Err("cargo-mutants is not installed: cargo install --locked cargo-mutants".into());
    }
    let (results, mut out) = (target()?, io::stdout());
    let mut chosen: Vec<String> = match options.files.as_slice() {
        [] => FILES.iter().map(|file| format!("--file={file}")).collect(),
        files => files.iter().map(|file| format!("--file={file}")).collect(),
    };
    chosen.extend(options.shard.iter().map(|shard| format!("--shard={shard}")));
    if let Some(commit) = &options.changed_since {
        let difference = results.join("mutants.diff");
        std::fs::write(&difference, said(Command::new("git").args(["diff", commit, "HEAD"]))? + "\n")?;
        chosen.push(format!("--in-diff={}", difference.display()));
        let count = said(cargo_command().args(["mutants", "--list"]).args(&chosen))?.lines().count();
        if count == 0 || count > CHANGE_MAX && options.shard.is_none() {
            writeln!(
                out,
                "mutants: {count} in the lines that changed{}",
                if count == 0 { "" } else { "; judge them by --shard K/N" }
            )?;
            return Ok(());
        }
    }
    let mut command = cargo_command();
    command.args(["mutants", "--test-package", JUDGES, "--timeout", "120", "--output"]).arg(&results).args(&chosen);
    // cargo-mutants fails if a mutant survives. Whether it may is decided below.
    let status = command.arg("--").args(TESTS).status()?;
    if !matches!(status.code(), Some(0 | 2)) {
        return Err(format!("cargo mutants could not judge: {status}").into());
    }
    let missed = read(&results.join("mutants.out/missed.txt"))?;
    let survivors = read(&root().join(SURVIVORS))?;
    let accepted = accepted(&survivors)?;
    let new: Vec<&str> = missed.lines().filter(|name| !accepted.contains_key(without_place(name).as_str())).collect();
    for name in &new {
        writeln!(out, "survived: {name}")?;
    }
    writeln!(out, "mutants: {} survived, {} of them without a reason", missed.lines().count(), new.len())?;
    if new.is_empty() { Ok(()) } else { Err(format!("write a test for each, or a reason into {SURVIVORS}").into()) }
}

fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// The name of a mutant without its line and column, so that an edit above it changes nothing.
fn without_place(name: &str) -> String {
    let mut parts = name.splitn(4, ':');
    let (file, what) = (parts.next().unwrap_or_default(), parts.nth(2).unwrap_or_default());
    format!("{file}:{what}")
}

/// The accepted survivors with their reasons.
fn accepted(text: &str) -> Outcome<BTreeMap<&str, &str>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, reason) = line.split_once("  ").ok_or_else(|| format!("{SURVIVORS}: no reason: {line}"))?;
            Ok((name, reason.trim()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_survivor_is_known_by_its_name_wherever_it_stands() {
        let text = "# why\n\ncrates/a.rs: replace b -> bool with true in c  an equal result\n";
        let known = accepted(text).unwrap();
        let name = without_place("crates/a.rs:12:5: replace b -> bool with true in c");
        assert_eq!(known.get(name.as_str()), Some(&"an equal result"));
        assert!(accepted("crates/a.rs: replace b without a reason").is_err());
    }

    #[test]
    fn the_files_of_the_list_and_of_the_survivors_exist() {
        let survivors = read(&root().join(SURVIVORS)).unwrap();
        let named = accepted(&survivors).unwrap();
        let files = named.keys().map(|name| name.split(':').next().unwrap_or_default());
        for file in FILES.iter().copied().chain(files) {
            assert!(root().join(file).is_file(), "{file}");
        }
    }
}
