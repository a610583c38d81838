//! The signals that ask a command to stop, as events that it waits for beside its work.

use relay_console::Failure;
use relay_platform::signals::Signal;
use relay_protocol::Cancel;
use relay_protocol::outcome::ExitCode;

/// Why a command is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The exit code of a command that stops for it.
    pub(crate) code: ExitCode,
    /// The reason that the cancel gives.
    pub(crate) cancel: Cancel,
    /// The reason in words.
    pub(crate) why: &'static str,
}

impl Asked {
    /// `--timeout` has passed.
    pub(crate) const TIMEOUT: Self =
        Self { code: ExitCode::TimedOut, cancel: Cancel::Requested, why: "the --timeout has passed" };

    /// Whether a signal asks.
    pub(crate) fn is_signal(self) -> bool {
        self != Self::TIMEOUT
    }
}

/// Listens for signals. `relay deploy` starts before it does anything else, because a signal must
/// become a cancel, or at least a tidy end.
#[derive(Debug)]
pub(crate) struct Signals(relay_platform::signals::Signals);

impl Signals {
    /// Starts listening.
    pub(crate) fn listen() -> Result<Self, Failure> {
        relay_platform::signals::Signals::listen()
            .map(Self)
            .map_err(|error| Failure::new(ExitCode::Fault, format!("cannot listen for signals: {error}")))
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Asked {
        match self.0.next().await {
            Signal::Interrupt(why) => Asked { code: ExitCode::Interrupted, cancel: Cancel::Interrupted, why },
            Signal::Terminate(why) => Asked { code: ExitCode::Terminated, cancel: Cancel::Terminated, why },
        }
    }

    /// Returns a signal that has already come, without waiting.
    pub(crate) async fn pending(&mut self) -> Option<Asked> {
        tokio::select! {
            biased;
            asked = self.next() => Some(asked),
            () = std::future::ready(()) => None,
        }
    }
}
