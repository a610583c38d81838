//! The control statement, which asks to stop a deployment (clauses CTL-1 to CTL-5).

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::Statement;
use crate::limits;
use crate::names::DeploymentId;
use crate::strict;
use crate::time::Timestamp;

/// The payload of `application/vnd.relay.control.v1+json`, signed by the request's session key or
/// by a signer that the policy allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The deployment to stop.
    pub deployment_id: DeploymentId,
    /// The digest of its request, so that the statement is valid for no other deployment with the
    /// same id (clause CTL-3).
    pub request_digest: Digest,
    /// When the statement was made (clause CTL-4).
    pub issued_at: Timestamp,
    /// Why the deployment should stop.
    pub cancel: Cancel,
}

/// Why somebody asks to stop a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// The CLI received SIGINT.
    Interrupted,
    /// The CLI received SIGTERM.
    Terminated,
    /// Somebody asked from elsewhere.
    Requested,
}

impl Control {
    /// The bytes of the payload, as they are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Whether the statement is for this deployment and its request, and is neither too old nor
    /// from the future (clauses CTL-3, CTL-4).
    pub fn is_for(&self, id: &DeploymentId, request: Digest, now: Timestamp) -> bool {
        let age = now.since(self.issued_at);
        self.deployment_id == *id
            && self.request_digest == request
            && (-limits::CLOCK_SKEW..=limits::CONTROL_LIFETIME).contains(&age)
    }
}

impl Statement for Control {
    const TYPE: &'static str = "application/vnd.relay.control.v1+json";

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(payload)
    }
}
