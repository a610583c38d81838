//! How relay's programs talk to people: failures with what to do next ([`Failure`]), text that no
//! terminal and no CI system takes for a command ([`Lines`]), logs, and output that never blocks.
//!
//! It decides nothing. Any message may contain untrusted text, so everything is escaped here, where
//! it is printed, and nowhere earlier.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod failure;
mod lines;
#[cfg(feature = "manual")]
pub mod manual;
pub mod outlet;
pub mod panics;
pub mod telemetry;
mod version;

pub use failure::Failure;
pub use lines::{Lines, harmless};
pub use version::version;
