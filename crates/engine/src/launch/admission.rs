//! The order of calls for a verified request (clauses LAU-7 to LAU-10): first look for an earlier
//! answer, then store the request, then decide and leave the decision, then call RunTask once. A
//! final answer is sent only after it was claimed and recorded.

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
    /// There is one, and it is the launcher's own final verdict on this request.
    Verdict,
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
    /// Whether the evidence has this request; `false` if it has another one under the id.
    pub stored: Option<bool>,
    /// Whether it is allowed.
    pub allowed: Option<bool>,
    /// Whether the evidence has the summary of a decision that allows it.
    pub summarised: bool,
    /// The result of RunTask.
    pub ran: Option<Ran>,
    /// Whether the launcher has recorded its final verdict, or failed to.
    pub recorded: bool,
}

/// The next action of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Need {
    /// Read the claim (clause LAU-7).
    ReadClaim,
    /// List the tasks that were started for the id (clause LAU-7).
    ListTasks,
    /// Write the request to the evidence, or read what was written before. What is there counts
    /// from here on (clause EVD-2).
    Store,
    /// Decide (clause LAU-6).
    Authorise,
    /// Write the verification summary of the decision (clause REC-8).
    Summarise,
    /// Call RunTask, with the one token (clause LAU-8).
    RunTask,
    /// Claim the id with this verdict, or adopt the answer of the claim that came first (clause
    /// CLM-3).
    Claim(Verdict),
    /// Write the record of the launcher's final verdict, unless there is one (clause REC-5).
    Record,
    /// Send what is known now. This is the last action.
    Answer,
}

/// Decides what the launcher does next.
pub fn next(known: Known) -> Need {
    match known {
        Known { claim: Found::Unknown, .. } => Need::ReadClaim,
        Known { claim: Found::Verdict, recorded: false, .. } => Need::Record,
        Known { claim: Found::Something | Found::Verdict, .. } => Need::Answer,
        Known { task: Found::Unknown, .. } => Need::ListTasks,
        Known { task: Found::Something | Found::Verdict, .. } => Need::Answer,
        Known { stored: None, .. } => Need::Store,
        Known { stored: Some(false), .. } => Need::Answer,
        Known { allowed: None, .. } => Need::Authorise,
        Known { allowed: Some(false), .. } => Need::Claim(Verdict::Refused),
        Known { summarised: false, .. } => Need::Summarise,
        Known { ran: None, .. } => Need::RunTask,
        Known { ran: Some(Ran::Failed), .. } => Need::Claim(Verdict::LaunchFailed),
        Known { ran: Some(Ran::Task), .. } => Need::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known { claim: Found::Nothing, task: Found::Nothing, stored: Some(true), ..Known::default() }
    }

    // clause: LAU-7, LAU-8, LAU-10, REC-8
    #[test]
    fn what_stands_is_looked_for_before_anything_is_decided() {
        let start = Known::default();
        assert_eq!(next(start), Need::ReadClaim);
        assert_eq!(next(Known { claim: Found::Something, ..start }), Need::Answer);
        let unclaimed = Known { claim: Found::Nothing, ..start };
        assert_eq!(next(unclaimed), Need::ListTasks);
        assert_eq!(next(Known { task: Found::Something, ..unclaimed }), Need::Answer);
        assert_eq!(next(Known { stored: None, ..known() }), Need::Store);
        assert_eq!(next(Known { stored: Some(false), ..known() }), Need::Answer);
        assert_eq!(next(known()), Need::Authorise);
        let allowed = Known { allowed: Some(true), ..known() };
        assert_eq!(next(allowed), Need::Summarise);
        let summarised = Known { summarised: true, ..allowed };
        assert_eq!(next(summarised), Need::RunTask);
        assert_eq!(next(Known { ran: Some(Ran::Task), ..summarised }), Need::Answer);
    }

    // clause: CLM-3, REC-5
    #[test]
    fn a_final_word_is_claimed_and_recorded_before_it_is_sent() {
        for (said, verdict) in [
            (Known { allowed: Some(false), ..known() }, Verdict::Refused),
            (Known { allowed: Some(true), summarised: true, ran: Some(Ran::Failed), ..known() }, Verdict::LaunchFailed),
        ] {
            assert_eq!(next(said), Need::Claim(verdict));
            let claimed = Known { claim: Found::Verdict, ..said };
            assert_eq!(next(claimed), Need::Record);
            assert_eq!(next(Known { recorded: true, ..claimed }), Need::Answer);
            // Another one came first.
            assert_eq!(next(Known { claim: Found::Something, ..said }), Need::Answer);
        }
    }
}
