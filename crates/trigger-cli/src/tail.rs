//! The tail: receives frames, lets the reader order them, writes them out, deletes what is written, and turns signals into a cancel.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::queues::{Entry, Queues, Received};
use relay_aws::topic::Topic;
use relay_aws::{AwsError, Failure, Kind};
use relay_identity::{PrivateKey, VerifyingKey};
use relay_protocol::frame::{ATTRIBUTE_FROM, ATTRIBUTE_SIG, ATTRIBUTE_VOUCH, LauncherKind, Offsets};
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{Cancel, Control, Digest, Envelope, Message, PublicKey, QueueUrl, Statement as _, TopicArn};
use relay_stream::{End, Event, FrameVerifier, Raw, Reader, Token};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::args::OnInterrupt;
use crate::show::{Phases, Show};

/// Receives at a time under load. One is enough for a tool that prints now and then, and costs least.
const RECEIVERS: usize = 4;

/// How long the queue may deny or be missing before contact counts as lost: a new queue needs a moment, and credentials may be renewed.
const QUEUE_GONE: Duration = Duration::from_secs(60);

/// No wait of the tail is longer, so that one that was shows that this process itself stood still.
const TICK: Duration = Duration::from_secs(1);

/// Checks frames with the keys that relay knows.
#[derive(Debug)]
pub(crate) struct Signed;

impl FrameVerifier for Signed {
    fn verify(&self, key: &PublicKey, pae: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_spki(key).is_ok_and(|key| key.verify(pae, signature))
    }
}

/// How this deployment is asked to stop: by topic, and by its control queue where it has one.
#[derive(Debug)]
pub(crate) struct Cancelling {
    pub(crate) session: PrivateKey,
    pub(crate) request: Digest,
    pub(crate) hints: Hints,
    pub(crate) topic: Topic,
    pub(crate) topic_arn: TopicArn,
    pub(crate) queue: Option<QueueUrl>,
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
    reader: Reader<Signed>,
    queues: Queues,
    queue: QueueUrl,
    /// `None` for one who attached: the session key was another's.
    how: Option<Cancelling>,
    on_interrupt: OnInterrupt,
    receipts: HashMap<Token, String>,
    next_token: Token,
    receiving: JoinSet<Answer>,
    deleting: JoinSet<()>,
    cancelling: JoinSet<&'static str>,
    wanted: usize,
    unreachable_since: Option<Instant>,
    /// Why the queue cannot be read, as long as it cannot.
    trouble: Option<String>,
    /// Whether the deployment was asked to stop.
    asked_to_stop: bool,
    /// How many steps the runner has announced.
    steps: usize,
}

