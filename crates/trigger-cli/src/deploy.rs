//! `relay deploy`: from the command line to a published request, and from the deployment's end to
//! an exit code.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_aws::queues::Queues;
use relay_aws::topic::Topic;
use relay_console::Failure;
use relay_engine::conclude::Strict;
use relay_engine::{Authenticator, Backoff, End, Inbox, Published, Start, Timeouts, conclude};
use relay_protocol::keys::{Cached, PrivateKey};
use relay_protocol::limits::{PAYLOAD_MAX, REQUEST_LIFETIME_MAX};
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{
    AccountId, Bundle, DeploymentId, Digest, Envelope, Request, Statement as _, TargetName, Ticket, Timestamp,
};
use serde_json::json;

use crate::approvals::Approved;
use crate::approvals::wait::Waiting;
use crate::args;
use crate::artifacts;
use crate::cancel::{CancelRoutes, Canceller, Session};
use crate::clock::Clock;
use crate::dry_run::Trial;
use crate::files::Files;
use crate::follower::Follower;
use crate::last_words;
use crate::progress::Progress;
use crate::queues::Pair;
use crate::request::{new_id, new_key, request_for};
use crate::result;
use crate::settings::Settings;
use crate::show::Show;
use crate::signals::Signals;
use crate::signing::Signer;
use crate::tags::{TagWriter, Tags};
use crate::tail::{Patience, Tail, Until};
use crate::trace::Trace;

/// The first and the longest pause before asking a busy target again.
const BUSY: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));

/// How long the last messages may take to be printed.
pub(crate) const DRAIN: Duration = Duration::from_secs(60);

/// Runs the whole command, and returns the exit code (clauses OUT-1 to OUT-4).
pub(crate) async fn deploy(arguments: &args::Deploy) -> Result<u8, Failure> {
    let clock = Clock::start();
    let mut signals = Signals::listen()?;
    let settings = Settings::of(arguments)?;
    let mut show = Show::new(&arguments.asking.following, clock)?;
    let mut files = tokio::select! {
        files = Files::open(&arguments.asking.following, arguments.asking.id_file.as_deref()) => files?,
        asked = signals.next() => return Ok(asked.code.code()),
    };
    let trace = trace(clock).unwrap_or_else(|problem| {
        show.warn(&problem);
        None
    });
    let context = trace.as_ref().and_then(Trace::context);
    let whole = Whole { arguments, settings: Settings { context: context.or(settings.context), ..settings }, clock };
    let code = whole.run(&mut show, &mut signals, &mut files).await;
    if let Err(failure) = &code {
        files.ended(&mut show, result::failed(&arguments.target, failure));
    }
    if let (Some(trace), Some(result)) = (trace, files.last()) {
        let sent = tokio::select! {
            sent = trace.send(result) => sent,
            _ = signals.next() => Ok(()),
        };
        if let Err(problem) = sent {
            show.warn(&format!("the trace was not sent: {problem}"));
        }
    }
    show.drain(&mut signals, DRAIN).await;
    code
}

/// The trace of this command, if the environment asks for one.
fn trace(clock: Clock) -> Result<Option<Trace>, String> {
    let random = || {
        let mut random = [0; 24];
        getrandom::fill(&mut random).map(|()| random).map_err(|error| error.to_string())
    };
    Trace::of(|name| std::env::var(name).ok(), SystemTime::now() - clock.elapsed(), random)
}

/// The whole command.
struct Whole<'a> {
    arguments: &'a args::Deploy,
    settings: Settings,
    clock: Clock,
}

