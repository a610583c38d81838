//! Many parallel deployments while AWS misbehaves. Each ends with its own exit code, or with one of
//! relay's codes that explains why. No output belongs to another deployment, none is wrong, and no
//! tool runs twice. The seed determines a deployment and the faults that AWS injects into it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Deployed, Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};

use crate::report::Report;

/// Deployments that run at the same time.
const AT_ONCE: usize = 32;

/// After this many deployments, AWS misbehaves in another way.
const PLAN: u64 = 40;

/// A limit for every wait. It is generous, as the CLI's timeouts are minutes and the machine is
/// busy.
const BOUND: Duration = Duration::from_secs(600);

/// What happens to one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Story {
    /// It prints, and ends with an exit code of its own.
    Plain,
    /// Like `Plain`, with much more output.
    Long,
    /// Its parameter does not match the rule.
    Refused,
    /// CI interrupts it with SIGINT.
    Interrupted,
    /// The tool is killed.
    ToolKilled,
    /// The runner is killed.
    RunnerKilled,
    /// The CLI is killed, and another one attaches.
    CliKilled,
}

/// The result of one deployment.
struct Ended {
    story: Story,
    code: i32,
    expected: i32,
    /// The last message of a deployment that did not end as expected.
    words: String,
    /// Whether the CLI reported a gap.
    gap: bool,
    wrong: Vec<String>,
}

fn story(seed: u64) -> Story {
    match seed % 25 {
        0 | 1 => Story::Interrupted,
        2 | 3 => Story::RunnerKilled,
        4 | 5 => Story::CliKilled,
        6 => Story::ToolKilled,
        7 => Story::Refused,
        8 | 9 => Story::Long,
        _ => Story::Plain,
    }
}

/// Fault rules of one kind for these operations, each with this probability.
fn rules(kind: &str, operations: &[(&str, &str)], probability: f64, more: &str) -> String {
    operations.iter().fold(String::new(), |mut text, (service, operation)| {
        let _ = writeln!(
            text,
            "[[rule]]\nservice = \"{service}\"\noperation = \"{operation}\"\nkind = \"{kind}\"\nprobability = {probability}\n{more}"
        );
        text
    })
}

const CALLS: &[(&str, &str)] = &[
    ("sqs", "SendMessageBatch"),
    ("sqs", "ReceiveMessage"),
    ("sqs", "DeleteMessageBatch"),
    ("sqs", "CreateQueue"),
    ("s3", "PutObject"),
    ("s3", "GetObject"),
    ("ecs", "RunTask"),
    ("ecs", "DescribeTasks"),
    ("ecs", "ListTasks"),
    ("kms", "Sign"),
    ("sns", "Publish"),
    ("lambda", "Invoke"),
];

const DELIVERIES: &[(&str, &str)] =
    &[("sns", "Publish"), ("lambda", "Invoke"), ("sqs", "SendMessageBatch"), ("sqs", "ReceiveMessage")];

/// The faults that AWS injects into the deployments of one plan.
fn plan(number: u64) -> String {
    let shuffled = || {
        [
            rules("duplicate", DELIVERIES, 0.3, ""),
            rules("delay", DELIVERIES, 0.4, "delay_ms = [0, 300]\n"),
            rules("reorder", &[("sqs", "ReceiveMessage")], 1.0, ""),
        ]
        .concat()
    };
    let failing = |probability| {
        ["throttle", "error", "lost-response", "timeout-before"]
            .map(|kind| rules(kind, CALLS, probability, ""))
            .concat()
    };
    let partial = || rules("partial-batch", &[("sqs", "SendMessageBatch"), ("sqs", "DeleteMessageBatch")], 0.3, "");
    let rules = match number % 6 {
        0 => String::new(),
        1 => shuffled(),
        2 => failing(0.02),
        3 => [shuffled(), failing(0.01), partial()].concat(),
        4 => [
            rules("run-task-failures", &[("ecs", "RunTask")], 0.3, ""),
            rules("conflict", &[("s3", "PutObject")], 0.1, ""),
            rules("delay", &[("ecs", "RunTask"), ("kms", "Sign"), ("s3", "GetObject")], 0.3, "delay_ms = [0, 2000]\n"),
        ]
        .concat(),
        _ => rules("outage", &[("sqs", "*")], 1.0, "until_ms = 2500\n") + &partial(),
    };
    format!("seed = {number}\n{rules}")
}

