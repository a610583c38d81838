//! Frames: what the runner and the launcher send to the reply queue (clauses FRM-1 to FRM-17). One SQS message is one frame.
//!
//! The body is JSON text; the string attributes `from`, `sig` and `vouch` stand beside it. `sig` is detached, over the PAE of the
//! frame's type and the body's bytes. Readers ignore unknown fields and unknown kinds, except unknown terminal ones (clause VER-3).

mod output;
mod signed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use output::{Chunk, Chunks, Offsets, OutputError, Stream};
pub use signed::SignedFrame;

use crate::encoding::{Digest, sqs_safe, to_json};
use crate::envelope::{Envelope, pae};
use crate::names::{AccountId, DeploymentId, TargetName};
use crate::outcome::{Outcome, Reason};
use crate::record::StreamDigest;
use crate::strict;
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
pub enum FrameSource {
    /// The task.
    Runner,
    /// The Lambda.
    Launcher,
}

impl FrameSource {
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

/// A frame of the runner: signed by the runner key and by nothing else (clause FRM-5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerFrame {
    /// Whose frame it is.
    pub deployment_id: DeploymentId,
    /// From 0, without a gap (clause FRM-7).
    pub seq: u64,
    /// What it says.
    pub kind: RunnerKind,
}

/// What a runner frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
        #[serde(default, deserialize_with = "strict::or_default")]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LauncherFrame {
    /// Whose frame it is.
    pub deployment_id: DeploymentId,
    /// What it says.
    pub kind: LauncherKind,
}

/// What a launcher frame says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// What stands in every frame. A launcher frame has no number.
#[derive(Serialize, Deserialize)]
struct Head {
    deployment_id: DeploymentId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

/// The member of the head that names the kind, for readers.
#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// The body as it is signed and sent: the members of the kind stand beside those of the head.
fn to_body(head: &Head, kind: &impl Serialize) -> String {
    let (head, kind) = (to_json(head), to_json(kind));
    let head = head.trim_end_matches('}');
    // serde writes a variant as `{"name":{members}}`, or as `"name"` where it has none.
    sqs_safe(match kind.strip_prefix('{').and_then(|tagged| tagged.split_once(":{")) {
        Some((name, members)) => format!("{head},\"kind\":{name},{}", members.strip_suffix('}').unwrap_or(members)),
        None => format!("{head},\"kind\":{kind}}}"),
    })
}

/// Reads a body whose signature was verified (clauses ENC-5, VER-3).
fn parse<K: serde::de::DeserializeOwned>(body: &str) -> Result<(Head, K), serde_json::Error> {
    let (head, Kind { kind }) = (strict::from_str(body)?, strict::from_str(body)?);
    Ok((head, strict::variant_from_str(&kind, body)?))
}

impl RunnerFrame {
    /// The body as it is signed and sent.
    pub fn to_body(&self) -> String {
        let head = Head { deployment_id: self.deployment_id.clone(), seq: Some(self.seq) };
        to_body(&head, &self.kind)
    }

    /// Reads a body whose signature was verified.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        let (Head { deployment_id, seq }, kind) = parse(body)?;
        let seq = seq.ok_or_else(|| serde::de::Error::missing_field("seq"))?;
        Ok(Self { deployment_id, seq, kind })
    }

    /// Whether the attribute `vouch` goes with it (clause VCH-2).
    pub fn bears_vouch(&self) -> bool {
        matches!(self.kind, RunnerKind::Started { .. } | RunnerKind::Heartbeat { .. } | RunnerKind::Finished(_))
    }
}

impl LauncherFrame {
    /// The body as it is signed and sent.
    pub fn to_body(&self) -> String {
        to_body(&Head { deployment_id: self.deployment_id.clone(), seq: None }, &self.kind)
    }

    /// Reads a body whose signature was verified.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        let (Head { deployment_id, .. }, kind) = parse(body)?;
        Ok(Self { deployment_id, kind })
    }
}
