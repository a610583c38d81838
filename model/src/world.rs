//! The state of the model at one moment: both accounts, every program that runs in them, and the
//! messages between them.

use std::fmt;

use relay_engine::launch::{admission, cancel};
use relay_engine::lock::Slot;
use relay_engine::run;

use crate::explore::Step;

/// A deployment, by number.
pub type Id = u8;
/// A task, by number, in the order in which ECS made them.
pub type TaskNo = u8;

/// The complete state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// By id.
    pub deployments: Vec<Deployment>,
    /// By number.
    pub tasks: Vec<Task>,
    /// The launcher's invocations, including those that have not begun: a waiting message is an
    /// invocation at its first line.
    pub invocations: Vec<Invocation>,
    /// The slots of the one target. The content of a slot serves as its ETag.
    pub lock: Vec<Option<TaskNo>>,
    /// How many faults may still happen.
    pub faults: u8,
    /// A rule that a step has broken.
    pub broken: Option<&'static str>,
}

/// The state of one deployment id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deployment {
    /// The state of the CLI's reader; see [`crate::cli::Readers`].
    pub reader: u16,
    /// Whether the CLI has asked for a cancel that went out in at least one way.
    pub asked: bool,
    /// Whether a cancel by topic was dropped, because it came before its request.
    pub dropped: bool,
    /// How the CLI ended.
    pub end: Option<End>,
    /// The reply queue. A frame that was sent twice is in it once, and may be read twice.
    pub reply: Vec<Frame>,
    /// Whether a cancel is in the control queue.
    pub control: bool,
    /// The claim.
    pub claim: Option<Holder>,
    /// Whether the evidence has the request.
    pub stored: bool,
    /// Whether there is a record, the runner's or the launcher's.
    pub recorded: bool,
    /// Whether an invocation about it was given up, and is a dead letter.
    pub dead_letter: bool,
    /// Whether the object `cancels/<id>` exists.
    pub note: bool,
    /// How often the tool was started.
    pub runs: u8,
    /// The exit code of the tool.
    pub code: Option<u8>,
}

/// How `relay deploy` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// The tool's own exit code.
    Tool(u8),
    /// 120, decided by the launcher or the runner.
    Refused,
    /// 121.
    NeverStarted,
    /// One of relay's own codes for a known end: cancelled, timed out, stopped, a fault.
    Ended(u8),
    /// 122.
    Unknown,
    /// No exit code: it was killed.
    Killed,
}

/// The holder of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A process in a task; the number is its nonce.
    Runner(TaskNo, u8),
    /// The launcher, with its final answer.
    Verdict(Verdict),
}

/// The launcher's final answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The request is not allowed.
    Refused,
    /// ECS did not start the task.
    LaunchFailed,
}

/// A frame in a reply queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Frame {
    /// The launcher's `admitted`.
    Admitted(TaskNo),
    /// The launcher's `refused` or `launch_failed`.
    Final(Verdict),
    /// The launcher's `task`, with the state STOPPED.
    Stopped(TaskNo, Why),
    /// The runner's `started`.
    Started(TaskNo),
    /// The runner's `output`, with its number among the runner's frames.
    Output(TaskNo, u8),
    /// The runner's `finished`, with the number of frames before it.
    Finished(TaskNo, u8, Outcome),
}

/// The cause of a task's stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// StopTask, for a cancel.
    Cancelled,
    /// StopTask, past its deadline.
    Overdue,
    /// Its container was never started.
    NeverStarted,
    /// The runner ended by itself, with the exit code 120 or 125.
    Refusal,
    /// The runner ended otherwise.
    Exited,
    /// The runner was killed.
    Killed,
}

/// The outcome that a runner reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The tool's exit code.
    Exit(u8),
    /// The tool was stopped.
    Halted(Halt),
    /// The runner's own decision was no, or the lock was held.
    Denied,
    /// The runner could not do its work.
    Fault,
}

