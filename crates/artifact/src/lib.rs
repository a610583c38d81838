//! Artifacts as files: packing a tree into a deterministic `.tar.zst`, and unpacking an untrusted
//! one.
//!
//! This crate owns both directions, but neither network access nor the names of objects.
//! [`relay_protocol::artifact`] decides which names and sizes are allowed; the clauses are ART-1 to
//! ART-6. The caller must check that the bytes match the digest, over the whole object, before
//! unpacking any of it (clause ART-3).

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod entries;
mod find;
mod pack;
mod pack_error;
mod tree;
#[cfg(feature = "unpack")]
mod unpack;
mod unpack_error;

pub use find::find;
pub use pack::{Packed, Text, pack};
pub use pack_error::PackError;
#[cfg(feature = "unpack")]
pub use unpack::{Unpacked, unpack};
pub use unpack_error::UnpackError;
