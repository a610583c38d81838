//! The content of an SNS body, of the evidence's `request.json` and of a control queue's message: a
//! request or a dry run with its approvals, or a control statement (clauses BUN-1 to BUN-4).

use serde::{Deserialize, Serialize};

use crate::encoding::to_json;
use crate::envelope::{Envelope, EnvelopeError, Verified};
use crate::limits;
use crate::strict;
use crate::{Approval, Request};

/// A request and its approvals, all unverified: `{"request":E,"approvals":[E…]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The signed request.
    pub request: Envelope,
    /// The signed approvals. Each is a statement of its own.
    pub approvals: Vec<Envelope>,
}

/// A message from a topic or a control queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request for a deployment.
    Request(Bundle),
    /// The question what would become of a request: `{"dry_run":E,"approvals":[E…]}`.
    DryRun(Bundle),
    /// A request to stop a deployment: `{"control":E}`.
    Control(Envelope),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, deserialize_with = "present")]
    request: Option<Envelope>,
    #[serde(default, deserialize_with = "present")]
    dry_run: Option<Envelope>,
    #[serde(default, deserialize_with = "present")]
    approvals: Option<Vec<Envelope>>,
    #[serde(default, deserialize_with = "present")]
    control: Option<Envelope>,
}

/// A member that is not set must be left out. `null` is refused, because none of these members is
/// optional in its own form (clauses BUN-2, ENC-6).
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Bundle {
    /// Reads a bundle from at most [`limits::BUNDLE_MAX`] bytes (clauses BUN-1, LIM-2, LIM-5).
    ///
    /// # Errors
    ///
    /// If the JSON is too long or does not have the form of a bundle, or if there are too many
    /// approvals.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        within_limit(json)?;
        let bundle: Self = strict::from_slice(json)?;
        if bundle.approvals.len() > limits::APPROVALS_MAX {
            return Err(EnvelopeError::Approvals);
        }
        Ok(bundle)
    }

    /// The JSON form, with the members in this order and no whitespace.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// The canonical form of what was verified, with approvals sorted by payload, so that
    /// duplicates are equal byte for byte (clause BUN-3).
    pub fn canonical<S>(request: &Verified<Request, S>, approvals: &[Verified<Approval, S>]) -> Self {
        let mut approvals: Vec<Envelope> = approvals.iter().map(|approval| approval.canonical().clone()).collect();
        let order = |envelope: &Envelope| (envelope.unverified_payload().to_vec(), envelope.to_json());
        approvals.sort_by_cached_key(order);
        approvals.dedup();
        Self { request: request.canonical().clone(), approvals }
    }
}

impl Message {
    /// Reads a message from a topic (clauses BUN-1, BUN-2, LIM-2).
    ///
    /// # Errors
    ///
    /// If the JSON is too long, or holds neither a request or dry run with approvals nor a control
    /// statement, or if there are too many approvals.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        within_limit(json)?;
        let wire: Wire = strict::from_slice(json)?;
        let (message, bundle) = match wire {
            Wire { request: None, dry_run: None, approvals: None, control: Some(control) } => {
                return Ok(Self::Control(control));
            }
            Wire { request: Some(request), dry_run: None, approvals: Some(approvals), control: None } => {
                (Self::Request as fn(Bundle) -> Self, Bundle { request, approvals })
            }
            Wire { request: None, dry_run: Some(request), approvals: Some(approvals), control: None } => {
                (Self::DryRun as fn(Bundle) -> Self, Bundle { request, approvals })
            }
            _ => {
                return Err(EnvelopeError::Json(serde::de::Error::custom(
                    "the message must have `request` and `approvals`, `dry_run` and `approvals`, or `control`",
                )));
            }
        };
        if bundle.approvals.len() > limits::APPROVALS_MAX {
            return Err(EnvelopeError::Approvals);
        }
        Ok(message(bundle))
    }

    /// The JSON form of a message that carries a dry run and approvals.
    pub fn dry_run_json(dry_run: &Envelope, approvals: &[Envelope]) -> String {
        let approvals: Vec<String> = approvals.iter().map(Envelope::to_json).collect();
        format!("{{\"dry_run\":{},\"approvals\":[{}]}}", dry_run.to_json(), approvals.join(","))
    }

    /// The JSON form of a message that carries a control statement's envelope.
    pub fn control_json(control: &Envelope) -> String {
        format!("{{\"control\":{}}}", control.to_json())
    }
}

fn within_limit(json: &[u8]) -> Result<(), EnvelopeError> {
    if json.len() > limits::BUNDLE_MAX {
        return Err(EnvelopeError::TooLarge { found: json.len(), limit: limits::BUNDLE_MAX });
    }
    Ok(())
}
