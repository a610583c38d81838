//! The outbox turns output and messages into signed frames, in order, and sends them to the queue
//! however long that takes (promise P5).
//!
//! | part | what it does |
//! |---|---|
//! | `writer` | cuts output into frames, and numbers them |
//! | `backlog` | keeps frames that the sender has no room for |
//! | `sender` | makes batches, and sends again what did not arrive |
//!
//! The driver polls: [`Outbox::poll_frame`] for what goes to the archive, [`Outbox::poll_batch`]
//! for what goes to the queue, [`Outbox::poll_timeout`] for when to ask again.

mod backlog;
mod in_flight;
mod pending;
mod sender;
mod writer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use relay_protocol::frame::{RunnerKind, Stream};
use relay_protocol::record::StreamDigest;
use relay_protocol::time::plain_elapsed;
use relay_protocol::{DeploymentId, SignedFrame};

pub use backlog::{MemorySpool, Spool};
pub use in_flight::{Finish, Frame};
pub use sender::Batch;

use backlog::Backlog;
use in_flight::Link;
use sender::Sender;
use writer::{Unsigned, Writer};

/// How long the tool must have waited before a note says so.
const WAITED: Duration = Duration::from_secs(1);

/// Signs frames with the runner key of one deployment.
pub trait Seal {
    /// Signs `body` and returns the frame. With `vouch`, the frame carries the vouch.
    fn seal(&self, body: String, vouch: bool) -> SignedFrame;
}

/// Sends what one deployment prints. The module's head lists its parts.
///
/// ```
/// use std::time::Duration;
///
/// use relay_engine::{MemorySpool, Outbox, Seal};
/// use relay_protocol::frame::{FrameSource, Stream};
/// use relay_protocol::{DeploymentId, SignedFrame};
///
/// struct Unsigned; // A real seal signs with the runner key.
/// impl Seal for Unsigned {
///     fn seal(&self, body: String, _vouch: bool) -> SignedFrame {
///         SignedFrame::new(FrameSource::Runner, &[0; 64], None, body)
///     }
/// }
///
/// let (id, now) = (DeploymentId::new(0, [7; 10]), Duration::ZERO);
/// let mut outbox = Outbox::new(id, now, Unsigned, MemorySpool::default());
/// outbox.push(now, Stream::Stdout, b"hello\n");
/// let frame = outbox.poll_frame(now).expect("a frame for the archive");
/// let batch = outbox.poll_batch(now).expect("a batch for the queue");
/// outbox.handle_result(now, batch.number, &[frame.seq]);
/// assert!(outbox.is_idle());
/// ```
#[derive(Debug)]
pub struct Outbox<K, S> {
    seal: K,
    writer: Writer,
    backlog: Backlog<S>,
    sender: Sender,
    /// Since when the tool has been made to wait.
    full: Option<Duration>,
    problems: VecDeque<String>,
}

impl<K: Seal, S: Spool> Outbox<K, S> {
    /// For the deployment `id`, which begins at `now`.
    pub fn new(id: DeploymentId, now: Duration, seal: K, spool: S) -> Self {
        Self {
            seal,
            writer: Writer::new(id, now),
            backlog: Backlog::new(spool),
            sender: Sender::new(),
            full: None,
            problems: VecDeque::new(),
        }
    }

    /// Adds output of the tool, already masked, in the order in which it was read. While
    /// [`Outbox::has_room`] returns `false`, the caller should make the tool wait instead.
    pub fn push(&mut self, now: Duration, stream: Stream, bytes: &[u8]) {
        self.writer.push(now, stream, bytes);
    }

    /// Adds a frame that is not output. It follows everything that was pushed before.
    pub fn say(&mut self, now: Duration, kind: RunnerKind) {
        self.writer.say(now, kind);
    }

    /// Adds the last frame. Later calls of `push` and `say` send nothing.
    pub fn finish(&mut self, now: Duration, finish: Finish) {
        self.writer.finish(now, finish);
    }

    /// The current length and digest of both streams, for the record: stdout, stderr.
    pub fn digests(&self) -> (StreamDigest, StreamDigest) {
        self.writer.digests()
    }

