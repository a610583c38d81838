//! A claimed deployment, from its decision to its last frame (clauses RUN-7 to RUN-12).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::keys::Keys;
use relay_aws::objects::Objects;
use relay_aws::outlet::Outlet;
use relay_aws::queues::Queues;
use relay_aws::tasks::Tasks;
use relay_identity::PrivateKey;
use relay_policy::{Allowed, Asked, Configuration, Denied, Step};
use relay_protocol::encoding::short;
use relay_protocol::frame::RunnerKind;
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::RecordStep;
use relay_protocol::request::Stage;
use relay_protocol::{Envelope, Reason, Statement as _, Timestamp, Vouch};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::archive::{Archive, Shelf};
use crate::claim::{self, Taken};
use crate::control::{self, Guard};
use crate::pump::{Address, Finish, Pump};
use crate::report::{self, Facts};
use crate::spool::Spool;
use crate::start::Started;
use crate::step::{self, Ended, Running};
use crate::stop::{Stop, Stopper};
use crate::workplace::{Trouble, Workplace};

/// Everything that stays the same while a deployment runs.
struct Deployment {
    configuration: Arc<Configuration>,
    asked: Arc<Asked>,
    allowed: Allowed,
    task_arn: String,
    sdk: relay_aws::Sdk,
    objects: Objects,
    pump: Pump,
    stopper: Stopper,
    mirror: Outlet,
}

/// What the steps came to.
struct Progress {
    steps: Vec<RecordStep>,
    subjects: Vec<relay_protocol::record::Subject>,
    outputs: std::collections::BTreeMap<String, String>,
    /// The step that decided the outcome.
    step: Option<String>,
    /// What kept the tool from the runner's credentials.
    isolation: &'static str,
}

impl Default for Progress {
    fn default() -> Self {
        let (steps, subjects, outputs) = Default::default();
        Self { steps, subjects, outputs, step: None, isolation: "none" }
    }
}

/// Leads a claimed deployment to its end; returns what the container exits with.
pub(crate) async fn deploy(started: Started, outlet: &Outlet) -> u8 {
    let started_at = now();
    let Started { configuration, pin, asked, sdk, task_arn } = started;
    let stopper = Stopper::new();
    stopper.listen_for_termination();
    let id = asked.request().deployment_id.clone();
    let keys = Keys::new(&sdk);
    let pump = match open_pump(&configuration, &asked, &sdk, &keys, &task_arn, &stopper).await {
        Ok(pump) => pump,
        Err(problem) => {
            // Without a vouch nobody would believe a frame: ECS's own word about this task is all that the CLI gets.
            error!(deployment_id = %id, problem = problem.message, "nothing was run");
            return problem.reason.exit_code().code();
        }
    };
    let (configuration, asked) = (Arc::new(configuration), Arc::new(asked));
    let mut progress = Progress::default();
    let (outcome, allowed, pump) = match relay_policy::authorise(&configuration, &asked, now(), Stage::Run) {
        Err(Denied { reason, message }) => (Outcome::Ended { reason, message: short(&message) }, None, pump),
        Ok(allowed) => {
            let deployment = Deployment {
                objects: Objects::new(&sdk),
                stopper: stopper.clone(),
                mirror: outlet.clone(),
                configuration: Arc::clone(&configuration),
                asked: Arc::clone(&asked),
                task_arn: task_arn.clone(),
                sdk,
                allowed,
                pump,
            };
            let outcome = match deployment.run(started_at, &mut progress).await {
                Ok(outcome) => outcome,
                Err(Trouble { reason, message }) => Outcome::Ended { reason, message: short(&message) },
            };
            let dropped = deployment.mirror.dropped();
            if dropped > 0 {
                warn!(deployment_id = %id, bytes = dropped, "the log driver was too slow for the mirror; the frames have everything");
            }
            (outcome, Some(deployment.allowed), deployment.pump)
        }
    };
    let code = outcome.exit_code();
    let Progress { steps, subjects, outputs, step, isolation } = progress;
    let record = match pump.digests().await {
        Some(streams) => {
            let facts = Facts {
                asked: &asked,
                pin: &pin,
                allowed: allowed.as_ref(),
                task_arn: &task_arn,
                started_at,
                finished_at: now(),
                subjects,
                steps,
                outcome: outcome.clone(),
                streams,
                outputs: outputs.clone(),
                isolation,
            };
            report::sign(&keys, &configuration.target_key, report::record(facts))
                .await
                .inspect_err(|error| error!(%error, "the record was not signed"))
                .ok()
        }
        None => None,
    };
    info!(deployment_id = %id, exit_code = code, "finished");
    if !pump.finish(Finish { outcome, step, outputs, record }, &stopper).await {
        error!(deployment_id = %id, "the last frame could not be sent; the archive has it");
    }
    code
}

