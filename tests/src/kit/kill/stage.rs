//! Runs one cell of the kill matrix, from its sandbox to its outcome.
//!
//! Nothing depends on timing: the sandbox holds the very call in which a process is to be caught,
//! or the tool waits at a gate. Whatever a process could still do is released only after it is gone
//! or stopped.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use relay_protocol::overrides;
use rustix::process::{Pid, Signal, kill_process};

use super::{Blow, Cell, Outcome, Output, Phase, Process, Ran, Telling, Told};
use crate::kit::account::Launch;
use crate::kit::deploy::{Deploy, Deployed, Running};
use crate::kit::sandbox::{Options, Sandbox, Task};
use crate::kit::targets::{Head, target};
use crate::kit::wait::eventually;

/// How long AWS is unavailable.
const OUTAGE: Duration = Duration::from_secs(3);

/// How long a process is stopped when nothing is waiting for it.
const PAUSE: Duration = Duration::from_secs(1);

/// A silence timeout that is meant to pass. It is longer than any silence of a tool that prints ten
/// lines a second.
const SILENCE: Duration = Duration::from_secs(5);

/// Two steps. The second prints until it is told to be silent, and ends when it is told to end.
/// Each line is written to the file `truth` before it is printed, and each step to the file `ran`.
/// The first step leaves a file that is saved, so that there is a call between the two.
const STEPS: &str = r#"
[parameters]
folder = { pattern = "[A-Za-z0-9/._-]+" }

[[steps]]
name = "one"
run = ["sh", "-c", '''
cell=$RELAY_PARAM_FOLDER
echo one >> $cell/ran
echo "the first step" >> $cell/truth; echo "the first step"; echo saved > saved
''']
save = ["saved"]

[[steps]]
name = "two"
run = ["sh", "-c", '''
cell=$RELAY_PARAM_FOLDER
say() {{ echo "$1" >> $cell/truth; echo "$1"; }}
echo two >> $cell/ran
echo $$ > $cell/pid
n=0
while [ ! -e $cell/silent ]; do n=$((n + 1)); say "line $n"; sleep 0.1; done
say over
while [ ! -e $cell/end ]; do sleep 0.05; done
exit 7
''']
"#;

/// A process that stays stopped until this value is dropped.
#[derive(Debug)]
struct Paused(Pid);

