//! The reader, with its calls in any order. A real writer feeds it through a queue that reorders,
//! loses and repeats messages, and into which strangers write as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relay_engine::{Authenticator, End, Event, Finish, Frame, Inbox, MemorySpool, Outbox, Seal as _, Start, Timeouts};
use relay_protocol::frame::{Chunk, LauncherKind, RunnerFrame, RunnerKind, Stream};
use relay_protocol::outcome::{Outcome, Reason};
use relay_protocol::{DeploymentId, Digest, LauncherFrame, PublicKey, SignedFrame, Timestamp};

use crate::input::Input;
use crate::toy::{Keys, Toy, published};
use crate::writer::{Streams, length, text};

/// The origin of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// One of the runner's own frames, by its sequence number.
    Runner(u64),
    Launcher,
    Stranger,
}

const OUTCOME: Outcome = Outcome::Exited { code: 37, signal: None };

struct World {
    id: DeploymentId,
    request: Digest,
    keys: Keys,
    strangers: Keys,
    now: Duration,
    outbox: Outbox<Keys, MemorySpool>,
    reader: Inbox<Toy>,
    timeouts: Timeouts,
    pushed: Streams,
    finished: bool,
    /// Whether a late joiner has replaced the first reader.
    late: bool,
    queue: Vec<(Source, SignedFrame)>,
    /// The source of each message that the reader was given, indexed by token.
    given: Vec<Source>,
    /// The sequence numbers of the runner's frames that the reader has released for deletion.
    deleted: BTreeSet<u64>,
    /// How many times the reader was given a stranger's message.
    strangers_given: u64,
    /// The runner's output frames that were sent, by sequence number.
    output: BTreeMap<u64, Vec<Chunk>>,
    answers: Vec<(u64, Vec<u64>)>,
    /// The output that the current reader has returned. `next` is the first sequence number after
    /// it.
    printed: Streams,
    next: u64,
    /// Whether frames may be missing before the next output: a gap was reported, or the first
    /// reader may have consumed them.
    may_skip: bool,
    gaps: bool,
    polled: BTreeSet<u64>,
    written: BTreeSet<u64>,
    end: Option<End>,
}

/// Runs the operations in the bytes, then lets every timeout expire.
pub fn reader(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new();
    while let Some(operation) = input.operation() {
        world.step(operation, &mut input);
    }
    world.run_out();
}

fn launcher(input: &mut Input<'_>, request_digest: Digest) -> LauncherKind {
    let (task_arn, message) = (if input.flag() { "task" } else { "other" }.to_owned(), String::new());
    match input.byte() % 6 {
        0 | 1 => {
            let deadline = Timestamp::from_unix(i64::from(input.word()));
            LauncherKind::Admitted { request_digest, task_arn, deadline, policies: Vec::new() }
        }
        2 => LauncherKind::Refused { request_digest, reason: Reason::Busy, message },
        3 => LauncherKind::LaunchFailed { request_digest, reason: Reason::Capacity, message },
        kind => {
            let state = if kind == 4 { "RUNNING" } else { "STOPPED" }.to_owned();
            let (reason, stop_code, stopped_reason, exit_code) = (Some(Reason::Lost), None, None, None);
            LauncherKind::Task { request_digest, task_arn, state, reason, stop_code, stopped_reason, exit_code }
        }
    }
}

impl World {
    fn new() -> Self {
        let id = DeploymentId::new(0, [3; 10]);
        let request = Digest::of(b"request");
        let keys = Keys::new(&id, request);
        let strangers = Keys::by(PublicKey::from_der(b"stranger").expect("a key by its length"), 8, &id, request);
        let now = Duration::ZERO;
        let timeouts = Timeouts::default();
        let authenticator = Authenticator::new(published(&id, request), keys.pins(), Toy);
        Self {
            outbox: Outbox::new(id.clone(), now, keys.clone(), MemorySpool::default()),
            reader: Inbox::new(authenticator, Start::Fresh, timeouts, now, Timestamp::from_unix(0)),
            id,
            request,
            keys,
            strangers,
            now,
            timeouts,
            pushed: Streams::default(),
            finished: false,
            late: false,
            queue: Vec::new(),
            given: Vec::new(),
            deleted: BTreeSet::new(),
            strangers_given: 0,
            output: BTreeMap::new(),
            answers: Vec::new(),
            printed: Streams::default(),
            next: 0,
            may_skip: false,
            gaps: false,
            polled: BTreeSet::new(),
            written: BTreeSet::new(),
            end: None,
        }
    }

