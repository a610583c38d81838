//! The way of one request, with its I/O: hint, task definition, verification, what stands already, decision, RunTask, answer (clauses LAU-1 to LAU-12).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::Error;
use relay_aws::clock::now;
use relay_aws::objects::{Condition, Objects};
use relay_aws::queues::Queues;
use relay_aws::tasks::{Definition, Launch, Launched, Tasks};
use relay_aws::{AwsError, Kind, Sdk};
use relay_engine::Backoff;
use relay_engine::claim::{self, After, Put};
use relay_engine::launch::admission::{self, Found, Known, Need, Ran};
use relay_engine::launch::{prior, reasons};
use relay_engine::lock::{Content, Slot};
use relay_policy::{Allowed, Asked, Configuration, Denied, Pin};
use relay_protocol::claim::{Claim, Holder, Lock, Verdict};
use relay_protocol::encoding::short;
use relay_protocol::frame::LauncherKind;
use relay_protocol::limits::{CLAIM_MAX, START_DELAY_MAX};
use relay_protocol::request::{Hints, Stage};
use relay_protocol::task::Task;
use relay_protocol::{Bundle, DeploymentId, Digest, Message, QueueUrl, Reason, TargetName, Timestamp};
use tracing::{Instrument as _, error, info, warn};

use crate::answer::Answers;
use crate::event::{self, Delivered, Notification};
use crate::settings::Settings;

/// Time that is kept for the answer when launching takes long.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Seconds after which a request's queue is there, or gone for good: a replay of an old one must not keep an invocation waiting for it.
const FRESH: i64 = 60;

/// The variable of the task definition that holds the configuration.
const CONFIGURATION: &str = "RELAY_CONFIGURATION";

/// The label with the subnets, separated by commas.
const SUBNETS: &str = "relay.subnets";

/// The label with the security groups, separated by commas.
const SECURITY_GROUPS: &str = "relay.security-groups";

/// See the crate's head.
#[derive(Debug)]
pub struct Launcher {
    pub(crate) settings: Settings,
    pub(crate) tasks: Tasks,
    pub(crate) objects: Objects,
    pub(crate) queues: Queues,
    pub(crate) answers: Answers,
    /// Configurations by the ARN of their revision, which never changes.
    configurations: Mutex<HashMap<String, Arc<Configuration>>>,
}

/// A target that is ready to be decided about.
struct Target {
    definition: Definition,
    configuration: Arc<Configuration>,
}

impl Launcher {
    /// With AWS as the environment says.
    pub async fn new(settings: Settings) -> Self {
        let sdk = Sdk::from_environment(Some(&settings.topic.region())).await;
        Self {
            tasks: Tasks::new(&sdk),
            objects: Objects::new(&sdk),
            queues: Queues::new(&sdk),
            answers: Answers::new(&sdk, settings.target_key.clone()),
            configurations: Mutex::new(HashMap::new()),
            settings,
        }
    }

    /// One invocation. An error makes Lambda try again; whatever is final is answered and is no error.
    pub async fn handle(&self, event: serde_json::Value, deadline: SystemTime) -> Result<(), Error> {
        let until = Instant::now() + deadline.duration_since(SystemTime::now()).unwrap_or_default();
        let notifications = match event::delivered(event) {
            Delivered::Notifications(notifications) => notifications,
            Delivered::Task { cluster, arn } => return Ok(self.task_changed(&cluster, &arn, until).await?),
            Delivered::Schedule => return Ok(self.look_after_all(until).await?),
            Delivered::Other => {
                info!("an event of a kind that this version does not handle");
                return Ok(());
            }
        };
        for notification in notifications {
            let Some(hints) = notification.hints.clone() else {
                warn!(
                    "a message whose attributes target, deployment_id and ci_account are missing or malformed: dropped"
                );
                continue;
            };
            let span = tracing::info_span!("request", deployment_id = %hints.deployment_id, target = %hints.target);
            self.notification(notification, &hints, until)
                .instrument(span)
                .await
                .inspect_err(|error| error!(%error, "to be tried again"))?;
        }
        Ok(())
    }

    async fn notification(&self, notification: Notification, hints: &Hints, until: Instant) -> Result<(), AwsError> {
        if notification.topic != self.settings.topic {
            warn!(topic = %notification.topic, "a message of another topic: dropped");
            return Ok(());
        }
        let cause = match Message::parse(notification.body.as_bytes()) {
            Ok(Message::Control(envelope)) => return self.cancel(hints, &envelope, &notification.body).await,
            Ok(Message::Request(bundle)) => match self.verify(&bundle, hints).await? {
                Ok((target, asked)) => return self.verified(&target, &asked, until).await,
                Err(cause) => cause,
            },
            Err(error) => error.to_string(),
        };
        warn!(cause, "unverified");
        self.answer_unverified(&notification, hints, until).await
    }

