//! The sender: batches numbered frames for SQS, several batches on their way at a time, sends again what did not arrive, and the last frame alone
//! and last.
//!
//! It holds a bounded amount of memory: while [`Sender::has_room`] says no, frames wait outside, in the runner's backlog on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_protocol::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, FRAME_ATTRIBUTES_MAX};

use crate::backoff::Backoff;
use crate::outgoing::Link;

/// Batches that travel at a time, and the bytes of them after which no more set out: two full ones. More of them hide SQS's latency, and 2 MiB every
/// 20 ms is more than a tool prints; but each byte that travels lies in memory three times, as frame, as entry, and in the call's body.
const BATCHES_MAX: usize = 4;
const TRAVELLING_MAX: usize = 3 * BATCH_BYTES_MAX / 2;

/// Bytes that wait for a place in a batch before no more are taken: one full batch.
const WAITING_MAX: usize = BATCH_BYTES_MAX;

/// The first and the longest pause after a failed send.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

#[derive(Debug)]
struct Item<F> {
    size: usize,
    frame: F,
}

/// See the module's head. `F` is a frame as the edge has it; it is cloned for each send.
#[derive(Debug)]
pub struct Sender<F> {
    waiting: BTreeMap<u64, Item<F>>,
    waiting_bytes: usize,
    travelling: BTreeMap<u64, Item<F>>,
    travelling_bytes: usize,
    batches: usize,
    last: Option<u64>,
    /// Whether what came back last has failed.
    failed: bool,
    backoff: Backoff,
    retry_at: Duration,
}

