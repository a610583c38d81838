//! What AWS delivers to the function: SNS notifications. Anything else is named and left alone.

use std::collections::BTreeMap;

use relay_protocol::TopicArn;
use relay_protocol::request::Hints;
use serde::Deserialize;

/// One SNS message.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The topic that it came by; SNS sets it, and the function's policy lets only that topic in.
    pub topic: TopicArn,
    /// The body: the signed bytes lie in it.
    pub body: String,
    /// The hints, when their grammar is right (clause HNT-1).
    pub hints: Option<Hints>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "Sns")]
    sns: Option<Sns>,
}

#[derive(Deserialize)]
struct Sns {
    #[serde(rename = "TopicArn")]
    topic_arn: String,
    #[serde(rename = "Message")]
    message: String,
    #[serde(rename = "MessageAttributes", default)]
    attributes: BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    #[serde(rename = "Value", default)]
    value: String,
}

/// The notifications in an event; none when it is of another kind.
pub fn notifications(event: serde_json::Value) -> Vec<Notification> {
    let Ok(event) = serde_json::from_value::<Event>(event) else { return Vec::new() };
    event.records.into_iter().filter_map(|record| record.sns).filter_map(notification).collect()
}

fn notification(sns: Sns) -> Option<Notification> {
    let hint = |name: &str| sns.attributes.get(name).map(|attribute| attribute.value.as_str()).unwrap_or_default();
    let hints = || {
        Some(Hints {
            target: hint("target").parse().ok()?,
            deployment_id: hint("deployment_id").parse().ok()?,
            ci_account: hint("ci_account").parse().ok()?,
        })
    };
    Some(Notification { topic: sns.topic_arn.parse().ok()?, hints: hints(), body: sns.message })
}
