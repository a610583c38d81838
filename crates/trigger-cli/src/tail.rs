//! The tail: receives frames, lets the reader order them, writes them out, deletes what is written, and turns signals into a cancel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::queues::{Queues, Received};
use relay_aws::{AwsError, Kind};
use relay_console::Failure;
use relay_engine::{End, Event, Reader, Token};
use relay_identity::{FrameKeys, PrivateKey};
use relay_protocol::frame::{LauncherKind, Offsets};
use relay_protocol::limits::BATCH_ENTRIES_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::time::plain_duration;
use relay_protocol::{Cancel, Digest, Message};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::args::OnInterrupt;
use crate::cancel::{Ways, statement};
use crate::queues::{Pair, raw};
use crate::show::{Phases, Show};
use crate::tags::Tags;

/// Receives at a time under load. One is enough for a tool that prints now and then, and costs least.
const RECEIVERS: usize = 4;

/// How long the queue may deny or be missing before contact counts as lost: a new queue needs a moment, and credentials may be renewed.
const QUEUE_GONE: Duration = Duration::from_secs(60);

/// What comes so soon after a first signal is the same one: `timeout` and some CI systems signal the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// The pause between two writings of the reply queue's tags.
const TAGGING: Duration = Duration::from_secs(30);

/// How long the last writing of the tags may take: whoever leaves by a second signal is in a hurry.
const LAST_TAGS: Duration = Duration::from_secs(1);

/// No wait of the tail is longer, so that one that was shows that this process itself stood still.
const TICK: Duration = Duration::from_secs(1);

/// How this deployment is asked to stop.
#[derive(Debug)]
pub(crate) struct Cancelling {
    pub(crate) session: PrivateKey,
    pub(crate) request: Digest,
    pub(crate) ways: Ways,
}

/// How long to tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// To the end.
    End,
    /// Until there is a task; what it prints is left in the queue.
    Admitted,
}

type Answer = (Duration, Result<Vec<Received>, AwsError>);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Tail {
    reader: Reader<FrameKeys>,
    queues: Queues,
    pair: Pair,
    /// What the reply queue's tags are to say, what they say, and since when.
    tags: Tags,
    tagged: (Tags, Option<Instant>),
    tagging: JoinSet<()>,
    /// `None` for one who attached: the session key was another's.
    how: Option<Cancelling>,
    on_interrupt: OnInterrupt,
    receipts: HashMap<Token, String>,
    /// Of what is written out and not deleted yet.
    deletable: Vec<String>,
    next_token: Token,
    receiving: JoinSet<Answer>,
    deleting: JoinSet<()>,
    cancelling: JoinSet<Vec<String>>,
    wanted: usize,
    unreachable_since: Option<Instant>,
    /// Since when nothing could be heard that the reader's clocks do not know of yet.
    deaf_from: Option<Duration>,
    /// Why the queue cannot be read, as long as it cannot.
    trouble: Option<AwsError>,
    /// Whether the deployment was asked to stop.
    asked_to_stop: bool,
    /// How many steps the runner has announced, and how long each may take to end when it is asked to stop.
    steps: usize,
    grace: Option<Duration>,
    /// The step that runs, as far as is known here, and whether it belongs to the rollback.
    step: Option<(String, bool)>,
}

impl Tail {
    pub(crate) fn new(
        reader: Reader<FrameKeys>,
        queues: Queues,
        pair: Pair,
        tags: Tags,
        how: Option<Cancelling>,
        on_interrupt: OnInterrupt,
    ) -> Self {
        Self {
            reader,
            queues,
            pair,
            tags,
            tagged: (Tags::default(), None),
            tagging: JoinSet::new(),
            how,
            on_interrupt,
            receipts: HashMap::new(),
            deletable: Vec::new(),
            next_token: 0,
            receiving: JoinSet::new(),
            deleting: JoinSet::new(),
            cancelling: JoinSet::new(),
            wanted: 1,
            unreachable_since: None,
            deaf_from: None,
            trouble: None,
            asked_to_stop: false,
            steps: 0,
            grace: None,
            step: None,
        }
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.reader.poll_end()
    }

    pub(crate) fn task_arn(&self) -> Option<&str> {
        self.reader.task_arn()
    }

    pub(crate) fn asked_to_stop(&self) -> bool {
        self.asked_to_stop
    }

    pub(crate) fn trouble(&self) -> Option<&AwsError> {
        self.trouble.as_ref()
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.reader.dropped()
    }

