//! `relay-admin`: what a platform team needs before it deploys a target, without any right in AWS; and what is alive, with an operator's.
//!
//! This crate owns the command line and the words. It decides nothing: what is wrong with a configuration is said by
//! [`relay_policy::check`], and whether a request would be allowed by [`relay_policy::authorise`], the very function that the launcher and
//! the runner call.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod cli;
mod image;
mod init;
mod log;
mod ps;
mod render;
mod target;
mod trial;

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal as _, Write};

use clap::Parser as _;

use relay_console::{Failure, Lines, harmless};
use relay_protocol::outcome::ExitCode;

/// Runs the command that `arguments` (the program's name first) ask for; returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version are an `Err` too, with the code 0 and for standard output.
            let text = harmless(&error.render().to_string());
            // A reader that has gone is not worth a word: there is nobody to read it.
            let _ = if error.use_stderr() { err.write_all(text.as_bytes()) } else { out.write_all(text.as_bytes()) };
            return if error.use_stderr() { ExitCode::Usage.code() } else { 0 };
        }
    };
    // Messages are escaped, whatever a file or AWS puts into them. Output for programs and a tool's own output stay as they are.
    let (raw_out, raw_err) = (&mut *out, &mut *err);
    let result = match cli.command {
        cli::Command::Target(cli::Target::Check { files }) => {
            target::check(&files, &mut Lines::new(raw_out), &mut Lines::new(raw_err))
        }
        cli::Command::Target(cli::Target::Pin { file, runner }) => target::pin(&file, &runner, raw_out),
        cli::Command::Target(cli::Target::Render(arguments)) => {
            render::render(&arguments, raw_out, &mut Lines::new(raw_err))
        }
        cli::Command::Target(cli::Target::Test(arguments)) => trial::test(&arguments, &mut Lines::new(raw_out)),
        cli::Command::Init(arguments) => {
            let mut input = std::io::stdin().is_terminal().then(|| std::io::stdin().lock());
            let input = input.as_mut().map(|input| input as &mut dyn BufRead);
            init::init(*arguments, input, &mut Lines::new(raw_out), &mut Lines::new(raw_err))
        }
        cli::Command::Log(arguments) => block_on(log::log(&arguments, raw_out, raw_err)),
        cli::Command::Ps(arguments) => block_on(ps::ps(&arguments, &mut Lines::new(raw_out), &mut Lines::new(raw_err))),
        cli::Command::Stop(arguments) => block_on(ps::stop(&arguments, &mut Lines::new(raw_out))),
    };
    result.unwrap_or_else(|failure| {
        let _ = writeln!(err, "{failure}");
        failure.exit.code()
    })
}

/// Only what calls AWS needs a runtime.
fn block_on(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    // Boxed: the SDK's futures are large.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(work))
}