/// The cause that stops a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Halt {
    /// A control statement.
    Cancelled,
    /// The end of its time.
    TimedOut,
    /// SIGTERM.
    Terminated,
}

/// An ECS task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// The deployment that it belongs to: `startedBy`.
    pub id: Id,
    /// How far it is.
    pub life: Life,
    /// The reason for its stop, once asked for: `desiredStatus` is STOPPED.
    pub stop: Option<Why>,
    /// Whether the watchdog has reported its end.
    pub told: bool,
}

impl Task {
    /// Its process, if one runs.
    pub fn running(&self) -> Option<&Process> {
        match &self.life {
            Life::Running(process) => Some(process),
            Life::Waiting | Life::Stopped(_) => None,
        }
    }
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Before RUNNING.
    Waiting,
    /// Running, with this process.
    Running(Process),
    /// STOPPED.
    Stopped(Why),
}

/// A runner's process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// The facts that it knows; [`run::next`] decides what it needs next.
    pub known: run::Known,
    /// How far it is with that need.
    pub line: Line,
    /// Its outcome, once that is known.
    pub outcome: Option<Outcome>,
    /// Each process makes a new one.
    pub nonce: u8,
    /// The first request to stop that it has heard.
    pub halt: Option<Halt>,
    /// How many frames it has made.
    pub said: u8,
    /// Whether it hangs, and does nothing more.
    pub hung: bool,
}

impl Process {
    /// Its next need; `None` while its tool runs.
    pub fn need(&self) -> Option<run::Need> {
        let known = run::Known { halted: self.halt.is_some(), ..self.known };
        (self.line != Line::Runs).then(|| run::next(&known))
    }

    /// Whether it holds a slot.
    pub fn holds(&self) -> bool {
        self.known.locked == Some(true) && !self.known.released
    }
}

/// How far a process is with its current need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Line {
    /// At the beginning.
    Begins,
    /// It has checked this many slots, and none was free.
    Looks(u8),
    /// It writes the slot of this look, if the slot's content is still what it was.
    Takes(u8, Option<TaskNo>),
    /// Its tool runs.
    Runs,
}

/// One invocation of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Invocation {
    /// Its subject.
    pub about: About,
    /// How often it may still be started, this time included, before it is given up.
    pub tries: u8,
    /// The line that it is at.
    pub at: At,
}

/// The subject of an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// A request.
    Request(Id),
    /// A cancel through the topic.
    Cancel(Id),
    /// ECS's event that a task has stopped.
    Stopped(TaskNo),
}

/// How far an invocation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum At {
    /// At the beginning.
    Begin,
    /// A request: [`admission::next`] decides what comes next. The frame is the answer so far.
    Request(admission::Known, Option<Frame>),
    /// A cancel: [`cancel::next`] decides what comes next. The task is the one to cancel.
    Cancel(cancel::Known, Option<TaskNo>),
}

/// A fault that can happen. Each one uses up one of [`Setup::faults`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SNS or Lambda delivers a message once more.
    Duplicate,
    /// SQS delivers a frame once more.
    FrameAgain,
    /// An invocation ends at any line; Lambda starts it again.
    LauncherCrash,
    /// A runner is killed at any line.
    RunnerCrash,
    /// A runner hangs forever.
    Hang,
    /// The container is started again in the same task.
    Restart,
    /// The answer to a write of the runner is lost.
    LostAnswer,
    /// ECS's event is lost.
    LostEvent,
    /// The cancel goes out in one way only, or the control queue cannot be read before the first
    /// step.
    LostCancel,
    /// RunTask returns `failures`.
    Failures,
    /// The container never starts.
    NeverStarts,
    /// ListTasks does not show the task.
    Stale,
    /// ECS has forgotten the token.
    Forgets,
    /// `started` does not arrive in time.
    Outage,
}

