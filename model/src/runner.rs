//! The runner's steps, in the order of [`run::next`], and what ECS does with its task. A step ends
//! when AWS has answered.

use relay_engine::run::{self, Need};
use relay_engine::{claim, lock};

use crate::world::World;
use crate::world::{
    Bug, Fault, Frame, Halt, Holder, Life, Line, Outcome, Pace, Process, Setup, Steps, Task, TaskNo, Who, Why,
};

impl Process {
    fn new(nonce: u8, setup: &Setup) -> Self {
        let held = (setup.bug == Some(Bug::NoClaim)).then_some(true);
        let known = run::Known { claimed: held, vouched: held, ..run::Known::default() };
        Self { known, line: Line::Begins, outcome: None, nonce, halt: None, said: 0, hung: false }
    }

    /// The process has learned something, and starts with what it needs next.
    fn learns(&mut self, change: impl FnOnce(&mut run::Known)) {
        change(&mut self.known);
        self.line = Line::Begins;
    }

    fn ends(&mut self, outcome: Outcome, change: impl FnOnce(&mut run::Known)) {
        self.outcome = Some(outcome);
        self.learns(change);
    }
}

impl World {
    fn change(&mut self, task: TaskNo, change: impl FnOnce(&mut Process)) {
        if let Some(process) = self.process(task) {
            change(process);
        }
    }

    fn start_tool(&mut self, task: TaskNo) {
        let id = self.task(task).id;
        self.of(id).runs += 1;
    }
}

pub(crate) fn steps(steps: &mut Steps<'_>) {
    let (now, setup) = (steps.now, steps.setup);
    for (number, task) in (0..).zip(&now.tasks) {
        let who = Who::Ecs(number);
        if let Some(why) = task.stop.filter(|_| !now.has_stopped(number)) {
            steps.at(Pace::Force, who, "stops it, by force if necessary", |world| world.stop(setup, number, why));
        }
        match &task.life {
            Life::Waiting => {
                steps.at(Pace::Container, who, "starts its container", |world| {
                    world.task(number).life = Life::Running(Process::new(0, setup));
                });
                steps.fault(Fault::NeverStarts, who, "cannot start its container", |world| {
                    world.stop(setup, number, Why::NeverStarted);
                });
            }
            Life::Running(process) => {
                steps.fault(Fault::RunnerCrash, who, "its runner is killed", |world| {
                    world.stop(setup, number, Why::Killed);
                });
                if process.nonce == 0 {
                    steps.fault(Fault::Restart, who, "starts its container again", |world| {
                        world.task(number).life = Life::Running(Process::new(1, setup));
                    });
                }
                if !process.hung {
                    steps.fault(Fault::Hang, who, "its runner hangs", |world| {
                        world.change(number, |process| process.hung = true);
                    });
                    hears(steps, number, task, process);
                    does(steps, number, task, process);
                }
            }
            Life::Stopped(_) => {}
        }
    }
}

/// The requests to stop that the process may hear. It does not listen for SIGTERM before it has
/// claimed, nor at its end.
fn hears(steps: &mut Steps<'_>, number: TaskNo, task: &Task, process: &Process) {
    if process.halt.is_some() {
        return;
    }
    let (now, setup) = (steps.now, steps.setup);
    let need = process.need();
    let mut halt = |pace, what, why| {
        steps.at(pace, Who::Runner(number), what, |world| world.change(number, |process| process.halt = Some(why)));
    };
    if task.stop.is_some() && !matches!(need, Some(Need::Claim | Need::Release | Need::Record | Need::Finish)) {
        halt(Pace::Call, "receives SIGTERM", Halt::Terminated);
    }
    if matches!(need, None | Some(Need::RunTool)) {
        if now.deployments[usize::from(task.id)].control {
            halt(Pace::Call, "receives the cancel", Halt::Cancelled);
        }
        if setup.timeouts {
            halt(Pace::Deadline, "reaches its deadline", Halt::TimedOut);
        }
    }
}

