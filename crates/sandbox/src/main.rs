//! `relay-sandbox`: see the library. Only turns its answer into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_sandbox::cli::main()
}
