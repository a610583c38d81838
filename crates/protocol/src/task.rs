//! An ECS task as DescribeTasks reports it, filled in by an adapter. ECS answers anyone who may
//! call it and signs nothing. The request that the task names is verified before it counts (clause
//! LAU-12).

use std::collections::BTreeMap;

use crate::overrides::RequestRef;
use crate::time::Timestamp;

/// The state of a task, as ECS reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The ARN of the task.
    pub arn: String,
    /// The task definition revision that the task runs.
    pub definition: String,
    /// Who started the task: a deployment id, if it was relay.
    pub started_by: String,
    /// The last status, from `PROVISIONING` to `STOPPED`.
    pub last_status: String,
    /// `RUNNING`, or `STOPPED` once somebody has asked to stop the task.
    pub desired_status: String,
    /// When RunTask created the task.
    pub created_at: Option<Timestamp>,
    /// When the container started.
    pub started_at: Option<Timestamp>,
    /// When the task had stopped.
    pub stopped_at: Option<Timestamp>,
    /// The code for why the task stopped.
    pub stop_code: Option<String>,
    /// The text for why the task stopped.
    pub stopped_reason: Option<String>,
    /// The exit code of the container.
    pub exit_code: Option<i32>,
    /// The reason that ECS gives for the container, if it gives one.
    pub container_reason: Option<String>,
    /// The digest of the image of each container, `sha256:…`, by its name, once ECS knows it.
    pub images: BTreeMap<String, Option<String>>,
    /// What the task runs on: the capacity provider, or else the launch type, such as `FARGATE`.
    pub capacity: Option<String>,
    /// The request that the task was started for, if its override has the form of one.
    pub request: Option<RequestRef>,
}

/// The cluster in the ARN of a task, `arn:aws:ecs:REGION:ACCOUNT:task/CLUSTER/ID`.
pub fn cluster_of(task_arn: &str) -> &str {
    task_arn.split('/').nth(1).unwrap_or_default()
}

/// The family in the ARN of a revision, `arn:aws:ecs:REGION:ACCOUNT:task-definition/FAMILY:NUMBER`,
/// or in its short form, `FAMILY:NUMBER`.
pub fn family_of(definition: &str) -> &str {
    let revision = definition.rsplit('/').next().unwrap_or_default();
    revision.split(':').next().unwrap_or_default()
}

impl Task {
    /// Whether the whole task has stopped.
    pub fn has_stopped(&self) -> bool {
        self.last_status == "STOPPED"
    }

    /// Whether the container is running, so that it can receive a control statement.
    pub fn is_running(&self) -> bool {
        self.last_status == "RUNNING"
    }

    /// Whether somebody has already asked to stop the task.
    pub fn is_to_stop(&self) -> bool {
        self.desired_status == "STOPPED"
    }
}
