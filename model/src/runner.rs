//! The runner's lines, and what ECS does with its task. A line ends where AWS has answered.

use crate::world::World;
use crate::world::{
    Bug, Fault, Frame, Halt, Holder, Life, Line, Outcome, Pace, Process, Setup, Steps, Task, TaskNo, Who, Why,
};

impl Process {
    fn new(nonce: u8, setup: &Setup) -> Self {
        let at = if setup.bug == Some(Bug::NoClaim) { Line::Decide } else { Line::Claim };
        Self { at, nonce, halt: None, said: 0, hung: false }
    }
}

impl World {
    fn line(&mut self, task: TaskNo, at: Line) {
        if let Some(process) = self.process(task) {
            process.at = at;
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
            steps.at(Pace::Force, who, "stops it, by force in the end", |world| world.stop(setup, number, why));
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
                    steps.fault(Fault::Hang, who, "its runner stands still", |world| {
                        if let Some(process) = world.process(number) {
                            process.hung = true;
                        }
                    });
                    runs(steps, number, task, process);
                }
            }
            Life::Stopped(_) => {}
        }
    }
}

fn runs(steps: &mut Steps<'_>, number: TaskNo, task: &Task, process: &Process) {
    let (now, setup) = (steps.now, steps.setup);
    let (who, id) = (Who::Runner(number), task.id);
    let deployment = &now.deployments[usize::from(id)];
    if process.halt.is_none() {
        let mut halt = |pace, what, why| {
            steps.at(pace, who, what, |world| {
                if let Some(process) = world.process(number) {
                    process.halt = Some(why);
                }
            });
        };
        // Before it has claimed it has no ear for SIGTERM.
        if task.stop.is_some() && !matches!(process.at, Line::Claim | Line::Release(_) | Line::Finish(_)) {
            halt(Pace::Call, "hears SIGTERM", Halt::Terminated);
        }
        if matches!(process.at, Line::Start | Line::Tool) {
            if deployment.control {
                halt(Pace::Call, "hears the cancel", Halt::Cancelled);
            }
            if setup.timeouts {
                halt(Pace::Deadline, "its time is over", Halt::TimedOut);
            }
        }
    }
    match process.at {
        Line::Claim => claim(steps, number, process, deployment.claim, id),
        Line::Decide => {
            let next = if setup.bug == Some(Bug::ToolBeforeStarted) { Line::Lock(0) } else { Line::Started };
            steps.must(who, "decides: allowed", |world| world.line(number, next));
            if setup.denials {
                steps.may(who, "decides: refused", |world| world.line(number, Line::Finish(Outcome::Denied)));
            }
        }
        Line::Started => {
            steps.must(who, "sends `started`", |world| {
                world.send(id, Frame::Started(number));
                said(world, number, Line::Lock(0));
            });
            steps.fault(Fault::Outage, who, "cannot send `started` in time", |world| {
                said(world, number, Line::Finish(Outcome::Fault));
            });
        }
        Line::Lock(look) => {
            let slot = usize::from(id + look) % now.lock.len();
            let holder = now.lock[slot];
            let free = holder.is_none_or(|holder| now.has_stopped(holder)) || setup.bug == Some(Bug::TakeOver);
            let last = usize::from(look) + 1 == 2 * now.lock.len();
            let next = match (free, last) {
                (true, _) => Line::Take(look, holder),
                (false, false) => Line::Lock(look + 1),
                (false, true) => Line::Finish(Outcome::Denied),
            };
            steps.must(who, "reads a slot, asks ECS about its holder", |world| world.line(number, next));
        }
        Line::Take(look, seen) => {
            let slot = usize::from(id + look) % now.lock.len();
            let held = now.lock[slot] == seen;
            let last = usize::from(look) + 1 == 2 * now.lock.len();
            let next = match (held || now.lock[slot] == Some(number), last) {
                (true, _) => Line::Look,
                (false, false) => Line::Lock(look + 1),
                (false, true) => Line::Finish(Outcome::Denied),
            };
            steps.must(who, "puts the slot, or reads who was faster", |world| {
                if held {
                    world.lock[slot] = Some(number);
                }
                world.line(number, next);
            });
            if held {
                steps.fault(Fault::LostAnswer, who, "puts the slot; the answer is lost", |world| {
                    world.lock[slot] = Some(number);
                });
            }
        }
        Line::Look => {
            let found = deployment.control.then_some(Halt::Cancelled);
            steps.must(who, "looks into the control queue", |world| {
                world.line(number, Line::Start);
                if let Some(process) = world.process(number) {
                    process.halt = process.halt.or(found);
                }
            });
            steps.fault(Fault::LostCancel, who, "cannot look into the control queue", |world| {
                world.line(number, Line::Start);
            });
        }
        Line::Start => match process.halt {
            Some(halt) => steps.must(who, "does not start the tool", |world| {
                world.line(number, Line::Release(Outcome::Halted(halt)));
            }),
            None => steps.must(who, "starts the tool", |world| {
                if setup.bug != Some(Bug::ToolBeforeClaim) {
                    world.start_tool(number);
                }
                world.line(number, Line::Tool);
            }),
        },
        Line::Tool => {
            if (1..=setup.prints).contains(&process.said) {
                steps.at(Pace::Tool, who, "the tool prints", |world| {
                    world.send(id, Frame::Output(number, process.said));
                    said(world, number, Line::Tool);
                });
            }
            for (code, what) in [(0, "the tool exits with 0"), (1, "the tool exits with 1")] {
                steps.at(Pace::Exit, who, what, |world| {
                    world.of(id).code = Some(code);
                    world.line(number, Line::Release(Outcome::Exit(code)));
                });
            }
            if let Some(halt) = process.halt {
                steps.must(who, "stops the tool", |world| {
                    world.line(number, Line::Release(Outcome::Halted(halt)));
                });
            }
        }
        Line::Release(outcome) => steps.must(who, "frees the slot", |world| {
            world.lock.iter_mut().filter(|slot| **slot == Some(number)).for_each(|slot| *slot = None);
            world.line(number, Line::Finish(outcome));
        }),
        Line::Finish(outcome) => steps.must(who, "sends `finished`, exits", |world| {
            if outcome == Outcome::Fault || setup.bug == Some(Bug::ToolBeforeStarted) {
                world.send(id, Frame::Started(number));
            }
            world.send(id, Frame::Finished(number, process.said, outcome));
            let refusal = matches!(outcome, Outcome::Denied | Outcome::Fault);
            world.stop(setup, number, if refusal { Why::Refusal } else { Why::Exited });
        }),
    }
}

