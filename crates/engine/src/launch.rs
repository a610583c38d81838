//! What the launcher decides, each in a module: the order of its calls where that order keeps a promise, what is said when something
//! stands already, and what ECS's words mean.
//!
//! A driver asks `next(known)`, does the one thing that comes back, and adds what it learned. ARNs, texts and digests stay with the
//! driver: what is known here is only what changes the next call, so that the model can walk through every order of it.

pub mod admission;
pub mod cancel;
pub mod end;
pub mod prior;
pub mod reasons;
