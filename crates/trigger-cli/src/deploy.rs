//! `relay deploy`: from the command line to a published request, and from its end to an exit code.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_aws::topic::Topic;
use relay_console::Failure;
use relay_engine::{Authenticator, Backoff, Reader, conclude};
use relay_identity::{FrameKeys, PrivateKey};
use relay_protocol::limits::REQUEST_LIFETIME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{
    AccountId, Bundle, DeploymentId, Digest, Envelope, QueueUrl, Request, Statement as _, TargetName, Timestamp,
    overrides,
};
use serde_json::json;

use crate::args;
use crate::artifacts;
use crate::cancel::Ways;
use crate::last_words;
use crate::origin;
use crate::queues::Pair;
use crate::result;
use crate::settings::Settings;
use crate::show::{Phases, Show};
use crate::signing::Signer;
use crate::tags::Tags;
use crate::tail::{Cancelling, Signals, Tail, Until};

/// The first and the longest pause before a busy target is asked again.
const BUSY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));

/// Does it all; the exit code is the registry's.
pub(crate) async fn deploy(arguments: &args::Deploy) -> Result<u8, Failure> {
    let began = Instant::now();
    let mut settings = Settings::of(arguments)?;
    let packed = artifacts::pack(&settings.artifacts)?;
    artifacts::merge(&mut settings.parameters, &packed)?;
    if let Some(path) = &arguments.following.result_file {
        // What cannot be written at the end is found out before anything is published.
        result::write(path, &json!({})).map_err(|failure| Failure { exit: ExitCode::Usage, ..failure })?;
    }
    check_size(&settings).await?;
    let sdk = Sdk::from_environment(Some(&settings.topic.region())).await;
    let mut show = Show::new(arguments.following.output, arguments.following.quiet, began);
    if settings.target_key.is_none() {
        show.warn("no target key is pinned: the first runner that answers is believed; add target_key to relay.toml");
    }
    artifacts::upload(&Objects::new(&sdk), settings.artifact_store.as_ref(), &packed).await?;
    let waits_until = settings.wait.map(|wait| Instant::now() + wait);
    let mut busy = BUSY;
    let mut signals = Signals::listen()?;
    let code = loop {
        let may_wait = waits_until.is_some_and(|until| Instant::now() + busy.peek() < until);
        match once(arguments, &settings, &sdk, &mut show, &mut signals, may_wait).await? {
            Some(code) => break code,
            None => {
                let pause = busy.pause();
                show.say(&format!("busy; asking again in {}s, under a new id", pause.as_secs()));
                // Nothing of this command is alive: there would be nothing to cancel.
                if let Ok((code, _)) = tokio::time::timeout(pause, signals.next()).await {
                    break code.code();
                }
            }
        }
    };
    show.end();
    Ok(code)
}

/// Before anything is created or published: the account's digits do not change the size.
async fn check_size(settings: &Settings) -> Result<(), Failure> {
    let (id, now) = new_id()?;
    let placeholder = QueueUrl::of(&settings.topic.region(), &placeholder_account()?, &id.reply_queue_name());
    let trial = request(settings, &id, now, &new_key()?, placeholder.as_ref().ok(), true);
    if let Some(trial) = trial {
        // Every signature has 64 bytes, so any key shows the size.
        let throwaway = Signer::Held(new_key()?);
        overrides::check(&sign(&throwaway, &trial).await?.0).map_err(|error| {
            Failure::usage(error.to_string()).hint(
                "pass less in parameters: put data into an artifact (--artifact NAME=PATH), whose digest alone travels",
            )
        })?;
    }
    Ok(())
}

/// One deployment; the exit code, or nothing when the target is busy and that `may_wait`.
async fn once(
    arguments: &args::Deploy,
    settings: &Settings,
    sdk: &Sdk,
    show: &mut Show,
    signals: &mut Signals,
    may_wait: bool,
) -> Result<Option<u8>, Failure> {
    let queues = Queues::new(sdk);
    let (id, now) = new_id()?;
    let tags = Tags::new(&id, &settings.target, &settings.topic, now.plus(REQUEST_LIFETIME_MAX));
    let pair = match settings.reply_queue.clone() {
        Some(queue) => Pair::fixed(queue),
        None => tokio::select! {
            made = Pair::create(&queues, &id, &settings.topic, &tags) => made?,
            (code, _) = signals.next() => {
                show.warn("stopped before anything was published; a queue may be left, which `relay gc` deletes");
                return Ok(Some(code.code()));
            }
        },
    };
    let this = This { arguments, settings, sdk, pair: &pair, id: &id, may_wait };
    let result = match signals.pending().await {
        Some(code) => {
            show.warn("stopped before anything was published");
            Ok(Done::Ended { code: code.code(), open: false })
        }
        None => this.publish_and_tail(&queues, tags, show, signals).await,
    };
    match result {
        Ok(Done::Detached) => show.detached(&pair.follow(&settings.target, &id), &id),
        // An outcome that is open may still be found out from what the queue holds.
        Ok(Done::Ended { open: true, .. }) => show.warn(&format!(
            "the queue {} stays for a day, with what came: {}",
            pair.reply.name(),
            pair.follow(&settings.target, &id)
        )),
        _ => {
            if let Err(failure) = pair.delete(&queues).await {
                show.warn(&failure.to_string());
            }
        }
    }
    result.map(|done| match done {
        Done::Detached => Some(0),
        Done::Ended { code, .. } => Some(code),
        Done::Busy => None,
    })
}

/// What came of one request.
enum Done {
    /// It goes on without this command.
    Detached,
    /// With this exit code; `open` when the outcome is not known.
    Ended { code: u8, open: bool },
    /// Another has the target, and there is time to ask again.
    Busy,
}

