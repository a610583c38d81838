//! The result file: how the deployment ended, in a form that tells a tool's exit code 120 from
//! relay's own.

use std::path::Path;

use relay_console::Failure;
use relay_engine::End;
use relay_protocol::outcome::{ExitCode, Outcome};
use relay_protocol::{DeploymentId, TargetName};
use serde_json::{Value, json};

use crate::tail::Tail;

/// Returns the contents of the file.
pub(crate) fn result(id: &DeploymentId, target: &TargetName, exit_code: u8, tail: &Tail) -> Value {
    let end = tail.inbox.poll_end();
    let (by, reason, message) = match end {
        Some(End::Finished { finished, .. }) => match &finished.outcome {
            Outcome::Exited { .. } => ("tool", None, None),
            Outcome::Ended { reason, message } => ("relay", Some(*reason), Some(message.clone())),
        },
        Some(
            End::Refused { reason, message }
            | End::NeverStarted { reason, message }
            | End::Stopped { reason, message, .. },
        ) => ("relay", Some(*reason), Some(message.clone())),
        // A dry run has no result file.
        Some(End::Tried(_)) => ("relay", None, None),
        Some(End::Silent { waiting_for, .. }) => {
            ("relay", None, Some(format!("no message arrived while waiting for {waiting_for}")))
        }
        None => ("relay", None, Some("relay exited before the end of the deployment".to_owned())),
    };
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

/// Writes the file.
pub(crate) fn write(path: &Path, result: &Value) -> Result<(), Failure> {
    let text = format!("{result:#}\n");
    std::fs::write(path, text).map_err(|error| {
        Failure::new(ExitCode::Fault, format!("cannot write the result file {}: {error}", path.display()))
    })
}
