//! ECS: a target's task definition, RunTask, and what ECS says of tasks.

use std::collections::BTreeMap;

use aws_sdk_ecs::operation::run_task::RunTaskError;
use aws_sdk_ecs::types::{
    AwsVpcConfiguration, ContainerOverride, DesiredStatus, KeyValuePair, LaunchType, NetworkConfiguration, TaskOverride,
};
use relay_protocol::task::Task;
use relay_protocol::{Timestamp, overrides};

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// ECS.
#[derive(Clone, Debug)]
pub struct Tasks {
    client: aws_sdk_ecs::Client,
}

/// What the container `runner` of a task definition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The exact revision.
    pub arn: String,
    /// The entry point: the pin.
    pub entry_point: Vec<String>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The labels: subnets and security groups.
    pub labels: BTreeMap<String, String>,
}

/// What RunTask answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launched {
    /// This task runs it; the same token gives the same task.
    Task(String),
    /// HTTP 200, and yet no task.
    Failed {
        /// ECS's word, such as `RESOURCE:ENI` or `Capacity is unavailable at this time`.
        reason: String,
        /// More of them.
        detail: String,
    },
}

/// One launch. The token is never left to the SDK, which would invent a random one.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The cluster.
    pub cluster: &'a str,
    /// The exact revision.
    pub definition: &'a str,
    /// `clientToken` and `startedBy`.
    pub deployment_id: &'a str,
    /// The value of `RELAY_ENVELOPE`.
    pub envelope: &'a str,
    /// Where the task's network interface lies.
    pub subnets: Vec<String>,
    /// What guards it.
    pub security_groups: Vec<String>,
}

