//! An emulator of both AWS accounts of a relay setup, on one loopback port. It is relay's own, for
//! trials, tests and fault injection.
//!
//! ```text
//!   host       listens, runs processes, keeps time, chooses faults, writes the log
//!     │ a call                       ▲ an answer, and effects
//!     ▼                              │
//!   services   one plain state machine per AWS service, independent of the others
//!     │                              │
//!   wire       HTTP requests to typed parameters, answers to HTTP responses
//! ```
//!
//! The launcher (behind the Runtime API) and the runner (as an ECS task) are the real programs, run
//! as processes. The sandbox is strict where AWS is strict, and configurable where AWS's behaviour
//! is not documented. It can inject a fault into any operation, reproducibly from a seed. It is not
//! a general emulator: it has only the operations that relay and its tests call. Nothing that is
//! shipped depends on it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on should panic"))]

mod host;
mod services;
mod wire;

pub use host::Given;
pub use host::ThirdParty;
pub use host::cli;
pub use host::faults::{KindOfFault, kinds_of_faults};
pub use host::sandbox::{Options, Sandbox};
pub use host::settings::Settings;
pub use services::{CI_ACCOUNT, REGION, TARGET_ACCOUNT, operations};
