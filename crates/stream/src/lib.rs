//! The time of relay: how output becomes frames, and how frames become output again, exactly once and in order (promises P4, P5, P6).
//!
//! State machines without I/O and without a clock: [`Writer`] and [`Sender`] in the runner, the [`Reader`] in the CLI. Time goes in as a
//! [`Duration`](std::time::Duration) since some start that the caller chose; what is to be done is polled out. Signatures are made and
//! checked at the edge, through a [`FrameVerifier`](relay_protocol::frame::FrameVerifier). The [`Masker`] takes secrets out of a stream before it is written.
//!
//! ```text
//!  tool ─► Masker ─► Writer ─ frames ─► Sender ─► SQS (duplicates, reorders, delays) ─► Authenticator ─► Reader ─► terminal
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod authenticate;
mod clocks;
mod event;
mod mask;
mod reader;
mod sender;
mod writer;

pub use authenticate::{Authentic, Authenticator, Raw, Rejected, Verdict};
pub use clocks::Clocks;
pub use event::{End, Event, Missing};
pub use mask::Masker;
pub use reader::{Reader, Token};
pub use sender::{Direct, Sender, Way};
pub use writer::{Outgoing, Writer};

/// SHA-256 and length of a stream, as it passes by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    bytes: u64,
    hasher: sha2::Sha256,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        sha2::Digest::update(&mut self.hasher, bytes);
        self.bytes += bytes.len() as u64;
    }

    pub(crate) fn digest(&self) -> relay_protocol::record::StreamDigest {
        let digest: [u8; 32] = sha2::Digest::finalize(self.hasher.clone()).into();
        relay_protocol::record::StreamDigest { bytes: self.bytes, sha256: relay_protocol::Digest::from_bytes(digest) }
    }
}
