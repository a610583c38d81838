//! The timeouts: how long a reader waits for each thing, and the longest that all of it can take
//! (promise P4).

use std::time::Duration;

/// How long after its own deadline a runner may take to report its end. Covers the skew between two
/// clocks, and a slow end.
pub(crate) const OVERDUE: Duration = Duration::from_secs(300);

/// For how long in total frames that still arrive can delay the end. In an hour, more can be read
/// than a queue can hold.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(3_600);

/// How long the reader waits for each thing. Every deployment ends within [`Timeouts::bound`]
/// (promise P4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the publication to the first frame of the launcher or the runner.
    pub admission: Duration,
    /// From `admitted` to `started`.
    pub start: Duration,
    /// Between two frames of a runner that has started. It sends a frame at least every 15 s.
    pub silence: Duration,
    /// How long to wait for missing frames, from the last frame or from the report of ECS that the
    /// task stopped.
    pub drain: Duration,
    /// For how long in total the other clocks stand still while SQS is unreachable.
    pub outage: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { admission: s(300), start: s(900), silence: s(120), drain: s(60), outage: s(900) }
    }
}

impl Timeouts {
    /// The longest that a reader waits, counted from the publication, whether frames arrive in
    /// time, late, twice or never. `run` is the time from the runner's start to the deadline that
    /// it names: the target's timeout, its grace and its rollback.
    ///
    /// It is the sum of what can follow one another: the admission, the start, the run, the report
    /// of an overdue end, the frames that are still missing then, and the time for which SQS was
    /// unreachable. It does not include the time for which the reader's own output was blocked, nor
    /// the time that an attaching reader waits for frames that another reader left.
    pub fn bound(&self, run: Duration) -> Duration {
        [self.start, run, OVERDUE, DRAIN_MAX, self.drain, self.outage]
            .into_iter()
            .fold(self.admission, Duration::saturating_add)
    }
}
