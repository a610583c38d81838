//! The control statement: asks to stop a deployment (clauses CTL-1 to CTL-5).

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::Statement;
use crate::limits;
use crate::names::DeploymentId;
use crate::strict;
use crate::time::Timestamp;

/// The payload of `application/vnd.relay.control.v1+json`, signed by the request's session key, or by a signer whom the policy allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The deployment that is meant.
    pub deployment_id: DeploymentId,
    /// Its request, so that the statement fits no other deployment of the same id (clause CTL-3).
    pub request_digest: Digest,
    /// When it was made (clause CTL-4).
    pub issued_at: Timestamp,
    /// Why it is to stop.
    pub cancel: Cancel,
}

/// Why a deployment is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// The CLI got SIGINT.
    Interrupted,
    /// The CLI got SIGTERM.
    Terminated,
    /// Somebody asked, from elsewhere.
    Requested,
}

impl Control {
    /// The payload's bytes as they are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Whether it means this deployment, and is neither old nor from the future (clauses CTL-3, CTL-4).
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
