//! Thin adapters to AWS: one file per service, no decisions. What a result means is for the caller; that it is one of a few plain kinds is for
//! [`AwsError`]. Each service is behind a feature of its name. The real SDK talks to a real HTTP endpoint always: in tests that is the sandbox or a third-party emulator.

#![forbid(unsafe_code)]

pub mod clock;
mod error;
#[cfg(feature = "kms")]
pub mod keys;
#[cfg(feature = "metadata")]
pub mod metadata;
#[cfg(feature = "s3")]
pub mod objects;
#[cfg(feature = "sts")]
pub mod probe;
#[cfg(feature = "sqs")]
pub mod queues;
pub mod sdk;
#[cfg(feature = "secrets")]
pub mod secrets;
#[cfg(feature = "sts")]
pub mod sessions;
#[cfg(feature = "ecs")]
pub mod tasks;
#[cfg(feature = "sns")]
pub mod topic;

pub use error::{AwsError, Kind};
pub use sdk::Sdk;
