//! What `relay deploy` exits with (clauses OUT-1 to OUT-4). "I do not know" is never reported as success or failure (promise P6).

use relay_protocol::Reason;
use relay_protocol::outcome::{ExitCode, Outcome};

use crate::inbox::End;

/// An exit code, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The tool's own.
    Tool(u8),
    /// One of relay's.
    Relay(ExitCode),
}

impl Conclusion {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Tool(code) => code,
            Self::Relay(code) => code.code(),
        }
    }
}

/// What an end comes to. `end` is absent where the CLI left before one; `stopping` is what the CLI itself was told, by a signal or its
/// time-out; with `strict` an incomplete output is an exit code of its own.
pub fn conclude(end: Option<&End>, stopping: Option<ExitCode>, strict: bool) -> Conclusion {
    let Some(end) = end else {
        // Left at a second signal: the signal is the reason, and the words say that the outcome is open. A time-out is not over before
        // the server says so.
        return Conclusion::Relay(match stopping {
            Some(code @ (ExitCode::Interrupted | ExitCode::Terminated)) => code,
            _ => ExitCode::Unknown,
        });
    };
    Conclusion::Relay(match end {
        End::Finished { verified: false, .. } if strict => ExitCode::OutputIncomplete,
        End::Finished { finished, .. } => match (&finished.outcome, stopping) {
            (Outcome::Exited { code, .. }, _) => return Conclusion::Tool(*code),
            // Stopped: without a control queue ECS stops the whole task, and the runner cannot know for whom.
            (Outcome::Ended { reason: Reason::Cancelled | Reason::Stopped, .. }, Some(code)) => code,
            (Outcome::Ended { reason, .. }, _) => reason.exit_code(),
        },
        End::Refused { reason, .. } | End::NeverStarted { reason, .. } => reason.exit_code(),
        // By relay itself, as somebody asked or as the time was over.
        End::Stopped { reason: reason @ Reason::Cancelled, .. } => stopping.unwrap_or(reason.exit_code()),
        End::Stopped { reason: reason @ Reason::TimedOut, .. } => reason.exit_code(),
        End::Stopped { reason, started: false, .. } if never_ran(*reason) => ExitCode::NeverStarted,
        End::Stopped { .. } | End::Silent { .. } => ExitCode::Unknown,
    })
}

/// Whether the outcome is open, so that what the queue still holds may be needed.
pub fn is_open(end: Option<&End>) -> bool {
    match end {
        None | Some(End::Silent { .. }) => true,
        Some(End::Stopped { reason, started, .. }) => *started || !never_ran(*reason),
        Some(_) => false,
    }
}

/// Whether another deployment has the target: the launcher saw it, or the runner.
pub fn is_busy(end: &End) -> bool {
    match end {
        End::Refused { reason, .. } => *reason == Reason::Busy,
        End::Finished { finished, .. } => matches!(finished.outcome, Outcome::Ended { reason: Reason::Busy, .. }),
        _ => false,
    }
}

/// Whether ECS says that no container ran. Of any other end `started` may only be late: a queue promises no time.
pub fn never_ran(reason: Reason) -> bool {
    reason.exit_code() == ExitCode::NeverStarted
}
