//! The `relay` program. The library does the work.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_console::panics::run(relay_trigger_cli::main)
}
