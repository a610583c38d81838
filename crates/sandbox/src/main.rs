//! The program `relay-sandbox`; see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    relay_sandbox::cli::main()
}