/// Runs all deployments: 1,000 at a scale of 1.
pub(crate) fn run(report: &mut Report, scale: f64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a scale of at most 1")]
    let count = (1_000.0 * scale).ceil() as u64;
    let head = Head { cancel: r#"{ signal = "INT", grace = "20s" }"#, concurrency: 256, ..Head::default() };
    let sandbox = Sandbox::start(
        Options { launchers: 16, ..Options::default() }
            .set("task_events=true")
            .set("schedule_ms=5000")
            .target("test/soak", target("test/soak", &head, SHELL)),
    );
    let (next, current) = (AtomicU64::new(0), Mutex::new(None));
    let work = || {
        let mut ended = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                return ended;
            }
            {
                let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
                if current.is_none_or(|plan| plan < seed / PLAN) {
                    *current = Some(seed / PLAN);
                    sandbox.set_faults(&plan(seed / PLAN));
                }
            }
            ended.push(One { seed, sandbox: &sandbox }.run());
        }
    };
    let ended: Vec<Ended> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    sandbox.set_faults("");
    tell(report, &sandbox, &ended);
}

fn tell(report: &mut Report, sandbox: &Sandbox, ended: &[Ended]) {
    report.fact("deployments", ended.len());
    let mut stories: BTreeMap<Story, usize> = BTreeMap::new();
    let mut otherwise: BTreeMap<String, usize> = BTreeMap::new();
    for one in ended {
        *stories.entry(one.story).or_default() += 1;
        if one.code != one.expected {
            *otherwise
                .entry(format!("{:?}, {} instead of {}: {}", one.story, one.code, one.expected, one.words))
                .or_default() += 1;
        }
        one.wrong.iter().for_each(|wrong| report.wrong(wrong.clone()));
    }
    for (story, count) in stories {
        report.fact(&format!("{story:?}"), count);
    }
    let log = sandbox.log();
    let mut faults: Map<String, Value> = Map::new();
    for fault in log.iter().flat_map(|entry| &entry.faults) {
        let count = faults.get(fault).and_then(Value::as_u64).unwrap_or_default();
        faults.insert(fault.clone(), json!(count + 1));
    }
    report.fact("second CLIs that took what the first had shown for a gap", ended.iter().filter(|one| one.gap).count());
    report.fact("calls", log.len());
    report.fact("faults", faults);
    report.fact("dead letters", log.iter().filter(|entry| entry.is("lambda", "DeadLetter")).count());
    let others: usize = otherwise.values().sum();
    report.fact("ended with a code of relay's own, and why", others);
    for (why, count) in otherwise {
        report.fact(&why, count);
    }
    report.demand(others * 20 <= ended.len(), || format!("{others} ended with another code: more than one in twenty"));
}

struct One<'a> {
    seed: u64,
    sandbox: &'a Sandbox,
}

