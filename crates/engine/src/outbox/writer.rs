//! The writer: cuts output into numbered frames, gathers output under load, and counts both
//! streams.
//!
//! Its frames are complete and in order from the first to the last. The sender brings them to SQS.

use std::collections::VecDeque;
use std::time::Duration;

use relay_protocol::frame::{Chunks, Finished, RunnerFrame, RunnerKind, Stream};
use relay_protocol::limits::{FRAME_ATTRIBUTES_MAX, FRAME_MAX, FRAME_OUTPUT_MAX, HEARTBEAT_SECONDS};
use relay_protocol::record::StreamDigest;
use relay_protocol::{DeploymentId, Digest};

use super::in_flight::{Finish, Link};
use super::pending::{CERTAIN, CHUNKS, Pending};
use crate::Tallies;

/// A frame that is not signed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unsigned {
    pub(super) seq: u64,
    pub(super) body: String,
    /// Whether the attribute `vouch` goes with it.
    pub(super) vouch: bool,
    /// Whether it holds output of the tool, and not one of the runner's own few messages.
    pub(super) output: bool,
    /// Whether it is the deployment's last (clause FRM-13).
    pub(super) last: bool,
}

/// Bytes of a member `,"record":` in a body.
const RECORD_MEMBER: usize = 10;

/// The pause between two output frames while others are on their way, short enough that a person
/// sees no delay. With nothing on its way, the next frame is cut immediately. There is thus at most
/// one frame per answer time of SQS, or 50 a second: seven cents an hour at most.
const COALESCE: Duration = Duration::from_millis(20);

/// The shortest pause. Without it, an SQS that answers faster than any in a region does would get a
/// frame for each line of a busy tool.
const PACE: Duration = Duration::from_millis(2);

/// How long output is gathered while nothing can be sent. A reader of the archive sees no delay,
/// and SQS later takes the output in few frames.
const GATHER: Duration = Duration::from_secs(1);

/// Bytes of output in one frame up to which it stays legible to an auditor. JSON may escape one
/// byte into six.
const LEGIBLE: usize = 16 * 1_024;

/// The most bytes of a frame's body.
const BODY_MAX: usize = FRAME_MAX - FRAME_ATTRIBUTES_MAX;

/// Makes the frames of one deployment.
#[derive(Debug)]
pub(super) struct Writer {
    id: DeploymentId,
    began: Duration,
    next_seq: u64,
    pending: Pending,
    tallies: Tallies,
    /// How many raw bytes the next frame may take. Follows how well the output compresses.
    budget: usize,
    made: VecDeque<Unsigned>,
    last_cut: Option<Duration>,
    heartbeat_at: Option<Duration>,
    finished: bool,
}

impl Writer {
    /// A writer for `id` that begins at `now`.
    pub(super) fn new(id: DeploymentId, now: Duration) -> Self {
        Self {
            id,
            began: now,
            next_seq: 0,
            pending: Pending::new(now),
            tallies: Tallies::default(),
            budget: FRAME_OUTPUT_MAX / 2,
            made: VecDeque::new(),
            last_cut: None,
            heartbeat_at: None,
            finished: false,
        }
    }

    /// Adds output of the tool, already masked, in the order in which it was read.
    pub(super) fn push(&mut self, now: Duration, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() || self.finished {
            return;
        }
        self.tallies.add(stream, bytes);
        let ms = self.elapsed(now);
        self.pending.push(now, stream, ms, bytes);
    }

    /// Adds a frame that is not output. Output that was pushed before it is cut first.
    pub(super) fn say(&mut self, now: Duration, kind: RunnerKind) {
        if self.finished {
            return;
        }
        while !self.pending.is_empty() {
            self.cut_output(now);
        }
        if matches!(kind, RunnerKind::Started { .. }) {
            self.heartbeat_at = Some(now + Duration::from_secs(HEARTBEAT_SECONDS));
        }
        self.make(kind);
    }

    /// The current length and digest of both streams, for the record: stdout, stderr.
    pub(super) fn digests(&self) -> (StreamDigest, StreamDigest) {
        self.tallies.digests()
    }

