//! What the tests of the whole share: the conformance vectors, and the harness that runs the real binaries as real processes on a sandbox.
//!
//! [`Sandbox`] is both accounts; [`deploy`] runs `relay`; [`asking`] makes and publishes requests of any kind, bad ones too; [`account`] calls
//! AWS as one of the accounts; [`wait`] waits for conditions, never for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

pub mod account;
pub mod asking;
pub mod deploy;
pub mod docker;
pub mod infra;
pub mod kill;
pub mod ministack;
pub mod sandbox;
pub mod targets;
pub mod vectors;
pub mod wait;

pub use asking::{Asking, Reply};
pub use deploy::{Deployed, Running};
pub use sandbox::{Options, Sandbox, Shared, Task};
pub use wait::eventually;

/// Whether the smaller sizes are wanted: `cargo xtask ci --quick` sets `RELAY_QUICK`.
pub fn quick() -> bool {
    std::env::var_os("RELAY_QUICK").is_some()
}

/// `full`, or `quick` where smaller sizes are wanted.
pub fn sized(full: usize, small: usize) -> usize {
    if quick() { small } else { full }
}

/// SHA-256, as it stands in frames and records.
pub fn sha256(bytes: &[u8]) -> String {
    relay_protocol::Digest::of(bytes).to_string()
}
