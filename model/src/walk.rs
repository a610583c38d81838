//! Random walks: the model's world on a virtual clock, far beyond the explorer's bounds, with real
//! writers and readers ([`crate::wire`]).
//!
//! Each enabled step gets a moment, drawn from its [`Pace`], and the earliest step comes next. A
//! step that need not come (a fault, a wish, a refusal) comes by chance. After each step the walk
//! checks the explorer's rules and the rules of the stream. One seed gives one walk.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::explore::{Finding, Model as _, Step};
use crate::rng::Rng;
use crate::wire::{Wire, wall};
use crate::world::{End, Frame, Label, Life, Pace, Setup, Who, World};
use crate::{Protocol, launcher};

/// How long a tool may run, and the time between two rounds of the watchdog.
const TIMEOUT: Duration = Duration::from_secs(600);
const ROUND: Duration = Duration::from_secs(300);

/// How long after its launch a runner may begin.
const START_DELAY: Duration = Duration::from_secs(600);

/// By when a walk has ended by itself: covers every clock of the CLI and of another that attaches,
/// and the runner's time.
const LIMIT: Duration = Duration::from_secs(3 * 3_600);

/// The conditions of one walk.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The model's bounds.
    pub setup: Setup,
    /// After how many of a hundred steps something optional happens.
    pub trouble: u64,
    /// Whether tools never exit by themselves.
    pub endless: bool,
    /// Whether CLIs are killed and others attach, and queues cannot be read for a while.
    pub leaving: bool,
}

/// The result of a walk.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// Steps of the model.
    pub steps: u64,
    /// How long the walk took, on its own clock.
    pub took: Duration,
    /// How each deployment ended.
    pub ends: Vec<End>,
}

struct Walking<'a> {
    walk: &'a Walk,
    protocol: Protocol,
    rng: Rng,
    now: Duration,
    world: World,
    steps: Vec<Step<World, Label>>,
    due: BTreeMap<Place, Duration>,
    chance: Option<Duration>,
    round: Duration,
    wires: Vec<Wire>,
    /// When each task was made, and when its time began.
    tasks: Vec<(Duration, Option<Duration>)>,
    noted: Vec<Option<Duration>>,
    path: Vec<String>,
    walked: Walked,
}

/// Walks once, with the choices that `seed` gives.
///
/// # Errors
///
/// A rule was broken. The finding holds the path to it.
pub fn walk(walk: &Walk, seed: u64) -> Result<Walked, Finding> {
    let protocol = Protocol::new(walk.setup.clone());
    let count = usize::from(walk.setup.deployments);
    let mut walking = Walking {
        walk,
        rng: Rng(seed),
        now: Duration::ZERO,
        world: protocol.start(),
        protocol,
        steps: Vec::new(),
        due: BTreeMap::new(),
        chance: None,
        round: Duration::ZERO,
        wires: (0..count).map(|_| Wire::new()).collect(),
        tasks: Vec::new(),
        noted: vec![None; count],
        path: Vec::new(),
        walked: Walked::default(),
    };
    walking.round = walking.rng.below(ROUND);
    match walking.run() {
        Ok(()) => Ok(walking.walked),
        Err(rule) => Err(Finding { rule, path: walking.path }),
    }
}

