//! `target prove` and `target diff`: run `relay-prove`, which is a program of its own because it
//! needs a solver and a large library.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use relay_console::Failure;
use relay_protocol::outcome::ExitCode;

const PROGRAM: &str = "relay-prove";

/// Runs it, and returns its exit code.
pub(crate) fn run<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<u8, Failure> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM)).filter(|file| file.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(PROGRAM));
    match Command::new(program).args(arguments).status() {
        Ok(status) => Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(ExitCode::Fault.code())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::usage(format!("{PROGRAM} is not installed"))
            .hint("install it (cargo install --path prove) and the solver cvc5 (Debian's package is `cvc5`); without them, `target check` warns of what it can see")),
        Err(error) => Err(Failure::usage(format!("cannot run {PROGRAM}: {error}"))),
    }
}
