//! The fuzz targets: one function each, from untrusted bytes to assertions. libFuzzer
//! (`fuzz/targets`) and `tests/replay.rs` call them. Each asserts more than the absence of panics:
//! a parsed value survives being written and parsed again, limits hold, and a stream comes out as
//! it went in. Where raw bytes would not get far (signatures, checksums, sequences of calls), they
//! encode a program of operations and operands.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod approval;
mod artifact;
mod configuration;
mod envelope;
mod frame;
mod input;
mod ledger;
mod reader;
mod record;
mod statement;
mod token;
#[path = "../../../crates/engine/tests/toy/mod.rs"]
mod toy;
mod writer;

pub use approval::approval;
pub use artifact::artifact;
pub use configuration::configuration;
pub use envelope::envelope;
pub use frame::{frame, output};
pub use ledger::ledger;
pub use reader::reader;
pub use record::record;
pub use statement::{control, request};
pub use token::{jwks, token};
pub use writer::writer;

/// A function that libFuzzer calls with its input.
pub type Target = fn(&[u8]);

/// Every target with its name. The target's folders under `fuzz/corpus` and `fuzz/regressions` have
/// the same name.
pub const TARGETS: &[(&str, Target)] = &[
    ("approval", approval),
    ("artifact", artifact),
    ("configuration", configuration),
    ("control", control),
    ("envelope", envelope),
    ("frame", frame),
    ("jwks", jwks),
    ("ledger", ledger),
    ("output", output),
    ("reader", reader),
    ("record", record),
    ("request", request),
    ("token", token),
    ("writer", writer),
];
