//! Who may: a target's configuration, its recipes and parameters, and the authorisation in Cedar. Pure.
//!
//! Launcher and runner call the same two functions on the same bytes: [`verify`] says who asks for what, [`authorise`] says whether that is
//! allowed, with time as an argument. Neither trusts the other's answer (promise P2).

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod cedar;
mod check;
mod configuration;
mod decide;
mod parameters;
mod pin;
mod substitute;
mod units;

pub use cedar::{Policies, PolicyError, Question};
pub use check::{Finding, check};
pub use configuration::{CancelRule, CancelSignal, Configuration, ConfigurationError, Step};
pub use decide::{Allowed, Asked, Denied, authorise, may_cancel, verify};
pub use parameters::{ParameterError, ParameterRule};
pub use pin::{Pin, PinError};
pub use substitute::{SubstitutionError, Template};
