//! `relay status`: what the tags and the waiting frames in the queue say about a deployment. It
//! peeks without receiving, so that a follower misses nothing. Without a queue, it reads the claim
//! and the record, if the caller may read the evidence.

use relay_aws::clock::now;
use relay_aws::objects::Objects;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_engine::{Authentic, Authenticator, Verdict};
use relay_protocol::encoding::{ascii_json, printable};
use relay_protocol::evidence::{Evidence, Writer};
use relay_protocol::frame::{LauncherKind, RunnerKind};
use relay_protocol::keys::{Cached, SingleKey};
use relay_protocol::limits::{CLAIM_MAX, RECORD_MAX};
use relay_protocol::record::{Deployment, LauncherOutcome, Record, Unfinished};
use relay_protocol::time::plain_duration;
use relay_protocol::{Digest, Envelope, SignedFrame, Timestamp};
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::found::{Found, Gone, look_for};
use crate::show::out;
use crate::state::State;

/// How many times to peek. Each time SQS returns an arbitrary part of the messages.
const LOOKS: usize = 10;

/// What the tags and the waiting frames say. The state that is furthest in a deployment's life
/// counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    state: State,
    /// An explanation of the state, such as why it was refused.
    text: Option<String>,
    /// The highest frame number that the runner used.
    highest: Option<u64>,
    /// The digest of the request, from the runner's vouch.
    request: Option<Digest>,
}

impl Seen {
    fn reach(&mut self, state: State, text: Option<String>) {
        if state >= self.state {
            (self.state, self.text) = (state, text);
        }
    }

    fn take(&mut self, authentic: Authentic) {
        match authentic {
            Authentic::Launcher(frame) => match frame.kind {
                LauncherKind::Admitted { .. } => self.reach(State::Admitted, None),
                LauncherKind::Task { state, stopped_reason, .. } if state == "STOPPED" => {
                    self.reach(State::Over, stopped_reason);
                }
                LauncherKind::Task { .. } => self.reach(State::Starting, None),
                LauncherKind::Refused { message, .. } => self.reach(State::Refused, Some(message)),
                LauncherKind::LaunchFailed { message, .. } => self.reach(State::NeverStarted, Some(message)),
                LauncherKind::Unverified { .. } | LauncherKind::Tried(_) | LauncherKind::Unknown => {}
            },
            Authentic::Runner(frame) => {
                self.highest = self.highest.max(Some(frame.seq));
                match frame.kind {
                    RunnerKind::Finished(finished) => {
                        self.reach(State::Finished(finished.outcome.exit_code()), None);
                    }
                    _ => self.reach(State::Running, None),
                }
            }
        }
    }
}

/// Looks, and prints the result.
pub(crate) async fn status(arguments: &args::Status) -> Result<u8, Failure> {
    let (json, lines) = match look_for(&arguments.whose).await? {
        Ok(found) => {
            let mut seen = look(&found).await?;
            if found.tags.deadline.is_some_and(|deadline| deadline < now()) && !seen.state.is_over() {
                seen.reach(State::Over, None);
            }
            (json(&found, &seen), text(&found, &seen, now()))
        }
        Err(gone) => {
            let (state, how) = evidence(&gone).await?.ok_or_else(|| gone.failure())?;
            let json =
                json!({ "deployment_id": gone.id, "target": gone.target, "state": state.to_string(), "text": how });
            let target = gone.target.as_ref().map(ToString::to_string).unwrap_or_default();
            (json, vec![format!("{} {target}", gone.id), format!("  {state}: {how}")])
        }
    };
    match arguments.output {
        Output::Json => out(&ascii_json(&json)),
        Output::Text => lines.iter().for_each(|text| out(&printable(text))),
    }
    Ok(0)
}

