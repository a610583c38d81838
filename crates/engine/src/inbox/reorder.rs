//! Puts frames back in order, drops copies, and decides where a late reader begins (clauses FRM-7,
//! FRM-11, FRM-19).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use relay_protocol::frame::{RunnerFrame, RunnerKind};
use relay_protocol::limits::HEARTBEAT_SECONDS;

use super::receipts::Token;

/// Bytes of frames that may wait for an earlier frame or for a vouch. Without this limit, anybody
/// who can write to the queue could fill the CLI's memory. A frame that finds no room stays in the
/// queue and arrives again.
pub(super) const HELD_MAX: usize = 24 * 1_024 * 1_024;

/// The longest time for which a late reader collects, in settling times, while more frames of
/// another reader keep arriving.
const SETTLE_MAX: u32 = 5;

/// How long new frames must keep arriving before a late reader goes on behind a hole. This is
/// longer than all the attempts of a batch that is stuck take.
const HOLE: Duration = Duration::from_secs(120);

/// The most that a pause between two new frames counts towards [`HOLE`]. A live runner is heard at
/// least this often. While its link is down, nothing can be learned about a hole.
const BEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first frame: the request has only now been published.
    Fresh,
    /// Where another reader stopped on purpose. Frames below `acknowledged` are written, and no
    /// frame above was deleted.
    Resume {
        /// The first frame to read.
        acknowledged: u64,
    },
    /// Where another reader stopped, for whatever reason. Frames that it had deleted do not come
    /// again. Frames that it had received but not deleted come again within `settle`.
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

/// The result of taking in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is held now, and was not before.
    New,
    /// It is a copy of a frame that is held.
    Again,
    /// It was handed out before, here or, most likely, by the reader before this one.
    Past,
    /// It found no room. It stays in the queue and arrives again.
    NoRoom,
    /// It arrived after this reader gave it up. Nobody has printed it, so it stays in the queue for
    /// a reader that joins.
    GivenUp,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) kind: RunnerKind,
    pub(super) tokens: Vec<Token>,
    size: usize,
}

/// The state of the decision on the first frame.
#[derive(Debug)]
enum Lead {
    /// The first frame is not known yet: frames are collected until this time.
    Collecting { until: Duration, latest: Duration, settle: Duration, acknowledged: u64 },
    /// The first frame is `first`. Frames from `acknowledged` up to it arrived too late.
    Known { first: u64, acknowledged: u64, hole: Option<Hole> },
}

/// A missing frame that another reader may have had. Absent if everything missing is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    at: u64,
    /// For how long new frames have come meanwhile, and when the last one came.
    waited: Duration,
    last: Duration,
}

/// Holds frames until those before them have come.
///
/// A reader that joins late cannot tell whether a missing frame went to another reader or is still
/// to come. It therefore first collects what is there, for the time that the queue hides what the
/// other reader had received. The lowest frame then becomes its first. It waits for frames that are
/// missing after that. If new frames keep arriving for long enough, it goes on behind the hole and
/// reports a gap.
#[derive(Debug)]
pub(super) struct Reorder {
    lead: Lead,
    /// The next frame to hand out.
    next: u64,
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    given_up: Vec<Range<u64>>,
    /// Frames below the first that arrived too late.
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

    /// How many frames below the first arrived too late.
    pub(super) fn earlier(&self) -> u64 {
        self.earlier
    }

    /// When to decide on the first frame, until that is done.
    pub(super) fn settles_at(&self) -> Option<Duration> {
        match self.lead {
            Lead::Collecting { until, .. } => Some(until),
            Lead::Known { .. } => None,
        }
    }

    /// Nobody was reading for `lost`, so what another reader left had no time to arrive.
    pub(super) fn stall(&mut self, lost: Duration) {
        if let Lead::Collecting { latest, .. } = &mut self.lead {
            *latest += lost;
        }
    }

    /// Makes the lowest frame that is there the first. Returns `false` if there is none, and the
    /// wait goes on.
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

    /// Takes in a frame that arrived.
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

    /// Gives up what is missing before the lowest frame that is there, and returns how many frames
    /// that is. Returns `None` if no frame is there.
    pub(super) fn skip(&mut self) -> Option<u64> {
        let (&seq, _) = self.held.first_key_value()?;
        let frames = seq - self.next;
        if frames > 0 {
            self.given_up.push(self.next..seq);
        }
        self.next = seq;
        Some(frames)
    }

    /// Notes that a frame arrived. Returns whether the next missing frame has been missing for so
    /// long that another reader must have had it. The runner sends the lowest frames first, so a
    /// frame that is still to come arrives before much else does.
    pub(super) fn is_hole(&mut self, now: Duration) -> bool {
        let Lead::Known { hole: Some(hole), .. } = &mut self.lead else { return false };
        let pause = now.saturating_sub(hole.last).min(BEAT);
        let waited = if hole.at == self.next { hole.waited + pause } else { Duration::ZERO };
        *hole = Hole { at: self.next, waited, last: now };
        waited >= HOLE
    }

    /// While frames that another reader left keep arriving, there are more of them. A busy tool
    /// must not delay the beginning forever, though.
    fn put_off(&mut self, now: Duration, seq: u64) {
        if let Lead::Collecting { until, latest, settle, .. } = &mut self.lead
            && self.held.last_key_value().is_none_or(|(&highest, _)| seq < highest)
        {
            *until = (*until).max((now + *settle).min(*latest));
        }
    }

    /// A reader that collects keeps the lowest frames: the highest one goes back to the queue to
    /// make room for a lower one.
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
