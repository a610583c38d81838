//! The backlog: frames that SQS does not accept yet, in order. Output waits in the spool (clause
//! FRM-15). The runner's few messages wait in memory, so that a failing disk cannot lose the end or
//! the messages before it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use relay_protocol::SignedFrame;

use super::in_flight::Frame;

/// A first-in, first-out queue of pieces: a disk in the runner, memory in models and tests.
pub trait Spool {
    /// Whether there is room. One more piece may exceed the limit by its own length.
    fn has_room(&self) -> bool;

    /// Appends a piece of at most 4 GiB.
    ///
    /// # Errors
    ///
    /// The piece was not stored. Everything else still is.
    fn put(&mut self, piece: &[u8]) -> io::Result<()>;

    /// Takes the oldest piece.
    ///
    /// # Errors
    ///
    /// Everything that waits is given up: a disk that loses data is not read a second time.
    fn take(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Discards everything that waits.
    fn clear(&mut self);
}

/// An unbounded spool in memory.
#[derive(Debug, Default)]
pub struct MemorySpool(VecDeque<Vec<u8>>);

impl MemorySpool {
    /// How many pieces wait.
    pub fn pieces(&self) -> usize {
        self.0.len()
    }
}

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

/// A frame that waits, in its place in the order.
#[derive(Debug)]
enum Waiting {
    Spooled(u64),
    Memory(Arc<Frame>),
}

/// The spool failed. Exactly these frames are lost to the queue.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) seqs: Vec<u64>,
    pub(super) problem: io::Error,
}

/// Keeps the frames that wait, in order.
#[derive(Debug)]
pub(super) struct Backlog<S> {
    spool: S,
    waiting: VecDeque<Waiting>,
    /// Output frames that the spool did not accept.
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

    /// Whether more output may come. If not, the tool must wait: the spool is full, or accepts
    /// nothing.
    pub(super) fn has_room(&self) -> bool {
        self.spool.has_room() && self.refused == 0
    }

    /// Appends a frame.
    ///
    /// # Errors
    ///
    /// The spool did not accept it. The frame waits in memory, and the tool must wait until it is
    /// gone.
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

    /// Takes the oldest frame.
    ///
    /// # Errors
    ///
    /// The spool failed. The error is returned once, with the frames that are lost.
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
            // The spool holds one piece for each mark. If a piece is missing, or is not a frame,
            // the disk is at fault.
            let piece = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
            let signed = SignedFrame::from_line(&piece)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it returned other bytes than were written"))?;
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

    /// A spool that accepts nothing, or loses everything.
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
        assert!(backlog.has_room(), "frames without output wait in memory anyway");
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
        assert_eq!(drained(&mut backlog).len(), 1, "later frames are kept");
    }
}
