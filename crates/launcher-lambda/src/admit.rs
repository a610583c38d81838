//! Admits one verified request, in the order of [`admission::next`]: earlier claim or task,
//! evidence, decision, RunTask, answer (clauses LAU-6 to LAU-11).

use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::tasks::{Launch, Launched};
use relay_aws::{AwsError, Kind};
use relay_engine::Backoff;
use relay_engine::launch::admission::{self, Found, Known, Need, Ran};
use relay_engine::launch::{prior, reasons};
use relay_engine::lock::{Content, Slot};
use relay_policy::{Asked, Denied};
use relay_protocol::claim::{Claim, Holder, Lock, Verdict};
use relay_protocol::evidence::Evidence;
use relay_protocol::frame::LauncherKind;
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::request::Stage;
use relay_protocol::task::Task;
use relay_protocol::{Digest, Reason, RequestRef, Timestamp};
use tracing::{error, info, warn};

use crate::claims::FinalWord;
use crate::launcher::{Launcher, Target, deadline};
use crate::record;

/// Time reserved for the answer when the launch takes long.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Age in seconds after which a request's queue either exists or is gone for good. A replayed old
/// request must not make an invocation wait for it.
const FRESH: i64 = 60;

/// What a frozen launcher says.
pub(crate) const FROZEN: &str = "the platform team has frozen this account's deployments";

/// The label with the subnets, separated by commas.
const SUBNETS: &str = "relay.subnets";

/// The label with the security groups, separated by commas.
const SECURITY_GROUPS: &str = "relay.security-groups";

/// The first and the longest pause between two attempts of RunTask.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// The decision about a request.
enum Decision {
    /// Allowed by these policies.
    Allowed(Vec<String>),
    Denied(Denied),
}

/// The result of RunTask.
enum Ending {
    /// A task exists, this request's or another's. Holds the answer to send.
    Task(LauncherKind),
    /// There will be no task.
    Failed(Denied),
}

/// One request while it is admitted.
pub(crate) struct Admission<'a> {
    launcher: &'a Launcher,
    target: &'a Target,
    asked: Asked,
    evidence: Evidence,
    digest: Digest,
    /// The latest time at which the server ends the deployment.
    deadline: Timestamp,
    /// The time by which the invocation must have answered.
    until: Instant,
}

impl<'a> Admission<'a> {
    /// Prepares the admission of `asked`, which must be answered by `until`.
    pub(crate) fn new(launcher: &'a Launcher, target: &'a Target, asked: Asked, until: Instant) -> Self {
        let (evidence, digest) = (asked.evidence(), asked.request.digest());
        Self { launcher, target, asked, evidence, digest, deadline: deadline(&target.configuration, now()), until }
    }

    /// Runs the admission until the request is answered. An error makes Lambda retry the
    /// invocation.
    pub(crate) async fn run(mut self) -> Result<(), AwsError> {
        let mut known = Known::default();
        let mut answer = None;
        let mut policies = Vec::new();
        let mut denied = None;
        let mut claim = None;
        let mut recorded = Ok(());
        loop {
            match admission::next(known) {
                Need::ReadClaim => {
                    claim = self.launcher.read_claim(&self.evidence).await?;
                    (known.claim, answer) = self.answer_for_claim(claim.as_ref());
                }
                Need::ListTasks => {
                    let task = self.launcher.started_task(&self.asked.request().deployment_id).await?;
                    answer = task.map(|task| self.answer_for_task(&task));
                    known.task = if answer.is_some() { Found::Something } else { Found::Nothing };
                }
                Need::Store => {
                    let stored = self.store().await?;
                    (known.stored, answer) = (Some(stored), (!stored).then(|| prior::id_in_use(self.digest)));
                }
                Need::Authorise => match self.decide().await? {
                    Decision::Allowed(by) => (known.allowed, policies) = (Some(true), by),
                    Decision::Denied(why) => (known.allowed, denied) = (Some(false), Some(why)),
                },
                Need::Summarise => {
                    self.launcher.summarise(&self.target.configuration, &self.asked).await?;
                    known.summarised = true;
                }
                Need::RunTask => match self.launch(&policies).await? {
                    Ending::Task(kind) => (known.ran, answer) = (Some(Ran::Task), Some(kind)),
                    Ending::Failed(why) => (known.ran, denied) = (Some(Ran::Failed), Some(why)),
                },
                Need::Claim(verdict) => {
                    claim = Some(self.refuse(verdict, denied.take()).await?);
                    (known.claim, answer) = self.answer_for_claim(claim.as_ref());
                }
                Need::Record => {
                    // The requester is answered even if this fails. Lambda then tries again.
                    recorded = self.record(claim.as_ref()).await;
                    known.recorded = true;
                }
                Need::Answer => break,
            }
        }
        if let Some(kind) = answer {
            self.answer(kind, known.allowed.is_none()).await?;
        }
        if known.recorded && recorded.is_ok() {
            self.launcher.tell_everybody(&self.asked, None).await;
        }
        recorded
    }

