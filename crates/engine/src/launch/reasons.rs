//! The meaning of ECS's messages, and when the watchdog stops a task (clauses LAU-12, CTL-6).

use relay_protocol::task::Task;
use relay_protocol::{Reason, Timestamp};

/// The kind of launch failure that a message of ECS describes.
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

/// How the reason begins that the launcher passes to StopTask for a cancelled task. ECS returns it
/// as `stoppedReason`.
pub const CANCELLED: &str = "relay: cancelled";
/// The same for a task that is past its deadline; see [`CANCELLED`].
pub const OVERDUE: &str = "relay: past its deadline";

/// The reason why a task has stopped (clause LAU-12). The runner's own last frame takes precedence,
/// if it arrived.
pub fn stop_reason(task: &Task) -> Reason {
    let stopped = task.stopped_reason.as_deref().unwrap_or_default();
    let words = format!("{stopped} {}", task.container_reason.as_deref().unwrap_or_default()).to_lowercase();
    let code = task.stop_code.as_deref().unwrap_or_default();
    if stopped.starts_with(CANCELLED) {
        Reason::Cancelled
    } else if stopped.starts_with(OVERDUE) {
        Reason::TimedOut
    } else if words.contains("outofmemory") {
        Reason::OutOfMemory
    } else if matches!(code, "SpotInterruption" | "TerminationNotice") {
        Reason::Infrastructure
    } else if task.started_at.is_none() && words.contains("pull") {
        Reason::ImagePull
    } else if task.started_at.is_none() && words.contains("resourceinitialization") {
        // The network interface failed, or something that ECS fetches through it before a container
        // starts: the registry's login, the log group.
        Reason::Network
    } else if code == "TaskFailedToStart" {
        launch_reason(&words)
    } else if code == "EssentialContainerExited" {
        // The runner ended by itself, and its last frame did not arrive. These exit codes mean that
        // it could not or would not run anything.
        if matches!(task.exit_code, Some(120 | 125)) { Reason::Runner } else { Reason::Lost }
    } else {
        Reason::Stopped
    }
}

/// Seconds that a task has to end by itself, after its deadline or after a cancel's grace, before
/// the watchdog stops it. The task may wait this long for its queue before its own time begins, and
/// it has last frames to send.
const PATIENCE: i64 = 120;

/// Whether the watchdog stops a running task, and with which reason: [`OVERDUE`] more than 120
/// seconds past its `deadline`, or [`CANCELLED`] more than `grace` + 120 seconds after a cancel was
/// forwarded to it at `cancelled_at` (clauses LAU-12, CTL-6). `grace` is in seconds.
pub fn to_stop(
    deadline: Timestamp,
    cancelled_at: Option<Timestamp>,
    grace: i64,
    now: Timestamp,
) -> Option<&'static str> {
    if cancelled_at.is_some_and(|at| now.since(at) > grace + PATIENCE) {
        Some(CANCELLED)
    } else if now.since(deadline) > PATIENCE {
        Some(OVERDUE)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: LAU-12
    #[test]
    fn every_way_to_stop_has_a_reason() {
        let reason = |code: &str, stopped: &str, container: &str, started: bool| {
            stop_reason(&Task {
                stop_code: Some(code.to_owned()),
                stopped_reason: Some(stopped.to_owned()),
                container_reason: (!container.is_empty()).then(|| container.to_owned()),
                started_at: started.then(|| Timestamp::from_unix(1)),
                ..Task::default()
            })
        };
        let failed = |stopped: &str, container: &str| reason("TaskFailedToStart", stopped, container, false);
        assert_eq!(
            failed("Task failed to start", "CannotPullContainerError: pull image manifest has been retried 5 time(s)"),
            Reason::ImagePull
        );
        assert_eq!(
            failed("ResourceInitializationError: unable to pull secrets or registry auth: connection issue", ""),
            Reason::ImagePull
        );
        assert_eq!(
            failed("ResourceInitializationError: failed to validate logger args: timed out", ""),
            Reason::Network
        );
        assert_eq!(failed("Timeout waiting for network interface provisioning to complete.", ""), Reason::Network);
        assert_eq!(failed("Capacity is unavailable at this time. Please try again later", ""), Reason::Capacity);
        assert_eq!(failed("You've reached the limit on the number of vCPUs", ""), Reason::Quota);
        assert_eq!(failed("Task failed to start", "CannotStartContainerError: no such file"), Reason::Launch);
        let ended = "Essential container in task exited";
        assert_eq!(
            reason("EssentialContainerExited", ended, "OutOfMemoryError: Container killed due to memory usage", true),
            Reason::OutOfMemory
        );
        assert_eq!(reason("EssentialContainerExited", ended, "", true), Reason::Lost);
        assert_eq!(reason("UserInitiated", "stopped by arn:aws:iam::1:user/anna", "", true), Reason::Stopped);
        assert_eq!(reason("UserInitiated", "relay: cancelled before it ran", "", false), Reason::Cancelled);
        assert_eq!(reason("UserInitiated", "relay: past its deadline", "", true), Reason::TimedOut);
        assert_eq!(reason("SpotInterruption", "Your Spot Task was interrupted.", "", true), Reason::Infrastructure);
        assert_eq!(
            reason("TerminationNotice", "ECS is performing maintenance on the underlying infrastructure", "", true),
            Reason::Infrastructure
        );
    }

    // clause: LAU-12, CTL-6
    #[test]
    fn the_watchdog_stops_what_does_not_end_by_itself() {
        let at = Timestamp::from_unix;
        assert_eq!(to_stop(at(1_000), None, 120, at(1_120)), None);
        assert_eq!(to_stop(at(1_000), None, 120, at(1_121)), Some(OVERDUE));
        assert_eq!(to_stop(at(1_000), Some(at(500)), 120, at(740)), None);
        assert_eq!(to_stop(at(1_000), Some(at(500)), 120, at(741)), Some(CANCELLED));
    }

    #[test]
    fn ecs_words_have_reasons() {
        assert_eq!(launch_reason("Capacity is unavailable at this time"), Reason::Capacity);
        assert_eq!(launch_reason("TaskDefinition is inactive"), Reason::TaskDefinition);
        assert_eq!(launch_reason("You've reached the limit on the number of tasks"), Reason::Quota);
        assert_eq!(launch_reason("something new"), Reason::Launch);
    }
}