/// What the evidence says of a deployment whose queue is gone: its state, and how that is known.
/// `None` if the caller may not read it, or if it has nothing.
async fn evidence(gone: &Gone) -> Result<Option<(State, String)>, Failure> {
    let (Some(target), Some(texts)) = (&gone.target, &gone.texts) else { return Ok(None) };
    let (topic, pins) = (texts.topic(target)?, texts.pins(target)?);
    let objects = Objects::new(&Sdk::from_environment(Some(topic.region())).await);
    let (bucket, evidence) = (topic.evidence_bucket(), Evidence::of(target, &gone.id));
    let get = async |key: String, max: usize| match objects.get(&bucket, &key, max as u64).await {
        Ok(object) => Ok(object.map(|object| object.bytes)),
        Err(error) if error.kind == Kind::Denied => Ok(None),
        Err(error) => Err(Failure::aws("reading the deployment's evidence", &error)),
    };
    for (writer, keys) in [
        (Writer::Runner, pins.as_ref().map(|pins| &pins.target)),
        (Writer::Launcher, pins.as_ref().map(|pins| &pins.answer)),
    ] {
        let Some(bytes) = get(evidence.record(writer), 2 * RECORD_MAX).await? else { continue };
        let Some(keys) = keys else { continue };
        let mut keys = keys.iter().filter_map(|key| SingleKey::new(key).ok());
        let envelope = Envelope::parse(&bytes, 2 * RECORD_MAX).ok();
        let state = envelope.as_ref().and_then(|envelope| {
            keys.find_map(|key| match writer {
                Writer::Runner => runners_word(envelope, &key),
                Writer::Launcher => launchers_word(envelope, &key),
            })
        });
        return Ok(Some(match state {
            Some(state) => (state, "its record, signed by the pinned key, says so".to_owned()),
            None => (State::Over, "it has a record, which the pinned key did not sign".to_owned()),
        }));
    }
    let claimed = get(evidence.claim(), CLAIM_MAX).await?.is_some();
    Ok(claimed.then(|| (State::Running, "it is claimed and has no record yet; nobody has its queue".to_owned())))
}

fn runners_word(record: &Envelope, key: &SingleKey) -> Option<State> {
    let record = key.verify::<Record<Deployment>>(record).ok()?;
    Some(State::Finished(record.statement().predicate.outcome.exit_code()))
}

fn launchers_word(record: &Envelope, key: &SingleKey) -> Option<State> {
    let record = key.verify::<Record<Unfinished>>(record).ok()?;
    let predicate = &record.statement().predicate;
    Some(match predicate.outcome {
        LauncherOutcome::Refused => State::Refused,
        LauncherOutcome::NeverStarted => State::NeverStarted,
        LauncherOutcome::Killed | LauncherOutcome::Lost => State::Finished(predicate.reason.exit_code().code()),
    })
}

/// Returns the digest of the request, from a vouch that waits in the queue.
pub(crate) async fn vouched_request(found: &Found) -> Result<Option<Digest>, Failure> {
    Ok(look(found).await?.request)
}

async fn look(found: &Found) -> Result<Seen, Failure> {
    let mut seen = Seen { state: found.tags.state.clone(), ..Seen::default() };
    let pins = found.texts.pins(&found.target)?;
    let mut authenticator = Authenticator::attaching(found.id.clone(), pins, Cached::default());
    let mut waiting = Vec::new();
    for _ in 0..LOOKS {
        let messages = match found.queues.peek(&found.pair.reply).await {
            Ok(messages) => messages,
            Err(error) if error.kind == Kind::NotFound => break,
            Err(error) => return Err(Failure::aws("reading the deployment's queue", &error)),
        };
        if messages.is_empty() {
            break;
        }
        waiting.extend(messages.into_iter().map(|message| SignedFrame::from_message(message.attributes, message.body)));
    }
    // The second pass judges the frames that came before the first vouch.
    for _ in 0..2 {
        let mut later = Vec::new();
        for raw in waiting {
            match authenticator.judge(raw) {
                Verdict::Authentic(authentic) => seen.take(*authentic),
                Verdict::NotYet(raw) => later.push(raw),
                Verdict::Rejected(_) => {}
            }
        }
        waiting = later;
    }
    seen.request = authenticator.vouch().map(|vouch| vouch.request_digest);
    Ok(seen)
}

fn json(found: &Found, seen: &Seen) -> Value {
    json!({
        "deployment_id": found.id,
        "target": found.target,
        "state": seen.state.to_string(),
        "text": seen.text,
        "deadline": found.tags.deadline,
        "acknowledged": found.tags.acknowledged,
        "followed_at": found.tags.followed,
        "highest_waiting": seen.highest,
    })
}

fn text(found: &Found, seen: &Seen, now: Timestamp) -> Vec<String> {
    let mut lines = vec![format!("{} {}", found.id, found.target)];
    lines.push(match &seen.text {
        None => format!("  {}", seen.state),
        Some(text) => format!("  {}: {text}", seen.state),
    });
    if let Some(deadline) = found.tags.deadline.filter(|_| !seen.state.is_over()) {
        let left = plain_duration(deadline.since(now));
        lines.push(format!("  ends at {deadline} at the latest, in {left}"));
    }
    if let Some(followed) = found.tags.followed {
        let ago = plain_duration(now.since(followed));
        lines.push(match found.tags.acknowledged {
            0 => format!("  last followed {ago} ago, when nothing was printed yet"),
            frame => format!("  printed up to frame {frame}, {ago} ago"),
        });
    }
    if let Some(highest) = seen.highest {
        lines.push(format!("  frames up to {highest} are waiting; to read them: relay attach {}", found.id));
    }
    lines
}
