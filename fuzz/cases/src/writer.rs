//! The outbox, with its calls in any order and a spool that refuses pieces. The frames carry the
//! whole output in order, and SQS accepts the frames and their batches.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use relay_engine::{Finish, Frame, MemorySpool, Outbox, Seal, Spool};
use relay_protocol::frame::{Finished, RunnerFrame, RunnerKind, Stream};
use relay_protocol::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX, FRAME_ATTRIBUTES_MAX, FRAME_MAX};
use relay_protocol::outcome::Outcome;
use relay_protocol::{DeploymentId, Digest, SignedFrame, Timestamp};

use crate::frame::is_sendable;
use crate::input::Input;

/// Output whose bytes depend on their position in the stream, so that a misplaced byte is detected.
pub(crate) fn text(stream: Stream, from: usize, length: usize, noisy: bool) -> Vec<u8> {
    let salt = if stream == Stream::Stdout { 0x9E37_79B9 } else { 0x85EB_CA6B };
    let mix = |at: usize| (at as u64 + 1).wrapping_mul(salt).rotate_right(7) ^ (at as u64 >> 5);
    (from..from + length)
        .map(|at| {
            if noisy {
                mix(at).to_le_bytes()[1]
            } else {
                b"0123456789abcdef"[usize::from(mix(at).to_le_bytes()[0] % 16)]
            }
        })
        .collect()
}

/// The length of a piece, from 0 to 327,675 bytes, usually below 90.
pub(crate) fn length(input: &mut Input<'_>) -> usize {
    let (kind, word) = (input.byte(), usize::from(input.word()));
    match kind % 64 {
        0 => word * 5,
        1..=4 => word % 5_000,
        _ => word % 90,
    }
}

/// The bytes that were pushed to each stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Streams {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Streams {
    pub(crate) fn of(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Leaves the signatures empty, as nothing here verifies them.
struct Unsealed;

impl Seal for Unsealed {
    fn seal(&self, body: String, vouch: bool) -> SignedFrame {
        SignedFrame { from: "runner".into(), sig: String::new(), vouch: vouch.then(String::new), body }
    }
}

/// A spool that holds at most 50 pieces and refuses some of them.
#[derive(Default)]
struct Disk {
    spool: MemorySpool,
    puts: u32,
    refuses: u16,
}

impl Spool for Disk {
    fn has_room(&self) -> bool {
        self.spool.pieces() < 50
    }
    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        self.puts += 1;
        if self.refuses >> (self.puts % 16) & 1 == 1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.spool.put(piece)
    }
    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.spool.take()
    }
    fn clear(&mut self) {
        self.spool.clear();
    }
}

type Runner = Outbox<Unsealed, Disk>;

#[derive(Default)]
struct Seen {
    /// Batches in flight: the batch number, and the sequence numbers of its frames.
    travelling: Vec<(u64, Vec<u64>)>,
    /// Every frame that was sent, by sequence number.
    frames: BTreeMap<u64, Arc<Frame>>,
    /// The sequence numbers that the writer was told have arrived.
    arrived: BTreeSet<u64>,
    /// The sequence number of the terminal frame, once it was sent.
    terminal: Option<u64>,
}

/// Calls the writer as the bytes direct.
pub fn writer(data: &[u8]) {
    let mut input = Input(data);
    let mut now = Duration::ZERO;
    let disk = Disk { refuses: input.word(), ..Disk::default() };
    let mut runner = Outbox::new(DeploymentId::new(0, [1; 10]), now, Unsealed, disk);
    let mut pushed = Streams::default();
    let mut seen = Seen::default();
    let mut finished = false;
    while let Some(operation) = input.operation() {
        match operation % 8 {
            0 | 1 => {
                let stream = if input.flag() { Stream::Stdout } else { Stream::Stderr };
                let length = length(&mut input);
                let bytes = text(stream, pushed.of(stream).len(), length, input.flag());
                runner.push(now, stream, &bytes);
                if !finished {
                    pushed.of(stream).extend(bytes);
                }
            }
            2 if !finished => runner.say(now, kind(&mut input)),
            3 => now += Duration::from_millis(u64::from(input.byte())),
            4 => now += Duration::from_secs(u64::from(input.byte())),
            5 => send(&mut runner, now, &mut seen),
            6 if !seen.travelling.is_empty() => {
                let (number, batch) = seen.travelling.remove(input.below(seen.travelling.len()));
                // Some frames of the batch, and one that was never in it.
                let mask = input.word();
                let mut sent: Vec<u64> = batch.iter().copied().filter(|seq| mask >> (seq % 16) & 1 == 1).collect();
                sent.push(u64::from(input.byte()) + 1_000_000);
                runner.handle_result(now, number, &sent);
                seen.arrived.extend(sent);
            }
            _ if input.byte() == 0 && !finished => {
                finished = true;
                runner.finish(now, Finish::of(Outcome::Exited { code: 3, signal: None }));
            }
            _ => {}
        }
    }
    if !finished {
        runner.finish(now, Finish::of(Outcome::Exited { code: 3, signal: None }));
    }
    // From here on everything arrives, so the writer must finish by its own deadlines.
    for _ in 0..10_000 {
        while let Some((number, batch)) = seen.travelling.pop() {
            runner.handle_result(now, number, &batch);
            seen.arrived.extend(batch);
        }
        if runner.is_done() {
            assert!(runner.is_idle() && runner.poll_timeout().is_none());
            return whole(&seen, &pushed);
        }
        send(&mut runner, now, &mut seen);
        if seen.travelling.is_empty() {
            now = runner.poll_timeout().expect("an unfinished writer has a timeout").max(now);
        }
    }
    panic!("the writer does not reach its end");
}

