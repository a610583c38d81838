//! How far a deployment is, in words that a tag can hold (clause NAM-7).

use std::fmt;
use std::str::FromStr;

use relay_engine::conclude::{self, Strict};
use relay_engine::{End, Inbox};
use relay_protocol::keys::Cached;

/// How far a deployment is. A later state is greater.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Nothing is known of what became of the request.
    #[default]
    Published,
    /// The launcher has started a task for it.
    Admitted,
    /// ECS is starting the task.
    Starting,
    /// The runner has spoken.
    Running,
    /// It is over, and nothing says how it ended.
    Over,
    /// The launcher refused it.
    Refused,
    /// The launcher allowed it, and no task came of it.
    NeverStarted,
    /// It ended with this exit code of `relay deploy`.
    Finished(u8),
}

impl State {
    /// The state that a reader of the queue knows.
    pub(crate) fn of(inbox: &Inbox<Cached>) -> Self {
        match inbox.poll_end() {
            Some(End::Refused { .. }) => Self::Refused,
            Some(End::NeverStarted { .. }) => Self::NeverStarted,
            Some(end) => Self::Finished(conclude::conclude(Some(end), None, Strict::default()).code()),
            None if inbox.first().is_some() => Self::Running,
            None if inbox.task_arn().is_some() => Self::Admitted,
            None => Self::Published,
        }
    }

    /// Whether nothing of it runs any more.
    pub(crate) fn is_over(&self) -> bool {
        *self >= Self::Over
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Admitted => "admitted",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Over => "over",
            Self::Refused => "refused",
            Self::NeverStarted => "never started",
            Self::Finished(code) => return write!(f, "exit {code}"),
        })
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(code) = text.strip_prefix("exit ") {
            return code.parse().map(Self::Finished).map_err(|_| ());
        }
        let fixed = [
            Self::Published,
            Self::Admitted,
            Self::Starting,
            Self::Running,
            Self::Over,
            Self::Refused,
            Self::NeverStarted,
        ];
        fixed.into_iter().find(|state| state.to_string() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for state in [State::Published, State::Running, State::NeverStarted, State::Finished(0), State::Finished(137)] {
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        for odd in ["", "exit", "exit 256", "exit -1", "Running"] {
            assert_eq!(odd.parse::<State>(), Err(()), "{odd}");
        }
        assert!(State::Finished(0).is_over() && State::Refused.is_over() && !State::Running.is_over());
    }
}
