//! The container's entry point: cleans the environment, then runs the runner.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(code) = relay_runner::environment::cleanse(&arguments) {
        return code;
    }
    relay_console::panics::run(|| relay_runner::main(&arguments))
}