    /// From hint to verified request. The inner error is for the log alone: outside, all of these look the same (clause LAU-5).
    async fn verify(&self, bundle: &Bundle, hints: &Hints) -> Result<Result<(Target, Asked), String>, AwsError> {
        let target = match self.target(&hints.target).await? {
            Ok(target) => target,
            Err(cause) => return Ok(Err(cause)),
        };
        Ok(match relay_policy::verify(bundle, &target.configuration) {
            Ok(asked) if hints.agree_with(asked.request()) => Ok((target, asked)),
            Ok(_) => Err("the message's attributes differ from the signed request".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// The newest active revision of a target, with its pinned configuration.
    async fn target(&self, name: &TargetName) -> Result<Result<Target, String>, AwsError> {
        let Some(definition) = self.tasks.definition(&name.family()).await? else {
            return Ok(Err(format!("there is no active task definition {}", name.family())));
        };
        Ok(match self.configuration(&definition) {
            Ok(configuration) if configuration.target == *name => Ok(Target { definition, configuration }),
            Ok(_) => Err(format!("the configuration of {} is for another target", definition.arn)),
            Err(cause) => Err(cause),
        })
    }

    /// The configuration that a revision pins (clause LAU-2).
    pub(crate) fn configuration(&self, definition: &Definition) -> Result<Arc<Configuration>, String> {
        let known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner).get(&definition.arn).cloned();
        if let Some(configuration) = known {
            return Ok(configuration);
        }
        let arn = &definition.arn;
        let text = definition.environment.get(CONFIGURATION).ok_or_else(|| format!("{arn} has no {CONFIGURATION}"))?;
        let pin = Pin::parse(definition.entry_point.get(1..).unwrap_or_default()).ok().filter(|pin| pin.fits(text));
        let pin = pin.ok_or_else(|| format!("the entry point of {arn} does not pin its configuration"))?;
        let configuration = Configuration::parse(text)
            .map_err(|error| format!("the configuration of {arn} cannot be read: {error}"))?;
        if configuration.target != pin.target || configuration.topic != self.settings.topic {
            return Err(format!("the configuration of {arn} is for another target or topic"));
        }
        let configuration = Arc::new(configuration);
        let mut known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(arn.clone(), Arc::clone(&configuration));
        Ok(configuration)
    }

    async fn answer_unverified(
        &self,
        notification: &Notification,
        hints: &Hints,
        until: Instant,
    ) -> Result<(), AwsError> {
        if !self.settings.ci_accounts.contains(&hints.ci_account) {
            warn!(ci_account = %hints.ci_account, "no answer to an account that is not in RELAY_CI_ACCOUNTS");
            return Ok(());
        }
        let Ok(queue) =
            QueueUrl::of(&self.settings.topic.region(), &hints.ci_account, &hints.deployment_id.reply_queue_name())
        else {
            return Ok(());
        };
        let body_sha256 = Digest::of(notification.body.as_bytes());
        let kind = LauncherKind::Unverified {
            body_sha256,
            target: hints.target.clone(),
            ci_account: hints.ci_account.clone(),
        };
        self.answers.send(&queue, &hints.deployment_id, kind, until).await.map(|_| ())
    }

    /// A verified request, in the order of [`admission::next`].
    async fn verified(&self, target: &Target, asked: &Asked, mut until: Instant) -> Result<(), AwsError> {
        let id = &asked.request().deployment_id;
        let digest = asked.request.digest();
        let deadline = deadline(&target.configuration, now());
        let mut known = Known::default();
        let mut answer = None;
        let mut decision = None;
        loop {
            match admission::next(known) {
                Need::ReadClaim => {
                    answer = self.read_claim(id).await?.map(|claim| prior::of_claim(&claim, digest, deadline));
                    known.claim = found(&answer);
                }
                Need::ListTasks => {
                    let task = self.started_task(id).await?;
                    answer = task.map(|task| prior::of_task(&task.arn, digest_of(&task), digest, deadline));
                    known.task = found(&answer);
                }
                Need::Authorise => {
                    let decided = self.decide(target, asked).await?;
                    known.allowed = Some(decided.is_ok());
                    decision = Some(decided);
                }
                Need::RunTask => {
                    let policies = match &decision {
                        Some(Ok(allowed)) => allowed.policies.clone(),
                        Some(Err(_)) | None => Vec::new(),
                    };
                    match self.launch(target, asked, policies, deadline, until).await? {
                        Ok(kind) => (known.ran, answer) = (Some(Ran::Task), Some(kind)),
                        Err(denied) => (known.ran, decision) = (Some(Ran::Failed), Some(Err(denied))),
                    }
                }
                Need::Claim(verdict) => {
                    let Some(Err(denied)) = decision.take() else {
                        return Err(AwsError::new("s3:PutObject", Kind::Invalid, "there is no word to claim"));
                    };
                    let kind = self.final_word(id, digest, verdict, denied, deadline).await?;
                    (known.concluded, answer) = (true, Some(kind));
                }
                Need::Answer => break,
            }
        }
        let Some(kind) = answer else { return Ok(()) };
        if known.allowed.is_none() {
            info!("delivered again: the first answer stands");
            if now().since(asked.request().issued_at) > FRESH {
                until = Instant::now();
            }
        }
        log(&kind);
        self.answers.send(&asked.request().reply_queue, id, kind, until).await.map(|_| ())
    }

    async fn decide(&self, target: &Target, asked: &Asked) -> Result<Result<Allowed, Denied>, AwsError> {
        if self.settings.frozen {
            let message = "the platform team has frozen this account's deployments".to_owned();
            return Ok(Err(Denied { reason: Reason::Frozen, message }));
        }
        let allowed = match relay_policy::authorise(&target.configuration, asked, now(), Stage::Launch) {
            Ok(allowed) => allowed,
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(match self.busy(&target.configuration).await? {
            Some(holder) => Err(Denied {
                reason: Reason::Busy,
                message: format!("{} is held by {holder}", target.configuration.target),
            }),
            None => Ok(allowed),
        })
    }

    /// Who holds the target, when no slot is free. An early word only: the runner takes the lock, and decides (clause LCK-3).
    async fn busy(&self, configuration: &Configuration) -> Result<Option<String>, AwsError> {
        let mut last = None;
        for number in 0..configuration.concurrency {
            let key = Lock::key(&configuration.target, number);
            let object = self.objects.get(&self.settings.bucket, &key, CLAIM_MAX as u64).await?;
            let content = Content::of(object.as_ref().map(|object| object.bytes.as_slice()));
            let slot = match &content {
                Content::Empty => Slot::Empty,
                Content::Unreadable => Slot::Unreadable,
                Content::Held(holder) => {
                    let task = self.tasks.describe(holder.cluster(), &holder.task_arn).await?;
                    Slot::held(holder, task.as_ref(), now())
                }
            };
            if slot.is_free() {
                return Ok(None);
            }
            last = Some(content.by(&key));
        }
        Ok(last)
    }

    /// RunTask of exactly the revision that was decided about, with the one token, while there is time. The inner error is final.
    async fn launch(
        &self,
        target: &Target,
        asked: &Asked,
        policies: Vec<String>,
        deadline: Timestamp,
        until: Instant,
    ) -> Result<Result<LauncherKind, Denied>, AwsError> {
        let id = &asked.request().deployment_id;
        let digest = asked.request.digest();
        let envelope = asked.canonical();
        let label = |name: &str| {
            let text = target.definition.labels.get(name).map(String::as_str).unwrap_or_default();
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let launch = Launch {
            cluster: &self.settings.cluster,
            definition: &target.definition.arn,
            deployment_id: id.as_str(),
            envelope: &envelope,
            subnets: label(SUBNETS),
            security_groups: label(SECURITY_GROUPS),
        };
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        loop {
            let (reason, words) = match self.tasks.run(&launch).await {
                Ok(Launched::Task(task_arn)) => {
                    return Ok(Ok(LauncherKind::Admitted { request_digest: digest, task_arn, deadline, policies }));
                }
                Ok(Launched::Failed { reason, detail }) => {
                    (reasons::launch_reason(&reason), format!("{reason} {detail}").trim().to_owned())
                }
                Err(error) if error.kind == Kind::Conflict => {
                    return self.conflict(id, digest, &error, deadline).await.map(Ok);
                }
                Err(error) if error.kind == Kind::Throttled => (Reason::Quota, error.message),
                // The effect is not known, so nothing final may be said: Lambda tries again, with the same token.
                Err(error) if error.kind == Kind::Unreachable => return Err(error),
                Err(error) => {
                    let reason = reasons::launch_reason(&error.message);
                    return Ok(Err(Denied { reason, message: error.to_string() }));
                }
            };
            if Instant::now() + backoff.peek() + ANSWER_TIME >= until {
                return Ok(Err(Denied { reason, message: words }));
            }
            warn!(reason = reason.code(), words, "not started yet, to be tried again with the same token");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// The token is bound to a task already: to this request's (a concurrent duplicate), or to another's.
    async fn conflict(
        &self,
        id: &DeploymentId,
        digest: Digest,
        error: &AwsError,
        deadline: Timestamp,
    ) -> Result<LauncherKind, AwsError> {
        for arn in &error.resources {
            if let Some(task) = self.tasks.describe(&self.settings.cluster, arn).await? {
                return Ok(prior::of_task(arn, digest_of(&task), digest, deadline));
            }
        }
        match self.started_task(id).await? {
            Some(task) => Ok(prior::of_task(&task.arn, digest_of(&task), digest, deadline)),
            None => Err(error.clone()),
        }
    }

    /// Claims the id with a final verdict; if somebody was faster, their word stands (clause CLM-3).
    pub(crate) async fn final_word(
        &self,
        id: &DeploymentId,
        digest: Digest,
        verdict: Verdict,
        Denied { reason, message }: Denied,
        deadline: Timestamp,
    ) -> Result<LauncherKind, AwsError> {
        // A claim must be small enough to be read back.
        let holder = Holder::Launcher { verdict, reason, message: short(&message) };
        let claim = Claim { request_digest: digest, holder };
        let key = Claim::key(id);
        for _ in 0..5 {
            let put = self.objects.put(&self.settings.bucket, &key, claim.to_bytes(), Condition::Absent).await;
            match claim::after_put(put_of(put)?) {
                After::Won => return Ok(prior::of_claim(&claim, digest, deadline)),
                After::ReadBack => {
                    if let Some(stands) = self.read_claim(id).await? {
                        return Ok(prior::of_claim(&stands, digest, deadline));
                    }
                }
                After::Again => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Err(AwsError::new("s3:PutObject", Kind::Conflict, "the claim stays contested"))
    }

    pub(crate) async fn read_claim(&self, id: &DeploymentId) -> Result<Option<Claim>, AwsError> {
        let Some(object) = self.objects.get(&self.settings.bucket, &Claim::key(id), CLAIM_MAX as u64).await? else {
            return Ok(None);
        };
        // A claim that cannot be read still claims: better one deployment that must be asked for again than one that runs twice.
        let unreadable = |error: serde_json::Error| {
            AwsError::new("s3:GetObject", Kind::Invalid, format!("the claim of {id} cannot be read: {error}"))
        };
        Claim::parse(&object.bytes).map(Some).map_err(unreadable)
    }

    /// A task that this id has started.
    pub(crate) async fn started_task(&self, id: &DeploymentId) -> Result<Option<Task>, AwsError> {
        for arn in self.tasks.started_by(&self.settings.cluster, id.as_str()).await? {
            if let Some(task) = self.tasks.describe(&self.settings.cluster, &arn).await? {
                return Ok(Some(task));
            }
        }
        Ok(None)
    }
}

/// Whether there is an answer already.
fn found(answer: &Option<LauncherKind>) -> Found {
    if answer.is_some() { Found::Something } else { Found::Nothing }
}

/// How S3 answered a write of a claim. What was not answered at all is Lambda's to try again.
fn put_of(put: Result<String, AwsError>) -> Result<Put, AwsError> {
    match put {
        Ok(_) => Ok(Put::Written),
        Err(error) if error.kind == Kind::Precondition => Ok(Put::Exists),
        Err(error) if error.kind == Kind::Conflict => Ok(Put::Unclear),
        Err(error) => Err(error),
    }
}

/// The digest of the request in a task's overrides.
fn digest_of(task: &Task) -> Option<Digest> {
    task.envelope.as_deref().and_then(prior::digest_of_envelope)
}

/// When the server ends a deployment that is admitted now, at the latest: a slow start, its time, its grace.
pub(crate) fn deadline(configuration: &Configuration, now: Timestamp) -> Timestamp {
    now.plus(START_DELAY_MAX).plus(configuration.longest_run())
}

fn log(kind: &LauncherKind) {
    match kind {
        LauncherKind::Admitted { task_arn, policies, .. } => info!(task_arn, policies = policies.join(","), "admitted"),
        LauncherKind::Refused { reason, message, .. } => info!(reason = reason.code(), words = message, "refused"),
        LauncherKind::LaunchFailed { reason, message, .. } => {
            error!(reason = reason.code(), words = message, "launch failed")
        }
        LauncherKind::Task { .. } | LauncherKind::Unverified { .. } | LauncherKind::Unknown => {}
    }
}
