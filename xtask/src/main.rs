//! The project's own commands. `cargo xtask` lists them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests fail by panicking"))]

mod bench;
mod ci;
mod clauses;
mod commands;
mod direction;
mod docs;
mod e2e;
mod fuzz;
mod infra;
mod links;
mod package;
mod registries;
mod soak;
mod tree;

use std::io::{self, Write as _};
use std::process::ExitCode;

/// A command's end: what went wrong, in one line for each finding.
pub(crate) type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The commands as they are typed, with what they do. [`commands`] checks README.md against this.
pub(crate) const COMMANDS: &[(&str, &str)] = &[
    ("demo", "build everything, then run one deployment on the embedded sandbox"),
    ("ci", "everything that must hold before a merge (--quick: without the slow end-to-end tests)"),
    ("docs", "--check: documents, code, vectors and tests agree"),
    ("infra", "--check: the templates, by cfn-lint, cfn-guard and as data (--full: by checkov too)"),
    ("package", "what is installed, in target/package (--out FOLDER, --target TRIPLE, --verify-reproducible)"),
    ("fuzz", "every target of fuzz/ in turn, for --minutes N in all (120); needs a nightly compiler and cargo-fuzz"),
    ("e2e", "ministack: the package and the templates, installed on an emulator that nobody here wrote"),
    ("soak", "long runs: simulation, deployments, gigabyte, long (--part PART, --scale S; without, all of it)"),
    ("bench", "time, memory, cost and size, beside bare SQS and a pipe (--quick, --full, --write-docs, --from FILE)"),
    ("least-privilege", "the same with the templates' permissions, then without each one of them"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["demo"] => ci::demo(),
        ["ci"] => ci::run(ci::Form::Full),
        ["ci", "--quick"] => ci::run(ci::Form::Quick),
        ["docs", "--check"] => docs::check(),
        ["infra", "--check"] => infra::check(false),
        ["infra", "--check", "--full"] => infra::check(true),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["e2e", "ministack"] => e2e::run("e2e"),
        ["soak", rest @ ..] => soak::Options::parse(rest).and_then(|options| soak::run(&options)),
        ["least-privilege"] => e2e::run("least-privilege"),
        ["bench", rest @ ..] => bench::Options::parse(rest).and_then(|options| bench::run(&options)),
        ["package", rest @ ..] => package::Options::parse(rest).and_then(|options| package::run(&options)),
        _ => usage(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without stderr there is nobody to tell; the exit code still says it.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> Outcome {
    let mut out = io::stderr().lock();
    writeln!(out, "usage: cargo xtask COMMAND\n")?;
    for (name, words) in COMMANDS {
        writeln!(out, "  {name:<15} {words}")?;
    }
    Err("no such command".into())
}
