//! The request that CI makes (clauses REQ-1 to REQ-16). It names a target and parameters, never a
//! command.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::Statement;
use crate::limits;
use crate::names::{AccountId, DeploymentId, ParameterName, PublicKey, QueueUrl, TargetName, Ticket, TopicArn};
use crate::strict;
use crate::time::{Timestamp, plain_duration};

/// The payload of `application/vnd.relay.request.v1+json`. Every field is signed.
///
/// ```
/// use relay_protocol::{Request, Statement};
///
/// let request = Request::parse(br#"{
///     "deployment_id": "01a200d5-1fa8-7707-8707-070707070707",
///     "audience": "arn:aws:sns:eu-west-1:222222222222:relay",
///     "target": "payments/production",
///     "parameters": { "image": "sha256:00ff" },
///     "reply_queue": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-ci-reply",
///     "session_key": "MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
///     "issued_at": "2026-11-22T01:18:17Z",
///     "expires_at": "2026-11-22T01:28:17Z"
/// }"#)?;
/// assert_eq!(request.expires_at.since(request.issued_at), 600);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The deployment's id. It names the deployment in the task, the claim, the queues and the lock
    /// (clause REQ-3).
    pub deployment_id: DeploymentId,
    /// The topic that the request is meant for. A request replayed to another account is refused
    /// (clause REQ-4).
    pub audience: TopicArn,
    /// The target to deploy to.
    pub target: TargetName,
    /// The parameter values by name. The value of an artifact parameter is its SHA-256 (clause
    /// REQ-6).
    pub parameters: BTreeMap<ParameterName, String>,
    /// The queue to which frames are sent (clause REQ-7).
    pub reply_queue: QueueUrl,
    /// The queue that the runner polls for control statements; absent if CI has only a pre-made
    /// reply queue (clause REQ-8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_queue: Option<QueueUrl>,
    /// The public half of the key that the CLI creates for this deployment alone; it signs control
    /// statements.
    pub session_key: PublicKey,
    /// The ticket that the request shares with its approvals. Without one, no approval counts
    /// (clause APP-2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Ticket>,
    /// When the request was made. Policies that depend on time use this value, so that the launcher
    /// and the runner agree.
    pub issued_at: Timestamp,
    /// When the request expires (clause REQ-9).
    pub expires_at: Timestamp,
    /// Where the request comes from, for human readers. No decision depends on it (clause REQ-12).
    #[serde(default, skip_serializing_if = "Origin::is_empty", deserialize_with = "strict::or_default")]
    pub origin: Origin,
    /// The W3C trace context (clause REQ-13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceParent>,
}

/// Where a request says that it comes from; for information only (clause REQ-12).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// The CI system: `github`, `gitlab`, `jenkins`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Text>,
    /// The URL of the CI run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_url: Option<Text>,
    /// The commit that is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Text>,
    /// The user who started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Text>,
}

impl Origin {
    /// Whether no field is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A short text for human readers: at most [`limits::TEXT_MAX`] bytes and no control characters
/// (clause LIM-7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

impl Text {
    /// As much of `text` as fits, with control characters removed.
    pub fn lossy(text: &str) -> Self {
        let mut kept = String::new();
        for c in text.chars().filter(|c| !c.is_control()) {
            if kept.len() + c.len_utf8() > limits::TEXT_MAX {
                break;
            }
            kept.push(c);
        }
        Self(kept)
    }

    /// The text as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Text {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.len() > limits::TEXT_MAX || text.chars().any(char::is_control) {
            return Err("the text is longer than 512 bytes or contains control characters");
        }
        Ok(Self(text))
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0
    }
}

/// A W3C `traceparent`, version 00 (clause REQ-13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(String);

impl TraceParent {
    /// The header's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TraceParent {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match text.split('-').collect::<Vec<_>>().as_slice() {
            ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2) => Ok(Self(text)),
            _ => Err("not a W3C traceparent of version 00"),
        }
    }
}

impl From<TraceParent> for String {
    fn from(trace: TraceParent) -> Self {
        trace.0
    }
}

