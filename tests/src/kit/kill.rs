//! The kill matrix: it kills or stops a real process in one phase of a deployment, and checks the
//! outcome. This file defines the cells; `stage` runs them.

mod stage;

use std::fmt;

pub use stage::run;

/// The exit code of the tool's last step.
pub const TOOLS_OWN: i32 = 7;

/// The process that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// The CLI, `relay deploy`.
    Cli,
    /// The process of the Lambda function.
    Launcher,
    /// The first process of the container.
    Runner,
    /// The process that the recipe's step runs.
    Tool,
    /// The process behind the sandbox's port, which stands for all of AWS.
    Aws,
}

/// What happens to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// SIGKILL. After a killed CLI, `relay attach` follows. Lambda restarts a killed launcher.
    Kill,
    /// SIGKILL, and then the same task is run once more.
    Again,
    /// SIGSTOP, and SIGCONT after 1 s; for AWS, after 3 s; for the CLI, when the task has stopped.
    Pause,
    /// SIGSTOP, and SIGCONT after the CLI's silence timeout has passed.
    Late,
    /// SIGSTOP, without SIGCONT.
    Stop,
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The request is on its way to SNS.
    Asking,
    /// SNS has the request; its answer is on its way back.
    Published,
    /// The launcher has verified the request, and is about to look for an earlier claim.
    Deciding,
    /// The task has started; the launcher has not signed its answer yet.
    Launched,
    /// The runner has verified the request, and is about to claim it.
    Claiming,
    /// The runner has claimed; its key has not been vouched for yet.
    Claimed,
    /// A step is running and printing.
    Running,
    /// One step has ended, and the next has not started.
    Between,
    /// The tool has ended; the last frame is on its way to SQS.
    Ending,
    /// SQS has the last frame. For the CLI: it has reported the end, and is about to delete the
    /// queues.
    Ended,
    /// The runner has been killed, and the launcher is about to report that.
    Telling,
}

/// How the launcher learns that a task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Telling {
    /// From an event of ECS.
    Events,
    /// Events are lost; the watchdog finds the task.
    Watchdog,
    /// By neither.
    Nobody,
}

/// How much of the tool ran. There is no value for more than once: that fails the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ran {
    /// Nothing.
    Not,
    /// The first step and no other.
    Half,
    /// Both steps, once each.
    Once,
}

/// How much of the tool's output the CLI printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// There was no output.
    None,
    /// All of it, and the CLI reported that.
    Complete,
    /// Its beginning, and the CLI reported how many bytes that is.
    Beginning,
}

/// How the CLI learned of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// From the runner's last frame.
    Runner,
    /// From ECS's event, through the launcher.
    Event,
    /// From the launcher's watchdog.
    Watchdog,
    /// The CLI's timeout for the launcher's answer passed.
    Admission,
    /// The CLI's timeout for the runner's start passed.
    Start,
    /// The CLI's timeout for the runner's next frame passed.
    Silence,
    /// Not at all: there is nothing to report.
    Nobody,
}

/// The outcome of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// The exit code of the CLI. For a killed CLI: 137 if nothing was published, and otherwise the
    /// exit code of `relay attach`.
    pub code: i32,
    /// How much of the tool ran.
    pub ran: Ran,
    /// How much of its output the CLI printed.
    pub output: Output,
    /// How the CLI learned of the end.
    pub told: Told,
    /// The exit code of the second runner, if there was one.
    pub again: Option<i32>,
}

/// One cell, with its expected outcome.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The process that is hit.
    pub process: Process,
    /// What happens to it.
    pub blow: Blow,
    /// When it happens.
    pub phase: Phase,
    /// How the launcher learns that a task has ended.
    pub telling: Telling,
    /// The expected outcome.
    pub outcome: Outcome,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}-{:?}-{:?}", self.process, self.blow, self.phase, self.telling)
    }
}
