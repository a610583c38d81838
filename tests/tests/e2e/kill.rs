//! The kill matrix: SIGKILL, SIGSTOP and restart of each real process in each phase. No cell runs
//! the tool twice, hangs, or reports anything false. The table in `docs/reliability.md` is
//! generated from the same cells; RELAY_BLESS=1 rewrites it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use relay_tests::kit::kill::{Blow, Cell, Outcome, Output, Phase, Process, Ran, TOOLS_OWN, Telling, Told, run};
use relay_tests::{document, quick};

/// How many cells run at the same time: they wait more than they work.
const AT_ONCE: usize = 4;

/// The outcome of an undisturbed deployment.
const UNHARMED: Outcome =
    Outcome { code: TOOLS_OWN, ran: Ran::Once, output: Output::Complete, told: Told::Runner, again: None };

/// Contact is lost before anything ran.
const fn lost_before(told: Told) -> Outcome {
    Outcome { code: 122, ran: Ran::Not, output: Output::None, told, again: None }
}

/// Contact is lost while the tool runs.
const fn lost(ran: Ran, told: Told) -> Outcome {
    Outcome { code: 122, ran, output: Output::Beginning, told, again: None }
}

fn cells() -> Vec<Cell> {
    use Phase::{
        Asking, Between, Claimed, Claiming, Deciding, Ended, Ending, Launched, Published, Running, Telling as Tells,
    };
    use Process::{Aws, Cli, Launcher, Runner, Tool};
    use Telling::{Events, Nobody, Watchdog};
    let mut cells = Vec::new();
    let mut add = |process, blow, phases: &[Phase], telling, outcome| {
        cells.extend(phases.iter().map(|&phase| Cell { process, blow, phase, telling, outcome }));
    };

    add(Cli, Blow::Kill, &[Asking], Events, Outcome { code: 137, told: Told::Nobody, ..lost_before(Told::Nobody) });
    let on_the_way = [Published, Deciding, Claiming, Claimed, Running, Between, Ending];
    add(Cli, Blow::Kill, &on_the_way, Events, UNHARMED);
    // The first call has printed the end and deleted all frames. The second learns only from the
    // watchdog that the task has stopped.
    add(Cli, Blow::Kill, &[Ended], Watchdog, Outcome { code: 122, told: Told::Watchdog, ..UNHARMED });
    add(Cli, Blow::Pause, &[Asking], Events, UNHARMED);
    add(Cli, Blow::Pause, &on_the_way, Events, UNHARMED);
    add(Cli, Blow::Pause, &[Ended], Events, UNHARMED);
    add(Cli, Blow::Late, &[Running], Events, UNHARMED);

    add(Launcher, Blow::Kill, &[Asking, Deciding, Launched, Running, Ended], Events, UNHARMED);
    add(Launcher, Blow::Pause, &[Deciding, Launched, Running], Events, UNHARMED);
    add(Launcher, Blow::Stop, &[Deciding, Launched], Events, UNHARMED);
    add(Launcher, Blow::Stop, &[Deciding], Nobody, lost_before(Told::Admission));
    for blow in [Blow::Kill, Blow::Pause, Blow::Stop] {
        add(Launcher, blow, &[Tells], Events, lost(Ran::Once, Told::Event));
    }

    for (telling, before, after) in [
        (Events, Told::Event, Told::Event),
        (Watchdog, Told::Watchdog, Told::Watchdog),
        (Nobody, Told::Start, Told::Silence),
    ] {
        add(Runner, Blow::Kill, &[Claiming, Claimed], telling, lost_before(before));
        add(Runner, Blow::Kill, &[Running], telling, lost(Ran::Once, after));
    }
    add(Runner, Blow::Kill, &[Between], Events, lost(Ran::Half, Told::Event));
    add(Runner, Blow::Kill, &[Ending], Events, lost(Ran::Once, Told::Event));
    add(Runner, Blow::Kill, &[Ended], Events, UNHARMED);
    // The launcher has claimed for the end that it reported. If nothing reported the end, the next
    // runner is the first to claim.
    let refused = |outcome| Outcome { again: Some(120), ..outcome };
    add(Runner, Blow::Again, &[Claiming, Claimed], Events, refused(lost_before(Told::Event)));
    add(Runner, Blow::Again, &[Claiming], Nobody, Outcome { again: Some(TOOLS_OWN), ..UNHARMED });
    add(Runner, Blow::Again, &[Running, Ending], Events, refused(lost(Ran::Once, Told::Event)));
    add(Runner, Blow::Again, &[Between], Events, refused(lost(Ran::Half, Told::Event)));
    add(Runner, Blow::Pause, &[Claiming, Claimed, Running, Between, Ending, Ended], Events, UNHARMED);
    add(Runner, Blow::Late, &[Running], Events, UNHARMED);
    add(Runner, Blow::Stop, &[Claiming, Claimed], Events, lost_before(Told::Start));
    add(Runner, Blow::Stop, &[Running], Events, lost(Ran::Once, Told::Silence));
    add(Runner, Blow::Stop, &[Between], Events, lost(Ran::Half, Told::Silence));
    // A message that has left the process still arrives.
    add(Runner, Blow::Stop, &[Ending, Ended], Events, UNHARMED);

    add(Tool, Blow::Kill, &[Running], Events, Outcome { code: 137, ..UNHARMED });
    add(Tool, Blow::Pause, &[Running], Events, UNHARMED);
    add(Tool, Blow::Stop, &[Running], Events, Outcome { code: 124, ..UNHARMED });

    let any = [Asking, Published, Deciding, Launched, Claiming, Claimed, Running, Between, Ending, Ended];
    add(Aws, Blow::Pause, &any, Events, UNHARMED);
    cells
}

