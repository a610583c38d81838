//! A breadth-first explorer: every state that can be reached, each once, so that a finding's path is a shortest one.
//!
//! `stateright` would do this too, but for what must hold at last: there it forgets a path that joins another or closes a circle (as it says
//! itself), so that a lost cancel could go unnoticed; and it brings a web server and a random generator along.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// What is explored.
pub trait Model {
    /// All there is to know at one moment.
    type State: Clone + Eq + Hash;
    /// What a step is called in a path.
    type Label: Display + Copy;

    /// Where it begins.
    fn start(&self) -> Self::State;
    /// What can happen next.
    fn steps(&self, state: &Self::State) -> Vec<Step<Self::State, Self::Label>>;
    /// The rule that this state breaks: what must hold always.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
    /// The rule that is broken when nothing more needs to happen here: what must hold at last.
    fn unsettled(&self, state: &Self::State) -> Option<&'static str>;
    /// What is worth telling that it was reached: a check that reaches nothing shows nothing.
    fn sights(&self, state: &Self::State, sights: &mut BTreeSet<&'static str>);
}

/// One thing that can happen.
#[derive(Clone, Debug)]
pub struct Step<S, L> {
    /// What it is called.
    pub label: L,
    /// Whether it happens at last if nothing else does: a program's next step, but neither a fault nor a person's wish.
    pub must: bool,
    /// What comes of it.
    pub to: S,
}

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many states there are, or were seen until the finding.
    pub states: usize,
    /// How many steps lead from one to another.
    pub steps: usize,
    /// How many steps the longest of the shortest paths has.
    pub depth: u32,
    /// In how many states nothing more needs to happen.
    pub settled: usize,
    /// What was reached.
    pub sights: BTreeSet<&'static str>,
    /// The first rule that was found broken.
    pub finding: Option<Finding>,
}

/// A broken rule, and how to get there.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// The steps, from the start.
    pub path: Vec<String>,
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.rule)?;
        self.path.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{:>4}  {step}", at + 1))
    }
}

/// Explores until a rule is broken or nothing is left.
///
/// "At last" needs no notion of fairness beyond [`Step::must`], as no path returns to a state that it left: each step uses up a try, a fault,
/// a frame or a program's line. Were there a circle, it would be a finding.
pub fn explore<M: Model>(model: &M) -> Report {
    let start = model.start();
    let mut report = Report { states: 0, steps: 0, depth: 0, settled: 0, sights: BTreeSet::new(), finding: None };
    let mut known: HashMap<M::State, u32, BuildHasherDefault<Fast>> = HashMap::default();
    // By which step each state was first reached; nothing leads to the first.
    let mut ways: Vec<(u32, Option<M::Label>)> = vec![(0, None)];
    // Successors by state, in the order in which states are looked at.
    let (mut targets, mut ends): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
    known.insert(start.clone(), 0);
    let mut front = vec![start];
    while !front.is_empty() {
        let mut next = Vec::new();
        for state in front {
            let index = u32::try_from(ends.len()).unwrap_or(u32::MAX);
            model.sights(&state, &mut report.sights);
            let steps = model.steps(&state);
            let settled = !steps.iter().any(|step| step.must && step.to != state);
            report.settled += usize::from(settled);
            let rule = model.broken(&state).or_else(|| if settled { model.unsettled(&state) } else { None });
            if let Some(rule) = rule {
                report.states = known.len();
                report.finding = Some(Finding { rule, path: path(&ways, index) });
                return report;
            }
            for step in steps.into_iter().filter(|step| step.to != state) {
                let target = match known.get(&step.to) {
                    Some(target) => *target,
                    None => {
                        let target = u32::try_from(known.len()).unwrap_or(u32::MAX);
                        known.insert(step.to.clone(), target);
                        ways.push((index, Some(step.label)));
                        next.push(step.to);
                        target
                    }
                };
                targets.push(target);
            }
            ends.push(targets.len());
        }
        report.depth += u32::from(!next.is_empty());
        front = next;
    }
    report.states = known.len();
    report.steps = targets.len();
    report.finding = circle(&targets, &ends).map(|index| Finding {
        rule: "each step leads on: no path returns to a state that it left",
        path: path(&ways, index),
    });
    report
}

fn path<L: Display>(ways: &[(u32, Option<L>)], mut index: u32) -> Vec<String> {
    let mut path = Vec::new();
    while let Some((from, Some(label))) = ways.get(index as usize) {
        path.push(label.to_string());
        index = *from;
    }
    path.reverse();
    path
}

/// A state on a circle, or behind one: what is left when again and again states are taken away to which no step leads.
fn circle(targets: &[u32], ends: &[usize]) -> Option<u32> {
    let of = |index: usize| {
        let from = index.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or_default();
        targets.get(from..ends.get(index).copied().unwrap_or_default()).unwrap_or_default()
    };
    let mut incoming = vec![0_u32; ends.len()];
    targets.iter().for_each(|target| incoming[*target as usize] += 1);
    let mut free: Vec<usize> = (0..ends.len()).filter(|index| incoming[*index] == 0).collect();
    while let Some(index) = free.pop() {
        for target in of(index) {
            incoming[*target as usize] -= 1;
            if incoming[*target as usize] == 0 {
                free.push(*target as usize);
            }
        }
    }
    incoming.iter().position(|count| *count > 0).and_then(|index| u32::try_from(index).ok())
}

/// States are many and small, and nobody chooses them with evil intent: a multiplication for each word is enough.
#[derive(Clone, Copy, Debug, Default)]
struct Fast(u64);

impl Hasher for Fast {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts by one or two; a wish may take it back.
    struct Count {
        back: bool,
        never: u8,
    }

    impl Model for Count {
        type State = u8;
        type Label = &'static str;
        fn start(&self) -> u8 {
            0
        }
        fn steps(&self, state: &u8) -> Vec<Step<u8, &'static str>> {
            let up = |label, by: u8| Step { label, must: true, to: (state + by).min(9) };
            let mut steps = vec![up("one", 1), up("two", 2)];
            if self.back && *state == 5 {
                steps.push(Step { label: "back", must: false, to: 4 });
            }
            steps
        }
        fn broken(&self, state: &u8) -> Option<&'static str> {
            (*state == self.never).then_some("never")
        }
        fn unsettled(&self, state: &u8) -> Option<&'static str> {
            (*state != 9).then_some("nine at last")
        }
        fn sights(&self, _: &u8, _: &mut BTreeSet<&'static str>) {}
    }

    #[test]
    fn all_is_seen_the_shortest_path_is_told_and_a_circle_is_found() {
        let report = explore(&Count { back: false, never: 99 });
        assert_eq!((report.states, report.settled, report.finding.is_none()), (10, 1, true));
        let found = explore(&Count { back: false, never: 5 }).finding.map(|finding| finding.path.len());
        assert_eq!(found, Some(3));
        let found = explore(&Count { back: true, never: 99 }).finding.map(|finding| finding.rule);
        assert_eq!(found, Some("each step leads on: no path returns to a state that it left"));
    }
}
