//! Tasks as they are asked about: DescribeTasks, ListTasks, StopTask, metadata, credentials, and their events.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::{Definition, client, cluster, invalid, page};
use crate::children;
use crate::clock::{epoch_seconds, iso_millis, now_ms, uuid};
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::iam::Principal;
use crate::world::World;

/// The task metadata endpoint, version 4.
pub(crate) const METADATA: &[(&str, Handler)] = &[("Get", Handler::Now(metadata))];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Provisioning,
    Pending,
    Running,
    Stopped,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Status::Provisioning => "PROVISIONING",
            Status::Pending => "PENDING",
            Status::Running => "RUNNING",
            Status::Stopped => "STOPPED",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Task {
    pub(super) id: String,
    pub(super) arn: String,
    cluster: String,
    pub(super) definition: Arc<Definition>,
    pub(super) overrides: Value,
    started_by: Option<String>,
    tags: Value,
    group: String,
    pub(super) status: Status,
    stopping: bool,
    version: u64,
    created_ms: u64,
    pub(super) started_ms: Option<u64>,
    pub(super) stopped_ms: Option<u64>,
    pub(super) stop_code: Option<&'static str>,
    pub(super) stopped_reason: Option<String>,
    pub(super) exit_code: Option<i32>,
    pub(super) container_reason: Option<String>,
    pub(super) process: Option<u32>,
    stop: watch::Sender<bool>,
}

impl Task {
    pub(super) fn new(
        arn: &str,
        cluster: &str,
        definition: Arc<Definition>,
        overrides: Value,
        call: &Call,
    ) -> (Self, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        let group = call.text("group").map_or_else(|| format!("family:{}", definition.family), str::to_owned);
        let task = Self {
            id: arn.rsplit('/').next().unwrap_or_default().to_owned(),
            arn: arn.to_owned(),
            cluster: cluster.to_owned(),
            definition,
            overrides,
            started_by: call.text("startedBy").map(str::to_owned),
            tags: call.params.get("tags").cloned().unwrap_or_else(|| json!([])),
            group,
            status: Status::Provisioning,
            stopping: false,
            version: 1,
            created_ms: now_ms(),
            started_ms: None,
            stopped_ms: None,
            stop_code: None,
            stopped_reason: None,
            exit_code: None,
            container_reason: None,
            process: None,
            stop,
        };
        (task, stopped)
    }

    fn desired(&self) -> &'static str {
        if self.stopping || self.status == Status::Stopped { "STOPPED" } else { "RUNNING" }
    }

    fn containers(&self) -> Vec<Value> {
        let render = |definition: &Value| {
            let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
            let mut container = json!({
                "containerArn": format!("{}/{name}", self.arn.replacen(":task/", ":container/", 1)),
                "taskArn": self.arn, "name": name, "image": definition.get("image"), "lastStatus": self.status.name(),
                "runtimeId": format!("{}-{name}", self.id), "networkInterfaces": [],
            });
            if let Some(code) = self.exit_code {
                container["exitCode"] = json!(code);
            }
            if let Some(reason) = &self.container_reason {
                container["reason"] = json!(reason);
            }
            container
        };
        self.definition.containers().iter().map(render).collect()
    }

    fn render_with(&self, time: impl Fn(u64) -> Value) -> Value {
        let setting = |name: &str| self.definition.content.get(name).cloned().unwrap_or(Value::Null);
        let mut overrides = self.overrides.clone();
        if overrides.get("containerOverrides").is_none() {
            overrides["containerOverrides"] = json!([]);
        }
        let mut task = json!({
            "taskArn": self.arn, "clusterArn": self.cluster, "taskDefinitionArn": self.definition.arn,
            "lastStatus": self.status.name(), "desiredStatus": self.desired(), "launchType": "FARGATE",
            "containers": self.containers(), "overrides": overrides, "version": self.version, "group": self.group,
            "createdAt": time(self.created_ms), "availabilityZone": "eu-west-1a", "connectivity": "CONNECTED",
            "cpu": setting("cpu"), "memory": setting("memory"), "attachments": [], "attributes": [],
            "enableExecuteCommand": false, "platformVersion": "1.4.0", "platformFamily": "Linux",
        });
        let optional = [
            ("startedBy", self.started_by.as_ref().map(|s| json!(s))),
            ("startedAt", self.started_ms.map(&time)),
            ("stoppedAt", self.stopped_ms.map(&time)),
            ("executionStoppedAt", self.stopped_ms.map(&time)),
            ("stopCode", self.stop_code.map(|s| json!(s))),
            ("stoppedReason", self.stopped_reason.as_ref().map(|s| json!(s))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                task[name] = value;
            }
        }
        task
    }

    pub(super) fn render(&self) -> Value {
        self.render_with(epoch_seconds)
    }

    /// EventBridge has times as text, and no tags.
    fn event(&self) -> Value {
        let now = iso_millis(now_ms());
        let mut detail = self.render_with(|ms| json!(iso_millis(ms)));
        detail["updatedAt"] = json!(now);
        json!({
            "version": "0", "id": uuid(), "detail-type": "ECS Task State Change", "source": "aws.ecs",
            "account": crate::TARGET_ACCOUNT, "time": now, "region": crate::REGION, "resources": [self.arn], "detail": detail,
        })
    }

    pub(super) fn ask_to_stop(&mut self, code: &'static str, reason: &str) {
        if self.status != Status::Stopped && !self.stopping {
            self.stopping = true;
            self.stop_code = Some(code);
            self.stopped_reason = Some(reason.to_owned());
            // The tags of a stopped task are gone at once.
            self.tags = json!([]);
            let _ = self.stop.send(true);
        }
    }
}

