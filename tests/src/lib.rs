//! What the tests of the whole share, in rooms:
//!
//! | room | what |
//! |---|---|
//! | [`kit`] | the real programs as real processes on a sandbox |
//! | [`vectors`] | the conformance vectors: their form, our verdict, how the files are made |
//! | [`emulator`] | both accounts on an AWS emulator that nobody here wrote; `src/emulator/bin` installs the package there |
//! | [`document`] | the parts of documents that are made from the code |
//! | [`infra`] | the templates of `infra/`, read as data |
//! | `src/bench`, `src/soak` | programs that measure, and that run for long |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod document;
pub mod emulator;
pub mod infra;
pub mod kit;
pub mod vectors;

pub use kit::{Asking, Deployed, Options, Reply, Running, Sandbox, Task, eventually};

/// Whether smaller sizes are wanted: whoever is in a hurry sets `RELAY_QUICK`.
pub fn quick() -> bool {
    std::env::var_os("RELAY_QUICK").is_some()
}

/// `full`, or `small` where smaller sizes are wanted.
pub fn sized(full: usize, small: usize) -> usize {
    if quick() { small } else { full }
}

/// SHA-256, as it stands in frames and records.
pub fn sha256(bytes: &[u8]) -> String {
    relay_protocol::Digest::of(bytes).to_string()
}
