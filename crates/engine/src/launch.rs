//! The launcher's decisions, one module each: the order of its calls where that order keeps a
//! promise, its answer to an id that already has a claim or a task, and the meaning of ECS's
//! messages.
//!
//! A driver asks `next(known)`, carries out the action that it returns, and adds what it learned.
//! ARNs, texts and digests stay with the driver: `known` holds only what changes the next call, so
//! that the model can walk through every order.

pub mod admission;
pub mod cancel;
pub mod end;
pub mod prior;
pub mod reasons;
