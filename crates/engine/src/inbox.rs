//! The inbox turns frames from the queue into events, each once and in order, and then reports how
//! the deployment ended.
//!
//! | part | what it does |
//! |---|---|
//! | [`Authenticator`] | accepts frames of this deployment, and no others |
//! | `reorder` | puts frames in order, and decides where a late reader begins |
//! | `timers` | knows what the inbox waits for, and until when |
//! | `accounts` | compares what arrived with what the runner printed |
//! | `receipts` | says which messages may be deleted |

mod accounts;
mod authenticate;
mod event;
mod receipts;
mod reorder;
mod timeouts;
mod timers;

use std::collections::VecDeque;
use std::time::Duration;

use relay_protocol::Timestamp;
use relay_protocol::frame::{
    Chunks, Finished, LauncherKind, Offsets, RunnerFrame, RunnerKind, SignedFrame, deployment_of,
};
use relay_protocol::keys::Verifier;
use relay_protocol::outcome::{ExitCode, Reason};

pub use authenticate::{Authentic, Authenticator, Pins, Published, Rejected, Unfit, Verdict};
pub use event::{End, Event, Missing};
pub use receipts::{Mark, Token};
pub use reorder::Start;
pub use timeouts::Timeouts;

use accounts::Accounts;
use receipts::Receipts;
use reorder::{Arrival, HELD_MAX, Reorder};
use timers::Timers;

/// The facts about the task that frames have brought.
#[derive(Debug, Default)]
struct Task {
    /// Its ARN and its deadline, from the launcher.
    admitted: Option<(String, Timestamp)>,
    /// Its ARN, from the runner.
    started: Option<String>,
    /// The reason and message of its stop, from ECS.
    stopped: Option<(Reason, String)>,
}

impl Task {
    fn arn(&self) -> Option<&str> {
        self.started.as_deref().or(self.admitted.as_ref().map(|(arn, _)| arn.as_str()))
    }
}

/// How long a reader that was told `unverified` waits for another answer. The launcher may have
/// judged a copy of the body that somebody else sent, and the requester's own after it.
const DOUBT: Duration = Duration::from_secs(3);

/// Frames whose key no vouch covers yet.
#[derive(Debug, Default)]
struct Unvouched {
    frames: Vec<(Token, SignedFrame)>,
    bytes: usize,
}

/// Reads the frames of one deployment. The module's head lists its parts.
///
/// ```
/// use std::time::Duration;
///
/// use relay_engine::{Authenticator, End, Inbox, Start, Timeouts};
/// use relay_protocol::{DeploymentId, SignedFrame, Timestamp};
/// # struct NoKeys;
/// # impl relay_protocol::keys::Verifier for NoKeys {
/// #     fn verify(&self, _: &relay_protocol::PublicKey, _: &[u8], _: &[u8]) -> bool {
/// #         false
/// #     }
/// #     fn is_key(&self, _: &relay_protocol::PublicKey) -> bool {
/// #         false
/// #     }
/// # }
///
/// let id = DeploymentId::new(0, [7; 10]);
/// let authenticator = Authenticator::attaching(id, None, NoKeys);
/// let (now, today) = (Duration::ZERO, Timestamp::from_unix(0));
/// let mut inbox = Inbox::new(authenticator, Start::Fresh, Timeouts::default(), now, today);
///
/// // A stranger's message is dropped and counted. The caller may delete it.
/// let (sig, body) = (String::new(), "{}".to_owned());
/// let frame = SignedFrame { from: "stranger".to_owned(), sig, vouch: None, body };
/// inbox.handle(now, 42, frame);
/// assert_eq!((inbox.dropped(), inbox.take_deletable()), (1, vec![42]));
///
/// // Nothing else arrives for five minutes: the inbox stops waiting.
/// inbox.handle_timeout(Duration::from_secs(300));
/// assert!(matches!(inbox.poll_end(), Some(End::Silent { .. })));
/// ```
#[derive(Debug)]
pub struct Inbox<V> {
    authenticator: Authenticator<V>,
    unvouched: Unvouched,
    order: Reorder,
    timers: Timers,
    accounts: Accounts,
    receipts: Receipts,
    task: Task,
    events: VecDeque<Event>,
    /// Frames that were rejected.
    dropped: u64,
    /// Whether the queue may hold frames of other deployments.
    shared: bool,
    /// When an `unverified` counts, if nothing else arrives.
    doubt: Option<Duration>,
    end: Option<End>,
}

