//! The facts that the doctor gathers about one target, before it says what they mean.

use std::collections::BTreeMap;
use std::path::PathBuf;

use relay_aws::AwsError;
use relay_aws::probe::Probe;
use relay_console::Failure;
use relay_engine::Pins;
use relay_protocol::frame::Tried;
use relay_protocol::{PublicKey, QueueUrl, TargetName, TopicArn};

/// What was found out about one target.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) target: TargetName,
    pub(super) topic: Result<TopicArn, Failure>,
    pub(super) key: Result<Key, Failure>,
    /// The pinned keys; `None` if the caller wants to trust whoever answers first.
    pub(super) pins: Result<Option<Pins>, Failure>,
    /// The region that the environment names. The topic's region beats it.
    pub(super) region: Option<String>,
    /// Variables that redirect AWS endpoints, and where they lead.
    pub(super) endpoints: Vec<(String, String)>,
    /// The proxy variables that are set.
    pub(super) proxies: Vec<String>,
    /// `None` without a topic, because then the region to ask is unknown.
    pub(super) probe: Option<Probe>,
    pub(super) queues: Queue,
    pub(super) dry_run: DryRun,
    /// The artifact store, if one is named, with S3's answer.
    pub(super) artifacts: Result<Option<Store>, Failure>,
}

/// The signing key of `--key`, as the doctor found it.
#[derive(Debug)]
pub(super) enum Key {
    Public {
        public: PublicKey,
        /// The path and the mode of the file, if the key is in one.
        file: Option<(PathBuf, u32)>,
    },
    Token {
        /// Where the token came from, in words.
        source: String,
        /// What it claims, by JSON pointer.
        claims: BTreeMap<String, String>,
    },
}

/// How frames come back: through a pre-made queue, or through queues that CI creates.
#[derive(Debug)]
pub(super) enum Queue {
    /// A pre-made reply queue, or what is wrong with its URL.
    Fixed(Result<QueueUrl, Failure>),
    /// Queues that CI creates; creating them was not tried.
    NotTried,
    /// Queues that CI creates, which a dry run has created, read and deleted.
    Tried,
    /// Queues that CI creates; a dry run failed, for this or for another reason.
    SeeDryRun,
}

impl Queue {
    /// From the reply queue of the settings, if there is one, and the dry run.
    pub(super) fn of(fixed: Option<Result<QueueUrl, Failure>>, dry_run: &DryRun) -> Self {
        match (fixed, dry_run) {
            (Some(queue), _) => Self::Fixed(queue),
            (None, DryRun::Tried { answer, .. }) if answer.is_ok() => Self::Tried,
            (None, DryRun::Tried { .. }) => Self::SeeDryRun,
            (None, _) => Self::NotTried,
        }
    }
}

/// The dry run of `--try`.
#[derive(Debug)]
pub(super) enum DryRun {
    /// It was not asked for.
    NotTried,
    /// It could not be made, because a setting is missing that another finding names.
    NotPossible,
    /// It was made. `parameters` says whether parameters were given.
    Tried { answer: Box<Result<Tried, Failure>>, parameters: bool },
}

/// The artifact store.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) bucket: String,
    pub(super) prefix: String,
    /// S3's answer to a request for a missing object, or `None` if AWS could not be asked at all.
    pub(super) answer: Option<Result<(), AwsError>>,
}
