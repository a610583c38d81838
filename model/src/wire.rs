//! The part that the walks add to the model's decisions: each runner's real outbox, each CLI's real
//! inbox, and a queue between them that is slow, loses answers and delivers twice, all on a virtual
//! clock.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_engine::{Authenticator, Event, Finish, Inbox, MemorySpool, Outbox, Start, Timeouts};
use relay_protocol::Timestamp;
use relay_protocol::frame::{RunnerKind, SignedFrame, Stream};

use crate::cli::{Honest, OfTask, id, pins, published, raw, said, told};
use crate::launcher::arn;
use crate::rng::Rng;
use crate::world::{Bug, End, Frame, TaskNo};

/// How long a received message stays hidden, and how long most messages take to arrive.
const VISIBILITY: Duration = Duration::from_secs(30);
const TRANSIT: Duration = Duration::from_secs(5);

/// How long one message in a hundred may take to arrive: longer than a reader waits for missing
/// frames.
const DELAY: Duration = Duration::from_secs(200);

/// How many CLIs of a deployment may die.
const DEATHS_MAX: u32 = 2;

/// The wall-clock time of a moment.
pub(crate) fn wall(now: Duration) -> Timestamp {
    Timestamp::from_unix(i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

/// The reply queue of one deployment, with its reader and its writer.
#[derive(Debug)]
pub(crate) struct Wire {
    queue: BTreeMap<u64, (Duration, SignedFrame)>,
    next_message: u64,
    /// The CLI; `None` while nobody reads.
    reader: Option<Inbox<Honest>>,
    /// When the next CLI attaches.
    back: Option<Duration>,
    late: bool,
    deaths: u32,
    /// The queue cannot be read until the second time. The reader has been told about the outage up
    /// to the first.
    dark: (Duration, Duration),
    looked: Duration,
    printed: Vec<u8>,
    gaps: bool,
    /// The tool's output, of all its processes.
    truth: Vec<u8>,
    sender: Option<Writing>,
}

/// A runner's process, as the queue sees it.
#[derive(Debug)]
struct Writing {
    task: TaskNo,
    outbox: Outbox<OfTask, MemorySpool>,
    /// Results on their way back: when, the batch, and which frames are reported as arrived.
    answers: Vec<(Duration, u64, Vec<u64>)>,
}

impl Wire {
    pub(crate) fn new() -> Self {
        let authenticator = Authenticator::new(published(), Some(pins()), Honest);
        let now = Duration::ZERO;
        Self {
            queue: BTreeMap::new(),
            next_message: 0,
            reader: Some(Inbox::new(authenticator, Start::Fresh, Timeouts::default(), now, wall(now))),
            back: None,
            late: false,
            deaths: 0,
            dark: (now, now),
            looked: now,
            printed: Vec::new(),
            gaps: false,
            truth: Vec::new(),
            sender: None,
        }
    }

    /// Handles a frame of the model: the launcher's goes straight into the queue, the runner's goes
    /// through its writer. `deadline` is the runner's own.
    pub(crate) fn say(&mut self, rng: &mut Rng, now: Duration, frame: Frame, deadline: Duration) {
        match frame {
            Frame::Admitted(_) | Frame::Final(_) | Frame::Stopped(..) => self.enqueue(rng, now, raw(frame)),
            Frame::Started(task) => {
                let kind = RunnerKind::Started {
                    task_arn: arn(task),
                    steps: Vec::new(),
                    deadline: wall(deadline),
                    grace: 120,
                };
                self.writing(task, now).outbox.say(now, kind);
                // The runner goes on only after the frame has arrived.
                self.flush(rng, now);
            }
            Frame::Output(task, number) => {
                let text = format!("task {task} prints {number}\n").into_bytes();
                self.writing(task, now).outbox.push(now, Stream::Stdout, &text);
                self.truth.extend(text);
            }
            Frame::Finished(task, _, outcome) => {
                self.writing(task, now).outbox.finish(now, Finish::of(told(outcome)));
                self.flush(rng, now);
                self.sender = None;
            }
        }
    }

    fn writing(&mut self, task: TaskNo, now: Duration) -> &mut Writing {
        let new = || Writing {
            task,
            outbox: Outbox::new(id(), now, OfTask(task), MemorySpool::default()),
            answers: Vec::new(),
        };
        self.sender.take_if(|sender| sender.task != task);
        self.sender.get_or_insert_with(new)
    }

    /// A process is gone, with everything that it had not sent.
    pub(crate) fn gone(&mut self, task: TaskNo) {
        self.sender.take_if(|sender| sender.task == task);
    }

    fn enqueue(&mut self, rng: &mut Rng, now: Duration, raw: SignedFrame) {
        // To a late reader, the copy of a deleted frame looks like a hole. Once there is one, no
        // copies are made.
        for _ in 0..if !self.late && rng.chance(10) { 2 } else { 1 } {
            let most = match rng.index(100) {
                0 => DELAY,
                1..10 => TRANSIT,
                _ => Duration::from_millis(300),
            };
            let at = now + rng.below(most);
            self.queue.insert(self.next_message, (at, raw.clone()));
            self.next_message += 1;
        }
    }

    /// Sends until everything has arrived, however often that takes.
    fn flush(&mut self, rng: &mut Rng, now: Duration) {
        let mut at = now;
        while let Some(sender) = &mut self.sender
            && !sender.outbox.is_idle()
        {
            for (_, batch, sent) in std::mem::take(&mut sender.answers) {
                sender.outbox.handle_result(at, batch, &sent);
            }
            if !sender.outbox.is_idle() {
                at = at.max(sender.outbox.poll_timeout().unwrap_or(at));
                self.pump(rng, at, true);
            }
        }
    }

    fn pump(&mut self, rng: &mut Rng, now: Duration, at_once: bool) {
        let Some(sender) = &mut self.sender else { return };
        let mut arrived: Vec<SignedFrame> = Vec::new();
        for (_, batch, sent) in sender.answers.extract_if(.., |(at, ..)| *at <= now) {
            sender.outbox.handle_result(now, batch, &sent);
        }
        // The archive does not matter here.
        while sender.outbox.poll_frame(now).is_some() {}
        while let Some(batch) = sender.outbox.poll_batch(now) {
            let mut sent = Vec::new();
            for frame in &batch.frames {
                let arrives = !rng.chance(10);
                // A lost answer makes the sender send a frame twice. To a late reader the copy
                // could look like a hole, so once there is one, no answer is lost.
                if arrives && (self.late || !rng.chance(5)) {
                    sent.push(frame.seq);
                }
                arrived.extend(arrives.then(|| frame.signed.clone()));
            }
            let back = if at_once { now } else { now + rng.below(Duration::from_millis(200)) };
            sender.answers.push((back, batch.number, sent));
            while sender.outbox.poll_frame(now).is_some() {}
        }
        for frame in arrived {
            self.enqueue(rng, now, frame);
        }
    }

    /// The CLI dies. Another one attaches after `back`, or none does.
    pub(crate) fn kill(&mut self, now: Duration, back: Option<Duration>) {
        self.reader = None;
        self.deaths += 1;
        self.back = back.map(|after| now + after);
    }

    /// The queue cannot be read for a while.
    pub(crate) fn darken(&mut self, now: Duration, lasts: Duration) {
        let from = if now < self.dark.1 { self.dark.0 } else { now };
        self.dark = (from, self.dark.1.max(now + lasts));
    }

    /// Whether there is a reader that may die. Each new reader starts the clocks anew.
    pub(crate) fn may_be_left(&self) -> bool {
        self.reader.is_some() && self.deaths < DEATHS_MAX
    }

    /// Whether somebody reads, or will.
    pub(crate) fn is_awaited(&self) -> bool {
        self.reader.is_some() || self.back.is_some()
    }

    /// Whether a reader has joined late.
    pub(crate) fn is_late(&self) -> bool {
        self.late
    }

    /// The task whose runner writes.
    pub(crate) fn sender(&self) -> Option<TaskNo> {
        self.sender.as_ref().map(|sender| sender.task)
    }

    /// When something is due here. A hung runner sends nothing.
    pub(crate) fn due(&self, hung: bool) -> Option<Duration> {
        let sender = self.sender.as_ref().filter(|_| !hung);
        let sends = sender.and_then(|sender| sender.outbox.poll_timeout());
        let answers = sender.and_then(|sender| sender.answers.iter().map(|(at, ..)| *at).min());
        let reads = self.reader.as_ref().and_then(|_| {
            let visible = self.queue.values().map(|(at, _)| *at).min();
            visible.map(|at| at.max(self.looked + Duration::from_millis(50)).max(self.dark.1))
        });
        let clock = self.reader.as_ref().and_then(Inbox::poll_timeout);
        // A failed receive is reported every ten seconds.
        let (told, dark) = self.dark;
        let dark = (self.reader.is_some() && told < dark).then(|| (told + Duration::from_secs(10)).min(dark));
        [sends, answers, reads, clock, dark, self.back].into_iter().flatten().min()
    }

    /// Does what is due. Returns the end at most once.
    ///
    /// # Errors
    ///
    /// A rule of the stream was broken.
    pub(crate) fn go(
        &mut self,
        rng: &mut Rng,
        now: Duration,
        hung: bool,
        bug: Option<Bug>,
    ) -> Result<Option<End>, &'static str> {
        if !hung {
            self.pump(rng, now, false);
        }
        if self.back.is_some_and(|at| now >= at) {
            let authenticator = Authenticator::attaching(id(), Some(pins()), Honest);
            // The tags say nothing here: a late reader cannot know less.
            let start = Start::Join { acknowledged: 0, settle: VISIBILITY + TRANSIT };
            self.reader = Some(Inbox::new(authenticator, start, Timeouts::default(), now, wall(now)));
            (self.back, self.late) = (None, true);
            self.printed.clear();
        }
        let told = now.min(self.dark.1);
        let lost = told.saturating_sub(std::mem::replace(&mut self.dark.0, told));
        let Some(reader) = &mut self.reader else { return Ok(None) };
        if !lost.is_zero() {
            reader.handle_unreachable(lost);
        }
        if now >= self.dark.1 {
            self.looked = now;
            let mut visible: Vec<u64> =
                self.queue.iter().filter(|(_, (at, _))| *at <= now).map(|(id, _)| *id).collect();
            for _ in 0..10.min(visible.len()) {
                let message = visible.swap_remove(rng.index(visible.len()));
                if let Some((at, raw)) = self.queue.get_mut(&message) {
                    *at = now + VISIBILITY;
                    reader.handle(now, message, raw.clone());
                }
            }
        }
        reader.handle_timeout(now);
        while let Some(event) = reader.poll_event() {
            match event {
                Event::Output(chunks) => chunks.iter().for_each(|chunk| self.printed.extend(&chunk.bytes)),
                Event::Gap(_) => self.gaps = true,
                _ => {}
            }
        }
        if let Some(mark) = reader.polled() {
            reader.written(mark);
        }
        for message in reader.take_deletable() {
            // If the delete fails, the message comes again.
            if !rng.chance(5) {
                self.queue.remove(&message);
            }
        }
        let end = reader.poll_end().cloned();
        if !self.is_true() {
            return Err("the CLI prints what the tool printed, in order, once");
        }
        if let Some(relay_engine::End::Finished { verified, .. }) = &end
            && !self.late
            && (*verified == self.gaps || *verified && self.printed != self.truth)
        {
            return Err("a CLI that has the tool's end has all of its output, or reports a gap");
        }
        if end.is_some() {
            self.reader = None;
        }
        Ok(end.map(|end| said(&end, bug)))
    }

    fn is_true(&self) -> bool {
        if self.gaps {
            return true;
        }
        if !self.late {
            return self.truth.starts_with(&self.printed);
        }
        self.printed.is_empty() || self.truth.windows(self.printed.len()).any(|window| window == self.printed)
    }
}
