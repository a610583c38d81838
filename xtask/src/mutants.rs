//! `mutants`: whether the tests notice a changed decision. It runs cargo-mutants, which it does not
//! install, and judges by unit tests and vectors. A mutant that survives these needs a test, or a
//! reason.

use std::process::Command;

use crate::Outcome;
use crate::run::{answers, succeed};
use crate::tree::target;

/// The files that contain decisions.
const FILES: &[&str] = &["crates/engine/src/**", "crates/policy/src/**", "crates/protocol/src/**"];

/// The choice of mutants.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these files; may be given more than once.
    #[arg(long = "file", value_name = "GLOB")]
    files: Vec<String>,
    /// One of N equal parts, such as 0/8.
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,
}

/// Runs the mutants and writes the results to `mutants.out` in the target folder.
pub(crate) fn run(options: &Options) -> Outcome {
    if !answers("cargo", &["mutants", "--version"]) {
        return Err("cargo-mutants is not installed: cargo install cargo-mutants".into());
    }
    let mut command = Command::new("cargo");
    command.args(["mutants", "--test-workspace", "false", "--output"]).arg(target()?);
    let chosen = options.files.iter().map(String::as_str);
    let all = FILES.iter().copied().filter(|_| options.files.is_empty());
    command.args(chosen.chain(all).flat_map(|file| ["--file", file]));
    if let Some(shard) = &options.shard {
        command.args(["--shard", shard]);
    }
    succeed(command.args(["--", "--lib", "--tests"]))
}
