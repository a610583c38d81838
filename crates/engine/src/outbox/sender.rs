//! The sender: batches frames for SQS, sends several batches at a time, and sends again what did
//! not arrive. The last frame goes alone and last (clause FRM-13).
//!
//! Its memory is bounded: while [`Sender::has_room`] returns `false`, frames wait in the backlog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relay_protocol::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, FRAME_ATTRIBUTES_MAX};

use super::in_flight::{Frame, Link};
use crate::backoff::Backoff;

/// How many batches travel at a time, and the bytes in flight after which no more are sent; at most
/// two full batches travel. More batches hide the latency of SQS, and 2 MiB every 20 ms is more
/// than a tool prints. But each byte that travels is in memory three times: as frame, as entry, and
/// in the body of the call.
const BATCHES_MAX: usize = 4;
const TRAVELLING_MAX: usize = 3 * BATCH_BYTES_MAX / 2;

/// Bytes that wait for a place in a batch before no more are accepted: one full batch.
const WAITING_MAX: usize = BATCH_BYTES_MAX;

/// The first and the longest pause after a failed send.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Frames that go out in one call.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Identifies the batch to [`Outbox::handle_result`](super::Outbox::handle_result).
    pub number: u64,
    /// The frames, in the order of their numbers.
    pub frames: Vec<Arc<Frame>>,
}

/// Holds the frames that wait and those that travel.
#[derive(Debug)]
pub(super) struct Sender {
    waiting: BTreeMap<u64, Arc<Frame>>,
    waiting_bytes: usize,
    /// Batches on their way, by number.
    travelling: BTreeMap<u64, Vec<Arc<Frame>>>,
    travelling_bytes: usize,
    next_batch: u64,
    last: Option<u64>,
    /// Whether the batch that came back last had failures.
    failed: bool,
    backoff: Backoff,
    retry_at: Duration,
}

