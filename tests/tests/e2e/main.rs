//! End to end: the real programs as real processes on a sandbox, one sandbox for each test. One binary, a module for each
//! topic; most tests wait more than they work, so many run side by side (`RUST_TEST_THREADS` in `.cargo/config.toml`).
//!
//! One topic: `cargo test -p relay-tests --test e2e output::`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "with --nocapture one sees what takes long, and what was skipped")]

mod attach; // a deployment that its CI job has left is followed to its end by another call
mod back; // status, cancel, gc, --wait: what is left behind is found again
mod bad_input; // everything that must be refused is refused, where it must be
mod cli; // the command line, and what a recipe can say
mod doctor; // what `relay doctor` says of each thing that can be in the way
mod documents; // the commands that the documents name exist
mod ends; // a task that dies is told by ECS, not by a clock
mod fault_ends; // how a deployment ends under each fault by itself
mod fault_matrix; // every AWS operation under every kind of fault
mod faults; // many faults at once, by a seed
mod isolation; // what keeps the tool from the runner
mod kill; // SIGKILL, SIGSTOP and restart of each process in each phase
mod lost; // SQS or S3 away, a disk that forgets: nothing is lost unsaid
mod many; // many deployments at once
mod once; // at most once, and one deployment of a target at a time
mod operator; // `relay-admin` with an operator's credentials
mod order; // launcher and runner call AWS in the order that the engine decides
mod output;
mod strangers; // a stranger's text never becomes a command // what the tool printed is what `relay` prints, to the byte