/// Makes the runner key, has it vouched for, and starts the pump.
async fn open_pump(
    configuration: &Configuration,
    asked: &Asked,
    sdk: &relay_aws::Sdk,
    keys: &Keys,
    task_arn: &str,
    stopper: &Stopper,
) -> Result<Pump, Trouble> {
    let mut seed = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *seed).map_err(|error| Trouble::new(Reason::Runner, error))?;
    let key = PrivateKey::from_seed(*seed);
    let request = asked.request();
    let vouch = Vouch {
        deployment_id: request.deployment_id.clone(),
        request_digest: asked.request.digest(),
        task_arn: task_arn.to_owned(),
        runner_key: key.public().clone(),
    };
    let envelope = Envelope::new(Vouch::TYPE, vouch.to_payload());
    let vouch = report::sign(keys, &configuration.target_key, envelope)
        .await
        .map_err(|error| Trouble::new(Reason::Runner, error))?
        .to_json();
    let directory = PathBuf::from(&configuration.workspace);
    let shelf = Shelf {
        objects: Objects::new(sdk),
        bucket: configuration.bucket.clone(),
        target: request.target.clone(),
        id: request.deployment_id.clone(),
    };
    let address = Address {
        id: request.deployment_id.clone(),
        queue: request.reply_queue.clone(),
        queues: Queues::new(sdk),
        key,
        vouch,
    };
    let archive = Archive::start(shelf, directory.clone(), configuration.spool);
    Ok(Pump::start(address, Spool::new(directory, configuration.spool), archive, stopper.clone()))
}

impl Deployment {
    /// `started`, lock, secrets and artifacts, steps.
    async fn run(&self, started_at: Timestamp, progress: &mut Progress) -> Result<Outcome, Trouble> {
        let names = self.configuration.steps.iter().map(|step| step.name.clone()).collect();
        let deadline = started_at.plus(self.configuration.longest_run());
        let grace = self.configuration.cancel.grace.as_secs();
        self.pump
            .sink()
            .say(RunnerKind::Started { task_arn: self.task_arn.clone(), steps: names, deadline, grace })
            .await;
        if !self.pump.arrived(Duration::from_secs(QUEUE_WAIT_SECONDS)).await {
            // Nobody would see what it does, and nobody could stop it (clause RUN-8).
            return Err(Trouble::new(
                Reason::Runner,
                "the reply queue could not be reached within a minute, so the tool was not started",
            ));
        }
        let request = self.asked.request();
        let tasks = Tasks::new(&self.sdk);
        let held = match claim::lock(&self.objects, &tasks, &self.configuration, &request.deployment_id, &self.task_arn)
            .await
        {
            Ok(Taken::Held(held)) => held,
            Ok(Taken::Busy(holder)) => {
                return Err(Trouble::new(
                    Reason::Busy,
                    format!("{} is held by the deployment {holder}", self.configuration.target),
                ));
            }
            Err(error) => return Err(Trouble::new(Reason::Runner, format!("the lock could not be taken: {error}"))),
        };
        let watchers = self.watch().await;
        let outcome = self.furnish_and_run(progress).await;
        watchers.iter().for_each(tokio::task::JoinHandle::abort);
        claim::release(&self.objects, &self.configuration.bucket, &held).await;
        outcome
    }