impl Whole<'_> {
    async fn run(mut self, show: &mut Show, signals: &mut Signals, files: &mut Files) -> Result<u8, Failure> {
        let packing = tokio::task::spawn_blocking({
            let artifacts = self.settings.artifacts.clone();
            move || artifacts::pack(&artifacts)
        });
        let packed = tokio::select! {
            packed = packing => packed.map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))??,
            asked = signals.next() => {
                show.warn(&format!("{}: stopped before anything was published", asked.why));
                return Ok(asked.code.code());
            }
        };
        artifacts::merge(&mut self.settings.parameters, &packed)?;
        let Self { arguments, settings, clock } = &self;
        check_request(settings)?;
        let sdk = Sdk::from_environment(Some(settings.topic.region())).await;
        warn_unpinned(show, settings.pins.is_none());
        if let Some(similar) = &settings.similar {
            let target = &settings.target;
            show.warn(&format!("relay.toml names no target {target}; did you mean {similar}?"));
        }
        if arguments.asking.dry_run {
            return dry_run(settings, Approved::of_files(&arguments.asking.approvals)?, &sdk, show, signals).await;
        }
        let objects = Objects::new(&sdk);
        tokio::select! {
            uploaded = artifacts::upload(&objects, settings.artifact_store.as_ref(), &packed) => uploaded?,
            asked = signals.next() => {
                show.warn(&format!("{}: stopped before anything was published", asked.why));
                return Ok(asked.code.code());
            }
        }
        drop(packed);
        let approved = tokio::select! {
            approved = approved(arguments, settings, &sdk, show) => approved?,
            asked = signals.next() => {
                show.warn(&format!("{}: stopped before the request was published", asked.why));
                return Ok(asked.code.code());
            }
        };
        let waits_until = settings.wait.map(|wait| Instant::now() + wait);
        let mut busy = BUSY;
        loop {
            let may_wait = waits_until.is_some_and(|until| Instant::now() + busy.peek() < until);
            let call = Call { arguments, settings, approved: &approved, sdk: &sdk, clock: *clock, may_wait };
            if let Some(code) = call.once(show, signals, files).await? {
                return Ok(code);
            }
            let pause = busy.pause();
            show.say(&format!("the target is busy; asking again in {}s, under a new id", pause.as_secs()));
            // No deployment of this command is alive, so there is nothing to cancel.
            if let Ok(asked) = tokio::time::timeout(pause, signals.next()).await {
                return Ok(asked.code.code());
            }
        }
    }
}

/// Warns of a deployment whose answers nobody can verify.
pub(crate) fn warn_unpinned(show: &mut Show, unpinned: bool) {
    if unpinned {
        show.warn("no keys are pinned: relay trusts the first runner that answers, and anybody who may write to the reply queue can forge what follows");
    }
}

/// The approvals that go with the request, once there are enough.
async fn approved(
    arguments: &args::Deploy,
    settings: &Settings,
    sdk: &Sdk,
    show: &mut Show,
) -> Result<Approved, Failure> {
    let Some((patience, store)) = settings.wait_approval.clone() else {
        return Approved::of_files(&arguments.asking.approvals);
    };
    let session = new_key()?;
    let heartbeat = settings.heartbeat;
    let waiting = Waiting { sdk, trial: trial(settings), store, patience, heartbeat };
    waiting.approved(show, |id, now, pair, ticket| request(settings, (id, now), &session, pair, Some(ticket))).await
}

fn trial(settings: &Settings) -> Trial<'_> {
    Trial {
        target: &settings.target,
        topic: &settings.topic,
        key: &settings.key,
        pins: settings.pins.as_ref(),
        reply_queue: settings.reply_queue.as_ref(),
        patience: settings.timeouts.admission,
    }
}

/// Asks what would become of the deployment, and prints the answer.
async fn dry_run(
    settings: &Settings,
    approved: Approved,
    sdk: &Sdk,
    show: &mut Show,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let session = new_key()?;
    let trial = trial(settings);
    let Approved { ticket, approvals } = approved;
    let asked =
        trial.ask(sdk, &approvals, |id, now, pair| request(settings, (id, now), &session, pair, ticket.as_ref()));
    let tried = tokio::select! {
        asked = asked => asked?.tried,
        asked = signals.next() => {
            show.warn("stopped; nothing was started. If a queue is left behind, `relay gc` deletes it");
            return Ok(asked.code.code());
        }
    };
    let end = End::Tried(Box::new(tried.clone()));
    let code = conclude::conclude(Some(&end), None, Strict::default()).code();
    last_words::say_tried(show, &tried);
    Ok(code)
}

