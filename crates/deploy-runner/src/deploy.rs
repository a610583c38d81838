//! Runs a verified deployment, from its claim to its last frame, in the order of
//! [`relay_engine::run`].

use std::sync::Arc;
use std::time::Duration;

use relay_aws::clock::now;
use relay_aws::saved;
use relay_aws::tasks::Tasks;
use relay_console::outlet::Outlet;
use relay_engine::Finish;
use relay_engine::run::{self, Known, Need};
use relay_policy::{Allowed, Asked, Denied};
use relay_protocol::Reason;
use relay_protocol::encoding::short;
use relay_protocol::frame::RunnerKind;
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::outcome::{ExitCode, Outcome};
use relay_protocol::request::Stage;
use tracing::{error, info, warn};

use crate::claim::{self, Held, Taken};
use crate::deployment::Deployment;
use crate::evidence::{Desk, Left};
use crate::host::Host;
use crate::pump::Pump;
use crate::recipe::{Progress, Recipe};
use crate::report::{self, Facts};
use crate::start::Started;
use crate::workplace::StepError;

/// A claimed deployment with a vouched runner key: readers accept its frames.
struct Run {
    deployment: Deployment,
    pump: Pump,
    host: Host,
    allowed: Option<Allowed>,
    held: Option<Held>,
    watchers: Vec<tokio::task::JoinHandle<()>>,
    progress: Progress,
    /// How the deployment ended, once that is known.
    outcome: Option<Outcome>,
    /// The record, once it was left in the evidence.
    left: Option<Left>,
}

/// Runs a verified deployment to its end and returns the container's exit code.
pub(crate) async fn deploy(started: Started, outlet: &Outlet) -> u8 {
    let deployment = Deployment::new(started, outlet);
    let id = deployment.asked.request().deployment_id.clone();
    let mut known = Known::default();
    // Readers accept no frame until the runner key has a vouch. Until then the exit code, which ECS
    // passes on, is the only report.
    let mut code = ExitCode::Fault;
    loop {
        match run::next(&known) {
            Need::Claim => match deployment.claim().await {
                Ok(()) => {
                    deployment.stopper.listen_for_termination();
                    known.claimed = Some(true);
                }
                Err(refusal) => {
                    code = refusal.exit_code();
                    error!(problem = %refusal, exit_code = code.code(), "nothing was run");
                    known.claimed = Some(false);
                }
            },
            Need::Vouch => match deployment.open_pump().await {
                Ok(pump) => {
                    known.vouched = Some(true);
                    return Run::new(deployment, pump).lead(known).await;
                }
                Err(problem) => {
                    code = problem.reason.exit_code();
                    error!(deployment_id = %id, problem = problem.message, "nothing was run");
                    known.vouched = Some(false);
                }
            },
            // Exit. Every other need requires the claim and the vouch first.
            _ => return code.code(),
        }
    }
}

impl Run {
    fn new(deployment: Deployment, pump: Pump) -> Self {
        let host = Host::of_task(&deployment.task_arn);
        let (watchers, progress) = Default::default();
        Self { deployment, pump, host, allowed: None, held: None, watchers, progress, outcome: None, left: None }
    }

    /// Runs from the authorisation to the last frame, and returns the container's exit code.
    async fn lead(mut self, mut known: Known) -> u8 {
        let mut code = ExitCode::Fault.code();
        loop {
            known.halted = self.deployment.stopper.asked().is_some();
            match run::next(&known) {
                Need::Authorise => known.allowed = Some(self.authorise().await),
                Need::SayStarted => known.started = Some(self.say_started().await),
                Need::TakeLock => known.locked = Some(self.take_lock().await),
                Need::LookForCancel => {
                    self.watchers = self.deployment.watch().await;
                    known.looked = true;
                }
                Need::RunTool => {
                    self.run_tool().await;
                    known.ended = true;
                }
                Need::Release => {
                    self.release().await;
                    known.released = true;
                }
                Need::Record => {
                    self.record().await;
                    known.recorded = true;
                }
                Need::Finish => {
                    code = self.finish().await;
                    return code;
                }
                Need::Claim | Need::Vouch | Need::Exit => return code,
            }
        }
    }

    /// Records the outcome; an error becomes [`Outcome::Ended`].
    fn ends(&mut self, outcome: Result<Outcome, StepError>) {
        let ended = |StepError { reason, message }| Outcome::Ended { reason, message: short(&message) };
        self.outcome = Some(outcome.unwrap_or_else(ended));
    }

    /// Authorises the request again, and returns whether it is allowed here.
    async fn authorise(&mut self) -> bool {
        let Deployment { configuration, asked, objects, sdk, .. } = &self.deployment;
        let artifacts = relay_policy::saved_artifacts(&configuration.parameters, asked.request());
        let denied = |Denied { reason, message, .. }| StepError { reason, message };
        let found = match saved::read(objects, &configuration.evidence, &artifacts).await {
            Ok(found) => found,
            Err(error) => {
                let problem = format!("cannot read who saved the artifacts: {error}");
                self.ends(Err(StepError::new(Reason::Runner, problem)));
                return false;
            }
        };
        // A later cancel is judged by the same request, with its approvals.
        let asked = Arc::new(Asked::clone(asked).with_saved(configuration, &found));
        let mut allowed = relay_policy::authorise(configuration, &asked, now(), Stage::Run).map_err(denied);
        if allowed.is_ok()
            && let Err(trouble) = self.host.look(&Tasks::new(sdk), configuration).await
        {
            allowed = Err(trouble);
        }
        self.deployment.asked = asked;
        match allowed {
            Ok(allowed) => self.allowed = Some(allowed),
            Err(trouble) => self.ends(Err(trouble)),
        }
        self.allowed.is_some()
    }

