//! The wire formats of relay: everything that travels between the CLI, the launcher and the runner.
//!
//! This crate owns the envelope (DSSE v1), the request, the dry run, the approval, the control
//! statement, the frames, the vouch for the runner key, the claim, the record, the names of the
//! evidence, the registry of outcomes, every limit, and the [`keys`] that sign and verify. It does
//! no I/O, reads no clock and generates no random numbers.
//!
//! `docs/protocol.md` is the specification. A check here names the clause that requires it
//! (`ENV-4`, `REQ-7`, …).
//!
//! ```text
//! bytes ──► Bundle::parse ──► TrustRoots::verify(envelope) ──► Verified<Request> ──► decisions
//!           (bounded)         (signatures over PAE first)      (the same bytes, parsed last)
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

pub mod approval;
pub mod artifact;
pub mod bundle;
pub mod claim;
pub mod control;
pub mod dry_run;
pub mod encoding;
pub mod envelope;
pub mod evidence;
pub mod frame;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod names;
pub mod outcome;
pub mod overrides;
pub mod record;
pub mod request;
mod strict;
pub mod summary;
pub mod task;
pub mod time;
pub mod vouch;

pub use approval::Approval;
pub use bundle::{Bundle, Message};
pub use control::{Cancel, Control};
pub use dry_run::DryRun;
pub use encoding::Digest;
pub use envelope::{Envelope, EnvelopeError, Signature, SignedBy, Statement, Verified, VerifyError, pae};
pub use frame::{LauncherFrame, RunnerFrame, SignedFrame};
pub use names::{AccountId, DeploymentId, ParameterName, PublicKey, QueueUrl, Region, TargetName, Ticket, TopicArn};
pub use outcome::{ExitCode, Reason};
pub use overrides::RequestRef;
pub use request::Request;
pub use time::Timestamp;
pub use vouch::Vouch;
