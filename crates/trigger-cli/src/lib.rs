//! `relay`: requests a deployment, prints its output live, and exits with its exit code.
//!
//! CI holds this program and the rights to publish to one topic and to read its own queues; nothing
//! else (promise P1). [`args`] is the command line, [`settings`] adds environment and file,
//! [`deploy`] deploys, [`tail`] follows, [`show`] prints, and [`doctor`] checks the set-up.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod args;
mod artifacts;
mod attach;
mod cancel;
mod clock;
mod deploy;
mod doctor;
mod dry_run;
mod follower;
mod found;
mod gc;
mod inspect;
mod keygen;
mod last_words;
mod origin;
mod progress;
mod queues;
mod request;
mod result;
mod settings;
mod show;
mod signals;
mod signing;
mod status;
mod tags;
mod tail;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use relay_console::{Failure, telemetry};
use relay_protocol::outcome;

use crate::args::{Command, Relay};

/// Parses the command line, runs the command, and returns its exit code. Failures go to stderr.
pub async fn main() -> ExitCode {
    telemetry::plain();
    let relay = match Relay::try_parse() {
        Ok(relay) => relay,
        Err(error) => {
            // Help and version are not errors. Anything else is a usage error: 119, because 2 has a
            // meaning for terraform.
            let code = if error.use_stderr() { outcome::ExitCode::Usage.code() } else { 0 };
            let text = relay_console::harmless(&error.render().to_string());
            // A closed terminal does not change the exit code.
            let _ = match error.use_stderr() {
                true => write!(std::io::stderr(), "{text}"),
                false => write!(std::io::stdout(), "{text}"),
            };
            return code.into();
        }
    };
    // Boxed, because the SDK's futures nest too deeply for the compiler to lay them out.
    let result = match relay.command {
        Command::Deploy(arguments) => Box::pin(deploy::deploy(&arguments)).await,
        Command::Attach(arguments) => Box::pin(attach::attach(&arguments)).await,
        Command::Status(arguments) => Box::pin(status::status(&arguments)).await,
        Command::Cancel(arguments) => Box::pin(cancel::cancel(&arguments)).await,
        Command::Gc(arguments) => Box::pin(gc::gc(&arguments)).await,
        Command::Keygen(arguments) => keygen::keygen(&arguments),
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Doctor(arguments) => Box::pin(doctor::doctor(&arguments)).await,
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            report(&failure);
            failure.exit.code().into()
        }
    }
}

fn report(failure: &Failure) {
    // If stderr is closed, nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{failure}");
}
