//! Frames: the messages that the runner and the launcher send to the reply queue (clauses FRM-1 to
//! FRM-17). One SQS message is one frame.
//!
//! The body is JSON text. The string attributes `from`, `sig` and `vouch` travel beside it. `sig`
//! is a detached signature over the PAE of the frame's type and the bytes of the body. Readers
//! ignore unknown fields and unknown kinds, except unknown terminal kinds (clause VER-3).

mod output;
mod signed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use output::{Chunk, Chunks, Offsets, OutputError, Stream};
pub use signed::{
    ATTRIBUTE_FROM, ATTRIBUTE_SIG, ATTRIBUTE_VOUCH, FrameSource, LAUNCHER_FRAME_TYPE, RUNNER_FRAME_TYPE, SignedFrame,
};

use crate::encoding::{Digest, sqs_safe, to_json};
use crate::envelope::Envelope;
use crate::names::{AccountId, DeploymentId, ParameterName, TargetName};
use crate::outcome::{Outcome, Reason};
use crate::record::StreamDigest;
use crate::strict;
use crate::time::Timestamp;

/// A frame from the runner, signed only by the runner key (clause FRM-5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunnerFrame {
    /// The deployment that the frame belongs to.
    pub deployment_id: DeploymentId,
    /// The sequence number, from 0 and without gaps (clause FRM-7).
    pub seq: u64,
    /// The content of the frame.
    pub kind: RunnerKind,
}

/// The content of a runner frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunnerKind {
    /// The first frame: the runner has won the claim, and the tool may start.
    Started {
        /// The ARN of the task.
        task_arn: String,
        /// The names of the steps, in order.
        steps: Vec<String>,
        /// When the server ends the deployment.
        deadline: Timestamp,
        /// Seconds that a step has to end by itself after it was asked to stop.
        #[serde(deserialize_with = "strict::count")]
        grace: u64,
    },
    /// A step begins.
    Step {
        /// The index of the step, from 0.
        #[serde(deserialize_with = "strict::count")]
        index: usize,
        /// The name of the step.
        name: String,
        /// Whether the step belongs to the rollback.
        #[serde(default, deserialize_with = "strict::or_default")]
        rollback: bool,
    },
    /// The tool's output, in the order in which it was read.
    Output(Box<Chunks>),
    /// The deployment is still running. Milliseconds since `started`.
    Heartbeat {
        /// Milliseconds since `started`.
        #[serde(deserialize_with = "strict::count")]
        elapsed_ms: u64,
    },
    /// A message from relay about the deployment, for people to read.
    Note {
        /// The message. At most [`crate::limits::TEXT_MAX`] bytes of it are shown.
        text: String,
    },
    /// The last frame (clause FRM-13).
    Finished(Box<Finished>),
    /// A kind from a later version. It is ignored, because it is not terminal (clause VER-3).
    #[serde(other)]
    Unknown,
}

/// The content of the last frame: how the deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The outcome.
    pub outcome: Outcome,
    /// The step that decided the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The number of frames, including this one: `seq + 1`.
    #[serde(deserialize_with = "strict::count")]
    pub frames: u64,
    /// Length and digest of all of stdout.
    pub stdout: StreamDigest,
    /// Length and digest of all of stderr.
    pub stderr: StreamDigest,
    /// The outputs that the steps wrote to `$RELAY_OUTPUT`.
    pub outputs: BTreeMap<String, String>,
    /// SHA-256 of the record's JSON form as the evidence has it: an envelope with its signature, or
    /// without one if it could not be signed (clause FRM-20).
    pub record_sha256: Digest,
    /// The record; absent if it does not fit into the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Envelope>,
    /// Why the record is not signed, or not in the evidence; absent if all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_problem: Option<String>,
}

/// The deployment that a body says it is about, before anything of it is verified.
pub fn deployment_of(body: &str) -> Option<DeploymentId> {
    strict::from_str::<Head>(body).ok().map(|head| head.deployment_id)
}