impl<V: Verifier> Inbox<V> {
    /// Starts to read at `now`. `today` is the wall-clock time at `now`; deadlines on the wire are
    /// wall-clock times.
    pub fn new(
        authenticator: Authenticator<V>,
        start: Start,
        timeouts: Timeouts,
        now: Duration,
        today: Timestamp,
    ) -> Self {
        let acknowledged = start.acknowledged();
        let mut accounts = Accounts::new();
        if matches!(start, Start::Resume { .. }) && acknowledged > 0 {
            accounts.join();
        }
        Self {
            authenticator,
            unvouched: Unvouched::default(),
            order: Reorder::new(start, now),
            timers: Timers::new(timeouts, start != Start::Fresh, now, today),
            accounts,
            receipts: Receipts::new(acknowledged),
            task: Task::default(),
            events: VecDeque::new(),
            dropped: 0,
            shared: false,
            doubt: None,
            end: None,
        }
    }

    /// Says that the queue was made beforehand, and that other deployments may use it too.
    pub fn share(&mut self) {
        self.shared = true;
    }

    /// Whether a message of a shared queue is another deployment's. Its own reader needs it, so the
    /// caller neither hands it in nor deletes it (clause FRM-11).
    pub fn is_anothers(&self, frame: &SignedFrame) -> bool {
        self.shared && deployment_of(&frame.body).is_some_and(|id| id != *self.authenticator.id())
    }

    /// Sets the deadline that another reader learned from the launcher. The deadline in `started`
    /// takes precedence.
    pub fn ends_by(&mut self, deadline: Timestamp) {
        self.timers.may_end_by(deadline);
    }

    /// Handles a received message. A frame that is malformed, not of this deployment or not signed
    /// is dropped and counted; its message may be deleted.
    pub fn handle(&mut self, now: Duration, token: Token, frame: SignedFrame) {
        let size = frame.body.len();
        match self.authenticator.judge(frame) {
            Verdict::Authentic(authentic) => self.accept(now, token, *authentic, size),
            Verdict::NotYet(frame) => {
                // A frame that finds no room stays in the queue and arrives again.
                if self.unvouched.bytes + size <= HELD_MAX {
                    self.unvouched.bytes += size;
                    self.unvouched.frames.push((token, frame));
                }
            }
            Verdict::Rejected(_) => {
                self.dropped += 1;
                self.receipts.discard(token);
            }
        }
        if self.authenticator.vouch().is_some() {
            for (token, frame) in std::mem::take(&mut self.unvouched).frames {
                self.handle(now, token, frame);
            }
        }
    }

    /// The queue was unreachable for `lost`. The clocks stand still for that time, because the
    /// silence is not the runner's. After [`Timeouts::outage`] in total they go on, so that no
    /// deployment is waited for forever.
    pub fn handle_unreachable(&mut self, lost: Duration) {
        let lost = self.timers.outage(lost);
        self.handle_stalled(lost);
    }

    /// This side was not reading for `lost`, because its own output blocked. No clock runs for that
    /// time, because the runner's last frame may wait in the queue.
    pub fn handle_stalled(&mut self, lost: Duration) {
        self.timers.stall(lost);
        self.order.stall(lost);
        self.doubt = self.doubt.map(|at| at + lost);
    }