    /// Whether more output may come (clause FRM-15).
    pub fn has_room(&self) -> bool {
        self.backlog.has_room()
    }

    /// The next frame that is due, for the archive. The outbox itself queues it for sending. Each
    /// frame is returned once.
    pub fn poll_frame(&mut self, now: Duration) -> Option<Arc<Frame>> {
        self.note_waiting(now);
        let frame = self.writer.poll_frame(now, self.link())?;
        let frame = self.sealed(frame);
        if self.backlog.is_empty() && self.sender.has_room() {
            self.sender.queue(Arc::clone(&frame));
        } else if let Err(error) = self.backlog.put(Arc::clone(&frame)) {
            self.problems.push_back(format!(
                "cannot write to the spool: {error}; the tool waits until the reply queue accepts more"
            ));
        }
        Some(frame)
    }

    /// The next batch to send, if one is due. The frame that has waited longest goes first.
    pub fn poll_batch(&mut self, now: Duration) -> Option<Batch> {
        self.refill();
        self.sender.poll_batch(now)
    }

    /// Handles the result of a batch. `arrived` lists the frames that arrived; the others go out
    /// again after a pause.
    pub fn handle_result(&mut self, now: Duration, batch: u64, arrived: &[u64]) {
        self.sender.handle_result(now, batch, arrived);
    }

    /// When one of the polls next has something to do, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let refill = (self.sender.has_room() && !self.backlog.is_empty()).then_some(Duration::ZERO);
        [self.writer.poll_timeout(self.link()), self.sender.poll_timeout(), refill].into_iter().flatten().min()
    }

    /// The next problem of the spool, for the log.
    pub fn poll_problem(&mut self) -> Option<String> {
        self.problems.pop_front()
    }

    /// Whether everything that was added has arrived.
    pub fn is_idle(&self) -> bool {
        self.writer.is_idle() && self.backlog.is_empty() && self.sender.is_idle()
    }

    /// Whether the last frame has arrived.
    pub fn is_done(&self) -> bool {
        self.backlog.is_empty() && self.sender.is_done()
    }

    fn link(&self) -> Link {
        if self.backlog.is_empty() { self.sender.link() } else { Link::Blocked }
    }

    fn sealed(&self, frame: Unsigned) -> Arc<Frame> {
        let Unsigned { seq, body, vouch, output, last } = frame;
        Arc::new(Frame { seq, output, last, signed: self.seal.seal(body, vouch) })
    }

    fn refill(&mut self) {
        while self.sender.has_room() && !self.backlog.is_empty() {
            match self.backlog.next() {
                Ok(Some(frame)) => self.sender.queue(frame),
                Ok(None) => {}
                Err(lost) => {
                    self.problems.push_back(format!("cannot read the spool: {}", lost.problem));
                    let mut text = Some(format!(
                        "output is missing here: the runner's disk failed ({}); the archive should have it: run `relay-admin log`",
                        lost.problem
                    ));
                    for seq in lost.seqs {
                        let frame = self.sealed(self.writer.in_place_of(seq, text.take()));
                        self.sender.queue(frame);
                    }
                }
            }
        }
    }

    /// Notes whether the tool must wait because the backlog has no room. Afterwards, a note says
    /// for how long it waited (clause FRM-15).
    fn note_waiting(&mut self, now: Duration) {
        if !self.backlog.has_room() {
            self.full.get_or_insert(now);
        } else if let Some(waited) = self.full.take().map(|since| now.saturating_sub(since))
            && waited >= WAITED
        {
            let waited = plain_elapsed(waited);
            let text = format!(
                "relay made the tool wait for {waited}: the reply queue accepted nothing, and the disk spool was full"
            );
            self.writer.say(now, RunnerKind::Note { text });
        }
    }
}

/// A last frame that holds nothing but an exit code.
#[cfg(test)]
fn exited(code: u8) -> Finish {
    Finish::of(relay_protocol::outcome::Outcome::Exited { code, signal: None })
}

