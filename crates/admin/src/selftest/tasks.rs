//! ECS: a deployment runs at most once, and its task's end is known.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::trial::{Outcome, Place, Problem, Trial, Verdict, text};
use crate::account::Refused;

/// The cluster of foundation.yaml.
const CLUSTER: &str = "relay";

/// Characters of the overrides that RunTask accepts.
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html>
const OVERRIDES_MAX: usize = 8_192;

/// What a task may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// Registers a task definition that runs a shell command. Returns its ARN.
fn definition(trial: &Trial<'_>, suffix: &str, image: &str, command: &str) -> Result<String, Problem> {
    let place = trial.place()?;
    let parameters = json!({
        "family": format!("{}-{suffix}", trial.name), "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc", "cpu": "256", "memory": "512", "executionRoleArn": place.execution_role,
        "containerDefinitions": [{
            "name": "runner", "image": image, "essential": true, "command": ["sh", "-c", command],
        }],
    });
    let made = trial.target.call("ecs", "register-task-definition", &parameters)?;
    let arn = text(&made["taskDefinition"], "taskDefinitionArn")?;
    trial.later_call(&trial.target, "ecs", "deregister-task-definition", json!({ "taskDefinition": arn }));
    Ok(arn)
}

fn how(place: &Place, definition: &str) -> Value {
    json!({
        "cluster": CLUSTER, "taskDefinition": definition, "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {
            "subnets": place.subnets, "securityGroups": [place.security_group], "assignPublicIp": "DISABLED",
        }},
    })
}

/// Runs a task, which is stopped in the end if it still runs. Returns its ARN.
fn start(trial: &Trial<'_>, parameters: &Value) -> Result<Result<String, Refused>, Problem> {
    match trial.target.call("ecs", "run-task", parameters) {
        Err(refused) => Ok(Err(refused)),
        Ok(answer) if answer["tasks"][0].is_object() => {
            let arn = text(&answer["tasks"][0], "taskArn")?;
            let task = json!({"cluster": CLUSTER, "task": arn});
            let target = trial.target.clone();
            trial.later(format!("task {arn}"), move || {
                let ended = target.call("ecs", "stop-task", &task);
                // A task that has ended is forgotten after an hour.
                ended.map(|_| ()).or_else(|why| if why.code == "InvalidParameterException" { Ok(()) } else { Err(why) })
            });
            Ok(Ok(arn))
        }
        Ok(answer) => Err(Problem::Other(format!("no task was started: {}", answer["failures"]))),
    }
}

/// Waits for the end of a task.
fn stopped(trial: &Trial<'_>, arn: &str) -> Result<Value, Problem> {
    let parameters = json!({"cluster": CLUSTER, "tasks": [arn]});
    let task = trial.until(PATIENCE, || {
        let answer = trial.target.call("ecs", "describe-tasks", &parameters)?;
        Ok(Some(answer["tasks"][0].clone()).filter(|task| task["lastStatus"] == "STOPPED"))
    })?;
    task.ok_or_else(|| Problem::Other(format!("the task did not end within {} s", PATIENCE.as_secs())))
}

fn started(trial: &Trial<'_>, parameters: &Value) -> Result<String, Problem> {
    Ok(start(trial, parameters)??)
}

/// Runs a shell command to its end. Returns the task as ECS describes it.
fn ran(trial: &Trial<'_>, suffix: &str, command: &str) -> Result<Value, Problem> {
    let place = trial.place()?;
    let definition = definition(trial, suffix, &place.image, command)?;
    stopped(trial, &started(trial, &how(&place, &definition))?)
}

pub(crate) fn token_starts_one_task(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let mut parameters = how(&place, &definition(trial, "token", &place.image, "sleep 20")?);
    parameters["clientToken"] = json!(format!("{}-token", trial.name));
    let (first, second) = (started(trial, &parameters)?, started(trial, &parameters)?);
    Verdict::of(first == second, format!("both calls return one task: {}", first == second))
}

pub(crate) fn token_belongs_to_its_request(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let mut parameters = how(&place, &definition(trial, "conflict", &place.image, "sleep 20")?);
    parameters["clientToken"] = json!(format!("{}-conflict", trial.name));
    started(trial, &parameters)?;
    parameters["startedBy"] = json!("another");
    Verdict::refused_with(start(trial, &parameters)?, &["ConflictException"])
}

pub(crate) fn overrides_have_a_limit(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let mut parameters = how(&place, &definition(trial, "overrides", &place.image, "true")?);
    let mut with = |size: usize| {
        let value = "x".repeat(size);
        let environment = json!([{"name": "RELAY_REQUEST", "value": value}]);
        parameters["overrides"] = json!({"containerOverrides": [{"name": "runner", "environment": environment}]});
        start(trial, &parameters)
    };
    with(OVERRIDES_MAX - 200)??;
    Verdict::refused_with(with(OVERRIDES_MAX + 200)?, &["InvalidParameterException"])
}

