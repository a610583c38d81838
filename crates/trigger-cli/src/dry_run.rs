//! The dry run: asks the launcher what would become of a request, and starts nothing (clauses DRY-1
//! to DRY-3). `relay deploy --dry-run` and `relay doctor --try` use it.

use std::time::Duration;

use relay_aws::clock::now;
use relay_aws::queues::Queues;
use relay_aws::topic::Topic;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_engine::{Authenticator, End, Inbox, Pins, Published, Start, Timeouts, Unfit};
use relay_protocol::frame::Tried;
use relay_protocol::keys::Cached;
use relay_protocol::limits::REQUEST_LIFETIME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{
    Digest, DryRun, Envelope, Message, QueueUrl, Reason, Request, SignedFrame, Statement as _, TargetName, TopicArn,
};

use crate::clock::Clock;
use crate::follower::Follower;
use crate::queues::Pair;
use crate::request::new_id;
use crate::settings::{PIN_HINT, key_ids};
use crate::signing::Signer;
use crate::tags::Tags;

/// What a dry run needs.
pub(crate) struct Trial<'a> {
    pub(crate) target: &'a TargetName,
    pub(crate) topic: &'a TopicArn,
    pub(crate) key: &'a Signer,
    pub(crate) pins: Option<&'a Pins>,
    pub(crate) reply_queue: Option<&'a QueueUrl>,
    /// How long to wait for the launcher's answer.
    pub(crate) patience: Duration,
}

/// The failure of a request that the launcher refuses.
pub(crate) fn refused(reason: Reason, message: &str) -> Failure {
    Failure::because(reason, format!("{message} ({reason})")).hint(reason.hint())
}

/// The answer to a dry run, with what proves it to others.
pub(crate) struct Asked {
    pub(crate) tried: Tried,
    /// The signed dry run.
    pub(crate) dry_run: Envelope,
    /// The launcher's signed frame.
    pub(crate) answer: SignedFrame,
}

impl Trial<'_> {
    /// Asks about the request that `make` makes for the queues of this dry run, and returns the
    /// launcher's answer. Leaves nothing behind.
    ///
    /// # Errors
    ///
    /// If no answer comes that the pins fit, or if the answer names another target key than the
    /// pinned one.
    pub(crate) async fn ask(
        &self,
        sdk: &Sdk,
        approvals: &[Envelope],
        make: impl FnOnce(&relay_protocol::DeploymentId, relay_protocol::Timestamp, &Pair) -> Request,
    ) -> Result<Asked, Failure> {
        let queues = Queues::new(sdk);
        let (id, now) = new_id()?;
        let pair = match self.reply_queue {
            Some(queue) => Pair::fixed(queue.clone()),
            None => {
                let tags = Tags::new(&id, self.target, self.topic, now.plus(REQUEST_LIFETIME_MAX));
                Pair::create(&queues, &id, self.topic, &tags.pairs()).await?
            }
        };
        let request = make(&id, now, &pair);
        let answer = self.publish_and_wait(sdk, &pair, &request, approvals).await;
        // The answer matters more than a queue that is left behind; `relay gc` deletes it.
        let deleted = pair.delete(&queues).await;
        let asked = answer?;
        deleted?;
        self.check_pin(&asked.tried)?;
        Ok(asked)
    }

    async fn publish_and_wait(
        &self,
        sdk: &Sdk,
        pair: &Pair,
        request: &Request,
        approvals: &[Envelope],
    ) -> Result<Asked, Failure> {
        let envelope = self.key.sign(Envelope::new(DryRun::TYPE, request.to_payload())).await?;
        let (body, hints) = (Message::dry_run_json(&envelope, approvals), Hints::of(request));
        let published =
            Published { hints, request: envelope.digest(), body: Digest::of(body.as_bytes()), dry_run: true };
        let sent = Topic::new(sdk).publish(self.topic, &body, &published.hints).await;
        sent.map_err(|error| Failure::aws(&format!("publishing the dry run to {}", self.topic), &error))?;
        let clock = Clock::start();
        let authenticator = Authenticator::new(published, self.pins.cloned(), Cached::default());
        let timeouts = Timeouts { admission: self.patience, outage: self.patience, ..Timeouts::default() };
        let mut inbox = Inbox::new(authenticator, Start::Fresh, timeouts, clock.elapsed(), now());
        if !pair.own {
            inbox.share();
        }
        let mut follower = Follower::new(Queues::new(sdk), pair.reply.clone(), clock);
        let mut frames = Vec::new();
        loop {
            let due = inbox.poll_timeout().unwrap_or_default().saturating_sub(clock.elapsed());
            tokio::select! {
                answer = follower.next() => {
                    if let Some(answer) = answer {
                        let messages = answer.1.iter().flatten();
                        frames.extend(messages.map(|m| SignedFrame::from_message(m.attributes.clone(), m.body.clone())));
                        follower.take(answer, &mut inbox);
                    }
                    // A deployment waits until this passes. A dry run can be repeated.
                    if let Some(error) = follower.trouble().filter(|error| error.kind == Kind::Denied) {
                        return Err(Failure::aws(&format!("reading the queue {}", pair.reply.name()), error));
                    }
                }
                () = tokio::time::sleep(due) => inbox.handle_timeout(clock.elapsed()),
            }
            while inbox.poll_event().is_some() {}
            if let Some(mark) = inbox.polled() {
                inbox.written(mark);
            }
            follower.delete(&mut inbox, true);
            // A dry run waits for one answer. If that came and the pin does not fit, none follows.
            if inbox.unfit() == Some(Unfit::Answer) {
                break;
            }
            if inbox.poll_end().is_some() {
                break;
            }
        }
        follower.stop();
        follower.deleted().await;
        let tried = self.answer(&inbox)?;
        // Of several frames, the last one is it: the inbox stops at the first that it believes.
        let answer = frames.pop().ok_or_else(|| Failure::new(ExitCode::Unknown, "no answer arrived"))?;
        Ok(Asked { tried, dry_run: envelope, answer })
    }

    fn answer(&self, inbox: &Inbox<Cached>) -> Result<Tried, Failure> {
        match inbox.poll_end() {
            Some(End::Tried(tried)) => Ok(tried.as_ref().clone()),
            Some(End::Refused { reason, message }) => Err(refused(*reason, message)),
            _ if inbox.unfit().is_some() => Err(Failure::usage(format!(
                "the launcher has answered, and the pinned answer key of {} does not fit its answer",
                self.target
            ))
            .hint(PIN_HINT)),
            _ => Err(Failure::new(
                ExitCode::Unknown,
                format!("no answer arrived within {} s; nothing was started", self.patience.as_secs()),
            )
            .hint("look into the launcher's log and its dead-letter queue in the target account; check that `topic` is the topic that the launcher listens to")),
        }
    }

    /// The runner's frames will verify only if the pinned target key is the target's.
    fn check_pin(&self, tried: &Tried) -> Result<(), Failure> {
        match self.pins {
            Some(pins) if pins.target.iter().all(|key| key.key_id() != tried.target_key_id) => {
                Err(Failure::usage(format!(
                    "the pinned target key of {} has the id {}, and the target's key has the id {}",
                    self.target,
                    key_ids(&pins.target),
                    tried.target_key_id
                ))
                .hint(PIN_HINT))
            }
            _ => Ok(()),
        }
    }
}
