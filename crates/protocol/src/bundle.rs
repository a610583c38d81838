//! What an SNS body, the override `RELAY_ENVELOPE` and a control queue's body hold: a request with its approvals, or a control
//! statement (clauses BUN-1 to BUN-4).

use serde::{Deserialize, Serialize};

use crate::encoding::to_json;
use crate::envelope::{Envelope, EnvelopeError, Verified};
use crate::limits;
use crate::strict;
use crate::{Approval, Request};

/// A request and the approvals beside it, unverified: `{"request":E,"approvals":[E…]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// The signed request.
    pub request: Envelope,
    /// Signed approvals, each a statement of its own.
    pub approvals: Vec<Envelope>,
}

/// What a topic or a control queue delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks for a deployment.
    Request(Bundle),
    /// Somebody asks to stop one: `{"control":E}`.
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

/// What is not there is left out: `null` is no way to say so, as none of these is optional in its form (clauses BUN-2, ENC-6).
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Bundle {
    /// Reads a bundle from at most [`limits::BUNDLE_MAX`] bytes (clauses BUN-1, LIM-2, LIM-5).
    pub fn parse(json: &[u8]) -> Result<Self, EnvelopeError> {
        within_limit(json)?;
        let bundle: Self = strict::from_slice(json)?;
        if bundle.approvals.len() > limits::APPROVALS_MAX {
            return Err(EnvelopeError::Approvals);
        }
        Ok(bundle)
    }

    /// The JSON form: this order, no whitespace.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// The one spelling of what was verified, so that duplicates are equal, byte for byte: approvals sorted by payload (clause BUN-3).
    pub fn canonical<S>(request: &Verified<Request, S>, approvals: &[Verified<Approval, S>]) -> Self {
        let mut approvals: Vec<Envelope> = approvals.iter().map(|approval| approval.canonical().clone()).collect();
        let order = |envelope: &Envelope| (envelope.unverified_payload().to_vec(), envelope.to_json());
        approvals.sort_by_cached_key(order);
        approvals.dedup();
        Self { request: request.canonical().clone(), approvals }
    }
}

impl Message {
    /// Reads what a topic delivered (clauses BUN-1, BUN-2, LIM-2).
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
            _ => Err(EnvelopeError::Json(serde::de::Error::custom("neither `request` with `approvals` nor `control`"))),
        }
    }

    /// The JSON form of a control statement's envelope.
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
