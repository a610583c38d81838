//! A task definition.

use serde_json::{Value, json};

use crate::wire::times::epoch_seconds;

/// One revision, as registered.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub(super) arn: String,
    pub(super) family: String,
    pub(super) revision: usize,
    pub(super) registered_ms: u64,
    /// When it was deregistered, and so became inactive.
    pub(super) deregistered_ms: Option<u64>,
    pub(super) content: Value,
}

impl Definition {
    pub(super) fn is_active(&self) -> bool {
        self.deregistered_ms.is_none()
    }

    pub(super) fn render(&self) -> Value {
        let mut value = self.content.clone();
        value["taskDefinitionArn"] = json!(self.arn);
        value["revision"] = json!(self.revision);
        value["status"] = json!(if self.is_active() { "ACTIVE" } else { "INACTIVE" });
        value["registeredAt"] = epoch_seconds(self.registered_ms);
        if let Some(ms) = self.deregistered_ms {
            value["deregisteredAt"] = epoch_seconds(ms);
        }
        value["compatibilities"] = json!(["EC2", "FARGATE"]);
        if let Some(object) = value.as_object_mut() {
            object.remove("tags");
        }
        value
    }

    pub(super) fn containers(&self) -> &[Value] {
        self.content.get("containerDefinitions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}
