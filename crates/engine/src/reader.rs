//! The reader: puts frames back in order, drops duplicates, keeps the clocks, and knows the end.
//!
//! A message may be deleted from the queue only when everything up to it has been written out: [`Reader::written`] says so, and
//! [`Reader::take_deletable`] hands out the tokens. So a CLI that dies loses nothing that it had not printed (clause FRM-11).

mod late;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use relay_protocol::frame::{Finished, FrameVerifier, LauncherKind, Offsets, RunnerFrame, RunnerKind};
use relay_protocol::outcome::{ExitCode, Reason};
use relay_protocol::{Digest, Timestamp};

use crate::Tally;
use crate::authenticate::{Authentic, Authenticator, Raw, Verdict};
use crate::clocks::{Clocks, DRAIN_MAX, OVERDUE};
use crate::event::{End, Event, Missing};
use crate::reader::late::Late;

/// Names a received message, so that the edge can delete it. The edge makes them up.
pub type Token = u64;

/// Bytes of frames that wait for an earlier one, or for a vouch. Whoever can write to the queue could otherwise fill the CLI's memory; a
/// frame that finds no room stays in the queue and comes again.
const HELD_MAX: usize = 24 * 1_024 * 1_024;

#[derive(Debug)]
struct Held {
    frame: RunnerFrame,
    tokens: Vec<Token>,
    size: usize,
}

/// See the module's head.
#[derive(Debug)]
pub struct Reader<V> {
    authenticator: Authenticator<V>,
    clocks: Clocks,
    published: Duration,
    today: (Duration, Timestamp),
    /// When even the runner's own deadline is long over: however lively it seems, it is not waited for any longer.
    overdue: Option<Duration>,
    heard: Duration,
    outage: Duration,
    /// The first frame to release next.
    next: u64,
    held: BTreeMap<u64, Held>,
    unvouched: Vec<(Token, Raw)>,
    held_bytes: usize,
    events: VecDeque<Event>,
    /// Of frames whose events were handed out and not yet written.
    unwritten: Vec<Token>,
    deletable: Vec<Token>,
    offset: Offsets,
    stdout: Tally,
    stderr: Tally,
    missing: Missing,
    /// Frames that were not waited for any longer.
    given_up: Vec<Range<u64>>,
    dropped: u64,
    admitted: Option<(Duration, String, Timestamp)>,
    started: Option<String>,
    stopped: Option<(Duration, Reason, String)>,
    drain_from: Option<Duration>,
    /// The latest that `drain_from` can become, see [`DRAIN_MAX`].
    drain_limit: Option<Duration>,
    /// Of one who came late.
    late: Option<Late>,
    /// Whether it is known how much came before: from the beginning, or from the first output of one who came late.
    counting: bool,
    /// Frames below were handed out and written.
    acknowledged: u64,
    end: Option<End>,
}

impl<V: FrameVerifier> Reader<V> {
    /// A reader whose request was published at `now`, which is `today` on the wall: deadlines on the wire are wall time.
    pub fn new(authenticator: Authenticator<V>, clocks: Clocks, now: Duration, today: Timestamp) -> Self {
        Self {
            authenticator,
            clocks,
            published: now,
            today: (now, today),
            overdue: None,
            heard: now,
            outage: Duration::ZERO,
            next: 0,
            held: BTreeMap::new(),
            unvouched: Vec::new(),
            held_bytes: 0,
            events: VecDeque::new(),
            unwritten: Vec::new(),
            deletable: Vec::new(),
            offset: Offsets::default(),
            stdout: Tally::default(),
            stderr: Tally::default(),
            missing: Missing::default(),
            given_up: Vec::new(),
            dropped: 0,
            admitted: None,
            started: None,
            stopped: None,
            drain_from: None,
            drain_limit: None,
            late: None,
            counting: true,
            acknowledged: 0,
            end: None,
        }
    }

    /// The deployment is over by then, as somebody who heard it from the launcher has noted. What `started` says counts more.
    pub fn ends_by(&mut self, deadline: Timestamp) {
        let (then, today) = self.today;
        let seconds = u64::try_from(deadline.since(today)).unwrap_or_default();
        self.overdue.get_or_insert(then + Duration::from_secs(seconds) + OVERDUE);
    }

