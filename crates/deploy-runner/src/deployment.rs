//! One verified deployment in this process: the state that does not change between its claim and
//! its last frame.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relay_aws::clock::now;
use relay_aws::keys::SigningKey;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_console::outlet::Outlet;
use relay_engine::Outbox;
use relay_policy::{Asked, Configuration, Pin};
use relay_protocol::keys::PrivateKey;
use relay_protocol::{Digest, Envelope, Reason, Statement as _, Timestamp, Vouch};
use zeroize::Zeroizing;

use crate::archive::{Archive, Shelf};
use crate::claim;
use crate::control::{self, Guard};
use crate::pump::{Address, Pump, RunnerKey};
use crate::spool::Spool;
use crate::start::{Refusal, Started};
use crate::stop::{Stop, Stopper};
use crate::workplace::StepError;

/// The state that does not change while a deployment runs.
pub(crate) struct Deployment {
    pub(crate) configuration: Arc<Configuration>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) pin: Pin,
    pub(crate) request_json: Digest,
    pub(crate) issuer_keys: Option<Digest>,
    pub(crate) task_arn: String,
    pub(crate) sdk: relay_aws::Sdk,
    pub(crate) objects: Objects,
    /// The target key.
    pub(crate) key: SigningKey,
    pub(crate) stopper: Stopper,
    pub(crate) mirror: Outlet,
    pub(crate) started_at: Timestamp,
}

impl Deployment {
    /// Creates the AWS clients and the stopper. The deployment starts now.
    pub(crate) fn new(started: Started, outlet: &Outlet) -> Self {
        let Started { configuration, pin, asked, request_json, issuer_keys, sdk, task_arn } = started;
        Self {
            pin,
            task_arn,
            objects: Objects::new(&sdk),
            key: SigningKey::new(&sdk, configuration.target_key.as_str()),
            request_json,
            issuer_keys,
            configuration: Arc::new(configuration),
            asked: Arc::new(asked),
            sdk,
            stopper: Stopper::new(),
            mirror: outlet.clone(),
            started_at: now(),
        }
    }

    /// Claims the deployment for this process.
    pub(crate) async fn claim(&self) -> Result<(), Refusal> {
        let (key, digest) = (self.asked.evidence().claim(), self.asked.request.digest());
        claim::claim(&self.objects, &self.configuration.evidence, &key, digest, &self.task_arn).await
    }

    /// Creates the runner key, has the target key sign a vouch for it, and starts the pump, which
    /// sends frames to the reply queue and the archive.
    pub(crate) async fn open_pump(&self) -> Result<Pump, StepError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *seed).map_err(|error| StepError::new(Reason::Runner, error))?;
        let key = PrivateKey::from_seed(*seed);
        let request = self.asked.request();
        let vouch = Vouch {
            deployment_id: request.deployment_id.clone(),
            request_digest: self.asked.request.digest(),
            task_arn: self.task_arn.clone(),
            runner_key: key.public().clone(),
        };
        let envelope = Envelope::new(Vouch::TYPE, vouch.to_payload());
        let vouch =
            self.key.sign_envelope(envelope).await.map_err(|error| StepError::new(Reason::Runner, error))?.to_json();
        let directory = PathBuf::from(&self.configuration.workspace);
        let shelf = Shelf {
            objects: self.objects.clone(),
            bucket: self.configuration.evidence.clone(),
            evidence: self.asked.evidence(),
        };
        let address = Address { queue: request.reply_queue.clone(), queues: Queues::new(&self.sdk) };
        let spool = Spool::new(directory.clone(), self.configuration.spool);
        let outbox = Outbox::new(request.deployment_id.clone(), Duration::ZERO, RunnerKey { key, vouch }, spool);
        let archive = Archive::start(shelf, directory, self.configuration.spool);
        Ok(Pump::start(outbox, address, archive, self.stopper.clone()))
    }

    /// Starts the tasks that may stop the deployment: the timeout and, if the request has a control
    /// queue, the listener for control statements. Polls that queue once before it returns, and so
    /// before the first step. The end of the container may stop the deployment too.
    pub(crate) async fn watch(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let (timeout, stopper) = (self.configuration.timeout, self.stopper.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(timeout).await;
            stopper.stop(Stop::TimedOut);
        });
        let mut watchers = vec![timer];
        if let Some(queue) = &self.asked.request().control_queue {
            let queues = Queues::new(&self.sdk);
            let (configuration, asked) = (Arc::clone(&self.configuration), Arc::clone(&self.asked));
            let guard = Guard { configuration, asked, objects: self.objects.clone() };
            control::look(&queues, queue, &guard, &self.stopper).await;
            watchers.push(tokio::spawn(control::listen(queues, queue.clone(), guard, self.stopper.clone())));
        }
        watchers
    }
}