#[allow(clippy::too_many_lines, reason = "an arm for each need")]
fn does(steps: &mut Steps<'_>, number: TaskNo, task: &Task, process: &Process) {
    let (now, setup) = (steps.now, steps.setup);
    let (who, id) = (Who::Runner(number), task.id);
    let deployment = &now.deployments[usize::from(id)];
    let Some(need) = process.need() else {
        return runs(steps, number, task, process);
    };
    match need {
        Need::Claim => puts_claim(steps, number, process, deployment.claim, id),
        // The target key vouches in the same step as the claim. A failure there ends silently, as a
        // lost claim does.
        Need::Vouch | Need::Exit => {}
        Need::Authorise => {
            steps.must(who, "decides: allowed", |world| {
                world.change(number, |process| {
                    process.learns(|known| {
                        known.allowed = Some(true);
                        known.started = (setup.bug == Some(Bug::ToolBeforeStarted)).then_some(true);
                    });
                });
            });
            if setup.denials {
                steps.may(who, "decides: refused", |world| {
                    world.change(number, |process| {
                        process.ends(Outcome::Denied, |known| known.allowed = Some(false));
                    });
                });
            }
        }
        Need::SayStarted => {
            steps.must(who, "sends `started`", |world| {
                world.send(id, Frame::Started(number));
                world.change(number, |process| {
                    process.said += 1;
                    process.learns(|known| known.started = Some(true));
                });
            });
            steps.fault(Fault::Outage, who, "cannot send `started` in time", |world| {
                world.change(number, |process| {
                    process.said += 1;
                    process.ends(Outcome::Fault, |known| known.started = Some(false));
                });
            });
        }
        Need::TakeLock => takes_lock(steps, number, id, process.line),
        Need::LookForCancel => {
            let found = deployment.control.then_some(Halt::Cancelled);
            steps.must(who, "reads the control queue", |world| {
                world.change(number, |process| {
                    process.halt = process.halt.or(found);
                    process.learns(|known| known.looked = true);
                });
            });
            steps.fault(Fault::LostCancel, who, "cannot read the control queue", |world| {
                world.change(number, |process| process.learns(|known| known.looked = true));
            });
        }
        Need::RunTool => steps.must(who, "starts the tool", |world| {
            if setup.bug != Some(Bug::ToolBeforeClaim) {
                world.start_tool(number);
            }
            world.change(number, |process| process.line = Line::Runs);
        }),
        Need::Release => steps.must(who, "frees the slot", |world| {
            world.lock.iter_mut().filter(|slot| **slot == Some(number)).for_each(|slot| *slot = None);
            world.change(number, |process| {
                process.outcome = process.outcome.or(process.halt.map(Outcome::Halted));
                process.learns(|known| known.released = true);
            });
        }),
        Need::Record => steps.must(who, "writes the record", |world| {
            world.of(id).recorded = true;
            world.change(number, |process| process.learns(|known| known.recorded = true));
        }),
        Need::Finish => steps.must(who, "sends `finished` and exits", |world| {
            let outcome = process.outcome.unwrap_or(Outcome::Fault);
            if outcome == Outcome::Fault || setup.bug == Some(Bug::ToolBeforeStarted) {
                world.send(id, Frame::Started(number));
            }
            world.send(id, Frame::Finished(number, process.said, outcome));
            let refusal = matches!(outcome, Outcome::Denied | Outcome::Fault);
            world.stop(setup, number, if refusal { Why::Refusal } else { Why::Exited });
        }),
    }
}

/// The steps while the tool runs.
fn runs(steps: &mut Steps<'_>, number: TaskNo, task: &Task, process: &Process) {
    let (who, id) = (Who::Runner(number), task.id);
    if (1..=steps.setup.prints).contains(&process.said) {
        steps.at(Pace::Tool, who, "the tool prints", |world| {
            world.send(id, Frame::Output(number, process.said));
            world.change(number, |process| process.said += 1);
        });
    }
    for (code, what) in [(0, "the tool exits with 0"), (1, "the tool exits with 1")] {
        steps.at(Pace::Exit, who, what, |world| {
            world.of(id).code = Some(code);
            world.change(number, |process| process.ends(Outcome::Exit(code), |known| known.ended = true));
        });
    }
    if let Some(halt) = process.halt {
        steps.must(who, "stops the tool", |world| {
            world.change(number, |process| process.ends(Outcome::Halted(halt), |known| known.ended = true));
        });
    }
}

