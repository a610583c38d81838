//! The result file: how the deployment ended, in a form that tells a tool's exit code 120 from
//! relay's own.

use relay_console::Failure;
use relay_engine::End;
use relay_protocol::outcome::Outcome;
use relay_protocol::{DeploymentId, Reason, TargetName};
use serde_json::{Value, json};

use crate::tail::Tail;

/// What decided the end, and why.
pub(crate) struct Verdict {
    /// `tool` or `relay`.
    pub(crate) by: &'static str,
    pub(crate) reason: Option<Reason>,
    message: Option<String>,
}

/// Returns what decided an end.
pub(crate) fn verdict(end: Option<&End>) -> Verdict {
    let relay = |reason: Option<Reason>, message: String| Verdict { by: "relay", reason, message: Some(message) };
    match end {
        Some(End::Finished { finished, .. }) => match &finished.outcome {
            Outcome::Exited { .. } => Verdict { by: "tool", reason: None, message: None },
            Outcome::Ended { reason, message } => relay(Some(*reason), message.clone()),
        },
        Some(
            End::Refused { reason, message }
            | End::NeverStarted { reason, message }
            | End::Stopped { reason, message, .. },
        ) => relay(Some(*reason), message.clone()),
        // A dry run has no result file.
        Some(End::Tried(tried)) => relay(tried.reason, tried.message.clone()),
        Some(End::Silent { waiting_for, .. }) => {
            relay(None, format!("no message arrived while waiting for {waiting_for}"))
        }
        None => relay(None, "relay exited before the end of the deployment".to_owned()),
    }
}

/// Returns the contents of the file.
pub(crate) fn result(id: &DeploymentId, target: &TargetName, exit_code: u8, tail: &Tail) -> Value {
    let end = tail.inbox.poll_end();
    let Verdict { by, reason, message } = verdict(end);
    let finished = match end {
        Some(End::Finished { finished, missing, verified, .. }) => Some((finished, missing, *verified)),
        _ => None,
    };
    json!({
        "deployment_id": id,
        "target": target,
        "exit_code": exit_code,
        "decided_by": by,
        "reason": reason,
        "message": message,
        "step": finished.and_then(|(finished, ..)| finished.step.clone()),
        "task_arn": tail.inbox.task_arn(),
        "milliseconds": tail.progress.phases.to_json(),
        "output": finished.map(|(finished, missing, verified)| json!({
            "verified": verified,
            "missing_frames": missing.frames,
            "missing_bytes": missing.bytes,
            "stdout": finished.stdout,
            "stderr": finished.stderr,
        })),
        "outputs": finished.map(|(finished, ..)| finished.outputs.clone()),
        "record": finished.and_then(|(finished, ..)| finished.record.clone()),
        "record_sha256": finished.map(|(finished, ..)| finished.record_sha256),
        "record_problem": match end {
            Some(End::Finished { record: Err(problem), .. }) => Some(problem.to_string()),
            _ => None,
        },
    })
}

/// Returns the contents of the file for a command that has failed.
pub(crate) fn failed(target: &str, failure: &Failure) -> Value {
    json!({
        "target": target,
        "exit_code": failure.exit.code(),
        "decided_by": "relay",
        "reason": failure.reason,
        "message": failure.error,
        "hints": failure.hints,
    })
}
