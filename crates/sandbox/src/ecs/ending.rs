//! How ECS says that a task has ended otherwise than by itself: the faults of RunTask that show later, as data.

use std::time::Duration;

use crate::faults::Effects;
use crate::kinds::Kind;

/// What is to become of a task, from the moment at which it would start to run.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// It stays where it is until somebody stops it: in PROVISIONING, else in PENDING.
    Stays { provisioning: bool },
    /// No container ever runs.
    FailsToStart { after: Duration, words: String },
    /// The container is killed; ECS says no more than its exit code, or why.
    Killed { after: Duration, container: Option<&'static str> },
    /// It is stopped as by StopTask: SIGTERM, the grace, SIGKILL.
    Stopped { after: Duration, code: &'static str, words: String },
}

/// What the rules ask of the task that this RunTask makes.
pub(super) fn fate(effects: &Effects) -> Option<Fate> {
    effects.list.iter().find_map(|effect| {
        let after = effect.time.unwrap_or_default();
        let words = |own: &str| effect.words.clone().unwrap_or_else(|| own.to_owned());
        Some(match effect.kind {
            Kind::NeverStarted => Fate::Stays { provisioning: effect.words.as_deref() == Some("PROVISIONING") },
            Kind::ImagePull => Fate::FailsToStart {
                after,
                words: words(
                    "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to resolve ref \
                     111111111111.dkr.ecr.eu-west-1.amazonaws.com/relay/tool@sha256:0000: not found",
                ),
            },
            Kind::NoCapacity => Fate::FailsToStart { after, words: words(NO_CAPACITY) },
            Kind::NoNetwork => Fate::FailsToStart {
                after,
                words: words("Timeout waiting for network interface provisioning to complete."),
            },
            Kind::TaskKilled => Fate::Killed { after, container: None },
            Kind::OutOfMemory => {
                Fate::Killed { after, container: Some("OutOfMemoryError: Container killed due to memory usage") }
            }
            Kind::SpotInterruption => {
                Fate::Stopped { after, code: "SpotInterruption", words: words("Your Spot Task was interrupted.") }
            }
            Kind::Maintenance => Fate::Stopped {
                after,
                code: "TerminationNotice",
                words: words("ECS is performing maintenance on the underlying infrastructure hosting the task."),
            },
            Kind::StoppedByHand => Fate::Stopped { after, code: "UserInitiated", words: words("Task stopped by user") },
            _ => return None,
        })
    })
}

/// ECS's words where Fargate has no room, of RunTask and of a task.
pub(super) const NO_CAPACITY: &str =
    "Capacity is unavailable at this time. Please try again later or in a different availability zone";
