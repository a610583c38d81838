//! Both AWS accounts of a relay set-up on one loopback port: the embedded default, and the bench for faults.
//!
//! ```text
//!   SDK ──HTTP──► server ──► wire ──► dispatch ──► one file per service
//!                 accept     bytes    faults, log    state behind one mutex each
//!                                        │
//!                     launcher (Runtime API) and runner (ECS task): real processes
//! ```
//!
//! It speaks the wire protocols of the AWS services that relay uses, is strict where AWS is strict, settable where AWS is not
//! documented, and can fail on purpose, from a seed, around every operation. It refuses to be a general emulator: what relay
//! does not call is not here. Nothing that is shipped depends on it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on should panic"))]

mod admin;
mod children;
pub mod cli;
mod clock;
mod demo;
mod dispatch;
mod ecs;
mod environment;
mod error;
mod exec;
mod faults;
mod holds;
mod iam;
mod kinds;
mod kms;
mod lambda;
mod launcher;
mod log;
mod resource_policy;
mod s3;
mod secrets;
mod server;
mod settings;
mod sns;
mod sqs;
mod sts;
mod targets;
mod wire;
mod world;

pub use dispatch::operations;
pub use kinds::{KindOfFault, kinds_of_faults};
pub use server::{Options, Sandbox};
pub use settings::Settings;
pub use world::{CI_ACCOUNT, REGION, TARGET_ACCOUNT};
