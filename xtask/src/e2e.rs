//! `e2e ministack` and `least-privilege`: installs the package on a third-party AWS emulator. The
//! program `tests/src/bin/third-party` does the work.

use std::process::Command;

use crate::{Outcome, ci, package};

/// Makes the package and runs `third-party WHAT` on it.
pub(crate) fn run(what: &str) -> Outcome {
    package::run(&package::Options::parse(&[])?)?;
    // Build with the whole workspace, as `run` does. A single package would resolve other features
    // and rebuild every dependency.
    ci::cargo(&["build", "--quiet", "--workspace", "--bin", "third-party"])?;
    let program = std::env::current_exe()?.with_file_name("third-party");
    ci::succeed(Command::new(program).args([what, "target/package"]))
}

/// The reason why it cannot run here, or `None` if it can.
pub(crate) fn missing() -> Option<&'static str> {
    let engine = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    (!engine.is_ok_and(|output| output.status.success())).then_some("no Docker engine")
}
