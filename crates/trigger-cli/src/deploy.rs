//! `relay deploy`: from the command line to a published request, and from the deployment's end to
//! an exit code.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_aws::topic::Topic;
use relay_console::Failure;
use relay_engine::{Authenticator, Backoff, Inbox, Start, conclude};
use relay_protocol::keys::{Cached, PrivateKey};
use relay_protocol::limits::REQUEST_LIFETIME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{
    AccountId, Bundle, DeploymentId, Digest, Envelope, Request, Statement as _, TargetName, Timestamp, overrides,
};
use serde_json::json;

use crate::args;
use crate::artifacts;
use crate::cancel::{CancelRoutes, Canceller, Session};
use crate::clock::Clock;
use crate::follower::Follower;
use crate::last_words;
use crate::origin;
use crate::progress::Progress;
use crate::queues::Pair;
use crate::result;
use crate::settings::Settings;
use crate::show::Show;
use crate::signals::Signals;
use crate::signing::Signer;
use crate::tags::{TagWriter, Tags};
use crate::tail::{Patience, Tail, Until};

/// The first and the longest pause before asking a busy target again.
const BUSY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));

/// Runs the whole command, and returns the exit code (clauses OUT-1 to OUT-4).
pub(crate) async fn deploy(arguments: &args::Deploy) -> Result<u8, Failure> {
    let clock = Clock::start();
    let mut settings = Settings::of(arguments)?;
    let packed = artifacts::pack(&settings.artifacts)?;
    artifacts::merge(&mut settings.parameters, &packed)?;
    if let Some(path) = &arguments.following.result_file {
        // Find out that the file cannot be written before anything is published.
        result::write(path, &json!({})).map_err(|failure| Failure { exit: ExitCode::Usage, ..failure })?;
    }
    check_size(&settings).await?;
    let sdk = Sdk::from_environment(Some(settings.topic.region())).await;
    let mut show = Show::new(arguments.following.output, arguments.following.quiet, clock);
    if settings.target_key.is_none() {
        show.warn("no target key is pinned: relay trusts the first runner that answers; add target_key to relay.toml");
    }
    artifacts::upload(&Objects::new(&sdk), settings.artifact_store.as_ref(), &packed).await?;
    let waits_until = settings.wait.map(|wait| Instant::now() + wait);
    let mut busy = BUSY;
    let mut signals = Signals::listen()?;
    let code = loop {
        let may_wait = waits_until.is_some_and(|until| Instant::now() + busy.peek() < until);
        let call = Call { arguments, settings: &settings, sdk: &sdk, clock, may_wait };
        match call.once(&mut show, &mut signals).await? {
            Some(code) => break code,
            None => {
                let pause = busy.pause();
                show.say(&format!("the target is busy; asking again in {}s, under a new id", pause.as_secs()));
                // No deployment of this command is alive, so there is nothing to cancel.
                if let Ok((code, _)) = tokio::time::timeout(pause, signals.next()).await {
                    break code.code();
                }
            }
        }
    };
    show.end();
    Ok(code)
}

/// Checks the size of the request before anything is created or published. The account's digits do
/// not change the size, so a placeholder will do.
async fn check_size(settings: &Settings) -> Result<(), Failure> {
    let (id, now) = new_id()?;
    let pair = Pair::of(&id, &placeholder_account()?, settings.topic.region())?;
    let trial = request(settings, &id, now, &new_key()?, &pair);
    // Every signature has 64 bytes, so any key gives the same size.
    let throwaway = Signer::Held(new_key()?);
    overrides::check(&sign(&throwaway, &trial).await?.0).map_err(|error| {
        Failure::usage(error.to_string()).hint(
            "pass less in parameters: put data into an artifact (--artifact NAME=PATH); the request then has only its digest",
        )
    })
}

