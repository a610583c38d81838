//! What this task runs on, as ECS reports it: its images and its capacity (clause RUN-14).

use std::collections::BTreeMap;
use std::time::Duration;

use relay_aws::tasks::Tasks;
use relay_engine::Backoff;
use relay_policy::{Configuration, OtherImage, digest_of};
use relay_protocol::Reason;
use relay_protocol::encoding::printable;
use relay_protocol::record::Subject;
use relay_protocol::task::cluster_of;
use tokio::net::TcpStream;
use tracing::warn;

use crate::workplace::StepError;

/// The metadata service of an EC2 instance, which hands out the instance's role.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>
const INSTANCE_METADATA: &str = "169.254.169.254:80";

/// How long that service may take to accept a connection.
const ANSWER: Duration = Duration::from_secs(1);

/// How often ECS is asked for images that it does not report yet.
const TRIES: u32 = 8;

/// The task, its images and its capacity. Empty until ECS was asked.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) task_arn: String,
    /// The digests of the images, `sha256:…`, by the name of the container.
    images: BTreeMap<String, Option<String>>,
    /// A capacity provider, or a launch type.
    pub(crate) capacity: Option<String>,
}

impl Host {
    /// Knows nothing but the task.
    pub(crate) fn of_task(task_arn: &str) -> Self {
        Self { task_arn: task_arn.to_owned(), images: BTreeMap::new(), capacity: None }
    }

    /// Asks ECS, and compares images and capacity with those that the configuration names. ECS
    /// reports an image some time after it was pulled, so it is asked again while one is missing.
    pub(crate) async fn look(&mut self, tasks: &Tasks, configuration: &Configuration) -> Result<(), StepError> {
        let (named, capacity) = (configuration.images.as_ref(), configuration.capacity.as_deref());
        // With an endpoint of its own this is a sandbox: a process on a machine that may be in EC2.
        if capacity.is_some() && configuration.endpoint.is_none() && answers(INSTANCE_METADATA).await {
            let problem =
                format!("{INSTANCE_METADATA} answers: the role of this host would be within the tool's reach");
            return Err(StepError::new(Reason::Runner, problem));
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 1.. {
            let problem = match tasks.describe(cluster_of(&self.task_arn), &self.task_arn).await {
                Ok(task) => {
                    let task = task.unwrap_or_default();
                    (self.images, self.capacity) = (task.images, task.capacity);
                    fits(capacity, self.capacity.as_deref())
                        .map_err(|problem| StepError::new(Reason::Runner, problem))?;
                    match named.map_or(Ok(()), |images| images.check(&self.images)) {
                        Ok(()) => return Ok(()),
                        Err(missing @ OtherImage::Missing { .. }) => StepError::new(Reason::Image, missing),
                        Err(other) => return Err(StepError::new(Reason::Image, other)),
                    }
                }
                Err(error) => {
                    StepError::new(Reason::Runner, format!("cannot compare the task's images and capacity: {error}"))
                }
            };
            if named.is_none() && capacity.is_none() {
                // The record has less to say then, and nothing depends on it.
                warn!(problem = problem.message, "ECS does not say what this task runs on");
                return Ok(());
            }
            if attempt == TRIES {
                return Err(problem);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        Ok(())
    }

    /// The images as subjects of the record.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = Subject> {
        let images = self.images.iter();
        images.filter_map(|(name, image)| Some(Subject::new(format!("image/{name}"), digest_of(image.as_ref()?)?)))
    }
}

/// Whether something accepts connections at this address.
async fn answers(address: &str) -> bool {
    matches!(tokio::time::timeout(ANSWER, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Compares the capacity that the configuration names with the one that ECS reports (clause
/// RUN-15). Without one, the task must run on Fargate; an emulator may report nothing then.
fn fits(named: Option<&str>, reported: Option<&str>) -> Result<(), String> {
    match (named, reported) {
        (None, None | Some("FARGATE")) => Ok(()),
        (Some(named), Some(reported)) if named == reported => Ok(()),
        (named, reported) => Err(format!(
            "the task runs on {}, and the configuration names {}",
            printable(reported.unwrap_or("nothing that ECS reports")),
            named.unwrap_or("Fargate")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_runs_on_the_capacity_of_its_target_or_not_at_all() {
        for (named, reported, ok) in [
            (None, Some("FARGATE"), true),
            (None, None, true),
            (None, Some("EC2"), false),
            (None, Some("FARGATE_SPOT"), false),
            (None, Some("relay_shop_plan"), false),
            (Some("relay_shop_plan"), Some("relay_shop_plan"), true),
            (Some("relay_shop_plan"), Some("relay_other_plan"), false),
            (Some("relay_shop_plan"), Some("FARGATE"), false),
            (Some("relay_shop_plan"), None, false),
        ] {
            assert_eq!(fits(named, reported).is_ok(), ok, "{named:?} {reported:?}");
        }
    }

    #[tokio::test]
    async fn a_metadata_service_is_noticed() -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        assert!(answers(&address).await);
        drop(listener);
        assert!(!answers(&address).await);
        Ok(())
    }
}
