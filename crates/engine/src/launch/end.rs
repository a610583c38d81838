//! The order of calls before the end of a task is reported (clauses LAU-12, CLM-3). ECS may have
//! forgotten the token and made another task, so the report must stay true whatever that task does.

/// The holder of the claim, seen from this task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is no claim: nothing has run.
    Nobody,
    /// This task's runner, or the launcher with its final answer.
    This,
    /// The runner of another task: this task did not count.
    Another,
}

/// The next action of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim.
    ReadClaim,
    /// Claim the id for this end, so that nothing runs after it, or learn who came first.
    Claim,
    /// Report the end. This is the last action.
    Tell,
    /// Report nothing. This is the last action.
    Drop,
}

/// Decides what to do next about a task that has stopped.
pub fn next(holder: Holder) -> Need {
    match holder {
        Holder::Unknown => Need::ReadClaim,
        Holder::Nobody => Need::Claim,
        Holder::This => Need::Tell,
        Holder::Another => Need::Drop,
    }
}