    /// What a claim means for this request.
    fn answer_for_claim(&self, claim: Option<&Claim>) -> (Found, Option<LauncherKind>) {
        let Some(claim) = claim else { return (Found::Nothing, None) };
        let is_verdict = claim.request_digest == self.digest && matches!(claim.holder, Holder::Launcher { .. });
        let found = if is_verdict { Found::Verdict } else { Found::Something };
        (found, Some(prior::of_claim(claim, self.digest, self.deadline)))
    }

    /// Writes the request to the evidence. From here on, what stands there counts. Returns whether
    /// it is this request.
    async fn store(&mut self) -> Result<bool, AwsError> {
        let asked = self.asked.clone();
        let Some(stands) = self.launcher.store(self.target, asked).await? else { return Ok(false) };
        self.asked = stands;
        Ok(true)
    }

    /// Records the launcher's final verdict.
    async fn record(&self, claim: Option<&Claim>) -> Result<(), AwsError> {
        match claim.and_then(|claim| record::Ending::of_claim(claim, None)) {
            Some(ending) => self.launcher.record(&self.target.configuration, &self.asked, ending).await,
            None => Ok(()),
        }
    }

    async fn decide(&self) -> Result<Decision, AwsError> {
        let configuration = &self.target.configuration;
        if self.launcher.settings.frozen {
            return Ok(Decision::Denied(Denied::new(Reason::Frozen, FROZEN)));
        }
        let found = self.launcher.saved(configuration, self.asked.request()).await?;
        let asked = self.asked.clone().with_saved(configuration, &found);
        let allowed = match relay_policy::authorise(configuration, &asked, now(), Stage::Launch) {
            Ok(allowed) => allowed,
            Err(denied) => return Ok(Decision::Denied(denied)),
        };
        if let Some(denied) = self.launcher.ticket_used(self.asked.ticket(), Some(self.asked.request())).await? {
            return Ok(Decision::Denied(denied));
        }
        Ok(match self.busy().await? {
            Some(holder) => {
                let message = format!("{} is held by {holder}", configuration.target);
                Decision::Denied(Denied::new(Reason::Busy, message))
            }
            None => Decision::Allowed(allowed.policies),
        })
    }

    /// The holder of the target, if no slot is free. This is only an early answer: the runner takes
    /// the lock and decides (clause LCK-3).
    async fn busy(&self) -> Result<Option<String>, AwsError> {
        let (Launcher { objects, settings, tasks, .. }, configuration) = (self.launcher, &self.target.configuration);
        let mut last = None;
        for number in 0..configuration.concurrency {
            let key = Lock::key(&configuration.target, number);
            let object = objects.get(&settings.bucket, &key, CLAIM_MAX as u64).await?;
            let content = Content::of(object.as_ref().map(|object| object.bytes.as_slice()));
            let task = match content.holder() {
                Some(holder) => tasks.describe(holder.cluster(), &holder.task_arn).await?,
                None => None,
            };
            if Slot::of(&content, task.as_ref(), now()).is_free() {
                return Ok(None);
            }
            last = Some(content.by(&key));
        }
        Ok(last)
    }

