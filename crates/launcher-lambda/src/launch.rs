//! The entry point: handles each invocation, and takes a message from its hints to a verified
//! request (clauses LAU-1 to LAU-5).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use lambda_runtime::Error;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_aws::tasks::{Definition, Tasks};
use relay_aws::{AwsError, Sdk};
use relay_policy::{Asked, Configuration, Pin};
use relay_protocol::frame::LauncherKind;
use relay_protocol::limits::START_DELAY_MAX;
use relay_protocol::request::Hints;
use relay_protocol::{Bundle, Digest, Message, QueueUrl, TargetName, Timestamp};
use tracing::{Instrument as _, error, info, warn};

use crate::admit::Admission;
use crate::answer::Answers;
use crate::event::{self, Delivered, Notification};
use crate::settings::Settings;

/// The variable of the task definition that holds the configuration.
const CONFIGURATION: &str = "RELAY_CONFIGURATION";

/// The launcher: its settings, its AWS clients, and a cache of configurations.
#[derive(Debug)]
pub struct Launcher {
    pub(crate) settings: Settings,
    pub(crate) tasks: Tasks,
    pub(crate) objects: Objects,
    pub(crate) queues: Queues,
    pub(crate) answers: Answers,
    /// Configurations by the ARN of their revision, which never changes.
    configurations: Mutex<HashMap<String, Arc<Configuration>>>,
}

/// A target whose configuration is verified, ready for a decision.
pub(crate) struct Target {
    pub(crate) definition: Definition,
    pub(crate) configuration: Arc<Configuration>,
}

/// Why there is no verified request.
enum NotVerified {
    /// The cause, for the log only: to the requester all causes look the same (clause LAU-5).
    Because(String),
    /// A call to AWS failed: Lambda retries.
    Aws(AwsError),
}

impl NotVerified {
    fn because(cause: impl Into<String>) -> Self {
        Self::Because(cause.into())
    }
}

impl From<AwsError> for NotVerified {
    fn from(error: AwsError) -> Self {
        Self::Aws(error)
    }
}

impl Launcher {
    /// Creates the AWS clients from the environment, in the region of the topic.
    pub async fn new(settings: Settings) -> Self {
        let sdk = Sdk::from_environment(Some(settings.topic.region())).await;
        Self {
            tasks: Tasks::new(&sdk),
            objects: Objects::new(&sdk),
            queues: Queues::new(&sdk),
            answers: Answers::new(&sdk, settings.target_key.clone()),
            configurations: Mutex::new(HashMap::new()),
            settings,
        }
    }

    /// Handles one invocation, which must end before `deadline`. A final result is
    /// answered, and is not an error.
    ///
    /// # Errors
    ///
    /// Returns an error if a call to AWS fails, or if nothing is known yet of the deployment that a
    /// control statement names. Lambda then retries the invocation.
    pub async fn handle(&self, event: serde_json::Value, deadline: SystemTime) -> Result<(), Error> {
        let until = Instant::now() + deadline.duration_since(SystemTime::now()).unwrap_or_default();
        let notifications = match event::delivered(event) {
            Delivered::Notifications(notifications) => notifications,
            Delivered::Task { cluster, arn } => return Ok(self.task_changed(&cluster, &arn, until).await?),
            Delivered::Schedule => return Ok(self.look_after_all(until).await?),
            Delivered::Other => {
                info!("an event of a kind that this version does not handle");
                return Ok(());
            }
        };
        for notification in notifications {
            let Some(hints) = notification.hints.clone() else {
                warn!(
                    "a message whose attributes target, deployment_id and ci_account are missing or malformed: dropped"
                );
                continue;
            };
            let span = tracing::info_span!("request", deployment_id = %hints.deployment_id, target = %hints.target);
            self.notification(notification, &hints, until)
                .instrument(span)
                .await
                .inspect_err(|error| error!(%error, "to be tried again"))?;
        }
        Ok(())
    }

