//! End to end: the real programs as real processes on a sandbox, one sandbox for each test. There
//! is one binary, with a module for each topic. Most tests wait more than they work, so many run
//! side by side (`RUST_TEST_THREADS` in `.cargo/config.toml`).
//!
//! To run one topic: `cargo test -p relay-tests --test e2e output::`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::print_stderr, reason = "--nocapture shows what takes long and what was skipped")]

mod approvals; // who may approve what, and how often an approval serves
mod attach; // another call follows a deployment that its CI job has left
mod back; // status, cancel, gc, --wait: finding what is left behind
mod bad_input; // bad input is refused, by the program that must refuse it
mod cli; // the command line, and what a recipe can express
mod doctor; // what `relay doctor` reports about each thing that can be wrong
mod documents; // the commands that the documents name exist
mod dry_run; // `--dry-run`, `doctor --try` and pins: nothing starts, and what is wrong is named
mod ends; // ECS's events end a deployment whose task dies, not a timeout
mod evidence; // every deployment leaves a record, and evidence that can be checked
mod fault_ends; // how a deployment ends under each single fault
mod fault_matrix; // every AWS operation under every kind of fault
mod faults; // many faults together, seeded
mod flood; // strangers flood the topic
mod images; // the images that the configuration names are the ones that run
mod isolation; // what separates the tool from the runner
mod kill; // SIGKILL, SIGSTOP and restart of each process in each phase
mod ledger; // a claim, a record or an entry that is removed or changed is missed
mod lost; // SQS or S3 unavailable, a disk that loses data: every loss is reported
mod many; // many deployments at the same time
mod network; // proxies, credentials and an environment that cannot be used
mod once; // at most once, and one deployment of a target at a time
mod operator; // `relay-admin` with an operator's credentials
mod order; // launcher and runner call AWS in the order that the engine decides
mod output; // `relay` prints what the tool printed, to the byte
mod own; // a platform team's own target files on the sandbox
mod plan; // a plan is saved, read, approved, and exactly that plan is applied
mod read; // report, history, redeploy, the summary, sections and times: for people who read a deployment
mod rotation; // keys are replaced while deployments run
mod rude; // readers that stop, full disks, signals, odd files: the CLI stays in control
mod seen; // events, metrics and traces: for people who watch deployments
mod stop; // nothing of the tool outlives its step
mod strangers; // untrusted text never becomes a command of a terminal or CI system
mod texts; // help, messages and rendered files, as snapshots
mod tokens; // identity tokens sign in place of keys, and can be revoked
