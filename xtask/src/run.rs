//! Runs other programs in the workspace's root.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::tree::root;

/// Variables that `cargo xtask` itself is given, by the beginnings of their names. Some build
/// scripts look at them: if they reached another cargo, it would build again what a person has
/// built.
const OWN: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// A call of `cargo` as a person would make it.
pub(crate) fn cargo_command() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        if OWN.iter().any(|own| name.to_string_lossy().starts_with(own)) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `cargo` with these arguments. Its output is passed through.
pub(crate) fn cargo(arguments: &[&str]) -> Outcome {
    succeed(cargo_command().args(arguments))
}

/// Runs a command. Its output is passed through.
pub(crate) fn succeed(command: &mut Command) -> Outcome {
    // The child's output would otherwise appear before the output that is still buffered here.
    io::stdout().flush()?;
    let status = command.current_dir(root()).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", name(command)).into()) }
}

/// Runs a command with much output, which is shown only if it fails.
pub(crate) fn quietly(command: &mut Command) -> Outcome {
    let output = command.current_dir(root()).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    io::stdout().write_all(&output.stdout)?;
    io::stderr().write_all(&output.stderr)?;
    Err(format!("{}: {}", name(command), output.status).into())
}

/// Runs a command and returns its standard output without trailing white space.
pub(crate) fn said(command: &mut Command) -> Outcome<String> {
    let output = command.current_dir(root()).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}: {}", name(command), output.status, words.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

/// This machine's target triple.
pub(crate) fn host() -> Outcome<String> {
    said(Command::new("rustc").args(["--print", "host-tuple"]))
}

/// Whether a program exists and succeeds with these arguments.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

/// Whether a Docker engine runs.
pub(crate) fn has_engine() -> bool {
    answers("docker", &["version", "--format", "{{.Server.Version}}"])
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
