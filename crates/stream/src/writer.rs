//! The writer: cuts output into numbered frames, coalesces under load, batches for SQS, resends what failed, sends the end last.
//!
//! It holds a bounded amount of memory: when [`Writer::wants_input`] says no, what comes waits in the runner's spool, on disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use relay_protocol::frame::{Chunk, Chunks, Finished, Offsets, RunnerFrame, RunnerKind, Stream};
use relay_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, FRAME_ATTRIBUTES_MAX, FRAME_MAX, FRAME_OUTPUT_MAX, HEARTBEAT_SECONDS,
};
use relay_protocol::outcome::Outcome;
use relay_protocol::record::StreamDigest;
use relay_protocol::{DeploymentId, Envelope};

use crate::Tally;

/// The pause between two output frames while others are on their way. Short enough that a person sees no delay; at 50 frames a second, SQS costs seven cents an
/// hour at most. After a longer silence a frame is cut at once.
const COALESCE: Duration = Duration::from_millis(20);

/// The pause where all that was sent has arrived: then nothing is saved by waiting longer, but many small frames a second still cost.
const PACE: Duration = Duration::from_millis(5);

/// Output that fills a frame whatever it is: base64 of it, and a thousand chunks' heads, stay under the frame limit.
const CERTAIN: usize = 150 * 1_024;

/// Output in one frame up to which it stays legible to an auditor. JSON may escape a byte into six.
const LEGIBLE: usize = 16 * 1_024;

/// Chunks in one frame; alternating streams make many small ones.
const CHUNKS: usize = 1_000;

/// Bytes of a frame's body.
const BODY_MAX: usize = FRAME_MAX - FRAME_ATTRIBUTES_MAX;

/// Bytes that wait or travel before no more are taken.
const MEMORY_MAX: usize = 8 * 1_024 * 1_024;

/// Batches that travel at a time. More of them hide SQS's latency; four keep memory small.
const BATCHES_MAX: usize = 4;

/// The first and the longest pause after a failed send.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A frame on its way: the edge signs the body and adds the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number.
    pub seq: u64,
    /// Its body.
    pub body: String,
    /// Whether the attribute `vouch` goes with it.
    pub vouch: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Writer {
    id: DeploymentId,
    began: Duration,
    next_seq: u64,
    pending: VecDeque<Chunk>,
    pending_bytes: usize,
    offset: Offsets,
    stdout: Tally,
    stderr: Tally,
    /// Raw bytes that the last frames took; follows how well the output compresses.
    budget: usize,
    outbox: BTreeMap<u64, Outgoing>,
    travelling: BTreeMap<u64, Outgoing>,
    travelling_batches: usize,
    held_bytes: usize,
    last_cut: Option<Duration>,
    heartbeat_at: Option<Duration>,
    terminal: Option<u64>,
    failures: u32,
    retry_at: Duration,
}

impl Writer {
    /// A writer for `id` that begins at `now`.
    pub fn new(id: DeploymentId, now: Duration) -> Self {
        Self {
            id,
            began: now,
            next_seq: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            offset: Offsets::default(),
            stdout: Tally::default(),
            stderr: Tally::default(),
            budget: FRAME_OUTPUT_MAX / 2,
            outbox: BTreeMap::new(),
            travelling: BTreeMap::new(),
            travelling_batches: 0,
            held_bytes: 0,
            last_cut: None,
            heartbeat_at: None,
            terminal: None,
            failures: 0,
            retry_at: now,
        }
    }

    /// Whether more output may be pushed. When not, it waits outside: memory is bounded (clause FRM-15).
    pub fn wants_input(&self) -> bool {
        self.pending_bytes + self.held_bytes < MEMORY_MAX
    }

    /// Output of the tool, already masked, in the order in which it was read.
    pub fn push(&mut self, now: Duration, stream: Stream, bytes: &[u8]) {
        self.count(stream, bytes);
        self.push_counted(now, stream, bytes);
    }

