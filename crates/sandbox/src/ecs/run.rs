//! RunTask: its checks, its client token, and the start of the task.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ending::{NO_CAPACITY, fate};
use super::{Definition, Task, client, cluster, find_definition, invalid, process};
use crate::clock::random_hex;
use crate::dispatch::{Answer, Call};
use crate::error::{AwsError, Outcome};
use crate::kinds::Kind;
use crate::world::World;

/// All overrides together, as serialised, may have so many characters.
const MAX_OVERRIDES: usize = 8192;

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
    if overrides.to_string().chars().count() > MAX_OVERRIDES {
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
            // The real service ignores members that it does not know; a sandbox rather says so.
            return Err(invalid(format!("{} cannot be overridden", unknown.0)));
        }
    }
    Ok(())
}

/// What Fargate needs of a request.
fn check_request(call: &Call) -> Outcome<()> {
    if call.text("launchType") != Some("FARGATE") {
        return Err(invalid("The sandbox has launchType FARGATE only."));
    }
    let network = call.params.get("networkConfiguration").and_then(|n| n.get("awsvpcConfiguration"));
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

pub(super) fn run_task(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let mut state = world.ecs.lock();
    let cluster = cluster(&state, call)?;
    let name = call.text("taskDefinition").unwrap_or_default();
    let definition =
        find_definition(&state, &call.principal.account, name).ok_or_else(|| client("TaskDefinition not found."))?;
    check_request(call)?;
    let overrides = call.params.get("overrides").cloned().unwrap_or_else(|| json!({}));
    check_overrides(&definition, &overrides)?;
    let mut parameters = call.params.clone();
    if let Some(object) = parameters.as_object_mut() {
        object.remove("clientToken");
    }
    let parameters = canonical(&parameters);
    let token = call.text("clientToken").map(|t| (cluster.clone(), t.to_owned()));
    if let Some((held, task)) = token.as_ref().and_then(|t| state.tokens.get(t)) {
        let arns: Vec<&str> = task.iter().map(String::as_str).collect();
        if *held != parameters {
            let message = "The RunTask request could not be processed due to conflicts. The provided clientToken is already in use.";
            return Err(AwsError::client("ConflictException", message).with("resourceIds", json!(arns)));
        }
        let tasks: Vec<Value> = arns.iter().filter_map(|a| state.tasks.get(*a)).map(Task::render).collect();
        let known: Vec<String> = arns.iter().map(|a| (*a).to_owned()).collect();
        drop(state);
        call.note("again", true);
        call.note("tasks", known);
        return Ok(Answer::Json(json!({"tasks": tasks, "failures": []})));
    }
    if !definition.active {
        return Err(client("TaskDefinition is inactive"));
    }
    if let Some(failures) = call.effects.get(Kind::RunTaskFailures) {
        if let Some(token) = token.filter(|_| world.settings.failures_use_up_token) {
            state.tokens.insert(token, (parameters, None));
        }
        let reason = failures.words.as_deref().unwrap_or(NO_CAPACITY);
        return Ok(Answer::Json(json!({"tasks": [], "failures": [{"reason": reason}]})));
    }
    let id = random_hex::<16>();
    let short = cluster.rsplit('/').next().unwrap_or_default();
    let arn = format!("arn:aws:ecs:{}:{}:task/{short}/{id}", crate::REGION, call.principal.account);
    let (task, stop) = Task::new(&arn, &cluster, definition, overrides, call);
    let rendered = task.render();
    state.tasks.insert(arn.clone(), task);
    if let Some(token) = token {
        state.tokens.insert(token, (parameters, Some(arn.clone())));
    }
    drop(state);
    process::start(world, arn.clone(), stop, fate(&call.effects));
    call.note("tasks", vec![arn]);
    Ok(Answer::Json(json!({"tasks": [rendered], "failures": []})))
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
