//! `relay-admin`: what a platform team needs before it deploys a target, without any right in AWS.
//!
//! This crate owns the command line and the words. It decides nothing: what is wrong with a configuration is said by
//! [`relay_policy::check`], and whether a request would be allowed by [`relay_policy::authorise`], the very function that the launcher and
//! the runner call.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod cli;
mod error;
mod render;
mod target;
mod trial;

use std::ffi::OsString;
use std::io::Write;

use clap::Parser as _;

pub use error::AdminError;

/// Runs the command that `arguments` (the program's name first) ask for; returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version are an `Err` too, with the code 0 and for standard output.
            let text = error.render().to_string();
            // A reader that has gone is not worth a word: there is nobody to read it.
            let _ = if error.use_stderr() { err.write_all(text.as_bytes()) } else { out.write_all(text.as_bytes()) };
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let cli::Command::Target(command) = cli.command;
    let result = match command {
        cli::Target::Check { files } => target::check(&files, out, err),
        cli::Target::Pin { file, runner } => target::pin(&file, &runner, out),
        cli::Target::Render(arguments) => render::render(&arguments, out, err),
        cli::Target::Test(arguments) => trial::test(&arguments, out),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(err, "error: {error}");
        error.exit_code()
    })
}