/// One request, and what it goes with.
struct This<'a> {
    arguments: &'a args::Deploy,
    settings: &'a Settings,
    sdk: &'a Sdk,
    pair: &'a Pair,
    id: &'a DeploymentId,
    may_wait: bool,
}

impl This<'_> {
    async fn publish_and_tail(
        &self,
        queues: &Queues,
        tags: Tags,
        show: &mut Show,
        signals: &mut Signals,
    ) -> Result<Done, Failure> {
        let Self { arguments, settings, pair, id, .. } = self;
        let session = new_key()?;
        let Some(request) = request(settings, id, now(), &session, Some(&pair.reply), pair.control.is_some()) else {
            return Err(Failure::new(ExitCode::Fault, "the control queue has no canonical URL"));
        };
        let (body, digest) = sign(&settings.key, &request).await?;
        let (topic, hints) = (Topic::new(self.sdk), Hints::of(&request));
        topic
            .publish(&settings.topic, &body, &hints)
            .await
            .map_err(|error| Failure::aws(&format!("publishing the request to {}", settings.topic), &error))?;
        let mut phases = Phases { published: Some(show.elapsed()), ..Phases::default() };
        show.event(
            "published",
            &format!("{} as {id}", settings.target),
            json!({ "deployment_id": id, "target": settings.target, "request_digest": digest }),
        );
        let (target_key, body) = (settings.target_key.clone(), Digest::of(body.as_bytes()));
        let authenticator = Authenticator::new((*id).clone(), digest, body, target_key, FrameKeys::default());
        let reader = Reader::new(authenticator, settings.clocks, show.elapsed(), now());
        let (topic_arn, queue) = (settings.topic.clone(), pair.control.clone());
        let ways = Ways { hints, topic, topic_arn, queues: queues.clone(), queue };
        let how = Cancelling { session, request: digest, ways };
        let tags = Tags { request: Some(digest), ..tags };
        let mut tail = Tail::new(reader, queues.clone(), (*pair).clone(), tags, Some(how), arguments.on_interrupt);
        let until = if arguments.detach { Until::Admitted } else { Until::End };
        let left = tail.run(show, &mut phases, signals, settings.timeout, until).await;
        if arguments.detach && tail.end().is_none() && left.is_none() {
            return Ok(Done::Detached);
        }
        if self.may_wait && left.is_none() && tail.end().is_some_and(conclude::is_busy) {
            return Ok(Done::Busy);
        }
        let (code, open) = end(&arguments.following, &settings.target, show, &tail, &mut phases, left, id);
        Ok(Done::Ended { code, open })
    }
}

/// The exit code and the last words, and whether the outcome is open.
pub(crate) fn end(
    following: &args::Following,
    target: &TargetName,
    show: &Show,
    tail: &Tail,
    phases: &mut Phases,
    left: Option<ExitCode>,
    id: &DeploymentId,
) -> (u8, bool) {
    let end = tail.end().cloned();
    phases.finished = Some(show.elapsed());
    let strict = following.strict_output;
    let code = match conclude::conclude(end.as_ref(), left, strict).code() {
        _ if strict && show.has_failed() => ExitCode::OutputIncomplete.code(),
        code => code,
    };
    last_words::say(show, tail, code, left, id);
    if let Some(path) = &following.result_file {
        let result = result::result(id.as_str(), target.as_str(), code, end.as_ref(), phases, tail.task_arn());
        // The deployment is over: its own code is worth more than the file's failure.
        if let Err(failure) = result::write(path, &result) {
            show.warn(&failure.to_string());
        }
    }
    (code, conclude::is_open(end.as_ref()))
}

fn request(
    settings: &Settings,
    id: &DeploymentId,
    now: Timestamp,
    session: &PrivateKey,
    reply: Option<&QueueUrl>,
    control: bool,
) -> Option<Request> {
    let reply = reply?.clone();
    let control_queue = if control {
        Some(QueueUrl::of(&reply.region(), &reply.account(), &id.control_queue_name()).ok()?)
    } else {
        None
    };
    Some(Request {
        deployment_id: id.clone(),
        audience: settings.topic.clone(),
        target: settings.target.clone(),
        parameters: settings.parameters.clone(),
        reply_queue: reply,
        control_queue,
        session_key: session.public().clone(),
        issued_at: now,
        expires_at: now.plus(REQUEST_LIFETIME_MAX),
        origin: origin::origin(|name| std::env::var(name).ok()),
        traceparent: std::env::var("TRACEPARENT").ok().and_then(|text| text.try_into().ok()),
    })
}

/// The body to publish, and the request digest.
async fn sign(key: &Signer, request: &Request) -> Result<(String, Digest), Failure> {
    let envelope = key.sign(Envelope::new(Request::TYPE, request.to_payload())).await?;
    let digest = envelope.digest();
    Ok((Bundle { request: envelope, approvals: Vec::new() }.to_json(), digest))
}

fn no_random(error: getrandom::Error) -> Failure {
    Failure::new(ExitCode::Fault, format!("the system gives no randomness: {error}"))
}

fn new_key() -> Result<PrivateKey, Failure> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(no_random)?;
    Ok(PrivateKey::from_seed(seed))
}

pub(crate) fn new_id() -> Result<(DeploymentId, Timestamp), Failure> {
    let mut random = [0_u8; 10];
    getrandom::fill(&mut random).map_err(no_random)?;
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok((DeploymentId::new(u64::try_from(millis).unwrap_or_default(), random), now()))
}

fn placeholder_account() -> Result<AccountId, Failure> {
    "000000000000".parse().map_err(|error| Failure::new(ExitCode::Fault, format!("{error}")))
}
