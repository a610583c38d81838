//! A panic is a bug in relay. It ends the program with relay's own exit code for faults, because
//! the code that Rust would use (101) may also be the tool's, and with one line, because a stack
//! trace in a CI log helps nobody there.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;

use relay_protocol::outcome;

use crate::Failure;
use crate::outlet::{self, To};

/// Runs a program. A panic in it is printed as a failure, and ends it with
/// [`outcome::ExitCode::Fault`].
pub fn run(program: impl FnOnce() -> ExitCode) -> ExitCode {
    set_hook(Box::new(|info| {
        let place = info.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("a panic without a message");
        let failure = Failure::new(outcome::ExitCode::Fault, format!("a bug in relay{place}: {text}"))
            .hint("please report this with the two lines above; the deployment itself may be running: relay status");
        // Nothing is left to do if stderr is closed.
        let _ = outlet::write(To::Stderr, format!("{failure}\n").as_bytes());
    }));
    // Nothing of the program is used after a panic.
    catch_unwind(AssertUnwindSafe(program)).unwrap_or(outcome::ExitCode::Fault.code().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_fault() {
        assert_eq!(run(|| panic!("for the test")), outcome::ExitCode::Fault.code().into());
        assert_eq!(run(|| 7.into()), ExitCode::from(7));
        drop(std::panic::take_hook());
    }
}
