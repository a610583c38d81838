//! The launcher's lines, one call to AWS each. What stands already, what is said of it, and when the watchdog stops a task is decided by the
//! launcher's own functions.

use relay_aws::tasks;
use relay_launcher::standing::{self, Next};
use relay_protocol::claim::{self, Claim};
use relay_protocol::frame::LauncherKind;
use relay_protocol::{Digest, Reason, Timestamp};

use crate::world::{About, At, Bug, Fault, Frame, Holder, Id, Invocation, Life, Pace, Setup, Steps, Task, TaskNo};
use crate::world::{Verdict, Who, Why, World};

/// The ARN of a task.
pub(crate) fn arn(task: TaskNo) -> String {
    format!("arn:aws:ecs:eu-west-1:222222222222:task/relay/{task}")
}

/// The digest of every request: an id has one in this model.
pub(crate) fn digest() -> Digest {
    Digest::of(b"request")
}

/// What the watchdog and the event say of a task that stopped so.
pub(crate) fn stop_reason(why: Why) -> Reason {
    let (code, words, started, exit) = match why {
        Why::Cancelled => ("UserInitiated", standing::CANCELLED, true, None),
        Why::Overdue => ("UserInitiated", standing::OVERDUE, true, None),
        Why::NeverStarted => ("TaskFailedToStart", "CannotPullContainerError: pull image manifest", false, None),
        Why::Refusal => ("EssentialContainerExited", "Essential container in task exited", true, Some(120)),
        Why::Exited => ("EssentialContainerExited", "Essential container in task exited", true, Some(0)),
        Why::Killed => ("EssentialContainerExited", "Essential container in task exited", true, Some(137)),
    };
    standing::stop_reason(&tasks::Task {
        stop_code: Some(code.to_owned()),
        stopped_reason: Some(words.to_owned()),
        started_at: started.then(|| Timestamp::from_unix(1)),
        exit_code: exit,
        ..tasks::Task::default()
    })
}

fn as_claim(holder: Holder) -> Claim {
    let holder = match holder {
        Holder::Runner(task, nonce) => claim::Holder::Runner { task_arn: arn(task), nonce: nonce.to_string() },
        Holder::Verdict(verdict) => {
            let (verdict, reason) = match verdict {
                Verdict::Refused => (claim::Verdict::Refused, Reason::Policy),
                Verdict::LaunchFailed => (claim::Verdict::LaunchFailed, Reason::Capacity),
            };
            claim::Holder::Launcher { verdict, reason, message: String::new() }
        }
    };
    Claim { request_digest: digest(), holder }
}

fn as_frame(kind: &LauncherKind) -> Option<Frame> {
    match kind {
        LauncherKind::Admitted { task_arn, .. } => Some(Frame::Admitted(task_arn.rsplit('/').next()?.parse().ok()?)),
        LauncherKind::Refused { .. } => Some(Frame::Final(Verdict::Refused)),
        LauncherKind::LaunchFailed { .. } => Some(Frame::Final(Verdict::LaunchFailed)),
        LauncherKind::Task { .. } | LauncherKind::Unverified { .. } | LauncherKind::Unknown => None,
    }
}

/// What stands, by the launcher's own word; `None`: decide.
fn stands(claim: Option<Holder>, task: Option<TaskNo>) -> Option<Frame> {
    let (claim, arn) = (claim.map(as_claim), task.map(arn));
    let task = arn.as_deref().map(|arn| (arn, Some(digest())));
    match standing::next(claim.as_ref(), task, digest(), Timestamp::from_unix(0)) {
        Next::Repeat(kind) => as_frame(&kind),
        Next::Decide => None,
    }
}

impl World {
    fn go(&mut self, index: usize, at: At) {
        self.invocations[index].at = at;
    }

    fn done(&mut self, index: usize) {
        self.invocations.remove(index);
    }

    /// It fails: Lambda begins it again, until its tries are used up.
    fn fail(&mut self, index: usize) {
        let one = &mut self.invocations[index];
        (one.tries, one.at) = (one.tries - 1, At::Begin);
        if one.tries == 0 {
            self.done(index);
        }
    }

    /// Whether no slot is free: an early word.
    fn is_busy(&self) -> bool {
        self.lock.iter().all(|holder| holder.is_some_and(|task| !self.has_stopped(task)))
    }
}