    async fn notification(&self, notification: Notification, hints: &Hints, until: Instant) -> Result<(), AwsError> {
        if notification.topic != self.settings.topic {
            warn!(topic = %notification.topic, "a message of another topic: dropped");
            return Ok(());
        }
        let cause = match Message::parse(notification.body.as_bytes()) {
            Ok(Message::Control(envelope)) => return self.cancel(hints, &envelope, &notification.body).await,
            Ok(Message::Request(bundle)) => match self.verify(&bundle, hints).await {
                Ok((target, asked)) => return Admission::new(self, &target, &asked, until).run().await,
                Err(NotVerified::Aws(error)) => return Err(error),
                Err(NotVerified::Because(cause)) => cause,
            },
            Err(error) => error.to_string(),
        };
        warn!(cause, "unverified");
        self.answer_unverified(&notification, hints, until).await
    }

    /// Loads the target that the hints name, and verifies the request.
    async fn verify(&self, bundle: &Bundle, hints: &Hints) -> Result<(Target, Asked), NotVerified> {
        let target = self.target(&hints.target).await?;
        let asked = relay_policy::verify(bundle, &target.configuration)
            .map_err(|error| NotVerified::Because(error.to_string()))?;
        if !hints.agree_with(asked.request()) {
            return Err(NotVerified::because("the message's attributes differ from the signed request"));
        }
        Ok((target, asked))
    }

    /// The newest active revision of a target, with its pinned configuration.
    async fn target(&self, name: &TargetName) -> Result<Target, NotVerified> {
        let definition = self
            .tasks
            .definition(&name.family())
            .await?
            .ok_or_else(|| NotVerified::because(format!("there is no active task definition {}", name.family())))?;
        let configuration = self.configuration(&definition).map_err(NotVerified::Because)?;
        if configuration.target != *name {
            let arn = &definition.arn;
            return Err(NotVerified::because(format!("the configuration of {arn} is for another target")));
        }
        Ok(Target { definition, configuration })
    }

    /// The configuration that a revision pins (clause LAU-2).
    pub(crate) fn configuration(&self, definition: &Definition) -> Result<Arc<Configuration>, String> {
        let known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner).get(&definition.arn).cloned();
        if let Some(configuration) = known {
            return Ok(configuration);
        }
        let arn = &definition.arn;
        let text = definition.environment.get(CONFIGURATION).ok_or_else(|| format!("{arn} has no {CONFIGURATION}"))?;
        let pin = Pin::parse(definition.entry_point.get(1..).unwrap_or_default()).ok().filter(|pin| pin.fits(text));
        let pin = pin.ok_or_else(|| format!("the entry point of {arn} does not pin its configuration"))?;
        let configuration = Configuration::parse(text)
            .map_err(|error| format!("the configuration of {arn} cannot be read: {error}"))?;
        if configuration.target != pin.target || configuration.topic != self.settings.topic {
            return Err(format!("the configuration of {arn} is for another target or topic"));
        }
        let configuration = Arc::new(configuration);
        let mut known = self.configurations.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(arn.clone(), Arc::clone(&configuration));
        Ok(configuration)
    }

    async fn answer_unverified(
        &self,
        notification: &Notification,
        hints: &Hints,
        until: Instant,
    ) -> Result<(), AwsError> {
        if !self.settings.ci_accounts.contains(&hints.ci_account) {
            warn!(ci_account = %hints.ci_account, "no answer to an account that is not in RELAY_CI_ACCOUNTS");
            return Ok(());
        }
        let Ok(queue) =
            QueueUrl::of(self.settings.topic.region(), &hints.ci_account, &hints.deployment_id.reply_queue_name())
        else {
            return Ok(());
        };
        let body_sha256 = Digest::of(notification.body.as_bytes());
        let kind = LauncherKind::Unverified {
            body_sha256,
            target: hints.target.clone(),
            ci_account: hints.ci_account.clone(),
        };
        self.answers.send(&queue, &hints.deployment_id, kind, until).await.map(|_| ())
    }
}

/// The latest end of a deployment that is admitted now: a slow start, its timeout and its grace.
pub(crate) fn deadline(configuration: &Configuration, now: Timestamp) -> Timestamp {
    now.plus(START_DELAY_MAX).plus(configuration.longest_run())
}
