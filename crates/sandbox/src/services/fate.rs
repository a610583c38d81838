//! What a RunTask fault does to its task later, and how ECS reports it.

use std::time::Duration;

use super::fault::{Faults, Kind};

/// What a fault does to a task, instead of letting it run to its own end.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// It stays in PROVISIONING, or else in PENDING, until somebody stops it.
    Stays { provisioning: bool },
    /// No container ever runs.
    FailsToStart { after: Duration, words: String },
    /// The container is killed. ECS reports the exit code and, if `container` is set, a reason.
    Killed { after: Duration, container: Option<&'static str> },
    /// It is stopped as by StopTask: SIGTERM, the grace, SIGKILL.
    Stopped { after: Duration, code: &'static str, words: String },
}

/// What the faults of a RunTask do to its task.
pub(crate) fn fate(faults: &Faults) -> Option<Fate> {
    faults.list.iter().find_map(|fault| {
        let after = fault.time.unwrap_or_default();
        let words = |own: &str| fault.words.clone().unwrap_or_else(|| own.to_owned());
        Some(match fault.kind {
            Kind::NeverStarted => Fate::Stays { provisioning: fault.words.as_deref() == Some("PROVISIONING") },
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

/// ECS's message when Fargate has no capacity, both from RunTask and for a task.
pub(crate) const NO_CAPACITY: &str =
    "Capacity is unavailable at this time. Please try again later or in a different availability zone";
