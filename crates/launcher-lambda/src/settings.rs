//! The launcher's settings: environment variables of the function, which its stack sets.

use relay_protocol::{AccountId, TopicArn};

/// The settings from the function's stack.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `RELAY_TOPIC_ARN`: the topic whose messages are accepted.
    pub topic: TopicArn,
    /// `RELAY_CLUSTER`: the cluster that runs the tasks.
    pub cluster: String,
    /// `RELAY_BUCKET`: the relay bucket, for locks.
    pub bucket: String,
    /// `RELAY_EVIDENCE_BUCKET`: the evidence bucket, for claims, requests and records.
    pub evidence: String,
    /// `RELAY_ANSWER_KEY`: the KMS key that signs answers and the launcher's records.
    pub answer_key: String,
    /// `RELAY_CI_ACCOUNTS`, separated by commas: the accounts to which `unverified` may be sent.
    pub ci_accounts: Vec<AccountId>,
    /// `RELAY_FROZEN`: `true` refuses every request, for all targets. A missing variable means
    /// `false`.
    pub frozen: bool,
}

/// A setting that is missing or malformed. The operator who deployed the function can correct it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {name} is {problem}; deploy the launcher's stack again")]
pub struct SettingsError {
    name: &'static str,
    problem: String,
}

impl Settings {
    /// Reads the settings through `variable`.
    ///
    /// # Errors
    ///
    /// Returns [`SettingsError`] if a required variable is missing or malformed, or if
    /// `RELAY_FROZEN` is neither `true` nor `false`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let text = |name: &'static str| variable(name).ok_or(SettingsError { name, problem: "missing".to_owned() });
        let odd = |name: &'static str| {
            move |error: relay_protocol::names::InvalidName| SettingsError { name, problem: error.to_string() }
        };
        Ok(Self {
            topic: text("RELAY_TOPIC_ARN")?.parse().map_err(odd("RELAY_TOPIC_ARN"))?,
            cluster: text("RELAY_CLUSTER")?,
            bucket: text("RELAY_BUCKET")?,
            evidence: text("RELAY_EVIDENCE_BUCKET")?,
            answer_key: text("RELAY_ANSWER_KEY")?,
            ci_accounts: text("RELAY_CI_ACCOUNTS")?
                .split(',')
                .map(|account| account.trim().parse().map_err(odd("RELAY_CI_ACCOUNTS")))
                .collect::<Result<_, _>>()?,
            frozen: match variable("RELAY_FROZEN").as_deref() {
                None | Some("false") => false,
                Some("true") => true,
                // A misspelt freeze must not let any request through.
                Some(_) => {
                    return Err(SettingsError { name: "RELAY_FROZEN", problem: "neither true nor false".to_owned() });
                }
            },
        })
    }
}