/// Why a correctly signed request is refused: its times, topic, target or queues are wrong. The
/// requester is told the reason (clause LAU-6).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The request has expired (clause REQ-10).
    #[error("the request expired {} ago, at {expires_at}", plain_duration(*by))]
    Expired {
        /// Seconds since the request expired.
        by: i64,
        /// When the request expired.
        expires_at: Timestamp,
    },
    /// The request was issued by a clock that is ahead (clause REQ-10).
    #[error("the request was issued {} in the future; at most {} of clock skew is tolerated", plain_duration(*by), plain_duration(limits::CLOCK_SKEW))]
    NotYetValid {
        /// Seconds until `issued_at`.
        by: i64,
    },
    /// The lifetime is too long, or not positive (clause REQ-9).
    #[error(
        "the request's lifetime is {seconds} s; it must be more than 0 s and at most {} s",
        limits::REQUEST_LIFETIME_MAX
    )]
    Lifetime {
        /// Seconds from `issued_at` to `expires_at`.
        seconds: i64,
    },
    /// The request is meant for another topic (clause REQ-4).
    #[error("the request is meant for {found}, not for {expected}")]
    Audience {
        /// The topic of this target.
        expected: String,
        /// The topic in the request.
        found: String,
    },
    /// The request is meant for another target (clause REQ-5).
    #[error("the request is for the target {found}, not for {expected}")]
    Target {
        /// The target being checked against.
        expected: TargetName,
        /// The target in the request.
        found: TargetName,
    },
    /// The request names a queue that it may not use (clauses REQ-7, REQ-8).
    #[error("the {which} queue {found} is not allowed: {why}")]
    Queue {
        /// Either `reply` or `control`.
        which: &'static str,
        /// The queue in the request.
        found: String,
        /// The rule that the queue breaks.
        why: &'static str,
    },
}

/// The program that checks the time. The runner starts later than the launcher, so it accepts a
/// request for longer (clauses REQ-10 and RUN-5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The launcher, which accepts a request until `expires_at` plus the clock skew.
    Launch,
    /// The runner, which accepts a request until `expires_at` plus ten minutes.
    Run,
}

impl Request {
    /// The bytes of the payload, as the CLI signs them.
    pub fn to_payload(&self) -> Vec<u8> {
        to_json(self).into_bytes()
    }

    /// Checks the request's lifetime, and compares `issued_at` and `expires_at` with `now` (clauses
    /// REQ-9, REQ-10, RUN-5).
    ///
    /// # Errors
    ///
    /// If the lifetime is out of range, or the request is not yet valid or has expired.
    pub fn check_time(&self, now: Timestamp, stage: Stage) -> Result<(), RequestError> {
        let seconds = self.expires_at.since(self.issued_at);
        if seconds <= 0 || seconds > limits::REQUEST_LIFETIME_MAX {
            return Err(RequestError::Lifetime { seconds });
        }
        let ahead = self.issued_at.since(now);
        if ahead > limits::CLOCK_SKEW {
            return Err(RequestError::NotYetValid { by: ahead });
        }
        let late = now.since(self.expires_at);
        let tolerated = match stage {
            Stage::Launch => limits::CLOCK_SKEW,
            Stage::Run => limits::START_DELAY_MAX,
        };
        if late > tolerated { Err(RequestError::Expired { by: late, expires_at: self.expires_at }) } else { Ok(()) }
    }

    /// Checks the audience and the target (clauses REQ-4, REQ-5).
    ///
    /// # Errors
    ///
    /// If the request is meant for another topic or another target.
    pub fn check_place(&self, audience: &TopicArn, target: &TargetName) -> Result<(), RequestError> {
        if self.audience != *audience {
            return Err(RequestError::Audience { expected: audience.to_string(), found: self.audience.to_string() });
        }
        if self.target != *target {
            return Err(RequestError::Target { expected: target.clone(), found: self.target.clone() });
        }
        Ok(())
    }

    /// Checks that each queue is one of the configured `fixed` queues, or is named for this
    /// deployment, is in the topic's region and belongs to one of the signer's CI accounts (clauses
    /// REQ-7, REQ-8).
    ///
    /// # Errors
    ///
    /// If the reply queue or the control queue breaks one of these rules.
    pub fn check_queues(&self, ci_accounts: &[AccountId], fixed: &[QueueUrl]) -> Result<(), RequestError> {
        let rule = QueueRule { audience: &self.audience, ci_accounts, fixed };
        rule.check("reply", &self.reply_queue, &self.deployment_id.reply_queue_name())?;
        match &self.control_queue {
            Some(queue) => rule.check("control", queue, &self.deployment_id.control_queue_name()),
            None => Ok(()),
        }
    }

