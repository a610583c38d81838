//! The entry point of `relay-admin`.

use std::process::ExitCode;

use relay_console::outlet::{Blocking, To};

fn main() -> ExitCode {
    let (mut out, mut err) = (Blocking(To::Stdout), Blocking(To::Stderr));
    relay_console::panics::run(|| relay_admin::run(std::env::args_os(), &mut out, &mut err).into())
}
