//! The launcher's answer to a deployment id that already has a claim or a task (clauses LAU-7 to
//! LAU-10, CLM-3).

use relay_protocol::claim::{Claim, Holder, Verdict};
use relay_protocol::frame::LauncherKind;
use relay_protocol::{Digest, Reason, Timestamp};

/// The answer that a claim gives to the request with the digest `request`.
pub fn of_claim(claim: &Claim, request: Digest, deadline: Timestamp) -> LauncherKind {
    if claim.request_digest != request {
        return id_in_use(request);
    }
    match &claim.holder {
        Holder::Runner { task_arn, .. } => admitted(request, task_arn, deadline),
        Holder::Launcher { verdict: Verdict::Refused, reason, message } => {
            LauncherKind::Refused { request_digest: request, reason: *reason, message: message.clone() }
        }
        Holder::Launcher { verdict: Verdict::LaunchFailed, reason, message } => {
            LauncherKind::LaunchFailed { request_digest: request, reason: *reason, message: message.clone() }
        }
    }
}

/// The answer that a task gives if it was started for this id. `digest` is the digest of the
/// request in the task's overrides.
pub fn of_task(task_arn: &str, digest: Option<Digest>, request: Digest, deadline: Timestamp) -> LauncherKind {
    if digest == Some(request) { admitted(request, task_arn, deadline) } else { id_in_use(request) }
}

fn admitted(request_digest: Digest, task_arn: &str, deadline: Timestamp) -> LauncherKind {
    LauncherKind::Admitted { request_digest, task_arn: task_arn.to_owned(), deadline, policies: Vec::new() }
}

/// The answer if the id belongs to another request (clause CLM-4).
pub fn id_in_use(request_digest: Digest) -> LauncherKind {
    LauncherKind::Refused { request_digest, reason: Reason::IdInUse, message: Reason::IdInUse.words().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(claim: &Claim) -> LauncherKind {
        of_claim(claim, Digest::of(b"mine"), Timestamp::from_unix(5))
    }

    fn started(task: Option<Digest>) -> LauncherKind {
        of_task("arn:task", task, Digest::of(b"mine"), Timestamp::from_unix(5))
    }

    fn claim(digest: &[u8], holder: Holder) -> Claim {
        Claim { request_digest: Digest::of(digest), holder }
    }

    fn runner() -> Holder {
        Holder::Runner { task_arn: "arn:task".into(), nonce: "n".into() }
    }

    // clause: LAU-7, CLM-3
    #[test]
    fn what_stands_is_repeated() {
        let refused = Holder::Launcher { verdict: Verdict::Refused, reason: Reason::Expired, message: "late".into() };
        assert!(
            matches!(says(&claim(b"mine", runner())), LauncherKind::Admitted { task_arn, .. } if task_arn == "arn:task")
        );
        assert!(matches!(says(&claim(b"mine", refused)), LauncherKind::Refused { reason: Reason::Expired, .. }));
        assert!(matches!(started(Some(Digest::of(b"mine"))), LauncherKind::Admitted { .. }));
    }

    // clause: CLM-4
    #[test]
    fn an_id_belongs_to_one_request() {
        let in_use = |said| matches!(said, LauncherKind::Refused { reason: Reason::IdInUse, request_digest, .. } if request_digest == Digest::of(b"mine"));
        assert!(in_use(says(&claim(b"other", runner()))));
        assert!(in_use(started(Some(Digest::of(b"other")))));
        assert!(in_use(started(None)));
    }
}
