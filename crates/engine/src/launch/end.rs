//! The order of calls before the end of a task is reported (clauses LAU-12, CLM-3, REC-5). ECS may
//! have forgotten the token and made another task, so the report must stay true whatever that task
//! does. No end is reported before it is recorded.

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

/// The facts about the end of a task. All of them start as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Known {
    /// The holder of the claim.
    pub holder: Holder,
    /// Whether there is a record, the runner's or the launcher's.
    pub recorded: bool,
}

/// The next action of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim.
    ReadClaim,
    /// Claim the id for this end, so that nothing runs after it, or learn who came first.
    Claim,
    /// Look for the runner's record, and write the launcher's if there is none.
    Record,
    /// Report the end. This is the last action.
    Tell,
    /// Report nothing. This is the last action.
    Drop,
}

/// Decides what to do next about a task that has stopped.
pub fn next(known: Known) -> Need {
    match known.holder {
        Holder::Unknown => Need::ReadClaim,
        Holder::Nobody => Need::Claim,
        Holder::This if !known.recorded => Need::Record,
        Holder::This => Need::Tell,
        Holder::Another => Need::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: LAU-12, REC-5
    #[test]
    fn an_end_is_claimed_and_recorded_before_it_is_told() {
        let held = |holder| Known { holder, ..Known::default() };
        assert_eq!(next(Known::default()), Need::ReadClaim);
        assert_eq!(next(held(Holder::Nobody)), Need::Claim);
        assert_eq!(next(held(Holder::Another)), Need::Drop);
        assert_eq!(next(held(Holder::This)), Need::Record);
        assert_eq!(next(Known { recorded: true, ..held(Holder::This) }), Need::Tell);
    }
}
