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
