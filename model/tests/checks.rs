//! The protocol keeps its promises in every order and under every fault, within the bounds given
//! here, and each mistake made on purpose is found. `cargo test -p relay-model -- --nocapture`
//! prints numbers, times and the paths to the mistakes.
#![allow(clippy::print_stdout, clippy::panic, reason = "tests print their results and fail by panicking")]

use std::collections::BTreeSet;
use std::time::Instant;

use relay_model::Protocol;
use relay_model::explore::{Finding, explore};
use relay_model::world::Fault::{
    Duplicate, Failures, Forgets, FrameAgain, Hang, LauncherCrash, LostAnswer, LostCancel, LostEvent, NeverStarts,
    Outage, Restart, RunnerCrash, Stale,
};
use relay_model::world::{Begin, Bug, Fault, Setup};

const ALL: &[Fault] = &[
    Duplicate,
    FrameAgain,
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

const ONCE: &str = "the tool starts at most once";
const FINAL: &str = "a deployment that the CLI reports as refused or never started has not run and never runs";
const CANCEL: &str = "no cancel is lost";
const RECORD: &str = "every deployment that was claimed leaves a record";

/// One deployment, with Lambda's three tries.
fn one() -> Setup {
    Setup {
        deployments: 1,
        slots: 1,
        faults: 1,
        kinds: ALL,
        tries: 3,
        tasks: 3,
        prints: 1,
        denials: false,
        cancels: false,
        control: true,
        impatience: false,
        timeouts: false,
        cancel_gets_through: true,
        begin: Begin::Published,
        bug: None,
    }
}

/// No rule is broken, and exactly these ends are reached, so the check has seen something.
fn holds<const N: usize>(name: &str, setup: Setup, ends: [&'static str; N]) {
    let began = Instant::now();
    let report = explore(&Protocol::new(setup));
    let seconds = began.elapsed().as_secs_f64();
    println!("{name}: {} states, {} steps, {} deep, {seconds:.1} s", report.states, report.steps, report.depth);
    if let Some(finding) = report.finding {
        panic!("{name}\n{finding}");
    }
    assert_eq!(report.sights, BTreeSet::from(ends), "{name}");
}

#[test]
fn at_most_once_whatever_is_repeated_forgotten_or_killed() {
    holds(
        "one deployment, 3 faults",
        Setup { faults: 3, tries: 4, denials: true, ..one() },
        ["success", "failure", "refused", "never started", "fault", "unknown"],
    );
}

/// The faults that can affect a cancel on its way. The others are tried one at a time.
const AGAINST_CANCELS: &[Fault] =
    &[Duplicate, LauncherCrash, RunnerCrash, Restart, LostCancel, NeverStarts, Stale, Forgets];

#[test]
fn a_cancel_by_both_ways_is_not_lost() {
    holds(
        "cancel by queue and topic, 2 faults",
        Setup { faults: 2, kinds: AGAINST_CANCELS, cancels: true, ..one() },
        ["success", "failure", "never started", "cancelled", "stopped", "unknown"],
    );
    holds(
        "cancel by queue and topic, 1 fault",
        Setup { cancels: true, denials: true, ..one() },
        ["success", "failure", "refused", "never started", "cancelled", "stopped", "fault", "unknown"],
    );
}

#[test]
fn a_cancel_by_topic_alone_is_not_lost() {
    let kinds = &[Duplicate, LauncherCrash, RunnerCrash, Hang, Restart, NeverStarts, Stale];
    holds(
        "cancel by topic alone, 2 faults",
        Setup { faults: 2, kinds, cancels: true, control: false, ..one() },
        ["success", "failure", "never started", "cancelled", "stopped", "unknown"],
    );
    holds(
        "cancel by topic alone, 1 fault",
        Setup { cancels: true, denials: true, control: false, ..one() },
        ["success", "failure", "refused", "never started", "cancelled", "stopped", "fault", "unknown"],
    );
}

#[test]
fn a_cli_that_leaves_early_says_nothing_false() {
    holds(
        "timeouts of the CLI, CLI killed, 1 fault",
        Setup { cancels: true, denials: true, impatience: true, ..one() },
        ["success", "failure", "refused", "never started", "cancelled", "stopped", "fault", "unknown", "killed"],
    );
}

#[test]
fn nothing_runs_for_ever() {
    holds(
        "deadline on the server, 1 fault",
        Setup { cancels: true, denials: true, timeouts: true, ..one() },
        ["success", "failure", "refused", "never started", "cancelled", "stopped", "timed out", "fault", "unknown"],
    );
}

#[test]
fn one_at_a_time() {
    let two = Setup { deployments: 2, begin: Begin::Alone, ..one() };
    holds("two deployments of one target, 2 faults", Setup { faults: 2, ..two }, ["killed"]);
    let kinds = &[RunnerCrash, Restart, LostAnswer, Hang];
    let three = Setup { deployments: 3, begin: Begin::AtLock, faults: 2, kinds, ..one() };
    holds("three runners, one slot, 2 faults", three.clone(), ["killed"]);
    holds("three runners, two slots, 2 faults", Setup { slots: 2, ..three }, ["killed"]);
}

/// The mistake is found, and it is what breaks the rule: without it, the same bounds hold.
fn finds(bug: Bug, rule: &str, setup: Setup) {
    let finding = broken(&Setup { bug: Some(bug), ..setup.clone() });
    let Some(finding) = finding else { panic!("{bug:?} is not found") };
    println!("{bug:?}\n{finding}");
    assert_eq!(finding.rule, rule, "{bug:?}");
    assert_eq!(broken(&setup).map(|finding| finding.rule), None, "without {bug:?}");
}

fn broken(setup: &Setup) -> Option<Finding> {
    explore(&Protocol::new(setup.clone())).finding
}

#[test]
fn each_mistake_is_found() {
    // With one slot, the lock alone would keep the second process from the tool.
    let two_tasks = Setup { slots: 2, faults: 2, kinds: &[Duplicate, Forgets], ..one() };
    let two_processes = Setup { slots: 2, kinds: &[Restart], ..one() };
    finds(Bug::NoClaim, ONCE, two_processes.clone());
    finds(Bug::ClaimByTask, ONCE, two_processes);
    finds(Bug::ClaimByDigest, ONCE, two_tasks);
    finds(Bug::ClaimNotReadBack, "the process that holds the claim continues", Setup { kinds: &[LostAnswer], ..one() });
    let lock = Setup { deployments: 2, begin: Begin::AtLock, faults: 0, ..one() };
    finds(Bug::TakeOver, "no more runners hold the lock than the target allows", lock);
    let refusing = Setup { denials: true, kinds: &[Duplicate], ..one() };
    finds(Bug::RefuseUnclaimed, FINAL, refusing.clone());
    finds(Bug::ToolBeforeClaim, FINAL, refusing);
    finds(Bug::ToolBeforeStarted, "nothing runs before `started` has arrived", Setup { faults: 0, ..one() });
    let by_topic = Setup { faults: 0, cancels: true, control: false, ..one() };
    finds(Bug::CancelNotRepeated, CANCEL, by_topic.clone());
    finds(Bug::ClaimIsAnEnd, CANCEL, by_topic);
    let one_never_starts = Setup { faults: 3, kinds: &[Duplicate, Forgets, NeverStarts], ..one() };
    finds(Bug::EndUnclaimed, FINAL, one_never_starts);
    finds(Bug::UnreadIsUnstarted, FINAL, Setup { impatience: true, kinds: &[RunnerCrash], ..one() });
    finds(Bug::RefuseUnrecorded, RECORD, Setup { faults: 0, denials: true, ..one() });
    finds(Bug::EndUnrecorded, RECORD, Setup { kinds: &[RunnerCrash], ..one() });
}

/// The assumptions, and what follows where they do not hold.
#[test]
fn the_limits_are_where_they_are_said_to_be() {
    let deaf = Setup { faults: 2, cancels: true, kinds: &[Hang, LostCancel], ..one() };
    assert_eq!(broken(&deaf).map(|finding| finding.rule), Some(CANCEL), "by queue alone, and the runner hangs");
    let two_tasks = Setup { faults: 2, cancels: true, control: false, kinds: &[Duplicate, Forgets], ..one() };
    assert_eq!(
        broken(&two_tasks).map(|finding| finding.rule),
        Some(CANCEL),
        "by topic alone, and ECS created two tasks"
    );
}
