//! The record: an in-toto statement that the target key signs at the end of each deployment
//! (clauses REC-1 to REC-4, promise P8).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::names::{DeploymentId, ParameterName, TargetName, TopicArn};
use crate::outcome::Outcome;
use crate::request::Origin;
use crate::time::Timestamp;

/// The payload type of an in-toto statement.
pub const TYPE: &str = "application/vnd.in-toto+json";
/// The `_type` of an in-toto statement, version 1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate type of a deployment.
pub const PREDICATE_TYPE: &str = "urn:relay:deployment:v1";

/// An in-toto Statement v1 about one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The request, the configuration and the artifacts, by digest.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What happened.
    pub predicate: Predicate,
}

/// A subject of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The name: `request`, `configuration`, `artifact/<parameter>` or `saved/<step>`.
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

/// What happened in a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predicate {
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
    /// Length and digest of stdout, after masking.
    pub stdout: StreamDigest,
    /// Length and digest of stderr, after masking.
    pub stderr: StreamDigest,
    /// The outputs of the steps.
    pub outputs: BTreeMap<String, String>,
    /// The isolation between the runner and the tool: `none`, `credentials` or `uid`.
    pub isolation: String,
}

/// A signer of the request or of an approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSigner {
    /// The SHA-256 of the public key in hex.
    pub key_id: String,
    /// The signer's name in the configuration.
    pub name: String,
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
    pub milliseconds: u64,
}

/// The length and digest of a whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDigest {
    /// The length in bytes.
    pub bytes: u64,
    /// The SHA-256 of all bytes, in order.
    pub sha256: Digest,
}

impl Record {
    /// A record of `predicate` about `subject`.
    pub fn new(subject: Vec<Subject>, predicate: Predicate) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject,
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate,
        }
    }

    /// The bytes of the payload, as they are signed.
    pub fn to_payload(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }
}

impl crate::Statement for Record {
    const TYPE: &'static str = TYPE;

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let record: Self = crate::strict::from_slice(payload)?;
        if record.statement_type != STATEMENT_TYPE || record.predicate_type != PREDICATE_TYPE {
            return Err(serde::de::Error::custom("not an in-toto statement v1 about a relay deployment"));
        }
        Ok(record)
    }
}
