//! Archives every signed frame in the relay bucket while the deployment runs (clauses ARC-1 to
//! ARC-3). The transcript survives if the CI agent dies, the queue is deleted or the runner is
//! killed.
//!
//! S3 never delays the deployment: data that it has not accepted yet waits on disk, up to a limit.
//! Data that cannot be kept is reported in the log.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use relay_aws::objects::{Condition, Objects};
use relay_aws::{AwsError, Kind};
use relay_engine::{Backoff, Spool as _};
use relay_protocol::{DeploymentId, TargetName, archive};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tracing::warn;

use crate::spool::Spool;

/// An object is written when its lines have this many bytes.
const OBJECT: usize = 1_024 * 1_024;

/// An object is written at the latest this long after its first line, so a killed runner loses at
/// most this much output, plus what S3 had not accepted yet.
const AGE: Duration = Duration::from_secs(30);

/// Capacity, in lines, of the channel to the archive task.
const CHANNEL: usize = 2;

/// The first and the longest pause after a failed write to S3.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(20));

/// The location of this deployment's objects.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    pub(crate) objects: Objects,
    pub(crate) bucket: String,
    pub(crate) target: TargetName,
    pub(crate) id: DeploymentId,
}

impl Shelf {
    /// Writes one object, and retries until S3 accepts it. Returns only permanent errors: access
    /// denied, a missing bucket or an invalid request.
    async fn write(self, number: u64, bytes: Bytes) -> Result<(), AwsError> {
        let key = archive::key(&self.target, &self.id, number);
        let mut backoff = PAUSE;
        loop {
            match self.objects.put(&self.bucket, &key, bytes.clone(), Condition::Absent).await {
                Ok(_) => return Ok(()),
                // Only this runner, which holds the claim, writes this key. So an earlier attempt
                // succeeded, and its response was lost.
                Err(error) if error.kind == Kind::Precondition => return Ok(()),
                Err(error) if matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::Invalid) => return Err(error),
                Err(error) => warn!(%error, key, "cannot write to the archive; retrying"),
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// A handle on the archive task.
#[derive(Debug)]
pub(crate) struct Archive {
    lines: mpsc::Sender<String>,
    task: JoinHandle<()>,
}

impl Archive {
    /// Starts the task. Data that S3 does not accept yet waits in `directory`, up to `max` bytes.
    pub(crate) fn start(shelf: Shelf, directory: PathBuf, max: u64) -> Self {
        let (lines, receiver) = mpsc::channel(CHANNEL);
        let writing = Writing {
            shelf,
            spool: Spool::new(directory, max),
            gathered: Vec::new(),
            due: None,
            next: 0,
            uploads: JoinSet::new(),
            given_up: None,
        };
        Self { lines, task: tokio::spawn(writing.run(receiver)) }
    }

    /// Returns a sender for frame lines.
    pub(crate) fn lines(&self) -> mpsc::Sender<String> {
        self.lines.clone()
    }

    /// Waits until everything is written. The task ends only after every sender of lines is
    /// dropped.
    pub(crate) async fn finish(self) {
        drop(self.lines);
        // A panic in the task is a bug, but does not change how the deployment ended.
        let _ = self.task.await;
    }
}

struct Writing {
    shelf: Shelf,
    spool: Spool,
    gathered: Vec<u8>,
    due: Option<Instant>,
    next: u64,
    /// At most one upload runs at a time.
    uploads: JoinSet<Result<(), AwsError>>,
    /// The permanent error after which the archive keeps nothing more.
    given_up: Option<AwsError>,
}

impl Writing {
    async fn run(mut self, mut lines: mpsc::Receiver<String>) {
        let mut open = true;
        loop {
            let due = self.due.is_some_and(|due| Instant::now() >= due);
            if self.gathered.len() >= OBJECT || due || !open {
                self.cut();
            }
            if self.uploads.is_empty() {
                match self.spool.take() {
                    Ok(Some(bytes)) => self.upload(bytes),
                    Ok(None) if !open => return,
                    Ok(None) => {}
                    Err(error) => {
                        warn!(%error, "cannot read the spool; part of the archive is lost");
                        continue;
                    }
                }
            }
            let pause = self.due.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
            tokio::select! {
                line = lines.recv(), if open => match line {
                    Some(line) => self.gather(&line),
                    None => open = false,
                },
                Some(done) = self.uploads.join_next(), if !self.uploads.is_empty() => {
                    if let Ok(Err(error)) = done {
                        warn!(%error, "this deployment's output is no longer archived");
                        self.given_up = Some(error);
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn gather(&mut self, line: &str) {
        if self.given_up.is_none() {
            self.gathered.extend_from_slice(line.as_bytes());
            self.due.get_or_insert_with(|| Instant::now() + AGE);
        }
    }

    /// Makes an object of the gathered bytes, and uploads it or puts it into the spool.
    fn cut(&mut self) {
        self.due = None;
        let bytes = std::mem::take(&mut self.gathered);
        if bytes.is_empty() || self.given_up.is_some() {
            return;
        }
        if self.uploads.is_empty() && self.spool.is_empty() {
            return self.upload(bytes);
        }
        let kept = if self.spool.has_room() {
            self.spool.put(&bytes).map_err(|error| error.to_string())
        } else {
            Err("the spool is full".to_owned())
        };
        if let Err(problem) = kept {
            warn!(
                problem,
                bytes = bytes.len(),
                "S3 is too slow and the output cannot be spooled; the archive will have a gap"
            );
        }
    }

    fn upload(&mut self, bytes: Vec<u8>) {
        let number = self.next;
        self.next += 1;
        self.uploads.spawn(self.shelf.clone().write(number, bytes.into()));
    }
}
