//! ECS: task definitions of targets, RunTask, and the state of tasks.

use std::collections::BTreeMap;

use aws_sdk_ecs::operation::run_task::RunTaskError;
use aws_sdk_ecs::types::{
    AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, DesiredStatus, KeyValuePair, LaunchType,
    NetworkConfiguration, TaskDefinitionStatus, TaskOverride,
};
use relay_protocol::task::Task;
use relay_protocol::{RequestRef, Timestamp, overrides};

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// A client of ECS.
#[derive(Clone, Debug)]
pub struct Tasks {
    client: aws_sdk_ecs::Client,
}

/// What a task definition says of its container `runner`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The ARN of the exact revision.
    pub arn: String,
    /// The entry point, which pins the configuration.
    pub entry_point: Vec<String>,
    /// The environment variables.
    pub environment: BTreeMap<String, String>,
    /// The Docker labels, which name subnets and security groups.
    pub labels: BTreeMap<String, String>,
}

/// The answer of RunTask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launched {
    /// ARN of the task that runs the deployment. The same token always gives the same task.
    Task(String),
    /// ECS answered with HTTP 200 but started no task.
    Failed {
        /// ECS's reason, such as `RESOURCE:ENI` or `Capacity is unavailable at this time`.
        reason: String,
        /// ECS's detail, which may be empty.
        detail: String,
    },
}

/// The arguments of one launch. The client token is always set, because the SDK would make up a
/// random one.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// The name of the cluster.
    pub cluster: &'a str,
    /// The ARN of the exact revision.
    pub definition: &'a str,
    /// The request. Its deployment id is the `clientToken` and `startedBy`.
    pub request: &'a RequestRef,
    /// The subnets of the task's network interface.
    pub subnets: Vec<String>,
    /// The security groups of that interface.
    pub security_groups: Vec<String>,
    /// The capacity provider to run on; Fargate without one.
    pub capacity: Option<&'a str>,
}

impl Tasks {
    /// Creates the client from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_ecs::Client::new(&sdk.config) }
    }

    /// Reads a task definition: the newest active revision of a family, or the exact revision of an
    /// ARN. Returns `None` if there is none, or if it has no container `runner`.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn definition(&self, family_or_arn: &str) -> Result<Option<Definition>, AwsError> {
        let output = match self.client.describe_task_definition().task_definition(family_or_arn).send().await {
            Ok(output) => output,
            Err(error) => {
                let error = from_sdk("ecs:DescribeTaskDefinition")(error);
                // ECS has no error code of its own for this case. It answers with ClientException,
                // "Unable to describe task definition."
                return if error.code.as_deref() == Some("ClientException") { Ok(None) } else { Err(error) };
            }
        };
        let Some(definition) = output.task_definition else { return Ok(None) };
        // A family without an active revision is an error on AWS; an emulator returns an inactive
        // one.
        let is_inactive = definition.status() == Some(&TaskDefinitionStatus::Inactive);
        if is_inactive && !family_or_arn.starts_with("arn:") {
            return Ok(None);
        }
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

    /// Starts one task, or returns the task that the same token has started.
    ///
    /// # Errors
    ///
    /// The error of the call. For [`Kind::Conflict`], [`AwsError::resources`] names the tasks of
    /// the token.
    pub async fn run(&self, launch: &Launch<'_>) -> Result<Launched, AwsError> {
        let wrong = |error: aws_smithy_types::error::operation::BuildError| {
            AwsError::new("ecs:RunTask", Kind::Invalid, error.to_string())
        };
        let id = launch.request.deployment_id.as_str();
        let request = KeyValuePair::builder().name(overrides::VARIABLE).value(launch.request.to_json()).build();
        let container = ContainerOverride::builder().name(overrides::CONTAINER).environment(request).build();
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
            .client_token(id)
            .started_by(id)
            .enable_execute_command(false)
            .count(1)
            .overrides(TaskOverride::builder().container_overrides(container).build())
            .network_configuration(NetworkConfiguration::builder().awsvpc_configuration(network).build());
        // A strategy excludes a launch type.
        // https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
        let call = match launch.capacity {
            Some(name) => {
                let provider = CapacityProviderStrategyItem::builder().capacity_provider(name).build();
                call.capacity_provider_strategy(provider.map_err(wrong)?)
            }
            None => call.launch_type(LaunchType::Fargate),
        };
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
            reason: failure
                .and_then(|failure| failure.reason())
                .unwrap_or("ECS returned neither a task nor a reason")
                .to_owned(),
            detail: failure.and_then(|failure| failure.detail()).unwrap_or_default().to_owned(),
        })
    }

    /// Lists the ARNs of the tasks that a deployment id has started, both running and stopped.
    ///
    /// # Errors
    ///
    /// The error of the first call that fails.
    pub async fn started_by(&self, cluster: &str, deployment_id: &str) -> Result<Vec<String>, AwsError> {
        let mut arns = Vec::new();
        // ListTasks lists running tasks only, unless asked for stopped ones.
        for status in [DesiredStatus::Running, DesiredStatus::Stopped] {
            let call = self.client.list_tasks().cluster(cluster).started_by(deployment_id).desired_status(status);
            let output = call.send().await.map_err(from_sdk("ecs:ListTasks"))?;
            arns.extend(output.task_arns.unwrap_or_default());
        }
        Ok(arns)
    }

    /// Lists every task of a cluster that ECS still knows: the running ones, those being stopped
    /// and those that stopped within the last hour.
    ///
    /// # Errors
    ///
    /// The error of the first call that fails.
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

    /// Describes a task. Returns `None` if ECS does not know it, or no longer does.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn describe(&self, cluster: &str, arn: &str) -> Result<Option<Task>, AwsError> {
        Ok(self.describe_some(cluster, vec![arn.to_owned()]).await?.into_iter().next())
    }

    /// Asks ECS to stop a task: ECS sends SIGTERM, and SIGKILL after the task's stop timeout.
    /// DescribeTasks shows `reason` (at most 255 characters).
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn stop(&self, cluster: &str, arn: &str, reason: &str) -> Result<(), AwsError> {
        let call = self.client.stop_task().cluster(cluster).task(arn).reason(reason);
        call.send().await.map(|_| ()).map_err(from_sdk("ecs:StopTask"))
    }

    /// Describes up to a hundred tasks, which is a page of ListTasks.
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
    let request =
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
        images: task
            .containers()
            .iter()
            .filter_map(|container| Some((container.name()?.to_owned(), container.image_digest().map(str::to_owned))))
            .collect(),
        capacity: task
            .capacity_provider_name()
            .or_else(|| task.launch_type().map(LaunchType::as_str))
            .map(str::to_owned),
        request: request.and_then(|pair| RequestRef::parse(pair.value()?).ok()),
    }
}
