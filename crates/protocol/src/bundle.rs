//! The content of an SNS body, of the override `RELAY_ENVELOPE` and of a control queue's message: a
//! request with its approvals, or a control statement (clauses BUN-1 to BUN-4).

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
    /// A request to stop a deployment: `{"control":E}`.
    Control(Envelope),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(default, deserialize_with = "present")]
    request: Option<Envelope>,
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
    /// If the JSON is too long, or holds neither a request with approvals nor a control statement,
    /// or if there are too many approvals.
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        within_limit(json)?;
        let wire: Wire = strict::from_slice(json)?;
        match wire {
            Wire { request: Some(request), approvals: Some(approvals), control: None }
                if approvals.len() <= limits::APPROVALS_MAX =>
            {
                Ok(Self::Request(Bundle { request, approvals }))
            }
            Wire { request: Some(_), approvals: Some(_), control: None } => Err(EnvelopeError::Approvals),
            Wire { request: None, approvals: None, control: Some(control) } => Ok(Self::Control(control)),
            _ => Err(EnvelopeError::Json(serde::de::Error::custom(
                "the message must have either `request` and `approvals`, or `control`",
            ))),
        }
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
