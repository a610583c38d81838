//! The claim and the lock: small objects in S3. Claims make a deployment run at most
//! once; locks limit how many run at a time (clauses CLM-1 to CLM-5, LCK-1 to LCK-3). The objects
//! are not signed; the bucket policy protects them.

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::names::{DeploymentId, TargetName};
use crate::outcome::Reason;
use crate::strict;
use crate::task::cluster_of;

/// The body of a deployment's claim, whose name [`Evidence::claim`](crate::evidence::Evidence)
/// gives. It is written once, with `If-None-Match: *`, and never deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The digest of the request that holds the id.
    pub request_digest: Digest,
    /// The holder of the claim.
    pub holder: Holder,
}

/// The holder of a deployment id, and what the claim is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Holder {
    /// A runner. Only this runner may start the tool.
    Runner {
        /// The ARN of the runner's task.
        task_arn: String,
        /// A value that each process makes anew, so that a restarted container does not mistake the
        /// claim for its own.
        nonce: String,
    },
    /// The launcher, with a verdict that is final: nothing runs after it.
    Launcher {
        /// The verdict.
        verdict: Verdict,
        /// The reason code.
        reason: Reason,
        /// An explanation for people.
        message: String,
    },
}

/// A final verdict of the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The request was not allowed.
    Refused,
    /// The request was allowed, but ECS did not start the task.
    LaunchFailed,
}

impl Claim {
    /// The bytes of the object.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Reads the object.
    ///
    /// # Errors
    ///
    /// If the bytes are not JSON in the form of a claim.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(bytes)
    }
}

/// The body of `locks/<target>/<slot>`. Without a holder, the slot is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The holder of the slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<LockHolder>,
}

/// The holder of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockHolder {
    /// The deployment that holds the slot.
    pub deployment_id: DeploymentId,
    /// The task of that deployment. Another deployment may take the slot only after ECS reports
    /// this task as STOPPED (clause LCK-2).
    pub task_arn: String,
    /// When the slot was taken, in Unix seconds.
    #[serde(deserialize_with = "strict::count")]
    pub taken_at: i64,
}

impl LockHolder {
    /// The cluster of the holder's task, which may differ from the caller's.
    pub fn cluster(&self) -> &str {
        cluster_of(&self.task_arn)
    }
}

impl Lock {
    /// The S3 key of the lock for slot `slot` of `target`.
    pub fn key(target: &TargetName, slot: u32) -> String {
        format!("locks/{target}/{slot}")
    }

    /// The bytes of the object.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Reads the object.
    ///
    /// # Errors
    ///
    /// If the bytes are not JSON in the form of a lock.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(bytes)
    }
}
