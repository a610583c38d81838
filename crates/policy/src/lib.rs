//! Authorisation: a target's configuration, its recipes and parameters, and its Cedar policies.
//! This crate does no I/O.
//!
//! The launcher and the runner call the same two functions on the same bytes: [`verify`]
//! establishes who asks for what, and [`authorise`] decides whether it is allowed, with the time as
//! an argument. Neither trusts the other's answer (promise P2).

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod cedar;
mod check;
mod configuration;
mod decide;
mod deep;
mod identity;
mod images;
mod parameters;
mod pin;
mod saved;
mod secret;
mod substitute;
mod units;

pub use cedar::{Action, Policies, PolicyError, Question};
pub use check::{Finding, check};
pub use configuration::{CancelRule, CancelSignal, CancelTo, Configuration, ConfigurationError, OutputRule, Step};
pub use decide::{
    Allowed, Asked, Denied, TICKET_USED, Tried, authorise, by_session, explain, key_names, may_cancel, verify,
    verify_dry_run,
};
pub use identity::Persons;
pub use images::{Image, Images, OtherImage, digest_of};
pub use parameters::{ParameterError, ParameterRule};
pub use pin::{Pin, PinError};
pub use saved::{Found, Saved, saved_artifacts};
pub use secret::SecretRef;
pub use substitute::{SubstitutionError, Template};
