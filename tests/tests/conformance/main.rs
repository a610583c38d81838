//! Checks the shipped functions against `docs/protocol.md`: the vectors, and the clauses that are
//! about functions and so have no vector.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod clauses;
mod tables;
mod vectors;