impl One<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.sandbox.folder().join(format!("{}-{name}", self.seed))
    }

    fn code(&self) -> i32 {
        i32::try_from(self.seed % 100).unwrap_or_default()
    }

    fn lines(&self) -> u64 {
        if story(self.seed) == Story::Long { 20_000 } else { 10 + self.seed % 40 }
    }

    /// The tool's script. Each line contains the seed, so that a line of another deployment would
    /// be noticed.
    fn script(&self) -> String {
        let (seed, ran, pid) = (self.seed, self.file("ran"), self.file("runner"));
        let begin = format!("echo ran >> {}; echo $PPID > {}; echo begun {seed}", ran.display(), pid.display());
        let end = match story(seed) {
            Story::Plain | Story::Refused => format!(
                "n=0; while [ $n -lt {} ]; do n=$((n + 1)); echo {seed} out $n; echo {seed} err $n >&2; done; exit {}",
                self.lines(),
                self.code()
            ),
            Story::Long => format!("seq -f '{seed} out %.0f' {}; exit {}", self.lines(), self.code()),
            Story::CliKilled => format!(
                "n=0; while [ $n -lt {} ]; do n=$((n + 1)); echo {seed} out $n; sleep 0.1; done; exit {}",
                self.lines(),
                self.code()
            ),
            Story::Interrupted => "trap 'echo stopped; exit 9' INT; while :; do sleep 0.1; done".to_owned(),
            Story::ToolKilled => "kill -KILL $$".to_owned(),
            Story::RunnerKilled => "exec sleep 300".to_owned(),
        };
        format!("{begin}; {end}")
    }

    fn expected(&self) -> (i32, String, String) {
        let seed = self.seed;
        let lines = |stream: &str| (1..=self.lines()).map(|n| format!("{seed} {stream} {n}\n")).collect::<String>();
        let begun = format!("begun {seed}\n");
        match story(seed) {
            Story::Plain => (self.code(), begun + &lines("out"), lines("err")),
            Story::Long | Story::CliKilled => (self.code(), begun + &lines("out"), String::new()),
            Story::Refused => (120, String::new(), String::new()),
            Story::Interrupted => (130, begun + "stopped\n", String::new()),
            Story::ToolKilled => (137, begun, String::new()),
            Story::RunnerKilled => (122, begun, String::new()),
        }
    }

    fn run(&self) -> Ended {
        let story = story(self.seed);
        let mut deploy = self.sandbox.deploy("test/soak").param("script", &self.script()).bound(BOUND);
        if story == Story::Refused {
            deploy = deploy.param("unknown", "x");
        }
        let running = deploy.args(&["--drain-timeout", "30s"]).start();
        let mut before = String::new();
        let done = match story {
            Story::Plain | Story::Long | Story::Refused | Story::ToolKilled => running.wait(),
            Story::Interrupted | Story::RunnerKilled | Story::CliKilled => {
                if running.prints(&format!("begun {}\n", self.seed)) {
                    match story {
                        Story::Interrupted => running.signal(Signal::INT),
                        Story::RunnerKilled => self.kill_runner(),
                        _ => running.signal(Signal::KILL),
                    }
                }
                let done = running.wait();
                if story == Story::CliKilled && done.code == 137 {
                    before = done.out();
                    let attach = self.sandbox.relay(&["attach", &done.id(), "--drain-timeout", "30s"]);
                    attach.bound(BOUND).run()
                } else {
                    done
                }
            }
        };
        self.judge(story, &before, &done)
    }

    fn kill_runner(&self) {
        let pid =
            std::fs::read_to_string(self.file("runner")).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        kill_process(pid.expect("the tool noted its runner"), Signal::KILL).expect("the runner runs");
    }

    fn judge(&self, story: Story, before: &str, done: &Deployed) -> Ended {
        let (expected, out, err) = self.expected();
        let mut wrong = Vec::new();
        let mut demand = |holds: bool, what: String| {
            if !holds {
                wrong.push(format!("seed {}, {story:?}: {what}; {}", self.seed, done.err()));
            }
        };
        let ran = std::fs::read_to_string(self.file("ran")).unwrap_or_default().lines().count();
        demand(ran <= 1, format!("the tool ran {ran} times"));
        let printed = done.out();
        // The CLI reports a failure before it follows the deployment in a different form from later
        // ones.
        let failure = |line: &&str| line.starts_with("error: ") || line.starts_with("hint: ");
        let tool_err = String::from_utf8_lossy(&done.tool_err()).into_owned();
        let tool_err: String = tool_err.split_inclusive('\n').filter(|line| !failure(line)).collect();
        demand(out.starts_with(before), format!("stdout of the first CLI is not the tool's: {before:?}"));
        let says = |words: &[&str]| words.iter().any(|words| done.err().contains(words));
        let gap = says(&["relay: GAP"]);
        if done.code == expected {
            let complete = if before.is_empty() {
                printed == out && tool_err == err
            } else if gap {
                // Frames that the first CLI deleted out of order are missing for the second, which
                // reports a gap. Even so, the two together show each line, and each shows its lines
                // in order.
                let places = |shown: &str| -> Option<Vec<usize>> {
                    shown.lines().map(|line| out.lines().position(|known| known == line)).collect()
                };
                places(before).zip(places(&printed)).is_some_and(|(before, printed)| {
                    let all = |place| before.contains(&place) || printed.contains(&place);
                    printed.is_sorted_by(|a, b| a < b) && (0..out.lines().count()).all(all)
                })
            } else {
                out.ends_with(&printed) && before.len() + printed.len() >= out.len()
            };
            demand(complete, format!("the printed output is not the tool's: {before:?} and {printed:?}"));
            demand(ran == usize::from(story != Story::Refused), format!("the tool ran {ran} times"));
        } else {
            let reason = match done.code {
                120 => says(&["relay refused: "]) && ran == 0,
                121 => says(&["relay never started: "]) && ran == 0,
                122 => says(&["outcome unknown: "]),
                125 => says(&["error: ", "relay finished: "]),
                _ => false,
            };
            demand(reason, format!("exit code {}, expected {expected}", done.code));
            demand(
                out.contains(&printed) && err.starts_with(&tool_err),
                format!("the printed output is not the tool's: {printed:?}"),
            );
        }
        let telling =
            ["relay refused: ", "relay never started: ", "relay outcome unknown: ", "error: ", "relay finished: "];
        let words = done
            .err()
            .lines()
            .find(|line| telling.iter().any(|start| line.starts_with(start)))
            .unwrap_or_default()
            .to_owned();
        Ended { story, code: done.code, expected, words, gap, wrong }
    }
}
