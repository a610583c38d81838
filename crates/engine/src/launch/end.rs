//! The order of calls before the end of a task is told (clauses LAU-12, CLM-3): ECS may have made another task, having forgotten its
//! token, so what is told must stay true whatever that one does.

/// Whose the claim is, as far as this task goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is no claim: nothing has run.
    Nobody,
    /// This task's runner, or the launcher's final word.
    This,
    /// The runner of another task: this one was nobody's.
    Another,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim.
    ReadClaim,
    /// Claim the id for this end, so that nothing runs after it, or learn who was faster.
    Claim,
    /// Tell the end. This is the last.
    Tell,
    /// Say nothing. This is the last.
    Drop,
}

/// What comes next for a task that has stopped.
pub fn next(holder: Holder) -> Need {
    match holder {
        Holder::Unknown => Need::ReadClaim,
        Holder::Nobody => Need::Claim,
        Holder::This => Need::Tell,
        Holder::Another => Need::Drop,
    }
}