    /// Handles the passage of time: timeouts may have expired.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.order.settles_at().is_some_and(|at| now >= at) && self.order.settle(now) {
            if self.came_late() {
                self.accounts.join();
            }
            self.note_start(now);
            self.release(now);
        }
        // No other answer came, or none will be waited for.
        if self.end.is_none() && self.doubt.is_some_and(|at| now >= at.min(self.timers.due())) {
            let reason = Reason::Unverified;
            self.end = Some(End::Refused { reason, message: reason.words().to_owned() });
        }
        if self.end.is_some() || now < self.timers.due() {
            return;
        }
        if self.timers.is_draining() {
            return self.give_up(now);
        }
        let (waiting_for, after) = self.timers.ran_out(now);
        self.end = Some(End::Silent { waiting_for, after, task_arn: self.task_arn().map(str::to_owned) });
    }

    /// The time at which [`Inbox::handle_timeout`] is due; `None` once there is an end.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let due = [self.order.settles_at(), self.doubt].into_iter().flatten().fold(self.timers.due(), Duration::min);
        self.end.is_none().then_some(due)
    }

    /// The next event, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Marks what was polled so far, for [`Inbox::written`]. Returns `None` while events are left
    /// to poll.
    pub fn polled(&self) -> Option<Mark> {
        self.events.is_empty().then(|| self.receipts.mark(self.order.next()))
    }

    /// Everything up to `mark` is written out. The caller may now delete its messages.
    pub fn written(&mut self, mark: Mark) {
        self.receipts.written(mark);
    }

    /// The messages that may be deleted now. Each is returned once.
    pub fn take_deletable(&mut self) -> Vec<Token> {
        self.receipts.take_deletable()
    }

    /// Frames below this number were handed out and written. The next reader need not read them.
    pub fn acknowledged(&self) -> u64 {
        self.receipts.acknowledged()
    }

    /// How the deployment ended. Returns `None` until all events are polled; then the end is final.
    pub fn poll_end(&self) -> Option<&End> {
        if self.events.is_empty() { self.end.as_ref() } else { None }
    }

    /// How many frames were dropped because they could not be authenticated.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many frames wait for a vouch that has not come.
    pub fn unvouched(&self) -> usize {
        self.unvouched.frames.len()
    }

    /// The key whose pin does not fit, if answers came that it did not sign. For people: it decides
    /// nothing.
    pub fn unfit(&self) -> Option<Unfit> {
        self.authenticator.unfit()
    }

    /// How many frames arrived after this reader, which joined late, had already begun with a later
    /// frame. Another reader has most likely shown them.
    pub fn earlier(&self) -> u64 {
        self.order.earlier()
    }

    /// The number of the first frame that this reader hands out, once it is known. Everything
    /// before it belonged to another reader.
    pub fn first(&self) -> Option<u64> {
        self.order.first()
    }

    /// Whether this reader missed the beginning because another reader had it.
    pub fn came_late(&self) -> bool {
        self.order.first().is_some_and(|first| first > 0)
    }

    /// The positions in stdout and stderr, in bytes, up to which output was handed out. For a
    /// reader that joined late, they include what came before its first frame.
    pub fn offset(&self) -> Offsets {
        self.accounts.offset()
    }

    /// The time by which the server ends the deployment, as the launcher said.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.task.admitted.as_ref().map(|(_, deadline)| *deadline)
    }

    /// The ARN of the task, from the runner or else from the launcher.
    pub fn task_arn(&self) -> Option<&str> {
        self.task.arn()
    }

    fn accept(&mut self, now: Duration, token: Token, authentic: Authentic, size: usize) {
        match authentic {
            Authentic::Launcher(frame) => {
                self.receipts.discard(token);
                if self.end.is_none() && self.launcher(now, &frame.kind) {
                    self.events.push_back(Event::Launcher(frame.kind));
                }
            }
            Authentic::Runner(frame) => self.runner(now, token, frame, size),
        }
    }

    /// Handles a launcher frame. Returns whether it says anything new.
    fn launcher(&mut self, now: Duration, kind: &LauncherKind) -> bool {
        // A refusal counts until the runner has started. From then on, the claim has decided
        // otherwise (clause FRM-6).
        let started = self.task.started.is_some();
        match kind {
            LauncherKind::Admitted { task_arn, deadline, .. } => {
                if self.task.admitted.is_some() {
                    return false;
                }
                self.task.admitted = Some((task_arn.clone(), *deadline));
                self.doubt = None;
                self.timers.admitted(now);
            }
            LauncherKind::Refused { reason, message, .. } if !started => {
                self.end = Some(End::Refused { reason: *reason, message: message.clone() });
            }
            LauncherKind::LaunchFailed { reason, message, .. } if !started => {
                self.end = Some(End::NeverStarted { reason: *reason, message: message.clone() });
            }
            LauncherKind::Unverified { .. } if !started && self.task.admitted.is_none() => {
                self.doubt.get_or_insert(now + DOUBT);
            }
            LauncherKind::Tried(tried) => self.end = Some(End::Tried(tried.clone())),
            LauncherKind::Task { task_arn, .. } if self.task_arn().is_some_and(|known| known != task_arn) => {
                return false; // ECS started a second task for the same clientToken; it does not count.
            }
            LauncherKind::Task { state, reason, stopped_reason, .. } if state == "STOPPED" => {
                let reason = reason.unwrap_or(Reason::Stopped);
                self.stopped(now, reason, stopped_reason.clone().unwrap_or_else(|| reason.words().to_owned()));
            }
            LauncherKind::Refused { .. }
            | LauncherKind::LaunchFailed { .. }
            | LauncherKind::Unverified { .. }
            | LauncherKind::Task { .. } => {}
            LauncherKind::Unknown => return false,
        }
        true
    }

    /// ECS says that the task has stopped.
    fn stopped(&mut self, now: Duration, reason: Reason, message: String) {
        if self.task.stopped.is_some() {
            return;
        }
        if self.task.started.is_none() && reason.exit_code() == ExitCode::NeverStarted {
            // No container ran, so no frame can be on its way.
            self.end = Some(End::Stopped { reason, message: message.clone(), started: false });
        }
        self.task.stopped = Some((reason, message));
        // A late reader has not yet seen what another reader had received.
        self.timers.drain(self.order.settles_at().map_or(now, |at| at.max(now)));
    }

    fn runner(&mut self, now: Duration, token: Token, frame: RunnerFrame, size: usize) {
        let last = matches!(frame.kind, RunnerKind::Finished(_));
        match self.order.insert(now, token, frame, size) {
            Arrival::Past => return self.receipts.hand_out([token]),
            Arrival::Again | Arrival::GivenUp => return,
            Arrival::NoRoom => {}
            Arrival::New => {
                self.note_start(now);
                // Only a new frame is a sign of life: anybody who can write to the queue could
                // repeat an old one.
                self.timers.heard(now);
                if last {
                    self.timers.drain(now);
                }
                self.release(now);
            }
        }
        if self.order.is_hole(now) {
            self.skip(now);
        }
    }

    /// For a reader that joined late and has not seen `started`, the vouch takes its place: it
    /// names the task.
    fn note_start(&mut self, now: Duration) {
        if self.task.started.is_none()
            && self.came_late()
            && let Some(vouch) = self.authenticator.vouch()
        {
            self.task.started = Some(vouch.task_arn.clone());
            self.timers.started(now);
        }
    }

    /// Gives up the frames that are missing before the next frame that has arrived. Returns `false`
    /// if no later frame has arrived.
    fn skip(&mut self, now: Duration) -> bool {
        let Some(frames) = self.order.skip() else { return false };
        if frames > 0 {
            self.events.push_back(Event::Gap(self.accounts.gap(frames)));
        }
        self.release(now);
        true
    }

    fn release(&mut self, now: Duration) {
        while let Some(held) = self.order.pop() {
            self.receipts.hand_out(held.tokens);
            self.hand_out(now, held.kind);
        }
    }

    fn hand_out(&mut self, now: Duration, kind: RunnerKind) {
        match kind {
            RunnerKind::Started { task_arn, steps, deadline, grace } => {
                self.task.started = Some(task_arn.clone());
                self.doubt = None;
                self.timers.started(now);
                self.timers.ends_by(deadline);
                // The runner holds the claim, so `started` overrides whatever the launcher said
                // before.
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

    fn output(&mut self, chunks: Chunks) {
        let event = match self.accounts.output(chunks) {
            Ok(chunks) => Event::Output(chunks),
            Err(_) => Event::Gap(self.accounts.gap(1)),
        };
        self.events.push_back(event);
    }

    fn finished(&mut self, finished: Box<Finished>) {
        let (missing, verified) = self.accounts.close(&finished, self.order.next());
        let record = self.authenticator.check_record(&finished);
        self.end = Some(End::Finished { finished, missing, verified, record });
    }

    /// Nothing more comes: hands out what there is, with its gaps, and ends.
    fn give_up(&mut self, now: Duration) {
        while self.skip(now) {}
        if self.end.is_none() {
            let lost = || (Reason::Lost, Reason::Lost.words().to_owned());
            let (reason, message) = self.task.stopped.take().unwrap_or_else(lost);
            // A reader that joined late, or has no first frame yet, may have missed the start.
            let started = self.task.started.is_some() || self.order.first() != Some(0);
            self.end = Some(End::Stopped { reason, message, started });
        }
    }
}