fn takes_lock(steps: &mut Steps<'_>, number: TaskNo, id: u8, line: Line) {
    let (now, setup) = (steps.now, steps.setup);
    let who = Who::Runner(number);
    let slots = u32::try_from(now.lock.len()).unwrap_or(1);
    let slot_of = |look: u8| lock::order(u32::from(id), slots).nth(usize::from(look)).unwrap_or_default() as usize;
    let is_last = |look: u8| lock::order(0, slots).nth(usize::from(look) + 1).is_none();
    let goes_on = move |process: &mut Process, look: u8, last: bool| match last {
        true => process.ends(Outcome::Denied, |known| known.locked = Some(false)),
        false => process.line = Line::Looks(look + 1),
    };
    match line {
        Line::Begins | Line::Looks(_) => {
            let look = if let Line::Looks(look) = line { look } else { 0 };
            let holder = now.lock[slot_of(look)];
            let free = now.slot(holder, Some(number)).is_free() || setup.bug == Some(Bug::TakeOver);
            let last = is_last(look);
            steps.must(who, "reads a slot and asks ECS about its holder", |world| {
                world.change(number, |process| match free {
                    true => process.line = Line::Takes(look, holder),
                    false => goes_on(process, look, last),
                });
            });
        }
        Line::Takes(look, seen) => {
            let slot = slot_of(look);
            let (held, last) = (now.lock[slot] == seen, is_last(look));
            let mine = held || now.lock[slot] == Some(number);
            steps.must(who, "writes the slot, or reads its new holder", |world| {
                if held {
                    world.lock[slot] = Some(number);
                }
                world.change(number, |process| match mine {
                    true => process.learns(|known| known.locked = Some(true)),
                    false => goes_on(process, look, last),
                });
            });
            if held {
                steps.fault(Fault::LostAnswer, who, "writes the slot, but the answer is lost", |world| {
                    world.lock[slot] = Some(number);
                });
            }
        }
        Line::Runs => {}
    }
}

fn puts_claim(steps: &mut Steps<'_>, number: TaskNo, process: &Process, stands: Option<Holder>, id: u8) {
    let setup = steps.setup;
    let who = Who::Runner(number);
    let mine = Holder::Runner(number, process.nonce);
    let early = setup.bug == Some(Bug::ToolBeforeClaim);
    let put = if stands.is_none() { claim::Put::Written } else { claim::Put::Exists };
    let won = match (claim::after_put(put), stands, setup.bug) {
        (claim::After::Won, ..) => true,
        (_, Some(Holder::Runner(..)), Some(Bug::ClaimByDigest)) => true,
        (_, Some(Holder::Runner(task, _)), Some(Bug::ClaimByTask)) => task == number,
        (_, Some(_), Some(Bug::ClaimNotReadBack)) => false,
        _ => claim::is_mine(stands.as_ref(), &mine),
    };
    steps.must(who, "writes the claim, or reads the one that exists", |world| {
        world.of(id).claim.get_or_insert(mine);
        if early {
            world.start_tool(number);
        }
        if won {
            let learns = |known: &mut run::Known| (known.claimed, known.vouched) = (Some(true), Some(true));
            world.change(number, |process| process.learns(learns));
            return;
        }
        if world.of(id).claim == Some(mine) {
            world.broken = Some("the process that holds the claim continues");
        }
        // A replay ends silently.
        world.stop(setup, number, Why::Refusal);
    });
    if stands.is_none() {
        steps.fault(Fault::LostAnswer, who, "writes the claim, but the answer is lost", |world| {
            world.of(id).claim = Some(mine);
        });
    }
}
