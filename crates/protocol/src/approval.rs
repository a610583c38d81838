//! The approval: a person's signed consent to one deployment with exactly these parameters, by
//! exactly this configuration (clauses APP-1 to APP-5).

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::Statement;
use crate::limits;
use crate::strict;
use crate::time::Timestamp;

/// The payload of `application/vnd.relay.approval.v1+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// SHA-256 of the RFC 8785 form of
    /// `{"audience","configuration","parameters","target","ticket"}`: see
    /// [`crate::Request::subject`] (clause APP-2).
    pub subject: Digest,
    /// When the approval was given.
    pub issued_at: Timestamp,
    /// When the approval expires, at most 24 hours later (clause APP-3).
    pub expires_at: Timestamp,
}

impl Approval {
    /// The bytes of the payload, as the approver signs them.
    pub fn to_payload(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Whether the approval covers `subject` at the time when the request was issued. It uses the
    /// request's own time, so that the launcher and the runner agree (clauses APP-2, APP-3).
    pub fn covers(&self, subject: Digest, request_issued_at: Timestamp) -> bool {
        let lifetime = self.expires_at.since(self.issued_at);
        self.subject == subject
            && lifetime > 0
            && lifetime <= limits::APPROVAL_LIFETIME_MAX
            && self.issued_at.since(request_issued_at) <= limits::CLOCK_SKEW
            && request_issued_at <= self.expires_at
    }
}

impl Statement for Approval {
    const TYPE: &'static str = "application/vnd.relay.approval.v1+json";

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(payload)
    }
}