fn kind(input: &mut Input<'_>) -> RunnerKind {
    match input.byte() % 3 {
        0 => RunnerKind::Started {
            task_arn: "task".into(),
            steps: Vec::new(),
            deadline: Timestamp::from_unix(0),
            grace: 120,
        },
        1 => RunnerKind::Step { index: 0, name: "step".into(), rollback: false },
        _ => RunnerKind::Note { text: "\u{1b}\u{ffff}".repeat(usize::from(input.byte())) },
    }
}

/// Takes every batch that is due and checks it against the limits of SQS.
fn send(runner: &mut Runner, now: Duration, seen: &mut Seen) {
    while runner.poll_frame(now).is_some() {}
    while let Some(batch) = runner.poll_batch(now) {
        let (number, batch) = (batch.number, batch.frames);
        assert!((1..=BATCH_ENTRIES_MAX).contains(&batch.len()));
        let size: usize = batch.iter().map(|frame| frame.signed.body.len() + FRAME_ATTRIBUTES_MAX).sum();
        assert!(size <= BATCH_BYTES_MAX, "{size} bytes in a batch");
        for frame in &batch {
            assert!(frame.signed.body.len() + FRAME_ATTRIBUTES_MAX <= FRAME_MAX && is_sendable(&frame.signed.body));
            assert!(
                !seen.travelling.iter().any(|(_, batch)| batch.contains(&frame.seq)),
                "the frame is already in flight"
            );
            assert!(!seen.arrived.contains(&frame.seq), "the frame has already arrived");
            let parsed = RunnerFrame::parse(&frame.signed.body).expect("a frame of our own");
            assert_eq!((parsed.seq, parsed.bears_vouch()), (frame.seq, frame.signed.vouch.is_some()));
            assert_eq!(matches!(parsed.kind, RunnerKind::Output(_)), frame.output);
            assert_eq!(matches!(parsed.kind, RunnerKind::Finished(_)), frame.last);
            if frame.last {
                assert!(batch.len() == 1 && seen.travelling.is_empty(), "the end must be sent alone");
                seen.terminal = Some(frame.seq);
            } else {
                assert_eq!(seen.terminal, None, "a frame follows the end");
            }
            let before = seen.frames.insert(frame.seq, frame.clone());
            assert!(before.is_none_or(|before| before == *frame), "a frame changed when it was sent again");
        }
        seen.travelling.push((number, batch.iter().map(|frame| frame.seq).collect()));
        while runner.poll_frame(now).is_some() {}
    }
}

/// The frames in order hold the output that was pushed, and the terminal frame confirms it.
fn whole(seen: &Seen, pushed: &Streams) {
    let mut out = Streams::default();
    let mut end: Option<Box<Finished>> = None;
    for (at, frame) in (0_u64..).zip(seen.frames.values()) {
        let frame = RunnerFrame::parse(&frame.signed.body).expect("a frame of our own");
        assert_eq!(frame.seq, at, "the frame numbers have a gap");
        match frame.kind {
            RunnerKind::Output(chunks) => {
                let before = chunks.offset;
                assert_eq!((before.stdout, before.stderr), (out.stdout.len() as u64, out.stderr.len() as u64));
                for chunk in chunks.unfold().expect("output of our own") {
                    out.of(chunk.stream).extend(chunk.bytes);
                }
            }
            RunnerKind::Finished(finished) => end = Some(finished),
            _ => {}
        }
    }
    assert!(out == *pushed, "the sent output differs from the pushed output");
    let end = end.expect("an end");
    assert_eq!(end.frames, seen.frames.len() as u64);
    for (said, had) in [(end.stdout, &out.stdout), (end.stderr, &out.stderr)] {
        assert_eq!((said.bytes, said.sha256), (had.len() as u64, Digest::of(had)));
    }
}
