//! `e2e`, `least-privilege`, `init`, `selftest` and `accounts`: the package on a third-party AWS
//! emulator.
//! `tests/src/emulator/bin` does the work.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::package;
use crate::run::{cargo, succeed};
use crate::tree::programs;

/// The package to install.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Use this folder, made by `cargo xtask package`, instead of packaging dev programs.
    #[arg(long, value_name = "FOLDER")]
    package: Option<PathBuf>,
}

/// A command to run in front of two emulated accounts.
#[derive(Debug, clap::Args)]
pub(crate) struct Accounts {
    #[command(flatten)]
    options: Options,
    /// The command and its arguments, such as a shell. It has the programs of the package on the
    /// PATH, the profiles `ci` and `target` of the AWS CLI, and an image with a shell in IMAGE.
    #[arg(last = true, required = true)]
    command: Vec<std::ffi::OsString>,
}

/// Runs a person's command in front of two emulated accounts, in the folder that it is called in.
pub(crate) fn accounts(arguments: &Accounts) -> Outcome {
    let here = std::env::current_dir()?;
    let package = made(&arguments.options)?;
    let mut emulator = Command::new(programs()?.join("emulator"));
    emulator.arg("accounts").arg(package).args(&arguments.command).current_dir(here);
    let status = emulator.status()?;
    if status.success() { Ok(()) } else { Err(format!("emulator: {status}").into()) }
}

/// Runs `emulator WHAT` on the given package, or on a new one.
pub(crate) fn run(what: &str, options: &Options) -> Outcome {
    on(what, &made(options)?)
}

/// The given package, or a new one; and the program `emulator`.
fn made(options: &Options) -> Outcome<PathBuf> {
    let package = match &options.package {
        Some(folder) => std::path::absolute(folder)?,
        None => package::run(&package::Options::default())?,
    };
    cargo(&["build", "--workspace", "--bin", "emulator"])?;
    Ok(package)
}

/// Runs `emulator WHAT` on the package in `folder`. The program must be built already.
pub(crate) fn on(what: &str, folder: &Path) -> Outcome {
    succeed(Command::new(programs()?.join("emulator")).arg(what).arg(folder))
}
