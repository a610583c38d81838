//! The exit code of `relay deploy` (clauses OUT-1 to OUT-4). An unknown outcome is never reported
//! as success or failure (clause OUT-4).

use relay_protocol::Reason;
use relay_protocol::outcome::{ExitCode, Outcome};

use crate::inbox::End;

/// An exit code, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The tool's own exit code.
    Tool(u8),
    /// One of relay's exit codes.
    Relay(ExitCode),
    /// A dry run, and the request would be allowed.
    WouldRun,
}

impl Conclusion {
    /// The number to exit with.
    pub fn code(self) -> u8 {
        match self {
            Self::Tool(code) => code,
            Self::Relay(code) => code.code(),
            Self::WouldRun => 0,
        }
    }
}

/// What must be proved before an end counts; otherwise the exit code says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strict {
    /// All output must have arrived (`--strict-output`).
    pub output: bool,
    /// The record must prove the end (`--require-record`).
    pub record: bool,
}

/// The exit code for an end. `end` is `None` if the CLI left before it saw one. `stopping` is the
/// exit code of the signal or timeout that told the CLI itself to stop. What `strict` demands and
/// is not proved has an exit code of its own.
///
/// ```
/// use relay_engine::End;
/// use relay_engine::conclude::{Conclusion, Strict, conclude};
/// use relay_protocol::{ExitCode, Reason};
///
/// let refused = End::Refused { reason: Reason::Policy, message: "not on a Friday".to_owned() };
/// let lax = Strict::default();
/// assert_eq!(conclude(Some(&refused), None, lax), Conclusion::Relay(ExitCode::Refused));
///
/// // Without an end, the outcome is unknown. If a signal made the CLI leave, the exit code names
/// // the signal instead.
/// assert_eq!(conclude(None, None, lax), Conclusion::Relay(ExitCode::Unknown));
/// assert_eq!(conclude(None, Some(ExitCode::Interrupted), lax).code(), 130);
/// ```
pub fn conclude(end: Option<&End>, stopping: Option<ExitCode>, strict: Strict) -> Conclusion {
    let Some(end) = end else {
        // The CLI left at a second signal: its exit code names the signal, and the message says
        // that the outcome is open. A timeout ends nothing before the server says so.
        return Conclusion::Relay(match stopping {
            Some(code @ (ExitCode::Interrupted | ExitCode::Terminated)) => code,
            _ => ExitCode::Unknown,
        });
    };
    Conclusion::Relay(match end {
        End::Finished { verified: false, .. } if strict.output => ExitCode::Incomplete,
        End::Finished { record: Err(_), .. } if strict.record => ExitCode::Incomplete,
        End::Tried(tried) => match tried.reason {
            None => return Conclusion::WouldRun,
            Some(reason) => reason.exit_code(),
        },
        End::Finished { finished, .. } => match (&finished.outcome, stopping) {
            (Outcome::Exited { code, .. }, _) => return Conclusion::Tool(*code),
            // The deployment was stopped. Without a control queue, ECS stops the whole task, and
            // the runner cannot know who asked.
            (Outcome::Ended { reason: Reason::Cancelled | Reason::Stopped, .. }, Some(code)) => code,
            (Outcome::Ended { reason, .. }, _) => reason.exit_code(),
        },
        End::Refused { reason, .. } | End::NeverStarted { reason, .. } => reason.exit_code(),
        // Relay itself stopped the task, on request or past its deadline.
        End::Stopped { reason: reason @ Reason::Cancelled, .. } => stopping.unwrap_or(reason.exit_code()),
        End::Stopped { reason: reason @ Reason::TimedOut, .. } => reason.exit_code(),
        End::Stopped { reason, started: false, .. } if never_ran(*reason) => ExitCode::NeverStarted,
        End::Stopped { .. } | End::Silent { .. } => ExitCode::Unknown,
    })
}

/// Whether the outcome is open. If it is, what is left in the queue may still be needed.
pub fn is_open(end: Option<&End>) -> bool {
    match end {
        None | Some(End::Silent { .. }) => true,
        Some(End::Stopped { reason, started, .. }) => *started || !never_ran(*reason),
        Some(_) => false,
    }
}

/// Whether another deployment holds the target, as seen by the launcher or by the runner.
pub fn is_busy(end: &End) -> bool {
    match end {
        End::Refused { reason, .. } => *reason == Reason::Busy,
        End::Finished { finished, .. } => matches!(finished.outcome, Outcome::Ended { reason: Reason::Busy, .. }),
        _ => false,
    }
}

/// Whether ECS says that no container ran. With any other reason, a missing `started` frame proves
/// nothing: it may just be late, because a queue guarantees no delivery time.
pub fn never_ran(reason: Reason) -> bool {
    reason.exit_code() == ExitCode::NeverStarted
}
