//! How relay's programs talk to people: what went wrong and what to do next ([`Failure`]), text that no terminal and no CI system takes for
//! a command ([`Lines`]), logs, and a way out that never blocks.
//!
//! It decides nothing. A stranger's text may be in any message, so everything here is escaped where it is printed, and nowhere before.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod failure;
mod lines;
pub mod outlet;
pub mod telemetry;

pub use failure::Failure;
pub use lines::{Lines, harmless};
