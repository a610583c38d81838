//! What already stands for a deployment id, and what follows from it: pure (clauses LAU-7 to LAU-10, CLM-3).

use relay_protocol::claim::{Claim, Holder, Verdict};
use relay_protocol::frame::LauncherKind;
use relay_protocol::{Bundle, Digest, Reason, Timestamp};

/// What the launcher does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing stands: decide.
    Decide,
    /// It was answered before: say the same again.
    Repeat(LauncherKind),
}

/// Judges the claim first, then the task. A late duplicate is so answered like the first, and never "expired" or "busy" because of its own task.
pub fn next(claim: Option<&Claim>, task: Option<(&str, Option<Digest>)>, request: Digest, deadline: Timestamp) -> Next {
    match (claim, task) {
        (Some(claim), _) => Next::Repeat(of_claim(claim, request, deadline)),
        (None, Some((task_arn, digest))) => Next::Repeat(of_task(task_arn, digest, request, deadline)),
        (None, None) => Next::Decide,
    }
}

/// What a claim says to the request `request`.
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

/// What a task that was started by this id says: `digest` is that of the request in its overrides.
pub fn of_task(task_arn: &str, digest: Option<Digest>, request: Digest, deadline: Timestamp) -> LauncherKind {
    if digest == Some(request) { admitted(request, task_arn, deadline) } else { id_in_use(request) }
}

fn admitted(request_digest: Digest, task_arn: &str, deadline: Timestamp) -> LauncherKind {
    LauncherKind::Admitted { request_digest, task_arn: task_arn.to_owned(), deadline, policies: Vec::new() }
}

fn id_in_use(request_digest: Digest) -> LauncherKind {
    LauncherKind::Refused { request_digest, reason: Reason::IdInUse, message: Reason::IdInUse.words().to_owned() }
}

/// The request digest of the envelope in a task's overrides. Nothing is believed: it is only compared.
pub fn digest_of_envelope(envelope: &str) -> Option<Digest> {
    Bundle::parse(envelope.as_bytes()).ok().map(|bundle| bundle.request.digest())
}

/// What kind of failure ECS's words mean.
pub fn launch_reason(words: &str) -> Reason {
    let words = words.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["capacity is unavailable", "capacity", "resource:cpu", "resource:memory", "agent"]) {
        Reason::Capacity
    } else if has(&["limit", "quota", "exceeded", "throttl"]) {
        Reason::Quota
    } else if has(&["inactive", "task definition", "taskdefinition"]) {
        Reason::TaskDefinition
    } else if has(&["subnet", "security group", "resource:eni", "network"]) {
        Reason::Network
    } else {
        Reason::Launch
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const DEADLINE: i64 = 5;

    fn says(claim: Option<&Claim>, task: Option<(&str, Option<Digest>)>) -> Next {
        next(claim, task, Digest::of(b"mine"), Timestamp::from_unix(DEADLINE))
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
        assert_eq!(says(None, None), Next::Decide);
        assert!(
            matches!(says(Some(&claim(b"mine", runner())), None), Next::Repeat(LauncherKind::Admitted { task_arn, .. }) if task_arn == "arn:task")
        );
        assert!(matches!(
            says(Some(&claim(b"mine", refused)), None),
            Next::Repeat(LauncherKind::Refused { reason: Reason::Expired, .. })
        ));
        assert!(matches!(
            says(None, Some(("arn:task", Some(Digest::of(b"mine"))))),
            Next::Repeat(LauncherKind::Admitted { .. })
        ));
    }

    // clause: CLM-4
    #[test]
    fn an_id_belongs_to_one_request() {
        let in_use = |next| matches!(next, Next::Repeat(LauncherKind::Refused { reason: Reason::IdInUse, request_digest, .. }) if request_digest == Digest::of(b"mine"));
        assert!(in_use(says(Some(&claim(b"other", runner())), None)));
        assert!(in_use(says(None, Some(("arn:task", Some(Digest::of(b"other")))))));
        assert!(in_use(says(None, Some(("arn:task", None)))));
    }

    #[test]
    fn ecs_words_have_reasons() {
        assert_eq!(launch_reason("Capacity is unavailable at this time"), Reason::Capacity);
        assert_eq!(launch_reason("TaskDefinition is inactive"), Reason::TaskDefinition);
        assert_eq!(launch_reason("You've reached the limit on the number of tasks"), Reason::Quota);
        assert_eq!(launch_reason("something new"), Reason::Launch);
    }
}
