//! A breadth-first explorer: visits every reachable state once, so that the path of a finding is a
//! shortest one.
//!
//! `stateright` would do this too, except for liveness (what must hold eventually). There, as its
//! documentation says, it forgets a path that joins another or closes a cycle, so that a lost
//! cancel could go unnoticed. It also brings a web server and a random generator along.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A system to explore.
pub trait Model {
    /// The complete state at one moment.
    type State: Clone + Eq + Hash;
    /// The name of a step in a path.
    type Label: Display + Copy;

    /// The first state.
    fn start(&self) -> Self::State;
    /// The steps that can happen next.
    fn steps(&self, state: &Self::State) -> Vec<Step<Self::State, Self::Label>>;
    /// The rule that this state breaks, of the rules that must always hold (safety).
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
    /// The rule that this state breaks if nothing more needs to happen, of the rules that must hold
    /// eventually (liveness).
    fn unsettled(&self, state: &Self::State) -> Option<&'static str>;
    /// Adds what is worth reporting as reached: a check that reaches nothing shows nothing.
    fn sights(&self, state: &Self::State, sights: &mut BTreeSet<&'static str>);
}

/// One thing that can happen.
#[derive(Clone, Debug)]
pub struct Step<S, L> {
    /// Its name.
    pub label: L,
    /// Whether it happens eventually if nothing else does. True for a program's next step, but not
    /// for a fault or a person's wish.
    pub must: bool,
    /// The state that it leads to.
    pub to: S,
}

/// The result of an exploration.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many states there are, or were seen before the finding.
    pub states: usize,
    /// How many steps lead from one state to another.
    pub steps: usize,
    /// How many steps the longest of the shortest paths has.
    pub depth: u32,
    /// In how many states nothing more needs to happen.
    pub settled: usize,
    /// The sights that were reached.
    pub sights: BTreeSet<&'static str>,
    /// The first broken rule that was found.
    pub finding: Option<Finding>,
}

/// A broken rule, and the path to it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// The steps, from the first state.
    pub path: Vec<String>,
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken rule: {}", self.rule)?;
        self.path.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{:>4}  {step}", at + 1))
    }
}

/// Explores until a rule is broken or no state is left.
///
/// "Eventually" needs no notion of fairness beyond [`Step::must`], because no path returns to a
/// state that it left: each step uses up a try, a fault, a frame or a line of a program. A cycle
/// would be reported as a finding.
pub fn explore<M: Model>(model: &M) -> Report {
    let start = model.start();
    let mut report = Report { states: 0, steps: 0, depth: 0, settled: 0, sights: BTreeSet::new(), finding: None };
    let mut known: HashMap<M::State, u32, BuildHasherDefault<Fast>> = HashMap::default();
    // The step by which each state was first reached; no step leads to the first state.
    let mut ways: Vec<(u32, Option<M::Label>)> = vec![(0, None)];
    // The successors of each state, in the order in which states are visited.
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
    report.finding = circle(&targets, &ends)
        .map(|index| Finding { rule: "no path returns to a state that it left", path: path(&ways, index) });
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

/// Finds a state on a cycle, or behind one: what is left after repeatedly removing every state that
/// no step leads to.
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

/// States are many and small, and no attacker chooses them: one multiplication per word is enough.
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

    /// Counts by one or two; a wish may take one back.
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
        assert_eq!(found, Some("no path returns to a state that it left"));
    }
}