    /// Frames that came too late to be shown, and that another has most likely shown.
    pub(crate) fn earlier(&self) -> u64 {
        self.reader.earlier()
    }

    /// Whether another has read the beginning.
    pub(crate) fn came_late(&self) -> bool {
        self.reader.resumed_at().is_some_and(|first| first > 0)
    }

    pub(crate) fn offset(&self) -> Offsets {
        self.reader.offset()
    }

    /// Tails to the end. What comes back is why this command itself asked for an end: a signal or its time-out.
    pub(crate) async fn run(
        &mut self,
        show: &mut Show,
        phases: &mut Phases,
        signals: &mut Signals,
        timeout: Option<Duration>,
        until: Until,
    ) -> Option<ExitCode> {
        let mut stopping: Option<ExitCode> = None;
        let mut signalled: Option<Instant> = None;
        let began = Instant::now();
        loop {
            while self.receiving.len() < self.wanted {
                self.receive(show.elapsed());
            }
            let before = show.elapsed();
            let left = timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(began.elapsed()));
            let due = self.reader.poll_timeout().map_or(TICK, |at| at.saturating_sub(before).min(TICK));
            let asked = tokio::select! {
                Some(answer) = self.receiving.join_next() => {
                    if let Ok(answer) = answer {
                        self.take(answer, show).await;
                    }
                    None
                }
                Some(_) = self.deleting.join_next(), if !self.deleting.is_empty() => None,
                Some(said) = self.cancelling.join_next(), if !self.cancelling.is_empty() => {
                    said.unwrap_or_default().iter().for_each(|line| show.warn(line));
                    None
                }
                Some(_) = self.tagging.join_next(), if !self.tagging.is_empty() => None,
                () = tokio::time::sleep(due) => None,
                signal = signals.next() => Some(signal),
                () = tokio::time::sleep(left), if stopping.is_none() => Some((ExitCode::TimedOut, Cancel::Requested)),
            };
            // A CI agent that was suspended, say: it is not the runner that was silent.
            let waited = show.elapsed().saturating_sub(before);
            if waited > TICK * 2 {
                self.reader.handle_stalled(waited);
            }
            match asked {
                Some(_) if signalled.is_some_and(|first| first.elapsed() < SAME_SIGNAL) => {}
                Some(_) if stopping.is_some() => {
                    self.leave().await;
                    return stopping;
                }
                Some((code @ (ExitCode::Interrupted | ExitCode::Terminated), _))
                    if self.on_interrupt == OnInterrupt::Detach =>
                {
                    self.leave().await;
                    return Some(code);
                }
                Some((code, cancel)) => {
                    stopping = Some(code);
                    signalled = (cancel != Cancel::Requested).then(Instant::now);
                    self.cancel(cancel);
                }
                None => {}
            }
            if until == Until::Admitted && stopping.is_none() && self.reader.task_arn().is_some() {
                // Nothing of the runner was written out, so nothing is deleted: it is left for whoever attaches.
                self.leave().await;
                return None;
            }
            self.write_out(show, phases);
            self.reader.handle_timeout(show.elapsed());
            self.write_out(show, phases);
            self.delete(false);
            self.tag(false);
            if self.reader.poll_end().is_some() {
                break;
            }
        }
        self.receiving.abort_all();
        // The queue is deleted next, or kept because the outcome is unknown; then what was printed must not come again.
        self.delete(true);
        while self.deleting.join_next().await.is_some() {}
        self.leave().await;
        stopping
    }

    /// Whoever comes next begins where this one ends.
    async fn leave(&mut self) {
        self.receiving.abort_all();
        if matches!(self.reader.poll_end(), None | Some(End::Silent { .. } | End::Stopped { .. })) {
            self.tag(true);
            self.delete(true);
            let _ = tokio::time::timeout(LAST_TAGS, async {
                while self.tagging.join_next().await.is_some() {}
                while self.deleting.join_next().await.is_some() {}
            })
            .await;
        }
    }

    /// Writes the tags when they say something new: at once whose it is and until when, now and then how far it is printed.
    fn tag(&mut self, last: bool) {
        self.tags.acknowledged = self.reader.acknowledged();
        self.tags.deadline = self.reader.deadline().or(self.tags.deadline);
        self.tags.left = last;
        let (tagged, at) = &self.tagged;
        let same_life = (self.tags.request, self.tags.deadline) == (tagged.request, tagged.deadline);
        let due = last || !same_life || at.is_none_or(|at| at.elapsed() >= TAGGING);
        let news = last || !same_life || self.tags.acknowledged != tagged.acknowledged;
        if !self.pair.own || !due || !news || (!last && !self.tagging.is_empty()) {
            return;
        }
        self.tagged = (self.tags.clone(), Some(Instant::now()));
        let (queues, queue) = (self.queues.clone(), self.pair.reply.clone());
        let pairs = Tags { followed: Some(now()), ..self.tags.clone() }.pairs();
        self.tagging.spawn(async move {
            if let Err(error) = queues.tag(&queue, &pairs).await {
                // Whoever comes late knows less then, and says so.
                tracing::debug!(%error, "tagging");
            }
        });
    }

    fn receive(&mut self, now: Duration) {
        let (queues, queue) = (self.queues.clone(), self.pair.reply.clone());
        self.receiving.spawn(async move { (now, queues.receive(&queue, 20).await) });
    }

    async fn take(&mut self, (since, result): Answer, show: &Show) {
        match result {
            Ok(messages) => {
                self.unreachable_since = None;
                self.trouble = None;
                if let Some(from) = self.deaf_from.take() {
                    self.reader.handle_unreachable(since.saturating_sub(from));
                }
                self.wanted = if messages.len() == 10 {
                    (self.wanted + 1).min(RECEIVERS)
                } else {
                    self.wanted.saturating_sub(1).max(1)
                };
                for message in messages {
                    let token = self.next_token;
                    self.next_token += 1;
                    self.receipts.insert(token, message.receipt);
                    self.reader.handle(show.elapsed(), token, raw(message.attributes, message.body));
                }
            }
            Err(error) => {
                // It is not the runner that is silent while SQS cannot be asked; but a queue that denies or is gone ends the patience.
                let first = *self.unreachable_since.get_or_insert_with(Instant::now);
                if error.is_transient() || first.elapsed() < QUEUE_GONE {
                    // The pauses between the tries count too.
                    let now = show.elapsed();
                    let from = self.deaf_from.replace(now).unwrap_or(since);
                    self.reader.handle_unreachable(now.saturating_sub(from));
                } else if matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::Credentials) {
                    self.wanted = 1;
                }
                tracing::debug!(%error, "receiving");
                self.trouble = Some(error);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    fn write_out(&mut self, show: &mut Show, phases: &mut Phases) {
        while let Some(event) = self.reader.poll_event() {
            match event {
                Event::Output(chunks) => {
                    let before = show.elapsed();
                    show.output(&chunks);
                    // A terminal that was stopped, or a slow pipe: it is not the runner that was silent.
                    let blocked = show.elapsed().saturating_sub(before);
                    if blocked > Duration::from_secs(1) {
                        self.reader.handle_stalled(blocked);
                    }
                }
                Event::Launcher(kind) => launcher(&kind, show, phases),
                Event::Started { steps, task_arn, grace } => {
                    self.grace = Some(grace);
                    phases.started = Some(show.elapsed());
                    self.steps = steps.len();
                    show.event("running", "", json!({ "task_arn": task_arn, "steps": steps }));
                }
                Event::Step { index, name, rollback } => {
                    // How many steps a rollback has is not told; its own number is enough.
                    let (kind, of) = if rollback { ("rollback", index + 1) } else { ("step", self.steps) };
                    show.step(kind, index + 1, of, &name);
                    self.step = Some((name, rollback));
                }
                Event::Note(text) => show.say(&text),
                Event::Gap(missing) => {
                    let or = if self.came_late() { ", or were shown to whoever followed before" } else { "" };
                    show.warn(&format!("GAP in the output: {} frames never came or were damaged{or}", missing.frames));
                }
            }
        }
        self.reader.written();
    }

    /// Deletes at once what was written, unless a deletion is on its way: then receipts gather, so that a busy tool costs fewer calls. At the
    /// `last`, everything goes.
    fn delete(&mut self, last: bool) {
        let written = self.reader.take_deletable();
        self.deletable.extend(written.into_iter().filter_map(|token| self.receipts.remove(&token)));
        while !self.deletable.is_empty()
            && (last || self.deleting.is_empty() || self.deletable.len() >= BATCH_ENTRIES_MAX)
        {
            let batch: Vec<String> = self.deletable.drain(..self.deletable.len().min(BATCH_ENTRIES_MAX)).collect();
            let (queues, queue) = (self.queues.clone(), self.pair.reply.clone());
            // One that is not deleted comes again, and is dropped as a duplicate.
            self.deleting.spawn(async move { drop(queues.delete(&queue, &batch).await) });
        }
    }

    /// Sends the cancel beside the tailing: AWS may be slow, and a second signal must still be heard. The task's answer is what to say.
    fn cancel(&mut self, cancel: Cancel) {
        let Some(Cancelling { session, request, ways }) = &self.how else { return };
        self.asked_to_stop = true;
        let id = ways.hints.deployment_id.clone();
        let envelope = session.sign_envelope(statement(&id, *request, cancel));
        let body = Message::control_json(&envelope);
        let (ways, began) = (ways.clone(), Instant::now());
        let next = after_cancel(self.grace, self.step.as_ref());
        let why = match cancel {
            Cancel::Interrupted => "SIGINT",
            Cancel::Terminated => "SIGTERM",
            Cancel::Requested => "its time is over",
        };
        self.cancelling.spawn(async move {
            let sent = ways.send(&body).await;
            let took = began.elapsed().as_secs_f64();
            match sent {
                Ok(()) => vec![
                    format!("{why}, cancel sent {took:.1}s; {next}"),
                    format!("a second signal leaves at once. CI may end this step sooner; follow: relay attach {id}"),
                ],
                Err(error) => vec![
                    format!("{why}, but the cancel could not be sent ({error}): the deployment goes on"),
                    format!("a second signal leaves at once. Stop it from elsewhere: relay cancel {id}"),
                ],
            }
        });
    }
}

/// SIGINT and SIGTERM. Whoever publishes listens before it does: a signal that came in between must become a cancel, not a sudden end.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupts: Signal,
    terminations: Signal,
}