/// Checks the size and the form of the request before anything is created or published: a launcher
/// could only call it `unverified`. The account's digits change neither, so a placeholder will do.
fn check_request(settings: &Settings) -> Result<(), Failure> {
    let (id, now) = new_id()?;
    let pair = Pair::of(&id, &placeholder_account()?, settings.topic.region())?;
    let payload = request(settings, (&id, now), &new_key()?, &pair, Some(&Ticket::new([0; 16]))).to_payload();
    let problem = match payload.len() {
        found if found > PAYLOAD_MAX => format!("the request has {found} bytes; the limit is {PAYLOAD_MAX}"),
        _ => match Request::parse(&payload) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        },
    };
    Err(Failure::usage(problem).hint(
        "pass less in parameters: put data into an artifact (--artifact NAME=PATH); the request then has only its digest",
    ))
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
    approved: &'a Approved,
    sdk: &'a Sdk,
    clock: Clock,
    /// Whether there is time to ask again if the target is busy.
    may_wait: bool,
}

impl Call<'_> {
    /// Runs one deployment. Returns the exit code, or `None` if the target is busy and there is
    /// time to ask again.
    async fn once(&self, show: &mut Show, signals: &mut Signals, files: &mut Files) -> Result<Option<u8>, Failure> {
        let settings = self.settings;
        let queues = Queues::new(self.sdk);
        let (id, now) = new_id()?;
        let tags = Tags::new(&id, &settings.target, &settings.topic, now.plus(REQUEST_LIFETIME_MAX));
        let first_tags = tags.pairs();
        let pair = match settings.reply_queue.clone() {
            Some(queue) => Pair::fixed(queue),
            None => tokio::select! {
                made = Pair::create(&queues, &id, &settings.topic, &first_tags) => made?,
                asked = signals.next() => {
                    show.warn("stopped before anything was published; if a queue is left behind, `relay gc` deletes it");
                    return Ok(Some(asked.code.code()));
                }
            },
        };
        let result = match signals.pending().await {
            Some(asked) => {
                show.warn("stopped before anything was published");
                Ok(Done::Ended { code: asked.code.code(), open: false })
            }
            None => {
                files.begins(show, &id);
                match self.publish(show, (&id, now), &pair, tags).await {
                    Ok(tail) => Ok(self.follow(show, (signals, files), tail, &id).await),
                    Err(failure) => Err(failure),
                }
            }
        };
        match result {
            Ok(Done::Detached) => show.detached(&pair.follow(&settings.target, &id), &id),
            // What the queue holds may still reveal an open outcome.
            Ok(Done::Ended { open: true, .. }) => {
                let kept = if pair.own { "keeps its messages for a day" } else { "keeps its messages" };
                let follow = pair.follow(&settings.target, &id);
                show.warn(&format!("the queue {} {kept}; to read them: {follow}", pair.reply.name()));
            }
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

    /// Publishes the request, and returns a tail that is ready to follow it. The request was issued
    /// when its id was made (clause REQ-16).
    async fn publish(
        &self,
        show: &mut Show,
        (id, issued_at): (&DeploymentId, Timestamp),
        pair: &Pair,
        tags: Tags,
    ) -> Result<Tail, Failure> {
        let (settings, queues) = (self.settings, Queues::new(self.sdk));
        let key = new_key()?;
        let Approved { ticket, approvals } = self.approved;
        let request = request(settings, (id, issued_at), &key, pair, ticket.as_ref());
        let (body, digest) = sign(&settings.key, &request, approvals).await?;
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
        let body = Digest::of(body.as_bytes());
        let mine = Published { hints: hints.clone(), request: digest, body, dry_run: false };
        let authenticator = Authenticator::new(mine, settings.pins.clone(), Cached::default());
        let (topic_arn, queue) = (settings.topic.clone(), pair.control.clone());
        let routes = CancelRoutes { hints, topic, topic_arn, queues: queues.clone(), queue };
        let mut inbox = Inbox::new(authenticator, Start::Fresh, settings.timeouts, published, now());
        if !pair.own {
            inbox.share();
        }
        Ok(Tail {
            inbox,
            follower: Follower::new(queues.clone(), pair.reply.clone(), self.clock),
            tags: TagWriter::new(queues, pair.clone(), Tags { request: Some(digest), ..tags }),
            canceller: Canceller::new(Session { key, request: digest, routes }),
            progress: Progress::published(published),
            clock: self.clock,
            printing: VecDeque::new(),
            unfit: None,
        })
    }

    /// Follows the deployment to its end or, with `--detach`, to the start of its task.
    async fn follow(
        &self,
        show: &mut Show,
        (signals, files): (&mut Signals, &mut Files),
        mut tail: Tail,
        id: &DeploymentId,
    ) -> Done {
        let Self { arguments, settings, .. } = self;
        let until = if arguments.asking.detach { Until::Admitted } else { Until::End };
        let Timeouts { outage, drain, .. } = settings.timeouts;
        let patience = Patience {
            timeout: settings.timeout,
            on_interrupt: arguments.asking.on_interrupt,
            heartbeat: settings.heartbeat,
            stuck: (outage, drain),
        };
        let left = tail.run(show, signals, patience, until).await;
        let end = tail.inbox.poll_end();
        if arguments.asking.detach && end.is_none() && left.is_none() {
            return Done::Detached;
        }
        if self.may_wait && left.is_none() && end.is_some_and(conclude::is_busy) {
            return Done::Busy;
        }
        let ending = Ending { following: &arguments.asking.following, target: &settings.target, id };
        let (code, open) = ending.end(show, &mut tail, left, files);
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
    /// Prints the last messages, writes the files, and returns the exit code and whether the
    /// outcome is open. `left` says why this command itself asked for an end.
    pub(crate) fn end(
        &self,
        show: &mut Show,
        tail: &mut Tail,
        left: Option<ExitCode>,
        files: &mut Files,
    ) -> (u8, bool) {
        tail.progress.phases.finished = Some(tail.clock.elapsed());
        let end = tail.inbox.poll_end();
        let strict = Strict { output: self.following.strict_output, record: self.following.require_record };
        let code = match (conclude::conclude(end, left, strict).code(), left) {
            // A signal ended this command before its reader had everything.
            (_, Some(left)) if tail.is_cut_off() => left.code(),
            _ if strict.output && show.has_failed() => ExitCode::Incomplete.code(),
            (code, _) => code,
        };
        last_words::say(show, tail, code, left, self.id);
        files.ended(show, result::result(self.id, self.target, code, tail));
        (code, conclude::is_open(end) || tail.is_cut_off())
    }
}

fn request(
    settings: &Settings,
    id_and_time: (&DeploymentId, Timestamp),
    session: &PrivateKey,
    pair: &Pair,
    ticket: Option<&Ticket>,
) -> Request {
    let (place, parameters) = ((&settings.topic, &settings.target), &settings.parameters);
    let traceparent = settings.context.clone();
    Request { ticket: ticket.cloned(), traceparent, ..request_for(place, parameters, id_and_time, session, pair) }
}

/// Returns the body to publish, and the request digest.
async fn sign(key: &Signer, request: &Request, approvals: &[Envelope]) -> Result<(String, Digest), Failure> {
    let envelope = key.sign(Envelope::new(Request::TYPE, request.to_payload())).await?;
    let digest = envelope.digest();
    Ok((Bundle { request: envelope, approvals: approvals.to_vec() }.to_json(), digest))
}

fn placeholder_account() -> Result<AccountId, Failure> {
    "000000000000".parse().map_err(|error| Failure::new(ExitCode::Fault, format!("{error}")))
}
