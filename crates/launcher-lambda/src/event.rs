//! What AWS delivers to the function: SNS notifications, ECS's task events, and the watchdog's schedule. Nothing of it is believed for being
//! delivered.

use std::collections::BTreeMap;

use relay_aws::tasks::Task;
use relay_protocol::request::Hints;
use relay_protocol::{Timestamp, TopicArn, overrides};
use serde::Deserialize;

/// What an invocation is about.
#[derive(Clone, Debug)]
pub enum Delivered {
    /// SNS messages.
    Notifications(Vec<Notification>),
    /// A task has changed, in this cluster.
    Task {
        /// The cluster's ARN.
        cluster: String,
        /// The task, as it was then. Boxed, as it is much larger than the others.
        task: Box<Task>,
    },
    /// Time to look after all tasks.
    Schedule,
    /// None of these.
    Other,
}

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

/// The part of ECS's event that is looked at (AWS: "Amazon ECS task state change events").
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    cluster_arn: String,
    task_arn: String,
    task_definition_arn: String,
    last_status: String,
    #[serde(default)]
    desired_status: String,
    #[serde(default)]
    started_by: String,
    created_at: Option<String>,
    started_at: Option<String>,
    stopped_at: Option<String>,
    stop_code: Option<String>,
    stopped_reason: Option<String>,
    #[serde(default)]
    containers: Vec<Container>,
    #[serde(default)]
    overrides: Overrides,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: Option<String>,
    exit_code: Option<i32>,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Overrides {
    #[serde(default)]
    container_overrides: Vec<ContainerOverride>,
}

#[derive(Deserialize)]
struct ContainerOverride {
    #[serde(default)]
    environment: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    name: Option<String>,
    value: Option<String>,
}

/// Tells what was delivered.
pub fn delivered(event: serde_json::Value) -> Delivered {
    let Ok(event) = serde_json::from_value::<Event>(event) else { return Delivered::Other };
    match (event.source.as_deref(), event.detail_type.as_deref()) {
        (Some("aws.ecs"), Some("ECS Task State Change")) => {
            serde_json::from_value::<Detail>(event.detail).map_or(Delivered::Other, |detail| Delivered::Task {
                cluster: detail.cluster_arn.clone(),
                task: Box::new(task(detail)),
            })
        }
        (Some("aws.events"), Some("Scheduled Event")) => Delivered::Schedule,
        _ if !event.records.is_empty() => Delivered::Notifications(
            event.records.into_iter().filter_map(|record| record.sns).filter_map(notification).collect(),
        ),
        _ => Delivered::Other,
    }
}

fn task(detail: Detail) -> Task {
    // EventBridge has milliseconds; whole seconds are enough for what is judged by them.
    let time = |text: Option<String>| -> Option<Timestamp> {
        let text = text?;
        let seconds = text.split_once('.').map_or_else(|| text.clone(), |(seconds, _)| format!("{seconds}Z"));
        seconds.parse().ok()
    };
    let runner = detail.containers.iter().find(|container| container.name.as_deref() == Some(overrides::CONTAINER));
    Task {
        arn: detail.task_arn,
        definition: detail.task_definition_arn,
        started_by: detail.started_by,
        last_status: detail.last_status,
        desired_status: detail.desired_status,
        created_at: time(detail.created_at),
        started_at: time(detail.started_at),
        stopped_at: time(detail.stopped_at),
        stop_code: detail.stop_code,
        stopped_reason: detail.stopped_reason,
        exit_code: runner.and_then(|container| container.exit_code),
        container_reason: detail.containers.iter().find_map(|container| container.reason.clone()),
        envelope: detail
            .overrides
            .container_overrides
            .into_iter()
            .flat_map(|one| one.environment)
            .find(|pair| pair.name.as_deref() == Some(overrides::VARIABLE))
            .and_then(|pair| pair.value),
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
    fn a_task_event_is_read() {
        let event = json!({
            "source": "aws.ecs", "detail-type": "ECS Task State Change",
            "detail": {
                "clusterArn": "arn:c", "taskArn": "arn:t", "taskDefinitionArn": "arn:d:3", "lastStatus": "STOPPED", "desiredStatus": "STOPPED",
                "startedBy": "id", "createdAt": "2026-11-22T05:00:00.123Z", "stoppedAt": "2026-11-22T05:01:00Z", "stopCode": "TaskFailedToStart",
                "containers": [{"name": "install"}, {"name": "runner", "exitCode": 3, "reason": "CannotPullContainerError: x"}],
                "overrides": {"containerOverrides": [{"name": "runner", "environment": [{"name": "RELAY_ENVELOPE", "value": "{}"}]}]},
                "version": 5
            }
        });
        let Delivered::Task { cluster, task } = delivered(event) else { panic!("not a task event") };
        assert_eq!((cluster.as_str(), task.arn.as_str(), task.exit_code), ("arn:c", "arn:t", Some(3)));
        assert_eq!(task.created_at.unwrap().to_string(), "2026-11-22T05:00:00Z");
        assert_eq!(task.envelope.as_deref(), Some("{}"));
        assert_eq!(task.container_reason.as_deref(), Some("CannotPullContainerError: x"));
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