/// The size of `outputs` as JSON in a frame, in bytes (clause FRM-14).
pub fn outputs_size(outputs: &BTreeMap<String, String>) -> usize {
    sqs_safe(to_json(outputs)).len()
}

/// A frame from the launcher, signed only by the answer key (clause FRM-6). Sending it twice
/// changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LauncherFrame {
    /// The deployment that the frame belongs to.
    pub deployment_id: DeploymentId,
    /// The content of the frame.
    pub kind: LauncherKind,
}

/// The content of a launcher frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LauncherKind {
    /// The request was verified and allowed, and the named task runs it.
    Admitted {
        /// The digest of the request.
        request_digest: Digest,
        /// The ARN of the task.
        task_arn: String,
        /// The latest time at which the server ends the deployment.
        deadline: Timestamp,
        /// The policies that allowed the request.
        policies: Vec<String>,
    },
    /// The request was verified but not allowed. This is final: nothing runs after it.
    Refused {
        /// The digest of the request.
        request_digest: Digest,
        /// The check that failed.
        reason: Reason,
        /// An explanation for people.
        message: String,
    },
    /// The request was allowed, but ECS did not start the task. This is final.
    LaunchFailed {
        /// The digest of the request.
        request_digest: Digest,
        /// The kind of failure.
        reason: Reason,
        /// The message from ECS.
        message: String,
    },
    /// The state of the task, as ECS reports it.
    Task {
        /// The digest of the request.
        request_digest: Digest,
        /// The ARN of the task.
        task_arn: String,
        /// ECS's `lastStatus`.
        state: String,
        /// Why the task stopped, if it did, as a code of relay's registry.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// ECS's `stopCode`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_code: Option<String>,
        /// ECS's `stoppedReason`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stopped_reason: Option<String>,
        /// The exit code of the container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    /// The request could not be verified. The frame says nothing else about it (clause LAU-5).
    Unverified {
        /// SHA-256 of the SNS body, so that only the sender of that body recognises the frame as an
        /// answer.
        body_sha256: Digest,
        /// The hint `target`.
        target: TargetName,
        /// The hint `ci_account`.
        ci_account: AccountId,
    },
    /// The answer to a dry run. It says nothing about any deployment (clause DRY-2).
    Tried(Box<Tried>),
    /// A kind from a later version. It is ignored, because it is not terminal (clause VER-3).
    #[serde(other)]
    Unknown,
}

/// What would become of a request: the answer to a dry run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The digest of the dry run.
    pub request_digest: Digest,
    /// The check that fails; absent if the request would be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// An explanation for people; empty if the request would be allowed.
    pub message: String,
    /// The policies that would allow it.
    pub policies: Vec<String>,
    /// The signers of the dry run, by their names in the configuration.
    pub requesters: Vec<String>,
    /// How many persons more would have to approve; 0 if approvals are not what is missing.
    pub approvals_missing: u32,
    /// The digest of the configuration that decided.
    pub configuration_digest: Digest,
    /// The ARN of the task definition's revision that would run.
    pub revision: String,
    /// The key id of the target key, for comparison with the requester's pin.
    pub target_key_id: String,
    /// The artifacts of the request that another target saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<TriedArtifact>,
}

/// An artifact that another target saved, with what the record of that deployment says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedArtifact {
    /// The parameter whose value is its digest.
    pub parameter: ParameterName,
    /// The target that saved it.
    pub target: TargetName,
    /// Its place, `s3://<bucket>/<key>`.
    pub location: String,
    /// The deployment that saved it.
    pub deployment_id: DeploymentId,
    /// The signers of that deployment's request, by their names in its target's configuration.
    pub requesters: Vec<String>,
    /// The exit code of that deployment.
    pub exit_code: u8,
    /// When that deployment ended.
    pub finished_at: Timestamp,
}

