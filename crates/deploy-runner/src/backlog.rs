//! The backlog: what comes while the writer is full waits here in its order. Output waits on disk; the runner's few words wait in memory, and a
//! mark on disk says where they stand.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use relay_protocol::frame::Stream;

use crate::spool::Spool;

/// Output that is gathered before it goes to disk: a tool that prints byte by byte must not cost a write for each.
const GATHER: usize = 64 * 1_024;

/// Bytes before the output in a piece: what it is, and when it was read.
const HEAD: usize = 9;

const STDOUT: u8 = 0;
const STDERR: u8 = 1;
const WORD: u8 = 2;

/// What waited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waiting<W> {
    /// Output, and when it was read.
    Output(Stream, Duration, Vec<u8>),
    /// Something else.
    Word(W),
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Backlog<W> {
    spool: Spool,
    words: VecDeque<W>,
    /// Behind the spool: pieces that are not on disk yet. More than one, when the disk takes none.
    tail: VecDeque<Vec<u8>>,
}

impl<W> Backlog<W> {
    pub(crate) fn new(spool: Spool) -> Self {
        Self { spool, words: VecDeque::new(), tail: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spool.is_empty() && self.tail.is_empty() && self.words.is_empty()
    }

    /// Whether more may come. If not, whoever has more must wait: the disk is full, or takes nothing.
    pub(crate) fn has_room(&self) -> bool {
        self.spool.has_room() && self.tail.len() <= 1
    }

    /// Output that was read at `at`.
    pub(crate) fn put_output(&mut self, stream: Stream, at: Duration, bytes: &[u8]) {
        let kind = if stream == Stream::Stdout { STDOUT } else { STDERR };
        match self.tail.back_mut() {
            Some(last) if last.first() == Some(&kind) && last.len() < GATHER => last.extend_from_slice(bytes),
            _ => {
                let mut piece = Vec::with_capacity(HEAD + bytes.len());
                piece.push(kind);
                piece.extend_from_slice(&u64::try_from(at.as_nanos()).unwrap_or(u64::MAX).to_be_bytes());
                piece.extend_from_slice(bytes);
                self.tail.push_back(piece);
            }
        }
        self.settle();
    }

    /// A word, behind all output so far.
    pub(crate) fn put_word(&mut self, word: W) {
        self.tail.push_back(vec![WORD]);
        self.words.push_back(word);
        self.settle();
    }

    /// The oldest. An error of the disk is told once: output that waited is lost then, and no word is.
    pub(crate) fn next(&mut self) -> io::Result<Option<Waiting<W>>> {
        let piece = match self.spool.take() {
            Ok(piece) => piece.or_else(|| self.tail.pop_front()),
            Err(error) => {
                self.tail.clear();
                self.tail.extend(self.words.iter().map(|_| vec![WORD]));
                return Err(error);
            }
        };
        let Some(mut piece) = piece else { return Ok(None) };
        let stream = match piece.first() {
            Some(&STDOUT) => Stream::Stdout,
            Some(&STDERR) => Stream::Stderr,
            _ => return Ok(self.words.pop_front().map(Waiting::Word)),
        };
        let at = piece.get(1..HEAD).and_then(|at| at.try_into().ok()).map_or(0, u64::from_be_bytes);
        piece.drain(..HEAD.min(piece.len()));
        Ok(Some(Waiting::Output(stream, Duration::from_nanos(at), piece)))
    }

    /// Writes all but the last piece, which may grow. What the disk does not take stays here, and then nothing more comes.
    fn settle(&mut self) {
        while self.tail.len() > 1 {
            match self.tail.front().map(|piece| self.spool.put(piece)) {
                Some(Ok(())) => drop(self.tail.pop_front()),
                Some(Err(error)) => {
                    tracing::warn!(%error, "the spool cannot be written: the tool waits until the reply queue takes more");
                    return;
                }
                None => return,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn output_and_words_keep_their_order_and_small_pieces_are_gathered() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(Spool::new(directory.path().to_owned(), 1 << 20));
        for _ in 0..3 {
            backlog.put_output(Stream::Stdout, MS, b"out ");
        }
        backlog.put_output(Stream::Stderr, 2 * MS, b"err");
        backlog.put_word("word");
        backlog.put_word("and another");
        backlog.put_output(Stream::Stdout, 3 * MS, b"last");
        let mut seen = Vec::new();
        while let Some(waiting) = backlog.next().unwrap() {
            seen.push(waiting);
        }
        assert_eq!(
            seen,
            [
                Waiting::Output(Stream::Stdout, MS, b"out out out ".to_vec()),
                Waiting::Output(Stream::Stderr, 2 * MS, b"err".to_vec()),
                Waiting::Word("word"),
                Waiting::Word("and another"),
                Waiting::Output(Stream::Stdout, 3 * MS, b"last".to_vec()),
            ]
        );
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_disk_that_takes_nothing_stops_what_comes_and_loses_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut backlog = Backlog::new(Spool::new(file, 1 << 20));
        backlog.put_output(Stream::Stdout, MS, b"one");
        assert!(backlog.has_room(), "one piece waits in memory");
        backlog.put_word("two");
        assert!(!backlog.has_room());
        assert_eq!(backlog.next().unwrap(), Some(Waiting::Output(Stream::Stdout, MS, b"one".to_vec())));
        assert!(backlog.has_room());
        assert_eq!(backlog.next().unwrap(), Some(Waiting::Word("two")));
        assert!(backlog.is_empty());
    }

    #[test]
    fn a_disk_that_forgets_loses_output_but_no_word() {
        let directory = tempfile::tempdir().unwrap();
        let mut backlog = Backlog::new(Spool::new(directory.path().to_owned(), 1 << 20));
        backlog.put_output(Stream::Stdout, MS, b"one");
        backlog.put_word("two");
        backlog.put_output(Stream::Stdout, MS, b"three");
        backlog.spool.spoil();
        assert!(backlog.next().is_err());
        assert_eq!(backlog.next().unwrap(), Some(Waiting::Word("two")));
        assert!(backlog.next().unwrap().is_none() && backlog.is_empty());
    }
}
