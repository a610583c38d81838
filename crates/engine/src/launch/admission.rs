//! The order of calls for a verified request (clauses LAU-7 to LAU-10): first look for an earlier
//! answer, then decide, then call RunTask once. A final answer is sent only after it was claimed.

use relay_protocol::claim::Verdict;

/// Whether something was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Found {
    /// Nobody has looked yet.
    #[default]
    Unknown,
    /// There is none.
    Nothing,
    /// There is one, and it determines the answer.
    Something,
}

/// The result of RunTask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ran {
    /// The token has a task: a new one, or the one that the token was bound to before.
    Task,
    /// ECS refused for good, or until the time was up.
    Failed,
}

/// The facts about a request. All of them start as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Known {
    /// Its claim.
    pub claim: Found,
    /// A task that was started for its id.
    pub task: Found,
    /// Whether it is allowed.
    pub allowed: Option<bool>,
    /// The result of RunTask.
    pub ran: Option<Ran>,
    /// Whether a final answer was claimed, or another one found in its place.
    pub concluded: bool,
}

/// The next action of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim (clause LAU-7).
    ReadClaim,
    /// List the tasks that were started for the id (clause LAU-7).
    ListTasks,
    /// Decide (clause LAU-6).
    Authorise,
    /// Call RunTask, with the one token (clause LAU-8).
    RunTask,
    /// Claim the id with this verdict, or adopt the answer of the claim that came first (clause
    /// CLM-3).
    Claim(Verdict),
    /// Send what is known now. This is the last action.
    Answer,
}

/// Decides what the launcher does next.
pub fn next(known: Known) -> Need {
    match known {
        Known { claim: Found::Unknown, .. } => Need::ReadClaim,
        Known { claim: Found::Something, .. } => Need::Answer,
        Known { task: Found::Unknown, .. } => Need::ListTasks,
        Known { task: Found::Something, .. } => Need::Answer,
        Known { allowed: None, .. } => Need::Authorise,
        Known { allowed: Some(false), concluded: false, .. } => Need::Claim(Verdict::Refused),
        Known { allowed: Some(false), concluded: true, .. } => Need::Answer,
        Known { ran: None, .. } => Need::RunTask,
        Known { ran: Some(Ran::Failed), concluded: false, .. } => Need::Claim(Verdict::LaunchFailed),
        Known { ran: Some(Ran::Task | Ran::Failed), .. } => Need::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known { claim: Found::Nothing, task: Found::Nothing, ..Known::default() }
    }

    // clause: LAU-7, LAU-8, LAU-10
    #[test]
    fn what_stands_is_looked_for_before_anything_is_decided() {
        let start = Known::default();
        assert_eq!(next(start), Need::ReadClaim);
        assert_eq!(next(Known { claim: Found::Something, ..start }), Need::Answer);
        let unclaimed = Known { claim: Found::Nothing, ..start };
        assert_eq!(next(unclaimed), Need::ListTasks);
        assert_eq!(next(Known { task: Found::Something, ..unclaimed }), Need::Answer);
        assert_eq!(next(known()), Need::Authorise);
        assert_eq!(next(Known { allowed: Some(true), ..known() }), Need::RunTask);
        assert_eq!(next(Known { allowed: Some(true), ran: Some(Ran::Task), ..known() }), Need::Answer);
    }

    // clause: CLM-3
    #[test]
    fn a_final_word_is_claimed_before_it_is_sent() {
        for (said, verdict) in [
            (Known { allowed: Some(false), ..known() }, Verdict::Refused),
            (Known { allowed: Some(true), ran: Some(Ran::Failed), ..known() }, Verdict::LaunchFailed),
        ] {
            assert_eq!(next(said), Need::Claim(verdict));
            assert_eq!(next(Known { concluded: true, ..said }), Need::Answer);
        }
    }
}
