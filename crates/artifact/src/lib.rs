//! Artifacts as files: packing a tree into a deterministic `.tar.zst`, and unpacking one that a stranger made.
//!
//! This crate owns the two directions and nothing of where the bytes come from or go to: no network, no names of objects. What an entry
//! may be called and how much there may be is decided by [`relay_protocol::artifact`]; the clauses are ART-1 to ART-6. That the bytes are
//! those of the digest is the caller's to check, over the whole object, before a byte of it is unpacked (clause ART-3).

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod entries;
mod pack;
mod pack_error;
mod tree;
mod unpack;
mod unpack_error;

pub use pack::{Packed, pack};
pub use pack_error::PackError;
pub use unpack::{Unpacked, unpack};
pub use unpack_error::UnpackError;
