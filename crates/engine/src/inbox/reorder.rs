//! Puts frames back in order, drops copies, and decides where a reader begins that joins late (clauses FRM-7, FRM-11,
//! FRM-19).
//!
//! A reader that joins late cannot tell whether a frame is missing because another reader had it or because it is
//! still to come. So it first collects what is there for as long as the queue hides what the other had received. Then
//! the lowest frame is its first. What is missing further on it waits for; but where new frames come for long enough,
//! it goes on behind the hole, and a gap is told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use relay_protocol::frame::{RunnerFrame, RunnerKind};
use relay_protocol::limits::HEARTBEAT_SECONDS;

use super::receipts::Token;

/// Bytes of frames that wait, for an earlier one or for a vouch. Whoever can write to the queue could otherwise fill the
/// CLI's memory. A frame that finds no room stays in the queue and comes again.
pub(super) const HELD_MAX: usize = 24 * 1_024 * 1_024;

/// A late reader collects for at most so many settling times, while more comes of what another has left.
const SETTLE_MAX: u32 = 5;

/// How long new frames come before a late reader goes on behind a hole: longer than a batch that is stuck takes for all
/// its tries.
const HOLE: Duration = Duration::from_secs(120);

/// What a pause between two new frames counts towards that at most: a runner that is alive is heard so often. While its
/// link is down, nothing is to be learned about a hole.
const BEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first frame: the request was just published.
    Fresh,
    /// Where another reader has stopped on purpose: frames below `acknowledged` are written, and nothing above was
    /// deleted.
    Resume {
        /// The first frame to read.
        acknowledged: u64,
    },
    /// Wherever another reader has stopped: frames that it had deleted do not come again. What it had received and not
    /// deleted does, within `settle`.
    Join {
        /// Frames below this number are known to be written.
        acknowledged: u64,
        /// The queue's visibility timeout.
        settle: Duration,
    },
}

impl Start {
    /// Frames below this number are known to be written.
    pub(super) fn acknowledged(self) -> u64 {
        match self {
            Self::Fresh => 0,
            Self::Resume { acknowledged } | Self::Join { acknowledged, .. } => acknowledged,
        }
    }
}

/// What became of a frame that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is held, and was not there before.
    New,
    /// It is a copy of one that is held.
    Again,
    /// It was handed out already, here or, most likely, by the reader before this one.
    Past,
    /// It found no room: it stays in the queue and comes again.
    NoRoom,
    /// It comes after it was given up. Nobody has printed it: it stays in the queue, for a reader that joins.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) kind: RunnerKind,
    pub(super) tokens: Vec<Token>,
    size: usize,
}

/// What is known of the first frame.
#[derive(Debug)]
enum Lead {
    /// Not known yet: what is there is collected until then.
    Collecting { until: Duration, latest: Duration, settle: Duration, acknowledged: u64 },
    /// It is `first`. Frames from `acknowledged` on that are lower came too late.
    Known { first: u64, acknowledged: u64, hole: Option<Hole> },
}

/// A missing frame that another reader may have had. Absent where everything missing is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    at: u64,
    /// For how long new frames came meanwhile, and when the last of them did.
    waited: Duration,
    last: Duration,
}

#[derive(Debug)]
pub(super) struct Reorder {
    lead: Lead,
    /// The next frame to hand out.
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    given_up: Vec<Range<u64>>,
    /// Frames below the first that came too late.
    earlier: u64,
}

impl Reorder {
    pub(super) fn new(start: Start, now: Duration) -> Self {
        let acknowledged = start.acknowledged();
        let lead = match start {
            Start::Fresh | Start::Resume { .. } => Lead::Known { first: acknowledged, acknowledged, hole: None },
            Start::Join { settle, .. } => {
                Lead::Collecting { until: now + settle, latest: now + settle * SETTLE_MAX, settle, acknowledged }
            }
        };
        let (held, given_up) = (BTreeMap::new(), Vec::new());
        Self { lead, next: acknowledged, held, held_bytes: 0, given_up, earlier: 0 }
    }

    /// The next frame to hand out.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The first frame of this reader, once it is known.
    pub(super) fn first(&self) -> Option<u64> {
        match self.lead {
            Lead::Collecting { .. } => None,
            Lead::Known { first, .. } => Some(first),
        }
    }

