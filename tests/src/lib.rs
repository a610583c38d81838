//! Support code that the end-to-end tests share:
//!
//! | module | what it holds |
//! |---|---|
//! | [`kit`] | the real programs, run as real processes on a sandbox |
//! | [`vectors`] | the conformance vectors: their format, our verdict, how the files are made |
//! | [`emulator`] | both accounts on a third-party emulator; `src/emulator/bin` installs the package there |
//! | [`document`] | the parts of documents that are generated from the code |
//! | [`mod@reference`] | the reference of commands, files and codes, made from the code |
//! | [`infra`] | the templates of `infra/`, read as data |
//! | `src/bench`, `src/soak` | programs that measure, and programs that run for a long time |

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod document;
pub mod emulator;
pub mod infra;
pub mod kit;
pub mod reference;
pub mod vectors;

pub use kit::{Asking, Deployed, Options, Reply, Running, Sandbox, Task, eventually};

/// Whether the tests should use smaller sizes: true if `RELAY_QUICK` is set.
pub fn quick() -> bool {
    std::env::var_os("RELAY_QUICK").is_some()
}

/// Returns `small` if [`quick`], and `full` otherwise.
pub fn sized(full: usize, small: usize) -> usize {
    if quick() { small } else { full }
}

/// SHA-256 in lower-case hexadecimal, as frames and records hold it.
pub fn sha256(bytes: &[u8]) -> String {
    relay_protocol::Digest::of(bytes).to_string()
}
