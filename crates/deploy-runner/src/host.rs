//! What this task runs on, as ECS reports it: its images and its capacity (clause RUN-14).

use std::collections::BTreeMap;
use std::time::Duration;

use relay_aws::tasks::Tasks;
use relay_engine::Backoff;
use relay_policy::{Images, OtherImage, digest_of};
use relay_protocol::Reason;
use relay_protocol::record::Subject;
use relay_protocol::task::cluster_of;
use tracing::warn;

use crate::workplace::StepError;

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

    /// Asks ECS, and compares the images with those that the configuration names. ECS reports an
    /// image some time after it was pulled, so it is asked again while one is missing.
    pub(crate) async fn look(&mut self, tasks: &Tasks, named: Option<&Images>) -> Result<(), StepError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 1.. {
            let problem = match tasks.describe(cluster_of(&self.task_arn), &self.task_arn).await {
                Ok(task) => {
                    let task = task.unwrap_or_default();
                    (self.images, self.capacity) = (task.images, task.capacity);
                    match named.map_or(Ok(()), |images| images.check(&self.images)) {
                        Ok(()) => return Ok(()),
                        Err(missing @ OtherImage::Missing { .. }) => StepError::new(Reason::Image, missing),
                        Err(other) => return Err(StepError::new(Reason::Image, other)),
                    }
                }
                Err(error) => StepError::new(Reason::Runner, format!("cannot compare the task's images: {error}")),
            };
            if named.is_none() {
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
