//! How far a deployment has come, according to its events.

use std::time::Duration;

use relay_engine::Event;
use relay_protocol::frame::LauncherKind;
use relay_protocol::time::plain_elapsed;
use serde_json::{Value, json};

/// When each phase began, measured from the start of the command.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phases {
    pub(crate) published: Option<Duration>,
    pub(crate) admitted: Option<Duration>,
    pub(crate) started: Option<Duration>,
    pub(crate) finished: Option<Duration>,
}

impl Phases {
    /// Returns the phases as JSON, in milliseconds.
    pub(crate) fn to_json(self) -> Value {
        let ms = |at: Option<Duration>| at.map(|at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
        json!({ "published": ms(self.published), "admitted": ms(self.admitted), "started": ms(self.started), "finished": ms(self.finished) })
    }
}

/// The progress of one deployment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) phases: Phases,
    /// The last state of the task that ECS reported.
    task: Option<String>,
    /// The number of steps that the runner announced.
    steps: Option<usize>,
    /// How long each step may take to end when it is asked to stop.
    grace: Option<Duration>,
    /// The running step, and whether it belongs to the rollback.
    step: Option<(String, bool)>,
    /// When the present phase or step began.
    since: Duration,
}

impl Progress {
    /// The progress of a request that was published at `at`.
    pub(crate) fn published(at: Duration) -> Self {
        Self { phases: Phases { published: Some(at), ..Phases::default() }, since: at, ..Self::default() }
    }

    /// Records an event, and returns whether it is news. ECS's events may come twice, and late.
    pub(crate) fn fold(&mut self, event: &Event, now: Duration) -> bool {
        if !matches!(event, Event::Output(_) | Event::Note(_) | Event::Gap(_)) {
            self.since = now;
        }
        match event {
            Event::Launcher(LauncherKind::Admitted { .. }) => self.phases.admitted = Some(now),
            Event::Launcher(LauncherKind::Task { state, .. }) => {
                let known = self.task.as_deref().map_or(0, rank);
                if rank(state) <= known || (self.phases.started.is_some() && state != "STOPPED") {
                    return false;
                }
                self.task = Some(state.clone());
            }
            Event::Started { steps, grace, .. } => {
                self.phases.started = Some(now);
                (self.steps, self.grace) = (Some(steps.len()), Some(*grace));
            }
            Event::Step { name, rollback, .. } => self.step = Some((name.clone(), *rollback)),
            Event::Launcher(_) | Event::Output(_) | Event::Note(_) | Event::Gap(_) => {}
        }
        true
    }

    /// Says what the deployment is doing, for a reader who has seen nothing for a while.
    pub(crate) fn at_work(&self, now: Duration) -> String {
        let long = plain_elapsed(now.saturating_sub(self.since));
        match (&self.step, self.phases) {
            (Some((step, false)), _) => format!("{step} running for {long}"),
            (Some((step, true)), _) => format!("rollback {step} running for {long}"),
            (None, Phases { started: Some(_), .. }) => format!("preparing the first step for {long}"),
            (None, Phases { admitted: Some(_), .. }) => format!("waiting for the task to start for {long}"),
            (None, _) => format!("waiting for the first answer for {long}"),
        }
    }

    /// Returns how many steps the runner announced, or `None` for a reader that has not seen it.
    pub(crate) fn steps(&self) -> Option<usize> {
        self.steps
    }

    /// Whether a step of the rollback has begun.
    pub(crate) fn rolled_back(&self) -> bool {
        matches!(self.step, Some((_, true)))
    }

    /// Says what a cancel leads to, as far as is known here. A reader that joined late may not know
    /// the grace period.
    pub(crate) fn after_cancel(&self) -> String {
        let grace = self.grace.map(plain_elapsed);
        match (grace, &self.step) {
            (_, Some((step, true))) => format!("the rollback is at `{step}` and continues to its end"),
            (Some(grace), Some((step, false))) => format!("the step `{step}` has {grace} to stop by itself"),
            (Some(_), None) => "no step has begun yet".to_owned(),
            (None, _) => {
                "if its tool is already running, it has the target's own grace period to stop by itself".to_owned()
            }
        }
    }
}

/// Ranks ECS's task states by how far the task has come.
fn rank(state: &str) -> u8 {
    match state {
        "PROVISIONING" => 1,
        "PENDING" => 2,
        "ACTIVATING" => 3,
        "RUNNING" => 4,
        "STOPPED" => 6,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::Digest;

    use super::*;

    fn task(state: &str) -> Event {
        Event::Launcher(LauncherKind::Task {
            request_digest: Digest::of(b""),
            task_arn: "task".into(),
            state: state.into(),
            reason: None,
            stop_code: None,
            stopped_reason: None,
            exit_code: None,
        })
    }

    #[test]
    fn what_ecs_says_twice_or_late_is_no_news() {
        let mut progress = Progress::default();
        assert!(progress.fold(&task("PENDING"), Duration::ZERO));
        assert!(
            !progress.fold(&task("PENDING"), Duration::ZERO) && !progress.fold(&task("PROVISIONING"), Duration::ZERO)
        );
        let started = Event::Started { steps: vec!["only".into()], task_arn: "task".into(), grace: Duration::ZERO };
        assert!(progress.fold(&started, Duration::ZERO));
        assert!(!progress.fold(&task("RUNNING"), Duration::ZERO), "the runner itself has said more");
        assert!(progress.fold(&task("STOPPED"), Duration::ZERO));
    }
}
