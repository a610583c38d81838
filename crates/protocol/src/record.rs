//! Records: in-toto statements about how a deployment ended (clauses REC-1 to REC-7, promise P8).
//!
//! The runner's record is about a deployment that it ran, and is signed by the target key. Where
//! there is no runner, or no longer one, the launcher writes a record, which is signed by the
//! answer key and never says that a tool exited.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::Envelope;
use crate::keys::KnownSigner;
use crate::limits;
use crate::names::{DeploymentId, ParameterName, TargetName, TopicArn};
use crate::outcome::{Outcome, Reason};
use crate::request::Origin;
use crate::strict;
use crate::time::Timestamp;

/// The payload type of an in-toto statement.
pub const TYPE: &str = "application/vnd.in-toto+json";
/// The `_type` of an in-toto statement, version 1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The media type of a Sigstore bundle (sigstore/protobuf-specs, `sigstore_bundle.proto`).
const SIGSTORE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// What a statement says, and the predicate type that it has for it.
pub trait Predicate: Serialize + serde::de::DeserializeOwned {
    /// The predicate type.
    const TYPE: &'static str;
}

/// What every record says of its request and its task, whoever made the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// The id of the deployment.
    pub deployment_id: &'a DeploymentId,
    /// The target of the request.
    pub target: &'a TargetName,
    /// The topic through which the request came.
    pub audience: &'a TopicArn,
    /// The parameters of the request.
    pub parameters: &'a BTreeMap<ParameterName, String>,
    /// The task, if one was started.
    pub task_arn: Option<&'a str>,
}

impl Predicate for Deployment {
    const TYPE: &'static str = "urn:relay:deployment:v1";
}

impl Predicate for Unfinished {
    const TYPE: &'static str = "urn:relay:launcher-record:v1";
}

impl Deployment {
    /// What every record says of its request and its task.
    pub fn about(&self) -> About<'_> {
        let Self { deployment_id, target, audience, parameters, task_arn, .. } = self;
        About { deployment_id, target, audience, parameters, task_arn: Some(task_arn) }
    }
}

impl Unfinished {
    /// What every record says of its request and its task.
    pub fn about(&self) -> About<'_> {
        let Self { deployment_id, target, audience, parameters, task_arn, .. } = self;
        About { deployment_id, target, audience, parameters, task_arn: task_arn.as_deref() }
    }
}

/// An in-toto Statement v1 about one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<P = Deployment> {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The request, the configuration and the artifacts, by digest.
    pub subject: Vec<Subject>,
    /// Always [`Predicate::TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What happened.
    pub predicate: P,
}

/// A subject of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The name: `request`, `request.json`, `configuration`, `issuer-keys.json`,
    /// `image/<container>`, `artifact/<parameter>` or `saved/<step>`.
    pub name: String,
    /// The digest: `{"sha256": …}`.
    pub digest: BTreeMap<String, Digest>,
}

impl Subject {
    /// A subject with its SHA-256.
    pub fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self { name: name.into(), digest: BTreeMap::from([("sha256".to_owned(), digest)]) }
    }
}

/// The subjects of every record: the request by its digest, the object with it, the configuration
/// and, if the request has tokens, the object with the keys that they were judged by (clause
/// REC-2).
pub fn subjects(
    request: Digest,
    request_json: Digest,
    configuration: Digest,
    issuer_keys: Option<Digest>,
) -> Vec<Subject> {
    let named = [("request", request), ("request.json", request_json), ("configuration", configuration)];
    let named = named.into_iter().chain(issuer_keys.map(|digest| ("issuer-keys.json", digest)));
    named.map(|(name, digest)| Subject::new(name, digest)).collect()
}

/// What happened in a deployment that a runner ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The id of the deployment.
    pub deployment_id: DeploymentId,
    /// The target that was deployed to.
    pub target: TargetName,
    /// The topic through which the request came.
    pub audience: TopicArn,
    /// The parameters of the request.
    pub parameters: BTreeMap<ParameterName, String>,
    /// The signers of the request.
    pub signers: Vec<RecordSigner>,
    /// The signers who approved the request.
    pub approvers: Vec<RecordSigner>,
    /// The policies that allowed it.
    pub policies: Vec<String>,
    /// The task that ran it.
    pub task_arn: String,
    /// The role whose credentials the tool had; absent if it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What the task ran on, as ECS reports it: a capacity provider, or a launch type such as
    /// `FARGATE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<String>,
    /// The version of the runner.
    pub runner_version: String,
    /// Where the request says that it came from.
    #[serde(default, skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// When the runner started.
    pub started_at: Timestamp,
    /// When the deployment ended.
    pub finished_at: Timestamp,
    /// The steps that ran.
    pub steps: Vec<RecordStep>,
    /// How the deployment ended.
    pub outcome: Outcome,
    /// Length and digest of stdout, after masking; absent if the runner could not tell, because
    /// neither the queue nor its disk accepted the end of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StreamDigest>,
    /// Length and digest of stderr, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamDigest>,
    /// The outputs of the steps.
    pub outputs: BTreeMap<String, String>,
    /// The isolation between the runner and the tool: `none`, `credentials` or `uid`.
    pub isolation: String,
}

