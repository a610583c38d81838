//! The vouch: the target account's statement that a runner key belongs to a deployment (clauses
//! VCH-1 to VCH-3).

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::Statement;
use crate::names::{DeploymentId, PublicKey};
use crate::strict;

/// The payload of `application/vnd.relay.runner-key.v1+json`, signed by the target key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vouch {
    /// The deployment that the key belongs to.
    pub deployment_id: DeploymentId,
    /// The digest of its request.
    pub request_digest: Digest,
    /// The task that holds the runner key.
    pub task_arn: String,
    /// The Ed25519 key that signs the runner's frames.
    pub runner_key: PublicKey,
}

impl Vouch {
    /// The bytes of the payload, as they are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }
}

impl Statement for Vouch {
    const TYPE: &'static str = "application/vnd.relay.runner-key.v1+json";

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let vouch: Self = strict::from_slice(payload)?;
        if !vouch.runner_key.is_ed25519() {
            return Err(serde::de::Error::custom("the runner key is not an Ed25519 key"));
        }
        Ok(vouch)
    }
}
