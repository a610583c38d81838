//! What `docs/protocol.md` says, against the shipped functions: the vectors, and clauses that are about functions and so have no vector.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod clauses;
mod tables;
mod vectors;
