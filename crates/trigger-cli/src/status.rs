//! `relay status`: what the tags and the waiting frames in the queue say about a deployment. It
//! peeks without receiving, so that a follower misses nothing.

use relay_aws::Kind;
use relay_aws::clock::now;
use relay_console::Failure;
use relay_engine::{Authentic, Authenticator, Verdict};
use relay_protocol::encoding::{ascii_json, printable};
use relay_protocol::frame::{LauncherKind, RunnerKind};
use relay_protocol::keys::Cached;
use relay_protocol::time::plain_duration;
use relay_protocol::{Digest, SignedFrame, Timestamp};
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::found::{Found, find};
use crate::show::out;

/// How many times to peek. Each time SQS returns an arbitrary part of the messages.
const LOOKS: usize = 10;

/// What the waiting frames say. The state that is furthest in a deployment's life counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// How far the deployment is: its rank, the name of the state, and the detail.
    state: Option<(u8, &'static str, Option<String>)>,
    /// The highest frame number that the runner used.
    highest: Option<u64>,
    /// The digest of the request, from the runner's vouch.
    request: Option<Digest>,
}

impl Seen {
    fn reach(&mut self, rank: u8, state: &'static str, more: Option<String>) {
        if self.state.as_ref().is_none_or(|(known, ..)| *known <= rank) {
            self.state = Some((rank, state, more));
        }
    }

    fn take(&mut self, authentic: Authentic) {
        match authentic {
            Authentic::Launcher(frame) => match frame.kind {
                LauncherKind::Admitted { .. } => self.reach(1, "admitted", None),
                LauncherKind::Task { state, .. } if state == "STOPPED" => self.reach(4, "stopped", None),
                LauncherKind::Task { .. } => self.reach(2, "starting", None),
                LauncherKind::Refused { message, .. } => self.reach(5, "refused", Some(message)),
                LauncherKind::LaunchFailed { message, .. } => self.reach(5, "never started", Some(message)),
                LauncherKind::Unverified { .. } | LauncherKind::Tried(_) | LauncherKind::Unknown => {}
            },
            Authentic::Runner(frame) => {
                self.highest = self.highest.max(Some(frame.seq));
                match frame.kind {
                    RunnerKind::Finished(finished) => {
                        self.reach(6, "finished", Some(format!("exit {}", finished.outcome.exit_code())));
                    }
                    _ => self.reach(3, "running", None),
                }
            }
        }
    }
}

/// Peeks, and prints the result.
pub(crate) async fn status(arguments: &args::Status) -> Result<u8, Failure> {
    let found = find(&arguments.whose).await?;
    let seen = look(&found).await?;
    let now = now();
    match arguments.output {
        Output::Json => out(&ascii_json(&json(&found, &seen))),
        Output::Text => text(&found, &seen, now).iter().for_each(|text| out(&printable(text))),
    }
    Ok(0)
}

/// Returns the digest of the request, from a vouch that waits in the queue.
pub(crate) async fn vouched_request(found: &Found) -> Result<Option<Digest>, Failure> {
    Ok(look(found).await?.request)
}

async fn look(found: &Found) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
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
    let (state, more) = seen.state.clone().map_or((None, None), |(_, state, more)| (Some(state), more));
    json!({
        "deployment_id": found.id,
        "target": found.target,
        "state": state,
        "text": more,
        "deadline": found.tags.deadline,
        "acknowledged": found.tags.acknowledged,
        "followed_at": found.tags.followed,
        "highest_waiting": seen.highest,
    })
}

fn text(found: &Found, seen: &Seen, now: Timestamp) -> Vec<String> {
    let mut lines = vec![format!("{} {}", found.id, found.target)];
    lines.push(match &seen.state {
        Some((_, state, None)) => format!("  {state}"),
        Some((_, state, Some(more))) => format!("  {state}: {more}"),
        None if found.tags.acknowledged > 0 => "  running or over: all messages so far were read".to_owned(),
        None => "  no message has arrived yet, or all messages were read".to_owned(),
    });
    if let Some(deadline) = found.tags.deadline {
        let left = deadline.since(now);
        lines.push(match left {
            0.. => format!("  ends at {deadline} at the latest, in {}", plain_duration(left)),
            _ => format!("  ended at {deadline} at the latest"),
        });
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