impl Tail {
    pub(crate) fn new(
        reader: Reader<Signed>,
        queues: Queues,
        queue: QueueUrl,
        how: Option<Cancelling>,
        on_interrupt: OnInterrupt,
    ) -> Self {
        Self {
            reader,
            queues,
            queue,
            how,
            on_interrupt,
            receipts: HashMap::new(),
            next_token: 0,
            receiving: JoinSet::new(),
            deleting: JoinSet::new(),
            cancelling: JoinSet::new(),
            wanted: 1,
            unreachable_since: None,
            trouble: None,
            asked_to_stop: false,
            steps: 0,
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

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
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
        timeout: Option<Duration>,
        until: Until,
    ) -> Result<Option<ExitCode>, Failure> {
        let no_signals =
            |error: std::io::Error| Failure::new(ExitCode::Fault, format!("signals cannot be heard: {error}"));
        let mut interrupts = signal(SignalKind::interrupt()).map_err(no_signals)?;
        let mut terminations = signal(SignalKind::terminate()).map_err(no_signals)?;
        let mut stopping: Option<ExitCode> = None;
        let overdue = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        loop {
            while self.receiving.len() < self.wanted {
                self.receive(show.elapsed());
            }
            let before = show.elapsed();
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
                    if let Ok(said) = said {
                        show.warn(said);
                    }
                    None
                }
                () = tokio::time::sleep(due) => None,
                _ = interrupts.recv() => Some((ExitCode::Interrupted, Cancel::Interrupted)),
                _ = terminations.recv() => Some((ExitCode::Terminated, Cancel::Terminated)),
                () = sleep_until(overdue), if stopping.is_none() => Some((ExitCode::TimedOut, Cancel::Requested)),
            };
            // A CI agent that was suspended, say: it is not the runner that was silent.
            let waited = show.elapsed().saturating_sub(before);
            if waited > TICK * 2 {
                self.reader.handle_stalled(waited);
            }
            match asked {
                Some(_) if stopping.is_some() => return Ok(stopping),
                Some((code @ (ExitCode::Interrupted | ExitCode::Terminated), _))
                    if self.on_interrupt == OnInterrupt::Detach =>
                {
                    return Ok(Some(code));
                }
                Some((code, cancel)) => {
                    stopping = Some(code);
                    self.cancel(cancel);
                }
                None => {}
            }
            if until == Until::Admitted && stopping.is_none() && self.reader.task_arn().is_some() {
                // Nothing of the runner was written out, so nothing is deleted: it is left for whoever attaches.
                self.receiving.abort_all();
                return Ok(None);
            }
            self.write_out(show, phases);
            self.reader.handle_timeout(show.elapsed());
            self.write_out(show, phases);
            self.delete();
            if self.reader.poll_end().is_some() {
                break;
            }
        }
        self.receiving.abort_all();
        // The queue is deleted next, or kept because the outcome is unknown; then what was printed must not come again.
        while self.deleting.join_next().await.is_some() {}
        Ok(stopping)
    }

    fn receive(&mut self, now: Duration) {
        let (queues, queue) = (self.queues.clone(), self.queue.clone());
        self.receiving.spawn(async move { (now, queues.receive(&queue, 20).await) });
    }

    async fn take(&mut self, (since, result): Answer, show: &Show) {
        match result {
            Ok(messages) => {
                self.unreachable_since = None;
                self.trouble = None;
                self.wanted = if messages.len() == 10 {
                    (self.wanted + 1).min(RECEIVERS)
                } else {
                    self.wanted.saturating_sub(1).max(1)
                };
                for message in messages {
                    let token = self.next_token;
                    self.next_token += 1;
                    self.receipts.insert(token, message.receipt);
                    let mut attributes = message.attributes;
                    let raw = Raw {
                        from: attributes.remove(ATTRIBUTE_FROM).unwrap_or_default(),
                        sig: attributes.remove(ATTRIBUTE_SIG).unwrap_or_default(),
                        vouch: attributes.remove(ATTRIBUTE_VOUCH),
                        body: message.body,
                    };
                    self.reader.handle(show.elapsed(), token, raw);
                }
            }
            Err(error) => {
                // It is not the runner that is silent while SQS cannot be asked; but a queue that denies or is gone ends the patience.
                let first = *self.unreachable_since.get_or_insert_with(Instant::now);
                if error.is_transient() || first.elapsed() < QUEUE_GONE {
                    self.reader.handle_unreachable(show.elapsed().saturating_sub(since));
                } else if matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::Credentials) {
                    self.wanted = 1;
                }
                tracing::debug!(%error, "receiving");
                self.trouble = Some(error.to_string());
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
                Event::Started { steps, task_arn } => {
                    phases.started = Some(show.elapsed());
                    self.steps = steps.len();
                    show.event("running", "", json!({ "task_arn": task_arn, "steps": steps }));
                }
                Event::Step { index, name, rollback } => {
                    // How many steps a rollback has is not told; its own number is enough.
                    let (kind, of) = if rollback { ("rollback", index + 1) } else { ("step", self.steps) };
                    show.step(kind, index + 1, of, &name);
                }
                Event::Note(text) => show.say(&text),
                Event::Gap(missing) => {
                    show.warn(&format!("GAP in the output: {} frames never came or were damaged", missing.frames))
                }
            }
        }
        self.reader.written();
    }

    fn delete(&mut self) {
        let receipts: Vec<String> =
            self.reader.take_deletable().into_iter().filter_map(|token| self.receipts.remove(&token)).collect();
        for batch in receipts.chunks(10) {
            let (queues, queue, batch) = (self.queues.clone(), self.queue.clone(), batch.to_vec());
            // One that is not deleted comes again, and is dropped as a duplicate.
            self.deleting.spawn(async move { drop(queues.delete(&queue, &batch).await) });
        }
    }

    /// Sends the cancel beside the tailing: AWS may be slow, and a second signal must still be heard. The task's answer is what to say. By the
    /// control queue it reaches a running task at once; by topic also one that does not run yet, or whose runner does not listen.
    fn cancel(&mut self, cancel: Cancel) {
        let Some(Cancelling { session, request, hints, topic, topic_arn, queue }) = &self.how else { return };
        self.asked_to_stop = true;
        let control =
            Control { deployment_id: hints.deployment_id.clone(), request_digest: *request, issued_at: now(), cancel };
        let envelope = session.sign_envelope(Envelope::new(Control::TYPE, control.to_payload()));
        let body = Message::control_json(&envelope);
        let (topic, topic_arn, hints) = (topic.clone(), topic_arn.clone(), hints.clone());
        let (queues, queue) = (self.queues.clone(), queue.clone());
        self.cancelling.spawn(async move {
            let by_queue = async {
                let Some(queue) = &queue else { return false };
                let entry = Entry { body: body.clone(), attributes: Vec::new() };
                queues.send(queue, vec![entry]).await.is_ok_and(|results| results.iter().all(Result::is_ok))
            };
            let by_topic = async { topic.publish(&topic_arn, &body, &hints).await.is_ok() };
            if tokio::join!(by_queue, by_topic) == (false, false) {
                "the cancel could not be sent; a second signal leaves at once, and the deployment goes on without you"
            } else {
                "asked the deployment to stop; still following it; a second signal leaves at once"
            }
        });
    }
}

fn launcher(kind: &LauncherKind, show: &Show, phases: &mut Phases) {
    match kind {
        LauncherKind::Admitted { task_arn, policies, .. } => {
            phases.admitted = Some(show.elapsed());
            let by = if policies.is_empty() { String::new() } else { format!("by {}", policies.join(", ")) };
            show.event("admitted", &by, json!({ "task_arn": task_arn, "policies": policies }));
        }
        LauncherKind::Task { state, .. } => show.event("task", &state.to_lowercase(), json!({})),
        // They end the deployment, and are told there.
        LauncherKind::Refused { .. }
        | LauncherKind::LaunchFailed { .. }
        | LauncherKind::Unverified { .. }
        | LauncherKind::Unknown => {}
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