/// A mistake made on purpose, to show that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The runner does not claim.
    NoClaim,
    /// A runner that reads a claim back takes it for its own by the request digest alone.
    ClaimByDigest,
    /// A runner that reads a claim back compares digest and task but not the nonce, so that a
    /// restarted container takes the claim for its own.
    ClaimByTask,
    /// A runner takes each claim that it did not see succeed for lost.
    ClaimNotReadBack,
    /// A slot is taken over without asking ECS.
    TakeOver,
    /// The launcher refuses without claiming.
    RefuseUnclaimed,
    /// The tool starts before `started` has arrived.
    ToolBeforeStarted,
    /// The tool starts before the claim.
    ToolBeforeClaim,
    /// The CLI sends its cancel only once.
    CancelNotRepeated,
    /// A cancel takes a runner's claim for an end, and does nothing.
    ClaimIsAnEnd,
    /// The end of a task is reported whoever holds the claim, and is not claimed first if nobody
    /// does.
    EndUnclaimed,
    /// A task that stopped before its `started` was read counts as never started, whatever ECS
    /// says.
    UnreadIsUnstarted,
    /// The launcher does not record what it refuses.
    RefuseUnrecorded,
    /// The launcher does not record the end of a task whose runner left no record.
    EndUnrecorded,
}

/// Where a check begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Each CLI has published its request.
    Published,
    /// Each CLI has published its request and is gone.
    Alone,
    /// Each runner has claimed its deployment and sent `started`. There is no CLI, and no launcher.
    AtLock,
}

/// The bounds of a check.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Deployments of the one target.
    pub deployments: u8,
    /// The target's concurrency.
    pub slots: u8,
    /// How many faults of the kinds below may happen in total.
    pub faults: u8,
    /// The kinds of faults that may happen.
    pub kinds: &'static [Fault],
    /// How often an invocation is started.
    pub tries: u8,
    /// The most tasks that are ever made. Two for one deployment are already one too many.
    pub tasks: u8,
    /// How often a tool prints at most.
    pub prints: u8,
    /// Whether policy may refuse. It may answer the launcher and the runner differently.
    pub denials: bool,
    /// Whether people may cancel.
    pub cancels: bool,
    /// Whether the request names a control queue.
    pub control: bool,
    /// Whether the CLI's clocks may run out at any time, and the CLI may be killed.
    pub impatience: bool,
    /// Whether time on the server may run out at any time: the runner's, and the watchdog's.
    pub timeouts: bool,
    /// Whether the last try of a cancel through the topic comes after its request was handled, and
    /// does not fail.
    pub cancel_gets_through: bool,
    /// Where the check begins.
    pub begin: Begin,
    /// The mistake to make, if any.
    pub bug: Option<Bug>,
}

/// The party that takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The CLI of a deployment.
    Cli(Id),
    /// An invocation of the launcher.
    Launcher(About),
    /// The watchdog, about a task.
    Watchdog(TaskNo),
    /// ECS, about a task.
    Ecs(TaskNo),
    /// The runner in a task.
    Runner(TaskNo),
}

/// How long a step takes, where there is a clock. The explorer has none, and takes any step at any
/// moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// A call to AWS.
    Call,
    /// SNS, Lambda or EventBridge delivers, for the first time or again.
    Delivery,
    /// ECS starts a container.
    Container,
    /// ECS stops a task that does not stop by itself.
    Force,
    /// The tool prints.
    Tool,
    /// The tool exits by itself.
    Exit,
    /// The runner's time is over.
    Deadline,
    /// The watchdog runs a round, and reports an end.
    Round,
    /// The watchdog stops an overdue task, by the clock if there is one.
    Overdue,
    /// A choice, a wish or a fault, which need not come.
    Chance,
}

/// The label of a step in a path.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub(crate) who: Who,
    pub(crate) what: &'static str,
    pub(crate) pace: Pace,
    frame: Option<Frame>,
    fault: bool,
}