    /// The subject of an approval: SHA-256 of the RFC 8785 form of what the request asks for, its
    /// ticket, and the configuration that would carry it out (clause APP-2). `None` without a
    /// ticket: such a request cannot be approved.
    pub fn subject(&self, configuration: Digest) -> Option<Digest> {
        // The fields are alphabetical, the map is sorted, and all values are strings, so
        // serde_json's compact form is the RFC 8785 form.
        #[derive(Serialize)]
        struct Subject<'a> {
            audience: &'a TopicArn,
            configuration: Digest,
            parameters: &'a BTreeMap<ParameterName, String>,
            target: &'a TargetName,
            ticket: &'a Ticket,
        }
        let Self { audience, parameters, target, .. } = self;
        let ticket = self.ticket.as_ref()?;
        let subject = Subject { audience, configuration, parameters, target, ticket };
        Some(Digest::of(to_json(&subject).as_bytes()))
    }
}

/// The rule for the queues that a request may name.
struct QueueRule<'a> {
    audience: &'a TopicArn,
    ci_accounts: &'a [AccountId],
    fixed: &'a [QueueUrl],
}

impl QueueRule<'_> {
    /// Checks one queue. `own` is the name of the deployment's own queue of that kind.
    fn check(&self, which: &'static str, queue: &QueueUrl, own: &str) -> Result<(), RequestError> {
        let odd = |why| RequestError::Queue { which, found: queue.to_string(), why };
        if self.fixed.contains(queue) {
            return Ok(());
        }
        if queue.region() != self.audience.region() {
            return Err(odd("it is not in the topic's region"));
        }
        if !self.ci_accounts.contains(queue.account()) {
            return Err(odd("its account is not one of the signer's CI accounts"));
        }
        if queue.name() != own { Err(odd("its name does not belong to this deployment")) } else { Ok(()) }
    }
}

impl Statement for Request {
    const TYPE: &'static str = "application/vnd.relay.request.v1+json";

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        let request: Self = strict::from_slice(payload)?;
        if !request.session_key.is_ed25519() {
            return Err(serde::de::Error::custom("the session key is not an Ed25519 key"));
        }
        if request.parameters.len() > limits::PARAMETERS_MAX {
            return Err(serde::de::Error::custom(format!(
                "the request has more than {} parameters",
                limits::PARAMETERS_MAX
            )));
        }
        if request.parameters.values().any(|value| value.len() > limits::PARAMETER_VALUE_MAX) {
            return Err(serde::de::Error::custom(format!(
                "the value of a parameter is longer than {} bytes",
                limits::PARAMETER_VALUE_MAX
            )));
        }
        // A listing of the evidence by day is complete only if the day in the id is the request's
        // (clause REQ-16).
        if request.deployment_id.time().since(request.issued_at).abs() > limits::CLOCK_SKEW {
            return Err(serde::de::Error::custom("the time in the deployment id is not that of `issued_at`"));
        }
        Ok(request)
    }
}

/// The attributes of the SNS message, which are not signed. They select the trust roots to try, and
/// the queue to which an `unverified` frame may be sent (clauses HNT-1 to HNT-3). Parsing checks
/// their grammar; [`Hints::agree_with`] compares them with the verified request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hints {
    /// The attribute `target`.
    pub target: TargetName,
    /// The attribute `deployment_id`.
    pub deployment_id: DeploymentId,
    /// The attribute `ci_account`.
    pub ci_account: AccountId,
}

impl Hints {
    /// The hints that belong to `request`.
    pub fn of(request: &Request) -> Self {
        Self {
            target: request.target.clone(),
            deployment_id: request.deployment_id.clone(),
            ci_account: request.reply_queue.account().clone(),
        }
    }

    /// Whether the hints match `request` (clause HNT-2).
    pub fn agree_with(&self, request: &Request) -> bool {
        *self == Self::of(request)
    }
}
