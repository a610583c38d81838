//! `e2e ministack` and `least-privilege`: the package, installed on an AWS emulator that nobody here wrote. `tests/src/bin/third-party` does it.

use std::process::Command;

use crate::{Outcome, ci, package};

/// Makes the package, and runs `third-party WHAT` on it.
pub(crate) fn run(what: &str) -> Outcome {
    package::run(&package::Options::parse(&[])?)?;
    // Built with the whole workspace, as `run` with one package alone would resolve other features, and build every dependency anew.
    ci::cargo(&["build", "--quiet", "--workspace", "--bin", "third-party"])?;
    let program = std::env::current_exe()?.with_file_name("third-party");
    ci::succeed(Command::new(program).args([what, "target/package"]))
}

/// Why it cannot be run here, if it cannot.
pub(crate) fn missing() -> Option<&'static str> {
    let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    (!engine.is_ok_and(|output| output.status.success())).then_some("no Docker engine")
}
