//! The claim: which process may run a deployment (clauses CLM-1 to CLM-5).

/// How S3 answered a write on the condition that there is no object yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Put {
    /// It wrote it.
    Written,
    /// 412: there is one.
    Exists,
    /// 409, or no answer: it may have written it, or not.
    Unclear,
}

/// What follows from the answer to a write of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// The writer holds the claim.
    Won,
    /// The claim that stands is read, and [`is_mine`] decides.
    ReadBack,
    /// The same claim is written again.
    Again,
}

/// What follows from the answer to a write of a claim (clauses CLM-1, CLM-2).
pub fn after_put(put: Put) -> After {
    match put {
        Put::Written => After::Won,
        Put::Exists => After::ReadBack,
        Put::Unclear => After::Again,
    }
}

/// Whether the claim that stands is the very one that this process wrote, nonce included: then it won, and the answer was lost. One that
/// is gone or cannot be read (`None`) is nobody's to go on with (clauses CLM-2, CLM-5).
pub fn is_mine<C: PartialEq>(stands: Option<&C>, mine: &C) -> bool {
    stands == Some(mine)
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: CLM-1, CLM-2
    #[test]
    fn only_a_written_claim_or_ones_own_is_won() {
        assert_eq!(after_put(Put::Written), After::Won);
        assert_eq!(after_put(Put::Exists), After::ReadBack);
        assert_eq!(after_put(Put::Unclear), After::Again);
        assert!(is_mine(Some(&("task", "nonce")), &("task", "nonce")));
        assert!(!is_mine(Some(&("task", "another")), &("task", "nonce")));
        assert!(!is_mine(None, &("task", "nonce")));
    }
}
