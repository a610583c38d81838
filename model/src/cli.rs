//! The CLI: it reads frames with the real reader (`relay-engine`), in the order in which the queue
//! hands them out.
//!
//! A reader is large and cannot be compared. Each of its states therefore has a number. The path to
//! the state is kept, and for each new frame a new reader replays that path. Two readers whose
//! debug output is the same are the same state.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use relay_engine::conclude::{self, Conclusion, Strict};
use relay_engine::{
    Authenticator, Finish, Frame as Sent, Inbox, MemorySpool, Outbox, Pins, Published, Seal, Start, Timeouts,
};
use relay_protocol::frame::{FrameSource, LauncherFrame, LauncherKind, RunnerKind, SignedFrame, Stream};
use relay_protocol::keys::Verifier;
use relay_protocol::outcome::{self, ExitCode};
use relay_protocol::request::Hints;
use relay_protocol::{DeploymentId, Envelope, PublicKey, Reason, Signature, Statement as _, Timestamp, Vouch};

use crate::launcher::{arn, digest, stop_reason};
use crate::world::{About, At, Bug, End, Fault, Frame, Halt, Invocation, Outcome, Steps, TaskNo, Verdict, Who};

/// Accepts every signature: nobody forges in this model. Forgeries are tested elsewhere.
#[derive(Debug)]
pub(crate) struct Honest;

impl Verifier for Honest {
    fn verify(&self, _: &PublicKey, _: &[u8], _: &[u8]) -> bool {
        true
    }

    fn is_key(&self, _: &PublicKey) -> bool {
        true
    }
}

/// An input of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Input {
    Frame(Frame),
    /// The clock for missing frames has run out.
    Drained,
    /// Some other clock has run out.
    Silence,
}

const DRAIN: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(100);

#[derive(Debug)]
struct Known {
    way: Vec<Input>,
    end: Option<End>,
    is_draining: bool,
}

/// The states of all readers.
pub(crate) struct Readers {
    bug: Option<Bug>,
    known: RefCell<Vec<Known>>,
    by_look: RefCell<HashMap<String, u16>>,
    by_input: RefCell<HashMap<(u16, Input), u16>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("known", &self.known.borrow().len()).finish_non_exhaustive()
    }
}

impl Readers {
    /// Starts with the reader that has read nothing, as number 0.
    pub(crate) fn new(bug: Option<Bug>) -> Self {
        let readers =
            Self { bug, known: RefCell::default(), by_look: RefCell::default(), by_input: RefCell::default() };
        readers.number(Vec::new());
        readers
    }

    fn after(&self, reader: u16, input: Input) -> u16 {
        if let Some(next) = self.by_input.borrow().get(&(reader, input)) {
            return *next;
        }
        let mut way = self.known.borrow().get(usize::from(reader)).map(|known| known.way.clone()).unwrap_or_default();
        way.push(input);
        let next = self.number(way);
        self.by_input.borrow_mut().insert((reader, input), next);
        next
    }

    fn number(&self, way: Vec<Input>) -> u16 {
        let reader = lead(&way);
        let mut known = self.known.borrow_mut();
        *self.by_look.borrow_mut().entry(format!("{reader:?}")).or_insert_with(|| {
            let is_draining = reader.poll_timeout() == Some(DRAIN);
            known.push(Known { way, end: reader.poll_end().map(|end| said(end, self.bug)), is_draining });
            u16::try_from(known.len() - 1).unwrap_or(u16::MAX)
        })
    }

    fn end(&self, reader: u16) -> Option<End> {
        self.known.borrow().get(usize::from(reader)).and_then(|known| known.end)
    }

    fn is_draining(&self, reader: u16) -> bool {
        self.known.borrow().get(usize::from(reader)).is_some_and(|known| known.is_draining)
    }
}

/// The CLI's exit for the reader's end, decided by [`conclude`].
pub(crate) fn said(end: &relay_engine::End, bug: Option<Bug>) -> End {
    if bug == Some(Bug::UnreadIsUnstarted) && matches!(end, relay_engine::End::Stopped { started: false, .. }) {
        return End::NeverStarted;
    }
    match conclude::conclude(Some(end), None, Strict::default()) {
        Conclusion::Tool(code) => End::Tool(code),
        Conclusion::Relay(ExitCode::Refused) => End::Refused,
        Conclusion::Relay(ExitCode::NeverStarted) => End::NeverStarted,
        // The runner stopped the tool: what the tool had done by then is in the output.
        Conclusion::Relay(ExitCode::Unknown) if !matches!(end, relay_engine::End::Finished { .. }) => End::Unknown,
        Conclusion::Relay(code) => End::Ended(code.code()),
        // No dry run is in this model.
        Conclusion::WouldRun => End::Ended(0),
    }
}

