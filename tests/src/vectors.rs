//! The conformance vectors: what a file holds, what verdict our code gives on it, and how the files
//! are made.
//!
//! Owns the format of a vector (`docs/protocol.md`, section 21). It holds no expectations: those
//! are in the files alone. One file is one case. There is no list of files: the tests walk the
//! directory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "fixed inputs; a fault here is a failing test")]
#![allow(clippy::too_many_lines, reason = "tables of cases")]

mod approval;
mod claim;
mod control;
mod envelope;
mod frame;
mod keys;
mod request;
mod token;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use verdict::{Out, verdict};

/// One case. The directory determines which inputs are present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vector {
    /// What is unusual about the case.
    pub comment: String,
    /// The clause that decides the case, or several, separated by commas.
    pub clause: String,
    /// The expected failure class, or `ok`, or `ignored`.
    pub expect: String,
    /// `envelope`: the type of statement that the reader expects.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub statement: String,
    /// `claim`: the kind of object, `claim`, `lock` or `override`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub object: String,
    /// The bytes that the reader receives.
    pub body: Body,
    /// `frame`: the attribute `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `frame`: the attribute `sig`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sig: Option<String>,
    /// `frame`: the attribute `vouch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vouch: Option<String>,
    /// `token`: the entries of the configuration that name an issuer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<Entry>,
    /// `token`: the text of `issuer-keys.json`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer_keys: String,
    /// The trusted public keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// `request`: the message attributes. `frame`: those that the reader published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hints: Option<Hints>,
    /// `request`: the reader, `launch` for the launcher, `run` for the runner, or `try` for the
    /// launcher and a dry run. `frame`: `try` if the reader published a dry run.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// The reader's clock.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub now: String,
    /// `request`: the ARN of the reader's topic.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// `request`: the reader's target.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// `request`: the CI accounts of every signer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ci_accounts: Vec<String>,
    /// `request`: the queues that the configuration fixes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixed_queues: Vec<String>,
    /// `approval`: the payload of the request that the approval belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// `approval`: the digest of the reader's configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub configuration: String,
    /// `control`, `frame`: the deployment id of the reader.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deployment_id: String,
    /// `control`, `frame`: the digest of the reader's request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_digest: String,
    /// `frame`: SHA-256 of the SNS body that the reader published.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body_sha256: String,
    /// `control`: the session key of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// `frame`: the pinned target key; absent, like `answer_key`, if no keys are pinned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_key: Option<String>,
    /// `frame`: the pinned answer key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_key: Option<String>,
    /// `frame`: the runner key that an earlier vouch established.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_key: Option<String>,
    /// The expected digest of the PAE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The expected canonical envelope or bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical: Option<String>,
    /// `token`: the key ids of the expected signers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<String>,
}

/// An entry of the configuration that names an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name of the entry.
    pub name: String,
    /// The issuer.
    pub issuer: Named,
    /// The values that are accepted, by the JSON pointer of the claim.
    pub claims: BTreeMap<String, Vec<String>>,
}

/// An issuer as the configuration knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// The name that begins its tags.
    pub name: String,
    /// The URL.
    pub url: String,
    /// The algorithms that it may sign with.
    pub algorithms: Vec<String>,
}

/// The three hints, as the message attributes hold them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    /// The attribute `target`.
    pub target: String,
    /// The attribute `deployment_id`.
    pub deployment_id: String,
    /// The attribute `ci_account`.
    pub ci_account: String,
}

/// A body: text, bytes that are not text, or a long text in short form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// Text.
    Text(String),
    /// Bytes that are not text.
    Bytes {
        /// The bytes in base64.
        base64: String,
    },
    /// `before`, then `repeat` as many times as `times` says, then `after`.
    Long {
        /// The beginning.
        before: String,
        /// The part that is repeated.
        repeat: String,
        /// How many times it is repeated.
        times: usize,
        /// The end.
        after: String,
    },
}

impl Default for Body {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Body {
    /// The bytes that the body stands for.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Bytes { base64 } => relay_protocol::encoding::from_base64(base64).expect("base64 in the vector"),
            Self::Long { before, repeat, times, after } => {
                format!("{before}{}{after}", repeat.repeat(*times)).into_bytes()
            }
        }
    }
}

/// The directory that holds the vectors.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors")
}

/// The directory that holds the vectors with which version 1 was frozen.
pub fn frozen() -> PathBuf {
    directory().join("v1")
}

/// The text of every vector below `root`, by `<directory>/<name>.json`.
pub fn on_disk(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let folders = std::fs::read_dir(root).expect("vectors/").flatten();
    for folder in folders.filter(|entry| entry.path().is_dir() && entry.path() != frozen()) {
        for file in std::fs::read_dir(folder.path()).expect("a folder of vectors").flatten() {
            let name = format!("{}/{}", folder.file_name().to_string_lossy(), file.file_name().to_string_lossy());
            found.insert(name, std::fs::read_to_string(file.path()).expect("a vector"));
        }
    }
    found
}

/// Every vector as the fixed keys make it, with the same names and texts as [`on_disk`].
pub fn made() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let groups = [
        ("envelope", envelope::cases()),
        ("request", request::cases()),
        ("approval", approval::cases()),
        ("control", control::cases()),
        ("frame", frame::cases()),
        ("claim", claim::cases()),
        ("token", token::cases()),
    ];
    for (folder, cases) in groups {
        for (name, vector) in cases {
            let text = serde_json::to_string_pretty(&vector).expect("strings") + "\n";
            assert!(all.insert(format!("{folder}/{name}.json"), text).is_none(), "{folder}/{name} is made twice");
        }
    }
    all
}

/// The cases of one directory.
type Cases = Vec<(&'static str, Vector)>;

impl Vector {
    /// A new case that starts from this one's inputs.
    fn odd(&self, clause: &str, expect: &str, comment: &str) -> Self {
        Self { comment: comment.into(), clause: clause.into(), expect: expect.into(), ..self.clone() }
    }

    /// The same case with another body.
    fn body(mut self, text: impl Into<String>) -> Self {
        self.body = Body::Text(text.into());
        self
    }

    /// The same case with another change.
    fn but(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}