impl Sender {
    /// A sender with nothing to do.
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            travelling: BTreeMap::new(),
            travelling_bytes: 0,
            next_batch: 0,
            last: None,
            failed: false,
            backoff: BACKOFF,
            retry_at: Duration::ZERO,
        }
    }

    /// Whether more frames may be queued. One frame may exceed the limit by its own length (clause
    /// FRM-15).
    pub(super) fn has_room(&self) -> bool {
        self.waiting_bytes < WAITING_MAX
    }

    /// Queues a frame to send.
    pub(super) fn queue(&mut self, frame: Arc<Frame>) {
        if frame.last {
            self.last = Some(frame.seq);
        }
        self.waiting_bytes += frame.size();
        self.waiting.insert(frame.seq, frame);
    }

    /// The next batch to send, if one is due. The last frame goes when everything before it has
    /// arrived (clause FRM-13).
    pub(super) fn poll_batch(&mut self, now: Duration) -> Option<Batch> {
        if self.is_full() || now < self.retry_at {
            return None;
        }
        let mut frames: Vec<Arc<Frame>> = Vec::new();
        let mut room = BATCH_BYTES_MAX;
        while let Some(entry) = self.waiting.first_entry() {
            let size = entry.get().size() + FRAME_ATTRIBUTES_MAX;
            let may_go = self.last != Some(*entry.key()) || (frames.is_empty() && self.travelling.is_empty());
            if size > room || frames.len() == BATCH_ENTRIES_MAX || !may_go {
                break;
            }
            room -= size;
            let frame = entry.remove();
            self.waiting_bytes -= frame.size();
            self.travelling_bytes += frame.size();
            frames.push(frame);
        }
        if frames.is_empty() {
            return None;
        }
        let number = self.next_batch;
        self.next_batch += 1;
        self.travelling.insert(number, frames.clone());
        Some(Batch { number, frames })
    }

    /// Handles the result of a batch. `arrived` lists the frames that arrived; the others go out
    /// again after a pause.
    pub(super) fn handle_result(&mut self, now: Duration, batch: u64, arrived: &[u64]) {
        let mut failed = false;
        for frame in self.travelling.remove(&batch).unwrap_or_default() {
            self.travelling_bytes -= frame.size();
            if !arrived.contains(&frame.seq) {
                failed = true;
                self.waiting_bytes += frame.size();
                self.waiting.insert(frame.seq, frame);
            }
        }
        self.failed = failed;
        if failed {
            self.retry_at = now + self.backoff.pause();
        } else {
            self.backoff.reset();
            self.retry_at = now;
        }
    }

    /// When [`Sender::poll_batch`] next has something to do, if nothing else happens.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        let last_waits = self.waiting.keys().next().copied() == self.last && !self.travelling.is_empty();
        (!self.is_full() && !self.waiting.is_empty() && !last_waits).then_some(self.retry_at)
    }

    /// The state of the link to the queue, judged by the last result.
    pub(super) fn link(&self) -> Link {
        if self.is_idle() {
            Link::Clear
        } else if self.is_full() || self.failed || !self.has_room() {
            Link::Blocked
        } else {
            Link::Busy
        }
    }

    /// Whether every queued frame has arrived.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.travelling.is_empty()
    }

    /// Whether the last frame has arrived.
    pub(super) fn is_done(&self) -> bool {
        self.last.is_some() && self.is_idle()
    }

    /// Whether no more may travel.
    fn is_full(&self) -> bool {
        self.travelling.len() >= BATCHES_MAX || self.travelling_bytes >= TRAVELLING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::frame;

    const T0: Duration = Duration::ZERO;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn sender(sizes: &[usize]) -> Sender {
        let mut sender = Sender::new();
        for (seq, size) in (0..).zip(sizes) {
            sender.queue(frame(seq, true, *size));
        }
        sender
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.frames.iter().map(|frame| frame.seq).collect()
    }

    #[test]
    fn the_end_travels_alone_and_last() {
        let mut sender = sender(&[1]);
        sender.queue(Arc::new(Frame { last: true, ..(*frame(1, false, 1)).clone() }));
        let first = sender.poll_batch(T0).unwrap();
        assert_eq!(numbers(&first), [0]);
        assert!(sender.poll_batch(T0).is_none() && sender.poll_timeout().is_none());
        sender.handle_result(T0, first.number, &[]);
        assert!(sender.poll_batch(T0).is_none(), "a failure causes a pause");
        assert_eq!(sender.link(), Link::Blocked);
        let again = sender.poll_batch(sender.poll_timeout().unwrap()).unwrap();
        assert_eq!(numbers(&again), numbers(&first));
        sender.handle_result(ms(200), again.number, &[0]);
        let last = sender.poll_batch(ms(200)).unwrap();
        assert_eq!(numbers(&last), [1]);
        assert!(!sender.is_done());
        sender.handle_result(ms(200), last.number, &[1]);
        assert!(sender.is_done() && sender.link() == Link::Clear);
    }

    #[test]
    fn what_failed_goes_before_what_is_new_and_pauses_grow() {
        let mut sender = sender(&[1; 12]);
        let first = sender.poll_batch(T0).unwrap();
        assert_eq!(first.frames.len(), BATCH_ENTRIES_MAX);
        sender.handle_result(T0, first.number, &numbers(&first)[1..]);
        assert_eq!(sender.poll_timeout(), Some(ms(100)));
        let second = sender.poll_batch(ms(100)).unwrap();
        assert_eq!(numbers(&second), [0, 10, 11]);
        sender.handle_result(ms(100), second.number, &[]);
        assert_eq!(sender.poll_timeout(), Some(ms(300)), "twice as long");
        for _ in 0..20 {
            let at = sender.poll_timeout().unwrap();
            let batch = sender.poll_batch(at).unwrap();
            sender.handle_result(at, batch.number, &[]);
            assert!(sender.poll_timeout().unwrap() - at <= Duration::from_secs(5));
        }
    }

    #[test]
    fn a_result_counts_once() {
        let mut sender = sender(&[1]);
        let batch = sender.poll_batch(T0).unwrap();
        sender.handle_result(T0, batch.number, &[]);
        sender.handle_result(T0, batch.number, &[0]);
        assert!(!sender.is_idle(), "the second result is for a batch that is no longer in transit");
    }

    #[test]
    fn batches_and_memory_are_bounded_and_freed_by_what_arrives() {
        let quarter = BATCH_BYTES_MAX / 4 - FRAME_ATTRIBUTES_MAX;
        let mut sender = Sender::new();
        let mut seq = 0;
        let mut fill = |sender: &mut Sender| {
            while sender.has_room() {
                sender.queue(frame(seq, true, quarter));
                seq += 1;
            }
        };
        fill(&mut sender);
        assert!(sender.waiting_bytes < WAITING_MAX + quarter);
        let mut travelling = Vec::new();
        while let Some(batch) = sender.poll_batch(T0) {
            assert_eq!(batch.frames.len(), 4, "1 MiB together with their attributes");
            travelling.push(batch);
            fill(&mut sender);
        }
        assert!(travelling.len() * 4 * quarter < TRAVELLING_MAX + BATCH_BYTES_MAX, "{}", travelling.len());
        assert_eq!((sender.link(), sender.poll_timeout()), (Link::Blocked, None));
        sender.handle_result(T0, travelling[0].number, &numbers(&travelling[0]));
        assert_eq!(sender.poll_timeout(), Some(T0));
        assert!(sender.poll_batch(T0).is_some());
    }

    #[test]
    fn small_batches_are_bounded_by_their_number() {
        let mut sender = sender(&[1; 50]);
        let batches = std::iter::from_fn(|| sender.poll_batch(T0)).count();
        assert_eq!((batches, sender.link()), (BATCHES_MAX, Link::Blocked));
    }
}