/// Changes a task, and sends the event of it where that is asked for.
pub(super) fn update(world: &Arc<World>, arn: &str, f: impl FnOnce(&mut Task)) {
    let event = {
        let mut state = world.ecs.lock();
        let Some(task) = state.tasks.get_mut(arn) else { return };
        f(task);
        task.version += 1;
        world.settings.task_events.then(|| task.event())
    };
    if let Some(event) = event {
        world.lambda.invoke(world, "events", event, std::time::Duration::ZERO);
    }
}

/// Finds a task by ARN or id in a cluster.
fn arn_of(cluster: &str, named: &str) -> String {
    if named.starts_with("arn:") {
        named.to_owned()
    } else {
        format!("{}/{named}", cluster.replacen(":cluster/", ":task/", 1))
    }
}

pub(super) fn describe(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let state = world.ecs.lock();
    let cluster = cluster(&state, call)?;
    let named = call.params.get("tasks").and_then(Value::as_array).filter(|t| !t.is_empty());
    let named = named.ok_or_else(|| invalid("Tasks cannot be empty."))?;
    if named.len() > 100 {
        return Err(invalid("At most 100 tasks."));
    }
    let include = call.params.get("include").and_then(Value::as_array).into_iter().flatten();
    let with_tags = include.filter_map(Value::as_str).any(|i| i == "TAGS");
    let (mut tasks, mut failures) = (Vec::new(), Vec::new());
    for named in named.iter().filter_map(Value::as_str) {
        let arn = arn_of(&cluster, named);
        match state.tasks.get(&arn).filter(|t| t.cluster == cluster) {
            Some(task) => {
                let mut rendered = task.render();
                rendered["tags"] = if with_tags { task.tags.clone() } else { json!([]) };
                tasks.push(rendered);
            }
            None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
        }
    }
    Ok(Answer::Json(json!({"tasks": tasks, "failures": failures})))
}

pub(super) fn list(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let state = world.ecs.lock();
    let cluster = cluster(&state, call)?;
    let (started_by, family) = (call.text("startedBy"), call.text("family"));
    if started_by.is_some()
        && (family.is_some() || call.text("serviceName").is_some() || call.text("containerInstance").is_some())
    {
        return Err(invalid("When startedBy is specified, it must be the only filter."));
    }
    let desired = call.text("desiredStatus").unwrap_or("RUNNING");
    let arns: Vec<&str> = state
        .tasks
        .values()
        .filter(|t| t.cluster == cluster && t.desired() == desired)
        .filter(|t| started_by.is_none_or(|s| t.started_by.as_deref() == Some(s)))
        .filter(|t| family.is_none_or(|f| t.definition.family == f))
        .map(|t| t.arn.as_str())
        .collect();
    let (page, next) = page(&arns, call);
    let mut answer = json!({"taskArns": page});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    Ok(Answer::Json(answer))
}

pub(super) fn stop(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let mut state = world.ecs.lock();
    let cluster = cluster(&state, call)?;
    let arn = arn_of(&cluster, call.text("task").unwrap_or_default());
    let task = state.tasks.get_mut(&arn).filter(|t| t.cluster == cluster);
    let task = task.ok_or_else(|| invalid("The referenced task was not found."))?;
    task.ask_to_stop("UserInitiated", call.text("reason").unwrap_or("Task stopped by user"));
    let rendered = task.render();
    drop(state);
    update(world, &arn, |_| {});
    Ok(Answer::Json(json!({"task": rendered})))
}