impl Tasks {
    /// From a set-up.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_ecs::Client::new(&sdk.config) }
    }

    /// A task definition: the newest active revision of a family, or the very revision of an ARN; `None` when there is none.
    pub async fn definition(&self, family_or_arn: &str) -> Result<Option<Definition>, AwsError> {
        let output = match self.client.describe_task_definition().task_definition(family_or_arn).send().await {
            Ok(output) => output,
            Err(error) => {
                let error = from_sdk("ecs:DescribeTaskDefinition")(error);
                // ECS has no error of its own for it: ClientException, "Unable to describe task definition."
                return if error.code.as_deref() == Some("ClientException") { Ok(None) } else { Err(error) };
            }
        };
        let Some(definition) = output.task_definition else { return Ok(None) };
        let container =
            definition.container_definitions().iter().find(|container| container.name() == Some(overrides::CONTAINER));
        Ok(container.map(|container| Definition {
            arn: definition.task_definition_arn().unwrap_or_default().to_owned(),
            entry_point: container.entry_point().to_vec(),
            environment: container
                .environment()
                .iter()
                .filter_map(|pair| Some((pair.name()?.to_owned(), pair.value()?.to_owned())))
                .collect(),
            labels: container.docker_labels().map(|labels| labels.clone().into_iter().collect()).unwrap_or_default(),
        }))
    }

    /// Starts one task, or gets the one that this token has started.
    pub async fn run(&self, launch: &Launch<'_>) -> Result<Launched, AwsError> {
        let wrong = |error: aws_smithy_types::error::operation::BuildError| {
            AwsError::new("ecs:RunTask", Kind::Invalid, error.to_string())
        };
        let envelope = KeyValuePair::builder().name(overrides::VARIABLE).value(launch.envelope).build();
        let container = ContainerOverride::builder().name(overrides::CONTAINER).environment(envelope).build();
        let network = AwsVpcConfiguration::builder()
            .set_subnets(Some(launch.subnets.clone()))
            .set_security_groups(Some(launch.security_groups.clone()))
            .assign_public_ip(aws_sdk_ecs::types::AssignPublicIp::Disabled)
            .build()
            .map_err(wrong)?;
        let call = self
            .client
            .run_task()
            .cluster(launch.cluster)
            .task_definition(launch.definition)
            .client_token(launch.deployment_id)
            .started_by(launch.deployment_id)
            .launch_type(LaunchType::Fargate)
            .enable_execute_command(false)
            .count(1)
            .overrides(TaskOverride::builder().container_overrides(container).build())
            .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build());
        let output = call.send().await.map_err(|error| {
            let resources = match error.as_service_error() {
                Some(RunTaskError::ConflictException(conflict)) => conflict.resource_ids().to_vec(),
                _ => Vec::new(),
            };
            AwsError { resources, ..from_sdk("ecs:RunTask")(error) }
        })?;
        if let Some(arn) = output.tasks().first().and_then(|task| task.task_arn()) {
            return Ok(Launched::Task(arn.to_owned()));
        }
        let failure = output.failures().first();
        Ok(Launched::Failed {
            reason: failure.and_then(|failure| failure.reason()).unwrap_or("no task and no reason").to_owned(),
            detail: failure.and_then(|failure| failure.detail()).unwrap_or_default().to_owned(),
        })
    }

    /// ARNs of the tasks that a deployment id has started, running and stopped.
    pub async fn started_by(&self, cluster: &str, deployment_id: &str) -> Result<Vec<String>, AwsError> {
        let mut arns = Vec::new();
        // ListTasks shows running tasks only, unless asked for the stopped ones.
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let call = self.client.list_tasks().cluster(cluster).started_by(deployment_id).desired_status(status);
            let output = call.send().await.map_err(from_sdk("ecs:ListTasks"))?;
            arns.extend(output.task_arns.unwrap_or_default());
        }
        Ok(arns)
    }

    /// Every task of a cluster that ECS still knows: those that run, those that are being stopped, those that stopped within the last hour.
    pub async fn all(&self, cluster: &str) -> Result<Vec<Task>, AwsError> {
        let mut tasks = Vec::new();
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let mut next = None;
            loop {
                let call =
                    self.client.list_tasks().cluster(cluster).desired_status(status.clone()).set_next_token(next);
                let page = call.send().await.map_err(from_sdk("ecs:ListTasks"))?;
                tasks.extend(self.describe_some(cluster, page.task_arns.unwrap_or_default()).await?);
                next = page.next_token;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(tasks)
    }

    /// What ECS says of a task; `None` when it does not know it (any more).
    pub async fn describe(&self, cluster: &str, arn: &str) -> Result<Option<Task>, AwsError> {
        Ok(self.describe_some(cluster, vec![arn.to_owned()]).await?.into_iter().next())
    }

    /// Asks ECS to stop a task: SIGTERM, then SIGKILL after its stop timeout. `reason` (at most 255 characters) shows in DescribeTasks.
    pub async fn stop(&self, cluster: &str, arn: &str, reason: &str) -> Result<(), AwsError> {
        let call = self.client.stop_task().cluster(cluster).task(arn).reason(reason);
        call.send().await.map(|_| ()).map_err(from_sdk("ecs:StopTask"))
    }

    /// What ECS says of up to a hundred tasks: a page of ListTasks.
    async fn describe_some(&self, cluster: &str, arns: Vec<String>) -> Result<Vec<Task>, AwsError> {
        if arns.is_empty() {
            return Ok(Vec::new());
        }
        let call = self.client.describe_tasks().cluster(cluster).set_tasks(Some(arns));
        let output = call.send().await.map_err(from_sdk("ecs:DescribeTasks"))?;
        Ok(output.tasks().iter().map(task).collect())
    }
}

fn task(task: &aws_sdk_ecs::types::Task) -> Task {
    let container = task.containers().iter().find(|container| container.name() == Some(overrides::CONTAINER));
    let overridden = task.overrides().map(|all| all.container_overrides()).unwrap_or_default();
    let envelope =
        overridden.iter().flat_map(|one| one.environment()).find(|pair| pair.name() == Some(overrides::VARIABLE));
    let time = |at: &aws_sdk_ecs::primitives::DateTime| Timestamp::from_unix(at.secs());
    Task {
        arn: task.task_arn().unwrap_or_default().to_owned(),
        definition: task.task_definition_arn().unwrap_or_default().to_owned(),
        started_by: task.started_by().unwrap_or_default().to_owned(),
        last_status: task.last_status().unwrap_or_default().to_owned(),
        desired_status: task.desired_status().unwrap_or_default().to_owned(),
        created_at: task.created_at().map(time),
        started_at: task.started_at().map(time),
        stopped_at: task.stopped_at().map(time),
        stop_code: task.stop_code().map(|code| code.as_str().to_owned()),
        stopped_reason: task.stopped_reason().map(str::to_owned),
        exit_code: container.and_then(|container| container.exit_code()),
        container_reason: task.containers().iter().find_map(|container| container.reason()).map(str::to_owned),
        envelope: envelope.and_then(|pair| pair.value()).map(str::to_owned),
    }
}