/// The result of one request.
enum Done {
    /// The deployment goes on without this command.
    Detached,
    /// The command ends with this exit code. `open` means that the outcome is unknown.
    Ended { code: u8, open: bool },
    /// Another deployment holds the target, and there is time to ask again.
    Busy,
}

/// One attempt to deploy.
struct Call<'a> {
    arguments: &'a args::Deploy,
    settings: &'a Settings,
    sdk: &'a Sdk,
    clock: Clock,
    /// Whether there is time to ask again if the target is busy.
    may_wait: bool,
}

impl Call<'_> {
    /// Runs one deployment. Returns the exit code, or `None` if the target is busy and there is
    /// time to ask again.
    async fn once(&self, show: &mut Show, signals: &mut Signals) -> Result<Option<u8>, Failure> {
        let settings = self.settings;
        let queues = Queues::new(self.sdk);
        let (id, now) = new_id()?;
        let tags = Tags::new(&id, &settings.target, &settings.topic, now.plus(REQUEST_LIFETIME_MAX));
        let first_tags = tags.pairs();
        let pair = match settings.reply_queue.clone() {
            Some(queue) => Pair::fixed(queue),
            None => tokio::select! {
                made = Pair::create(&queues, &id, &settings.topic, &first_tags) => made?,
                (code, _) = signals.next() => {
                    show.warn("stopped before anything was published; if a queue is left behind, `relay gc` deletes it");
                    return Ok(Some(code.code()));
                }
            },
        };
        let result = match signals.pending().await {
            Some(code) => {
                show.warn("stopped before anything was published");
                Ok(Done::Ended { code: code.code(), open: false })
            }
            None => match self.publish(show, &id, &pair, tags).await {
                Ok(tail) => Ok(self.follow(show, signals, tail, &id).await),
                Err(failure) => Err(failure),
            },
        };
        match result {
            Ok(Done::Detached) => show.detached(&pair.follow(&settings.target, &id), &id),
            // What the queue holds may still reveal an open outcome.
            Ok(Done::Ended { open: true, .. }) => show.warn(&format!(
                "the queue {} keeps its messages for a day; to read them: {}",
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

    /// Publishes the request, and returns a tail that is ready to follow it.
    async fn publish(&self, show: &Show, id: &DeploymentId, pair: &Pair, tags: Tags) -> Result<Tail, Failure> {
        let (settings, queues) = (self.settings, Queues::new(self.sdk));
        let key = new_key()?;
        let request = request(settings, id, now(), &key, pair);
        let (body, digest) = sign(&settings.key, &request).await?;
        let (topic, hints) = (Topic::new(self.sdk), Hints::of(&request));
        topic
            .publish(&settings.topic, &body, &hints)
            .await
            .map_err(|error| Failure::aws(&format!("publishing the request to {}", settings.topic), &error))?;
        let published = self.clock.elapsed();
        show.event(
            "published",
            &format!("{} as {id}", settings.target),
            json!({ "deployment_id": id, "target": settings.target, "request_digest": digest }),
        );
        let (target_key, body) = (settings.target_key.clone(), Digest::of(body.as_bytes()));
        let authenticator = Authenticator::new(id.clone(), digest, body, target_key, Cached::default());
        let (topic_arn, queue) = (settings.topic.clone(), pair.control.clone());
        let routes = CancelRoutes { hints, topic, topic_arn, queues: queues.clone(), queue };
        Ok(Tail {
            inbox: Inbox::new(authenticator, Start::Fresh, settings.timeouts, published, now()),
            follower: Follower::new(queues.clone(), pair.reply.clone(), self.clock),
            tags: TagWriter::new(queues, pair.clone(), Tags { request: Some(digest), ..tags }),
            canceller: Canceller::new(Session { key, request: digest, routes }),
            progress: Progress::published(published),
            clock: self.clock,
        })
    }

    /// Follows the deployment to its end or, with `--detach`, to the start of its task.
    async fn follow(&self, show: &mut Show, signals: &mut Signals, mut tail: Tail, id: &DeploymentId) -> Done {
        let Self { arguments, settings, .. } = self;
        let until = if arguments.detach { Until::Admitted } else { Until::End };
        let patience = Patience { timeout: settings.timeout, on_interrupt: arguments.on_interrupt };
        let left = tail.run(show, signals, patience, until).await;
        let end = tail.inbox.poll_end();
        if arguments.detach && end.is_none() && left.is_none() {
            return Done::Detached;
        }
        if self.may_wait && left.is_none() && end.is_some_and(conclude::is_busy) {
            return Done::Busy;
        }
        let ending = Ending { following: &arguments.following, target: &settings.target, id };
        let (code, open) = ending.end(show, &mut tail, left);
        Done::Ended { code, open }
    }
}

/// A deployment that has ended, or that this command leaves.
pub(crate) struct Ending<'a> {
    pub(crate) following: &'a args::Following,
    pub(crate) target: &'a TargetName,
    pub(crate) id: &'a DeploymentId,
}

impl Ending<'_> {
    /// Prints the last messages, writes the result file, and returns the exit code and whether the
    /// outcome is open. `left` says why this command itself asked for an end.
    pub(crate) fn end(&self, show: &Show, tail: &mut Tail, left: Option<ExitCode>) -> (u8, bool) {
        tail.progress.phases.finished = Some(tail.clock.elapsed());
        let end = tail.inbox.poll_end();
        let strict = self.following.strict_output;
        let code = match conclude::conclude(end, left, strict).code() {
            _ if strict && show.has_failed() => ExitCode::OutputIncomplete.code(),
            code => code,
        };
        last_words::say(show, tail, code, left, self.id);
        if let Some(path) = &self.following.result_file {
            let result = result::result(self.id, self.target, code, tail);
            // The deployment is over, and its own exit code matters more than a failure to write
            // the file.
            if let Err(failure) = result::write(path, &result) {
                show.warn(&failure.to_string());
            }
        }
        (code, conclude::is_open(end))
    }
}

fn request(settings: &Settings, id: &DeploymentId, now: Timestamp, session: &PrivateKey, pair: &Pair) -> Request {
    Request {
        deployment_id: id.clone(),
        audience: settings.topic.clone(),
        target: settings.target.clone(),
        parameters: settings.parameters.clone(),
        reply_queue: pair.reply.clone(),
        control_queue: pair.control.clone(),
        session_key: session.public().clone(),
        issued_at: now,
        expires_at: now.plus(REQUEST_LIFETIME_MAX),
        origin: origin::origin(|name| std::env::var(name).ok()),
        traceparent: std::env::var("TRACEPARENT").ok().and_then(|text| text.try_into().ok()),
    }
}

/// Returns the body to publish, and the request digest.
async fn sign(key: &Signer, request: &Request) -> Result<(String, Digest), Failure> {
    let envelope = key.sign(Envelope::new(Request::TYPE, request.to_payload())).await?;
    let digest = envelope.digest();
    Ok((Bundle { request: envelope, approvals: Vec::new() }.to_json(), digest))
}

fn no_random(error: getrandom::Error) -> Failure {
    Failure::new(ExitCode::Fault, format!("cannot read random bytes from the system: {error}"))
}

fn new_key() -> Result<PrivateKey, Failure> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(no_random)?;
    Ok(PrivateKey::from_seed(seed))
}

/// Returns a new deployment id and the current time.
pub(crate) fn new_id() -> Result<(DeploymentId, Timestamp), Failure> {
    let mut random = [0_u8; 10];
    getrandom::fill(&mut random).map_err(no_random)?;
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok((DeploymentId::new(u64::try_from(millis).unwrap_or_default(), random), now()))
}

fn placeholder_account() -> Result<AccountId, Failure> {
    "000000000000".parse().map_err(|error| Failure::new(ExitCode::Fault, format!("{error}")))
}
