//! The timers: what the inbox waits for, since when, and until when (promise P4).

use std::time::Duration;

use relay_protocol::Timestamp;

use super::timeouts::{DRAIN_MAX, OVERDUE, Timeouts};

/// The thing that the inbox waits for. Each phase holds the time from which its clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The launcher's answer, or any other frame.
    Answer { since: Duration },
    /// The runner's start.
    Start { since: Duration },
    /// The runner's next frame.
    Frame { since: Duration },
    /// Frames that are still missing; the end is known. `from` moves on with each new frame, up to
    /// `limit`.
    Drain { from: Duration, limit: Duration },
}

#[derive(Debug)]
pub(super) struct Timers {
    timeouts: Timeouts,
    phase: Phase,
    /// Whether another reader may have had the launcher's answer.
    joined: bool,
    published: Duration,
    /// A time of the caller and the wall-clock time at that moment. Deadlines on the wire are
    /// wall-clock times.
    wall: (Duration, Timestamp),
    /// When even the runner's own deadline is long past. The inbox then stops waiting, even if
    /// frames still arrive.
    overdue: Option<Duration>,
    /// For how long the clocks may still stand while SQS is unreachable.
    outage: Duration,
}

impl Timers {
    /// For a request that was published at `now`; `today` is the wall-clock time at `now`.
    pub(super) fn new(timeouts: Timeouts, joined: bool, now: Duration, today: Timestamp) -> Self {
        let (phase, outage) = (Phase::Answer { since: now }, timeouts.outage);
        Self { timeouts, phase, joined, published: now, wall: (now, today), overdue: None, outage }
    }

    /// The launcher has admitted the request.
    pub(super) fn admitted(&mut self, now: Duration) {
        if let Phase::Answer { .. } = self.phase {
            self.phase = Phase::Start { since: now };
        }
    }

    /// The runner has started.
    pub(super) fn started(&mut self, now: Duration) {
        if let Phase::Answer { .. } | Phase::Start { .. } = self.phase {
            self.phase = Phase::Frame { since: now };
        }
    }

    /// A new frame arrived, not a copy.
    pub(super) fn heard(&mut self, now: Duration) {
        match &mut self.phase {
            Phase::Answer { .. } | Phase::Start { .. } => {}
            Phase::Frame { since } => *since = (*since).max(now),
            // While new frames arrive, the missing ones may still come: there may be many of them.
            Phase::Drain { from, limit } => *from = (*from).max(now).min(*limit),
        }
    }

    /// The end is known. The wait for missing frames runs from `from`.
    pub(super) fn drain(&mut self, from: Duration) {
        if !self.is_draining() {
            self.phase = Phase::Drain { from, limit: from + DRAIN_MAX };
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.phase, Phase::Drain { .. })
    }

    /// Sets the deadline that the runner names.
    pub(super) fn ends_by(&mut self, deadline: Timestamp) {
        self.overdue = Some(self.long_after(deadline));
    }

    /// Sets a deadline that somebody else names; the runner's own takes precedence.
    pub(super) fn may_end_by(&mut self, deadline: Timestamp) {
        let overdue = self.long_after(deadline);
        self.overdue.get_or_insert(overdue);
    }

    fn long_after(&self, deadline: Timestamp) -> Duration {
        let (then, today) = self.wall;
        then + Duration::from_secs(u64::try_from(deadline.since(today)).unwrap_or_default()) + OVERDUE
    }

    /// Nobody was reading for `lost`: no clock runs for that time.
    pub(super) fn stall(&mut self, lost: Duration) {
        self.published += lost;
        if let Some(overdue) = &mut self.overdue {
            *overdue += lost;
        }
        match &mut self.phase {
            Phase::Answer { since } | Phase::Start { since } | Phase::Frame { since } => *since += lost,
            Phase::Drain { from, limit } => {
                *from += lost;
                *limit += lost;
            }
        }
    }

    /// The part of `lost` for which the clocks may still stand during an outage.
    pub(super) fn outage(&mut self, lost: Duration) -> Duration {
        let lost = lost.min(self.outage);
        self.outage -= lost;
        lost
    }

    /// When the clock of this phase runs out.
    pub(super) fn due(&self) -> Duration {
        let due = match self.phase {
            Phase::Answer { since } | Phase::Start { since } | Phase::Frame { since } => since + self.clock().1,
            Phase::Drain { from, .. } => return from + self.timeouts.drain,
        };
        self.overdue.map_or(due, |overdue| overdue.min(due))
    }

    /// Names the thing that the inbox waited for in vain, and for how long.
    pub(super) fn ran_out(&self, now: Duration) -> (&'static str, Duration) {
        match self.overdue {
            Some(at) if now >= at => ("the end, which is overdue", now.saturating_sub(self.published)),
            _ => self.clock(),
        }
    }

    fn clock(&self) -> (&'static str, Duration) {
        match self.phase {
            Phase::Answer { .. } if self.joined => ("a frame of the deployment", self.timeouts.start),
            Phase::Answer { .. } => ("the launcher's answer", self.timeouts.admission),
            Phase::Start { .. } => ("the runner's start", self.timeouts.start),
            Phase::Frame { .. } => ("the runner's next frame", self.timeouts.silence),
            Phase::Drain { .. } => ("the missing frames", self.timeouts.drain),
        }
    }
}
