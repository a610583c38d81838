//! The claim: which process may run a deployment (clauses CLM-1 to CLM-5).

/// The answer of S3 to a conditional write, one that succeeds only if no object exists yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Put {
    /// The object was written.
    Written,
    /// 412: an object exists already.
    Exists,
    /// 409, or no answer: the object may or may not have been written.
    Unclear,
}

/// The next step after a write of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// The writer holds the claim.
    Won,
    /// Read the existing claim; [`is_mine`] decides.
    ReadBack,
    /// Write the same claim again.
    Again,
}

/// Decides what to do after a write of a claim (clauses CLM-1, CLM-2).
pub fn after_put(put: Put) -> After {
    match put {
        Put::Written => After::Won,
        Put::Exists => After::ReadBack,
        Put::Unclear => After::Again,
    }
}

/// Whether the existing claim is the one that this process wrote, nonce included. If so, the write
/// succeeded and only its answer was lost. A claim that is missing or unreadable (`None`) lets
/// nobody go on (clauses CLM-2, CLM-5).
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