impl Signals {
    /// From now on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitCode::Fault, format!("signals cannot be heard: {error}")))
        };
        Ok(Self { interrupts: listen(SignalKind::interrupt())?, terminations: listen(SignalKind::terminate())? })
    }

    /// The next one: what to exit with, and what to cancel with.
    pub(crate) async fn next(&mut self) -> (ExitCode, Cancel) {
        tokio::select! {
            _ = self.interrupts.recv() => (ExitCode::Interrupted, Cancel::Interrupted),
            _ = self.terminations.recv() => (ExitCode::Terminated, Cancel::Terminated),
        }
    }

    /// One that came already.
    pub(crate) async fn pending(&mut self) -> Option<ExitCode> {
        tokio::select! {
            biased;
            (code, _) = self.next() => Some(code),
            () = std::future::ready(()) => None,
        }
    }
}

/// What comes of a cancel, as far as is known here: who attached may not have read the grace.
fn after_cancel(grace: Option<Duration>, step: Option<&(String, bool)>) -> String {
    let grace = grace.map(|grace| plain_duration(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)));
    match (grace, step) {
        (_, Some((step, true))) => format!("the rollback is at `{step}` and goes on to its end"),
        (Some(grace), Some((step, false))) => format!("the step `{step}` has {grace} to stop by itself"),
        (Some(_), None) => "no step has begun yet".to_owned(),
        (None, _) => "if its tool runs already, that has the target's own grace to stop by itself".to_owned(),
    }
}