    /// Frames below this number were handed out and written: whoever comes late need not read them.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A message came. What is not understood, not ours or not signed is dropped, counted, and may be deleted.
    pub fn handle(&mut self, now: Duration, token: Token, raw: Raw) {
        let size = raw.body.len();
        match self.authenticator.judge(raw) {
            Verdict::Authentic(authentic) => self.accept(now, token, *authentic, size),
            Verdict::NotYet(raw) => {
                // No room: it stays in the queue, and comes again.
                if self.held_bytes + size <= HELD_MAX {
                    self.held_bytes += size;
                    self.unvouched.push((token, raw));
                }
            }
            Verdict::Rejected(_) => {
                self.dropped += 1;
                self.deletable.push(token);
            }
        }
        if self.authenticator.vouch().is_some() {
            for (token, raw) in std::mem::take(&mut self.unvouched) {
                self.held_bytes -= raw.body.len();
                self.handle(now, token, raw);
            }
        }
    }

    /// The queue could not be asked for `lost`: the clocks stand still meanwhile, for it is not the runner that is silent. After
    /// [`Clocks::outage`] in all they go on: no deployment is waited for without end.
    pub fn handle_unreachable(&mut self, lost: Duration) {
        let lost = lost.min(self.clocks.outage.saturating_sub(self.outage));
        self.outage += lost;
        self.handle_stalled(lost);
    }

    /// This side was not listening for `lost`, because its own output blocked: no clock may run meanwhile.
    pub fn handle_stalled(&mut self, lost: Duration) {
        self.heard += lost;
        self.published += lost;
        if let Some((at, ..)) = &mut self.admitted {
            *at += lost;
        }
        // The runner's last word may have come meanwhile, and waits in the queue.
        for at in [&mut self.drain_from, &mut self.drain_limit, &mut self.overdue].into_iter().flatten() {
            *at += lost;
        }
    }

