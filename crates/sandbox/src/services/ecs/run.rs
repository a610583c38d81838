//! RunTask: its checks and its client token.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::definition::Definition;
use super::task::{Task, capacity};
use super::{Ecs, Used, client, invalid};
use crate::services::call::Call;
use crate::services::contract::{Effect, Reaction};
use crate::services::fate::{NO_CAPACITY, fate};
use crate::services::fault::Kind;
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};

/// Maximum length of all overrides together, in characters of JSON.
const OVERRIDES_MAX: usize = 8192;

/// The same text for equal values, whatever the order of their members.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().map(|(k, v)| (k, canonical(v))).collect();
            format!("{sorted:?}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(canonical).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

fn check_overrides(definition: &Definition, overrides: &Value) -> Outcome<()> {
    if overrides.to_string().chars().count() > OVERRIDES_MAX {
        return Err(invalid("Container Overrides length must be at most 8192"));
    }
    for container in overrides.get("containerOverrides").and_then(Value::as_array).into_iter().flatten() {
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        if !definition.containers().iter().any(|c| c.get("name").and_then(Value::as_str) == Some(name)) {
            let message = format!("Override for container named {name} is not a container in the TaskDefinition.");
            return Err(invalid(message));
        }
        const KNOWN: [&str; 8] = [
            "name",
            "command",
            "environment",
            "environmentFiles",
            "cpu",
            "memory",
            "memoryReservation",
            "resourceRequirements",
        ];
        if let Some(unknown) = container.as_object().into_iter().flatten().find(|(k, _)| !KNOWN.contains(&k.as_str())) {
            // AWS ignores unknown members; ignoring them here would hide a mistake in relay.
            return Err(invalid(format!("{} cannot be overridden", unknown.0)));
        }
    }
    Ok(())
}

/// Checks what ECS requires of a request.
fn check_request(call: &Call) -> Outcome<()> {
    match (call.text("launchType"), capacity(call)) {
        (Some("FARGATE"), None) => {}
        // A cluster has the capacity providers that a stack gave it.
        (None, Some(name)) if name.starts_with("relay_") => {}
        (None, Some(_)) => return Err(invalid("The specified capacity provider was not found.")),
        (Some(_), Some(_)) => {
            return Err(invalid("Specifying both a launch type and capacity provider strategy is not supported."));
        }
        _ => return Err(invalid("The sandbox supports only the launchType FARGATE and capacity providers.")),
    }
    let network = call.params.get("networkConfiguration").and_then(|network| network.get("awsvpcConfiguration"));
    let network = network
        .ok_or_else(|| invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified."))?;
    if network.get("subnets").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(invalid("subnets can not be empty."));
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/');
    if call.text("startedBy").is_some_and(|s| s.len() > 128 || !s.bytes().all(legal)) {
        return Err(invalid(
            "startedBy must be at most 128 characters of letters, numbers, hyphens, slashes and underscores.",
        ));
    }
    if call.text("clientToken").is_some_and(|t| t.len() > 64 || !t.bytes().all(|b| (33..=126).contains(&b))) {
        return Err(invalid("clientToken must be at most 64 characters between 33 and 126."));
    }
    Ok(())
}

impl Ecs {
    pub(super) fn run_task(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        let cluster = self.cluster(call)?;
        let definition = self.definition(&call.principal.account, call.params.text_or_empty("taskDefinition"));
        let definition = definition.ok_or_else(|| client("TaskDefinition not found."))?;
        check_request(call)?;
        let overrides = call.params.get("overrides").cloned().unwrap_or_else(|| json!({}));
        check_overrides(&definition, &overrides)?;
        let mut parameters = call.params.json().clone();
        if let Some(object) = parameters.as_object_mut() {
            object.remove("clientToken");
        }
        let parameters = canonical(&parameters);
        let token = call.text("clientToken").map(|token| (cluster.clone(), token.to_owned()));
        if let Some(used) = token.as_ref().and_then(|token| self.tokens.get(token)) {
            return self.again(call, used, &parameters);
        }
        if !definition.is_active() {
            return Err(client("TaskDefinition is inactive"));
        }
        if let Some(failures) = call.faults.get(Kind::RunTaskFailures) {
            if let Some(token) = token.filter(|_| self.failures_use_up_token) {
                self.tokens.insert(token, Used { parameters, task: None });
            }
            let reason = failures.words.as_deref().unwrap_or(NO_CAPACITY);
            return Ok(Answer::Json(json!({"tasks": [], "failures": [{"reason": reason}]})).into());
        }
        let task = Task::new(cluster, definition, overrides, call);
        let (arn, rendered) = (task.arn.clone(), task.render());
        self.tasks.insert(arn.clone(), task);
        if let Some(token) = token {
            self.tokens.insert(token, Used { parameters, task: Some(arn.clone()) });
        }
        effects.push(Effect::StartTask { arn: arn.clone(), fate: fate(&call.faults) });
        call.note("tasks", vec![arn]);
        Ok(Answer::Json(json!({"tasks": [rendered], "failures": []})).into())
    }

    /// The answer to a client token that was used before: the same task, or a conflict if anything
    /// else is asked for.
    fn again(&self, call: &mut Call, used: &Used, parameters: &str) -> Outcome<Reaction> {
        let arns: Vec<&str> = used.task.as_deref().into_iter().collect();
        if used.parameters != parameters {
            let message = "The RunTask request could not be processed due to conflicts. The provided clientToken is \
                           already in use.";
            return Err(AwsError::client("ConflictException", message).with("resourceIds", json!(arns)));
        }
        let tasks: Vec<Value> = arns.iter().filter_map(|arn| self.tasks.get(*arn)).map(Task::render).collect();
        call.note("again", true);
        call.note("tasks", json!(arns));
        Ok(Answer::Json(json!({"tasks": tasks, "failures": []})).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_members_does_not_matter_but_values_do() {
        let text = |s: &str| canonical(&serde_json::from_str(s).unwrap());
        assert_eq!(text(r#"{"a":1,"b":["x",{"c":2,"d":3}]}"#), text(r#"{"b":["x",{"d":3,"c":2}],"a":1}"#));
        assert_ne!(text(r#"{"a":["x","y"]}"#), text(r#"{"a":["y","x"]}"#));
        assert_ne!(text(r#"{"a":"1"}"#), text(r#"{"a":1}"#));
    }
}
