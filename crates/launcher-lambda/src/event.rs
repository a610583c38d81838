//! The events that AWS delivers to the function: SNS notifications, ECS task events, and the
//! watchdog's schedule. Delivery alone does not make any of their content trustworthy.

use std::collections::BTreeMap;

use relay_protocol::TopicArn;
use relay_protocol::request::Hints;
use serde::Deserialize;

/// The event of an invocation.
#[derive(Clone, Debug)]
pub enum Delivered {
    /// SNS messages.
    Notifications(Vec<Notification>),
    /// A task has changed.
    Task {
        /// The cluster's ARN.
        cluster: String,
        /// The task's ARN.
        arn: String,
    },
    /// The schedule: time for the watchdog to check all tasks.
    Schedule,
    /// Any other event.
    Other,
}

/// One SNS message.
#[derive(Clone, Debug)]
pub struct Notification {
    /// The topic that delivered the message. SNS sets it, and the function's policy admits only
    /// that topic.
    pub topic: TopicArn,
    /// The body, which contains the signed bytes.
    pub body: String,
    /// The hints, if they are well formed (clause HNT-1).
    pub hints: Option<Hints>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "Records", default)]
    records: Vec<Record>,
    source: Option<String>,
    #[serde(rename = "detail-type")]
    detail_type: Option<String>,
    #[serde(default)]
    detail: serde_json::Value,
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

/// The fields used of an ECS event (AWS: "Amazon ECS task state change events").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    cluster_arn: String,
    task_arn: String,
}

/// Reads the JSON of an event. An event that does not parse is [`Delivered::Other`].
pub fn delivered(event: serde_json::Value) -> Delivered {
    let Ok(event) = serde_json::from_value::<Event>(event) else { return Delivered::Other };
    match (event.source.as_deref(), event.detail_type.as_deref()) {
        (Some("aws.ecs"), Some("ECS Task State Change")) => serde_json::from_value::<Detail>(event.detail)
            .map_or(Delivered::Other, |detail| Delivered::Task { cluster: detail.cluster_arn, arn: detail.task_arn }),
        (Some("aws.events"), Some("Scheduled Event")) => Delivered::Schedule,
        _ if !event.records.is_empty() => Delivered::Notifications(
            event.records.into_iter().filter_map(|record| record.sns).filter_map(notification).collect(),
        ),
        _ => Delivered::Other,
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_event_names_a_task_and_nothing_more_of_it_counts() {
        let detail = json!({"clusterArn": "arn:c", "taskArn": "arn:t", "lastStatus": "STOPPED", "version": 5});
        let event = json!({"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail});
        let Delivered::Task { cluster, arn } = delivered(event) else { panic!("not a task event") };
        assert_eq!((cluster.as_str(), arn.as_str()), ("arn:c", "arn:t"));
    }

    #[test]
    fn whatever_is_none_of_these_is_left_alone() {
        assert!(matches!(
            delivered(json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})),
            Delivered::Schedule
        ));
        for other in [
            json!({}),
            json!([]),
            json!("x"),
            json!({"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": {}}),
            json!({"Records": []}),
        ] {
            assert!(matches!(delivered(other), Delivered::Other));
        }
    }
}
