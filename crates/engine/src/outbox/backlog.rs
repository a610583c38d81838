//! The backlog: frames that SQS does not take yet, in their order. Output waits in the spool (clause FRM-15); the
//! runner's few words wait in memory, so that a disk that fails can take away neither the end nor the words before it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use relay_protocol::SignedFrame;

use super::Frame;

/// A queue of pieces, first in, first out: a disk in the runner, memory in models and tests.
pub trait Spool {
    /// Whether there is room: a piece may go beyond it by its own length.
    fn has_room(&self) -> bool;

    /// Appends a piece of at most 4 GiB.
    ///
    /// # Errors
    ///
    /// The piece is not there, and everything else still is.
    fn put(&mut self, piece: &[u8]) -> io::Result<()>;

    /// Takes the oldest piece.
    ///
    /// # Errors
    ///
    /// All that waited is given up: a disk that forgets is not read a second time.
    fn take(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Gives up all that waits.
    fn clear(&mut self);
}

/// A spool in memory, without a bound.
#[derive(Debug, Default)]
pub struct MemorySpool(VecDeque<Vec<u8>>);

impl Spool for MemorySpool {
    fn has_room(&self) -> bool {
        true
    }
    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        self.0.push_back(piece.to_vec());
        Ok(())
    }
    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.pop_front())
    }
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What waits, by its place in the order.
#[derive(Debug)]
enum Waiting {
    Spooled(u64),
    Memory(Arc<Frame>),
}

/// The spool failed: these frames are lost to the queue, and no others.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) seqs: Vec<u64>,
    pub(super) problem: io::Error,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Backlog<S> {
    spool: S,
    waiting: VecDeque<Waiting>,
    /// Frames of output that the spool did not take.
    refused: usize,
}

impl<S: Spool> Backlog<S> {
    pub(super) fn new(spool: S) -> Self {
        Self { spool, waiting: VecDeque::new(), refused: 0 }
    }

    #[cfg(test)]
    pub(super) fn spool_mut(&mut self) -> &mut S {
        &mut self.spool
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more output may come. If not, the tool must wait: the spool is full, or takes nothing.
    pub(super) fn has_room(&self) -> bool {
        self.spool.has_room() && self.refused == 0
    }

    /// Appends a frame.
    ///
    /// # Errors
    ///
    /// The spool did not take it; it waits in memory, and the tool must wait until it is gone.
    pub(super) fn put(&mut self, frame: Arc<Frame>) -> io::Result<()> {
        if !frame.output {
            self.waiting.push_back(Waiting::Memory(frame));
            return Ok(());
        }
        let put = self.spool.put(frame.signed.to_line().as_bytes());
        if put.is_ok() {
            self.waiting.push_back(Waiting::Spooled(frame.seq));
        } else {
            self.refused += 1;
            self.waiting.push_back(Waiting::Memory(frame));
        }
        put
    }

    /// The oldest. An error of the spool is told once.
    pub(super) fn next(&mut self) -> Result<Option<Arc<Frame>>, Lost> {
        let seq = match self.waiting.pop_front() {
            None => return Ok(None),
            Some(Waiting::Memory(frame)) => {
                self.refused -= usize::from(frame.output);
                return Ok(Some(frame));
            }
            Some(Waiting::Spooled(seq)) => seq,
        };
        let read = self.spool.take().and_then(|piece| {
            // A piece for each mark: one that is missing, or is no frame, is the disk's doing.
            let piece = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
            let signed = SignedFrame::from_line(&piece).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "it gave back other bytes than were written")
            })?;
            Ok(Arc::new(Frame { seq, output: true, last: false, signed }))
        });
        read.map(Some).map_err(|problem| {
            self.spool.clear();
            let mut seqs = vec![seq];
            self.waiting.retain(|waiting| match waiting {
                Waiting::Spooled(seq) => {
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
mod tests {
    use super::*;
    use crate::outbox::frame;

    /// A spool that takes nothing, or forgets all.
    #[derive(Default)]
    struct Disk {
        spool: MemorySpool,
        takes_nothing: bool,
        forgets: bool,
    }

    impl Spool for Disk {
        fn has_room(&self) -> bool {
            true
        }
        fn put(&mut self, piece: &[u8]) -> io::Result<()> {
            if self.takes_nothing { Err(io::ErrorKind::StorageFull.into()) } else { self.spool.put(piece) }
        }
        fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
            if self.forgets { Err(io::ErrorKind::UnexpectedEof.into()) } else { self.spool.take() }
        }
        fn clear(&mut self) {
            self.spool.clear();
        }
    }

    fn backlog(disk: Disk, frames: &[(u64, bool)]) -> Backlog<Disk> {
        let mut backlog = Backlog::new(disk);
        frames.iter().for_each(|(seq, output)| backlog.put(frame(*seq, *output, 9)).unwrap());
        backlog
    }

    fn drained(backlog: &mut Backlog<Disk>) -> Vec<(u64, bool)> {
        std::iter::from_fn(|| backlog.next().unwrap())
            .inspect(|waited| assert_eq!(*waited, frame(waited.seq, waited.output, 9)))
            .map(|frame| (frame.seq, frame.output))
            .collect()
    }

    #[test]
    fn output_and_words_keep_their_order() {
        let frames = [(4, true), (5, false), (6, true), (7, true), (8, false)];
        let mut backlog = backlog(Disk::default(), &frames);
        assert!(!backlog.is_empty() && backlog.has_room());
        assert_eq!(drained(&mut backlog), frames);
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_the_tool_and_loses_nothing() {
        let mut backlog = backlog(Disk { takes_nothing: true, ..Disk::default() }, &[(0, false)]);
        assert!(backlog.has_room(), "words wait in memory anyway");
        assert!(backlog.put(frame(1, true, 9)).is_err());
        assert!(!backlog.has_room());
        assert_eq!(drained(&mut backlog).len(), 2);
        assert!(backlog.has_room() && backlog.is_empty());
    }

    #[test]
    fn a_disk_that_forgets_loses_output_but_no_word() {
        let mut backlog = backlog(Disk::default(), &[(0, true), (1, false), (2, true), (3, false)]);
        backlog.spool.forgets = true;
        assert_eq!(backlog.next().unwrap_err().seqs, [0, 2]);
        assert_eq!(drained(&mut backlog), [(1, false), (3, false)]);
        backlog.spool.forgets = false;
        backlog.put(frame(4, true, 9)).unwrap();
        assert_eq!(drained(&mut backlog).len(), 1, "what comes then is kept");
    }
}
