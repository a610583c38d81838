//! The vouch: the account's word that a runner key belongs to a deployment (clauses VCH-1 to VCH-3).

use serde::{Deserialize, Serialize};

use crate::encoding::Digest;
use crate::envelope::Statement;
use crate::names::{DeploymentId, PublicKey};

/// The payload of `application/vnd.relay.runner-key.v1+json`, signed by the target key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its request.
    pub request_digest: Digest,
    /// The task that holds the runner key.
    pub task_arn: String,
    /// The Ed25519 key that signs the runner's frames.
    pub runner_key: PublicKey,
}

impl Vouch {
    /// The payload's bytes as they are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        // Strings only: serialising them cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Statement for Vouch {
    const TYPE: &'static str = "application/vnd.relay.runner-key.v1+json";

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}