    /// Sends `started` and returns whether it arrived.
    async fn say_started(&mut self) -> bool {
        let configuration = &self.deployment.configuration;
        let started = RunnerKind::Started {
            task_arn: self.deployment.task_arn.clone(),
            steps: configuration.steps.iter().map(|step| step.name.clone()).collect(),
            deadline: self.deployment.started_at.plus(configuration.longest_run()),
            grace: configuration.cancel.grace.as_secs(),
        };
        self.pump.sink().say(started).await;
        let arrived = self.pump.arrived(Duration::from_secs(QUEUE_WAIT_SECONDS)).await;
        if !arrived {
            // Without a reply queue nobody could watch the tool or stop it (clause RUN-8).
            let words = "the reply queue could not be reached within a minute, so the tool was not started";
            self.ends(Err(StepError::new(Reason::Runner, words)));
        }
        arrived
    }

    /// Takes a slot and returns whether this deployment holds one.
    async fn take_lock(&mut self) -> bool {
        let Deployment { configuration, asked, task_arn, objects, sdk, .. } = &self.deployment;
        let id = &asked.request().deployment_id;
        let trouble = match claim::take_lock(objects, &Tasks::new(sdk), configuration, id, task_arn).await {
            Ok(Taken::Held(held)) => {
                self.held = Some(held);
                return true;
            }
            Ok(Taken::Busy(by)) => StepError::new(Reason::Busy, format!("{} is held by {by}", configuration.target)),
            Err(error) => StepError::new(Reason::Runner, format!("cannot take the lock: {error}")),
        };
        self.ends(Err(trouble));
        false
    }

    /// Runs the recipe and keeps its progress and outcome.
    async fn run_tool(&mut self) {
        let Some(allowed) = &self.allowed else { return };
        let mut recipe = Recipe::new(&self.deployment, self.pump.sink(), allowed);
        let outcome = recipe.carry_out().await;
        self.progress = recipe.progress;
        self.ends(outcome);
    }

    /// Releases the slot. From here on nothing stops the deployment.
    async fn release(&mut self) {
        self.watchers.drain(..).for_each(|watcher| watcher.abort());
        if self.outcome.is_none()
            && let Some(why) = self.deployment.stopper.asked()
        {
            // A stop was requested before the tool began.
            self.outcome = Some(why.outcome());
        }
        if self.progress.tool_remains {
            // The slot is free once ECS has ended this task (clause LCK-2).
            return;
        }
        if let Some(held) = self.held.take() {
            claim::release(&self.deployment.objects, &self.deployment.configuration.bucket, &held).await;
        }
    }

    /// Makes the record and leaves it in the evidence. Nothing of the tool runs any more.
    async fn record(&mut self) {
        let Self { deployment, pump, host, allowed, progress, outcome, left, .. } = self;
        // Every way to end a run sets its outcome; this is a fallback in case one does not.
        let unknown = || Outcome::Ended { reason: Reason::Runner, message: Reason::Runner.words().to_owned() };
        let outcome = outcome.get_or_insert_with(unknown);
        let facts = Facts {
            asked: &deployment.asked,
            pin: &deployment.pin,
            request_json: deployment.request_json,
            issuer_keys: deployment.issuer_keys,
            role: deployment.configuration.role.clone(),
            allowed: allowed.as_ref(),
            host,
            started_at: deployment.started_at,
            finished_at: now(),
            subjects: progress.subjects.clone(),
            steps: progress.steps.clone(),
            outcome: outcome.clone(),
            streams: pump.digests().await,
            outputs: progress.outputs.clone(),
            isolation: progress.isolation,
        };
        let desk = Desk {
            key: &deployment.key,
            objects: &deployment.objects,
            bucket: &deployment.configuration.evidence,
            evidence: deployment.asked.evidence(),
            stopper: &deployment.stopper,
        };
        *left = Some(desk.leave(report::record(facts)).await);
    }

    /// Sends the last frame and returns the exit code.
    async fn finish(self) -> u8 {
        let Self { deployment, pump, progress, outcome, left, .. } = self;
        let (Some(outcome), Some(Left { record, problem })) = (outcome, left) else { return ExitCode::Fault.code() };
        let id = &deployment.asked.request().deployment_id;
        let dropped = deployment.mirror.dropped();
        if dropped > 0 {
            warn!(deployment_id = %id, bytes = dropped, "the log driver was too slow, so the log lacks some output; the frames have all of it");
        }
        let code = outcome.exit_code();
        let Progress { outputs, step, remains, .. } = progress;
        info!(deployment_id = %id, exit_code = code, "finished");
        let finish = Finish { outcome, step, outputs, record, record_problem: problem };
        if !pump.finish(finish, &deployment.stopper).await {
            error!(deployment_id = %id, "cannot send the last frame; the archive has it");
        }
        // Last of all, because a tool can make this take long. The container's end would do it too.
        if let Some(remains) = remains {
            remains.clear().await;
        }
        code
    }
}