fn said(world: &mut World, task: TaskNo, next: Line) {
    if let Some(process) = world.process(task) {
        (process.said, process.at) = (process.said + 1, next);
    }
}

fn claim(steps: &mut Steps<'_>, number: TaskNo, process: &Process, stands: Option<Holder>, id: u8) {
    let setup = steps.setup;
    let who = Who::Runner(number);
    let mine = Holder::Runner(number, process.nonce);
    let early = setup.bug == Some(Bug::ToolBeforeClaim);
    let won = match (stands, setup.bug) {
        (None, _) => true,
        (Some(Holder::Runner(..)), Some(Bug::ClaimByDigest)) => true,
        (Some(Holder::Runner(task, _)), Some(Bug::ClaimByTask)) => task == number,
        (Some(_), Some(Bug::ClaimNotReadBack)) => false,
        (Some(holder), _) => holder == mine,
    };
    steps.must(who, "puts the claim, or reads who was faster", |world| {
        world.of(id).claim.get_or_insert(mine);
        if early {
            world.start_tool(number);
        }
        if won {
            world.line(number, Line::Decide);
            return;
        }
        if world.of(id).claim == Some(mine) {
            world.broken = Some("who holds the claim goes on");
        }
        // Replayed: not a word.
        world.stop(setup, number, Why::Refusal);
    });
    if stands.is_none() {
        steps.fault(Fault::LostAnswer, who, "puts the claim; the answer is lost", |world| {
            world.of(id).claim = Some(mine);
        });
    }
}
