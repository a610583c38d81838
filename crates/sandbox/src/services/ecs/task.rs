//! A task: what it is, what becomes of it, how AWS shows it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::definition::Definition;
use crate::services::call::{Call, Now};
use crate::services::principal::{REGION, TARGET_ACCOUNT};
use crate::wire::times::{epoch_seconds, iso_millis, random_hex, uuid};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Provisioning,
    Pending,
    Running,
    Stopped,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Status::Provisioning => "PROVISIONING",
            Status::Pending => "PENDING",
            Status::Running => "RUNNING",
            Status::Stopped => "STOPPED",
        }
    }
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) arn: String,
    pub(super) cluster: String,
    pub(super) definition: Arc<Definition>,
    pub(super) overrides: Value,
    pub(super) started_by: Option<String>,
    /// The capacity provider; on Fargate without one.
    capacity: Option<String>,
    pub(super) tags: Value,
    pub(super) status: Status,
    stopping: bool,
    version: u64,
    created_ms: u64,
    started_ms: Option<u64>,
    end: End,
}

/// The capacity provider that a request names.
pub(super) fn capacity(call: &Call) -> Option<&str> {
    call.params.get("capacityProviderStrategy")?.get(0)?.get("capacityProvider")?.as_str()
}

/// How a task ended; the fields are empty until it stops or is asked to.
#[derive(Debug, Default)]
struct End {
    at_ms: Option<u64>,
    code: Option<&'static str>,
    reason: Option<String>,
    exit_code: Option<i32>,
    container_reason: Option<String>,
}

/// A change in a task's state.
#[derive(Debug)]
pub(crate) enum Change {
    Pending,
    Running,
    /// It is asked to stop, with ECS's stop code and words.
    Asked {
        code: &'static str,
        words: String,
    },
    /// It was stopped before its container ran.
    NeverRan,
    /// Its container could not be started.
    FailedToStart {
        words: String,
        container: Option<String>,
    },
    /// Its container ended.
    Ended {
        exit_code: i32,
        container: Option<&'static str>,
    },
}

/// The container of a task, as it is to be run.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) task_id: String,
    /// Entry point and command; it is not empty.
    pub(crate) argv: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// The time between SIGTERM and SIGKILL.
    pub(crate) stop_timeout: Duration,
}

impl Task {
    pub(super) fn new(cluster: String, definition: Arc<Definition>, overrides: Value, call: &Call) -> Self {
        let short = cluster.rsplit('/').next().unwrap_or_default();
        Self {
            arn: format!("arn:aws:ecs:{REGION}:{}:task/{short}/{}", call.principal.account, random_hex::<16>()),
            cluster,
            definition,
            overrides,
            started_by: call.text("startedBy").map(str::to_owned),
            capacity: capacity(call).map(str::to_owned),
            tags: call.params.get("tags").cloned().unwrap_or_else(|| json!([])),
            status: Status::Provisioning,
            stopping: false,
            version: 1,
            created_ms: call.now.ms,
            started_ms: None,
            end: End::default(),
        }
    }

    /// The last part of its ARN.
    pub(super) fn id(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn desired(&self) -> &'static str {
        if self.stopping || self.status == Status::Stopped { "STOPPED" } else { "RUNNING" }
    }

