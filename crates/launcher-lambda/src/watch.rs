//! Follows a task after its launch. ECS events become frames, so the requester learns of a task
//! that never starts or that dies (clause LAU-12). A cancel by topic reaches the task (clause
//! CTL-6). A five-minute sweep looks for missed events and for tasks that exceed their time. Each
//! task is judged by its own revision, and by the request that it was started for, verified again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::objects::Condition;
use relay_aws::queues::Entry;
use relay_aws::{AwsError, Kind};
use relay_engine::launch::cancel::{self, Aim};
use relay_engine::launch::{end, reasons};
use relay_policy::{Asked, Configuration, Denied};
use relay_protocol::claim::{Claim, Holder, Verdict};
use relay_protocol::encoding::short;
use relay_protocol::evidence::Evidence;
use relay_protocol::frame::LauncherKind;
use relay_protocol::request::{Hints, Stage};
use relay_protocol::task::{Task, family_of};
use relay_protocol::{Control, DeploymentId, Envelope, QueueUrl, Statement as _, Timestamp};
use tracing::{error, info, warn};

use crate::claims::FinalWord;
use crate::launch::NotVerified;
use crate::launcher::{Launcher, deadline};

/// Seconds for which the end of a task is reported again: two rounds of the watchdog, and the time
/// that a round takes.
const RECENT: i64 = 660;

/// Seconds after a request was issued during which its queue may not be visible yet.
const FRESH: i64 = 60;

/// Time limit for one task in a round of the watchdog.
const ONE_TASK: Duration = Duration::from_secs(10);

/// Tasks of one id that are examined. There is one, unless somebody starts tasks by hand.
const STARTED_MAX: usize = 10;

/// The object key of the note that a running task was asked to stop.
fn cancel_key(id: &DeploymentId) -> String {
    format!("cancels/{id}")
}

/// Size limit in bytes of such a note, which is a time.
const NOTE_MAX: u64 = 64;

/// A task's configuration and its verified request.
type Judged = (Arc<Configuration>, Asked);

impl Launcher {
    /// Handles a task event. Only the ARNs are taken from it, and ECS is asked for the task's
    /// state: anyone who may invoke the function could forge an event.
    pub(crate) async fn task_changed(&self, cluster: &str, arn: &str, until: Instant) -> Result<(), AwsError> {
        if cluster.rsplit('/').next() != Some(self.settings.cluster.as_str()) && cluster != self.settings.cluster {
            info!(cluster, "ignored a task of another cluster");
            return Ok(());
        }
        let Some(task) = self.tasks.describe(&self.settings.cluster, arn).await? else {
            warn!(task = arn, "dropped an event of a task that ECS does not know");
            return Ok(());
        };
        let Some(judged) = self.asked(&task).await? else { return Ok(()) };
        self.tell(&task, &judged, until).await
    }