/// A reader that was given all these inputs.
fn lead(way: &[Input]) -> Inbox<Honest> {
    let authenticator = Authenticator::new(published(), Some(pins()), Honest);
    let timeouts = Timeouts { admission: SILENCE, start: SILENCE, silence: SILENCE, drain: DRAIN, outage: DRAIN };
    let mut reader = Inbox::new(authenticator, Start::Fresh, timeouts, Duration::ZERO, Timestamp::from_unix(0));
    for input in way {
        match input {
            Input::Frame(frame) => reader.handle(Duration::ZERO, 0, raw(*frame)),
            Input::Drained => reader.handle_timeout(DRAIN),
            Input::Silence => reader.handle_timeout(SILENCE),
        }
        while reader.poll_event().is_some() {}
        if let Some(mark) = reader.polled() {
            reader.written(mark);
        }
        reader.take_deletable();
    }
    reader
}

pub(crate) fn id() -> DeploymentId {
    DeploymentId::new(0, [0; 10])
}

/// What the CLI has published.
pub(crate) fn published() -> Published {
    #[allow(clippy::expect_used, reason = "the form of constants")]
    let hints = Hints {
        target: "demo/hello".parse().expect("a target"),
        deployment_id: id(),
        ci_account: "111111111111".parse().expect("an account"),
    };
    Published { hints, request: digest(), body: digest(), dry_run: false }
}

/// Its pins.
pub(crate) fn pins() -> Pins {
    Pins { target: vec![key()], answer: vec![key()] }
}

/// A key in the form of an Ed25519 key; nobody signs with it.
pub(crate) fn key() -> PublicKey {
    let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    #[allow(clippy::expect_used, reason = "the form of a constant")]
    PublicKey::from_der(&[head.as_slice(), &[7; 32]].concat()).expect("an Ed25519 key")
}

/// The frame as it is in the queue. The runner's frames are made by its own writer.
pub(crate) fn raw(frame: Frame) -> SignedFrame {
    let launcher = |kind| {
        let body = LauncherFrame { deployment_id: id(), kind }.to_body();
        SignedFrame::new(FrameSource::Launcher, &[0; 64], None, body)
    };
    let runner = |frames: Vec<Arc<Sent>>, seq: u8| {
        let frame = frames.into_iter().find(|frame| frame.seq == u64::from(seq));
        frame.map_or_else(
            || SignedFrame::new(FrameSource::Runner, &[0; 64], None, String::new()),
            |frame| frame.signed.clone(),
        )
    };
    let (request_digest, message) = (digest(), String::new());
    match frame {
        Frame::Admitted(task) => launcher(LauncherKind::Admitted {
            request_digest,
            task_arn: arn(task),
            deadline: Timestamp::from_unix(0),
            policies: Vec::new(),
        }),
        Frame::Final(Verdict::Refused) => {
            launcher(LauncherKind::Refused { request_digest, reason: Reason::Policy, message })
        }
        Frame::Final(Verdict::LaunchFailed) => {
            launcher(LauncherKind::LaunchFailed { request_digest, reason: Reason::Capacity, message })
        }
        Frame::Stopped(task, why) => launcher(LauncherKind::Task {
            request_digest,
            task_arn: arn(task),
            state: "STOPPED".to_owned(),
            reason: Some(stop_reason(why)),
            stop_code: None,
            stopped_reason: None,
            exit_code: None,
        }),
        Frame::Started(task) => runner(written(task, 1, None), 0),
        Frame::Output(task, seq) => runner(written(task, seq + 1, None), seq),
        Frame::Finished(task, said, outcome) => runner(written(task, said, Some(outcome)), said),
    }
}

/// Signs for the runner of a task. Nobody forges here, so any signature will do.
#[derive(Debug)]
pub(crate) struct OfTask(pub(crate) TaskNo);

impl Seal for OfTask {
    fn seal(&self, body: String, vouch: bool) -> SignedFrame {
        let vouch = vouch.then(|| {
            let vouch =
                Vouch { deployment_id: id(), request_digest: digest(), task_arn: arn(self.0), runner_key: key() };
            let envelope = Envelope::new(Vouch::TYPE, vouch.to_payload());
            envelope.with_signature(Signature::new(String::new(), &[0; 64])).to_json()
        });
        SignedFrame::new(FrameSource::Runner, &[0; 64], vouch, body)
    }
}

