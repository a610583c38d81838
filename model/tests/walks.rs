//! The protocol on a virtual clock, by random walks: thousands of seeds, with bounds that the
//! explorer cannot have. `RELAY_SEEDS` is the number of seeds, `RELAY_SEED` the first; a failing
//! seed prints the line that replays it. The walks also find the mistakes that the explorer finds.
#![allow(clippy::print_stdout, clippy::panic, reason = "tests print their results and fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "seeds come from the environment")]

use std::collections::BTreeMap;
use std::time::Instant;

use relay_model::explore::Finding;
use relay_model::walk::{Walk, walk};
use relay_model::world::Fault::{
    Duplicate, Failures, Forgets, Hang, LauncherCrash, LostAnswer, LostCancel, LostEvent, NeverStarts, Outage, Restart,
    RunnerCrash, Stale,
};
use relay_model::world::{Begin, Bug, Fault, Setup};

const ALL: &[Fault] = &[
    Duplicate,
    LauncherCrash,
    RunnerCrash,
    Hang,
    Restart,
    LostAnswer,
    LostEvent,
    LostCancel,
    Failures,
    NeverStarts,
    Stale,
    Forgets,
    Outage,
];

/// The faults for a cancel that must reach a tool that nothing else ends, without the limits that
/// `checks.rs` shows.
const CANCELLED: &[Fault] =
    &[Duplicate, LauncherCrash, RunnerCrash, Restart, LostAnswer, LostEvent, NeverStarts, Stale];

/// The walk for this seed.
fn of_seed(seed: u64, bug: Option<Bug>) -> Walk {
    let pick = |shift: u32, count: u64| {
        u8::try_from((seed >> shift ^ seed.wrapping_mul(0x9E37_79B9) >> 7) % count).unwrap_or_default()
    };
    let endless = pick(1, 4) == 0;
    let deployments = 1 + pick(3, 4);
    let setup = Setup {
        deployments,
        slots: 1 + pick(5, 2),
        faults: [0, 3, 8, 30][usize::from(pick(6, 4))],
        kinds: if endless { CANCELLED } else { ALL },
        tries: 3,
        tasks: deployments * 3,
        prints: 30,
        denials: pick(8, 2) == 1,
        cancels: true,
        control: pick(9, 3) > 0,
        impatience: false,
        timeouts: !endless,
        cancel_gets_through: true,
        begin: Begin::Published,
        bug,
    };
    Walk { setup, trouble: [2, 10, 25, 50][usize::from(pick(10, 4))], endless, leaving: pick(11, 2) == 1 }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_rule_is_broken_on_any_walk() {
    let first = number("RELAY_SEED");
    let count = number("RELAY_SEEDS").unwrap_or(if first.is_some() { 1 } else { 1_000 });
    let began = Instant::now();
    let (mut steps, mut hours, mut ends) = (0, 0.0, BTreeMap::<String, u64>::new());
    for seed in first.unwrap_or(0)..first.unwrap_or(0) + count {
        match walk(&of_seed(seed, None), seed) {
            Ok(walked) => {
                steps += walked.steps;
                hours += walked.took.as_secs_f64() / 3_600.0;
                walked.ends.iter().for_each(|end| *ends.entry(format!("{end:?}")).or_default() += 1);
            }
            Err(finding) => {
                panic!("{finding}replay: RELAY_SEED={seed} cargo test --workspace --test walks no_rule -- --nocapture");
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} walks, {steps} steps of the model, {hours:.0} hours of their clocks, {seconds:.1} s; ends: {ends:?}"
    );
    let kinds = [
        "Tool(0)",
        "Tool(1)",
        "Refused",
        "NeverStarted",
        "Ended(130)",
        "Ended(124)",
        "Ended(125)",
        "Unknown",
        "Killed",
    ];
    let missing: Vec<_> = kinds.iter().filter(|kind| !ends.contains_key(**kind)).collect();
    assert!(count < 1_000 || missing.is_empty(), "no walk ends with {missing:?}");
}

/// The first walk that finds the mistake. The same walk without the mistake breaks no rule. A
/// mistake that takes several faults is found soon with these faults alone.
fn found(bug: Bug, kinds: &'static [Fault]) -> Option<(u64, Finding)> {
    let of = |seed, bug| match of_seed(seed, bug) {
        walk if kinds.is_empty() => walk,
        walk => Walk { setup: Setup { kinds, deployments: 1, slots: 2, faults: 8, ..walk.setup }, trouble: 40, ..walk },
    };
    let (seed, finding) = (0..1_000_000).find_map(|seed| Some((seed, walk(&of(seed, Some(bug)), seed).err()?)))?;
    if let Err(finding) = walk(&of(seed, None), seed) {
        panic!("without {bug:?}, seed {seed}: {finding}");
    }
    Some((seed, finding))
}

#[test]
fn each_mistake_is_found() {
    for (bug, kinds) in [
        (Bug::NoClaim, &[] as &[Fault]),
        (Bug::ClaimByDigest, &[]),
        (Bug::ClaimByTask, &[]),
        (Bug::ClaimNotReadBack, &[]),
        (Bug::TakeOver, &[]),
        (Bug::RefuseUnclaimed, &[]),
        (Bug::ToolBeforeStarted, &[]),
        (Bug::ToolBeforeClaim, &[]),
        (Bug::CancelNotRepeated, &[]),
        (Bug::ClaimIsAnEnd, &[Stale]),
        (Bug::EndUnclaimed, &[Duplicate, Forgets, NeverStarts]),
        (Bug::UnreadIsUnstarted, &[RunnerCrash]),
    ] {
        let Some((seed, finding)) = found(bug, kinds) else { panic!("{bug:?} is not found") };
        println!("{bug:?}: seed {seed}, {} steps: {}", finding.path.len(), finding.rule);
    }
}