impl<F: Clone> Default for Sender<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Clone> Sender<F> {
    /// One that has nothing to do.
    pub fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            travelling: BTreeMap::new(),
            travelling_bytes: 0,
            batches: 0,
            last: None,
            failed: false,
            backoff: BACKOFF,
            retry_at: Duration::ZERO,
        }
    }

    /// Whether more frames may be queued; one may go beyond it by its own length (clause FRM-15).
    pub fn has_room(&self) -> bool {
        self.waiting_bytes < WAITING_MAX
    }

    /// A frame to send: its number, the bytes of its body, and whether it is the deployment's last.
    pub fn queue(&mut self, seq: u64, size: usize, last: bool, frame: F) {
        if last {
            self.last = Some(seq);
        }
        self.waiting_bytes += size;
        self.waiting.insert(seq, Item { size, frame });
    }

    /// The next batch to send, if one is due: frames by their numbers, in order. The last frame goes when everything before it has arrived
    /// (clause FRM-13).
    pub fn poll_batch(&mut self, now: Duration) -> Option<Vec<(u64, F)>> {
        if self.is_full() || now < self.retry_at {
            return None;
        }
        let mut batch = Vec::new();
        let mut room = BATCH_BYTES_MAX;
        while let Some(entry) = self.waiting.first_entry() {
            let size = entry.get().size + FRAME_ATTRIBUTES_MAX;
            let alone = self.last != Some(*entry.key()) || (batch.is_empty() && self.travelling.is_empty());
            if size > room || batch.len() == BATCH_ENTRIES_MAX || !alone {
                break;
            }
            room -= size;
            let (seq, item) = entry.remove_entry();
            self.waiting_bytes -= item.size;
            self.travelling_bytes += item.size;
            batch.push((seq, item.frame.clone()));
            self.travelling.insert(seq, item);
        }
        if batch.is_empty() {
            return None;
        }
        self.batches += 1;
        Some(batch)
    }

    /// A batch came back: `arrived` has arrived, everything else of it goes out again after a pause.
    pub fn handle_result(&mut self, now: Duration, batch: &[u64], arrived: &[u64]) {
        self.batches = self.batches.saturating_sub(1);
        let mut failed = false;
        for seq in batch {
            let Some(item) = self.travelling.remove(seq) else { continue };
            self.travelling_bytes -= item.size;
            if !arrived.contains(seq) {
                failed = true;
                self.waiting_bytes += item.size;
                self.waiting.insert(*seq, item);
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

    /// When [`Sender::poll_batch`] has something to do next, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let last_waits = self.waiting.keys().next().copied() == self.last && !self.travelling.is_empty();
        (!self.is_full() && !self.waiting.is_empty() && !last_waits).then_some(self.retry_at)
    }

    /// How the link to the queue is, by what came back last.
    pub fn link(&self) -> Link {
        if self.is_idle() {
            Link::Clear
        } else if self.is_full() || self.failed || !self.has_room() {
            Link::Blocked
        } else {
            Link::Busy
        }
    }

    /// Whether every frame that was queued has arrived.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.travelling.is_empty()
    }

    /// Whether the last frame has arrived.
    pub fn is_done(&self) -> bool {
        self.last.is_some() && self.is_idle()
    }

    /// Whether as much travels as may.
    fn is_full(&self) -> bool {
        self.batches >= BATCHES_MAX || self.travelling_bytes >= TRAVELLING_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::ZERO;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn sender(sizes: &[usize]) -> Sender<u64> {
        let mut sender = Sender::new();
        for (seq, size) in (0..).zip(sizes) {
            sender.queue(seq, *size, false, seq);
        }
        sender
    }

    fn numbers(batch: &[(u64, u64)]) -> Vec<u64> {
        batch.iter().map(|(seq, _)| *seq).collect()
    }

    #[test]
    fn the_end_travels_alone_and_last() {
        let mut sender = sender(&[1]);
        sender.queue(1, 1, true, 1);
        let first = numbers(&sender.poll_batch(T0).unwrap());
        assert_eq!((first.as_slice(), sender.poll_batch(T0), sender.poll_timeout()), (&[0][..], None, None));
        sender.handle_result(T0, &first, &[]);
        assert_eq!(sender.poll_batch(T0), None, "a failure makes a pause");
        assert_eq!(sender.link(), Link::Blocked);
        let again = numbers(&sender.poll_batch(sender.poll_timeout().unwrap()).unwrap());
        assert_eq!(again, first);
        sender.handle_result(ms(200), &[0], &[0]);
        assert_eq!(numbers(&sender.poll_batch(ms(200)).unwrap()), [1]);
        assert!(!sender.is_done());
        sender.handle_result(ms(200), &[1], &[1]);
        assert!(sender.is_done() && sender.link() == Link::Clear);
    }

    #[test]
    fn what_failed_goes_before_what_is_new_and_pauses_grow() {
        let mut sender = sender(&[1; 12]);
        let first = numbers(&sender.poll_batch(T0).unwrap());
        assert_eq!(first.len(), BATCH_ENTRIES_MAX);
        sender.handle_result(T0, &first, &first[1..]);
        assert_eq!(sender.poll_timeout(), Some(ms(100)));
        assert_eq!(numbers(&sender.poll_batch(ms(100)).unwrap()), [0, 10, 11]);
        sender.handle_result(ms(100), &[0, 10, 11], &[]);
        assert_eq!(sender.poll_timeout(), Some(ms(300)), "twice as long");
        for _ in 0..20 {
            let at = sender.poll_timeout().unwrap();
            let batch = numbers(&sender.poll_batch(at).unwrap());
            sender.handle_result(at, &batch, &[]);
            assert!(sender.poll_timeout().unwrap() - at <= Duration::from_secs(5));
        }
    }

    #[test]
    fn batches_and_memory_are_bounded_and_freed_by_what_arrives() {
        let quarter = BATCH_BYTES_MAX / 4 - FRAME_ATTRIBUTES_MAX;
        let mut sender = Sender::new();
        let mut seq = 0;
        while sender.has_room() {
            sender.queue(seq, quarter, false, seq);
            seq += 1;
        }
        assert!(sender.waiting_bytes < WAITING_MAX + quarter);
        let mut travelling = Vec::new();
        while let Some(batch) = sender.poll_batch(T0) {
            assert_eq!(batch.len(), 4, "1 MiB together with their attributes");
            travelling.push(numbers(&batch));
            while sender.has_room() {
                sender.queue(seq, quarter, false, seq);
                seq += 1;
            }
        }
        assert!(travelling.len() * 4 * quarter < TRAVELLING_MAX + BATCH_BYTES_MAX, "{}", travelling.len());
        assert_eq!((sender.link(), sender.poll_timeout()), (Link::Blocked, None));
        sender.handle_result(T0, &travelling[0], &travelling[0]);
        assert_eq!(sender.poll_timeout(), Some(T0));
        assert!(sender.poll_batch(T0).is_some());
    }

    #[test]
    fn small_batches_are_bounded_by_their_number() {
        let mut sender = sender(&[1; 50]);
        let batches: Vec<_> = std::iter::from_fn(|| sender.poll_batch(T0)).collect();
        assert_eq!((batches.len(), sender.link()), (BATCHES_MAX, Link::Blocked));
    }
}
