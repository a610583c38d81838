//! A reader that joins late: where it begins, and what it makes of frames that are missing between
//! others. The reader before it may have shown and deleted them, or they may still be to come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use std::time::Duration;

use relay_engine::{Authenticator, End, Event, Finish, Frame, Inbox, MemorySpool, Outbox, Start, Timeouts};
use relay_protocol::outcome::Outcome;
use relay_protocol::{DeploymentId, Digest, Timestamp};
use std::sync::Arc;

use crate::toy::{Keys, Toy};

const SETTLE: Duration = Duration::from_secs(32);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A deployment that prints the number of each frame, one frame each, and a reader that joins it
/// late, at time 0.
struct Late {
    keys: Keys,
    frames: Vec<Arc<Frame>>,
    reader: Inbox<Toy>,
    printed: Vec<String>,
}

impl Late {
    /// `acknowledged` is what the tags say. `left` says that the previous reader left on purpose.
    fn new(count: u64, acknowledged: u64, left: bool) -> Self {
        let id = DeploymentId::new(0, [3; 10]);
        let keys = Keys::new(&id, Digest::of(b"request"));
        let mut outbox = Outbox::new(id.clone(), Duration::ZERO, keys.clone(), MemorySpool::default());
        let mut frames = Vec::new();
        for seq in 0..count {
            let at = s(seq);
            if seq + 1 == count {
                outbox.finish(at, Finish::of(Outcome::Exited { code: 0, signal: None }));
            } else {
                outbox.push(at, relay_protocol::frame::Stream::Stdout, format!("{seq} ").as_bytes());
            }
            let frame = outbox.poll_frame(at).unwrap();
            assert_eq!(frame.seq, seq);
            frames.push(frame);
            let batch = outbox.poll_batch(at).unwrap();
            outbox.handle_result(at, batch.number, &[seq]);
        }
        let authenticator = Authenticator::attaching(id, keys.pins(), Toy);
        let (timeouts, today) = (Timeouts { silence: s(3_600), ..Timeouts::default() }, Timestamp::from_unix(0));
        let start = if left { Start::Resume { acknowledged } } else { Start::Join { acknowledged, settle: SETTLE } };
        let reader = Inbox::new(authenticator, start, timeouts, Duration::ZERO, today);
        Self { keys, frames, reader, printed: Vec::new() }
    }

    /// These frames arrive at `at`; each message has the number of its frame. Returns the messages
    /// that may be deleted afterwards.
    fn come(&mut self, at: Duration, seqs: impl IntoIterator<Item = u64>) -> Vec<u64> {
        for seq in seqs {
            let mut raw = self.frames[usize::try_from(seq).unwrap()].signed.clone();
            // Any frame may carry the vouch, and a late reader needs one.
            raw.vouch = Some(self.keys.vouch.clone());
            self.reader.handle(at, seq, raw);
        }
        self.pass(at)
    }

    fn pass(&mut self, at: Duration) -> Vec<u64> {
        self.reader.handle_timeout(at);
        while let Some(event) = self.reader.poll_event() {
            match event {
                Event::Output(chunks) => self.printed.extend(
                    chunks.into_iter().map(|chunk| String::from_utf8(chunk.bytes.to_vec()).unwrap().trim().to_owned()),
                ),
                Event::Gap(missing) => self.printed.push(format!("gap of {}", missing.frames)),
                _ => {}
            }
        }
        if let Some(mark) = self.reader.polled() {
            self.reader.written(mark);
        }
        self.reader.take_deletable()
    }

    fn printed(&mut self) -> String {
        std::mem::take(&mut self.printed).join(" ")
    }

    #[track_caller]
    fn ends(&self, verified: bool) {
        let end = self.reader.poll_end();
        assert!(matches!(end, Some(End::Finished { verified: is, .. }) if *is == verified), "{end:?}");
    }
}

// clause: FRM-19
#[test]
fn what_is_below_a_frame_that_is_not_sent_yet_is_neither_lost_nor_deleted_unprinted() {
    // The runner lost its connection after 5 was sent, with 4 in a call of its own.
    let mut late = Late::new(10, 0, false);
    assert!(late.come(s(0), [5, 0, 3, 1, 2]).is_empty());
    assert_eq!(late.pass(SETTLE), [0, 1, 2, 3]);
    assert_eq!(late.printed(), "0 1 2 3");
    // Ten minutes later the connection is back. New frames overtake those that are sent again.
    assert!(late.come(s(600), [7, 6]).is_empty());
    assert!(late.come(s(601), [8]).is_empty());
    assert_eq!(late.printed(), "");
    assert_eq!(late.come(s(602), [4, 9]), [4, 5, 6, 7, 8, 9]);
    assert_eq!(late.printed(), "4 5 6 7 8");
    late.ends(true);
}

// clause: FRM-19
#[test]
fn what_another_has_deleted_is_passed_by_when_new_frames_have_come_for_long() {
    // 3 was shown, but its deletion failed; 4 and 5 are gone.
    let mut late = Late::new(20, 0, false);
    late.come(s(0), [3, 6]);
    late.pass(SETTLE);
    assert_eq!(late.printed(), "3");
    let mut went_on = None;
    for seq in 7..19 {
        let at = SETTLE + s(15) * u32::try_from(seq - 6).unwrap();
        late.come(at, [seq]);
        if !late.printed.is_empty() && went_on.is_none() {
            went_on = Some(at);
            assert_eq!(
                late.printed(),
                format!("gap of 2 {}", (6..=seq).map(|n| n.to_string()).collect::<Vec<_>>().join(" "))
            );
        }
    }
    assert!(went_on.is_some_and(|at| at >= SETTLE + s(120) && at <= SETTLE + s(150)), "{went_on:?}");
    // No other reader had it after all. It is not shown out of order, and stays in the queue.
    assert!(late.come(s(300), [4]).is_empty());
    late.come(s(300), [19]);
    assert_eq!(late.printed().split(' ').next_back(), Some("18"));
    late.ends(false);
}

// clause: FRM-19
#[test]
fn where_another_left_on_purpose_nothing_is_passed_by_and_nothing_waited_for() {
    let mut late = Late::new(40, 3, true);
    // A copy of an acknowledged frame may be deleted. A new frame is shown immediately.
    assert_eq!(late.come(s(0), [1, 3]), [1, 3]);
    assert_eq!(late.printed(), "3");
    assert_eq!(late.reader.task_arn(), Some("task"));
    for seq in 5..39 {
        assert!(late.come(s(15 * seq), [seq]).is_empty());
    }
    assert_eq!(late.printed(), "");
    assert_eq!(late.come(s(600), [4, 39]).len(), 36);
    assert!(late.printed().starts_with("4 5 6 7 8"));
    late.ends(true);
}
