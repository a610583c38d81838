//! The entry point: handles each invocation, and takes a message from its hints to a verified
//! request (clauses LAU-1 to LAU-5).

use std::time::{Duration, Instant, SystemTime};

use lambda_runtime::Error;
use relay_aws::AwsError;
use relay_aws::clock::now;
use relay_policy::{Asked, Configuration, Denied, TICKET_USED, Tried};
use relay_protocol::encoding::short;
use relay_protocol::frame::{self, LauncherKind};
use relay_protocol::keys::IssuerKeys;
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::request::Hints;
use relay_protocol::{Bundle, Digest, Message, QueueUrl, Reason, Request, RequestRef, TargetName};
use tracing::{Instrument as _, error, info, warn};

use crate::admit::{self, Admission, FROZEN};
use crate::event::{self, Delivered, Notification};
use crate::launcher::{Launcher, Target};

/// How long the answer to an unverified message may take.
const UNVERIFIED: Duration = Duration::from_secs(5);

/// Why there is no verified request.
pub(crate) enum NotVerified {
    /// The cause, for the log only: to the requester all causes look the same (clause LAU-5).
    Because(String),
    /// A call to AWS failed: Lambda retries.
    Aws(AwsError),
}

impl NotVerified {
    pub(crate) fn because(cause: impl Into<String>) -> Self {
        Self::Because(cause.into())
    }
}

impl From<AwsError> for NotVerified {
    fn from(error: AwsError) -> Self {
        Self::Aws(error)
    }
}

impl Launcher {
    /// Handles one invocation, which must end before `deadline`. A final result is
    /// answered, and is not an error.
    ///
    /// # Errors
    ///
    /// Returns an error if a call to AWS fails, or if nothing is known yet of the deployment that a
    /// control statement names. Lambda then retries the invocation.
    pub(crate) async fn handle(&self, event: serde_json::Value, deadline: SystemTime) -> Result<(), Error> {
        let until = Instant::now() + deadline.duration_since(SystemTime::now()).unwrap_or_default();
        let notifications = match event::delivered(event) {
            Delivered::Notifications(notifications) => notifications,
            Delivered::Task { cluster, arn } => return Ok(self.task_changed(&cluster, &arn, until).await?),
            Delivered::Schedule => return Ok(self.look_after_all(until).await?),
            Delivered::Other => {
                info!("ignored an event of a kind that this version does not handle");
                return Ok(());
            }
        };
        for notification in notifications {
            let Some(hints) = notification.hints.clone() else {
                warn!(
                    "dropped a message: its attributes target, deployment_id and ci_account are missing or malformed"
                );
                continue;
            };
            let span = tracing::info_span!("request", deployment_id = %hints.deployment_id, target = %hints.target);
            self.notification(notification, &hints, until)
                .instrument(span)
                .await
                .inspect_err(|error| error!(%error, "the invocation failed; Lambda retries it"))?;
        }
        Ok(())
    }

    async fn notification(&self, notification: Notification, hints: &Hints, until: Instant) -> Result<(), AwsError> {
        if notification.topic != self.settings.topic {
            warn!(topic = %notification.topic, "dropped a message of another topic");
            return Ok(());
        }
        let cause = match Message::parse(notification.body.as_bytes()) {
            Ok(Message::Control(envelope)) => match self.could_be_ours(hints, &envelope).await {
                Ok(()) => return self.cancel(hints, &envelope, &notification.body).await,
                Err(NotVerified::Aws(error)) => return Err(error),
                Err(NotVerified::Because(problem)) => {
                    warn!(problem, "dropped a control statement");
                    return Ok(());
                }
            },
            Ok(Message::Request(bundle)) => match self.verify(&bundle, hints).await {
                Ok((target, asked)) => return Admission::new(self, &target, asked, until).run().await,
                Err(NotVerified::Aws(error)) => return Err(error),
                Err(NotVerified::Because(cause)) => cause,
            },
            Ok(Message::DryRun(bundle)) => match self.verify_dry_run(&bundle, hints).await {
                Ok((target, tried)) => return self.try_request(&target, tried, until).await,
                Err(NotVerified::Aws(error)) => return Err(error),
                Err(NotVerified::Because(cause)) => cause,
            },
            Err(error) => error.to_string(),
        };
        warn!(cause, "unverified");
        self.answer_unverified(&notification, hints).await;
        Ok(())
    }

    /// Verifies a request against the target that the hints name.
    async fn verify(&self, bundle: &Bundle, hints: &Hints) -> Result<(Target, Asked), NotVerified> {
        self.against_target(hints, bundle, |configuration, keys| {
            let asked = relay_policy::verify(bundle, configuration, keys)
                .map_err(|error| relay_policy::explain(&error, bundle, configuration, keys))?;
            let agree = hints.agree_with(asked.request());
            if agree { Ok(asked) } else { Err("the message's attributes differ from the signed request".to_owned()) }
        })
        .await
    }

    /// Does the same for a dry run.
    async fn verify_dry_run(&self, bundle: &Bundle, hints: &Hints) -> Result<(Target, Tried), NotVerified> {
        self.against_target(hints, bundle, |configuration, keys| {
            let tried = relay_policy::verify_dry_run(bundle, configuration, keys)
                .map_err(|error| relay_policy::explain(&error, bundle, configuration, keys))?;
            let agree = hints.agree_with(tried.request());
            if agree { Ok(tried) } else { Err("the message's attributes differ from the signed dry run".to_owned()) }
        })
        .await
    }

