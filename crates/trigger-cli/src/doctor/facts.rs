//! What the doctor saw of one target, before it says what that means.

use std::path::PathBuf;

use relay_aws::AwsError;
use relay_aws::probe::Probe;
use relay_console::Failure;
use relay_protocol::{PublicKey, QueueUrl, TargetName, TopicArn};

/// What was seen of one target's way.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) target: TargetName,
    pub(super) topic: Result<TopicArn, Failure>,
    pub(super) key: Result<Key, Failure>,
    /// The target account's public key.
    pub(super) pin: Result<Option<PublicKey>, Failure>,
    /// What the environment or the profile says; the topic's beats it.
    pub(super) region: Option<String>,
    /// Variables that redirect AWS's endpoints, and whereto.
    pub(super) endpoints: Vec<(String, String)>,
    /// Proxy variables that are set.
    pub(super) proxies: Vec<String>,
    /// None without a topic: nobody would know which region to ask.
    pub(super) probe: Option<Probe>,
    pub(super) queues: Queue,
    /// Bucket and prefix, and what S3 answered.
    pub(super) artifacts: Result<Option<Store>, Failure>,
}

#[derive(Debug)]
pub(super) struct Key {
    pub(super) public: PublicKey,
    /// Path and mode.
    pub(super) file: Option<(PathBuf, u32)>,
}

/// How the answer is to come back.
#[derive(Debug)]
pub(super) enum Queue {
    Fixed(Result<QueueUrl, Failure>),
    NotTried,
    Tried(Result<(), Failure>),
}

#[derive(Debug)]
pub(super) struct Store {
    pub(super) bucket: String,
    pub(super) prefix: String,
    /// Of asking for an object that is not there; none when AWS could not be asked at all.
    pub(super) answer: Option<Result<(), AwsError>>,
}