    /// Frames below the first that came too late.
    pub(super) fn earlier(&self) -> u64 {
        self.earlier
    }

    /// When the first frame is to be decided, as long as it is not.
    pub(super) fn settles_at(&self) -> Option<Duration> {
        match self.lead {
            Lead::Collecting { until, .. } => Some(until),
            Lead::Known { .. } => None,
        }
    }

    /// Nobody was listening for `lost`: what another has left had no time to come.
    pub(super) fn stall(&mut self, lost: Duration) {
        if let Lead::Collecting { latest, .. } = &mut self.lead {
            *latest += lost;
        }
    }

    /// The lowest frame that is there becomes the first; `false` while none is, and the wait goes on.
    pub(super) fn settle(&mut self, now: Duration) -> bool {
        let Lead::Collecting { until, acknowledged, .. } = &mut self.lead else { return false };
        let Some((&first, _)) = self.held.first_key_value() else {
            *until = now + Duration::from_secs(1);
            return false;
        };
        let hole = Some(Hole { at: first, waited: Duration::ZERO, last: now });
        self.lead = Lead::Known { first, acknowledged: *acknowledged, hole };
        self.next = first;
        true
    }

    /// A frame came.
    pub(super) fn insert(&mut self, now: Duration, token: Token, frame: RunnerFrame, size: usize) -> Arrival {
        let seq = frame.seq;
        if self.given_up.iter().any(|gap| gap.contains(&seq)) {
            return Arrival::GivenUp;
        }
        if seq < self.next {
            if let Lead::Known { first, acknowledged, .. } = self.lead
                && (acknowledged..first).contains(&seq)
            {
                self.earlier += 1;
            }
            return Arrival::Past;
        }
        if let Some(held) = self.held.get_mut(&seq) {
            held.tokens.push(token);
            return Arrival::Again;
        }
        if seq != self.next && self.held_bytes + size > HELD_MAX && !self.make_room(seq) {
            return Arrival::NoRoom;
        }
        self.put_off(now, seq);
        self.held_bytes += size;
        self.held.insert(seq, Held { kind: frame.kind, tokens: vec![token], size });
        Arrival::New
    }

    /// The next frame in order, if it is there.
    pub(super) fn pop(&mut self) -> Option<Held> {
        self.first()?;
        let held = self.held.remove(&self.next)?;
        self.held_bytes -= held.size;
        self.next += 1;
        Some(held)
    }

    /// Gives up what is missing before the lowest frame that is there: how many frames. `None` when nothing is there.
    pub(super) fn skip(&mut self) -> Option<u64> {
        let (&seq, _) = self.held.first_key_value()?;
        let frames = seq - self.next;
        if frames > 0 {
            self.given_up.push(self.next..seq);
        }
        self.next = seq;
        Some(frames)
    }

    /// Something new came: whether what is missing next has been missing for so long that another reader must have had
    /// it. The runner sends the lowest frames first, so what is to come comes before much else does.
    pub(super) fn is_hole(&mut self, now: Duration) -> bool {
        let Lead::Known { hole: Some(hole), .. } = &mut self.lead else { return false };
        let pause = now.saturating_sub(hole.last).min(BEAT);
        let waited = if hole.at == self.next { hole.waited + pause } else { Duration::ZERO };
        *hole = Hole { at: self.next, waited, last: now };
        waited >= HOLE
    }

    /// As long as what was left is still coming, there is more of it; but a busy tool must not put the beginning off
    /// without end.
    fn put_off(&mut self, now: Duration, seq: u64) {
        if let Lead::Collecting { until, latest, settle, .. } = &mut self.lead
            && self.held.last_key_value().is_none_or(|(&highest, _)| seq < highest)
        {
            *until = (*until).max((now + *settle).min(*latest));
        }
    }

    /// While it collects, a reader keeps the lowest frames: the highest goes back to the queue for one that is lower.
    fn make_room(&mut self, seq: u64) -> bool {
        let collecting = matches!(self.lead, Lead::Collecting { .. });
        if !collecting || self.held.last_key_value().is_none_or(|(&highest, _)| highest < seq) {
            return false;
        }
        if let Some((_, held)) = self.held.pop_last() {
            self.held_bytes -= held.size;
        }
        true
    }
}
