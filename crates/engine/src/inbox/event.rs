//! The reports of a reader: each event, and the one end.

use std::time::Duration;

use relay_protocol::frame::{Chunk, Finished, LauncherKind, Tried};
use relay_protocol::outcome::Reason;

use crate::proof::Unproved;

/// Something that happened. Events come in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The launcher sent a frame.
    Launcher(LauncherKind),
    /// The runner started.
    Started {
        /// The names of the steps, in order.
        steps: Vec<String>,
        /// The ARN of the task.
        task_arn: String,
        /// How long a step may take to end when it is asked to stop.
        grace: Duration,
    },
    /// A step begins.
    Step {
        /// Its index, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// Whether it belongs to the rollback.
        rollback: bool,
    },
    /// Output, to be written now.
    Output(Vec<Chunk>),
    /// A message of relay's own, from the runner.
    Note(String),
    /// Frames that never came (clause FRM-11).
    Gap(Missing),
}

/// The amount of output that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Frames that never came or were damaged.
    pub frames: u64,
    /// Bytes of stdout and stderr, as far as their number is known.
    pub bytes: u64,
}

/// How the deployment ended, as far as this reader can know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The runner reported the end.
    Finished {
        /// The content of its last frame.
        finished: Box<Finished>,
        /// The frames and bytes that were lost on the way; zero if the counts and digests agree.
        missing: Missing,
        /// Whether the lengths and digests of both streams match what the runner reported.
        verified: bool,
        /// Whether the record proves this end.
        record: Result<(), Unproved>,
    },
    /// The launcher refused the request.
    Refused {
        /// The check that failed.
        reason: Reason,
        /// The explanation, for people.
        message: String,
    },
    /// The launcher answered a dry run.
    Tried(Box<Tried>),
    /// ECS did not start the task.
    NeverStarted {
        /// The kind of failure.
        reason: Reason,
        /// The explanation from ECS.
        message: String,
    },
    /// ECS says that the task has stopped, and the runner's last frame never came.
    Stopped {
        /// The kind of end.
        reason: Reason,
        /// The explanation from ECS.
        message: String,
        /// Whether the runner had started.
        started: bool,
    },
    /// A clock ran out.
    Silent {
        /// A name for the awaited frame or end, for people.
        waiting_for: &'static str,
        /// How long it waited.
        after: Duration,
        /// The ARN of the task, if it is known.
        task_arn: Option<String>,
    },
}