/// What the launcher says of a deployment that has no record of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// The id of the deployment.
    pub deployment_id: DeploymentId,
    /// The target of the request.
    pub target: TargetName,
    /// The topic through which the request came.
    pub audience: TopicArn,
    /// The parameters of the request.
    pub parameters: BTreeMap<ParameterName, String>,
    /// The signers of the request.
    pub signers: Vec<RecordSigner>,
    /// The signers of its verified approvals, whether or not they count.
    pub approvers: Vec<RecordSigner>,
    /// Where the request says that it came from.
    #[serde(default, skip_serializing_if = "Origin::is_empty")]
    pub origin: Origin,
    /// When the launcher made the record.
    pub recorded_at: Timestamp,
    /// How it ended.
    pub outcome: LauncherOutcome,
    /// The reason, as a code of the registry.
    pub reason: Reason,
    /// An explanation for people.
    pub message: String,
    /// The task that was started, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_arn: Option<String>,
    /// The exit code that ECS reports for the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The version of the launcher.
    pub launcher_version: String,
}

/// How a deployment ended whose end the launcher records. None of these is an exit of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LauncherOutcome {
    /// The launcher refused it.
    Refused,
    /// It was allowed, and no runner claimed it.
    NeverStarted,
    /// The task was stopped after its runner had claimed the deployment: by relay, by somebody
    /// else, by AWS, or for want of memory.
    Killed,
    /// The runner ended by itself and left no record.
    Lost,
}

/// A signer of the request or of an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSigner {
    /// The SHA-256 of the public key in hex, or the id of the entry that a token fits.
    pub key_id: String,
    /// The signer's name in the configuration.
    pub name: String,
    /// The claims of the signer's token, as the policies saw them; empty for a key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
}

impl From<&KnownSigner> for RecordSigner {
    fn from(signer: &KnownSigner) -> Self {
        Self { key_id: signer.key_id.clone(), name: signer.name.clone(), claims: signer.claims.clone() }
    }
}

/// A step that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordStep {
    /// The name of the step.
    pub name: String,
    /// The program and its arguments, as they ran.
    pub argv: Vec<String>,
    /// The exit code of the step.
    pub exit_code: u8,
    /// How long the step ran, in milliseconds.
    #[serde(deserialize_with = "strict::count")]
    pub milliseconds: u64,
}

/// The length and digest of a whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDigest {
    /// The length in bytes.
    #[serde(deserialize_with = "strict::count")]
    pub bytes: u64,
    /// The SHA-256 of all bytes, in order.
    pub sha256: Digest,
}

impl<P: Predicate> Record<P> {
    /// A record of `predicate` about `subject`.
    pub fn new(subject: Vec<Subject>, predicate: P) -> Self {
        Self { statement_type: STATEMENT_TYPE.to_owned(), subject, predicate_type: P::TYPE.to_owned(), predicate }
    }

    /// The envelope around the record, not signed yet.
    pub fn to_envelope(&self) -> Envelope {
        Envelope::new(TYPE, to_json(self).into_bytes())
    }

    /// The digest of the subject `name`, if there is such a subject.
    pub fn subject(&self, name: &str) -> Option<Digest> {
        self.subject.iter().find(|subject| subject.name == name)?.digest.get("sha256").copied()
    }
}

/// A record's envelope as a Sigstore bundle of version 0.3, without a transparency log (clause
/// REC-6). `cosign verify-blob-attestation` reads it.
pub fn sigstore(record: &Envelope) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Bundle<'a> {
        media_type: &'static str,
        verification_material: Material,
        dsse_envelope: &'a Envelope,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Material {
        public_key: Hint,
        tlog_entries: [(); 0],
    }
    #[derive(Serialize)]
    struct Hint {
        hint: String,
    }
    let hint = record.signatures().first().map(|signature| signature.keyid.clone()).unwrap_or_default();
    to_json(&Bundle {
        media_type: SIGSTORE_TYPE,
        verification_material: Material { public_key: Hint { hint }, tlog_entries: [] },
        dsse_envelope: record,
    })
}

impl<P: Predicate> crate::Statement for Record<P> {
    const TYPE: &'static str = TYPE;
    const MAX: usize = limits::RECORD_MAX;

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = strict::from_slice(payload)?;
        if record.statement_type != STATEMENT_TYPE || record.predicate_type != P::TYPE {
            return Err(serde::de::Error::custom("not an in-toto statement v1 with the predicate type of this record"));
        }
        Ok(record)
    }
}
