//! `relay-admin`, the command line of a platform team. To set up and check targets it needs no AWS
//! permissions; to list, stop and read deployments it needs an operator's.
//! This crate owns the commands and their messages, and decides nothing: [`relay_policy::check`]
//! judges a configuration, and [`relay_policy::authorise`] a request, as in the launcher and the
//! runner.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod account;
mod claims;
mod cli;
mod doctor;
mod init;
mod install;
mod issuer;
mod ledger;
mod lock;
mod log;
mod prove;
mod ps;
mod remove;
mod render;
mod selftest;
mod target;
mod trial;

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, IsTerminal as _, Write};

use clap::{CommandFactory as _, Parser as _};

use relay_console::{Failure, Lines, harmless, manual};
use relay_protocol::outcome::ExitCode;

/// The command line as clap knows it, for manual pages and completions.
pub fn command() -> clap::Command {
    cli::Cli::command()
}

/// The document about what relay assumes of AWS, for docs/aws-assumptions.md.
pub fn assumptions() -> String {
    selftest::assumptions::document()
}

/// Runs the command in `arguments`, which begin with the program's name. Writes results to `out`
/// and errors to `err`, and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap returns help and the version as an `Err` too, with exit code 0 and for standard
            // output.
            let text = harmless(&error.render().to_string());
            // A failed write is ignored: if the reader has gone, nobody would see the error.
            let _ = if error.use_stderr() { err.write_all(text.as_bytes()) } else { out.write_all(text.as_bytes()) };
            return if error.use_stderr() { ExitCode::Usage.code() } else { 0 };
        }
    };
    // `Lines` escapes messages, because files and AWS may put any text into them. Output for
    // programs and the output of a tool stay as they are.
    let (raw_out, raw_err) = (&mut *out, &mut *err);
    let result = match cli.command {
        cli::Command::Target(cli::Target::Check { files }) => {
            target::check(&files, &mut Lines::new(raw_out), &mut Lines::new(raw_err))
        }
        cli::Command::Target(cli::Target::Pin { file, runner }) => target::pin(&file, &runner, raw_out),
        cli::Command::Target(cli::Target::Render(arguments)) => {
            render::render(&arguments, raw_out, &mut Lines::new(raw_err))
        }
        cli::Command::Target(cli::Target::Prove { file, properties }) => {
            let named = properties.iter().flat_map(|path| [OsStr::new("--properties"), path.as_os_str()]);
            prove::run([OsStr::new("prove"), file.as_os_str()].into_iter().chain(named))
        }
        cli::Command::Target(cli::Target::Diff { old, new }) => {
            prove::run([OsStr::new("diff"), old.as_os_str(), new.as_os_str()])
        }
        cli::Command::Target(cli::Target::Test(arguments)) => trial::test(&arguments, &mut Lines::new(raw_out)),
        cli::Command::Init(arguments) => {
            let mut input = std::io::stdin().is_terminal().then(|| std::io::stdin().lock());
            let input = input.as_mut().map(|input| input as &mut dyn BufRead);
            init::init(*arguments, input, &mut Lines::new(raw_out), &mut Lines::new(raw_err))
        }
        cli::Command::Doctor(arguments) => doctor::doctor(&arguments, &mut Lines::new(raw_out)),
        cli::Command::Remove(arguments) => remove::remove(&arguments, &mut Lines::new(raw_out)),
        cli::Command::Selftest(arguments) => selftest::selftest(&arguments, &mut Lines::new(raw_out)),
        cli::Command::Log(arguments) => {
            let tame = |is_terminal: bool| is_terminal && !arguments.raw;
            let (out_is_tame, err_is_tame) =
                (tame(std::io::stdout().is_terminal()), tame(std::io::stderr().is_terminal()));
            let (mut out, mut err) = (maybe_tame(raw_out, out_is_tame), maybe_tame(raw_err, err_is_tame));
            block_on(log::log(&arguments, &mut out, &mut err))
        }
        cli::Command::Issuer(issuer) => block_on(issuer::issuer(&issuer, &mut Lines::new(raw_out))),
        cli::Command::Ledger(cli::Ledger::Verify(arguments)) => {
            block_on(ledger::verify(&arguments, &mut Lines::new(raw_out)))
        }
        cli::Command::Completions { shell } => {
            manual::completions(command(), shell, raw_out);
            Ok(0)
        }
        cli::Command::Man { folder } => manual::pages(command(), &folder).map(|()| 0).map_err(Failure::from),
        cli::Command::Lock(lock) => block_on(lock::lock(&lock, &mut Lines::new(raw_out))),
        cli::Command::Ps(arguments) => block_on(ps::ps(&arguments, &mut Lines::new(raw_out), &mut Lines::new(raw_err))),
        cli::Command::Stop(arguments) => block_on(ps::stop(&arguments, &mut Lines::new(raw_out))),
    };
    result.unwrap_or_else(|failure| {
        let _ = writeln!(err, "{failure}");
        failure.exit.code()
    })
}

/// Escapes what is written, if a terminal would take it for commands.
fn maybe_tame<'a>(to: &'a mut impl Write, tame: bool) -> Box<dyn Write + 'a> {
    if tame { Box::new(Lines::new(to)) } else { Box::new(to) }
}

/// Runs a command that calls AWS on an async runtime, which the other commands do not need.
fn block_on(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    // Boxed, because the SDK's futures are large.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(work))
}

/// Random bytes from the system.
fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::usage(format!("cannot read random bytes from the system: {error}")))?;
    Ok(bytes)
}