pub(super) fn tag(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let arn = call.text("resourceArn").unwrap_or_default();
    let mut state = world.ecs.lock();
    let task = state.tasks.get_mut(arn).ok_or_else(|| client("The resource was not found."))?;
    let new = call.params.get("tags").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(tags) = task.tags.as_array_mut() {
        tags.retain(|held| !new.iter().any(|n| n.get("key") == held.get("key")));
        tags.extend(new);
    }
    Ok(Answer::Json(json!({})))
}

fn by_id<'a>(tasks: &'a BTreeMap<String, Task>, id: &str) -> Option<&'a Task> {
    tasks.values().find(|t| t.id == id)
}

/// What the metadata endpoint says, of the container and of the task; here the container's answer has the task's members too.
fn metadata(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let id = call.text("task").unwrap_or_default().to_owned();
    let state = world.ecs.lock();
    let task = by_id(&state.tasks, &id).ok_or_else(|| AwsError::new(404, "NotFound", "no such task"))?;
    let containers: Vec<Value> = task
        .definition
        .containers()
        .iter()
        .map(|definition| {
            let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
            json!({
                "DockerId": format!("{id}-{name}"), "Name": name, "DockerName": name, "Image": definition.get("image"),
                "ImageID": "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "Labels": {"com.amazonaws.ecs.cluster": task.cluster, "com.amazonaws.ecs.container-name": name,
                    "com.amazonaws.ecs.task-arn": task.arn, "com.amazonaws.ecs.task-definition-family": task.definition.family,
                    "com.amazonaws.ecs.task-definition-version": task.definition.revision.to_string()},
                "DesiredStatus": task.desired(), "KnownStatus": task.status.name(), "Type": "NORMAL",
                "CreatedAt": iso_millis(task.created_ms), "LogDriver": "awslogs",
            })
        })
        .collect();
    let mut answer = json!({
        "Cluster": task.cluster, "TaskARN": task.arn, "Family": task.definition.family,
        "Revision": task.definition.revision.to_string(), "DesiredStatus": task.desired(), "KnownStatus": task.status.name(),
        "LaunchType": "FARGATE", "AvailabilityZone": "eu-west-1a", "Containers": containers,
    });
    if call.text("part") == Some("container")
        && let (Some(own), Some(all)) = (containers.first().and_then(Value::as_object), answer.as_object_mut())
    {
        all.extend(own.clone());
    }
    Ok(Answer::Json(answer))
}

/// Kills a task's process, with all in it.
pub(crate) fn kill(world: &World, id: &str) {
    let process = by_id(&world.ecs.lock().tasks, id).and_then(|task| task.process);
    if let Some(pid) = process {
        children::end_session(pid);
    }
}

/// The principal that a task's role is; its session is named after the task, as ECS does.
pub(crate) fn credentials(world: &World, id: &str) -> Outcome<(String, Principal)> {
    let state = world.ecs.lock();
    let task = by_id(&state.tasks, id).ok_or_else(|| AwsError::new(404, "NotFound", "no such task"))?;
    if task.status == Status::Stopped {
        return Err(AwsError::new(400, "InvalidTask", "the task is stopped"));
    }
    let overridden = task.overrides.get("taskRoleArn");
    let role =
        overridden.or_else(|| task.definition.content.get("taskRoleArn")).and_then(Value::as_str).unwrap_or_default();
    let principal =
        Principal::from_role_arn(role, id).ok_or_else(|| AwsError::new(404, "NotFound", "the task has no role"))?;
    Ok((role.to_owned(), principal))
}

/// All tasks, for tests.
pub(crate) fn overview(world: &World) -> Value {
    let state = world.ecs.lock();
    let render = |task: &Task| {
        let mut value = task.render();
        let mut extra = Map::new();
        extra.insert("pid".to_owned(), json!(task.process));
        extra.insert("stdout".to_owned(), json!(world.state_dir.join("tasks").join(format!("{}.stdout", task.id))));
        extra.insert("stderr".to_owned(), json!(world.state_dir.join("tasks").join(format!("{}.stderr", task.id))));
        value["sandbox"] = Value::Object(extra);
        value
    };
    Value::Array(state.tasks.values().map(render).collect())
}
