//! The launcher's steps, one call to AWS each, in the order of [`admission::next`],
//! [`cancel::next`] and [`end::next`].

use relay_engine::launch::admission::{self, Found, Need, Ran};
use relay_engine::launch::cancel::{self, Aim};
use relay_engine::launch::{end, prior, reasons};
use relay_protocol::claim::{self, Claim};
use relay_protocol::frame::LauncherKind;
use relay_protocol::{Digest, Reason, Timestamp, task};

use crate::world::{About, At, Bug, Fault, Frame, Holder, Id, Invocation, Life, Pace, Setup, Steps, Task, TaskNo};
use crate::world::{Verdict, Who, Why, World};

/// The ARN of a task.
pub(crate) fn arn(task: TaskNo) -> String {
    format!("arn:aws:ecs:eu-west-1:222222222222:task/relay/{task}")
}

/// The digest of every request: in this model, each id has one request.
pub(crate) fn digest() -> Digest {
    Digest::of(b"request")
}

/// The reason that the watchdog and the event give for a task that stopped this way.
pub(crate) fn stop_reason(why: Why) -> Reason {
    let (code, words, started, exit) = match why {
        Why::Cancelled => ("UserInitiated", reasons::CANCELLED, true, None),
        Why::Overdue => ("UserInitiated", reasons::OVERDUE, true, None),
        Why::NeverStarted => ("TaskFailedToStart", "CannotPullContainerError: pull image manifest", false, None),
        Why::Refusal => ("EssentialContainerExited", "Essential container in task exited", true, Some(120)),
        Why::Exited => ("EssentialContainerExited", "Essential container in task exited", true, Some(0)),
        Why::Killed => ("EssentialContainerExited", "Essential container in task exited", true, Some(137)),
    };
    reasons::stop_reason(&task::Task {
        stop_code: Some(code.to_owned()),
        stopped_reason: Some(words.to_owned()),
        started_at: started.then(|| Timestamp::from_unix(1)),
        exit_code: exit,
        ..task::Task::default()
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
        LauncherKind::Task { .. }
        | LauncherKind::Unverified { .. }
        | LauncherKind::Tried(_)
        | LauncherKind::Unknown => None,
    }
}

/// The answer for a claim, from the launcher's own code.
fn of_claim(holder: Holder) -> Option<Frame> {
    as_frame(&prior::of_claim(&as_claim(holder), digest(), Timestamp::from_unix(0)))
}

/// The answer for a task that was started for the id.
fn of_task(task: TaskNo) -> Option<Frame> {
    as_frame(&prior::of_task(&arn(task), Some(digest()), digest(), Timestamp::from_unix(0)))
}

/// A task as ECS describes it.
fn as_task(task: &Task) -> task::Task {
    let status = match task.life {
        Life::Waiting => "PENDING",
        Life::Running(_) => "RUNNING",
        Life::Stopped(_) => "STOPPED",
    };
    let desired = if task.stop.is_some() { "STOPPED" } else { "RUNNING" };
    task::Task { last_status: status.to_owned(), desired_status: desired.to_owned(), ..task::Task::default() }
}

impl World {
    fn go(&mut self, index: usize, at: At) {
        self.invocations[index].at = at;
    }

    fn done(&mut self, index: usize) {
        self.invocations.remove(index);
    }

    /// The invocation fails. Lambda starts it again until its tries are used up.
    fn fail(&mut self, index: usize) {
        let one = &mut self.invocations[index];
        (one.tries, one.at) = (one.tries - 1, At::Begin);
        if one.tries == 0 {
            if let About::Request(id) = one.about {
                self.of(id).dead_letter = true;
            }
            self.done(index);
        }
    }

    /// Whether no slot is free, for an early `busy`.
    fn is_busy(&self) -> bool {
        !self.lock.iter().any(|holder| self.slot(*holder, None).is_free())
    }
}

pub(crate) fn steps(steps: &mut Steps<'_>) {
    let (now, setup) = (steps.now, steps.setup);
    for (index, one) in now.invocations.iter().enumerate() {
        let who = Who::Launcher(one.about);
        if one.at == At::Begin {
            steps.fault(Fault::Duplicate, who, "is delivered again", |world| world.invocations.push(*one));
        }
        let last_cancel = one.tries == 1 && matches!(one.about, About::Cancel(_));
        if !(last_cancel && setup.cancel_gets_through) && (one.at != At::Begin || one.tries > 1) {
            steps.fault(Fault::LauncherCrash, who, "fails, and starts again if a try is left", |world| {
                world.fail(index);
            });
        }
        match one.about {
            About::Request(id) => request(steps, who, index, *one, id),
            About::Cancel(id) => cancel(steps, who, index, *one, id),
            About::Stopped(task) => {
                steps.fault(Fault::LostEvent, who, "is lost", |world| world.done(index));
                steps.at(Pace::Delivery, who, "reports the end of the task", |world| {
                    tell(world, setup, task);
                    world.done(index);
                });
            }
        }
    }
    watchdog(steps);
}

/// Reports a task's end in the order of [`end::next`], all in one step.
fn tell(world: &mut World, setup: &Setup, task: TaskNo) {
    let Task { id, life: Life::Stopped(why), .. } = *world.task(task) else { return };
    let of = |holder: Holder| match holder {
        Holder::Runner(other, _) if other != task => end::Holder::Another,
        Holder::Runner(..) | Holder::Verdict(_) => end::Holder::This,
    };
    let mut known = end::Known { recorded: setup.bug == Some(Bug::EndUnrecorded), ..end::Known::default() };
    if setup.bug == Some(Bug::EndUnclaimed) {
        known.holder = end::Holder::This;
    }
    loop {
        match end::next(known) {
            end::Need::ReadClaim => known.holder = world.of(id).claim.map_or(end::Holder::Nobody, of),
            end::Need::Claim => {
                known.holder = of(*world.of(id).claim.get_or_insert(Holder::Verdict(Verdict::LaunchFailed)));
            }
            end::Need::Record => {
                world.of(id).recorded = true;
                known.recorded = true;
            }
            end::Need::Tell => return world.send(id, Frame::Stopped(task, why)),
            end::Need::Drop => return,
        }
    }
}

#[allow(clippy::too_many_lines, reason = "an arm for each need")]
fn request(steps: &mut Steps<'_>, who: Who, index: usize, one: Invocation, id: Id) {
    let (now, setup) = (steps.now, steps.setup);
    let (known, answer) = match one.at {
        At::Begin => (admission::Known::default(), None),
        At::Request(known, answer) => (known, answer),
        At::Cancel(..) => return,
    };
    // Once there is an answer, it makes no difference how it was found.
    let answers = admission::Known { claim: Found::Something, ..admission::Known::default() };
    let go = |world: &mut World, known, answer| {
        let known = if admission::next(known) == Need::Answer { answers } else { known };
        world.go(index, At::Request(known, answer));
    };
    let found = |answer: Option<Frame>| match answer {
        None => Found::Nothing,
        Some(Frame::Final(_)) => Found::Verdict,
        Some(_) => Found::Something,
    };
    let ran = admission::Known { ran: Some(Ran::Task), ..known };
    let task = now.tasks_of(id).next();
    let new_task = |world: &mut World| {
        world.tasks.push(Task { id, life: Life::Waiting, stop: None, told: false });
        let task = TaskNo::try_from(world.tasks.len() - 1).unwrap_or_default();
        go(world, ran, Some(Frame::Admitted(task)));
    };
    match admission::next(known) {
        Need::ReadClaim => steps.at(Pace::Delivery, who, "reads the claim", |world| {
            let answer = world.of(id).claim.and_then(of_claim);
            go(world, admission::Known { claim: found(answer), ..known }, answer);
        }),
        Need::ListTasks => {
            let lists = |task: Option<TaskNo>| {
                let answer = task.and_then(of_task);
                (admission::Known { task: found(answer), ..known }, answer)
            };
            let (shown, answer) = lists(task);
            steps.must(who, "lists tasks", |world| go(world, shown, answer));
            if task.is_some() {
                let (stale, answer) = lists(None);
                steps.fault(Fault::Stale, who, "lists tasks, but is not shown the one that exists", |world| {
                    go(world, stale, answer);
                });
            }
        }
        Need::Store => steps.must(who, "writes the request to the evidence", |world| {
            world.of(id).stored = true;
            go(world, admission::Known { stored: Some(true), ..known }, None);
        }),
        Need::Authorise => {
            let unclaimed = setup.bug == Some(Bug::RefuseUnclaimed);
            let claim = if unclaimed { Found::Verdict } else { known.claim };
            let no = admission::Known { allowed: Some(false), claim, ..known };
            let word = unclaimed.then_some(Frame::Final(Verdict::Refused));
            if now.is_busy() {
                steps.must(who, "decides: busy", |world| go(world, no, word));
            } else {
                // Nothing that is modelled depends on the summary.
                let yes = admission::Known { allowed: Some(true), summarised: true, ..known };
                steps.must(who, "decides: allowed", |world| go(world, yes, None));
            }
            if setup.denials {
                steps.may(who, "decides: refused", |world| go(world, no, word));
            }
        }
        Need::Summarise => {}
        Need::RunTask => {
            match task {
                Some(task) => steps.must(who, "RunTask returns the task of this token", |world| {
                    go(world, ran, Some(Frame::Admitted(task)));
                }),
                None => steps.must(who, "RunTask creates a task", new_task),
            }
            if task.is_some() && now.tasks.len() < usize::from(setup.tasks) {
                steps.fault(Fault::Forgets, who, "RunTask has forgotten the token and creates another task", new_task);
            }
            steps.fault(Fault::Failures, who, "RunTask fails until the time runs out", |world| {
                go(world, admission::Known { ran: Some(Ran::Failed), ..known }, None);
            });
        }
        Need::Claim(verdict) => steps.must(who, "writes the claim, or reads the one that exists", |world| {
            let verdict = match verdict {
                claim::Verdict::Refused => Verdict::Refused,
                claim::Verdict::LaunchFailed => Verdict::LaunchFailed,
            };
            let stands = *world.of(id).claim.get_or_insert(Holder::Verdict(verdict));
            let answer = of_claim(stands);
            let recorded = setup.bug == Some(Bug::RefuseUnrecorded);
            go(world, admission::Known { claim: found(answer), recorded, ..known }, answer);
        }),
        Need::Record => steps.must(who, "records its verdict", |world| {
            world.of(id).recorded |= world.of(id).claim.is_some();
            go(world, admission::Known { recorded: true, ..known }, answer);
        }),
        Need::Answer => steps.must(who, "answers", |world| {
            if let Some(frame) = answer {
                world.send(id, frame);
            }
            world.done(index);
        }),
    }
}

#[allow(clippy::too_many_lines, reason = "an arm for each need")]
fn cancel(steps: &mut Steps<'_>, who: Who, index: usize, one: Invocation, id: Id) {
    let (now, setup) = (steps.now, steps.setup);
    let (known, task) = match one.at {
        At::Begin => (cancel::Known::default(), None),
        At::Cancel(known, task) => (known, task),
        At::Request(..) => return,
    };
    // A task is inspected in the same step in which it is found, and then it makes no difference
    // how it was found.
    let go = |world: &mut World, mut known, task: Option<TaskNo>| {
        if cancel::next(known) == cancel::Need::Judge {
            let aim = task.map(|task| cancel::aim(&as_task(world.task(task)), setup.control));
            known = cancel::Known {
                holder: cancel::Holder::Runner,
                started: None,
                aim: aim.or(Some(Aim::Nothing)),
                ..known
            };
        }
        match cancel::next(known) {
            cancel::Need::Done => world.done(index),
            _ => world.go(index, At::Cancel(known, task)),
        }
    };
    match cancel::next(known) {
        cancel::Need::ReadClaim => {
            let (holder, task) = match now.deployments[usize::from(id)].claim {
                None => (cancel::Holder::Nobody, None),
                Some(Holder::Runner(task, _)) if setup.bug != Some(Bug::ClaimIsAnEnd) => {
                    (cancel::Holder::Runner, Some(task))
                }
                Some(Holder::Runner(..) | Holder::Verdict(_)) => (cancel::Holder::Launcher, None),
            };
            steps.at(Pace::Delivery, who, "reads the claim", |world| {
                go(world, cancel::Known { holder, ..known }, task);
            });
        }
        cancel::Need::ListTasks => {
            let task = now.tasks_of(id).next();
            steps.must(who, "lists tasks", |world| {
                go(world, cancel::Known { started: Some(task.is_some()), ..known }, task);
            });
            if task.is_some() {
                steps.fault(Fault::Stale, who, "lists tasks, but is not shown the one that exists", |world| {
                    go(world, cancel::Known { started: Some(false), ..known }, None);
                });
            }
        }
        cancel::Need::Drop => {
            steps.must(who, "finds neither claim nor task, and drops it", |world| {
                world.of(id).dropped = true;
                world.done(index);
            });
        }
        cancel::Need::Forward => steps.must(who, "forwards it to the control queue", |world| {
            world.of(id).control = true;
            go(world, cancel::Known { forwarded: Some(true), ..known }, task);
        }),
        cancel::Need::Note => steps.must(who, "records the cancel as a note", |world| {
            world.of(id).note = true;
            go(world, cancel::Known { noted: true, ..known }, task);
        }),
        cancel::Need::Stop => steps.must(who, "StopTask", |world| {
            if let Some(task) = task.filter(|task| !world.has_stopped(*task)) {
                world.task(task).stop.get_or_insert(Why::Cancelled);
            }
            go(world, cancel::Known { stopped: true, ..known }, task);
        }),
        // Both happen in the previous step.
        cancel::Need::Judge | cancel::Need::Done => {}
    }
}

/// Seconds that a tool may take to stop.
pub(crate) const GRACE: i64 = 120;

/// Whether the watchdog stops a task, from the launcher's own code.
pub(crate) fn to_stop(deadline: Timestamp, cancelled: Option<Timestamp>, now: Timestamp) -> Option<Why> {
    let words = reasons::to_stop(deadline, cancelled, GRACE, now)?;
    Some(if words == reasons::CANCELLED { Why::Cancelled } else { Why::Overdue })
}

/// The watchdog runs again and again, so a failed round costs nothing here.
fn watchdog(steps: &mut Steps<'_>) {
    let (now, setup) = (steps.now, steps.setup);
    for (number, task) in (0..).zip(&now.tasks) {
        let who = Who::Watchdog(number);
        if matches!(task.life, Life::Stopped(_)) {
            if !task.told {
                steps.at(Pace::Round, who, "reports its end", |world| {
                    tell(world, setup, number);
                    world.task(number).told = true;
                });
            }
        } else if task.stop.is_none() {
            // Long after a note, and long after the deadline if deadlines can pass.
            let cancelled = now.deployments[usize::from(task.id)].note.then(|| Timestamp::from_unix(0));
            let deadline = Timestamp::from_unix(if setup.timeouts { 0 } else { 1_000_000 });
            if let Some(why) = to_stop(deadline, cancelled, Timestamp::from_unix(10_000)) {
                steps.at(Pace::Overdue, who, "StopTask", |world| world.task(number).stop = Some(why));
            }
        }
    }
}