impl Label {
    /// Whether a program may do this instead of its usual step.
    pub(crate) fn is_choice(&self) -> bool {
        self.pace == Pace::Chance && !self.fault && !matches!(self.who, Who::Cli(_))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            Who::Cli(id) => write!(f, "CLI {id}"),
            Who::Launcher(About::Request(id)) => write!(f, "launcher, request {id}"),
            Who::Launcher(About::Cancel(id)) => write!(f, "launcher, cancel {id}"),
            Who::Launcher(About::Stopped(task)) => write!(f, "launcher, event of task {task}"),
            Who::Watchdog(task) => write!(f, "watchdog, task {task}"),
            Who::Ecs(task) => write!(f, "ECS, task {task}"),
            Who::Runner(task) => write!(f, "runner of task {task}"),
        }?;
        write!(f, ": {}", self.what)?;
        if let Some(frame) = self.frame {
            write!(f, " {frame:?}")?;
        }
        f.write_str(if self.fault { "   (fault)" } else { "" })
    }
}

/// Collects what can happen next.
#[derive(Debug)]
pub(crate) struct Steps<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) now: &'a World,
    pub(crate) steps: Vec<Step<World, Label>>,
}

impl Steps<'_> {
    /// A program's next line.
    pub(crate) fn must(&mut self, who: Who, what: &'static str, change: impl FnOnce(&mut World)) {
        self.at(Pace::Call, who, what, change);
    }

    /// A step that happens eventually, in its own time. Only a tool may put its steps off forever.
    pub(crate) fn at(&mut self, pace: Pace, who: Who, what: &'static str, change: impl FnOnce(&mut World)) {
        self.add(
            !matches!(pace, Pace::Tool | Pace::Exit),
            Label { who, what, pace, frame: None, fault: false },
            change,
        );
    }

    /// A step that may happen, but need not.
    pub(crate) fn may(&mut self, who: Who, what: &'static str, change: impl FnOnce(&mut World)) {
        self.add(false, Label { who, what, pace: Pace::Chance, frame: None, fault: false }, change);
    }

    /// A fault, while there are faults left.
    pub(crate) fn fault(&mut self, fault: Fault, who: Who, what: &'static str, change: impl FnOnce(&mut World)) {
        if self.now.faults > 0 && self.setup.kinds.contains(&fault) {
            self.add(false, Label { who, what, pace: Pace::Chance, frame: None, fault: true }, |world| {
                world.faults -= 1;
                change(world);
            });
        }
    }

    /// A frame is read, and with `again` also left in the queue.
    pub(crate) fn read(&mut self, id: Id, frame: Frame, again: bool, change: impl FnOnce(&mut World)) {
        let (who, frame) = (Who::Cli(id), Some(frame));
        if again {
            if self.now.faults > 0 && self.setup.kinds.contains(&Fault::FrameAgain) {
                let what = "reads a frame that will come again:";
                self.add(false, Label { who, what, pace: Pace::Chance, frame, fault: true }, |world| {
                    world.faults -= 1;
                    change(world);
                });
            }
        } else {
            self.add(true, Label { who, what: "reads", pace: Pace::Call, frame, fault: false }, change);
        }
    }

    fn add(&mut self, must: bool, label: Label, change: impl FnOnce(&mut World)) {
        let mut to = self.now.clone();
        change(&mut to);
        to.settle();
        self.steps.push(Step { label, must, to });
    }
}

impl World {
    /// The state in which a check begins.
    pub fn new(setup: &Setup) -> Self {
        let ids = 0..setup.deployments;
        let mut world = Self {
            deployments: vec![Deployment::default(); usize::from(setup.deployments)],
            tasks: Vec::new(),
            invocations: Vec::new(),
            lock: vec![None; usize::from(setup.slots)],
            faults: setup.faults,
            broken: None,
        };
        for id in ids {
            if setup.begin != Begin::Published {
                world.of(id).end = Some(End::Killed);
            }
            if setup.begin == Begin::AtLock {
                let yes = Some(true);
                let known = run::Known { claimed: yes, vouched: yes, allowed: yes, started: yes, ..Default::default() };
                let (line, outcome) = (Line::Begins, None);
                let process = Process { known, line, outcome, nonce: 0, halt: None, said: 1, hung: false };
                world.tasks.push(Task { id, life: Life::Running(process), stop: None, told: false });
                world.of(id).claim = Some(Holder::Runner(id, 0));
                world.of(id).stored = true;
            } else {
                world.invocations.push(Invocation { about: About::Request(id), tries: setup.tries, at: At::Begin });
            }
        }
        world.settle();
        world
    }