    /// Adds the last frame.
    pub(super) fn finish(&mut self, now: Duration, finish: Finish) {
        if self.finished {
            return;
        }
        while !self.pending.is_empty() {
            self.cut_output(now);
        }
        let (stdout, stderr) = self.digests();
        self.finished = true;
        self.heartbeat_at = None;
        let Finish { outcome, step, outputs, record, record_problem } = finish;
        let json = record.to_json();
        let finished = Finished {
            outcome,
            step,
            frames: self.next_seq + 1,
            stdout,
            stderr,
            outputs,
            record_sha256: Digest::of(json.as_bytes()),
            record: None,
            record_problem,
        };
        // The record goes along if it fits; the evidence has it in any case. Without it the frame
        // always fits, because the outputs are bounded by their JSON form (clause FRM-14).
        let without = self.body(RunnerKind::Finished(Box::new(finished.clone()))).len();
        let fits = without + RECORD_MEMBER + json.len() <= BODY_MAX;
        let record = fits.then_some(record);
        self.make(RunnerKind::Finished(Box::new(Finished { record, ..finished })));
    }

    /// The next frame, if one is due. Each frame is returned once and not kept.
    pub(super) fn poll_frame(&mut self, now: Duration, link: Link) -> Option<Unsigned> {
        if self.heartbeat_at.is_some_and(|at| now >= at) {
            self.heartbeat_at = Some(now + Duration::from_secs(HEARTBEAT_SECONDS));
            self.make(RunnerKind::Heartbeat { elapsed_ms: self.elapsed(now) });
        }
        if self.made.is_empty() && !self.pending.is_empty() && now >= self.cut_at(link) {
            self.cut_output(now);
        }
        self.made.pop_front()
    }

    /// When `poll_frame` next has a frame, if nothing else happens.
    pub(super) fn poll_timeout(&self, link: Link) -> Option<Duration> {
        let made = (!self.made.is_empty()).then_some(Duration::ZERO);
        let cut = (!self.pending.is_empty()).then(|| self.cut_at(link));
        [made, cut, self.heartbeat_at].into_iter().flatten().min()
    }

