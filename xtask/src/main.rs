//! The project's own commands; `cargo xtask --help` lists them. Each command has its own file.
//! `ci.rs` defines the lanes.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests fail by panicking"))]

mod bench;
mod capacity;
mod ci;
mod clauses;
mod columns;
mod cross;
mod cycles;
mod direction;
mod docs;
mod emulator;
mod features;
mod fuzz;
mod infra;
mod links;
mod mutants;
mod names;
mod package;
mod release;
mod run;
mod skew;
mod soak;
mod tree;
mod venv;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The result of a command. The error has one line for each finding.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build four programs, then run one deployment on the embedded sandbox.
    Demo,
    /// Run the checks and tests of a lane; without a flag, everything that must pass before a
    /// merge.
    Ci(ci::Options),
    /// Check that documents, code, vectors and tests agree.
    Docs,
    /// Check the templates in infra/: cfn-lint, cfn-guard, and their permissions as data.
    Infra(infra::Options),
    /// Make the package: static programs, the launcher's zip, the runner's image, templates,
    /// digests.
    Package(package::Options),
    /// Make the files of a release for one target: archives, the launcher's zip, a bill of
    /// materials, digests.
    Release(release::Options),
    /// Install the package and the templates on a third-party AWS emulator, and deploy there.
    E2e(emulator::Options),
    /// Like e2e with the templates' permissions only, then again without each one of them.
    LeastPrivilege(emulator::Options),
    /// Run `relay-admin selftest` of the package on a third-party AWS emulator.
    Selftest(emulator::Options),
    /// Run `relay-admin init --apply` of the package on a third-party AWS emulator.
    Init(emulator::Options),
    /// Run a command in front of two empty accounts of a third-party AWS emulator.
    Accounts(emulator::Accounts),
    /// Measure time, memory, cost and size, compared with bare SQS calls and a pipe.
    Bench(bench::Options),
    /// Run what takes too long for each merge: simulations, deployments, a gigabyte, twenty
    /// minutes.
    Soak(soak::Options),
    /// Print the model of start times and costs on Fargate and on waiting hosts.
    Capacity,
    /// Run deployments with every mix of this version's and an earlier one's programs.
    Skew(skew::Options),
    /// Check that the programs compile for each other target whose library rustup has.
    Cross,
    /// Mutate decisions one at a time and list the mutants that survive the tests; needs
    /// cargo-mutants.
    Mutants(mutants::Options),
    /// Run every fuzz target in turn; needs a nightly compiler and cargo-fuzz.
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Demo => ci::demo(),
        Command::Ci(options) => ci::run(&options),
        Command::Docs => docs::check(),
        Command::Infra(options) => infra::check(&options),
        Command::Package(options) => package::run(&options).map(drop),
        Command::Release(options) => release::run(&options),
        Command::E2e(options) => emulator::run("e2e", &options),
        Command::LeastPrivilege(options) => emulator::run("least-privilege", &options),
        Command::Selftest(options) => emulator::run("selftest", &options),
        Command::Init(options) => emulator::run("init", &options),
        Command::Accounts(arguments) => emulator::accounts(&arguments),
        Command::Bench(options) => bench::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Capacity => capacity::run(),
        Command::Skew(options) => skew::run(&options),
        Command::Cross => cross::check(),
        Command::Mutants(options) => mutants::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is closed, only the exit code reports the failure.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_sound() {
        super::Arguments::command().debug_assert();
    }
}
