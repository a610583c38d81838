//! The entry point of `relay-admin`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(relay_admin::run(std::env::args_os(), &mut std::io::stdout(), &mut std::io::stderr()))
}
