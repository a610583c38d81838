//! The clocks: how long a reader waits for what, and the longest that all of it can take (promise P4).

use std::time::Duration;

/// How long after its own deadline a runner may take to say so: the skew of two clocks, and a slow end.
pub(crate) const OVERDUE: Duration = Duration::from_secs(300);

/// For how long, in all, frames that still come put off the end: in an hour more is read than a queue can hold.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(3_600);

/// How long the reader waits for what. Every deployment ends inside [`Timeouts::bound`] (promise P4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the publication to the first word of the launcher or the runner.
    pub admission: Duration,
    /// From `admitted` to `started`.
    pub start: Duration,
    /// Between two frames of a runner that has started; it says something every 15 s.
    pub silence: Duration,
    /// From the last frame, or from ECS's word that the task stopped, to the frames that are still missing.
    pub drain: Duration,
    /// For how long, in all, the other clocks stand still while SQS cannot be asked.
    pub outage: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { admission: s(300), start: s(900), silence: s(120), drain: s(60), outage: s(900) }
    }
}

impl Timeouts {
    /// The longest that a reader waits from the publication on, whatever comes, comes late, comes twice or never comes. `run` is the time
    /// from the runner's start to the deadline that it names: the target's time-out, its grace, its rollback.
    ///
    /// It is the sum of what can come one after the other: the admission, the start, the run, the word of an end that is overdue, the frames
    /// that are still missing then, and for how long SQS could not be asked. Not in it: the time for which the reader's own output was
    /// blocked, and what one who attaches waits for frames that another has left.
    pub fn bound(&self, run: Duration) -> Duration {
        [self.start, run, OVERDUE, DRAIN_MAX, self.drain, self.outage]
            .into_iter()
            .fold(self.admission, Duration::saturating_add)
    }
}
