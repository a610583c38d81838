//! The claim and the lock: small objects in the relay bucket that make a deployment happen at most once, one at a time (clauses CLM-1 to
//! CLM-5, LCK-1 to LCK-3). They are not signed; the bucket's policy guards them.

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::names::{DeploymentId, TargetName};
use crate::outcome::Reason;
use crate::strict;

/// The body of `claims/<deployment id>`, written once with `If-None-Match: *` and never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The request that holds the id.
    pub request_digest: Digest,
    /// Who claimed it.
    pub holder: Holder,
}

/// Who claimed a deployment id, and to what end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Holder {
    /// A runner, which alone may start the tool.
    Runner {
        /// Its task.
        task_arn: String,
        /// Made new by each process, so that a restarted container does not take the claim for its own.
        nonce: String,
    },
    /// The launcher, with a verdict that is final: nothing runs after it.
    Launcher {
        /// What it was.
        verdict: Verdict,
        /// Why.
        reason: Reason,
        /// For people.
        message: String,
    },
}

/// A final word of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not allowed.
    Refused,
    /// Allowed, but ECS did not start it.
    LaunchFailed,
}

impl Claim {
    /// The object's key.
    pub fn key(id: &DeploymentId) -> String {
        format!("claims/{id}")
    }

    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Reads the object.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(bytes)
    }
}

/// The body of `locks/<target>/<slot>`; an empty holder is a free slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Who holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<LockHolder>,
}

/// Who holds a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockHolder {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// Its task; only when ECS says that it is STOPPED may another take over (clause LCK-2).
    pub task_arn: String,
    /// Unix seconds at which it was taken.
    pub taken_at: i64,
}

impl LockHolder {
    /// The cluster in `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`: the holder's own, which need not be the asker's.
    pub fn cluster(&self) -> &str {
        self.task_arn.split('/').nth(1).unwrap_or_default()
    }
}

impl Lock {
    /// The key of slot `slot` of `target`.
    pub fn key(target: &TargetName, slot: u32) -> String {
        format!("locks/{target}/{slot}")
    }

    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Reads the object.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(bytes)
    }
}