impl Paused {
    /// Stops the process and waits until it has stopped.
    #[track_caller]
    fn new(pid: Pid) -> Self {
        kill_process(pid, Signal::STOP).expect("the process exists");
        let paused = Self(pid);
        eventually("the process has stopped", || (state(pid) == Some('T')).then_some(()));
        paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It may have been killed in the meantime.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The state of a process, as `/proc` shows it; `None` if the process is gone.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A sandbox with one deployment on it.
struct Stage<'a> {
    cell: &'a Cell,
    sandbox: std::sync::Arc<Sandbox>,
    folder: PathBuf,
}

/// Runs a cell and returns its outcome.
pub fn run(cell: &Cell) -> Outcome {
    let stage = Stage::new(cell);
    let cli = stage.start();
    stage.reach(&cli);
    let pid = stage.pid(&cli);
    let mut again = None;
    // Stopped until the end of the cell.
    let mut for_good = None;
    let mut given_up = None;
    let mut cli = Some(cli);
    match (cell.process, cell.blow) {
        (process, Blow::Kill | Blow::Again) => {
            stage.kill(pid);
            eventually("the process is gone", || matches!(state(pid), None | Some('Z')).then_some(()));
            if cell.phase.is_call_of(process) {
                // The call that it was making is not carried out: its connection is closed.
                eventually("its call is dropped", || stage.sandbox.held().is_empty().then_some(()));
            }
            if cell.blow == Blow::Again {
                again = stage.again();
            } else {
                stage.go_on();
            }
        }
        (Process::Aws, _) => {
            let paused = Paused::new(pid);
            std::thread::sleep(OUTAGE);
            drop(paused);
            stage.go_on();
        }
        (_, Blow::Stop) => {
            for_good = Some(Paused::new(pid));
            stage.go_on();
        }
        (Process::Cli, blow) => {
            let (paused, began) = (Paused::new(pid), Instant::now());
            stage.go_on();
            stage.until_over();
            if blow == Blow::Late {
                std::thread::sleep((SILENCE + PAUSE).saturating_sub(began.elapsed()));
            }
            drop(paused);
        }
        (_, Blow::Late) => {
            let paused = Paused::new(pid);
            given_up = cli.take().map(Running::wait);
            drop(paused);
            stage.go_on();
        }
        (_, Blow::Pause) => {
            let paused = Paused::new(pid);
            stage.go_on();
            std::thread::sleep(PAUSE);
            drop(paused);
        }
    }
    let first = given_up.or_else(|| cli.take().map(Running::wait)).expect("the CLI was started");
    let outcome = stage.judge(first, again);
    drop(for_good);
    outcome
}

impl Phase {
    /// Whether the held call is this process's own. False if the call is repeated in its place, as
    /// Lambda does for a launcher.
    fn is_call_of(self, process: Process) -> bool {
        match process {
            Process::Cli => matches!(self, Self::Asking | Self::Published | Self::Ended),
            Process::Runner => {
                matches!(self, Self::Claiming | Self::Claimed | Self::Between | Self::Ending | Self::Ended)
            }
            Process::Launcher | Process::Tool | Process::Aws => false,
        }
    }
}

/// A fault plan that holds one operation of one caller.
fn hold(when: &str, service: &str, operation: &str, by: &str, matching: &str) -> String {
    format!(
        "[[rule]]\nkind = \"hold-{when}\"\nservice = \"{service}\"\noperation = \"{operation}\"\nby = \"{by}\"\nmatch = \"{matching}\"\n"
    )
}

const LAUNCHER: &str = "role/relay/relay-launcher";
const RUNNER: &str = "role/relay/relay-test-";
const CI: &str = "role/ci";

impl<'a> Stage<'a> {
    fn new(cell: &'a Cell) -> Self {
        let head = |timeout| Head { timeout, cancel: r#"{ signal = "TERM", grace = "1s" }"#, ..Head::default() };
        let mut options = Options { launchers: 1, ..Options::default() }
            .target("test/kill", target("test/kill", &head("10m"), STEPS))
            .target("test/short", target("test/short", &head("4s"), STEPS));
        match cell.telling {
            Telling::Events => options = options.set("task_events=true"),
            Telling::Watchdog => options = options.set("schedule_ms=300"),
            Telling::Nobody => {}
        }
        if cell.process == Process::Launcher && cell.blow == Blow::Stop && cell.telling == Telling::Events {
            // Lambda ends a function that does not answer.
            options = options.set("function_timeout_ms=8000");
        }
        let sandbox = Sandbox::start(options);
        let folder = sandbox.folder().join("cell");
        std::fs::create_dir(&folder).expect("a folder");
        Self { cell, sandbox, folder }
    }

    /// The target. A tool that never ends by itself gets one with a short timeout.
    fn target(&self) -> &'static str {
        if (self.cell.process, self.cell.blow) == (Process::Tool, Blow::Stop) { "test/short" } else { "test/kill" }
    }

    /// Shortens the one timeout that is expected to pass.
    fn clocks(&self, call: Deploy, attaching: bool) -> Deploy {
        let short = |flag: &str, after: Duration| [flag.to_owned(), format!("{}s", after.as_secs())];
        let told = self.cell.outcome.told;
        let flags = match told {
            _ if self.cell.blow == Blow::Late && !attaching => short("--silence-timeout", SILENCE),
            Told::Event | Told::Watchdog => short("--drain-timeout", Duration::from_secs(2)),
            Told::Admission => short("--admission-timeout", Duration::from_secs(3)),
            Told::Start => short("--start-timeout", Duration::from_secs(3)),
            Told::Silence => short("--silence-timeout", SILENCE),
            Told::Runner | Told::Nobody => return call,
        };
        call.args(&[&flags[0], &flags[1]])
    }