/// One cell in four with RELAY_QUICK; only the cells whose name contains RELAY_CELL, if that is
/// set.
#[test]
fn every_process_in_every_phase() {
    let mut cells = cells();
    if let Ok(named) = std::env::var("RELAY_CELL") {
        cells.retain(|cell| cell.to_string().contains(&named));
    } else if quick() {
        cells = cells.into_iter().step_by(4).collect();
    }
    assert!(!cells.is_empty(), "no cell matches RELAY_CELL");
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(cell) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            // The thread is named after the cell, so that its panic message can be found.
            let alone = || std::thread::Builder::new().name(cell.to_string());
            let began = Instant::now();
            let outcome = std::thread::scope(|scope| alone().spawn_scoped(scope, || run(cell)).unwrap().join());
            eprintln!("{:5.1} s {cell}", began.elapsed().as_secs_f64());
            match outcome {
                Ok(outcome) if outcome == cell.outcome => {}
                Ok(outcome) => failures.push(format!("RELAY_CELL={cell}: {outcome:?}, expected {:?}", cell.outcome)),
                Err(_) => failures.push(format!("RELAY_CELL={cell}: see the panic above")),
            }
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {} cells failed:\n{}", failures.len(), cells.len(), failures.join("\n"));
}

#[test]
fn the_document_has_this_table() {
    document::holds("docs/reliability.md", "kill matrix", &made());
}

/// The table: one row for each outcome, with all the phases that lead to it.
fn made() -> String {
    let mut rows: BTreeMap<(Process, Blow, Telling, Outcome), Vec<Phase>> = BTreeMap::new();
    for cell in cells() {
        rows.entry((cell.process, cell.blow, cell.telling, cell.outcome)).or_default().push(cell.phase);
    }
    let mut table = String::from(
        "| process | what happens to it | when | exit code | tool ran | output | reported by |\n|---|---|---|---|---|---|---|\n",
    );
    for ((process, blow, telling, outcome), phases) in rows {
        let phases: Vec<&str> = phases.into_iter().map(|phase| when(process, phase)).collect();
        let cells = [
            name(process).to_owned(),
            format!("{}{}", what(process, blow), untold(process, telling)),
            phases.join("; "),
            code(process, blow, outcome),
            ran(outcome.ran).to_owned(),
            output(outcome.output).to_owned(),
            by(outcome.told).to_owned(),
        ];
        table.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    table
}

fn name(process: Process) -> &'static str {
    match process {
        Process::Cli => "CLI",
        Process::Launcher => "launcher",
        Process::Runner => "runner",
        Process::Tool => "tool",
        Process::Aws => "AWS",
    }
}

fn what(process: Process, blow: Blow) -> &'static str {
    match (process, blow) {
        (Process::Cli, Blow::Kill) => "KILL, then `relay attach`",
        (_, Blow::Kill) => "KILL",
        (_, Blow::Again) => "KILL, then its task runs again",
        (Process::Cli, Blow::Pause) => "STOP, CONT when the task has stopped",
        (Process::Cli, Blow::Late) => "STOP for longer than its silence timeout, CONT",
        (Process::Aws, _) => "STOP, CONT after 3 s",
        (_, Blow::Pause) => "STOP, CONT after 1 s",
        (_, Blow::Late) => "STOP, CONT when the CLI has given up, `relay attach`",
        (_, Blow::Stop) => "STOP for good",
    }
}

/// What else goes wrong, as a suffix of the event.
fn untold(process: Process, telling: Telling) -> &'static str {
    match (process, telling) {
        (_, Telling::Events) => "",
        (_, Telling::Watchdog) => "; ECS's events are lost",
        (Process::Launcher, Telling::Nobody) => "; Lambda does not end it",
        (_, Telling::Nobody) => "; events are lost, the watchdog does not run",
    }
}

fn when(process: Process, phase: Phase) -> &'static str {
    match phase {
        Phase::Asking => "before the publication",
        Phase::Published => "published",
        Phase::Deciding => "the launcher decides",
        Phase::Launched => "after RunTask, before the launcher's answer",
        Phase::Claiming => "before the claim",
        Phase::Claimed => "claimed, before `started`",
        Phase::Running => "a step prints",
        Phase::Between => "between two steps",
        Phase::Ending => "the last frame is in flight",
        Phase::Ended if process == Process::Runner => "the last frame has arrived",
        Phase::Ended => "after the end, before the queues are deleted",
        Phase::Telling => "it reports that the runner was killed",
    }
}

fn code(process: Process, blow: Blow, outcome: Outcome) -> String {
    let words = match (process, blow, outcome.code) {
        (.., TOOLS_OWN) => "the tool's".to_owned(),
        (Process::Tool, Blow::Kill, code) => format!("{code}, the tool's"),
        (.., code) => code.to_string(),
    };
    match outcome.again {
        Some(TOOLS_OWN) => format!("{words}, from the second task"),
        Some(code) => format!("{words}; the second task's {code}"),
        None => words,
    }
}

fn ran(ran: Ran) -> &'static str {
    match ran {
        Ran::Not => "no",
        Ran::Half => "its first step",
        Ran::Once => "once",
    }
}

fn output(output: Output) -> &'static str {
    match output {
        Output::None => "none",
        Output::Complete => "complete",
        Output::Beginning => "its beginning; relay reports how much",
    }
}

fn by(told: Told) -> &'static str {
    match told {
        Told::Runner => "the runner",
        Told::Event => "ECS's event",
        Told::Watchdog => "the watchdog",
        Told::Admission => "the admission timeout",
        Told::Start => "the start timeout",
        Told::Silence => "the silence timeout",
        Told::Nobody => "nobody",
    }
}
