//! Approvals: a request that needs them waits in a bucket of the CI account, and a person's
//! approval lies beside it (clauses APP-1 to APP-5). Nothing waits in the target account.
//!
//! `relay deploy --wait-approval` asks the launcher by a dry run what is missing, and stores its
//! signed answer with the dry run. `relay approve` believes that answer, not the requester.

pub(crate) mod approve;
pub(crate) mod list;
mod saved;
mod store;
pub(crate) mod wait;

use std::path::PathBuf;

use relay_console::Failure;
use relay_engine::{Authentic, Authenticator, Pins, Published, Verdict};
use relay_protocol::frame::{LauncherKind, Tried};
use relay_protocol::keys::Cached;
use relay_protocol::limits::{APPROVALS_MAX, BUNDLE_MAX};
use relay_protocol::request::Hints;
use relay_protocol::{Digest, DryRun, Envelope, Message, Request, SignedFrame, Statement as _, Ticket};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The limit on a pending request in bytes: a dry run, and a frame of the launcher.
const PENDING_MAX: usize = 4 * BUNDLE_MAX;

/// The approvals that go with a request, and the ticket that ties them to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Approved {
    /// The ticket. Without one, no approval counts.
    pub(crate) ticket: Option<Ticket>,
    /// The signed approvals.
    pub(crate) approvals: Vec<Envelope>,
}

impl Approved {
    /// Reads the files that `relay approve --out` wrote. They must be for one ticket.
    pub(crate) fn of_files(files: &[PathBuf]) -> Result<Self, Failure> {
        let mut all = Self::default();
        for file in files {
            let wrong = |problem: String| Failure::usage(format!("--approval {}: {problem}", file.display()));
            let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let given = Given::parse(&bytes).map_err(wrong)?;
            if all.ticket.as_ref().is_some_and(|ticket| *ticket != given.ticket) {
                return Err(wrong("is for another request than the approval before it".to_owned()));
            }
            all.ticket = Some(given.ticket);
            all.approvals.push(given.approval);
        }
        match all.approvals.len() {
            0..=APPROVALS_MAX => Ok(all),
            found => Err(Failure::usage(format!("{found} approvals; a request carries at most {APPROVALS_MAX}"))),
        }
    }
}

/// An approval as a file or an object: with the ticket that it is for, which its signature covers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    ticket: Ticket,
    approval: Envelope,
}

impl Given {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > BUNDLE_MAX {
            return Err(format!("{} bytes are more than an approval can have", bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| format!("is not an approval of `relay approve`: {error}"))
    }

    fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        serde_json::to_vec(self).map_err(|error| Failure::usage(error.to_string()))
    }
}

/// A request that waits for approvals: the dry run of it, and the launcher's signed answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) dry_run: Envelope,
    pub(crate) answer: SignedFrame,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    dry_run: Envelope,
    /// As in a line of the archive (clause EVD-4).
    answer: Value,
}

impl Pending {
    /// Reads it. Nothing in it is verified yet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let wire: Wire = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let answer = SignedFrame::from_line(wire.answer.to_string().as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self { dry_run: wire.dry_run, answer })
    }

    fn to_bytes(&self) -> Result<Vec<u8>, Failure> {
        let odd = |error: serde_json::Error| Failure::usage(error.to_string());
        let answer = serde_json::from_str(&self.answer.to_line()).map_err(odd)?;
        serde_json::to_vec(&Wire { dry_run: self.dry_run.clone(), answer }).map_err(odd)
    }

    /// The request as its requester wrote it. Whether a signer of the target signed it, only
    /// [`Self::verified`] says.
    pub(crate) fn request(&self) -> Result<Request, String> {
        let DryRun(request) = DryRun::parse(self.dry_run.unverified_payload()).map_err(|error| error.to_string())?;
        Ok(request)
    }

    /// The launcher's answer about exactly this dry run, if the pinned answer key signed it. It
    /// names the verified signers and the configuration.
    pub(crate) fn verified(&self, pins: &Pins) -> Result<Tried, String> {
        let hints = Hints::of(&self.request()?);
        let body = Digest::of(Message::dry_run_json(&self.dry_run, &[]).as_bytes());
        let published = Published { hints, request: self.dry_run.digest(), body, dry_run: true };
        let mut authenticator = Authenticator::new(published, Some(pins.clone()), Cached::default());
        match authenticator.judge(self.answer.clone()) {
            Verdict::Authentic(authentic) => match *authentic {
                Authentic::Launcher(frame) => match frame.kind {
                    LauncherKind::Tried(tried) => Ok(*tried),
                    _ => Err("the launcher's message is no answer to a dry run".to_owned()),
                },
                Authentic::Runner(_) => Err("the answer is not the launcher's".to_owned()),
            },
            _ => Err("the pinned answer key did not sign this answer, or it is about another request".to_owned()),
        }
    }
}
