//! The runner: the program that a deployment's container starts. It verifies the request again by
//! itself, claims the deployment, runs the tool, streams its output, and reports how it ended.
//!
//! The runner holds the power to deploy, so it trusts nobody, not even the launcher. It reads only
//! `RELAY_CONFIGURATION`, whose bytes are pinned, `RELAY_REQUEST`, which names a signed request in
//! the evidence bucket, and the container's own credential and metadata variables. Any other
//! variable could come from an override.
//!
//! The order is the protocol's (clauses RUN-1 to RUN-12): [`start`] verifies, [`deploy`] runs from
//! the claim to the last frame, [`pump`] sends frames, [`archive`] keeps them, [`step`] runs one
//! program, [`evidence`] leaves the record.

#![forbid(unsafe_code)]

mod archive;
mod claim;
mod control;
mod credentials;
mod deploy;
mod deployment;
pub mod environment;
mod evidence;
mod host;
mod install;
mod leftovers;
mod outputs;
mod pump;
mod recipe;
mod remove;
mod report;
mod secrets;
mod spool;
mod start;
mod step;
mod stop;
mod unstarted;
mod workplace;

use std::process::ExitCode;
use std::time::Duration;

use relay_console::outlet::Outlet;
use relay_console::telemetry;
use relay_protocol::outcome;
use tracing::error;

/// How long the log driver may take for the rest of the log before the process ends.
const SETTLE: Duration = Duration::from_secs(1);

/// Runs `install DIRECTORY`, or the deployment that the pinned arguments and the environment
/// describe. The exit code is the tool's own, or one of relay's exit codes.
pub fn main(arguments: &[String]) -> ExitCode {
    if let [command] = arguments
        && command == leftovers::KILL_ALL
    {
        leftovers::kill_all();
        return ExitCode::SUCCESS;
    }
    if let Err(error) = environment::harden().and_then(|()| leftovers::adopt_orphans()) {
        telemetry::json();
        error!(%error, "the kernel does not let the runner isolate itself from the tool; nothing was run");
        return outcome::ExitCode::Fault.code().into();
    }
    // Logs and the mirror of the tool's output share one outlet, because neither may block.
    let outlet = Outlet::start();
    telemetry::json_by(&outlet);
    let code = install_or_run(arguments, &outlet);
    outlet.settle(SETTLE);
    code
}

fn install_or_run(arguments: &[String], outlet: &Outlet) -> ExitCode {
    if let [command, directory] = arguments
        && command == "install"
    {
        return match install::install(directory) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                error!(%problem, directory, "cannot install the runner");
                outcome::ExitCode::Fault.code().into()
            }
        };
    }
    match tokio::runtime::Runtime::new() {
        // Boxed: the SDK's futures nest so deeply that the compiler would give up on their layout.
        Ok(runtime) => runtime.block_on(Box::pin(run(arguments, outlet))).into(),
        Err(problem) => {
            error!(%problem, "cannot start the runner's threads");
            outcome::ExitCode::Fault.code().into()
        }
    }
}

async fn run(arguments: &[String], outlet: &Outlet) -> u8 {
    match Box::pin(start::start(arguments, |name| std::env::var(name).ok())).await {
        Ok(started) => Box::pin(deploy::deploy(started, outlet)).await,
        Err(refusal) => {
            error!(problem = %refusal, exit_code = refusal.exit_code().code(), "nothing was run");
            refusal.exit_code().code()
        }
    }
}
