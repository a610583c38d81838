//! `relay`: requests a deployment, prints its output live, and exits with its exit code.
//!
//! CI holds this program and the rights to publish to one topic and to read its own queues; nothing
//! else (promise P1). [`args`] is the command line, [`settings`] adds environment and file,
//! [`deploy`] deploys, [`tail`] follows, [`show`] prints, and [`doctor`] checks the set-up.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod ansi;
mod approvals;
pub mod args;
mod artifacts;
mod attach;
mod cancel;
mod clock;
mod deploy;
mod doctor;
mod dry_run;
mod explain;
mod files;
mod fold;
mod follower;
mod found;
mod gc;
mod history;
mod inspect;
mod keygen;
mod last_words;
mod origin;
mod pem;
mod progress;
mod queues;
mod redeploy;
mod report;
mod request;
mod result;
mod settings;
mod show;
mod signals;
mod signing;
mod stamp;
mod state;
mod status;
mod summary;
mod tags;
mod tail;
mod token;
mod trace;
mod verify;
mod weave;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use relay_console::outlet::{self, Outlet, To};
use relay_console::{Failure, manual, telemetry};
use relay_protocol::encoding::ascii_json;
use relay_protocol::outcome;
use serde_json::json;

use crate::args::{Command, Output, Relay};

/// How long the last messages may take to be printed.
const SETTLE: Duration = Duration::from_secs(10);

/// The command line as clap knows it, for manual pages and completions.
pub fn command() -> clap::Command {
    Relay::command()
}

/// Checks that a text has the form of relay.toml.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_settings(text: &str) -> Result<(), String> {
    settings::check(text)
}

/// Parses the command line, runs the command, and returns its exit code. Failures go to stderr.
pub fn main() -> ExitCode {
    let relay = match Relay::try_parse() {
        Ok(relay) => relay,
        Err(error) => return usage(&error),
    };
    let format = relay.command.output();
    let failure = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        // Boxed, because the SDK's futures nest too deeply for the compiler to lay them out.
        Ok(runtime) => match runtime.block_on(Box::pin(run(relay.command))) {
            Ok(code) => return code.into(),
            Err(failure) => failure,
        },
        Err(error) => Failure::new(outcome::ExitCode::Fault, format!("cannot start: {error}")),
    };
    report(&failure, &failure.to_string(), format);
    failure.exit.code().into()
}

async fn run(asked: Command) -> Result<u8, Failure> {
    telemetry::plain();
    relay_platform::signals::survive_file_limit();
    match asked {
        Command::Deploy(arguments) => deploy::deploy(&arguments).await,
        Command::Redeploy(arguments) => redeploy::redeploy(*arguments).await,
        Command::Attach(arguments) => attach::attach(&arguments).await,
        Command::Status(arguments) => status::status(&arguments).await,
        Command::Cancel(arguments) => cancel::cancel(&arguments).await,
        Command::Approve(arguments) => approvals::approve::approve(&arguments).await,
        Command::Approvals(arguments) => approvals::list::list(&arguments).await,
        Command::Gc(arguments) => gc::gc(&arguments).await,
        Command::Keygen(arguments) => keygen::keygen(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Report(arguments) => report::report(&arguments),
        Command::History(arguments) => history::history(&arguments).await,
        Command::Explain(arguments) => explain::explain(&arguments),
        Command::Completions { shell } => {
            manual::completions(command(), shell, &mut std::io::stdout());
            Ok(0)
        }
        Command::Man { folder } => Ok(manual::pages(command(), &folder).map(|()| 0)?),
        Command::Doctor(arguments) => doctor::doctor(&arguments).await,
    }
}

/// Prints what clap says. Help and version are no errors. Anything else is a usage error: 119,
/// because 2 has a meaning for terraform.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        // A closed terminal does not change the exit code.
        let _ = outlet::write(To::Stdout, relay_console::harmless(&text).as_bytes());
        return ExitCode::SUCCESS;
    }
    let failure = Failure::usage(text.trim_end().trim_start_matches("error: "));
    report(&failure, &relay_console::harmless(text.trim_end()), args::output_of(std::env::args_os()));
    failure.exit.code().into()
}

/// Prints a failure, in `words` for people on stderr, and where the caller reads JSON on stdout as
/// well. A reader who has stopped reading does not keep the program alive.
fn report(failure: &Failure, words: &str, format: Output) {
    let outlet = Outlet::start();
    if format == Output::Json {
        let line = json!({
            "type": "error",
            "exit_code": failure.exit.code(),
            "text": failure.error,
            "hints": failure.hints,
        });
        outlet.put(To::Stdout, (ascii_json(&line) + "\n").into_bytes());
    }
    outlet.put(To::Stderr, format!("{words}\n").into_bytes());
    outlet.settle(SETTLE);
}