    fn step(&mut self, operation: u8, input: &mut Input<'_>) {
        match operation % 16 {
            0 => self.push(input),
            1 if !self.finished => {
                let kind = match input.byte() % 3 {
                    0 => RunnerKind::Step { index: 0, name: "step".into(), rollback: false },
                    1 => RunnerKind::Note { text: "note".into() },
                    _ => {
                        let deadline = Timestamp::from_unix(i64::from(input.word()));
                        RunnerKind::Started { task_arn: "task".into(), steps: Vec::new(), deadline, grace: 120 }
                    }
                };
                self.outbox.say(self.now, kind);
            }
            2 if !self.finished => {
                self.finished = true;
                self.outbox.finish(self.now, Finish::of(OUTCOME));
            }
            3 | 4 => self.send(input.word(), input.word()),
            5 => self.answer(input),
            6 | 7 => {
                // Any message may be delivered any number of times until it is deleted.
                let at = input.below(self.queue.len());
                self.deliver(at);
            }
            8 => (0..self.queue.len()).for_each(|at| self.deliver(at)),
            9 => self.forge(input),
            10 => {
                let kind = launcher(input, self.request);
                let raw = self.keys.launcher(&LauncherFrame { deployment_id: self.id.clone(), kind });
                self.queue.push((Source::Launcher, raw));
            }
            11 => self.poll(usize::from(input.byte())),
            12 => {
                self.poll(usize::MAX);
                if let Some(mark) = self.reader.polled() {
                    self.reader.written(mark);
                }
                self.written.append(&mut self.polled);
            }
            13 => self.delete(input.word()),
            14 => {
                let by = u64::from(input.byte());
                self.now += if input.flag() { Duration::from_secs(by) } else { Duration::from_millis(by) };
                self.reader.handle_timeout(self.now);
            }
            _ => match input.byte() % 8 {
                0 => self.reader.handle_unreachable(Duration::from_secs(u64::from(input.word()))),
                1 if !self.late => self.another(),
                _ => {}
            },
        }
        self.look();
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let stream = if input.flag() { Stream::Stdout } else { Stream::Stderr };
        let (length, noisy) = (length(input), input.flag());
        if self.outbox.has_room() && !self.finished {
            let bytes = text(stream, self.pushed.of(stream).len(), length, noisy);
            self.outbox.push(self.now, stream, &bytes);
            self.pushed.of(stream).extend(bytes);
        }
    }

    /// Sends the frames that are due. `arrives` selects the frames that reach the queue, `told` the
    /// ones of these whose success is reported to the writer.
    fn send(&mut self, arrives: u16, told: u16) {
        let has = |mask: u16, frame: &Frame| mask >> (frame.seq % 16) & 1 == 0;
        while self.outbox.poll_frame(self.now).is_some() {}
        while let Some(batch) = self.outbox.poll_batch(self.now) {
            for frame in &batch.frames {
                if let Ok(RunnerFrame { kind: RunnerKind::Output(chunks), .. }) = RunnerFrame::parse(&frame.signed.body)
                {
                    self.output.insert(frame.seq, chunks.unfold().expect("output of our own"));
                }
                if has(arrives, frame) {
                    self.queue.push((Source::Runner(frame.seq), frame.signed.clone()));
                }
            }
            let sent = batch.frames.iter().filter(|frame| has(arrives, frame) && has(told, frame));
            self.answers.push((batch.number, sent.map(|frame| frame.seq).collect()));
            while self.outbox.poll_frame(self.now).is_some() {}
        }
    }

    fn answer(&mut self, input: &mut Input<'_>) {
        if !self.answers.is_empty() {
            let (batch, sent) = self.answers.remove(input.below(self.answers.len()));
            self.outbox.handle_result(self.now, batch, &sent);
        }
    }

    fn deliver(&mut self, at: usize) {
        if let Some((source, raw)) = self.queue.get(at).cloned() {
            let token = self.given.len() as u64;
            self.given.push(source);
            self.strangers_given += u64::from(source == Source::Stranger);
            self.reader.handle(self.now, token, raw);
        }
    }

    /// Adds a forged message. A stranger can write into the queue and has read its content.
    fn forge(&mut self, input: &mut Input<'_>) {
        let at = input.below(self.queue.len());
        let mut raw = match self.queue.get(at) {
            Some((_, raw)) => raw.clone(),
            None => SignedFrame { from: "runner".into(), sig: String::new(), vouch: None, body: "{}".into() },
        };
        match input.byte() % 6 {
            0 => raw.body.push(' '),
            1 => raw.sig = relay_protocol::encoding::base64(&[input.byte(); 64]),
            2 => raw.from = "somebody".into(),
            3 => {
                raw = self.strangers.seal(raw.body, input.flag());
            }
            4 => {
                raw.body =
                    String::from_utf8_lossy(input.take(usize::from(input.0.first().copied().unwrap_or(0)))).into()
            }
            _ => {
                let kind = launcher(input, self.request);
                raw = self.strangers.launcher(&LauncherFrame { deployment_id: self.id.clone(), kind });
            }
        }
        // An exact copy of a genuine message is not a forgery.
        if !self.queue.iter().any(|(source, known)| *source != Source::Stranger && *known == raw) {
            self.queue.push((Source::Stranger, raw));
        }
    }