    /// Loads the target that the hints name, and verifies a bundle against its configuration. What
    /// fails against a remembered revision may be right for a newer one, so ECS is asked again, as
    /// often as unverified messages may be answered.
    async fn against_target<T>(
        &self,
        hints: &Hints,
        bundle: &Bundle,
        verify: impl Fn(&Configuration, &IssuerKeys) -> Result<T, String>,
    ) -> Result<(Target, T), NotVerified> {
        let keys = async |target: &Target| {
            self.keys_now(&relay_policy::key_names(bundle, &target.configuration)).await.map_err(NotVerified::Aws)
        };
        let since = Instant::now();
        let remembered = match self.target(&hints.target).await {
            Ok(target) => match verify(&target.configuration, &keys(&target).await?) {
                Ok(verified) => return Ok((target, verified)),
                Err(cause) => cause,
            },
            Err(NotVerified::Because(cause)) => cause,
            Err(error) => return Err(error),
        };
        if !self.forget_revision(&hints.target, since) {
            return Err(NotVerified::Because(remembered));
        }
        let target = self.target(&hints.target).await?;
        let verified = verify(&target.configuration, &keys(&target).await?).map_err(NotVerified::Because)?;
        Ok((target, verified))
    }

    /// Answers a dry run: decides as for a request, and starts nothing (clause DRY-2).
    async fn try_request(&self, target: &Target, tried: Tried, until: Instant) -> Result<(), AwsError> {
        let Target { definition, configuration } = target;
        let found = self.saved(configuration, tried.request()).await?;
        let tried = tried.with_saved(configuration, &found);
        let decision = match self.settings.frozen {
            true => Err(Denied::new(Reason::Frozen, FROZEN)),
            false => tried.decide(configuration, now()),
        };
        let decision = match (decision, self.ticket_used(tried.ticket(), None).await?) {
            (Ok(_), Some(denied)) => Err(denied),
            (decision, _) => decision,
        };
        let (reason, message, policies, approvals_missing) = match decision {
            Ok(allowed) => (None, String::new(), allowed.policies, 0),
            Err(denied) => (Some(denied.reason), short(&denied.message), Vec::new(), denied.approvals_missing),
        };
        let kind = LauncherKind::Tried(Box::new(frame::Tried {
            request_digest: tried.digest(),
            reason,
            message,
            policies,
            requesters: tried.requesters(),
            approvals_missing,
            configuration_digest: configuration.digest,
            revision: definition.arn.clone(),
            target_key_id: self.keys.public_key(&configuration.target_key).await?.key_id(),
            saved: tried.saved(configuration),
        }));
        admit::log(&kind);
        let request = tried.request();
        self.answers.send(&request.reply_queue, &request.deployment_id, kind, until).await.map(|_| ())
    }

    /// The denial of a request whose ticket has served another deployment than `own`. This is only
    /// an early answer: the runner uses the ticket, and decides (clause APP-5).
    pub(crate) async fn ticket_used(
        &self,
        key: Option<String>,
        own: Option<&Request>,
    ) -> Result<Option<Denied>, AwsError> {
        let Some(key) = key else { return Ok(None) };
        let Some(object) = self.objects.get(&self.settings.evidence, &key, CLAIM_MAX as u64).await? else {
            return Ok(None);
        };
        let by = std::str::from_utf8(&object.bytes).ok().and_then(|text| RequestRef::parse(text).ok());
        let is_own = own.is_some_and(|own| by.is_some_and(|by| by.deployment_id == own.deployment_id));
        Ok((!is_own).then(|| Denied::new(Reason::Approval, TICKET_USED)))
    }

    /// The newest active revision of a target, with its pinned configuration. It may be as old as
    /// the lifetime of a revision in [`crate::launcher`].
    pub(crate) async fn target(&self, name: &TargetName) -> Result<Target, NotVerified> {
        let definition = self
            .definition(name)
            .await?
            .ok_or_else(|| NotVerified::because(format!("there is no active task definition {}", name.family())))?;
        let configuration = self.configuration(&definition).map_err(NotVerified::Because)?;
        if configuration.target != *name {
            let arn = &definition.arn;
            return Err(NotVerified::because(format!("the configuration of {arn} is for another target")));
        }
        Ok(Target { definition, configuration })
    }

    /// Answers what nobody is known to have sent. It must cost little and never fail: anybody who
    /// may publish can cause it, and a verified request may wait behind it.
    async fn answer_unverified(&self, notification: &Notification, hints: &Hints) {
        if !self.settings.ci_accounts.contains(&hints.ci_account) {
            warn!(ci_account = %hints.ci_account, "no answer sent: the account is not in RELAY_CI_ACCOUNTS");
            return;
        }
        if !self.unverified.may(Instant::now()) {
            warn!("no answer sent: too many messages are unverified");
            return;
        }
        let Ok(queue) =
            QueueUrl::of(self.settings.topic.region(), &hints.ci_account, &hints.deployment_id.reply_queue_name())
        else {
            return;
        };
        let body_sha256 = Digest::of(notification.body.as_bytes());
        let kind = LauncherKind::Unverified {
            body_sha256,
            target: hints.target.clone(),
            ci_account: hints.ci_account.clone(),
        };
        // One attempt is enough: an honest requester creates its queue before it publishes.
        let sending = self.answers.send(&queue, &hints.deployment_id, kind, Instant::now());
        match tokio::time::timeout(UNVERIFIED, sending).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => warn!(%error, "no answer sent"),
            Err(_) => warn!("no answer sent: it took too long"),
        }
    }
}
