//! Thin adapters to AWS: one file per service, no decisions. What a result means is for the caller; that it is one of a few plain kinds is for
//! [`AwsError`]. The real SDK talks to a real HTTP endpoint always: in tests that is the sandbox or a third-party emulator.

#![forbid(unsafe_code)]

pub mod clock;
mod error;
pub mod failure;
pub mod keys;
pub mod metadata;
pub mod objects;
pub mod outlet;
pub mod probe;
pub mod queues;
pub mod sdk;
pub mod secrets;
pub mod sessions;
pub mod tasks;
pub mod telemetry;
pub mod topic;

pub use error::{AwsError, Kind};
pub use failure::Failure;
pub use sdk::Sdk;