impl Walking<'_> {
    fn run(&mut self) -> Result<(), &'static str> {
        self.look()?;
        while let Some((at, what)) = self.next().filter(|(at, _)| *at <= LIMIT) {
            self.now = self.now.max(at);
            match what {
                What::Wire(wire) => self.wire(wire)?,
                What::Round => self.watchdog()?,
                What::Chance => self.something()?,
                What::Step(index) => self.step(index)?,
            }
        }
        self.walked.took = self.now;
        self.walked.ends = self.world.deployments.iter().filter_map(|deployment| deployment.end).collect();
        // A late reader does not know the deadline, and waits while it hears the runner. With a
        // deadline on the server, it does not wait forever.
        if self.wires.iter().any(|wire| wire.is_awaited() && (self.walk.setup.timeouts || !wire.is_late())) {
            return Err("the CLI ends within its timeouts");
        }
        self.protocol.unsettled(&self.world).map_or(Ok(()), Err)
    }

    /// The next thing to happen, and when.
    fn next(&mut self) -> Option<(Duration, What)> {
        let wires = self.wires.iter().enumerate();
        let wires = wires.filter_map(|(at, wire)| Some((wire.due(self.is_hung(wire))?, What::Wire(at))));
        let steps = self.steps.iter().enumerate().zip(places(&self.steps));
        let steps = steps.filter_map(|((index, _), place)| Some((*self.due.get(&place?)?, What::Step(index))));
        let chance = self.chance.map(|at| (at, What::Chance));
        let first = wires.chain(steps).chain(chance).min_by_key(|(at, _)| *at);
        // The watchdog's rounds go on forever: alone they are a reason to continue only while a
        // task is left.
        let left = self.world.tasks.iter().any(|task| !task.told || !matches!(task.life, Life::Stopped(_)));
        let round = left.then_some((self.round, What::Round));
        first.into_iter().chain(round).min_by_key(|(at, _)| *at)
    }

    fn step(&mut self, index: usize) -> Result<(), &'static str> {
        let who = self.steps[index].label.who;
        // A step that is a decision may be decided otherwise.
        let other = self.steps.iter().position(|step| step.label.who == who && step.label.is_choice());
        let index = other.filter(|_| self.rng.chance(5)).unwrap_or(index);
        self.take(index)
    }

    /// Takes a step of the model, and handles what it changed.
    fn take(&mut self, index: usize) -> Result<(), &'static str> {
        let step = self.steps.swap_remove(index);
        self.tell(&step.label);
        self.due.retain(|(who, what, _), _| (*who, *what) != (step.label.who, step.label.what));
        let before = std::mem::replace(&mut self.world, step.to);
        self.walked.steps += 1;
        self.changed(&before);
        self.look()
    }

    fn tell(&mut self, what: &dyn std::fmt::Display) {
        let mut line = String::new();
        let seconds = self.now.as_secs_f64();
        // Writing into memory cannot fail.
        let _ = write!(line, "{seconds:>9.3}  {what}");
        self.path.push(line);
    }

    /// Moves frames into the queues, and records the times of tasks and notes.
    fn changed(&mut self, before: &World) {
        for id in 0..self.world.deployments.len() {
            let deployment = &mut self.world.deployments[id];
            if deployment.note && self.noted[id].is_none() {
                self.noted[id] = Some(self.now);
            }
            for frame in std::mem::take(&mut deployment.reply) {
                if let Frame::Started(task) = frame
                    && let Some((_, began)) = self.tasks.get_mut(usize::from(task))
                {
                    began.get_or_insert(self.now);
                }
                self.wires[id].say(&mut self.rng, self.now, frame, self.now + TIMEOUT);
            }
        }
        self.tasks.resize(self.world.tasks.len(), (self.now, None));
        let nonce = |world: &World, task: usize| match &world.tasks.get(task)?.life {
            Life::Running(process) => Some(process.nonce),
            Life::Waiting | Life::Stopped(_) => None,
        };
        for (at, task) in (0..).zip(&self.world.tasks) {
            let place = usize::from(at);
            if nonce(before, place).is_some() && nonce(before, place) != nonce(&self.world, place) {
                self.wires[usize::from(task.id)].gone(at);
            }
        }
    }

    /// Checks the rules, and collects what may come now.
    fn look(&mut self) -> Result<(), &'static str> {
        if let Some(rule) = self.protocol.broken(&self.world) {
            return Err(rule);
        }
        self.steps = self.protocol.others(&self.world);
        let mut due = BTreeMap::new();
        let labels: Vec<Label> = self.steps.iter().map(|step| step.label).collect();
        for (label, place) in labels.iter().zip(places(&self.steps)) {
            // A step that is already due keeps its moment.
            let Some(place) = place else { continue };
            let kept = self.due.get(&place).copied();
            if let Some(at) = kept.or_else(|| Some(self.now + self.lasts(label)?)) {
                due.insert(place, at);
            }
        }
        self.due = due;
        let next = self.due.values().min().copied().unwrap_or(self.now + ROUND);
        // In the second half nothing more comes by chance: what has begun comes to its end.
        let comes = self.now < LIMIT / 2 && self.rng.chance(self.walk.trouble);
        self.chance = comes.then(|| self.now + self.rng.below(next.saturating_sub(self.now)));
        Ok(())
    }

    fn lasts(&mut self, label: &Label) -> Option<Duration> {
        let rng = &mut self.rng;
        let often = rng.chance(85);
        Some(match label.pace {
            Pace::Call if often => Duration::from_millis(5) + rng.below(Duration::from_millis(200)),
            Pace::Call => rng.below(Duration::from_secs(20)),
            Pace::Delivery if often => rng.below(Duration::from_secs(2)),
            // Lambda retries after one minute, then after two.
            Pace::Delivery => rng.between(60, 130),
            Pace::Container if often => rng.between(15, 90),
            Pace::Container => rng.between(90, 700),
            Pace::Force => rng.between(30, 120),
            Pace::Tool => rng.below(Duration::from_secs(20)),
            Pace::Exit if self.walk.endless => return None,
            Pace::Exit if often => rng.between(1, 120),
            Pace::Exit => rng.between(120, 900),
            Pace::Deadline => {
                let Who::Runner(task) = label.who else { return None };
                let (_, began) = *self.tasks.get(usize::from(task))?;
                (began? + TIMEOUT).saturating_sub(self.now)
            }
            Pace::Round | Pace::Overdue | Pace::Chance => return None,
        })
    }

    fn is_hung(&self, wire: &Wire) -> bool {
        let task = wire.sender().and_then(|task| self.world.tasks.get(usize::from(task)));
        task.is_some_and(|task| matches!(&task.life, Life::Running(process) if process.hung))
    }

    fn wire(&mut self, wire: usize) -> Result<(), &'static str> {
        let hung = self.is_hung(&self.wires[wire]);
        let Some(end) = self.wires[wire].go(&mut self.rng, self.now, hung, self.walk.setup.bug)? else { return Ok(()) };
        self.ends(wire, end)
    }

    fn ends(&mut self, wire: usize, end: End) -> Result<(), &'static str> {
        self.tell(&format_args!("CLI {wire}: its end is {end:?}"));
        self.world.deployments[wire].end = Some(end);
        self.world.settle();
        self.look()
    }

    /// Runs a round of the watchdog: it stops tasks by the clock, and reports ends.
    fn watchdog(&mut self) -> Result<(), &'static str> {
        self.round = self.now + ROUND;
        let run = TIMEOUT + Duration::from_secs(launcher::GRACE.unsigned_abs());
        for number in 0..self.tasks.len() {
            let (made, began) = self.tasks[number];
            let deadline = (made + START_DELAY + run).max(began.unwrap_or_default() + run);
            let deadline = if self.walk.setup.timeouts { deadline } else { LIMIT * 2 };
            let task = &mut self.world.tasks[number];
            let noted = self.noted[usize::from(task.id)].map(wall);
            if task.stop.is_none()
                && !matches!(task.life, Life::Stopped(_))
                && let Some(why) = launcher::to_stop(wall(deadline), noted, wall(self.now))
            {
                task.stop = Some(why);
                self.tell(&format_args!("watchdog, task {number}: StopTask"));
            }
        }
        self.look()?;
        while let Some(index) = self.steps.iter().position(|step| step.label.pace == Pace::Round) {
            self.take(index)?;
        }
        Ok(())
    }

    /// Something optional happens: a fault, a wish, a refusal, a CLI that dies, a queue that cannot
    /// be read.
    fn something(&mut self) -> Result<(), &'static str> {
        let steps: Vec<usize> =
            (0..self.steps.len()).filter(|index| self.steps[*index].label.pace == Pace::Chance).collect();
        let read: Vec<usize> =
            (0..self.wires.len()).filter(|wire| self.walk.leaving && self.wires[*wire].may_be_left()).collect();
        let which = self.rng.index(steps.len() + 2 * read.len());
        if let Some(index) = steps.get(which) {
            return self.take(*index);
        }
        let Some(wire) = read.get((which - steps.len()) / 2).copied() else { return self.look() };
        if self.rng.chance(50) {
            self.tell(&format_args!("CLI {wire}: cannot read its queue for a while"));
            let lasts = self.rng.between(1, 400);
            self.wires[wire].darken(self.now, lasts);
        } else {
            let back = self.rng.chance(70).then(|| self.rng.between(1, 300));
            self.tell(&format_args!("CLI {wire}: is killed; another attaches after {back:?}"));
            self.wires[wire].kill(self.now, back);
            if back.is_none() {
                return self.ends(wire, End::Killed);
            }
        }
        self.look()
    }
}

enum What {
    Step(usize),
    Wire(usize),
    Round,
    Chance,
}

type Place = (Who, &'static str, usize);

/// The key of each step while it is enabled; equal steps are numbered. A step that comes by chance
/// or by the watchdog has none.
fn places(steps: &[Step<World, Label>]) -> Vec<Option<Place>> {
    let mut seen: BTreeMap<(Who, &'static str), usize> = BTreeMap::new();
    let place = |step: &Step<World, Label>| {
        let label = &step.label;
        let count = seen.entry((label.who, label.what)).or_default();
        *count += 1;
        let waits = matches!(label.pace, Pace::Chance | Pace::Round | Pace::Overdue);
        (!waits).then_some((label.who, label.what, *count))
    };
    steps.iter().map(place).collect()
}
