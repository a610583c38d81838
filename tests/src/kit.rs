//! Runs the real programs as real processes: a sandbox for each test, calls of `relay`, requests of
//! any kind, and waiting for conditions.
//!
//! [`Sandbox`] stands for both accounts. [`deploy`] runs `relay`. [`asking`] builds and publishes
//! requests, bad ones too. [`account`] calls AWS as one of the accounts. [`wait`] waits for
//! conditions, never for a fixed time.

pub mod account;
pub mod asking;
pub mod deploy;
pub mod docker;
pub mod kill;
pub mod sandbox;
pub mod targets;
pub mod venv;
pub mod wait;

pub use asking::{Asking, Reply};
pub use deploy::{Deployed, Running};
pub use sandbox::{Options, Sandbox, Task};
pub use wait::eventually;