    /// Whatever may stop the deployment, beside the container's end: its time, a control statement. It is looked for one before the first step.
    async fn watch(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let (timeout, stopper) = (self.configuration.timeout, self.stopper.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            stopper.stop(Stop::TimedOut);
        });
        let mut watchers = vec![timer];
        if let Some(queue) = &self.asked.request().control_queue {
            let queues = Queues::new(&self.sdk);
            let guard = Guard { configuration: Arc::clone(&self.configuration), asked: Arc::clone(&self.asked) };
            control::look(&queues, queue, &guard, &self.stopper).await;
            watchers.push(tokio::spawn(control::listen(queues, queue.clone(), guard, self.stopper.clone())));
        }
        watchers
    }

    async fn furnish_and_run(&self, progress: &mut Progress) -> Result<Outcome, Trouble> {
        let mut workplace = Workplace::make(&self.configuration, &self.asked)?;
        let mut furnished = workplace.furnish(&self.configuration, &self.asked, &self.sdk).await;
        if furnished.is_ok() {
            furnished = workplace.fetch_artifacts(&self.configuration, &self.asked, &self.objects).await;
        }
        let outcome = match furnished {
            Ok(()) => self.steps(&mut workplace, progress).await,
            Err(trouble) => Err(trouble),
        };
        progress.isolation = workplace.isolation();
        let (outputs, problems) = workplace.outputs();
        progress.outputs.extend(outputs);
        for problem in problems {
            self.pump.sink().note(problem).await;
        }
        progress.subjects = std::mem::take(&mut workplace.subjects);
        workplace.clear();
        outcome
    }

    /// The steps in order; the first that fails ends them, and the rollback runs then. The rollback never changes the outcome.
    async fn steps(&self, workplace: &mut Workplace, progress: &mut Progress) -> Result<Outcome, Trouble> {
        let mut last = Ended { code: 0, signal: None, stopped: None };
        for (index, (step, argv)) in self.configuration.steps.iter().zip(&self.allowed.commands.0).enumerate() {
            if let Some(why) = self.stopper.asked() {
                if index > 0 {
                    self.roll_back(workplace, progress).await;
                }
                return Ok(stopped(why));
            }
            last = self.step(index, step, argv, None, workplace, progress).await;
            progress.step = Some(step.name.clone());
            if let Some(why) = last.stopped {
                self.roll_back(workplace, progress).await;
                return Ok(stopped(why));
            }
            if !step.success_codes.contains(&last.code) {
                self.roll_back(workplace, progress).await;
                break;
            }
            if !step.save.is_empty() {
                match workplace.save(&self.configuration, &self.objects, &step.name, &step.save).await {
                    Ok(digest) => drop(progress.outputs.insert(format!("saved.{}", step.name), digest.to_string())),
                    Err(trouble) => {
                        self.roll_back(workplace, progress).await;
                        return Err(trouble);
                    }
                }
            }
        }
        Ok(Outcome::Exited { code: last.code, signal: last.signal })
    }

    /// The rollback is not stopped by what stopped the steps: it has a stopper of its own, and as much time, all of it together, as the steps
    /// had. Only the container's end reaches it too.
    async fn roll_back(&self, workplace: &Workplace, progress: &mut Progress) {
        if self.configuration.rollback.is_empty() || self.stopper.is_terminated() {
            return;
        }
        let fresh = Stopper::new();
        fresh.listen_for_termination();
        let timer = tokio::spawn({
            let (stopper, timeout) = (fresh.clone(), self.configuration.timeout);
            async move {
                tokio::time::sleep(timeout).await;
                stopper.stop(Stop::TimedOut);
            }
        });
        for (index, (step, argv)) in self.configuration.rollback.iter().zip(&self.allowed.commands.1).enumerate() {
            let ended = self.step(index, step, argv, Some(&fresh), workplace, progress).await;
            if ended.stopped.is_some() || !step.success_codes.contains(&ended.code) {
                self.pump
                    .sink()
                    .note(format!("the rollback step `{}` failed with exit code {}", step.name, ended.code))
                    .await;
                break;
            }
        }
        timer.abort();
    }

    /// One step, of the rollback when it has a stopper of its own.
    async fn step(
        &self,
        index: usize,
        step: &Step,
        argv: &[String],
        rollback: Option<&Stopper>,
        workplace: &Workplace,
        progress: &mut Progress,
    ) -> Ended {
        self.pump.sink().say(RunnerKind::Step { index, name: step.name.clone(), rollback: rollback.is_some() }).await;
        let began = Instant::now();
        let running = Running {
            argv,
            directory: &workplace.work,
            environment: &workplace.environment,
            secrets: &workplace.secrets,
            user: workplace.user,
            cancel: self.configuration.cancel,
            sink: self.pump.sink(),
            mirror: &self.mirror,
        };
        let ended = step::run(&running, rollback.unwrap_or(&self.stopper)).await;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        progress.steps.push(RecordStep {
            name: step.name.clone(),
            argv: argv.iter().map(|argument| workplace.masked(argument)).collect(),
            exit_code: ended.code,
            milliseconds,
        });
        ended
    }
}

fn stopped(why: Stop) -> Outcome {
    Outcome::Ended { reason: why.reason(), message: why.reason().words().to_owned() }
}