    /// Time passed: clocks may have run out.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.settles().is_some_and(|at| now >= at) {
            self.settle(now);
        }
        if self.end.is_some() || self.timeout_at().is_none_or(|at| now < at) {
            return;
        }
        if self.drain_from.is_some() {
            self.give_up_on_missing(now);
            return;
        }
        let (waiting_for, after) = match self.overdue {
            Some(at) if now >= at => ("an end that is overdue", now.saturating_sub(self.published)),
            _ => self.clock(),
        };
        let task_arn = self.started.clone().or_else(|| self.admitted.as_ref().map(|(_, arn, _)| arn.clone()));
        self.end = Some(End::Silent { waiting_for, after, task_arn });
    }

    /// When [`Reader::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.end.is_some() {
            return None;
        }
        [self.timeout_at(), self.settles()].into_iter().flatten().min()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Everything that was polled so far is written out.
    pub fn written(&mut self) {
        if self.events.is_empty() {
            self.deletable.append(&mut self.unwritten);
            self.acknowledged = self.next;
        }
    }

    /// Messages that may be deleted now.
    pub fn take_deletable(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.deletable)
    }

    /// How it ended; final once there is one and all events are polled.
    pub fn poll_end(&self) -> Option<&End> {
        if self.events.is_empty() { self.end.as_ref() } else { None }
    }

    /// Frames that were dropped because they could not be believed.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes of stdout and stderr that were handed out: up to here the output is true.
    pub fn offset(&self) -> Offsets {
        self.offset
    }

    /// When the server ends the deployment at the latest, as the launcher said it.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.admitted.as_ref().map(|(.., deadline)| *deadline)
    }

    /// The task, as the runner or else the launcher named it.
    pub fn task_arn(&self) -> Option<&str> {
        self.started.as_deref().or(self.admitted.as_ref().map(|(_, arn, _)| arn.as_str()))
    }

    /// Whether the runner has started.
    pub fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// The digest of both streams as they were handed out: stdout, stderr.
    pub fn digests(&self) -> (Digest, Digest) {
        (self.stdout.digest().sha256, self.stderr.digest().sha256)
    }

    fn clock(&self) -> (&'static str, Duration) {
        match (&self.started, &self.admitted) {
            (Some(_), _) => ("the runner's next frame", self.clocks.silence),
            (None, Some(_)) => ("the runner's start", self.clocks.start),
            // Another may have read that it was admitted.
            (None, None) if self.late.is_some() => ("a frame of the deployment", self.clocks.start),
            (None, None) => ("the launcher's answer", self.clocks.admission),
        }
    }

    fn timeout_at(&self) -> Option<Duration> {
        if let Some(from) = self.drain_from {
            return Some(from + self.clocks.drain);
        }
        let (_, after) = self.clock();
        let from = match (&self.started, &self.admitted) {
            (Some(_), _) => self.heard,
            (None, Some((at, ..))) => *at,
            (None, None) => self.published,
        };
        Some(self.overdue.map_or(from + after, |overdue| overdue.min(from + after)))
    }

    fn accept(&mut self, now: Duration, token: Token, authentic: Authentic, size: usize) {
        match authentic {
            Authentic::Launcher(frame) => {
                self.deletable.push(token);
                if self.end.is_none() {
                    self.launcher(now, frame.kind);
                }
            }
            Authentic::Runner(frame) => self.runner(now, token, frame, size),
        }
    }

    fn launcher(&mut self, now: Duration, kind: LauncherKind) {
        match &kind {
            LauncherKind::Admitted { task_arn, deadline, .. } => {
                if self.admitted.is_some() {
                    return; // Said twice changes nothing.
                }
                self.admitted = Some((now, task_arn.clone(), *deadline));
            }
            // A refusal counts until the runner has started: then the claim has decided otherwise (clause FRM-6).
            LauncherKind::Refused { reason, message, .. } => {
                if self.started.is_none() {
                    self.end = Some(End::Refused { reason: *reason, message: message.clone() });
                }
            }
            LauncherKind::LaunchFailed { reason, message, .. } => {
                if self.started.is_none() {
                    self.end = Some(End::NeverStarted { reason: *reason, message: message.clone() });
                }
            }
            LauncherKind::Unverified { .. } => {
                if self.started.is_none() && self.admitted.is_none() {
                    self.end = Some(End::Refused {
                        reason: Reason::Unverified,
                        message: Reason::Unverified.words().to_owned(),
                    });
                }
            }
            LauncherKind::Task { task_arn, state, reason, stopped_reason, .. } => {
                if self.task_arn().is_some_and(|known| known != task_arn) {
                    return; // Another task of the same token's history is not this deployment's.
                }
                if state == "STOPPED" && self.stopped.is_none() {
                    let reason = reason.unwrap_or(Reason::Stopped);
                    let message = stopped_reason.clone().unwrap_or_else(|| reason.words().to_owned());
                    if self.started.is_none() && reason.exit_code() == ExitCode::NeverStarted {
                        // No container ran, so no frame can be on its way.
                        self.end = Some(End::Stopped { reason, message: message.clone(), started: false });
                    }
                    self.stopped = Some((now, reason, message));
                    // A late reader has not seen yet what another had received.
                    if self.drain_from.is_none() {
                        self.drain(self.settles().map_or(now, |at| at.max(now)));
                    }
                }
            }
            LauncherKind::Unknown => return,
        }
        self.events.push_back(Event::Launcher(kind));
    }

    fn runner(&mut self, now: Duration, token: Token, frame: RunnerFrame, size: usize) {
        if self.is_earlier(frame.seq) {
            self.unwritten.push(token);
            return;
        }
        if self.given_up.iter().any(|gap| gap.contains(&frame.seq)) {
            return; // Nobody has printed it: it stays in the queue, for whoever attaches (clause FRM-11).
        }
        if frame.seq < self.next {
            // A duplicate of something that was handed out: its message may go when that is written.
            self.unwritten.push(token);
            return;
        }
        if let Some(held) = self.held.get_mut(&frame.seq) {
            held.tokens.push(token);
            return;
        }
        if frame.seq != self.next && self.held_bytes + size > HELD_MAX && !self.make_room(frame.seq) {
            self.wait_at_hole(now);
            return; // No room: it stays in the queue, and comes again.
        }
        self.started_before();
        // Only what is new is a sign of life: whoever can write to the queue could repeat an old frame for ever.
        self.heard = self.heard.max(now);
        // As long as something new comes, it is not missing: there may be much of it.
        if let Some(from) = self.drain_from {
            self.drain(from.max(now));
        } else if matches!(frame.kind, RunnerKind::Finished(_)) {
            self.drain(now);
        }
        self.put_off(now, frame.seq);
        self.held_bytes += size;
        self.held.insert(frame.seq, Held { frame, tokens: vec![token], size });
        if self.settles().is_none() {
            self.release();
            self.wait_at_hole(now);
        }
    }

    /// From now on what is missing is waited for, from `from` on.
    fn drain(&mut self, from: Duration) {
        let limit = *self.drain_limit.get_or_insert(from + DRAIN_MAX);
        self.drain_from = Some(from.min(limit));
    }

    /// What is missing before this frame is not waited for any longer.
    fn go_on_with(&mut self, seq: u64) {
        let gap = Missing { frames: seq - self.next, bytes: 0 };
        self.missing.frames += gap.frames;
        if gap.frames > 0 {
            self.given_up.push(self.next..seq);
            self.events.push_back(Event::Gap(gap));
        }
        self.next = seq;
        self.release();
    }

    fn release(&mut self) {
        while let Some(held) = self.held.remove(&self.next) {
            self.held_bytes -= held.size;
            self.next += 1;
            self.unwritten.extend(held.tokens);
            self.hand_out(held.frame.kind);
        }
    }

    fn hand_out(&mut self, kind: RunnerKind) {
        match kind {
            RunnerKind::Started { task_arn, steps, deadline, grace } => {
                self.started = Some(task_arn.clone());
                let (then, today) = self.today;
                let seconds = u64::try_from(deadline.since(today)).unwrap_or_default();
                self.overdue = Some(then + Duration::from_secs(seconds) + OVERDUE);
                // Whatever the launcher said before: the runner holds the claim.
                if !matches!(self.end, Some(End::Finished { .. })) {
                    self.end = None;
                }
                self.events.push_back(Event::Started { steps, task_arn, grace: Duration::from_secs(grace) });
            }
            RunnerKind::Step { index, name, rollback } => self.events.push_back(Event::Step { index, name, rollback }),
            RunnerKind::Output(chunks) => self.output(*chunks),
            RunnerKind::Note { text } => self.events.push_back(Event::Note(text)),
            RunnerKind::Finished(finished) => self.finished(finished),
            RunnerKind::Heartbeat { .. } | RunnerKind::Unknown => {}
        }
    }

    fn output(&mut self, chunks: relay_protocol::frame::Chunks) {
        let before = chunks.offset;
        match chunks.unfold() {
            Ok(chunks) => {
                // After a gap the frame itself says where it stands.
                let skipped =
                    before.stdout.saturating_sub(self.offset.stdout) + before.stderr.saturating_sub(self.offset.stderr);
                // What came before the first of a late reader was another's to read.
                if self.counting {
                    self.missing.bytes += skipped;
                }
                self.counting = true;
                self.offset = before;
                for chunk in &chunks {
                    *self.offset.of(chunk.stream) += chunk.bytes.len() as u64;
                    match chunk.stream {
                        relay_protocol::frame::Stream::Stdout => self.stdout.add(&chunk.bytes),
                        relay_protocol::frame::Stream::Stderr => self.stderr.add(&chunk.bytes),
                    }
                }
                self.events.push_back(Event::Output(chunks));
            }
            Err(_) => {
                self.missing.frames += 1;
                self.events.push_back(Event::Gap(Missing { frames: 1, bytes: 0 }));
            }
        }
    }

    fn finished(&mut self, finished: Box<Finished>) {
        let (stdout, stderr) = (self.stdout.digest(), self.stderr.digest());
        let total = finished.stdout.bytes + finished.stderr.bytes;
        // The digests are of the whole streams: who came late has only the counts.
        let agrees = if self.resumed_at().is_some_and(|first| first > 0) {
            !self.counting || finished.stdout.bytes == self.offset.stdout && finished.stderr.bytes == self.offset.stderr
        } else {
            finished.stdout == stdout && finished.stderr == stderr
        };
        let verified = self.missing.frames == 0 && agrees && finished.frames == self.next;
        if !verified {
            self.missing.bytes += total.saturating_sub(self.offset.stdout + self.offset.stderr);
        }
        self.end = Some(End::Finished { finished, missing: self.missing, verified });
    }

    /// The drain clock ran out: hand out what there is, with its gaps, and end.
    fn give_up_on_missing(&mut self, now: Duration) {
        while let Some((&seq, _)) = self.held.first_key_value() {
            self.go_on_with(seq);
        }
        if self.end.is_none() {
            let (_, reason, message) =
                self.stopped.take().unwrap_or((now, Reason::Lost, Reason::Lost.words().to_owned()));
            self.end = Some(End::Stopped { reason, message, started: self.started.is_some() || self.late.is_some() });
        }
    }
}
