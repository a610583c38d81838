//! The order of calls for a control statement that came by topic (clause CTL-6).

use relay_protocol::task::Task;

/// Who holds the claim of the id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is no claim.
    Nobody,
    /// A runner, which names its task.
    Runner,
    /// The launcher: nothing runs.
    Launcher,
}

/// How a task is made to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aim {
    /// It has ended, somebody has asked for it already, or the statement may not stop it.
    Nothing,
    /// Its runner is told, and ends it with the recipe's signal and grace, which may be longer than ECS's two minutes.
    Forward,
    /// ECS stops it.
    Stop,
}

/// How this task is made to end; `control`: whether the request names a control queue.
pub fn aim(task: &Task, control: bool) -> Aim {
    if task.is_to_stop() || task.has_stopped() {
        Aim::Nothing
    } else if task.is_running() && control {
        Aim::Forward
    } else {
        Aim::Stop
    }
}

/// What is known of a control statement. It begins with nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Known {
    /// Who holds the claim.
    pub holder: Holder,
    /// Whether the id has started a task; asked for only where nobody holds the claim.
    pub started: Option<bool>,
    /// How the task is made to end, when it was looked at, and the statement was verified by its request.
    pub aim: Option<Aim>,
    /// Whether the control queue took the statement.
    pub forwarded: Option<bool>,
    /// Whether its time was noted, for the watchdog.
    pub noted: bool,
    /// Whether ECS was asked to stop the task.
    pub stopped: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim: a runner's names the task, whatever ListTasks shows.
    ReadClaim,
    /// List the tasks that the id has started.
    ListTasks,
    /// Fail, so that the statement is delivered again: it may have overtaken its own request.
    Fail,
    /// Look at the task, verify the statement by its request, and find the [`Aim`].
    Judge,
    /// Send it to the control queue.
    Forward,
    /// Note its time.
    Note,
    /// StopTask.
    Stop,
    /// Nothing more.
    Done,
}

/// What comes next.
pub fn next(known: Known) -> Need {
    match (known.holder, known.started, known.aim) {
        (Holder::Unknown, ..) => Need::ReadClaim,
        (Holder::Launcher, ..) => Need::Done,
        (Holder::Nobody, None, _) => Need::ListTasks,
        (Holder::Nobody, Some(false), _) => Need::Fail,
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
    fn a_statement_is_dropped_only_when_there_is_something_that_it_came_too_late_for() {
        let start = Known::default();
        assert_eq!(next(start), Need::ReadClaim);
        assert_eq!(next(Known { holder: Holder::Launcher, ..start }), Need::Done);
        let unclaimed = Known { holder: Holder::Nobody, ..start };
        assert_eq!(next(unclaimed), Need::ListTasks);
        assert_eq!(next(Known { started: Some(false), ..unclaimed }), Need::Fail);
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
