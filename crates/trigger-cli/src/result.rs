//! The result file: how the deployment ended, in a form that tells a tool's exit code 120 from
//! relay's own.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use relay_console::Failure;
use relay_console::outlet::is_same_file;
use relay_engine::End;
use relay_protocol::outcome::Outcome;
use relay_protocol::{DeploymentId, Reason, TargetName};
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::show::Show;
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
        "message": failure.error,
        "hints": failure.hints,
    })
}

/// How long the reader of a FIFO may take to open it.
const READER: Duration = Duration::from_secs(2);

/// The file that the result goes to. It is opened once, before anything is published, so that a
/// file that cannot be written is a usage error.
#[derive(Debug)]
pub(crate) struct ResultFile {
    path: PathBuf,
    /// `None` if it is the command's own stdout, which has another owner.
    file: Option<File>,
}

impl ResultFile {
    /// Opens the file and empties it. Neither this nor [`ResultFile::write`] blocks, whatever kind
    /// of file it is.
    pub(crate) async fn open(path: &Path) -> Result<Self, Failure> {
        let began = Instant::now();
        let file = loop {
            match open(path) {
                Ok(file) => break file,
                Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) && began.elapsed() < READER => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => {
                    let problem = match error.raw_os_error() {
                        Some(code) if code == Errno::NXIO.raw_os_error() => "it is a pipe that nobody reads".to_owned(),
                        _ => error.to_string(),
                    };
                    return Err(Failure::usage(format!("cannot write the result file {}: {problem}", path.display())));
                }
            }
        };
        let is_stdout = is_same_file(&file, rustix::stdio::stdout());
        if !is_stdout && file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            // Only a disk with an error fails here, and then the write fails too.
            drop(file.set_len(0));
        }
        Ok(Self { path: path.to_owned(), file: (!is_stdout).then_some(file) })
    }

    /// Writes the result. A pipe takes what it has room for (64 KiB, if nothing else is in it), and
    /// it is an error if that is not all.
    pub(crate) fn write(&mut self, show: &mut Show, result: &Value) {
        let text = format!("{result:#}\n");
        let Some(file) = &mut self.file else { return show.document(text) };
        if let Err(error) = file.write_all(text.as_bytes()) {
            let problem = match error.kind() {
                io::ErrorKind::WouldBlock => "its reader does not keep up".to_owned(),
                _ => error.to_string(),
            };
            // The deployment is over, and its own exit code matters more.
            show.warn(&format!("cannot write the result file {}: {problem}", self.path.display()));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(path)
}
