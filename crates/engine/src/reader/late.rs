//! Who comes late to what another has left: where it begins, and what it makes of frames that are missing (clause FRM-19).

use std::time::Duration;

use relay_protocol::Timestamp;
use relay_protocol::frame::FrameVerifier;
use relay_protocol::limits::HEARTBEAT_SECONDS;

use crate::authenticate::Authenticator;
use crate::clocks::Clocks;
use crate::reader::Reader;

/// How often in all a late reader may put off its beginning, while more comes of what another has left.
const SETTLE_MAX: u32 = 5;

/// How long new frames come before a late reader goes on behind a hole: longer than a batch that is stuck takes for all its tries.
const HOLE: Duration = Duration::from_secs(120);

/// What a pause between two new frames counts of that at most: a runner that is alive is heard so often. While its way is out, nothing is to be
/// learned of a hole.
const BEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);

/// What one who came late knows of where to begin (clause FRM-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    begins: Begins,
    /// How long what another had received stays away.
    settle: Duration,
    /// What another is known to have written out.
    acknowledged: u64,
    /// Frames from before the first, that came later still.
    earlier: u64,
    /// Unless nothing above `acknowledged` was deleted: then whatever is missing is still to come.
    hole: Option<Hole>,
}

/// A missing frame that may have been another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hole {
    at: u64,
    /// For how long new frames came meanwhile, and when the last of them did.
    waited: Duration,
    last: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// At this time the lowest frame that is there becomes the first.
    When(Duration),
    /// With this frame.
    With(u64),
}

impl<V: FrameVerifier> Reader<V> {
    /// A reader that comes late, to what another has left: frames that were handed out and deleted do not come again. What the other had
    /// received and not deleted comes again within `settle`, the queue's visibility time-out; then the lowest frame is the first. Frames below
    /// `acknowledged` are known to be written out, and are not handed out once more.
    pub fn attaching(
        authenticator: Authenticator<V>,
        clocks: Clocks,
        now: Duration,
        today: Timestamp,
        settle: Duration,
        acknowledged: u64,
    ) -> Self {
        let hole = Some(Hole { at: acknowledged, waited: Duration::ZERO, last: now });
        let late = Late { begins: Begins::When(now + settle), settle, acknowledged, earlier: 0, hole };
        Self { late: Some(late), next: acknowledged, acknowledged, ..Self::new(authenticator, clocks, now, today) }
    }

    /// A reader that goes on where another has left on purpose: frames below `acknowledged` are written out, and nothing above was deleted. So it
    /// knows its first frame, and waits for it as for any other.
    pub fn resuming(
        authenticator: Authenticator<V>,
        clocks: Clocks,
        now: Duration,
        today: Timestamp,
        acknowledged: u64,
    ) -> Self {
        if acknowledged == 0 {
            // Nobody has read anything of the runner's; but that it was admitted, another may have read.
            let clocks = Clocks { admission: clocks.start, ..clocks };
            return Self::new(authenticator, clocks, now, today);
        }
        let begun = Self::attaching(authenticator, clocks, now, today, Duration::ZERO, acknowledged);
        let late = begun.late.map(|late| Late { begins: Begins::With(acknowledged), hole: None, ..late });
        Self { late, counting: false, ..begun }
    }

    /// Frames from before the first of one who came late, that came later still: another has most likely shown them.
    pub fn earlier(&self) -> u64 {
        self.late.map_or(0, |late| late.earlier)
    }

    /// The first frame that one who came late has read; whatever was before it was another's.
    pub fn resumed_at(&self) -> Option<u64> {
        match self.late?.begins {
            Begins::When(_) => None,
            Begins::With(first) => Some(first),
        }
    }

    /// When one who came late begins, as long as it does not know with what.
    pub(super) fn settles(&self) -> Option<Duration> {
        match self.late?.begins {
            Begins::When(at) => Some(at),
            Begins::With(_) => None,
        }
    }

    /// What is there is all that there is to begin with. As long as nothing is, it is waited on.
    pub(super) fn settle(&mut self, now: Duration) {
        let Some(late) = &mut self.late else { return };
        let Some((&first, _)) = self.held.first_key_value() else {
            late.begins = Begins::When(now + Duration::from_secs(1));
            return;
        };
        late.begins = Begins::With(first);
        self.next = first;
        if first > 0 {
            self.counting = false;
        }
        self.started_before();
        self.release();
    }

    /// That the runner has started was another's to read.
    pub(super) fn started_before(&mut self) {
        if self.started.is_none() && self.resumed_at().is_some_and(|first| first > 0) {
            self.started = self.authenticator.vouch().map(|vouch| vouch.task_arn.clone());
        }
    }

    /// Whether it is a copy of what another has read; or else it came later than it could have. It is counted, as nobody can tell.
    pub(super) fn is_earlier(&mut self, seq: u64) -> bool {
        let Some(Late { begins: Begins::With(first), acknowledged, earlier, .. }) = &mut self.late else {
            return false;
        };
        let is = (*acknowledged..*first).contains(&seq);
        *earlier += u64::from(is);
        is
    }

    /// As long as what was left is still coming, there is more of it; but a busy tool must not put the beginning off for ever.
    pub(super) fn put_off(&mut self, now: Duration, seq: u64) {
        if let Some(Late { begins: Begins::When(at), settle, .. }) = &mut self.late
            && self.held.last_key_value().is_none_or(|(&highest, _)| seq < highest)
        {
            *at = (*at).max((now + *settle).min(self.published + *settle * SETTLE_MAX));
        }
    }

    /// A late reader keeps the lowest frames: the highest goes back to the queue for one that is lower.
    pub(super) fn make_room(&mut self, seq: u64) -> bool {
        if self.settles().is_none() || self.held.last_key_value().is_none_or(|(&highest, _)| highest < seq) {
            return false;
        }
        if let Some((_, held)) = self.held.pop_last() {
            self.held_bytes -= held.size;
        }
        true
    }

    /// A late reader cannot tell whether what is missing was another's or is still to come. The runner sends the lowest first, so what is to come
    /// comes before much else does: a hole that outlasts that is passed by, and told as a gap.
    pub(super) fn wait_at_hole(&mut self, now: Duration) {
        let Some(Late { hole: Some(hole), .. }) = &mut self.late else { return };
        let pause = now.saturating_sub(hole.last).min(BEAT);
        let waited = if hole.at == self.next { hole.waited + pause } else { Duration::ZERO };
        *hole = Hole { at: self.next, waited, last: now };
        if waited >= HOLE
            && let Some((&seq, _)) = self.held.first_key_value()
        {
            self.go_on_with(seq);
        }
    }
}