    /// The deployment `id`.
    pub fn of(&mut self, id: Id) -> &mut Deployment {
        &mut self.deployments[usize::from(id)]
    }

    /// The task `task`.
    pub fn task(&mut self, task: TaskNo) -> &mut Task {
        &mut self.tasks[usize::from(task)]
    }

    /// The process in `task`, if one runs.
    pub fn process(&mut self, task: TaskNo) -> Option<&mut Process> {
        match &mut self.task(task).life {
            Life::Running(process) => Some(process),
            Life::Waiting | Life::Stopped(_) => None,
        }
    }

    /// Whether ECS says that a task has stopped.
    pub fn has_stopped(&self, task: TaskNo) -> bool {
        matches!(self.tasks[usize::from(task)].life, Life::Stopped(_))
    }

    /// The state of a slot that `holder` holds, as `asker` learns it.
    pub fn slot(&self, holder: Option<TaskNo>, asker: Option<TaskNo>) -> Slot {
        match holder {
            None => Slot::Empty,
            Some(holder) if asker == Some(holder) => Slot::Mine,
            Some(holder) if self.has_stopped(holder) => Slot::Stopped,
            Some(_) => Slot::Alive,
        }
    }

    /// The tasks of a deployment in the order of ListTasks: first those that are to run.
    pub fn tasks_of(&self, id: Id) -> impl Iterator<Item = TaskNo> + '_ {
        let of = move |stopped: bool| {
            let tasks = (0..).zip(&self.tasks).filter(move |(_, task)| task.id == id);
            tasks.filter(move |(_, task)| stopped == (task.stop.is_some() || matches!(task.life, Life::Stopped(_))))
        };
        of(false).chain(of(true)).map(|(number, _)| number)
    }

    /// Puts a frame into a reply queue. A frame that is already there is not added again.
    pub fn send(&mut self, id: Id, frame: Frame) {
        let deployment = self.of(id);
        if !deployment.reply.contains(&frame) {
            deployment.reply.push(frame);
        }
    }

    /// Stops a task. If it was asked to stop before, that reason counts.
    pub fn stop(&mut self, setup: &Setup, task: TaskNo, why: Why) {
        let why = self.task(task).stop.unwrap_or(why);
        self.task(task).life = Life::Stopped(why);
        self.invocations.push(Invocation { about: About::Stopped(task), tries: setup.tries, at: At::Begin });
    }

    /// Makes states equal that do not differ in effect: sorts what has no order, and drops frames
    /// that nobody reads.
    pub(crate) fn settle(&mut self) {
        for deployment in &mut self.deployments {
            deployment.reply.sort_unstable();
            if deployment.end.is_some() {
                deployment.reply.clear();
                deployment.reader = 0;
            }
        }
        // Nobody listens, and there is nothing left to record.
        let deaf = |id: Id| {
            let deployment = &self.deployments[usize::from(id)];
            deployment.end.is_some() && (deployment.recorded || deployment.claim.is_none())
        };
        for task in self.tasks.iter_mut().filter(|task| deaf(task.id) && matches!(task.life, Life::Stopped(_))) {
            task.told = true;
        }
        let tasks = &self.tasks;
        self.invocations.retain(|one| !matches!(one.about, About::Stopped(task) if deaf(tasks[usize::from(task)].id)));
        self.invocations.sort_unstable();
    }
}
