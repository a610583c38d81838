//! Archives every signed frame in the evidence bucket while the deployment runs (clauses ARC-1 to
//! ARC-3). The transcript survives if the CI agent dies, the queue is deleted or the runner is
//! killed.
//!
//! S3 never delays the deployment: data that it has not accepted yet waits on disk, up to a limit.
//! The reader is told when S3 accepts nothing, and when data cannot be kept.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use relay_aws::objects::Objects;
use relay_engine::{Backoff, Spool as _};
use relay_protocol::evidence::Evidence;
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

/// How long S3 may refuse an object before the reader is told.
const TROUBLE: Duration = Duration::from_secs(10);

/// Capacity, in notes, of the channel to the pump. What does not fit is in the log.
const NOTES: usize = 8;

/// The first and the longest pause after a failed write to S3.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(20));

/// The location of this deployment's objects.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    pub(crate) objects: Objects,
    pub(crate) bucket: String,
    pub(crate) evidence: Evidence,
}

impl Shelf {
    /// Writes one object, and retries until S3 accepts it: even a denial may pass.
    async fn write(self, number: u64, bytes: Bytes, notes: mpsc::Sender<String>) {
        let key = self.evidence.frames(number);
        let (began, mut told) = (Instant::now(), false);
        let mut backoff = PAUSE;
        // Only this runner, which holds the claim, writes this key. If it is there, an earlier
        // attempt succeeded, and its response was lost.
        while let Err(error) = self.objects.put_once(&self.bucket, &key, bytes.clone()).await {
            warn!(%error, key, "cannot write to the archive; retrying");
            if !told && began.elapsed() >= TROUBLE {
                let text = format!("the evidence bucket does not accept the output yet; relay keeps trying: {error}");
                told = notes.try_send(text).is_ok();
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
    /// Starts the task, and returns it with what the reader should be told. Data that S3 does not
    /// accept yet waits in `directory`, up to `max` bytes.
    pub(crate) fn start(shelf: Shelf, directory: PathBuf, max: u64) -> (Self, mpsc::Receiver<String>) {
        let (lines, receiver) = mpsc::channel(CHANNEL);
        let (notes, told) = mpsc::channel(NOTES);
        let writing = Writing {
            shelf,
            spool: Spool::new(directory, max),
            gathered: Vec::new(),
            due: None,
            next: 0,
            uploads: JoinSet::new(),
            notes,
        };
        (Self { lines, task: tokio::spawn(writing.run(receiver)) }, told)
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
    uploads: JoinSet<()>,
    notes: mpsc::Sender<String>,
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
                Some(_) = self.uploads.join_next(), if !self.uploads.is_empty() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn gather(&mut self, line: &str) {
        self.gathered.extend_from_slice(line.as_bytes());
        self.due.get_or_insert_with(|| Instant::now() + AGE);
    }

    /// Makes an object of the gathered bytes, and uploads it or puts it into the spool.
    fn cut(&mut self) {
        self.due = None;
        let bytes = std::mem::take(&mut self.gathered);
        if bytes.is_empty() {
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
            let text = format!("the evidence bucket is too slow, and {problem}: its copy of the output has a gap");
            let _ = self.notes.try_send(text);
        }
    }

    fn upload(&mut self, bytes: Vec<u8>) {
        let number = self.next;
        self.next += 1;
        self.uploads.spawn(self.shelf.clone().write(number, bytes.into(), self.notes.clone()));
    }
}