impl LauncherKind {
    /// The digest of the request that the frame is about; `None` if the request could not be
    /// verified, or for an unknown kind.
    pub fn request_digest(&self) -> Option<Digest> {
        match self {
            Self::Admitted { request_digest, .. }
            | Self::Refused { request_digest, .. }
            | Self::LaunchFailed { request_digest, .. }
            | Self::Task { request_digest, .. } => Some(*request_digest),
            Self::Tried(tried) => Some(tried.request_digest),
            Self::Unverified { .. } | Self::Unknown => None,
        }
    }
}

/// The members of every frame. A launcher frame has no `seq`. Writers write the `kind` themselves.
#[derive(Serialize, Deserialize)]
struct Head {
    deployment_id: DeploymentId,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::count_or_none")]
    seq: Option<u64>,
    #[serde(skip_serializing)]
    kind: String,
}

/// The body as it is signed and sent: the members of the kind follow those of the head.
fn to_body(head: &Head, kind: &impl Serialize) -> String {
    let (head, mut kind) = (to_json(head), to_json(kind));
    let head = head.trim_end_matches('}');
    // serde writes a variant as `{"name":{members}}`, or as `"name"` if it has no members. The
    // members may be a quarter of a megabyte, so they stay where they are.
    let name = kind.strip_prefix('{').and_then(|tagged| tagged.split_once(":{")).map(|(name, _)| name.to_owned());
    match name {
        Some(name) => {
            kind.replace_range(..name.len() + 3, &format!("{head},\"kind\":{name},"));
            kind.pop();
        }
        None => kind = format!("{head},\"kind\":{kind}}}"),
    }
    sqs_safe(kind)
}

/// Reads a body after its signature was verified (clauses ENC-5, VER-3).
fn parse<K: serde::de::DeserializeOwned>(body: &str) -> Result<(Head, K), serde_json::Error> {
    let head: Head = strict::from_str(body)?;
    let kind = strict::variant_from_str(&head.kind, body)?;
    Ok((head, kind))
}

impl RunnerFrame {
    /// The body as it is signed and sent.
    pub fn to_body(&self) -> String {
        let head = Head { deployment_id: self.deployment_id.clone(), seq: Some(self.seq), kind: String::new() };
        let RunnerKind::Output(chunks) = &self.kind else { return to_body(&head, &self.kind) };
        let Some((chunks, packed)) = chunks.apart() else { return to_body(&head, &self.kind) };
        // The last member, a quarter of a megabyte, is copied as it is.
        let mut body = to_body(&head, &RunnerKind::Output(Box::new(chunks)));
        body.pop();
        body.reserve_exact(packed.len() + 16);
        body.extend([",\"packed\":\"", packed, "\"}"]);
        body
    }

    /// Reads a body after its signature was verified.
    ///
    /// # Errors
    ///
    /// If the body is not JSON in the form of a runner frame.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        let (Head { deployment_id, seq, .. }, kind) = parse(body)?;
        let seq = seq.ok_or_else(|| serde::de::Error::missing_field("seq"))?;
        Ok(Self { deployment_id, seq, kind })
    }

    /// Whether the attribute `vouch` accompanies this frame (clause VCH-2).
    pub fn bears_vouch(&self) -> bool {
        matches!(self.kind, RunnerKind::Started { .. } | RunnerKind::Heartbeat { .. } | RunnerKind::Finished(_))
    }
}

impl LauncherFrame {
    /// The body as it is signed and sent.
    pub fn to_body(&self) -> String {
        let head = Head { deployment_id: self.deployment_id.clone(), seq: None, kind: String::new() };
        to_body(&head, &self.kind)
    }

    /// Reads a body after its signature was verified.
    ///
    /// # Errors
    ///
    /// If the body is not JSON in the form of a launcher frame.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        let (Head { deployment_id, .. }, kind) = parse(body)?;
        Ok(Self { deployment_id, kind })
    }
}