    fn containers(&self) -> Vec<Value> {
        let render = |definition: &Value| {
            let name = definition.get("name").and_then(Value::as_str).unwrap_or_default();
            let mut container = json!({
                "containerArn": format!("{}/{name}", self.arn.replacen(":task/", ":container/", 1)),
                "taskArn": self.arn, "name": name, "image": definition.get("image"), "lastStatus": self.status.name(),
                "runtimeId": format!("{}-{name}", self.id()), "networkInterfaces": [],
            });
            // ECS knows the digest once the image was pulled. The sandbox believes the image's
            // name.
            let image = definition.get("image").and_then(Value::as_str).unwrap_or_default();
            if let (Some(_), Some((_, digest))) = (self.started_ms, image.split_once('@')) {
                container["imageDigest"] = json!(digest);
            }
            if let Some(code) = self.end.exit_code {
                container["exitCode"] = json!(code);
            }
            if let Some(reason) = &self.end.container_reason {
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
            "lastStatus": self.status.name(), "desiredStatus": self.desired(), "containers": self.containers(), "overrides": overrides, "version": self.version,
            "createdAt": time(self.created_ms), "availabilityZone": "eu-west-1a", "connectivity": "CONNECTED",
            "cpu": setting("cpu"), "memory": setting("memory"), "attachments": [], "attributes": [],
            "enableExecuteCommand": false, "platformVersion": "1.4.0", "platformFamily": "Linux",
        });
        let optional = [
            ("launchType", self.capacity.is_none().then(|| json!("FARGATE"))),
            ("capacityProviderName", self.capacity.as_ref().map(|name| json!(name))),
            ("startedBy", self.started_by.as_ref().map(|s| json!(s))),
            ("startedAt", self.started_ms.map(&time)),
            ("stoppedAt", self.end.at_ms.map(&time)),
            ("executionStoppedAt", self.end.at_ms.map(&time)),
            ("stopCode", self.end.code.map(|code| json!(code))),
            ("stoppedReason", self.end.reason.as_ref().map(|reason| json!(reason))),
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

    /// The event of EventBridge: times are text, and there are no tags.
    pub(super) fn event(&self, now: Now) -> Value {
        let now = iso_millis(now.ms);
        let mut detail = self.render_with(|ms| json!(iso_millis(ms)));
        detail["updatedAt"] = json!(now);
        json!({
            "version": "0", "id": uuid(), "detail-type": "ECS Task State Change", "source": "aws.ecs",
            "account": TARGET_ACCOUNT, "time": now, "region": REGION, "resources": [self.arn], "detail": detail,
        })
    }

    /// Whether a stop request would be the task's first and can still have an effect.
    pub(super) fn can_be_asked(&self) -> bool {
        self.status != Status::Stopped && !self.stopping
    }

    pub(super) fn change(&mut self, now: Now, change: Change) {
        self.version += 1;
        match change {
            Change::Pending => self.status = Status::Pending,
            Change::Running => {
                self.status = Status::Running;
                self.started_ms = Some(now.ms);
            }
            Change::Asked { code, words } => {
                if self.can_be_asked() {
                    self.stopping = true;
                    self.end.code = Some(code);
                    self.end.reason = Some(words);
                    // The tags of a stopped task are gone at once.
                    self.tags = json!([]);
                }
            }
            Change::NeverRan => {
                self.stop(now);
                self.end.code.get_or_insert("UserInitiated");
            }
            Change::FailedToStart { words, container } => {
                self.stop(now);
                self.end.code = Some("TaskFailedToStart");
                self.end.reason = Some(words);
                self.end.container_reason = container;
            }
            Change::Ended { exit_code, container } => {
                self.stop(now);
                self.end.exit_code = Some(exit_code);
                self.end.container_reason = container.map(str::to_owned);
                self.end.code.get_or_insert("EssentialContainerExited");
                self.end.reason.get_or_insert_with(|| "Essential container in task exited".to_owned());
            }
        }
    }

    fn stop(&mut self, now: Now) {
        self.status = Status::Stopped;
        self.end.at_ms = Some(now.ms);
    }

    /// The container that the sandbox runs, with its override: the one named `runner`, or else the
    /// first.
    pub(super) fn container(&self) -> Option<Container> {
        let containers = self.definition.containers();
        let is_runner = |container: &&Value| container.get("name").and_then(Value::as_str) == Some("runner");
        let container = containers.iter().find(is_runner).or_else(|| containers.first())?;
        let overrides = self.overrides.get("containerOverrides").and_then(Value::as_array).into_iter().flatten();
        let overridden = overrides.into_iter().find(|held| held.get("name") == container.get("name"));
        let overridden = |field: &str| overridden.and_then(|held| held.get(field)).filter(|value| !value.is_null());
        let mut argv = texts(container.get("entryPoint"));
        argv.extend(texts(overridden("command").or_else(|| container.get("command"))));
        if argv.is_empty() {
            argv.push("/relay/relay-runner".to_owned());
        }
        let mut environment: Vec<(String, String)> = pairs(container.get("environment")).collect();
        environment.extend(pairs(overridden("environment")));
        let seconds = container.get("stopTimeout").and_then(Value::as_u64).unwrap_or(30).min(120);
        Some(Container { task_id: self.id().to_owned(), argv, environment, stop_timeout: Duration::from_secs(seconds) })
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn pairs(value: Option<&Value>) -> impl Iterator<Item = (String, String)> + '_ {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(|pair| {
        let field = |name: &str| pair.get(name).and_then(Value::as_str).map(str::to_owned);
        Some((field("name")?, field("value")?))
    })
}

impl Task {
    pub(super) fn metadata_of_containers(&self) -> Vec<Value> {
        let describe = |container: &Value| {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            json!({
                "DockerId": format!("{}-{name}", self.id()), "Name": name, "DockerName": name,
                "Image": container.get("image"), "ImageID": format!("sha256:{}", "0".repeat(64)),
                "Labels": {
                    "com.amazonaws.ecs.cluster": self.cluster,
                    "com.amazonaws.ecs.container-name": name,
                    "com.amazonaws.ecs.task-arn": self.arn,
                    "com.amazonaws.ecs.task-definition-family": self.definition.family,
                    "com.amazonaws.ecs.task-definition-version": self.definition.revision.to_string(),
                },
                "DesiredStatus": self.desired(), "KnownStatus": self.status.name(), "Type": "NORMAL",
                "CreatedAt": iso_millis(self.created_ms), "LogDriver": "awslogs",
            })
        };
        self.definition.containers().iter().map(describe).collect()
    }
}