/// A frame with a body of `size` bytes.
#[cfg(test)]
fn frame(seq: u64, output: bool, size: usize) -> Arc<Frame> {
    let signed = SignedFrame { from: "runner".into(), sig: String::new(), vouch: None, body: "x".repeat(size) };
    Arc::new(Frame { seq, output, last: false, signed })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct Unsealed;

    impl Seal for Unsealed {
        fn seal(&self, body: String, vouch: bool) -> SignedFrame {
            SignedFrame { from: "runner".into(), sig: String::new(), vouch: vouch.then(String::new), body }
        }
    }

    /// A spool of three pieces that can be made to forget them.
    #[derive(Default)]
    struct Three {
        spool: MemorySpool,
        forgets: bool,
    }

    impl Spool for Three {
        fn has_room(&self) -> bool {
            self.spool.pieces() < 3
        }
        fn put(&mut self, piece: &[u8]) -> io::Result<()> {
            self.spool.put(piece)
        }
        fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
            if self.forgets { Err(io::ErrorKind::UnexpectedEof.into()) } else { self.spool.take() }
        }
        fn clear(&mut self) {
            self.forgets = false;
            self.spool.clear();
        }
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// An outbox whose queue accepts nothing, filled until it has no room. Also returns the last
    /// second, and the frames that were made.
    fn full() -> (Outbox<Unsealed, Three>, u64, Vec<Arc<Frame>>) {
        let mut outbox = Outbox::new(DeploymentId::new(0, [1; 10]), s(0), Unsealed, Three::default());
        let (mut made, mut second) = (Vec::new(), 0);
        let mut noise = 1_u64;
        while outbox.has_room() {
            second += 2;
            let bytes: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()[0]
            })
            .take(100_000)
            .collect();
            outbox.push(s(second), Stream::Stdout, &bytes);
            // Output that did not fill a frame is cut a second later.
            made.extend(std::iter::from_fn(|| outbox.poll_frame(s(second + 1))));
            while outbox.poll_batch(s(second)).is_some() {}
        }
        (outbox, second + 1, made)
    }

    /// Lets everything arrive from now on. Returns the frames that did.
    fn sent(outbox: &mut Outbox<Unsealed, Three>, second: u64) -> Vec<Arc<Frame>> {
        let mut sent = Vec::new();
        for batch in 0..1_000 {
            let arrived: Vec<u64> = (0..1_000).collect();
            outbox.handle_result(s(second), batch, &arrived);
            while let Some(frame) = outbox.poll_frame(s(second)) {
                drop(frame);
            }
            while let Some(batch) = outbox.poll_batch(s(second)) {
                sent.extend(batch.frames);
            }
        }
        assert!(outbox.is_idle());
        sent
    }

    // clause: FRM-15
    #[test]
    fn a_full_spool_makes_the_tool_wait_and_a_note_says_so() {
        let (mut outbox, second, made) = full();
        assert!(outbox.poll_frame(s(second + 90)).is_none() && outbox.poll_timeout().is_none());
        let sent = sent(&mut outbox, second + 90);
        assert!(outbox.has_room());
        let note = sent.iter().find(|frame| !frame.output).expect("a note");
        assert!(note.signed.body.contains("made the tool wait for 1m30s"), "{}", note.signed.body);
        assert!(
            made.iter().rev().take(3).all(|frame| sent.contains(frame)),
            "a frame that waited is the frame that was archived"
        );
    }

    // clause: FRM-15
    #[test]
    fn a_spool_that_forgets_is_told_once_and_every_number_comes() {
        let (mut outbox, second, made) = full();
        outbox.backlog.spool_mut().forgets = true;
        let sent = sent(&mut outbox, second);
        assert!(outbox.poll_problem().is_some_and(|text| text.contains("cannot read")));
        let lost: Vec<_> = sent.iter().filter(|frame| !frame.output).collect();
        assert_eq!(lost.iter().filter(|frame| frame.signed.body.contains("output is missing here")).count(), 1);
        for frame in made.iter().rev().take(3) {
            assert!(lost.iter().any(|lost| lost.seq == frame.seq), "{}", frame.seq);
        }
    }
}
