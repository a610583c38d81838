//! Every decision of relay that depends on time or order, without I/O and without a clock. The
//! programs carry the decisions out, and the model runs the same code.
//!
//! | module | decides |
//! |---|---|
//! | [`launch`] | the order of the launcher's calls; repeated answers; the meaning of ECS's messages |
//! | [`run`] | the order of the runner's calls |
//! | [`claim`], [`lock`] | which process may run a deployment; when a slot may be taken |
//! | [`conclude`] | the exit code of `relay deploy` |
//! | [`proof`] | what a record proves about a deployment |
//! | [`ledger`] | what the next entry of the ledger is, and what a ledger proves |
//! | [`Masker`], [`Outbox`] | how output becomes frames (promise P5) |
//! | [`Inbox`] | which frames are accepted, and how they become output again, once and in order (P4, P5, P6) |
//!
//! Time goes in as a [`Duration`](std::time::Duration) since a start that the caller chose, or as a
//! [`Timestamp`](relay_protocol::Timestamp); actions come out. The caller makes and checks
//! signatures, through a [`Seal`] and a [`Verifier`](relay_protocol::keys::Verifier).
//!
//! ```text
//!  tool ─► Masker ─► Outbox ─ frames ─► SQS (duplicates, reorders, delays) ─► Inbox ─► terminal
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod backoff;
pub mod claim;
pub mod conclude;
mod inbox;
pub mod launch;
pub mod ledger;
pub mod lock;
mod mask;
mod outbox;
pub mod proof;
pub mod run;

use relay_protocol::encoding::Hasher;
use relay_protocol::frame::Stream;
use relay_protocol::record::StreamDigest;

pub use backoff::Backoff;
pub use inbox::{
    Authentic, Authenticator, End, Event, Inbox, Mark, Missing, Pins, Published, Rejected, Start, Timeouts, Token,
    Unfit, Verdict,
};
pub use mask::{Masker, SECRET_MIN};
pub use outbox::{Batch, Finish, Frame, MemorySpool, Outbox, Seal, Spool};

/// The running SHA-256 and length of a stream.
#[derive(Clone, Debug, Default)]
struct Tally {
    bytes: u64,
    hasher: Hasher,
}

/// The tallies of both streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies {
    stdout: Tally,
    stderr: Tally,
}

impl Tallies {
    pub(crate) fn add(&mut self, stream: Stream, bytes: &[u8]) {
        match stream {
            Stream::Stdout => self.stdout.add(bytes),
            Stream::Stderr => self.stderr.add(bytes),
        }
    }

    /// Length and digest so far: stdout, stderr.
    pub(crate) fn digests(&self) -> (StreamDigest, StreamDigest) {
        (self.stdout.digest(), self.stderr.digest())
    }
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.push(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn digest(&self) -> StreamDigest {
        StreamDigest { bytes: self.bytes, sha256: self.hasher.digest() }
    }
}
