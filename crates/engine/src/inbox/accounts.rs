//! The accounts: compare the output that was handed out with what the runner says that it printed
//! (clause FRM-13).

use relay_protocol::frame::{Chunk, Chunks, Finished, Offsets, OutputError};

use super::event::Missing;
use crate::Tallies;

/// How much the reader can check at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Basis {
    /// It has had every byte: it checks lengths and digests.
    Whole,
    /// It joined late and has had no output yet: it can check nothing.
    Unknown,
    /// It joined late: it checks lengths alone, because each output frame says how much came before
    /// it (clause FRM-19).
    Lengths,
}

#[derive(Debug)]
pub(super) struct Accounts {
    basis: Basis,
    offset: Offsets,
    tallies: Tallies,
    missing: Missing,
}

impl Accounts {
    /// For a reader that will have every byte.
    pub(super) fn new() -> Self {
        Self {
            basis: Basis::Whole,
            offset: Offsets::default(),
            tallies: Tallies::default(),
            missing: Missing::default(),
        }
    }

    /// Another reader has had the beginning.
    pub(super) fn join(&mut self) {
        self.basis = Basis::Unknown;
    }

    /// Bytes of both streams up to here.
    pub(super) fn offset(&self) -> Offsets {
        self.offset
    }

    /// Counts frames that never came.
    pub(super) fn gap(&mut self, frames: u64) -> Missing {
        self.missing.frames += frames;
        Missing { frames, bytes: 0 }
    }

    /// Unpacks and counts the next output frame.
    ///
    /// # Errors
    ///
    /// The frame does not unpack.
    pub(super) fn output(&mut self, chunks: Chunks) -> Result<Vec<Chunk>, OutputError> {
        let before = chunks.offset;
        let chunks = chunks.unfold()?;
        if self.basis == Basis::Unknown {
            self.basis = Basis::Lengths;
        } else {
            // After a gap, the frame itself says where it stands.
            let skipped = |to: u64, from: u64| to.saturating_sub(from);
            self.missing.bytes = self
                .missing
                .bytes
                .saturating_add(skipped(before.stdout, self.offset.stdout))
                .saturating_add(skipped(before.stderr, self.offset.stderr));
        }
        self.offset = before;
        for chunk in &chunks {
            let offset = self.offset.of(chunk.stream);
            *offset = offset.saturating_add(chunk.bytes.len() as u64);
            self.tallies.add(chunk.stream, &chunk.bytes);
        }
        Ok(chunks)
    }

    /// Closes the accounts at the last frame, whose number is `frames` - 1. Returns what is
    /// missing, and whether the output is verified.
    pub(super) fn close(&mut self, finished: &Finished, frames: u64) -> (Missing, bool) {
        let agrees = match self.basis {
            Basis::Whole => (finished.stdout, finished.stderr) == self.tallies.digests(),
            Basis::Unknown => true,
            Basis::Lengths => {
                finished.stdout.bytes == self.offset.stdout && finished.stderr.bytes == self.offset.stderr
            }
        };
        let verified = self.missing.frames == 0 && agrees && finished.frames == frames;
        if !verified {
            let said = finished.stdout.bytes.saturating_add(finished.stderr.bytes);
            let had = self.offset.stdout.saturating_add(self.offset.stderr);
            self.missing.bytes = self.missing.bytes.saturating_add(said.saturating_sub(had));
        }
        (self.missing, verified)
    }
}

#[cfg(test)]
mod tests {
    use relay_protocol::Digest;
    use relay_protocol::frame::Stream;
    use relay_protocol::outcome::Outcome;
    use relay_protocol::record::StreamDigest;

    use super::*;

    fn chunks(before: u64, text: &str) -> Chunks {
        let chunk: Chunk = Chunk { stream: Stream::Stdout, ms: 0, bytes: text.to_owned().into() };
        Chunks::legible(Offsets { stdout: before, stderr: 0 }, &[chunk])
    }

    /// A last frame, of `frames`, that says that this was printed on stdout.
    fn finished(frames: u64, stdout: &str, stderr: &str) -> Finished {
        let of = |text: &str| StreamDigest { bytes: text.len() as u64, sha256: Digest::of(text.as_bytes()) };
        Finished {
            outcome: Outcome::Exited { code: 0, signal: None },
            frames,
            stdout: of(stdout),
            stderr: of(stderr),
            step: None,
            outputs: std::collections::BTreeMap::new(),
            record: None,
            record_sha256: Digest::of(b""),
            record_problem: None,
        }
    }

    // clause: FRM-13
    #[test]
    fn a_whole_reader_compares_lengths_digests_and_frames() {
        let read = || {
            let mut accounts = Accounts::new();
            accounts.output(chunks(0, "abc")).unwrap();
            accounts.output(chunks(3, "def")).unwrap();
            assert_eq!(accounts.offset(), Offsets { stdout: 6, stderr: 0 });
            accounts
        };
        let whole = (Missing { frames: 0, bytes: 0 }, true);
        assert_eq!(read().close(&finished(3, "abcdef", ""), 3), whole);
        assert_eq!(read().close(&finished(4, "abcdef", ""), 3), (Missing { frames: 0, bytes: 0 }, false));
        assert_eq!(read().close(&finished(3, "abcdeX", ""), 3), (Missing { frames: 0, bytes: 0 }, false));
        assert_eq!(read().close(&finished(3, "abcdefgh", "ij"), 3), (Missing { frames: 0, bytes: 4 }, false));
        let mut gap = Accounts::new();
        gap.output(chunks(0, "ab")).unwrap();
        gap.gap(1);
        gap.output(chunks(5, "f")).unwrap();
        assert_eq!(gap.close(&finished(4, "abcdef", ""), 4), (Missing { frames: 1, bytes: 3 }, false));
    }

    // clause: FRM-19
    #[test]
    fn a_late_reader_compares_lengths_alone() {
        let read = || {
            let mut accounts = Accounts::new();
            accounts.join();
            accounts.output(chunks(3, "def")).unwrap();
            accounts
        };
        let none = Missing::default();
        assert_eq!(read().close(&finished(3, "XXXXXX", ""), 3), (none, true), "the digests cover what it has not read");
        assert_eq!(read().close(&finished(3, "XXXXXXX", ""), 3), (Missing { frames: 0, bytes: 1 }, false));
        assert!(!read().close(&finished(3, "XXXXXX", "Y"), 3).1, "both streams count");
        let mut silent = Accounts::new();
        silent.join();
        assert_eq!(silent.close(&finished(3, "XXXXXX", ""), 3), (none, true), "it has nothing to compare");
    }
}
