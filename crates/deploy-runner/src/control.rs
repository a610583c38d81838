//! The control queue. The holder of the session key, or a signer that the policy allows, may stop
//! the deployment (clauses CTL-1 to CTL-5).

use std::collections::BTreeSet;
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
    /// Whether `body` is a control statement that may stop this deployment. `None` means that it
    /// cannot be told now, because the keys of an issuer cannot be read.
    async fn allows(&self, body: &str) -> Option<bool> {
        if body.len() > BUNDLE_MAX {
            return Some(false);
        }
        let Ok(Message::Control(envelope)) = Message::parse(body.as_bytes()) else { return Some(false) };
        let names = match relay_policy::by_session(&self.asked, &envelope) {
            Some(_) => BTreeSet::new(),
            None => self.configuration.roots.key_names(&envelope),
        };
        let keys = issuer_keys::read(&self.objects, &self.configuration.bucket, &names).await;
        let keys = keys.inspect_err(|error| warn!(%error, "a control statement waits: no keys of its issuer")).ok()?;
        Some(relay_policy::may_cancel(&self.configuration, &self.asked, &envelope, &keys, now()))
    }

    /// Reads statements. Returns the receipts of those that are decided; the others come again.
    async fn read(&self, received: Vec<Received>, stopper: &Stopper) -> Vec<String> {
        let mut decided = Vec::new();
        for message in received {
            match self.allows(&message.body).await {
                Some(true) => {
                    info!("cancelled by a control statement");
                    stopper.stop(Stop::Cancelled);
                }
                Some(false) => warn!("dropped a control statement that may not stop this deployment"),
                None => continue,
            }
            decided.push(message.receipt);
        }
        decided
    }
}

/// Polls the control queue once, without waiting, before the first step.
pub(crate) async fn look(queues: &Queues, queue: &QueueUrl, guard: &Guard, stopper: &Stopper) {
    if let Ok(received) = queues.receive(queue, 0).await {
        let _ = guard.read(received, stopper).await;
    }
}

/// Listens until the task is aborted. If the queue cannot be read, the deployment continues; its
/// timeout still applies.
pub(crate) async fn listen(queues: Queues, queue: QueueUrl, guard: Guard, stopper: Stopper) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        match queues.receive(&queue, 20).await {
            Ok(received) => {
                let receipts = guard.read(received, &stopper).await;
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
