//! The order of calls in the runner (clauses CLM-5, RUN-4 to RUN-8, LCK-1, REC-4). It claims before
//! it does anything, sends `started` before anything runs, holds a slot from before the tool until
//! after it, and writes the record before it says how the deployment ended.
//!
//! A driver asks [`next`], carries out the one action that it returns, and adds what it learned.
//! What happens within one need (steps, rollback, artifacts, retries) is left to the driver.

/// The facts about a deployment. `None` means "not tried yet", and is where each one starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Known {
    /// Whether this process holds the claim.
    pub claimed: Option<bool>,
    /// Whether the target key has vouched for this process's own key, so that readers will accept
    /// its frames.
    pub vouched: Option<bool>,
    /// Whether the runner's own decision allows the deployment.
    pub allowed: Option<bool>,
    /// Whether `started` has arrived in the queue.
    pub started: Option<bool>,
    /// Whether this deployment holds a slot.
    pub locked: Option<bool>,
    /// Whether the runner has looked into the control queue.
    pub looked: bool,
    /// Whether the deployment was asked to stop.
    pub halted: bool,
    /// Whether the tool has ended, with everything that follows it.
    pub ended: bool,
    /// Whether the slot was given back.
    pub released: bool,
    /// Whether the record was written, or given up.
    pub recorded: bool,
    /// Whether `finished` was sent, or given up.
    pub finished: bool,
}

impl Known {
    /// Adds what is learned when `need` succeeds.
    pub fn went_well(&mut self, need: Need) {
        match need {
            Need::Claim => self.claimed = Some(true),
            Need::Vouch => self.vouched = Some(true),
            Need::Authorise => self.allowed = Some(true),
            Need::SayStarted => self.started = Some(true),
            Need::TakeLock => self.locked = Some(true),
            Need::LookForCancel => self.looked = true,
            Need::RunTool => self.ended = true,
            Need::Release => self.released = true,
            Need::Record => self.recorded = true,
            Need::Finish => self.finished = true,
            Need::Exit => {}
        }
    }
}

/// The next action of the runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Claim the deployment (clause CLM-1).
    Claim,
    /// Have the target key vouch for this process's own key (clause VCH-1).
    Vouch,
    /// Decide again (clauses RUN-5, RUN-6).
    Authorise,
    /// Send `started`, and wait until it has arrived (clause RUN-8).
    SayStarted,
    /// Take a slot (clause LCK-1).
    TakeLock,
    /// Look into the control queue (clause CTL-5).
    LookForCancel,
    /// Run the tool: artifacts, steps, rollback.
    RunTool,
    /// Give the slot back.
    Release,
    /// Sign the record and write it to the evidence (clause REC-4).
    Record,
    /// Send `finished`, with the record (clause RUN-7).
    Finish,
    /// Exit. Before the claim is won and the key is vouched for, send nothing (clauses RUN-4,
    /// CLM-5).
    Exit,
}

/// Decides what the runner does next.
pub fn next(known: &Known) -> Need {
    match (known.claimed, known.vouched) {
        (None, _) => return Need::Claim,
        (Some(true), None) => return Need::Vouch,
        (Some(false), _) | (_, Some(false)) => return Need::Exit,
        (Some(true), Some(true)) => {}
    }
    let may_run = match (known.allowed, known.started, known.locked) {
        (None, ..) => return Need::Authorise,
        (Some(true), None, _) => return Need::SayStarted,
        (Some(true), Some(true), None) => return Need::TakeLock,
        (allowed, started, locked) => allowed == Some(true) && started == Some(true) && locked == Some(true),
    };
    if may_run && !known.released {
        return match known {
            Known { looked: false, .. } => Need::LookForCancel,
            Known { ended: false, halted: false, .. } => Need::RunTool,
            _ => Need::Release,
        };
    }
    match known {
        Known { recorded: false, .. } => Need::Record,
        Known { finished: false, .. } => Need::Finish,
        Known { finished: true, .. } => Need::Exit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The needs of a deployment, in order; `learn` can turn a success into a failure.
    fn path(mut known: Known, mut learn: impl FnMut(Need, &mut Known)) -> Vec<Need> {
        let mut needs = Vec::new();
        loop {
            let need = next(&known);
            needs.push(need);
            if need == Need::Exit {
                return needs;
            }
            known.went_well(need);
            learn(need, &mut known);
        }
    }

    // clause: RUN-4, RUN-7, RUN-8, LCK-1, REC-4
    #[test]
    fn nothing_runs_before_everything_that_it_needs() {
        use Need::{
            Authorise, Claim, Exit, Finish, LookForCancel, Record, Release, RunTool, SayStarted, TakeLock, Vouch,
        };
        let whole =
            [Claim, Vouch, Authorise, SayStarted, TakeLock, LookForCancel, RunTool, Release, Record, Finish, Exit];
        assert_eq!(path(Known::default(), |_, _| {}), whole);
        let fails_at = |at: Need, change: fn(&mut Known)| {
            path(Known::default(), |need, known| {
                if need == at {
                    change(known);
                }
            })
        };
        assert_eq!(fails_at(Claim, |known| known.claimed = Some(false)), [Claim, Exit]);
        assert_eq!(fails_at(Vouch, |known| known.vouched = Some(false)), [Claim, Vouch, Exit]);
        assert_eq!(
            fails_at(Authorise, |known| known.allowed = Some(false)),
            [Claim, Vouch, Authorise, Record, Finish, Exit]
        );
        assert_eq!(
            fails_at(SayStarted, |known| known.started = Some(false)),
            [Claim, Vouch, Authorise, SayStarted, Record, Finish, Exit]
        );
        assert_eq!(
            fails_at(TakeLock, |known| known.locked = Some(false)),
            [Claim, Vouch, Authorise, SayStarted, TakeLock, Record, Finish, Exit]
        );
        // Asked to stop before the tool began: the slot is given back, and the tool never starts.
        assert_eq!(
            fails_at(LookForCancel, |known| known.halted = true),
            [Claim, Vouch, Authorise, SayStarted, TakeLock, LookForCancel, Release, Record, Finish, Exit]
        );
    }
}
