//! SIGINT and SIGTERM, as events that a command waits for beside its work.

use relay_console::Failure;
use relay_protocol::Cancel;
use relay_protocol::outcome::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for signals. `relay deploy` starts before it publishes, because a signal in between must
/// become a cancel, not a sudden end.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    /// Starts listening.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitCode::Fault, format!("cannot listen for signals: {error}")))
        };
        Ok(Self { interrupts: listen(SignalKind::interrupt())?, terminations: listen(SignalKind::terminate())? })
    }

    /// Waits for the next signal, and returns the exit code and the reason to cancel with.
    pub(crate) async fn next(&mut self) -> (ExitCode, Cancel) {
        tokio::select! {
            _ = self.interrupts.recv() => (ExitCode::Interrupted, Cancel::Interrupted),
            _ = self.terminations.recv() => (ExitCode::Terminated, Cancel::Terminated),
        }
    }

    /// Returns the exit code of a signal that has already come, without waiting.
    pub(crate) async fn pending(&mut self) -> Option<ExitCode> {
        tokio::select! {
            biased;
            (code, _) = self.next() => Some(code),
            () = std::future::ready(()) => None,
        }
    }
}
