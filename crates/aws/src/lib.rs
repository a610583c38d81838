//! Thin adapters to AWS: one file per service, each behind a feature of the service's name. They
//! make no decisions: the caller interprets a result, and [`AwsError`] sorts failures into a few
//! kinds. The SDK always talks to a real HTTP endpoint; in tests that is the sandbox or a
//! third-party emulator.

#![forbid(unsafe_code)]

mod checked;
pub mod clock;
mod error;
#[cfg(feature = "events")]
pub mod events;
#[cfg(feature = "fetch")]
pub mod fetch;
#[cfg(feature = "s3")]
pub mod issuer_keys;
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
#[cfg(feature = "s3")]
pub mod saved;
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