    /// Runs exactly the task definition revision that was decided about. Each retry uses the same
    /// token, while there is time.
    async fn launch(&self, policies: &[String]) -> Result<Ending, AwsError> {
        let definition = &self.target.definition;
        let request = RequestRef::of(self.asked.request(), self.digest);
        let label = |name: &str| {
            let text = definition.labels.get(name).map(String::as_str).unwrap_or_default();
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        let launch = Launch {
            cluster: &self.launcher.settings.cluster,
            definition: &definition.arn,
            request: &request,
            subnets: label(SUBNETS),
            security_groups: label(SECURITY_GROUPS),
            capacity: self.target.configuration.capacity.as_deref(),
        };
        let mut backoff = PAUSE;
        loop {
            let (reason, message) = match self.launcher.tasks.run(&launch).await {
                Ok(Launched::Task(task_arn)) => {
                    let (request_digest, deadline, policies) = (self.digest, self.deadline, policies.to_vec());
                    let kind = LauncherKind::Admitted { request_digest, task_arn, deadline, policies };
                    return Ok(Ending::Task(kind));
                }
                Ok(Launched::Failed { reason, detail }) => {
                    (reasons::launch_reason(&reason), format!("{reason} {detail}").trim().to_owned())
                }
                Err(error) if error.kind == Kind::Conflict => return self.conflict(&error).await.map(Ending::Task),
                Err(error) if error.kind == Kind::Throttled => (Reason::Quota, error.message),
                // The effect is unknown, so no answer may be final: Lambda retries with the same
                // token.
                Err(error) if error.kind == Kind::Unreachable => return Err(error),
                Err(error) => {
                    let reason = reasons::launch_reason(&error.message);
                    return Ok(Ending::Failed(Denied::new(reason, error)));
                }
            };
            if Instant::now() + backoff.peek() + ANSWER_TIME >= self.until {
                return Ok(Ending::Failed(Denied::new(reason, message)));
            }
            warn!(reason = reason.code(), words = message, "not started yet; retrying with the same token");
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// The token is already bound to a task, either this request's (a concurrent duplicate) or
    /// another's.
    async fn conflict(&self, error: &AwsError) -> Result<LauncherKind, AwsError> {
        let launcher = self.launcher;
        for arn in &error.resources {
            if let Some(task) = launcher.tasks.describe(&launcher.settings.cluster, arn).await? {
                return Ok(self.answer_for_task(&task));
            }
        }
        let task = launcher.started_task(&self.asked.request().deployment_id).await?;
        task.map(|task| self.answer_for_task(&task)).ok_or_else(|| error.clone())
    }

    /// The answer when a task exists already.
    fn answer_for_task(&self, task: &Task) -> LauncherKind {
        let digest = task.request.as_ref().map(|request| request.request_digest);
        prior::of_task(&task.arn, digest, self.digest, self.deadline)
    }

    async fn refuse(&self, verdict: Verdict, denied: Option<Denied>) -> Result<Claim, AwsError> {
        let nothing = || AwsError::new("s3:PutObject", Kind::Invalid, "there is no refusal to claim");
        let denied = denied.ok_or_else(nothing)?;
        self.launcher.final_word(FinalWord { evidence: &self.evidence, request: self.digest, verdict, denied }).await
    }

    /// Answers the requester. `again` means that an earlier delivery was already answered.
    async fn answer(&self, kind: LauncherKind, again: bool) -> Result<(), AwsError> {
        let request = self.asked.request();
        let mut until = self.until;
        if again {
            info!("delivered again; the first answer stands");
            if now().since(request.issued_at) > FRESH {
                until = Instant::now();
            }
        }
        log(&kind);
        self.launcher.answers.send(&request.reply_queue, &request.deployment_id, kind, until).await.map(|_| ())
    }
}

pub(crate) fn log(kind: &LauncherKind) {
    match kind {
        LauncherKind::Admitted { task_arn, policies, .. } => info!(task_arn, policies = policies.join(","), "admitted"),
        LauncherKind::Refused { reason, message, .. } => info!(reason = reason.code(), words = message, "refused"),
        LauncherKind::LaunchFailed { reason, message, .. } => {
            error!(reason = reason.code(), words = message, "launch failed")
        }
        LauncherKind::Tried(tried) => {
            info!(reason = tried.reason.map(Reason::code), words = tried.message, "answered a dry run")
        }
        LauncherKind::Task { .. } | LauncherKind::Unverified { .. } | LauncherKind::Unknown => {}
    }
}
