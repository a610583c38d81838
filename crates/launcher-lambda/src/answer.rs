//! Answers: launcher frames that the target key signs. They are sent to a reply queue that may not
//! be visible yet.

use std::time::{Duration, Instant};

use relay_aws::keys::SigningKey;
use relay_aws::queues::{Entry, Queues};
use relay_aws::{AwsError, Kind};
use relay_engine::Backoff;
use relay_protocol::frame::{FrameSource, LauncherFrame, LauncherKind, SignedFrame};
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::{DeploymentId, Digest, QueueUrl};

/// Signs launcher frames and sends them to reply queues.
#[derive(Debug)]
pub struct Answers {
    queues: Queues,
    key: SigningKey,
}

impl Answers {
    /// Creates the clients. `answer_key` is the KMS key that signs.
    pub fn new(sdk: &relay_aws::Sdk, answer_key: &str) -> Self {
        Self { queues: Queues::new(sdk), key: SigningKey::new(sdk, answer_key) }
    }

    /// The answer key.
    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Sends one frame. Returns whether the queue accepted it.
    ///
    /// While the queue does not exist yet or still denies access, it retries until `until`, but for
    /// at most a minute: a new queue takes a while to become visible (clause FRM-16). A queue that
    /// stays away is not an error, because nobody reads it any more.
    ///
    /// # Errors
    ///
    /// Returns an error if KMS does not sign, if SQS is still out of reach when the time is over,
    /// or if SQS rejects the request for a reason that a retry cannot change.
    pub async fn send(
        &self,
        queue: &QueueUrl,
        id: &DeploymentId,
        kind: LauncherKind,
        until: Instant,
    ) -> Result<bool, AwsError> {
        let body = LauncherFrame { deployment_id: id.clone(), kind }.to_body();
        let digest = Digest::of(&FrameSource::Launcher.pae(&body));
        let sig = self.key.sign(&digest).await?;
        let entry = Entry::from(&SignedFrame::new(FrameSource::Launcher, &sig, None, body));
        let until = until.min(Instant::now() + Duration::from_secs(QUEUE_WAIT_SECONDS));
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            let (problem, transient) = match self.queues.send(queue, vec![entry.clone()]).await {
                Ok(results) => match results.into_iter().next() {
                    Some(Ok(())) | None => return Ok(true),
                    Some(Err(problem)) => (problem, None),
                },
                Err(error) if error.is_transient() => (error.to_string(), Some(error)),
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Denied) => (error.to_string(), None),
                Err(error) => return Err(error),
            };
            if Instant::now() + backoff.peek() >= until {
                // SQS itself is out of reach: the invocation fails, Lambda retries it, and the same
                // answer is sent again.
                if let Some(error) = transient {
                    return Err(error);
                }
                tracing::info!(deployment_id = %id, queue = queue.name(), problem, "no answer sent: the reply queue does not exist or denies access");
                return Ok(false);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}