    /// Runs one round of the watchdog. A failure with one task does not stop the check of the
    /// others.
    pub(crate) async fn look_after_all(&self, until: Instant) -> Result<(), AwsError> {
        let mut failed = None;
        for task in self.tasks.all(&self.settings.cluster).await? {
            if Instant::now() + ONE_TASK >= until {
                error!("not all tasks were checked in time; the next round starts over");
                break;
            }
            match tokio::time::timeout(ONE_TASK, self.look_after(&task)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    error!(task = task.arn, %error, "cannot check a task");
                    failed = Some(error);
                }
                Err(_) => error!(task = task.arn, "the check of a task took too long"),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn look_after(&self, task: &Task) -> Result<(), AwsError> {
        let stopped = task.has_stopped();
        if stopped && task.stopped_at.is_none_or(|at| now().since(at) > RECENT) {
            return Ok(());
        }
        let Some(judged) = self.asked(task).await? else { return Ok(()) };
        let (configuration, asked) = &judged;
        if stopped {
            // One attempt only: a queue that is gone must not delay the other tasks, and the next
            // round reports again.
            return self.tell(task, &judged, Instant::now()).await;
        }
        if task.is_to_stop() {
            return Ok(());
        }
        let id = &asked.request().deployment_id;
        let key = cancel_key(id);
        let note = self.objects.get(&self.settings.bucket, &key, NOTE_MAX).await?;
        let cancelled_at = note.and_then(|note| std::str::from_utf8(&note.bytes).ok()?.parse::<Timestamp>().ok());
        // A rollback follows a cancelled step, and has as much time as the steps had.
        let grace = if configuration.rollback.is_empty() {
            i64::try_from(configuration.cancel.grace.as_secs()).unwrap_or(i64::MAX)
        } else {
            configuration.longest_run()
        };
        let begun = task.created_at.unwrap_or_else(now);
        let late = task.started_at.map(|at| at.plus(configuration.longest_run()));
        let ends = late.map_or(deadline(configuration, begun), |late| late.max(deadline(configuration, begun)));
        match reasons::to_stop(ends, cancelled_at, grace, now()) {
            Some(words) => self.stop(task, id, words).await,
            None => Ok(()),
        }
    }

    /// Handles a control statement that arrives by topic, in the order of [`cancel::next`].
    pub(crate) async fn cancel(&self, hints: &Hints, envelope: &Envelope, body: &str) -> Result<(), AwsError> {
        let id = &hints.deployment_id;
        let mut known = cancel::Known::default();
        // The claim's holder runs the deployment. Without a claim, any task started with this id
        // may be the one.
        let mut arns = Vec::new();
        let mut judged = None;
        loop {
            match cancel::next(known) {
                cancel::Need::ReadClaim => {
                    known.holder =
                        match self.read_claim(&Evidence::of(&hints.target, id)).await?.map(|claim| claim.holder) {
                            None => cancel::Holder::Nobody,
                            Some(Holder::Launcher { .. }) => cancel::Holder::Launcher,
                            Some(Holder::Runner { task_arn, .. }) => {
                                arns.push(task_arn);
                                cancel::Holder::Runner
                            }
                        };
                }
                cancel::Need::ListTasks => {
                    arns = self.tasks.started_by(&self.settings.cluster, id.as_str()).await?;
                    known.started = Some(!arns.is_empty());
                }
                cancel::Need::Drop => {
                    warn!("dropped a control statement: there is neither a task nor a claim of its deployment");
                    return Ok(());
                }
                cancel::Need::Judge => {
                    judged = self.judge(&arns, hints, envelope).await?;
                    known.aim = Some(judged.as_ref().map_or(Aim::Nothing, |(task, asked)| {
                        cancel::aim(task, asked.request().control_queue.is_some())
                    }));
                }
                cancel::Need::Forward => {
                    let queue = judged.as_ref().and_then(|(_, asked)| asked.request().control_queue.as_ref());
                    known.forwarded = Some(match queue {
                        Some(queue) => self.forward(queue, body).await?,
                        None => false,
                    });
                }
                cancel::Need::Note => {
                    info!("forwarded the cancel to the runner");
                    self.note(id).await?;
                    known.noted = true;
                }
                cancel::Need::Stop => {
                    if let Some((task, _)) = &judged {
                        self.stop(task, id, reasons::CANCELLED).await?;
                    }
                    known.stopped = true;
                }
                cancel::Need::Done => return Ok(()),
            }
        }
    }

    /// Whether a statement has the form and the age of one, and names a target that there is.
    /// Anybody who may publish can send statements, and each costs calls to AWS from here on.
    pub(crate) async fn could_be_ours(&self, hints: &Hints, envelope: &Envelope) -> Result<(), NotVerified> {
        let Ok(control) = Control::parse(envelope.unverified_payload()) else {
            return Err(NotVerified::because("its payload is not of its form"));
        };
        if !control.is_for(&hints.deployment_id, control.request_digest, now()) {
            let problem = "it is for another deployment than its attributes, too old, or from the future";
            return Err(NotVerified::because(problem));
        }
        self.target(&hints.target).await.map(drop)
    }

    /// Returns the first of these tasks that is one of relay's, if the statement may stop it.
    async fn judge(
        &self,
        arns: &[String],
        hints: &Hints,
        envelope: &Envelope,
    ) -> Result<Option<(Task, Asked)>, AwsError> {
        for arn in arns.iter().take(STARTED_MAX) {
            if let Some(task) = self.tasks.describe(&self.settings.cluster, arn).await?
                && let Some((configuration, asked)) = self.asked(&task).await?
            {
                let is_its = configuration.target == hints.target;
                let keys = self.keys_now(&configuration.roots.key_names(envelope)).await?;
                if is_its && relay_policy::may_cancel(&configuration, &asked, envelope, &keys, now()) {
                    return Ok(Some((task, asked)));
                }
                warn!("dropped a control statement that may not stop this deployment");
                return Ok(None);
            }
        }
        info!("cancelled, but there is nothing to stop");
        Ok(None)
    }

    /// Forwards the statement, and returns whether the control queue accepted it.
    async fn forward(&self, queue: &QueueUrl, body: &str) -> Result<bool, AwsError> {
        let entry = Entry { body: body.to_owned(), attributes: Vec::new() };
        match self.queues.send(queue, vec![entry]).await {
            Ok(results) => Ok(results.iter().all(Result::is_ok)),
            Err(error) if error.is_transient() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Notes when a cancel was forwarded. The time of the first one counts.
    async fn note(&self, id: &DeploymentId) -> Result<(), AwsError> {
        let note = now().to_string().into_bytes();
        match self.objects.put(&self.settings.bucket, &cancel_key(id), note, Condition::Absent).await {
            Err(error) if !matches!(error.kind, Kind::Precondition | Kind::Conflict) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn stop(&self, task: &Task, id: &DeploymentId, words: &str) -> Result<(), AwsError> {
        warn!(deployment_id = %id, task = task.arn, words, "stopping the task");
        self.tasks.stop(&self.settings.cluster, &task.arn, words).await
    }

    /// Returns the verified request of a task, or `None` if the launcher did not start the task for
    /// an authorised request. The request is authorised as of the task's creation time.
    async fn asked(&self, task: &Task) -> Result<Option<Judged>, AwsError> {
        let Some(definition) = self.tasks.definition(&task.definition).await? else {
            error!(
                task = task.arn,
                definition = task.definition,
                "ignored a task: its task definition was deleted, so relay cannot verify it"
            );
            return Ok(None);
        };
        let asked = match (self.configuration(&definition), &task.request) {
            (Ok(configuration), Some(named)) => {
                self.request_of(named, &configuration).await?.map(|asked| (configuration, asked))
            }
            (Ok(_), None) => Err("its override does not name a request".to_owned()),
            (Err(cause), _) => Err(cause),
        };
        let asked = match asked {
            Ok((configuration, asked)) => {
                let found = self.saved(&configuration, asked.request()).await?;
                let asked = asked.with_saved(&configuration, &found);
                Ok((configuration, asked))
            }
            Err(cause) => Err(cause),
        };
        let judged = asked.and_then(|(configuration, asked)| {
            // A stranger's task family must not use a configuration that names another's target.
            if family_of(&task.definition) != configuration.target.family() {
                return Err("its family is not the target's".to_owned());
            }
            if asked.request().deployment_id.as_str() != task.started_by {
                return Err("its startedBy is not the deployment's id".to_owned());
            }
            let created = task.created_at.ok_or("it has no creation time")?;
            match relay_policy::authorise(&configuration, &asked, created, Stage::Run) {
                Ok(_) => Ok((configuration, asked)),
                Err(denied) => Err(denied.message),
            }
        });
        match judged {
            Ok(judged) => Ok(Some(judged)),
            Err(cause) => {
                warn!(task = task.arn, cause, "ignored a task that the launcher did not start");
                Ok(None)
            }
        }
    }

    /// Whether this task's end is the deployment's end, in the order of [`end::next`].
    async fn is_last_word(&self, task: &Task, (configuration, asked): &Judged) -> Result<bool, AwsError> {
        let (evidence, digest) = (asked.evidence(), asked.request.digest());
        let of = |claim: Option<Claim>| match claim {
            None => end::Holder::Nobody,
            Some(Claim { holder: Holder::Runner { task_arn, .. }, .. }) if task_arn != task.arn => end::Holder::Another,
            Some(_) => end::Holder::This,
        };
        let mut known = end::Known::default();
        loop {
            match end::next(known) {
                end::Need::ReadClaim => known.holder = of(self.read_claim(&evidence).await?),
                end::Need::Claim => {
                    let (reason, words) = (reasons::stop_reason(task), task.stopped_reason.clone());
                    let denied = Denied::new(reason, words.unwrap_or_default());
                    let (request, verdict) = (digest, Verdict::LaunchFailed);
                    let word = FinalWord { evidence: &evidence, request, verdict, denied };
                    known.holder = of(Some(self.final_word(word).await?));
                }
                end::Need::Record => {
                    self.record_end(configuration, asked, task).await?;
                    known.recorded = true;
                }
                end::Need::Tell => return Ok(true),
                end::Need::Drop => return Ok(false),
            }
        }
    }

    /// Sends the state that ECS reports to the requester. A queue that is gone after the task has
    /// stopped is expected.
    async fn tell(&self, task: &Task, judged: &Judged, until: Instant) -> Result<(), AwsError> {
        let (_, asked) = judged;
        let request = asked.request();
        let stopped = task.has_stopped();
        if stopped && !self.is_last_word(task, judged).await? {
            return Ok(());
        }
        let words = match (&task.stopped_reason, &task.container_reason) {
            (Some(stopped), Some(container)) => Some(short(&format!("{stopped}: {container}"))),
            (one, other) => one.as_ref().or(other.as_ref()).map(|words| short(words)),
        };
        let kind = LauncherKind::Task {
            request_digest: asked.request.digest(),
            task_arn: task.arn.clone(),
            state: task.last_status.clone(),
            reason: stopped.then(|| reasons::stop_reason(task)),
            stop_code: task.stop_code.clone(),
            stopped_reason: words.filter(|_| stopped),
            exit_code: task.exit_code,
        };
        // If the container has run, or the request is old, its queue existed long ago. If the queue
        // is missing now, somebody deleted it.
        let was_there = task.started_at.is_some() || now().since(request.issued_at) > FRESH;
        let until = if was_there { Instant::now() } else { until };
        info!(deployment_id = %request.deployment_id, task = task.arn, state = task.last_status, "task");
        self.answers.send(&request.reply_queue, &request.deployment_id, kind, until).await?;
        if stopped {
            self.tell_everybody(asked, Some(task)).await;
        }
        Ok(())
    }
}