pub(crate) fn exit_code_is_told(trial: &mut Trial<'_>) -> Outcome {
    let task = ran(trial, "exit", "exit 37")?;
    let (stop, exit) = (&task["stopCode"], &task["containers"][0]["exitCode"]);
    Verdict::of(stop == "EssentialContainerExited" && *exit == 37, format!("stopCode {stop}, exitCode {exit}"))
}

pub(crate) fn missing_image_is_told(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let name = place.image.split('@').next().unwrap_or_default();
    let image = format!("{name}@sha256:{}", "0".repeat(64));
    let task = started(trial, &how(&place, &definition(trial, "pull", &image, "true")?))?;
    let task = stopped(trial, &task)?;
    let (stop, why) = (&task["stopCode"], task["stoppedReason"].as_str().unwrap_or_default());
    let holds = stop == "TaskFailedToStart" && why.starts_with("CannotPull");
    Verdict::of(holds, format!("stopCode {stop}, stoppedReason {}", why.split(':').next().unwrap_or_default()))
}

pub(crate) fn stop_is_told(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let task = started(trial, &how(&place, &definition(trial, "stop", &place.image, "sleep 250")?))?;
    let running = json!({"cluster": CLUSTER, "tasks": [task]});
    trial.until(PATIENCE, || {
        let answer = trial.target.call("ecs", "describe-tasks", &running)?;
        Ok((answer["tasks"][0]["lastStatus"] == "RUNNING").then_some(()))
    })?;
    trial.target.call("ecs", "stop-task", &json!({"cluster": CLUSTER, "task": task, "reason": "selftest"}))?;
    let task = stopped(trial, &task)?;
    let (stop, why) = (&task["stopCode"], &task["stoppedReason"]);
    Verdict::of(stop == "UserInitiated" && why == "selftest", format!("stopCode {stop}, stoppedReason {why}"))
}

pub(crate) fn image_digest_is_told(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let task = ran(trial, "digest", "true")?;
    let told = &task["containers"][0]["imageDigest"];
    let named = place.image.split_once('@').map(|(_, digest)| digest).unwrap_or_default();
    Verdict::of(*told == json!(named), format!("imageDigest {told}"))
}

pub(crate) fn unknown_capacity_is_refused(trial: &mut Trial<'_>) -> Outcome {
    let place = trial.place()?;
    let mut parameters = how(&place, &definition(trial, "capacity", &place.image, "true")?);
    if let Some(object) = parameters.as_object_mut() {
        object.remove("launchType");
    }
    parameters["capacityProviderStrategy"] = json!([{"capacityProvider": format!("{}-none", trial.name)}]);
    Verdict::refused_with(start(trial, &parameters)?, &["InvalidParameterException"])
}

pub(crate) fn events_come_in_order(trial: &mut Trial<'_>) -> Outcome {
    let (account, rule) = (trial.target.clone(), trial.name.clone());
    let url = trial.queue(&account)?;
    let partition = account.region.partition();
    let name = url.rsplit('/').next().unwrap_or_default();
    let queue = format!("arn:{partition}:sqs:{}:{}:{name}", account.region, account.id);
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sqs:SendMessage", "Principal": {"Service": "events.amazonaws.com"}, "Resource": queue,
    }]});
    let attributes = json!({"QueueUrl": url, "Attributes": {"Policy": policy.to_string()}});
    account.call("sqs", "set-queue-attributes", &attributes)?;
    let pattern = json!({"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"]});
    trial.later_call(&account, "events", "delete-rule", json!({ "Name": rule }));
    account.call("events", "put-rule", &json!({"Name": rule, "EventPattern": pattern.to_string()}))?;
    trial.later_call(&account, "events", "remove-targets", json!({"Rule": rule, "Ids": ["queue"]}));
    account.call("events", "put-targets", &json!({"Rule": rule, "Targets": [{"Id": "queue", "Arn": queue}]}))?;
    let task = ran(trial, "events", "true")?["taskArn"].clone();
    let (mut versions, mut last) = (Vec::new(), false);
    let began = Instant::now();
    while !last && began.elapsed() < Duration::from_secs(60) {
        trial.go_on()?;
        let receive = json!({"QueueUrl": url, "WaitTimeSeconds": 2, "MaxNumberOfMessages": 10});
        let answer = account.call("sqs", "receive-message", &receive)?;
        for message in answer["Messages"].as_array().into_iter().flatten() {
            let event: Value = serde_json::from_str(message["Body"].as_str().unwrap_or_default()).unwrap_or_default();
            if event["detail"]["taskArn"] == task {
                versions.push(event["detail"]["version"].as_i64().unwrap_or_default());
                last |= event["detail"]["lastStatus"] == "STOPPED";
            }
        }
    }
    let distinct: std::collections::BTreeSet<i64> = versions.iter().copied().collect();
    Verdict::of(last && distinct.len() > 1, format!("{} events, versions {versions:?}", versions.len()))
}
