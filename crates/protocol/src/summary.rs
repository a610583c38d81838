//! The verification summary: the launcher's decision in the form of SLSA, for tools that read it
//! (clause REC-8). It says that the target's policies permitted a request, and nothing about how
//! anything was built.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::Digest;
use crate::names::{TargetName, TopicArn};
use crate::record::{Predicate, Record, Subject};
use crate::time::Timestamp;

/// The only level that a summary of relay names. It is no level of SLSA.
pub const LEVEL: &str = "RELAY_POLICY_V1";

/// The predicate of a Verification Summary Attestation (slsa.dev/spec/v1.1/verification_summary).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The launcher.
    pub verifier: Verifier,
    /// When it decided.
    pub time_verified: Timestamp,
    /// The target, `urn:relay:target:<service>/<environment>`.
    pub resource_uri: String,
    /// The configuration that decided.
    pub policy: Descriptor,
    /// The request, with its approvals.
    pub input_attestations: Vec<Descriptor>,
    /// The verdict.
    pub verification_result: Verdict,
    /// [`LEVEL`] alone.
    pub verified_levels: Vec<String>,
    /// The version of the specification.
    pub slsa_version: String,
}

/// Who verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verifier {
    /// The topic of the launcher, which names its account and region.
    pub id: TopicArn,
    /// The version of the launcher.
    pub version: BTreeMap<String, String>,
}

/// An object of the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Its place, `s3://<bucket>/<key>`.
    pub uri: String,
    /// Its SHA-256: `{"sha256": …}`.
    pub digest: BTreeMap<String, Digest>,
}

impl Descriptor {
    /// The object `key` of `bucket`, whose bytes have this SHA-256.
    pub fn new(bucket: &str, key: &str, digest: Digest) -> Self {
        Self { uri: format!("s3://{bucket}/{key}"), digest: BTreeMap::from([("sha256".to_owned(), digest)]) }
    }
}

/// The verdict of a summary. A refusal has a record of the launcher and no summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The policies permitted the request.
    #[serde(rename = "PASSED")]
    Passed,
}

impl Predicate for Summary {
    const TYPE: &'static str = "https://slsa.dev/verification_summary/v1";
}

/// The resource URI of a target.
pub fn resource(target: &TargetName) -> String {
    format!("urn:relay:target:{target}")
}

/// The facts of a decision.
#[derive(Clone, Debug)]
pub struct Decided<'a> {
    /// The topic of the request.
    pub audience: &'a TopicArn,
    /// The target of the request.
    pub target: &'a TargetName,
    /// When it was decided.
    pub at: Timestamp,
    /// The configuration that decided.
    pub configuration: Descriptor,
    /// The request, with its approvals.
    pub request: Descriptor,
    /// The version of the launcher.
    pub launcher_version: &'a str,
}

/// The statement that the policies permitted this, about `subject`.
pub fn passed(subject: Vec<Subject>, decided: Decided<'_>) -> Record<Summary> {
    let Decided { audience, target, at, configuration, request, launcher_version } = decided;
    let version = BTreeMap::from([("relay-launcher".to_owned(), launcher_version.to_owned())]);
    Record::new(
        subject,
        Summary {
            verifier: Verifier { id: audience.clone(), version },
            time_verified: at,
            resource_uri: resource(target),
            policy: configuration,
            input_attestations: vec![request],
            verification_result: Verdict::Passed,
            verified_levels: vec![LEVEL.to_owned()],
            slsa_version: "1.1".to_owned(),
        },
    )
}