    /// Sets up the held call of the phase, and starts the deployment.
    fn start(&self) -> Running {
        let plan = match self.cell.phase {
            Phase::Asking => hold("before", "sns", "Publish", CI, ""),
            Phase::Published => hold("after", "sns", "Publish", CI, ""),
            Phase::Deciding => hold("before", "s3", "GetObject", LAUNCHER, "/claim"),
            Phase::Launched => hold("before", "kms", "Sign", LAUNCHER, ""),
            Phase::Claiming => hold("before", "s3", "PutObject", RUNNER, "/claim"),
            Phase::Claimed => hold("before", "kms", "Sign", RUNNER, ""),
            Phase::Between => hold("before", "s3", "PutObject", RUNNER, "saved/"),
            Phase::Ended if self.cell.process != Process::Runner => hold("before", "sqs", "DeleteQueue", CI, ""),
            Phase::Running | Phase::Ending | Phase::Ended | Phase::Telling => String::new(),
        };
        self.sandbox.set_faults(&plan);
        let folder = self.folder.to_str().expect("a plain path").to_owned();
        self.clocks(self.sandbox.deploy(self.target()).param("folder", &folder), false).start()
    }

    /// Waits until the deployment has reached the phase.
    fn reach(&self, cli: &Running) {
        let held = |service: &str, operation: &str| {
            let held = eventually(&format!("{service}:{operation} is held"), || {
                // In this order: a call that is held after its effect may be what ends the CLI.
                let ended = cli.has_ended().then_some(false);
                self.sandbox.holds(service, operation).then_some(true).or(ended)
            });
            assert!(held, "the CLI ended before {service}:{operation} was held");
        };
        let prints = |line: &str| assert!(cli.prints(line), "the CLI ended before it printed {line}");
        match self.cell.phase {
            Phase::Asking | Phase::Published => held("sns", "Publish"),
            Phase::Deciding => held("s3", "GetObject"),
            Phase::Launched | Phase::Claimed => held("kms", "Sign"),
            Phase::Claiming | Phase::Between => held("s3", "PutObject"),
            Phase::Running => prints("line 2\n"),
            Phase::Ended if self.cell.process != Process::Runner => {
                self.open();
                held("sqs", "DeleteQueue");
            }
            Phase::Ending | Phase::Ended => {
                // All its output has arrived, so the next message is the last frame.
                std::fs::write(self.folder.join("silent"), "").expect("a file");
                prints("over\n");
                let when = if self.cell.phase == Phase::Ending { "before" } else { "after" };
                self.sandbox.set_faults(&hold(when, "sqs", "SendMessageBatch", RUNNER, ""));
                self.open();
                held("sqs", "SendMessageBatch");
            }
            Phase::Telling => {
                prints("line 2\n");
                self.sandbox.launcher_idle();
                self.sandbox.set_faults(&hold("before", "kms", "Sign", LAUNCHER, ""));
                self.kill(self.task().pid().expect("the runner runs"));
                held("kms", "Sign");
            }
        }
    }

    /// Lets the tool end.
    fn open(&self) {
        for gate in ["silent", "end"] {
            std::fs::write(self.folder.join(gate), "").expect("a file");
        }
    }

    /// Releases every held call, and lets the tool run to its end.
    fn go_on(&self) {
        self.sandbox.set_faults("");
        self.open();
    }

    fn pid(&self, cli: &Running) -> Pid {
        match self.cell.process {
            Process::Cli => cli.pid(),
            Process::Launcher => eventually("a launcher", || self.sandbox.launchers().into_iter().next()),
            Process::Runner => eventually("a runner", || self.task().pid()),
            Process::Tool => eventually("a tool", || {
                let text = std::fs::read_to_string(self.folder.join("pid")).ok()?;
                Pid::from_raw(text.trim().parse().ok()?)
            }),
            Process::Aws => self.sandbox.pid(),
        }
    }

    fn kill(&self, pid: Pid) {
        kill_process(pid, Signal::KILL).expect("the process exists");
    }

    fn task(&self) -> Task {
        eventually("a task", || self.sandbox.tasks().into_iter().next())
    }

    fn until_over(&self) {
        eventually("every task has stopped", || {
            let tasks = self.sandbox.tasks();
            (!tasks.is_empty() && tasks.iter().all(|task| task.status() == "STOPPED")).then_some(())
        });
    }

    /// Runs the same task once more, as any caller of RunTask could. Returns its runner's exit
    /// code.
    fn again(&self) -> Option<i32> {
        self.until_over();
        self.sandbox.launcher_idle();
        self.go_on();
        let named = &self.task().0["overrides"]["containerOverrides"][0]["environment"][0]["value"];
        let launch = Launch {
            definition: "relay_test_kill".to_owned(),
            environment: vec![(overrides::VARIABLE.to_owned(), named.as_str().unwrap_or_default().to_owned())],
            ..Launch::default()
        };
        let arn = self.sandbox.operator().run_task(&launch).expect("RunTask");
        self.sandbox.task_when(&arn, "STOPPED").exit_code().and_then(|code| i32::try_from(code).ok())
    }

