//! The backlog: signed frames that SQS does not take yet, in their order. Output waits on disk (clause FRM-15); the runner's few words wait in
//! memory, so that a disk that fails can neither take the end away nor the words before it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use relay_protocol::ArchivedFrame;

use crate::spool::Spool;

/// A frame as it is sent and archived.
#[derive(Debug)]
pub(crate) struct Signed {
    pub(crate) seq: u64,
    pub(crate) output: bool,
    pub(crate) last: bool,
    pub(crate) frame: ArchivedFrame,
}

/// What waits, by its place in the order.
#[derive(Debug)]
enum Waiting {
    Disk(u64),
    Memory(Arc<Signed>),
}

/// The disk failed: these frames are lost to the queue, and no others.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) seqs: Vec<u64>,
    pub(crate) problem: io::Error,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Backlog {
    spool: Spool,
    waiting: VecDeque<Waiting>,
    /// Frames of output that the disk did not take.
    refused: usize,
}

impl Backlog {
    pub(crate) fn new(spool: Spool) -> Self {
        Self { spool, waiting: VecDeque::new(), refused: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more output may come. If not, the tool must wait: the disk is full, or takes nothing.
    pub(crate) fn has_room(&self) -> bool {
        self.spool.has_room() && self.refused == 0
    }

    /// Appends a frame.
    pub(crate) fn put(&mut self, frame: Arc<Signed>) {
        if !frame.output {
            return self.waiting.push_back(Waiting::Memory(frame));
        }
        match self.spool.put(frame.frame.to_line().as_bytes()) {
            Ok(()) => self.waiting.push_back(Waiting::Disk(frame.seq)),
            Err(error) => {
                tracing::warn!(%error, "the spool cannot be written: the tool waits until the reply queue takes more");
                self.refused += 1;
                self.waiting.push_back(Waiting::Memory(frame));
            }
        }
    }

    /// The oldest. An error of the disk is told once.
    pub(crate) fn next(&mut self) -> Result<Option<Arc<Signed>>, Lost> {
        let seq = match self.waiting.pop_front() {
            None => return Ok(None),
            Some(Waiting::Memory(frame)) => {
                self.refused -= usize::from(frame.output);
                return Ok(Some(frame));
            }
            Some(Waiting::Disk(seq)) => seq,
        };
        let read = self.spool.take().and_then(|piece| {
            // A piece for each mark: one that is missing, or is no frame, is the disk's doing.
            let piece = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
            let frame = serde_json::from_slice(&piece).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "it gave back other bytes than were written")
            })?;
            Ok(Arc::new(Signed { seq, output: true, last: false, frame }))
        });
        read.map(Some).map_err(|problem| {
            self.spool.clear();
            let mut seqs = vec![seq];
            self.waiting.retain(|waiting| match waiting {
                Waiting::Disk(seq) => {
                    seqs.push(*seq);
                    false
                }
                Waiting::Memory(_) => true,
            });
            Lost { seqs, problem }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn frame(seq: u64, output: bool) -> Arc<Signed> {
        let frame = ArchivedFrame { from: "runner".into(), sig: String::new(), vouch: None, body: format!("{seq}\n") };
        Arc::new(Signed { seq, output, last: false, frame })
    }

    fn backlog(directory: &std::path::Path, frames: &[(u64, bool)]) -> Backlog {
        let mut backlog = Backlog::new(Spool::new(directory.to_owned(), 1 << 20));
        frames.iter().for_each(|(seq, output)| backlog.put(frame(*seq, *output)));
        backlog
    }

    fn drained(backlog: &mut Backlog) -> Vec<(u64, bool, String)> {
        std::iter::from_fn(|| backlog.next().unwrap())
            .map(|signed| (signed.seq, signed.output, signed.frame.body.clone()))
            .collect()
    }

    #[test]
    fn output_and_words_keep_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let frames = [(4, true), (5, false), (6, true), (7, true), (8, false)];
        let mut backlog = backlog(directory.path(), &frames);
        assert!(!backlog.is_empty() && backlog.has_room());
        assert_eq!(drained(&mut backlog), frames.map(|(seq, output)| (seq, output, format!("{seq}\n"))));
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_the_tool_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut backlog = backlog(&file, &[(0, false)]);
        assert!(backlog.has_room(), "words wait in memory anyway");
        backlog.put(frame(1, true));
        assert!(!backlog.has_room());
        assert_eq!(drained(&mut backlog).len(), 2);
        assert!(backlog.has_room() && backlog.is_empty());
    }

    #[test]
    fn a_disk_that_forgets_loses_output_but_no_word() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = backlog(directory.path(), &[(0, true), (1, false), (2, true), (3, false)]);
        backlog.spool.spoil();
        assert_eq!(backlog.next().unwrap_err().seqs, [0, 2]);
        assert_eq!(drained(&mut backlog).iter().map(|(seq, ..)| *seq).collect::<Vec<_>>(), [1, 3]);
        backlog.put(frame(4, true));
        assert_eq!(drained(&mut backlog).len(), 1, "what comes then is kept");
    }
}
