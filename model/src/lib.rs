//! The protocol as a model, explored exhaustively within bounds: CLI, SNS, Lambda, ECS with and
//! without its memory of tokens, runner, claim, lock, both queues, events and watchdog; every
//! order, and every fault of [`world::Fault`] at every line, up to a number.
//!
//! The model itself describes AWS ([`world`], [`launcher`], [`runner`], [`cli`]). For the programs
//! it asks their own code. `relay_engine` decides what the launcher and the runner need next, who
//! holds the claim, whether a slot may be taken, which answers are repeated, why a task stopped,
//! when the watchdog stops it, and the exit code of the CLI. The runner's own writer makes the
//! frames, and the CLI's own reader reads them. [`world::Bug`] makes mistakes on purpose, to show
//! that each is found. Bounds and results: `docs/reliability.md`.
//!
//! Not in the model, and tested elsewhere: signatures, policy, bytes, seconds, several requests
//! under one id, the rollback.

#![forbid(unsafe_code)]

mod cli;
pub mod explore;
mod launcher;
mod rng;
mod runner;
pub mod walk;
mod wire;
pub mod world;

use std::collections::BTreeSet;

use crate::cli::Readers;
use crate::explore::{Model, Step};
use crate::world::{End, Label, Life, Line, Setup, Steps, Task, World};

/// The protocol within bounds.
#[derive(Debug)]
pub struct Protocol {
    setup: Setup,
    readers: Readers,
}

impl Protocol {
    /// The protocol within the bounds of `setup`.
    pub fn new(setup: Setup) -> Self {
        Self { readers: Readers::new(setup.bug), setup }
    }

    /// The steps that can happen next, except for what the CLI reads and waits for.
    fn others(&self, now: &World) -> Vec<Step<World, Label>> {
        let mut steps = Steps { setup: &self.setup, now, steps: Vec::new() };
        cli::wishes(&mut steps);
        launcher::steps(&mut steps);
        runner::steps(&mut steps);
        steps.steps
    }
}

impl Model for Protocol {
    type State = World;
    type Label = Label;

    fn start(&self) -> World {
        World::new(&self.setup)
    }

    fn steps(&self, now: &World) -> Vec<Step<World, Label>> {
        let mut steps = Steps { setup: &self.setup, now, steps: Vec::new() };
        cli::steps(&mut steps, &self.readers);
        [steps.steps, self.others(now)].concat()
    }

    fn broken(&self, world: &World) -> Option<&'static str> {
        let holders = world.tasks.iter().filter_map(Task::running).filter(|process| process.holds());
        if holders.count() > usize::from(self.setup.slots) {
            return Some("no more runners hold the lock than the target allows");
        }
        let deployments = (0..).zip(&world.deployments);
        world.broken.or(deployments.into_iter().find_map(|(id, deployment)| {
            let mut tools = world.tasks.iter().filter(|task| task.id == id).filter_map(Task::running);
            let tool = tools.find(|process| process.line == Line::Runs);
            match (deployment.end, tool) {
                _ if deployment.runs > 1 => Some("the tool starts at most once"),
                (_, Some(process)) if process.said == 0 => Some("nothing runs before `started` has arrived"),
                (Some(End::Refused | End::NeverStarted), _) if deployment.runs > 0 => {
                    Some("a deployment that the CLI reports as refused or never started has not run and never runs")
                }
                (Some(End::Tool(code)), _) if deployment.code != Some(code) => {
                    Some("an exit code that the CLI reports as the tool's is the tool's own")
                }
                (Some(End::Tool(_) | End::Ended(_)), Some(_)) => Some("no output follows an end that is known"),
                _ => None,
            }
        }))
    }

    fn unsettled(&self, world: &World) -> Option<&'static str> {
        (0..).zip(&world.deployments).find_map(|(id, deployment)| {
            let tasks = || world.tasks.iter().filter(|task| task.id == id);
            let lives = tasks().any(|task| !matches!(task.life, Life::Stopped(_)));
            // If ECS made two tasks, the CLI may wait for the wrong one until its clock for the
            // start runs out.
            if deployment.end.is_none() && !lives && tasks().count() < 2 {
                Some("every end is reported")
            // A CLI that has left repeats no cancel that was dropped.
            } else if lives && deployment.asked && !(deployment.dropped && deployment.end.is_some()) {
                Some("no cancel is lost")
            } else if lives && self.setup.timeouts {
                Some("nothing runs forever")
            } else if !lives && deployment.claim.is_some() && !deployment.recorded && !deployment.dead_letter {
                Some("every deployment that was claimed leaves a record")
            } else {
                None
            }
        })
    }

    fn sights(&self, world: &World, sights: &mut BTreeSet<&'static str>) {
        sights.extend(world.deployments.iter().filter_map(|deployment| deployment.end).map(|end| match end {
            End::Tool(0) => "success",
            End::Tool(_) => "failure",
            End::Refused => "refused",
            End::NeverStarted => "never started",
            End::Ended(124) => "timed out",
            End::Ended(125) => "fault",
            End::Ended(130) => "cancelled",
            End::Ended(_) => "stopped",
            End::Unknown => "unknown",
            End::Killed => "killed",
        }));
    }
}