    /// Follows the deployment with another call, if the first one did not reach its end.
    fn attach(&self) -> Deployed {
        let queues = self.sandbox.calls("sqs", "CreateQueue");
        let id = queues.iter().find_map(|entry| entry.text("queue").strip_prefix("relay-")?.strip_suffix("-reply"));
        let attach = self.sandbox.relay(&["attach", id.expect("a reply queue")]);
        self.clocks(attach, true).run()
    }

    fn judge(&self, first: Deployed, again: Option<i32>) -> Outcome {
        let published =
            (self.cell.process, self.cell.blow, self.cell.phase) != (Process::Cli, Blow::Kill, Phase::Asking);
        let left = match (self.cell.process, self.cell.blow) {
            (Process::Cli, Blow::Kill) => {
                assert_eq!(first.code, 137);
                published
            }
            (Process::Runner, Blow::Late) => {
                assert_eq!((first.code, told(&first.err(), self.cell.telling)), (122, Told::Silence));
                true
            }
            _ => false,
        };
        let second = left.then(|| self.attach());
        if published && self.cell.blow != Blow::Stop {
            self.until_over();
        }
        let tasks = usize::from(published) + usize::from(self.cell.blow == Blow::Again);
        let started = self.sandbox.tasks().len();
        assert!(started == tasks || self.cell.outcome.told == Told::Admission, "{started} tasks");
        let last = second.as_ref().unwrap_or(&first);
        Outcome {
            code: last.code,
            ran: self.ran(),
            output: self.output(&first, second.as_ref()),
            told: told(&last.err(), self.cell.telling),
            again,
        }
    }

    fn ran(&self) -> Ran {
        let text = std::fs::read_to_string(self.folder.join("ran")).unwrap_or_default();
        match text.lines().collect::<Vec<_>>().as_slice() {
            [] => Ran::Not,
            ["one"] => Ran::Half,
            ["one", "two"] => Ran::Once,
            more => panic!("the tool ran more than once: {more:?}"),
        }
    }

    /// Compares what was printed with what the tool wrote.
    fn output(&self, first: &Deployed, second: Option<&Deployed>) -> Output {
        let truth = std::fs::read_to_string(self.folder.join("truth")).unwrap_or_default();
        let (before, after) = (first.out(), second.map(Deployed::out).unwrap_or_default());
        assert!(truth.starts_with(&before), "relay printed {before:?}, which the tool did not write: {truth:?}");
        let last = second.unwrap_or(first);
        let said = format!("{}\n{}", first.err(), last.err());
        if said.contains("output verified") || said.contains("output complete") {
            // A killed tool may have noted one more line than it printed.
            let unsaid =
                if self.cell.process == Process::Tool { truth.lines().last().map_or(0, str::len) + 1 } else { 0 };
            let ends = truth.ends_with(&after) || unsaid > 0;
            assert!(
                ends && before.len() + after.len() + unsaid >= truth.len(),
                "relay printed {before:?} and {after:?}, the tool wrote {truth:?}"
            );
            return Output::Complete;
        }
        assert!(truth.contains(&after), "relay printed {after:?}, which the tool did not write: {truth:?}");
        if truth.is_empty() {
            return Output::None;
        }
        let count = format!("{} bytes of stdout", last.out().len());
        assert!(said.contains(&count), "`{count}` is not in: {said}");
        Output::Beginning
    }
}

/// How the CLI learned of the end, according to its own messages.
fn told(words: &str, telling: Telling) -> Told {
    if words.contains("relay finished: ") {
        Told::Runner
    } else if words.contains("the task has stopped") {
        match telling {
            Telling::Events => Told::Event,
            Telling::Watchdog => Told::Watchdog,
            Telling::Nobody => panic!("nothing could report the end, but relay says: {words}"),
        }
    } else if words.contains("waiting for the launcher's answer") {
        Told::Admission
    } else if words.contains("waiting for the runner's start") {
        Told::Start
    } else if words.contains("waiting for the runner's next frame") {
        Told::Silence
    } else {
        Told::Nobody
    }
}
