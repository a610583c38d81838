//! What is fuzzed: one function for each target, from bytes that nobody has looked at to assertions. libFuzzer calls them (`fuzz/targets`), and
//! `tests/replay.rs` calls them with what is kept under `fuzz/corpus` and `fuzz/regressions`.
//!
//! Each asserts more than that nothing panics: what was read says the same when it is written again, limits hold, a stream comes out as it went
//! in. Where bytes alone would not get far (signatures, checksums, an order of calls) they are a program: an operation, then its operands.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod artifact;
mod configuration;
mod envelope;
mod frame;
mod input;
mod reader;
mod statement;
#[path = "../../../crates/engine/tests/toy/mod.rs"]
mod toy;
mod writer;

pub use artifact::artifact;
pub use configuration::configuration;
pub use envelope::envelope;
pub use frame::{frame, output};
pub use reader::reader;
pub use statement::{control, request};
pub use writer::writer;

/// What libFuzzer calls.
pub type Target = fn(&[u8]);

/// Every target by name, which is also that of its folders.
pub const TARGETS: &[(&str, Target)] = &[
    ("artifact", artifact),
    ("configuration", configuration),
    ("control", control),
    ("envelope", envelope),
    ("frame", frame),
    ("output", output),
    ("reader", reader),
    ("request", request),
    ("writer", writer),
];