    /// Simulates the death of the first reader: a new one joins in its place.
    fn another(&mut self) {
        let authenticator = Authenticator::attaching(self.id.clone(), self.keys.pins(), Toy);
        let start = Start::Join { acknowledged: 0, settle: Duration::from_secs(30) };
        self.reader = Inbox::new(authenticator, start, self.timeouts, self.now, Timestamp::from_unix(0));
        (self.late, self.may_skip, self.next, self.end) = (true, true, 0, None);
        self.printed = Streams::default();
        self.polled.clear();
        // The tokens of the first reader mean nothing to the new one.
        self.given.iter_mut().for_each(|source| *source = Source::Stranger);
    }

    fn poll(&mut self, events: usize) {
        for _ in 0..events {
            let Some(event) = self.reader.poll_event() else { return };
            match event {
                Event::Output(chunks) => self.print(chunks),
                Event::Gap(missing) => {
                    assert!(missing.frames > 0);
                    (self.may_skip, self.gaps) = (true, true);
                }
                Event::Launcher(_) | Event::Started { .. } | Event::Step { .. } | Event::Note(_) => {}
            }
        }
    }

    /// Output comes from the runner's next frame. It is never repeated, reordered, or taken from a
    /// stranger.
    fn print(&mut self, chunks: Vec<Chunk>) {
        assert!(!matches!(self.end, Some(End::Finished { .. })), "output after the end");
        let mut ahead = self.output.range(self.next..);
        let found = if self.may_skip { ahead.find(|(_, known)| **known == chunks) } else { ahead.next() };
        let (seq, known) = found.expect("output that the runner never sent, or sent before");
        assert!(*known == chunks, "output out of order");
        let seq = *seq;
        (self.next, self.may_skip) = (seq + 1, false);
        self.polled.insert(seq);
        for chunk in chunks {
            let printed = self.printed.of(chunk.stream);
            let place = printed.len();
            printed.extend(chunk.bytes);
            let whole = !self.late && !self.gaps;
            assert!(
                !whole || self.pushed.of(chunk.stream)[place..].starts_with(&printed[place..]),
                "not what the tool wrote"
            );
        }
    }

    fn delete(&mut self, spare: u16) {
        for token in self.reader.take_deletable() {
            let source = usize::try_from(token).ok().and_then(|at| self.given.get(at)).expect("a token of ours");
            if let Source::Runner(seq) = source
                && self.output.contains_key(seq)
                && self.reader.first().is_none_or(|first| *seq >= first)
            {
                assert!(self.written.contains(seq), "a message is deleted before its bytes are written");
            }
            if let Source::Runner(seq) = source {
                self.deleted.insert(*seq);
            }
        }
        // A deletion may fail; the message is then delivered again.
        let gone = |seq: u64| self.deleted.contains(&seq) && spare >> (seq % 16) & 1 == 1;
        self.queue.retain(|(source, _)| !matches!(source, Source::Runner(seq) if gone(*seq)));
    }

    /// Checks the invariants after each operation.
    fn look(&mut self) {
        assert!(self.reader.dropped() <= self.strangers_given, "a genuine frame was dropped");
        let Some(end) = self.reader.poll_end().cloned() else { return };
        match &end {
            End::Finished { finished, missing, verified, .. } => {
                assert_eq!(finished.outcome, OUTCOME);
                if !self.late {
                    assert_eq!(*verified, !self.gaps, "a gap is reported if and only if there is one");
                }
                if *verified && !self.late {
                    assert!(missing.frames == 0 && missing.bytes == 0);
                    assert!(self.printed == self.pushed, "verified output is not the whole output");
                }
            }
            End::Refused { .. } | End::NeverStarted { .. } => {
                assert!(
                    self.given.contains(&Source::Launcher) || self.late,
                    "the launcher did not answer, but the end is its refusal"
                )
            }
            End::Tried(_) => panic!("nobody has published a dry run"),
            End::Stopped { .. } | End::Silent { .. } => {}
        }
        // An end that the launcher reported may be replaced by the runner's. The runner's end is
        // final.
        if matches!(self.end, Some(End::Finished { .. })) {
            assert_eq!(self.end.as_ref(), Some(&end), "the end changed after it was final");
        }
        self.end = Some(end);
    }

    /// No more messages arrive. The reader reaches its end by its own timeouts, and within a
    /// bounded time (promise P4).
    fn run_out(&mut self) {
        let began = self.now;
        for _ in 0..2_000 {
            self.poll(usize::MAX);
            if let Some(mark) = self.reader.polled() {
                self.reader.written(mark);
            }
            self.written.append(&mut self.polled);
            self.delete(0);
            self.look();
            if self.end.is_some() {
                let timeouts =
                    self.timeouts.admission + self.timeouts.start + self.timeouts.silence + self.timeouts.drain;
                let bound = timeouts + self.timeouts.outage + Duration::from_secs(65_535 + 600);
                assert!(self.now - began <= bound, "it took {:?} to give up", self.now - began);
                return;
            }
            let due = self.reader.poll_timeout().expect("a reader without an end has a timeout");
            self.now = self.now.max(due);
            self.reader.handle_timeout(self.now);
        }
        panic!("the reader does not reach its end");
    }
}