/// How far a task is, by ECS's word for it.
fn progress(state: &str) -> u8 {
    match state {
        "PROVISIONING" => 1,
        "PENDING" => 2,
        "ACTIVATING" => 3,
        "RUNNING" => 4,
        "STOPPED" => 6,
        _ => 5,
    }
}

fn launcher(kind: &LauncherKind, show: &Show, phases: &mut Phases) {
    match kind {
        LauncherKind::Admitted { task_arn, policies, .. } => {
            phases.admitted = Some(show.elapsed());
            let by = if policies.is_empty() { String::new() } else { format!("by {}", policies.join(", ")) };
            show.event("admitted", &by, json!({ "task_arn": task_arn, "policies": policies }));
        }
        LauncherKind::Task { state, .. } => {
            // Events come twice, and late: what was said already, or is over, is no news.
            let known = phases.task.as_deref().map_or(0, progress);
            let news = progress(state) > known && (phases.started.is_none() || state == "STOPPED");
            if news {
                show.event("task", &state.to_lowercase(), json!({}));
                phases.task = Some(state.clone());
            }
        }
        // They end the deployment, and are told there.
        LauncherKind::Refused { .. }
        | LauncherKind::LaunchFailed { .. }
        | LauncherKind::Unverified { .. }
        | LauncherKind::Unknown => {}
    }
}
