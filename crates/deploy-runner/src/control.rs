//! The control queue. The holder of the session key, or a signer that the policy allows, may stop
//! the deployment (clauses CTL-1 to CTL-5).

use std::sync::Arc;
use std::time::Duration;

use relay_aws::clock::now;
use relay_aws::issuer_keys;
use relay_aws::objects::Objects;
use relay_aws::queues::{Queues, Received};
use relay_engine::Backoff;
use relay_policy::{Asked, Configuration};
use relay_protocol::limits::BUNDLE_MAX;
use relay_protocol::{Message, QueueUrl};
use tracing::{info, warn};

use crate::stop::{Stop, Stopper};

/// The configuration and request against which control statements are checked.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) asked: Arc<Asked>,
    /// For the keys of issuers, if a statement is signed with a token.
    pub(crate) objects: Objects,
}

impl Guard {
    /// Whether `body` is a control statement that may stop this deployment.
    async fn allows(&self, body: &str) -> bool {
        if body.len() > BUNDLE_MAX {
            return false;
        }
        let Ok(Message::Control(envelope)) = Message::parse(body.as_bytes()) else { return false };
        let names = self.configuration.roots.key_names(&envelope);
        // Without the keys, the statement is dropped; the CLI repeats it.
        let keys = issuer_keys::read(&self.objects, &self.configuration.bucket, &names).await.unwrap_or_default();
        relay_policy::may_cancel(&self.configuration, &self.asked, &envelope, &keys, now())
    }

    async fn read(&self, received: &[Received], stopper: &Stopper) {
        for message in received {
            if self.allows(&message.body).await {
                info!("cancelled by a control statement");
                stopper.stop(Stop::Cancelled);
            } else {
                warn!("dropped a control statement that may not stop this deployment");
            }
        }
    }
}

/// Polls the control queue once, without waiting, before the first step.
pub(crate) async fn look(queues: &Queues, queue: &QueueUrl, guard: &Guard, stopper: &Stopper) {
    if let Ok(received) = queues.receive(queue, 0).await {
        guard.read(&received, stopper).await;
    }
}

/// Listens until the task is aborted. If the queue cannot be read, the deployment continues; its
/// timeout still applies.
pub(crate) async fn listen(queues: Queues, queue: QueueUrl, guard: Guard, stopper: Stopper) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        match queues.receive(&queue, 20).await {
            Ok(received) => {
                guard.read(&received, &stopper).await;
                let receipts: Vec<String> = received.into_iter().map(|message| message.receipt).collect();
                if !receipts.is_empty() {
                    // If this fails, the statements are delivered again. That is harmless: the
                    // deployment is already stopping, or drops them again.
                    let _ = queues.delete(&queue, &receipts).await;
                }
                backoff.reset();
            }
            Err(_) => tokio::time::sleep(backoff.pause()).await,
        }
    }
}
