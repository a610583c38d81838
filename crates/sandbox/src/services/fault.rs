//! The table of fault kinds, with what each does and to which operations it applies; and the faults
//! of one call. The host's rules choose those (`host/faults.rs`).

use std::time::Duration;

use serde::Deserialize;

use crate::wire::error::AwsError;
use crate::wire::service::Service;

/// One line for each kind: variant, name in a fault file, the operations that it belongs to, what
/// happens.
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
    Throttle = "throttle", Request, "it fails with the service's throttling error";
    Outage = "outage", Request, "the service is unavailable; `from_ms` and `until_ms` set the period";
    TimeoutBefore = "timeout-before", Request, "no answer, and no effect";
    TimeoutAfter = "timeout-after" | "lost-response", Request, "it has its effect, and the answer is lost; also `lost-response`";
    Duplicate = "duplicate", Request, "it happens twice; a message or an event is delivered twice";
    Delay = "delay", Any, "it takes `delay_ms` longer; a message or an event arrives `delay_ms` late; for `runtime:Init`, a slow cold start";
    HoldBefore = "hold-before", Request, "it is held before its effect, until other rules are set; `GET /_sandbox/held` lists what is held";
    HoldAfter = "hold-after", Request, "it has its effect, and its answer is held until other rules are set";
    Crash = "crash", Any, "it has its effect, then the calling launcher or runner is killed: before it gets a response or, with `delay_ms`, that long after it";
    Reorder = "reorder", Ordered, "messages come in any order; an event comes after the next one, or after `delay_ms`";
    PartialBatch = "partial-batch", Batch, "at least one entry of the batch fails";
    Conflict = "conflict", Conditional, "it fails as if it had raced with another call: S3's ConditionalRequestConflict, ECS's ConflictException";
    NotVisible = "not-visible", NewQueue, "the new queue does not exist yet for any caller, for `delay_ms`";
    Lost = "lost", Event, "the event is accepted and never delivered";
    ColdStart = "cold-start", Invocation, "a new process is started for this invocation";
    RunTaskFailures = "run-task-failures", Task, "the response has no task, only `failures`; the reason is `code`, or no capacity by default";
    NeverStarted = "never-started", Task, "the task stays in PENDING, or in PROVISIONING with `code = \"PROVISIONING\"`";
    ImagePull = "image-pull", Task, "the task fails to start: CannotPullContainerError";
    NoCapacity = "no-capacity", Task, "the task fails to start: capacity is unavailable";
    NoNetwork = "no-network", Task, "the task fails to start: its network interface is not provisioned in time";
    TaskKilled = "task-killed", Task, "the container is killed `delay_ms` after its start, with exit code 137";
    OutOfMemory = "out-of-memory", Task, "the container is killed `delay_ms` after its start, with exit code 137 and OutOfMemoryError";
    SpotInterruption = "spot-interruption", Task, "the running task is stopped: a Spot interruption";
    Maintenance = "maintenance", Task, "the running task is stopped for maintenance by AWS";
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
                "the Runtime API is on the function's own machine: it does not fail, but the process that calls it can",
            ),
            Place::Ordered => (
                matches!((service, operation), (Service::Sqs, "ReceiveMessage") | (Service::Lambda, "Invoke")),
                "it delivers nothing that could be reordered",
            ),
            Place::Batch => (operation.ends_with("Batch"), "only a batch has entries that can fail separately"),
            Place::Conditional => (
                matches!((service, operation), (Service::S3, "PutObject" | "DeleteObject") | (Service::Ecs, "RunTask")),
                "it has no condition over which two callers could race",
            ),
            Place::NewQueue => ((service, operation) == (Service::Sqs, "CreateQueue"), "it makes no queue"),
            Place::Event => (
                (service, operation) == (Service::Lambda, "Invoke"),
                "AWS can lose an accepted event, but not a completed call",
            ),
            Place::Invocation => ((service, operation) == (Service::Runtime, "Next"), "it begins no invocation"),
            Place::Task => ((service, operation) == (Service::Ecs, "RunTask"), "it starts no task"),
        };
        (!belongs).then_some(why)
    }
}

/// One thing that is to go wrong.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Drawn from `delay_ms`, where the rule has it.
    pub(crate) time: Option<Duration>,
    /// The rule's `code`: an error code, or ECS's words.
    pub(crate) words: Option<String>,
}

/// What is to go wrong with one call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    pub(crate) list: Vec<Fault>,
    /// The number of the plan that chose these faults. Held calls wait until another plan is in
    /// force.
    pub(crate) plan: u64,
    /// Randomness for the operation's own choices (which entry, which order).
    pub(crate) salt: u64,
}

impl Faults {
    pub(crate) fn get(&self, kind: Kind) -> Option<&Fault> {
        self.list.iter().find(|fault| fault.kind == kind)
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.get(kind).is_some()
    }

    /// How long the operation, or what it brings, is to take.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.get(Kind::Delay).map(|fault| fault.time.unwrap_or_else(|| spread([10, 200], self.salt)))
    }

    /// The error that is answered in place of the operation's own answer.
    pub(crate) fn failure(&self, service: Service) -> Option<AwsError> {
        self.list.iter().find_map(|fault| {
            let (status, code) = match fault.kind {
                Kind::Error => (500, service.internal_error()),
                Kind::Throttle => (if service == Service::S3 { 503 } else { 400 }, service.throttle_error()),
                Kind::Outage => (503, "ServiceUnavailable"),
                Kind::Conflict if service == Service::S3 => (409, "ConditionalRequestConflict"),
                Kind::Conflict => (409, "ConflictException"),
                _ => return None,
            };
            let message = "A fault of the sandbox.";
            Some(match &fault.words {
                Some(code) => AwsError::new(if status == 500 { 400 } else { status }, code.clone(), message),
                None => AwsError::new(status, code, message),
            })
        })
    }
}

/// A random duration between the two bounds, in milliseconds.
pub(crate) fn spread([low, high]: [u64; 2], random: u64) -> Duration {
    Duration::from_millis(low + random % (high.saturating_sub(low).saturating_add(1)))
}

/// SplitMix64: small, seedable, and good enough to choose faults.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn unit(&mut self) -> f64 {
        let top = u32::try_from(self.next() >> 32).unwrap_or(0);
        f64::from(top) / 4_294_967_296.0
    }

    /// A number below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap_or(0) % bound.max(1)
    }
}
