//! `e2e` and `least-privilege`: the package, installed on an AWS emulator that nobody here wrote. `tests/src/emulator/bin` does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::package;
use crate::run::{cargo, succeed};
use crate::tree::programs;

/// What is installed there.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A folder that `cargo xtask package` made; without, one is made of dev programs.
    #[arg(long, value_name = "FOLDER")]
    package: Option<PathBuf>,
}

/// Runs `emulator WHAT`, on the package that is named or on a new one.
pub(crate) fn run(what: &str, options: &Options) -> Outcome {
    let package = match &options.package {
        Some(folder) => std::path::absolute(folder)?,
        None => package::run(&package::Options::default())?,
    };
    cargo(&["build", "--workspace", "--bin", "emulator"])?;
    on(what, &package)
}

/// Runs `emulator WHAT` on the package in `folder`; the program is built already.
pub(crate) fn on(what: &str, folder: &Path) -> Outcome {
    succeed(Command::new(programs()?.join("emulator")).arg(what).arg(folder))
}
