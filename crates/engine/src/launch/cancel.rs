//! The order of calls for a control statement that arrived through the topic (clause CTL-6).

use relay_protocol::task::Task;

/// The holder of the id's claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is no claim.
    Nobody,
    /// A runner, whose claim names its task.
    Runner,
    /// The launcher: nothing runs.
    Launcher,
}

/// How to make a task end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aim {
    /// Do nothing: the task has ended, was asked to stop before, or the statement may not stop it.
    Nothing,
    /// Tell its runner, which ends the tool with the recipe's signal and grace. The grace may be
    /// longer than ECS's two minutes.
    Forward,
    /// Let ECS stop the task.
    Stop,
}

/// Decides how to make this task end. `control` says whether the request names a control queue.
pub fn aim(task: &Task, control: bool) -> Aim {
    if task.is_to_stop() || task.has_stopped() {
        Aim::Nothing
    } else if task.is_running() && control {
        Aim::Forward
    } else {
        Aim::Stop
    }
}

/// The facts about a control statement. All of them start as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Known {
    /// The holder of the claim.
    pub holder: Holder,
    /// Whether the id has started a task. Only asked if nobody holds the claim.
    pub started: Option<bool>,
    /// How to make the task end. Known after the [`Need::Judge`] step, which inspects the task and
    /// verifies the statement against its request.
    pub aim: Option<Aim>,
    /// Whether the control queue accepted the statement.
    pub forwarded: Option<bool>,
    /// Whether its time was noted, for the watchdog.
    pub noted: bool,
    /// Whether ECS was asked to stop the task.
    pub stopped: bool,
}

/// The next action of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim. A runner's claim names the task, whatever ListTasks shows.
    ReadClaim,
    /// List the tasks that were started for the id.
    ListTasks,
    /// Drop the statement. If it has overtaken its own request, its sender repeats it.
    Drop,
    /// Inspect the task, verify the statement against its request, and decide on the [`Aim`].
    Judge,
    /// Send the statement to the control queue.
    Forward,
    /// Note its time.
    Note,
    /// Call StopTask.
    Stop,
    /// Nothing is left to do.
    Done,
}

/// Decides what the launcher does next.
pub fn next(known: Known) -> Need {
    match (known.holder, known.started, known.aim) {
        (Holder::Unknown, ..) => Need::ReadClaim,
        (Holder::Launcher, ..) => Need::Done,
        (Holder::Nobody, None, _) => Need::ListTasks,
        (Holder::Nobody, Some(false), _) => Need::Drop,
        (_, _, None) => Need::Judge,
        (_, _, Some(Aim::Nothing)) => Need::Done,
        (_, _, Some(Aim::Stop)) => stop(known),
        (_, _, Some(Aim::Forward)) => match known.forwarded {
            None => Need::Forward,
            Some(true) if known.noted => Need::Done,
            Some(true) => Need::Note,
            // Nobody reads that queue.
            Some(false) => stop(known),
        },
    }
}

fn stop(known: Known) -> Need {
    if known.stopped { Need::Done } else { Need::Stop }
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: CTL-6
    #[test]
    fn a_statement_that_finds_nothing_to_stop_is_dropped() {
        let start = Known::default();
        assert_eq!(next(start), Need::ReadClaim);
        assert_eq!(next(Known { holder: Holder::Launcher, ..start }), Need::Done);
        let unclaimed = Known { holder: Holder::Nobody, ..start };
        assert_eq!(next(unclaimed), Need::ListTasks);
        assert_eq!(next(Known { started: Some(false), ..unclaimed }), Need::Drop);
        assert_eq!(next(Known { started: Some(true), ..unclaimed }), Need::Judge);
        assert_eq!(next(Known { holder: Holder::Runner, ..start }), Need::Judge);
    }

    // clause: CTL-6
    #[test]
    fn a_runner_is_told_and_watched_or_else_stopped() {
        let told = Known { holder: Holder::Runner, aim: Some(Aim::Forward), ..Known::default() };
        assert_eq!(next(told), Need::Forward);
        assert_eq!(next(Known { forwarded: Some(true), ..told }), Need::Note);
        assert_eq!(next(Known { forwarded: Some(true), noted: true, ..told }), Need::Done);
        assert_eq!(next(Known { forwarded: Some(false), ..told }), Need::Stop);
        let stopped = Known { aim: Some(Aim::Stop), ..told };
        assert_eq!(next(stopped), Need::Stop);
        assert_eq!(next(Known { stopped: true, ..stopped }), Need::Done);
        assert_eq!(next(Known { aim: Some(Aim::Nothing), ..told }), Need::Done);
    }

    // clause: CTL-6
    #[test]
    fn only_a_runner_that_runs_can_be_told() {
        let task = |last: &str, desired: &str| Task {
            last_status: last.to_owned(),
            desired_status: desired.to_owned(),
            ..Task::default()
        };
        assert_eq!(aim(&task("RUNNING", "RUNNING"), true), Aim::Forward);
        assert_eq!(aim(&task("RUNNING", "RUNNING"), false), Aim::Stop);
        assert_eq!(aim(&task("PENDING", "RUNNING"), true), Aim::Stop);
        assert_eq!(aim(&task("RUNNING", "STOPPED"), true), Aim::Nothing);
        assert_eq!(aim(&task("STOPPED", "STOPPED"), true), Aim::Nothing);
    }
}
