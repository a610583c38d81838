//! Frames: what the runner and the launcher send to the reply queue (clauses FRM-1 to FRM-17). One SQS message is one frame.
//!
//! The body is JSON text; the string attributes `from`, `sig` and `vouch` stand beside it. `sig` is detached, over the PAE of the
//! frame's type and the body's bytes. Readers ignore unknown fields and unknown kinds, except unknown terminal ones (clause VER-3).

mod output;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use output::{Chunk, Chunks, Offsets, OutputError, Stream};

use crate::encoding::{Digest, sqs_safe, to_json};
use crate::envelope::{Envelope, pae};
use crate::names::{AccountId, DeploymentId, PublicKey, TargetName};
use crate::outcome::{Outcome, Reason};
use crate::record::StreamDigest;
use crate::time::Timestamp;

/// The type of a runner frame, bound into its signature.
pub const RUNNER_FRAME_TYPE: &str = "application/vnd.relay.runner-frame.v1+json";
/// The type of a launcher frame, bound into its signature.
pub const LAUNCHER_FRAME_TYPE: &str = "application/vnd.relay.launcher-frame.v1+json";

/// The message attribute that says who sent a frame.
pub const ATTRIBUTE_FROM: &str = "from";
/// The message attribute with the detached signature, standard base64.
pub const ATTRIBUTE_SIG: &str = "sig";
/// The message attribute with the vouch's envelope, in `started`, `heartbeat` and `finished`.
pub const ATTRIBUTE_VOUCH: &str = "vouch";

/// Who sends a frame: the attribute `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The task.
    Runner,
    /// The Lambda.
    Launcher,
}

impl From {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Launcher => "launcher",
        }
    }

    /// From the attribute's value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "runner" => Some(Self::Runner),
            "launcher" => Some(Self::Launcher),
            _ => None,
        }
    }

    /// The bytes that are signed for a body of this sender (clause FRM-4).
    pub fn pae(self, body: &str) -> Vec<u8> {
        let payload_type = match self {
            Self::Runner => RUNNER_FRAME_TYPE,
            Self::Launcher => LAUNCHER_FRAME_TYPE,
        };
        pae(payload_type, body.as_bytes())
    }
}

/// Checks a frame's signature of 64 bytes by a public key; programs have it from `relay-identity`.
pub trait FrameVerifier {
    /// Whether `signature` is `key`'s over `pae`.
    fn verify(&self, key: &PublicKey, pae: &[u8], signature: &[u8; 64]) -> bool;

    /// Whether `key` is one at all, of a kind that frames are signed with (clause SIG-4).
    fn is_key(&self, key: &PublicKey) -> bool;
}

/// A frame of the runner: signed by the runner key and by nothing else (clause FRM-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunnerFrame {
    /// Whose frame it is.
    pub deployment_id: DeploymentId,
    /// From 0, without a gap (clause FRM-7).
    pub seq: u64,
    /// What it says.
    #[serde(flatten)]
    pub kind: RunnerKind,
}

/// What a runner frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum RunnerKind {
    /// The first frame: the claim is won, the tool may start.
    Started {
        /// The task.
        task_arn: String,
        /// The names of the steps, in order.
        steps: Vec<String>,
        /// When the server ends it.
        deadline: Timestamp,
        /// Seconds that a step has to end by itself when it is asked to stop.
        grace: u64,
    },
    /// A step begins.
    Step {
        /// From 0.
        index: usize,
        /// Its name.
        name: String,
        /// Whether it belongs to the rollback.
        #[serde(default)]
        rollback: bool,
    },
    /// What the tool printed, in the order in which it was read.
    Output(Box<Chunks>),
    /// It still runs.
    Heartbeat {
        /// Milliseconds since `started`.
        elapsed_ms: u64,
    },
    /// Relay's own words about the deployment, for people.
    Note {
        /// At most [`crate::limits::TEXT_MAX`] bytes are shown.
        text: String,
    },
    /// The last frame (clause FRM-13).
    Finished(Box<Finished>),
    /// A kind that a later version knows; ignored, as it is not terminal (clause VER-3).
    #[serde(other)]
    Unknown,
}

/// How it all ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The end.
    pub outcome: Outcome,
    /// The step that decided it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Frames in all, this one included: `seq + 1`.
    pub frames: u64,
    /// All of stdout.
    pub stdout: StreamDigest,
    /// All of stderr.
    pub stderr: StreamDigest,
    /// What the steps wrote to `$RELAY_OUTPUT`.
    pub outputs: BTreeMap<String, String>,
    /// The signed record; absent when it could not be signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Envelope>,
}

/// A frame of the launcher: signed by the target key and by nothing else (clause FRM-6). Saying it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherFrame {
    /// Whose frame it is.
    pub deployment_id: DeploymentId,
    /// What it says.
    #[serde(flatten)]
    pub kind: LauncherKind,
}

/// What a launcher frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LauncherKind {
    /// The request was verified and allowed, and this task is to run it.
    Admitted {
        /// The request.
        request_digest: Digest,
        /// The task.
        task_arn: String,
        /// When the server ends it at the latest.
        deadline: Timestamp,
        /// The policies that allowed it.
        policies: Vec<String>,
    },
    /// The request was verified and not allowed. Final: nothing runs after it.
    Refused {
        /// The request.
        request_digest: Digest,
        /// Which check failed.
        reason: Reason,
        /// For people.
        message: String,
    },
    /// The request was allowed, but ECS did not start it. Final.
    LaunchFailed {
        /// The request.
        request_digest: Digest,
        /// What kind of failure.
        reason: Reason,
        /// ECS's own words.
        message: String,
    },
    /// What ECS says of the task.
    Task {
        /// The request.
        request_digest: Digest,
        /// The task.
        task_arn: String,
        /// ECS's `lastStatus`.
        state: String,
        /// Why it stopped, if it did: a reason of this registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// ECS's `stopCode`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_code: Option<String>,
        /// ECS's `stoppedReason`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stopped_reason: Option<String>,
        /// The container's exit code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    /// The request could not be verified; says no more (clause LAU-5).
    Unverified {
        /// SHA-256 of the SNS body, so that only its sender takes it for his own.
        body_sha256: Digest,
        /// The hint `target`.
        target: TargetName,
        /// The hint `ci_account`.
        ci_account: AccountId,
    },
    /// A kind that a later version knows; ignored, as it is not terminal (clause VER-3).
    #[serde(other)]
    Unknown,
}

impl LauncherKind {
    /// The request that the frame is about; `None` for one that could not be verified.
    pub fn request_digest(&self) -> Option<Digest> {
        match self {
            Self::Admitted { request_digest, .. }
            | Self::Refused { request_digest, .. }
            | Self::LaunchFailed { request_digest, .. }
            | Self::Task { request_digest, .. } => Some(*request_digest),
            Self::Unverified { .. } | Self::Unknown => None,
        }
    }
}

impl RunnerFrame {
    /// The body as it is signed and sent.
    pub fn to_body(&self) -> String {
        sqs_safe(to_json(self))
    }

    /// Reads a body whose signature was verified.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(body)
    }

    /// Whether the attribute `vouch` goes with it (clause VCH-2).
    pub fn bears_vouch(&self) -> bool {
        matches!(self.kind, RunnerKind::Started { .. } | RunnerKind::Heartbeat { .. } | RunnerKind::Finished(_))
    }
}

impl LauncherFrame {
    /// The body as it is signed and sent.
    pub fn to_body(&self) -> String {
        sqs_safe(to_json(self))
    }

    /// Reads a body whose signature was verified.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(body)
    }
}
