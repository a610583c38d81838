//! The whole path on ministack, a third-party AWS emulator: the templates of `infra/` and a
//! rendered target as stacks, the packaged zip as the function, the packaged runner in a container
//! as the task, and the packaged `relay` as CI. None of relay's own code stands in for AWS.
//! `emulator e2e PACKAGE` shows that it works, `emulator least-privilege PACKAGE` that it needs
//! every permission of the templates and no other, `emulator init PACKAGE` that `relay-admin init
//! --apply` installs it, and `emulator selftest PACKAGE` what ministack does otherwise than AWS.
//! `emulator accounts PACKAGE COMMAND` is for people: it runs a command in front of two empty
//! accounts. `cargo xtask` makes the package and starts all of them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it finds")]

mod accounts;
mod apply;
mod cases;
mod deviations;
mod image;
mod path;
mod privilege;
mod selftest;
mod shim;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["e2e", package] => path::run(Path::new(package)),
        ["least-privilege", package] => privilege::run(Path::new(package)),
        ["selftest", package] => selftest::run(Path::new(package)),
        ["init", package] => apply::run(Path::new(package)),
        ["accounts", package, command @ ..] if !command.is_empty() => shim::accounts(Path::new(package), command),
        ["aws", arguments @ ..] => return shim::run(arguments),
        _ => {
            Err("usage: emulator e2e | least-privilege | selftest | init PACKAGE | accounts PACKAGE COMMAND".to_owned())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