    /// Whether everything that was added has been returned.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.made.is_empty()
    }

    /// A frame in place of one that was returned and then lost. Its number must arrive, or readers
    /// would wait for it. With `text`, the frame says what happened.
    pub(super) fn in_place_of(&self, seq: u64, text: Option<String>) -> Unsigned {
        let kind = text.map_or(RunnerKind::Heartbeat { elapsed_ms: 0 }, |text| RunnerKind::Note { text });
        self.message(seq, kind)
    }

    fn elapsed(&self, now: Duration) -> u64 {
        u64::try_from(now.saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn cut_at(&self, link: Link) -> Duration {
        let after = |pause| self.last_cut.map_or(Duration::ZERO, |last| last + pause);
        match link {
            // Output that fills a frame need not wait.
            _ if self.pending.bytes() >= self.budget || self.pending.chunks() >= CHUNKS => Duration::ZERO,
            Link::Clear => after(PACE),
            Link::Busy => after(COALESCE),
            Link::Blocked => self.pending.since() + GATHER,
        }
    }

    /// Cuts one output frame from the front of what is pending.
    fn cut_output(&mut self, now: Duration) {
        let (taken, body) = loop {
            let taken = self.pending.peek(self.budget);
            let size: usize = taken.iter().map(|chunk| chunk.bytes.len()).sum();
            let chunks = if size <= LEGIBLE {
                Chunks::legible(self.pending.offset(), &taken)
            } else {
                Chunks::packed(self.pending.offset(), &taken, 1)
            };
            let body = self.body(RunnerKind::Output(Box::new(chunks)));
            if body.len() <= BODY_MAX || size <= CERTAIN {
                if body.len() < BODY_MAX / 2 && size >= self.budget / 2 {
                    self.budget = (self.budget * 2).min(FRAME_OUTPUT_MAX);
                }
                break (size, body);
            }
            // This output compresses worse than the output before it: take less, in proportion.
            self.budget = (size / 10 * 9 * BODY_MAX / body.len()).clamp(CERTAIN, FRAME_OUTPUT_MAX);
        };
        self.pending.drop_front(now, taken);
        self.last_cut = Some(now);
        let frame = Unsigned { seq: self.next_seq, body, vouch: false, output: true, last: false };
        self.made.push_back(frame);
        self.next_seq += 1;
    }

    fn frame(&self, seq: u64, kind: RunnerKind) -> RunnerFrame {
        RunnerFrame { deployment_id: self.id.clone(), seq, kind }
    }

    fn body(&self, kind: RunnerKind) -> String {
        self.frame(self.next_seq, kind).to_body()
    }

    /// A frame that is not output.
    fn message(&self, seq: u64, kind: RunnerKind) -> Unsigned {
        let last = matches!(kind, RunnerKind::Finished(_));
        let frame = self.frame(seq, kind);
        Unsigned { seq, body: frame.to_body(), vouch: frame.bears_vouch(), output: false, last }
    }

    fn make(&mut self, kind: RunnerKind) {
        let message = self.message(self.next_seq, kind);
        self.made.push_back(message);
        self.next_seq += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use relay_protocol::Envelope;
    use relay_protocol::frame::outputs_size;
    use relay_protocol::limits::OUTPUTS_MAX;

    use super::*;
    use crate::outbox::exited;

    const T0: Duration = Duration::ZERO;

    fn writer() -> Writer {
        Writer::new(DeploymentId::new(0, [1; 10]), T0)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Bytes that do not compress.
    fn noise() -> impl FnMut(usize) -> Vec<u8> {
        let mut noise = 1_u64;
        move |length| {
            let mut next = || {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_be_bytes()[0]
            };
            (0..length).map(|_| next()).collect()
        }
    }

    #[test]
    fn a_line_goes_at_once_unless_another_is_on_its_way() {
        let mut w = writer();
        w.push(T0, Stream::Stdout, b"one\n");
        assert!(w.poll_frame(T0, Link::Clear).unwrap().output);
        w.push(ms(1), Stream::Stdout, b"two\n");
        assert_eq!(w.poll_frame(ms(4), Link::Busy), None);
        assert_eq!((w.poll_timeout(Link::Clear), w.poll_timeout(Link::Busy)), (Some(ms(2)), Some(ms(20))));
        w.push(ms(5), Stream::Stdout, b"three\n");
        let frame = w.poll_frame(ms(20), Link::Busy).unwrap();
        assert!(frame.body.contains("two\\nthree\\n"), "{}", frame.body);
        assert!(w.is_idle() && w.poll_timeout(Link::Clear).is_none());
    }

    #[test]
    fn while_nothing_can_be_sent_it_gathers_for_a_second_or_a_whole_frame() {
        let mut w = writer();
        w.push(T0, Stream::Stdout, b"one\n");
        let _ = w.poll_frame(T0, Link::Clear).unwrap();
        w.push(ms(30), Stream::Stdout, b"two\n");
        w.push(ms(900), Stream::Stderr, b"three\n");
        assert_eq!((w.poll_frame(ms(1_029), Link::Blocked), w.poll_timeout(Link::Blocked)), (None, Some(ms(1_030))));
        assert!(w.poll_frame(ms(1_030), Link::Blocked).unwrap().body.contains("three"));
        let mut noise = noise();
        let mut pushed = 0;
        let frame = loop {
            w.push(ms(1_031), Stream::Stdout, &noise(32 << 10));
            pushed += 32 << 10;
            if let Some(frame) = w.poll_frame(ms(1_031), Link::Blocked) {
                break frame;
            }
        };
        assert!(pushed > CERTAIN && frame.body.len() <= BODY_MAX, "{pushed}");
    }

    #[test]
    fn an_end_comes_last_with_all_that_was_pushed_before_it() {
        let mut w = writer();
        w.push(T0, Stream::Stdout, b"x");
        w.finish(T0, exited(0));
        w.push(T0, Stream::Stdout, b"too late");
        w.say(T0, RunnerKind::Note { text: "too late".into() });
        let (output, end) = (w.poll_frame(T0, Link::Blocked).unwrap(), w.poll_frame(T0, Link::Blocked).unwrap());
        assert!(output.output && !output.last && output.seq == 0);
        assert!(end.last && end.vouch && end.seq == 1 && end.body.contains(r#""frames":2"#), "{}", end.body);
        assert!(w.is_idle() && w.poll_timeout(Link::Clear).is_none());
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_its_digest() {
        let mut w = writer();
        let sha256 = |record: &Envelope| format!("\"record_sha256\":\"{}\"", Digest::of(record.to_json().as_bytes()));
        // As large as the outputs can be: `{"x":"…"}` with every character escaped sixfold.
        let outputs = BTreeMap::from([("x".to_owned(), "\u{1b}".repeat((OUTPUTS_MAX - 8) / 6))]);
        assert!(outputs_size(&outputs) <= OUTPUTS_MAX);
        let large = Envelope::new("t", vec![0; 200_000]);
        w.finish(T0, Finish { outputs: outputs.clone(), record: large.clone(), ..exited(0) });
        let body = w.poll_frame(T0, Link::Clear).unwrap().body;
        assert!(body.len() <= BODY_MAX && body.contains("\\u001b") && !body.contains("payloadType"));
        assert!(body.contains(&sha256(&large)), "the digest is there in any case");
        let mut w = writer();
        let fits = Envelope::new("t", vec![0; 150_000]);
        w.finish(T0, Finish { outputs, record: fits.clone(), ..exited(0) });
        let body = w.poll_frame(T0, Link::Clear).unwrap().body;
        assert!(body.len() <= BODY_MAX && body.contains(&sha256(&fits)) && body.contains("payloadType"));
    }

    #[test]
    fn frames_stay_under_their_limit_whatever_is_printed() {
        let mut w = writer();
        let mut noise = noise();
        for (round, length) in [1, 70_000, 3_000_000, 5, 200_000].into_iter().enumerate() {
            // First bytes that compress, then bytes that do not: the budget must follow.
            w.push(ms(1), Stream::Stdout, &vec![b'x'; length]);
            w.push(ms(1), Stream::Stderr, &noise(length));
            let mut frames = 0;
            while let Some(frame) = w.poll_frame(Duration::from_secs(100 + round as u64), Link::Busy) {
                assert!(frame.body.len() <= BODY_MAX, "{}", frame.body.len());
                frames += 1;
            }
            assert!(frames > 0);
        }
    }

    #[test]
    fn a_heartbeat_every_fifteen_seconds_from_started_to_the_end() {
        let mut w = writer();
        assert_eq!(w.poll_timeout(Link::Clear), None);
        let deadline = relay_protocol::Timestamp::from_unix(0);
        w.say(T0, RunnerKind::Started { task_arn: "t".into(), steps: vec![], deadline, grace: 120 });
        assert!(w.poll_frame(T0, Link::Clear).unwrap().vouch);
        assert_eq!(w.poll_timeout(Link::Clear), Some(Duration::from_secs(15)));
        let beat = w.poll_frame(Duration::from_secs(15), Link::Blocked).unwrap();
        assert!(beat.body.contains("heartbeat") && beat.vouch && !beat.output);
        w.finish(T0, exited(0));
        let _ = w.poll_frame(T0, Link::Clear).unwrap();
        assert_eq!(w.poll_timeout(Link::Clear), None);
    }

    #[test]
    fn what_is_lost_is_replaced_by_frames_that_say_so() {
        let w = writer();
        let (first, rest) = (w.in_place_of(7, Some("output is missing".into())), w.in_place_of(8, None));
        assert!(first.body.contains(r#""seq":7"#) && first.body.contains("output is missing"), "{}", first.body);
        assert!(rest.body.contains(r#""seq":8"#) && !rest.output, "{}", rest.body);
    }
}