pub(crate) fn steps(steps: &mut Steps<'_>) {
    let (now, setup) = (steps.now, steps.setup);
    for (index, one) in now.invocations.iter().enumerate() {
        let who = Who::Launcher(one.about);
        if one.at == At::Begin {
            steps.fault(Fault::Duplicate, who, "is delivered once more", |world| world.invocations.push(*one));
        }
        let last_cancel = one.tries == 1 && matches!(one.about, About::Cancel(_));
        if !(last_cancel && setup.cancel_gets_through) && (one.at != At::Begin || one.tries > 1) {
            steps.fault(Fault::LauncherCrash, who, "fails, and is begun again if there is a try left", |world| {
                world.fail(index);
            });
        }
        match one.about {
            About::Request(id) => request(steps, who, index, *one, id),
            About::Cancel(id) => cancel(steps, who, index, *one, id),
            About::Stopped(task) => {
                steps.fault(Fault::LostEvent, who, "is lost", |world| world.done(index));
                steps.at(Pace::Delivery, who, "tells the end of the task", |world| {
                    tell(world, setup, task);
                    world.done(index);
                });
            }
        }
    }
    watchdog(steps);
}

/// What is told of a task's end must stay true if ECS has made another task: so it is claimed first, as a refusal is. Where a runner of
/// another task holds the claim, this task was nobody's.
fn tell(world: &mut World, setup: &Setup, task: TaskNo) {
    if let Task { id, life: Life::Stopped(why), .. } = *world.task(task) {
        if setup.bug != Some(Bug::EndUnclaimed) {
            let holder = *world.of(id).claim.get_or_insert(Holder::Verdict(Verdict::LaunchFailed));
            if matches!(holder, Holder::Runner(other, _) if other != task) {
                return;
            }
        }
        world.send(id, Frame::Stopped(task, why));
    }
}

fn request(steps: &mut Steps<'_>, who: Who, index: usize, one: Invocation, id: Id) {
    let (now, setup) = (steps.now, steps.setup);
    let claim = now.deployments[usize::from(id)].claim;
    let task = now.tasks_of(id).next();
    let new_task = |world: &mut World| {
        world.tasks.push(Task { id, life: Life::Waiting, stop: None, told: false });
        let task = TaskNo::try_from(world.tasks.len() - 1).unwrap_or_default();
        world.go(index, At::Answer(Frame::Admitted(task)));
    };
    match one.at {
        At::Begin => steps.at(Pace::Delivery, who, "reads the claim", |world| {
            world.go(index, stands(claim, None).map_or(At::List, At::Answer));
        }),
        At::List => {
            steps.must(who, "lists tasks", |world| {
                world.go(index, stands(None, task).map_or(At::Decide, At::Answer));
            });
            if task.is_some() {
                steps.fault(Fault::Stale, who, "lists tasks, and is not shown the one there is", |world| {
                    world.go(index, At::Decide);
                });
            }
        }
        At::Decide => {
            let no = match setup.bug {
                Some(Bug::RefuseUnclaimed) => At::Answer(Frame::Final(Verdict::Refused)),
                _ => At::Conclude(Verdict::Refused),
            };
            if now.is_busy() {
                steps.must(who, "decides: busy", |world| world.go(index, no));
            } else {
                steps.must(who, "decides: allowed", |world| world.go(index, At::Run));
            }
            if setup.denials {
                steps.may(who, "decides: refused", |world| world.go(index, no));
            }
        }
        At::Run => {
            match task {
                Some(task) => steps.must(who, "RunTask gives the task of this token", |world| {
                    world.go(index, At::Answer(Frame::Admitted(task)));
                }),
                None => steps.must(who, "RunTask makes a task", new_task),
            }
            if task.is_some() && now.tasks.len() < usize::from(setup.tasks) {
                steps.fault(Fault::Forgets, who, "RunTask makes another task: the token is forgotten", new_task);
            }
            steps.fault(Fault::Failures, who, "RunTask fails for as long as there is time", |world| {
                world.go(index, At::Conclude(Verdict::LaunchFailed));
            });
        }
        At::Conclude(verdict) => steps.must(who, "puts the claim, or reads who was faster", |world| {
            let stands_now = *world.of(id).claim.get_or_insert(Holder::Verdict(verdict));
            // There is a claim now, so something stands.
            world.go(index, stands(Some(stands_now), None).map_or(At::Begin, At::Answer));
        }),
        At::Answer(frame) => steps.must(who, "answers", |world| {
            world.send(id, frame);
            world.done(index);
        }),
        At::Missing | At::Forward | At::Note | At::Stop(_) => {}
    }
}

