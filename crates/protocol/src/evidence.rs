//! The evidence of a deployment: the names of its objects in the evidence bucket, and the frames
//! among them (clauses EVD-1 to EVD-4). Every object is written once. Each writer has names of its
//! own, so that the bucket's policy can keep writers apart.

use crate::encoding::Digest;
use crate::frame::SignedFrame;
use crate::names::{DeploymentId, TargetName, Ticket};

/// The objects of one deployment, under `deployments/<target>/<day>/<deployment id>/`.
///
/// ```
/// use relay_protocol::evidence::Evidence;
/// use relay_protocol::DeploymentId;
///
/// let id = DeploymentId::new(1_780_315_200_000, [7; 10]);
/// let evidence = Evidence::of(&"payments/production".parse()?, &id);
/// assert_eq!(evidence.claim(), format!("deployments/payments/production/2026-06-01/{id}/claim"));
/// # Ok::<(), relay_protocol::names::InvalidName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    folder: String,
}

impl Evidence {
    /// The objects of the deployment `id` of `target`. The day is that of the id.
    pub fn of(target: &TargetName, id: &DeploymentId) -> Self {
        Self { folder: format!("deployments/{target}/{}/{id}", id.time().day()) }
    }

    /// The object that shows that a ticket was used. It belongs to the target, not to a deployment.
    /// The runner writes it before the first step (clause APP-5).
    pub fn ticket(target: &TargetName, ticket: &Ticket) -> String {
        format!("deployments/{target}/tickets/{ticket}")
    }

    /// The object that says which deployment saved an artifact first. It belongs to the target, not
    /// to a deployment. The runner writes it (clause ART-8).
    pub fn saved(target: &TargetName, artifact: Digest) -> String {
        format!("deployments/{target}/saved/{artifact}")
    }

    /// The folder, without a slash at its end.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The claim (section 11 of `docs/protocol.md`). Launcher and runner write it.
    pub fn claim(&self) -> String {
        format!("{}/claim", self.folder)
    }

    /// The canonical bundle of the request. The launcher writes it.
    pub fn request(&self) -> String {
        format!("{}/request.json", self.folder)
    }

    /// The keys of issuers that the tokens of the request were judged by, if it has tokens. The
    /// launcher writes it.
    pub fn issuer_keys(&self) -> String {
        format!("{}/issuer-keys.json", self.folder)
    }

    /// The text of the configuration with this digest. The launcher writes it.
    pub fn configuration(&self, digest: Digest) -> String {
        format!("{}/configuration/{digest}.toml", self.folder)
    }

    /// The object `number` of the runner's frames. Numbers count from 0 without a gap.
    pub fn frames(&self, number: u64) -> String {
        format!("{}/runner/{number:06}.jsonl", self.folder)
    }

    /// The verification summary of the decision to run the deployment, an envelope. The launcher
    /// writes it.
    pub fn summary(&self) -> String {
        format!("{}/{}/vsa.json", self.folder, Writer::Launcher.folder())
    }

    /// The record of `writer`, an envelope.
    pub fn record(&self, writer: Writer) -> String {
        format!("{}/{}/record.json", self.folder, writer.folder())
    }

    /// The same record as a Sigstore bundle.
    pub fn sigstore(&self, writer: Writer) -> String {
        format!("{}/{}/record.sigstore.json", self.folder, writer.folder())
    }
}

/// Who writes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Writer {
    /// The runner, about a deployment that it ran to its end.
    Runner,
    /// The launcher, about a deployment that was refused, never started, was killed or lost.
    Launcher,
}

impl Writer {
    /// The writer's folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Launcher => "launcher",
        }
    }
}

/// The frames of an object. A line that is not a frame yields an error in its place.
pub fn frames(object: &[u8]) -> impl Iterator<Item = Result<SignedFrame, serde_json::Error>> {
    object.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(SignedFrame::from_line)
}
