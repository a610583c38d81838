//! `e2e` and `least-privilege`: installs the package on a third-party AWS emulator.
//! `tests/src/emulator/bin` does the work.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::package;
use crate::run::{cargo, succeed};
use crate::tree::programs;

/// The package to install.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Use this folder, made by `cargo xtask package`, instead of packaging dev programs.
    #[arg(long, value_name = "FOLDER")]
    package: Option<PathBuf>,
}

/// Runs `emulator WHAT` on the given package, or on a new one.
pub(crate) fn run(what: &str, options: &Options) -> Outcome {
    let package = match &options.package {
        Some(folder) => std::path::absolute(folder)?,
        None => package::run(&package::Options::default())?,
    };
    cargo(&["build", "--workspace", "--bin", "emulator"])?;
    on(what, &package)
}

/// Runs `emulator WHAT` on the package in `folder`. The program must be built already.
pub(crate) fn on(what: &str, folder: &Path) -> Outcome {
    succeed(Command::new(programs()?.join("emulator")).arg(what).arg(folder))
}
