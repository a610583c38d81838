//! The kill matrix: a real process is killed or stopped in one phase of a deployment, and what came of it is looked at. This file says what a
//! cell is; `stage` makes it happen.

mod stage;

use std::fmt;

pub use stage::run;

/// What the tool's last step ends with.
pub const TOOLS_OWN: i32 = 7;

/// Which process is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// `relay deploy`.
    Cli,
    /// The Lambda function's process.
    Launcher,
    /// The container's first process.
    Runner,
    /// What the recipe's step runs.
    Tool,
    /// The sandbox's port: all of AWS.
    Aws,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// SIGKILL. A killed CLI is followed by `relay attach`; a launcher, Lambda starts again.
    Kill,
    /// SIGKILL, and somebody runs the same task once more.
    Again,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// SIGSTOP, and SIGCONT when the CLI's silence clock has run out.
    Late,
    /// SIGSTOP for good.
    Stop,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The request is on its way to SNS.
    Asking,
    /// SNS has it; its answer is on its way back.
    Published,
    /// The launcher has verified it, and asks what stands already.
    Deciding,
    /// The task is started; the launcher's answer is not signed.
    Launched,
    /// The runner has verified, and is about to claim.
    Claiming,
    /// It has claimed; its key is not vouched for.
    Claimed,
    /// A step runs, and prints.
    Running,
    /// One step has ended, and the next has not begun.
    Between,
    /// The tool has ended; the last frame is on its way to SQS.
    Ending,
    /// SQS has the last frame; of the CLI: it has told the end, and is about to delete the queues.
    Ended,
    /// The runner was killed, and the launcher is about to say so.
    Telling,
}

/// Who tells the launcher of the end of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Telling {
    /// ECS, by an event.
    Events,
    /// Events are lost; the watchdog comes round.
    Watchdog,
    /// Neither.
    Nobody,
}

/// How often the tool ran. More than once is no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ran {
    /// Nothing ran.
    Not,
    /// The first step, and then no other.
    Half,
    /// Both steps, once.
    Once,
}

/// What came of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// There was none.
    None,
    /// All of it was printed, and the CLI said so.
    Complete,
    /// What was printed is its beginning, and the CLI said how much that is.
    Beginning,
}

/// By whom the CLI knew the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// The runner's last frame.
    Runner,
    /// ECS's event, by way of the launcher.
    Event,
    /// The launcher's watchdog.
    Watchdog,
    /// The CLI's clock for the launcher's answer.
    Admission,
    /// The CLI's clock for the runner's start.
    Start,
    /// The CLI's clock for the runner's next frame.
    Silence,
    /// Nobody: there is nothing to tell.
    Nobody,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// What the CLI exited with; of a killed one, 137 where nothing was published, and else what `relay attach` did.
    pub code: i32,
    /// How often the tool ran.
    pub ran: Ran,
    /// What came of its output.
    pub output: Output,
    /// Who told it.
    pub told: Told,
    /// What the second runner exited with, where there was one.
    pub again: Option<i32>,
}

/// One cell, with what must come of it.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Which process.
    pub process: Process,
    /// What happens to it.
    pub blow: Blow,
    /// When.
    pub phase: Phase,
    /// Who tells of a task's end.
    pub telling: Telling,
    /// What must come of it.
    pub outcome: Outcome,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}-{:?}-{:?}-{:?}", self.process, self.blow, self.phase, self.telling)
    }
}
