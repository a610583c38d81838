//! The whole path on ministack, an AWS emulator that nobody here wrote: the templates of `infra/` and a rendered target as stacks, the packaged zip as
//! the function, the packaged runner in a container as the task, the packaged `relay` as CI. None of our own code stands in for AWS.
//!
//! `emulator e2e PACKAGE` shows that it works; `emulator least-privilege PACKAGE` that it works with the templates' permissions and with no
//! fewer. Both are started by `cargo xtask`, which makes the package. Where ministack is not AWS is data, in `deviations.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it found goes to the terminal")]

mod accounts;
mod cases;
mod deviations;
mod path;
mod privilege;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["e2e", package] => path::run(Path::new(package)),
        ["least-privilege", package] => privilege::run(Path::new(package)),
        _ => Err("usage: emulator e2e | least-privilege PACKAGE".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