    /// Output that waits outside, in a spool: lengths and digests of the streams have it from now on, so that a record need not wait for it.
    pub fn count(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            _ if self.terminal.is_some() => {}
            Stream::Stdout => self.stdout.add(bytes),
            Stream::Stderr => self.stderr.add(bytes),
        }
    }

    /// Output that was read at `at` and is counted already.
    pub fn push_counted(&mut self, at: Duration, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() || self.terminal.is_some() {
            return;
        }
        self.pending_bytes += bytes.len();
        for part in bytes.chunks(CERTAIN) {
            match self.pending.back_mut() {
                Some(last) if last.stream == stream && last.bytes.len() + part.len() <= CERTAIN => {
                    last.bytes.extend_from_slice(part)
                }
                _ => self.pending.push_back(Chunk { stream, ms: self.elapsed(at), bytes: part.to_vec() }),
            }
        }
    }

    /// A frame that is not output. What was pushed before it is cut before it.
    pub fn say(&mut self, now: Duration, kind: RunnerKind) {
        while !self.pending.is_empty() {
            self.cut_output(now);
        }
        if matches!(kind, RunnerKind::Started { .. }) {
            self.heartbeat_at = Some(now + Duration::from_secs(HEARTBEAT_SECONDS));
        }
        self.enqueue(kind);
    }

    /// Length and digest of both streams as they are now, for the record: stdout, stderr.
    pub fn digests(&self) -> (StreamDigest, StreamDigest) {
        (self.stdout.digest(), self.stderr.digest())
    }

    /// The last frame. It is sent when everything before it has arrived (clause FRM-13).
    pub fn finish(
        &mut self,
        now: Duration,
        outcome: Outcome,
        step: Option<String>,
        outputs: BTreeMap<String, String>,
        record: Option<Envelope>,
    ) {
        if self.terminal.is_some() {
            return;
        }
        while !self.pending.is_empty() {
            self.cut_output(now);
        }
        let (stdout, stderr) = self.digests();
        self.terminal = Some(self.next_seq);
        self.heartbeat_at = None;
        let mut finished = Finished { outcome, step, frames: self.next_seq + 1, stdout, stderr, outputs, record };
        // The end must arrive: outputs full of control characters could make it too large, escaped here and once more in the record.
        for shed in [
            |_: &mut Finished| {},
            |finished: &mut Finished| finished.record = None,
            |finished: &mut Finished| finished.outputs.clear(),
        ] {
            shed(&mut finished);
            if self.body(RunnerKind::Finished(Box::new(finished.clone()))).len() <= BODY_MAX {
                break;
            }
        }
        self.enqueue(RunnerKind::Finished(Box::new(finished)));
    }

    /// The next batch to send, if one is due.
    pub fn poll_batch(&mut self, now: Duration) -> Option<Vec<Outgoing>> {
        if self.heartbeat_at.is_some_and(|at| now >= at) {
            self.heartbeat_at = Some(now + Duration::from_secs(HEARTBEAT_SECONDS));
            self.enqueue(RunnerKind::Heartbeat { elapsed_ms: self.elapsed(now) });
        }
        if self.travelling_batches >= BATCHES_MAX || now < self.retry_at {
            return None;
        }
        while self.cut_due(now) && self.outbox.len() < BATCH_ENTRIES_MAX {
            self.cut_output(now);
        }
        let mut batch = Vec::new();
        let mut room = BATCH_BYTES_MAX;
        while let Some(entry) = self.outbox.first_entry() {
            let size = entry.get().body.len() + FRAME_ATTRIBUTES_MAX;
            let alone = self.terminal != Some(*entry.key()) || (batch.is_empty() && self.travelling.is_empty());
            if size > room || batch.len() == BATCH_ENTRIES_MAX || !alone {
                break;
            }
            room -= size;
            batch.push(entry.remove());
        }
        if batch.is_empty() {
            return None;
        }
        self.travelling.extend(batch.iter().map(|frame| (frame.seq, frame.clone())));
        self.travelling_batches += 1;
        Some(batch)
    }

    /// A batch came back: `sent` has arrived, everything else of it goes out again after a pause.
    pub fn handle_result(&mut self, now: Duration, batch: &[u64], sent: &[u64]) {
        self.travelling_batches = self.travelling_batches.saturating_sub(1);
        let mut failed = false;
        for seq in batch {
            let Some(frame) = self.travelling.remove(seq) else { continue };
            if sent.contains(seq) {
                self.held_bytes = self.held_bytes.saturating_sub(frame.body.len());
            } else {
                failed = true;
                self.outbox.insert(*seq, frame);
            }
        }
        if failed {
            let (first, longest) = BACKOFF;
            self.retry_at = now + (first * 2_u32.saturating_pow(self.failures.min(10))).min(longest);
            self.failures += 1;
        } else {
            self.failures = 0;
            self.retry_at = now;
        }
    }

    /// When [`Writer::poll_batch`] has something to do next, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let can_send = self.travelling_batches < BATCHES_MAX;
        let terminal_waits = self.outbox.keys().next().copied() == self.terminal && !self.travelling.is_empty();
        let send = (can_send && !self.outbox.is_empty() && !terminal_waits).then_some(self.retry_at);
        let cut = (can_send && !self.pending.is_empty()).then(|| self.cut_at().max(self.retry_at));
        [send, cut, self.heartbeat_at].into_iter().flatten().min()
    }

    /// Whether the last frame has arrived.
    pub fn is_done(&self) -> bool {
        self.terminal.is_some() && self.outbox.is_empty() && self.travelling.is_empty()
    }

    /// Whether nothing waits and nothing travels.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.has_arrived()
    }

    /// Whether every frame that was cut has arrived.
    fn has_arrived(&self) -> bool {
        self.outbox.is_empty() && self.travelling.is_empty()
    }

    fn elapsed(&self, now: Duration) -> u64 {
        u64::try_from(now.saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn cut_at(&self) -> Duration {
        match self.last_cut {
            Some(last) if self.pending_bytes < CERTAIN => last + if self.has_arrived() { PACE } else { COALESCE },
            _ => Duration::ZERO,
        }
    }

    fn cut_due(&self, now: Duration) -> bool {
        !self.pending.is_empty() && now >= self.cut_at()
    }

    /// Cuts one output frame from the front of what is pending.
    fn cut_output(&mut self, now: Duration) {
        let (taken, body) = loop {
            let taken = self.peek(self.budget);
            let size: usize = taken.iter().map(|chunk| chunk.bytes.len()).sum();
            let chunks = if size <= LEGIBLE {
                Chunks::legible(self.offset, &taken)
            } else {
                Chunks::packed(self.offset, &taken, 1)
            };
            let body = self.body(RunnerKind::Output(Box::new(chunks)));
            if body.len() <= BODY_MAX || size <= CERTAIN {
                if body.len() < BODY_MAX / 2 && size >= self.budget / 2 {
                    self.budget = (self.budget * 2).min(FRAME_OUTPUT_MAX);
                }
                break (size, body);
            }
            // It did not compress as well as what came before: take less, in proportion.
            self.budget = (size / 10 * 9 * BODY_MAX / body.len()).clamp(CERTAIN, FRAME_OUTPUT_MAX);
        };
        self.drop_front(taken);
        self.last_cut = Some(now);
        self.enqueue_body(body, false);
    }

    /// Chunks from the front, at most `limit` bytes; a chunk is split where it must be.
    fn peek(&self, limit: usize) -> Vec<Chunk> {
        let mut room = limit;
        let mut taken = Vec::new();
        for chunk in self.pending.iter().take(CHUNKS) {
            let part = chunk.bytes.len().min(room);
            taken.push(Chunk { stream: chunk.stream, ms: chunk.ms, bytes: chunk.bytes[..part].to_vec() });
            room -= part;
            if room == 0 {
                break;
            }
        }
        taken
    }

    fn drop_front(&mut self, mut bytes: usize) {
        self.pending_bytes -= bytes;
        while bytes > 0 {
            let Some(front) = self.pending.front_mut() else { return };
            let part = front.bytes.len().min(bytes);
            *self.offset.of(front.stream) += part as u64;
            bytes -= part;
            if part == front.bytes.len() {
                self.pending.pop_front();
            } else {
                front.bytes.drain(..part);
            }
        }
    }

    fn body(&self, kind: RunnerKind) -> String {
        RunnerFrame { deployment_id: self.id.clone(), seq: self.next_seq, kind }.to_body()
    }

    fn enqueue(&mut self, kind: RunnerKind) {
        let frame = RunnerFrame { deployment_id: self.id.clone(), seq: self.next_seq, kind };
        let vouch = frame.bears_vouch();
        self.enqueue_body(frame.to_body(), vouch);
    }

    fn enqueue_body(&mut self, body: String, vouch: bool) {
        self.held_bytes += body.len();
        self.outbox.insert(self.next_seq, Outgoing { seq: self.next_seq, body, vouch });
        self.next_seq += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Duration = Duration::ZERO;

    fn writer() -> Writer {
        Writer::new(DeploymentId::new(0, [1; 10]), T0)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_line_after_silence_goes_at_once_and_the_next_waits_its_turn() {
        let mut w = writer();
        w.push(T0, Stream::Stdout, b"one\n");
        assert_eq!(w.poll_batch(T0).unwrap().len(), 1);
        w.push(ms(1), Stream::Stdout, b"two\n");
        assert_eq!(w.poll_batch(ms(1)), None);
        assert_eq!(w.poll_timeout(), Some(ms(20)));
        w.push(ms(5), Stream::Stdout, b"three\n");
        let batch = w.poll_batch(ms(20)).unwrap();
        assert!(batch[0].body.contains("two\\nthree\\n"), "{}", batch[0].body);
    }

    #[test]
    fn when_all_has_arrived_the_next_line_waits_less() {
        let mut w = writer();
        w.push(T0, Stream::Stdout, b"one\n");
        let first = w.poll_batch(T0).unwrap();
        w.push(ms(1), Stream::Stdout, b"two\n");
        w.handle_result(ms(2), &[first[0].seq], &[first[0].seq]);
        assert_eq!((w.poll_batch(ms(4)), w.poll_timeout()), (None, Some(ms(5))));
        assert_eq!(w.poll_batch(ms(5)).unwrap().len(), 1);
    }

    #[test]
    fn the_end_travels_alone_and_last() {
        let mut w = writer();
        w.push(T0, Stream::Stdout, b"x");
        w.finish(T0, Outcome::Exited { code: 0, signal: None }, None, BTreeMap::new(), None);
        let first = w.poll_batch(T0).unwrap();
        assert_eq!((first.len(), w.poll_batch(T0), w.poll_timeout()), (1, None, None));
        w.handle_result(T0, &[0], &[]);
        assert_eq!(w.poll_batch(T0), None, "a failure makes a pause");
        let again = w.poll_batch(w.poll_timeout().unwrap()).unwrap();
        assert_eq!(again, first);
        w.handle_result(ms(200), &[0], &[0]);
        let last = w.poll_batch(ms(200)).unwrap();
        assert!(last[0].body.contains("finished") && last[0].vouch);
        assert!(!w.is_done());
        w.handle_result(ms(200), &[1], &[1]);
        assert!(w.is_done());
    }

    #[test]
    fn an_end_that_is_too_large_sheds_what_it_can_spare() {
        let mut w = writer();
        let outputs = BTreeMap::from([("x".to_owned(), "\u{1b}".repeat(32_000))]);
        let record = Envelope::new("t", vec![0; 150_000]);
        w.finish(T0, Outcome::Exited { code: 0, signal: None }, None, outputs, Some(record));
        let batch = w.poll_batch(T0).unwrap();
        assert!(
            batch[0].body.len() <= BODY_MAX
                && batch[0].body.contains("\\u001b")
                && !batch[0].body.contains("payloadType")
        );
    }

    #[test]
    fn memory_is_bounded_and_freed_by_what_arrives() {
        let mut w = writer();
        let mut noise = 1_u64;
        let mut block = || -> Vec<u8> {
            let next = |_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_be_bytes()[0]
            };
            (0..65_536).map(next).collect()
        };
        let mut now = T0;
        while w.wants_input() {
            w.push(now, Stream::Stdout, &block());
        }
        let mut frames = 0;
        while !w.is_idle() {
            now += ms(100);
            while let Some(batch) = w.poll_batch(now) {
                assert!(batch.iter().all(|frame| frame.body.len() <= BODY_MAX));
                assert!(
                    batch.iter().map(|frame| frame.body.len() + FRAME_ATTRIBUTES_MAX).sum::<usize>() <= BATCH_BYTES_MAX
                );
                frames += batch.len();
                let seqs: Vec<u64> = batch.iter().map(|frame| frame.seq).collect();
                w.handle_result(now, &seqs, &seqs);
            }
        }
        assert!(w.wants_input() && frames > 30, "{frames}");
    }

    #[test]
    fn a_heartbeat_every_fifteen_seconds_from_started_to_the_end() {
        let mut w = writer();
        assert_eq!(w.poll_timeout(), None);
        let deadline = relay_protocol::Timestamp::from_unix(0);
        w.say(T0, RunnerKind::Started { task_arn: "t".into(), steps: vec![], deadline });
        let _ = w.poll_batch(T0).unwrap();
        w.handle_result(T0, &[0], &[0]);
        assert_eq!(w.poll_timeout(), Some(Duration::from_secs(15)));
        assert!(w.poll_batch(Duration::from_secs(15)).unwrap()[0].body.contains("heartbeat"));
    }
}
