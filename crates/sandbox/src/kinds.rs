//! The kinds of faults: one table, with what each does and to which operations it belongs. The rules are in `faults`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dispatch::Service;

/// One line for each kind: variant, name in a fault file, the operations that it belongs to, what happens.
macro_rules! kinds {
    ($($variant:ident = $name:literal $(| $alias:literal)?, $place:ident, $what:literal;)*) => {
        /// What can go wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        pub(crate) enum Kind {
            $(#[doc = $what] #[serde(rename = $name $(, alias = $alias)?)] $variant,)*
        }

        impl Kind {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            pub(crate) fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            fn place(self) -> Place {
                match self { $(Self::$variant => Place::$place,)* }
            }
        }
    };
}

kinds! {
    Error = "error", Request, "it fails with the service's internal error, or with `code`";
    Throttle = "throttle", Request, "it is told that it asks too often";
    Outage = "outage", Request, "the service is away: with `from_ms` and `until_ms` for so long";
    TimeoutBefore = "timeout-before", Request, "no answer, and no effect";
    TimeoutAfter = "timeout-after" | "lost-response", Request, "it has its effect, and the answer is lost; also `lost-response`";
    Duplicate = "duplicate", Request, "it happens twice; a message or an event is delivered twice";
    Delay = "delay", Any, "it takes so long; a message or an event comes so late; of `runtime:Init`, a slow cold start";
    HoldBefore = "hold-before", Request, "it is held before its effect, until other rules are set; `GET /_sandbox/held` lists what is held";
    HoldAfter = "hold-after", Request, "it has its effect, and its answer is held until other rules are set";
    Crash = "crash", Any, "it has its effect, then the launcher or runner that asked is killed: without an answer, or `delay_ms` after it";
    Reorder = "reorder", Ordered, "messages come in any order; an event comes after the next one, or after `delay_ms`";
    PartialBatch = "partial-batch", Batch, "at least one entry of the batch fails";
    Conflict = "conflict", Conditional, "two are said to have raced: S3's ConditionalRequestConflict, ECS's ConflictException";
    NotVisible = "not-visible", NewQueue, "the new queue is not there yet for `delay_ms`, for anybody";
    Lost = "lost", Event, "the event is accepted and never delivered";
    ColdStart = "cold-start", Invocation, "a new process is started for this invocation";
    RunTaskFailures = "run-task-failures", Task, "an answer without a task: `failures` with `code` as the reason, else no capacity";
    NeverStarted = "never-started", Task, "the task stays in PENDING, or with `code = \"PROVISIONING\"` in that";
    ImagePull = "image-pull", Task, "the task fails to start: CannotPullContainerError";
    NoCapacity = "no-capacity", Task, "the task fails to start: capacity is unavailable";
    NoNetwork = "no-network", Task, "the task fails to start: its network interface does not come";
    TaskKilled = "task-killed", Task, "the container is killed so long after its start: exit code 137";
    OutOfMemory = "out-of-memory", Task, "the container is killed so long after its start: exit code 137, OutOfMemoryError";
    SpotInterruption = "spot-interruption", Task, "the running task is stopped: a Spot interruption";
    Maintenance = "maintenance", Task, "the running task is stopped: AWS needs the machine";
    StoppedByHand = "stopped-by-hand", Task, "the running task is stopped by a user";
}

/// To which operations a kind belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Any,
    Request,
    Ordered,
    Batch,
    Conditional,
    NewQueue,
    Event,
    Invocation,
    Task,
}

impl Kind {
    /// Why this kind has no meaning for this operation; `None` where it has.
    pub(crate) fn unsuited(self, service: Service, operation: &str) -> Option<&'static str> {
        let (belongs, why) = match self.place() {
            Place::Any => (true, ""),
            Place::Request => (
                service != Service::Runtime,
                "the Runtime API is on the function's own machine: not it fails, but the process that asks",
            ),
            Place::Ordered => (
                matches!((service, operation), (Service::Sqs, "ReceiveMessage") | (Service::Lambda, "Invoke")),
                "it brings nothing that has an order",
            ),
            Place::Batch => (operation.ends_with("Batch"), "only a batch has parts that fail by themselves"),
            Place::Conditional => (
                matches!((service, operation), (Service::S3, "PutObject" | "DeleteObject") | (Service::Ecs, "RunTask")),
                "it has no condition for which two could race",
            ),
            Place::NewQueue => ((service, operation) == (Service::Sqs, "CreateQueue"), "it makes no queue"),
            Place::Event => {
                ((service, operation) == (Service::Lambda, "Invoke"), "AWS loses only events, not what it has answered")
            }
            Place::Invocation => ((service, operation) == (Service::Runtime, "Next"), "it begins no invocation"),
            Place::Task => ((service, operation) == (Service::Ecs, "RunTask"), "it starts no task"),
        };
        (!belongs).then_some(why)
    }
}

/// A kind, for documents and tests.
#[derive(Debug, Clone, Serialize)]
pub struct KindOfFault {
    /// Its name in a fault file.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Operations for which it has no meaning, as `service:Operation`, with the reason.
    pub unsuited: BTreeMap<String, &'static str>,
}

/// All kinds, with the operations that they do not belong to.
pub fn kinds_of_faults() -> Vec<KindOfFault> {
    let describe = |kind: &Kind| KindOfFault {
        name: kind.name(),
        what: kind.what(),
        unsuited: Service::ALL
            .into_iter()
            .flat_map(|service| service.operation_names().map(move |operation| (service, operation)))
            .filter_map(|(service, operation)| {
                Some((format!("{}:{operation}", service.name()), kind.unsuited(service, operation)?))
            })
            .collect(),
    };
    Kind::ALL.iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_each_kind_in_these_words() {
        let document = include_str!("../../../docs/reliability.md");
        for kind in Kind::ALL {
            let line = format!("| `{}` | {} |", kind.name(), kind.what());
            assert!(document.contains(&line), "docs/reliability.md: {line}");
        }
        let example = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(crate::faults::Faults::parse(example).unwrap().rule.len(), 3);
    }
}
