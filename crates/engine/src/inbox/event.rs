//! What a reader tells: each thing that happened, and the one end.

use std::time::Duration;

use relay_protocol::frame::{Chunk, Finished, LauncherKind};
use relay_protocol::outcome::Reason;

/// Something that happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The launcher spoke.
    Launcher(LauncherKind),
    /// The runner started.
    Started {
        /// The steps.
        steps: Vec<String>,
        /// The task.
        task_arn: String,
        /// How long a step may take to end when it is asked to stop.
        grace: Duration,
    },
    /// A step begins.
    Step {
        /// From 0.
        index: usize,
        /// Its name.
        name: String,
        /// Whether it belongs to the rollback.
        rollback: bool,
    },
    /// Output, to be written now.
    Output(Vec<Chunk>),
    /// Relay's own words, from the runner.
    Note(String),
    /// Frames that never came (clause FRM-11).
    Gap(Missing),
}

/// What is missing of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Frames that never came or were damaged.
    pub frames: u64,
    /// Bytes of stdout and stderr, as far as their count is known.
    pub bytes: u64,
}

/// How it ended, as far as anybody here knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The runner said so.
    Finished {
        /// Its last frame.
        finished: Box<Finished>,
        /// What was lost on the way; zero when counts and digests agree.
        missing: Missing,
        /// Whether lengths and digests of both streams are what the runner says.
        verified: bool,
    },
    /// The launcher refused it.
    Refused {
        /// Which check.
        reason: Reason,
        /// For people.
        message: String,
    },
    /// ECS did not start it.
    NeverStarted {
        /// What kind of failure.
        reason: Reason,
        /// ECS's words.
        message: String,
    },
    /// ECS says that the task has stopped, and its last frame never came.
    Stopped {
        /// What kind of end.
        reason: Reason,
        /// ECS's words.
        message: String,
        /// Whether the runner had started.
        started: bool,
    },
    /// A clock ran out.
    Silent {
        /// What was waited for.
        waiting_for: &'static str,
        /// How long.
        after: Duration,
        /// The task, when it is known.
        task_arn: Option<String>,
    },
}
