//! Runs a recipe once its deployment holds a concurrency slot. Prepares the work directory, secrets
//! and artifacts, then runs the steps and, if needed, the rollback (clauses RUN-9 to RUN-11).

use std::collections::BTreeMap;
use std::time::Instant;

use relay_policy::{Allowed, Step};
use relay_protocol::frame::RunnerKind;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::{RecordStep, Subject};
use relay_protocol::{Reason, RequestRef};

use crate::claim;
use crate::deployment::Deployment;
use crate::pump::Sink;
use crate::step::{self, Ended, Running, Text};
use crate::stop::{Stop, Stopper};
use crate::workplace::{Remains, Saving, StepError, Workplace};

/// The results of the steps so far.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) steps: Vec<RecordStep>,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) outputs: BTreeMap<String, String>,
    /// The step that decided the outcome.
    pub(crate) step: Option<String>,
    /// What kept the tool from the runner's credentials.
    pub(crate) isolation: &'static str,
    /// The work directory, which is removed at the very end.
    pub(crate) remains: Option<Remains>,
    /// Whether something of the tool is still running. The lock then stays with this task.
    pub(crate) tool_remains: bool,
}

impl Default for Progress {
    fn default() -> Self {
        let (steps, subjects, outputs) = Default::default();
        Self { steps, subjects, outputs, step: None, isolation: "none", remains: None, tool_remains: false }
    }
}

/// A recipe that is running.
pub(crate) struct Recipe<'a> {
    deployment: &'a Deployment,
    sink: &'a Sink,
    allowed: &'a Allowed,
    pub(crate) progress: Progress,
}

impl<'a> Recipe<'a> {
    /// Creates a recipe without running any part of it.
    pub(crate) fn new(deployment: &'a Deployment, sink: &'a Sink, allowed: &'a Allowed) -> Self {
        Self { deployment, sink, allowed, progress: Progress::default() }
    }

    /// Runs the whole recipe. Its work directory remains.
    pub(crate) async fn carry_out(&mut self) -> Result<Outcome, StepError> {
        let Deployment { configuration, asked, sdk, objects, .. } = self.deployment;
        let mut workplace = Workplace::make(configuration, asked)?;
        let mut furnished = workplace.furnish(configuration, asked, sdk).await;
        if furnished.is_ok() {
            furnished = workplace.fetch_artifacts(configuration, asked, objects).await;
        }
        if let (Ok(()), Some(key)) = (&furnished, asked.ticket()) {
            let mine = RequestRef::of(asked.request(), asked.request.digest());
            furnished = claim::use_ticket(objects, &configuration.evidence, &key, &mine).await;
        }
        for warning in std::mem::take(&mut workplace.warnings) {
            self.sink.note(warning).await;
        }
        let outcome = match furnished {
            Ok(()) => self.steps(&mut workplace).await,
            Err(trouble) => Err(trouble),
        };
        self.progress.isolation = workplace.isolation();
        for problem in workplace.add_outputs(&mut self.progress.outputs) {
            self.sink.note(problem).await;
        }
        self.progress.subjects = std::mem::take(&mut workplace.subjects);
        self.progress.remains = Some(workplace.close());
        outcome
    }

    /// Runs the steps in order. At the first failure it skips the remaining steps and starts the
    /// rollback, which never changes the outcome.
    async fn steps(&mut self, workplace: &mut Workplace) -> Result<Outcome, StepError> {
        let Deployment { configuration, asked, objects, stopper, .. } = self.deployment;
        let mut last = Ended::with(0);
        for (index, (step, argv)) in configuration.steps.iter().zip(&self.allowed.commands.0).enumerate() {
            if let Some(why) = stopper.asked() {
                if index > 0 {
                    self.roll_back(workplace).await;
                }
                return Ok(why.outcome());
            }
            self.say(index, step, false).await;
            let text = step.save_text.then(Text::new);
            last = self.step(step, argv, text.as_ref(), (stopper, workplace)).await;
            self.progress.step = Some(step.name.clone());
            if last.remains {
                let words =
                    "something of the tool is still running; the lock stays with this task until ECS has ended it";
                return Err(StepError::new(Reason::Runner, words));
            }
            if let Some(why) = last.stopped {
                self.roll_back(workplace).await;
                return Ok(why.outcome());
            }
            if !step.success_codes.contains(&last.code) {
                self.roll_back(workplace).await;
                break;
            }
            if !step.save.is_empty() {
                let saving = Saving { configuration, asked, objects, step, text: text.as_ref() };
                match workplace.save(&saving).await {
                    Ok(digest) => {
                        self.progress.outputs.insert(format!("saved.{}", step.name), digest.to_string());
                    }
                    Err(trouble) => {
                        self.roll_back(workplace).await;
                        return Err(trouble);
                    }
                }
            }
        }
        Ok(Outcome::Exited { code: last.code, signal: last.signal })
    }

    /// Runs the rollback with its own stopper, so that it still runs after the steps were stopped.
    /// The rollback steps share one timeout, as long as that of the steps. Only the end of the
    /// container stops both the steps and the rollback.
    async fn roll_back(&mut self, workplace: &Workplace) {
        let Deployment { configuration, stopper, .. } = self.deployment;
        if configuration.rollback.is_empty() || stopper.is_terminated() {
            return;
        }
        let fresh = Stopper::new();
        fresh.listen_for_termination();
        let timer = tokio::spawn({
            let (stopper, timeout) = (fresh.clone(), configuration.timeout);
            async move {
                tokio::time::sleep(timeout).await;
                stopper.stop(Stop::TimedOut);
            }
        });
        for (index, (step, argv)) in configuration.rollback.iter().zip(&self.allowed.commands.1).enumerate() {
            self.say(index, step, true).await;
            let ended = self.step(step, argv, None, (&fresh, workplace)).await;
            if ended.stopped.is_some() || ended.remains || !step.success_codes.contains(&ended.code) {
                let words = format!("the rollback step `{}` failed with exit code {}", step.name, ended.code);
                self.sink.note(words).await;
                break;
            }
        }
        timer.abort();
    }

    /// Sends the frame that announces a step.
    async fn say(&self, index: usize, step: &Step, rollback: bool) {
        self.sink.say(RunnerKind::Step { index, name: step.name.clone(), rollback }).await;
    }

    /// Runs one step and adds it to the progress.
    async fn step(
        &mut self,
        step: &Step,
        argv: &[String],
        text: Option<&Text>,
        (stopper, workplace): (&Stopper, &Workplace),
    ) -> Ended {
        let began = Instant::now();
        let running = Running {
            argv,
            directory: &workplace.work,
            environment: &workplace.environment,
            secrets: &workplace.secrets,
            user: workplace.user,
            cancel: self.deployment.configuration.cancel,
            output: self.deployment.configuration.output,
            sink: self.sink,
            mirror: &self.deployment.mirror,
            text,
        };
        let ended = step::run(&running, stopper).await;
        self.progress.tool_remains |= ended.remains;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.progress.steps.push(RecordStep {
            name: step.name.clone(),
            argv: workplace.masked(argv),
            exit_code: ended.code,
            milliseconds,
        });
        ended
    }
}
