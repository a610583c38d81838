//! The project's own commands. `cargo xtask` lists them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests fail by panicking"))]

mod ci;
mod clauses;
mod commands;
mod direction;
mod docs;
mod links;
mod registries;
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
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["demo"] => ci::demo(),
        ["ci"] => ci::run(ci::Form::Full),
        ["ci", "--quick"] => ci::run(ci::Form::Quick),
        ["docs", "--check"] => docs::check(),
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
        writeln!(out, "  {name:<6} {words}")?;
    }
    Err("no such command".into())
}