/// How a task is made to end, if it still has to be.
fn aim(now: &World, setup: &Setup, task: TaskNo) -> Option<At> {
    match &now.tasks[usize::from(task)] {
        Task { stop: Some(_), .. } | Task { life: Life::Stopped(_), .. } => None,
        Task { life: Life::Running(_), .. } if setup.control => Some(At::Forward),
        _ => Some(At::Stop(task)),
    }
}

fn cancel(steps: &mut Steps<'_>, who: Who, index: usize, one: Invocation, id: Id) {
    let (now, setup) = (steps.now, steps.setup);
    match one.at {
        At::Begin => {
            let request_is_on_its_way = now.invocations.iter().any(|other| other.about == About::Request(id));
            let last = setup.cancel_gets_through && one.tries == 1;
            if last && request_is_on_its_way {
                return;
            }
            let next = match now.tasks_of(id).next() {
                Some(task) => aim(now, setup, task),
                None => Some(At::Missing),
            };
            steps.at(Pace::Delivery, who, "looks for the task", |world| match next {
                Some(at) => world.go(index, at),
                None => world.done(index),
            });
            if next != Some(At::Missing) && !last {
                steps.fault(Fault::Stale, who, "looks for the task, and is not shown it", |world| {
                    world.go(index, At::Missing);
                });
            }
        }
        At::Missing => {
            // A runner's claim names its task, whatever ListTasks shows.
            let next = match now.deployments[usize::from(id)].claim {
                Some(Holder::Runner(task, _)) if setup.bug != Some(Bug::ClaimIsAnEnd) => aim(now, setup, task),
                Some(_) => None,
                None if setup.bug == Some(Bug::CancelDropped) => None,
                None => {
                    steps
                        .must(who, "finds neither task nor claim: fails, to be tried again", |world| world.fail(index));
                    return;
                }
            };
            steps.must(who, "finds no task, reads the claim", |world| match next {
                Some(at) => world.go(index, at),
                None => world.done(index),
            });
        }
        At::Forward => steps.must(who, "passes it on to the control queue", |world| {
            world.of(id).control = true;
            world.go(index, At::Note);
        }),
        At::Note => steps.must(who, "notes it", |world| {
            world.of(id).note = true;
            world.done(index);
        }),
        At::Stop(task) => steps.must(who, "StopTask", |world| {
            if !world.has_stopped(task) {
                world.task(task).stop.get_or_insert(Why::Cancelled);
            }
            world.done(index);
        }),
        At::List | At::Decide | At::Run | At::Conclude(_) | At::Answer(_) => {}
    }
}

/// Seconds that a tool may take to stop.
pub(crate) const GRACE: i64 = 120;

/// Whether the watchdog stops a task, by the launcher's own word.
pub(crate) fn to_stop(deadline: Timestamp, cancelled: Option<Timestamp>, now: Timestamp) -> Option<Why> {
    let words = standing::to_stop(deadline, cancelled, GRACE, now)?;
    Some(if words == standing::CANCELLED { Why::Cancelled } else { Why::Overdue })
}

/// Its rounds come again and again, so one that fails costs nothing here.
fn watchdog(steps: &mut Steps<'_>) {
    let (now, setup) = (steps.now, steps.setup);
    for (number, task) in (0..).zip(&now.tasks) {
        let who = Who::Watchdog(number);
        if matches!(task.life, Life::Stopped(_)) {
            if !task.told {
                steps.at(Pace::Round, who, "tells its end", |world| {
                    tell(world, setup, number);
                    world.task(number).told = true;
                });
            }
        } else if task.stop.is_none() {
            // Long after a note, and long after the deadline where time may run out.
            let cancelled = now.deployments[usize::from(task.id)].note.then(|| Timestamp::from_unix(0));
            let deadline = Timestamp::from_unix(if setup.timeouts { 0 } else { 1_000_000 });
            if let Some(why) = to_stop(deadline, cancelled, Timestamp::from_unix(10_000)) {
                steps.at(Pace::Overdue, who, "StopTask", |world| world.task(number).stop = Some(why));
            }
        }
    }
}
