//! The interface between services and host: an operation takes a call, and returns a reaction and
//! effects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::Notify;

use super::call::Call;
use super::fate::Fate;
use super::invocation::Timer;
use crate::wire::answer::Answer;
use crate::wire::error::Outcome;

/// What the host is to do for a service.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Give an event to the function, after a while.
    Invoke { source: &'static str, event: Value, delay: Duration },
    /// Call `Lambda::fire` with this timer after a delay.
    Later(Duration, Timer),
    /// Kill the launcher of this slot.
    KillLauncher(usize),
    /// Start the process of a task.
    StartTask { arn: String, fate: Option<Fate> },
    /// Ask the process of a task to stop.
    StopTask { arn: String },
    /// Log something that is not a call.
    Note { service: &'static str, operation: &'static str, error: Option<String>, detail: Map<String, Value> },
}

/// The result of an operation.
#[derive(Debug)]
pub(crate) enum Reaction {
    Answer(Answer),
    /// No answer yet. Run the call again when `bell` rings, or at `until`.
    Wait {
        bell: Arc<Notify>,
        until: Instant,
    },
}

impl From<Answer> for Reaction {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// An operation of the service `S`.
pub(crate) type Operation<S> = fn(&mut S, &mut Call, &mut Vec<Effect>) -> Outcome<Reaction>;

/// The operations of a service, by name.
pub(crate) type Table<S> = &'static [(&'static str, Operation<S>)];

/// What the services need to know of the set-up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// A name cannot be used again for this long after DeleteQueue (AWS: 60 s).
    pub(crate) queue_deleted_recently: Duration,
    /// Whether a RunTask with `failures` uses up its client token. AWS does not say.
    pub(crate) failures_use_up_token: bool,
    /// Whether task events go to the launcher.
    pub(crate) task_events: bool,
    /// Delays before the second and the third try of an asynchronous invocation.
    pub(crate) lambda_retry: [Duration; 2],
    /// The function's time-out.
    pub(crate) function_timeout: Duration,
    /// Life of credentials that are minted.
    pub(crate) credentials: Duration,
}