/// The frames that the runner makes of `started`, output and an end: `said` frames, and the last
/// one if there is an `outcome`.
fn written(task: TaskNo, said: u8, outcome: Option<Outcome>) -> Vec<Arc<Sent>> {
    let mut outbox = Outbox::new(id(), Duration::ZERO, OfTask(task), MemorySpool::default());
    let mut frames = Vec::new();
    let mut now = Duration::ZERO;
    let mut take = |outbox: &mut Outbox<OfTask, MemorySpool>| {
        now += Duration::from_secs(1);
        frames.extend(std::iter::from_fn(|| outbox.poll_frame(now)));
        while let Some(batch) = outbox.poll_batch(now) {
            let arrived: Vec<u64> = batch.frames.iter().map(|frame| frame.seq).collect();
            outbox.handle_result(now, batch.number, &arrived);
        }
    };
    if said > 0 {
        let (task_arn, deadline) = (arn(task), Timestamp::from_unix(1_000_000));
        outbox.say(Duration::ZERO, RunnerKind::Started { task_arn, steps: Vec::new(), deadline, grace: 120 });
        take(&mut outbox);
    }
    for _ in 1..said {
        outbox.push(Duration::ZERO, Stream::Stdout, b"output\n");
        take(&mut outbox);
    }
    if let Some(outcome) = outcome {
        outbox.finish(Duration::ZERO, Finish::of(told(outcome)));
        take(&mut outbox);
    }
    frames
}

/// The outcome that the runner reports.
pub(crate) fn told(outcome: Outcome) -> outcome::Outcome {
    let ended = |reason| outcome::Outcome::Ended { reason, message: String::new() };
    match outcome {
        Outcome::Exit(code) => outcome::Outcome::Exited { code, signal: None },
        Outcome::Halted(Halt::Cancelled) => ended(Reason::Cancelled),
        Outcome::Halted(Halt::TimedOut) => ended(Reason::TimedOut),
        Outcome::Halted(Halt::Terminated) => ended(Reason::Stopped),
        Outcome::Denied => ended(Reason::Policy),
        Outcome::Fault => ended(Reason::Runner),
    }
}

pub(crate) fn steps(steps: &mut Steps<'_>, readers: &Readers) {
    let (now, setup) = (steps.now, steps.setup);
    for (id, deployment) in (0..).zip(&now.deployments).filter(|(_, deployment)| deployment.end.is_none()) {
        let who = Who::Cli(id);
        let reader = deployment.reader;
        if let Some(end) = readers.end(reader) {
            // The CLI reads all frames of a batch before it looks for an end.
            steps.must(who, "accepts this as the end", |world| world.of(id).end = Some(end));
        }
        for frame in &deployment.reply {
            let next = readers.after(reader, Input::Frame(*frame));
            steps.read(id, *frame, false, |world| {
                world.of(id).reply.retain(|other| other != frame);
                world.of(id).reader = next;
            });
            steps.read(id, *frame, true, |world| world.of(id).reader = next);
        }
        // A clock that runs out ends the reader in the same step. The clock for missing frames
        // always runs out in the end, and early if SQS is slow.
        let clock = |input| readers.end(readers.after(reader, input));
        if readers.is_draining(reader) && (deployment.reply.is_empty() || setup.impatience) {
            let end = clock(Input::Drained);
            steps.must(who, "stops waiting for missing frames", |world| world.of(id).end = end);
        }
        if setup.impatience {
            let end = clock(Input::Silence);
            steps.may(who, "gives up: no message arrived for too long", |world| world.of(id).end = end);
            steps.may(who, "is killed", |world| world.of(id).end = Some(End::Killed));
        }
    }
}

/// The cancels that people ask for.
pub(crate) fn wishes(steps: &mut Steps<'_>) {
    let (now, setup) = (steps.now, steps.setup);
    for (id, deployment) in (0..).zip(&now.deployments).filter(|(_, deployment)| deployment.end.is_none()) {
        let who = Who::Cli(id);
        // A repetition that is dropped again changes nothing, so only the others are steps.
        let there = deployment.claim.is_some() || now.tasks_of(id).next().is_some();
        if deployment.dropped && there && setup.bug != Some(Bug::CancelNotRepeated) {
            let again = Invocation { about: About::Cancel(id), tries: setup.tries, at: At::Begin };
            steps.must(who, "repeats its cancel, which was dropped", |world| {
                world.of(id).dropped = false;
                world.invocations.push(again);
            });
        }
        if setup.cancels && !deployment.asked {
            let by_topic = Invocation { about: About::Cancel(id), tries: setup.tries, at: At::Begin };
            let both = "cancels by queue and topic";
            steps.may(who, if setup.control { both } else { "cancels by topic" }, |world| {
                world.of(id).asked = true;
                world.of(id).control = setup.control;
                world.invocations.push(by_topic);
            });
            if setup.control {
                steps.fault(Fault::LostCancel, who, "cancels by topic alone", |world| {
                    world.of(id).asked = true;
                    world.invocations.push(by_topic);
                });
                steps.fault(Fault::LostCancel, who, "cancels by queue alone", |world| {
                    world.of(id).asked = true;
                    world.of(id).control = true;
                });
            }
        }
    }
}
