//! `relay attach`: follows a deployment that another call has left, from another machine too. What the other had printed and deleted does not
//! come again; what it had only received does, and may so be printed twice rather than never.

use std::time::{Duration, Instant};

use relay_aws::Kind;
use relay_aws::clock::now;
use relay_aws::queues::VISIBILITY;
use relay_console::Failure;
use relay_engine::{Authenticator, Reader};
use relay_identity::FrameKeys;

use crate::args;
use crate::deploy::end;
use crate::settings::clocks;
use crate::show::{Phases, Show};
use crate::tags::Tags;
use crate::tail::{Signals, Tail, Until};
use crate::whose::{Found, find};

/// Follows to the end; the exit code is the registry's.
pub(crate) async fn attach(arguments: &args::Attach) -> Result<u8, Failure> {
    let began = Instant::now();
    let clocks = clocks(&arguments.following)?;
    let Found { id, target, target_key, queues, pair, tags, .. } = find(&arguments.whose).await?;
    let mut show = Show::new(arguments.following.output, arguments.following.quiet, began);
    if target_key.is_none() {
        show.warn("no target key is pinned: the first runner that answers is believed; add target_key to relay.toml");
    }
    // A queue that is gone, or denies, is told at once; one that cannot be asked just now is asked again by the tail, which has a clock for that.
    match queues.peek(&pair.reply).await {
        Err(error) if error.kind == Kind::NotFound => {
            return Err(Failure::usage(format!("there is no queue {} any more", pair.reply.name())).hint(
                "whoever followed the deployment to its end deleted it, or a day has passed: a platform team's `relay-admin log` has the output",
            ));
        }
        Err(error) if !error.is_transient() => return Err(Failure::aws("reading the deployment's queue", &error)),
        _ => {}
    }
    // From here on it is this call that reads; should it be killed, the next one must not take what the last one said for exact.
    let mine = Tags { left: false, followed: Some(now()), ..tags.clone() };
    let said = pair.own && queues.tag(&pair.reply, &mine.pairs()).await.is_ok();
    let authenticator = Authenticator::attaching(id.clone(), target_key, FrameKeys::default());
    let mut reader = if said && tags.left {
        Reader::resuming(authenticator, clocks, show.elapsed(), now(), tags.acknowledged)
    } else {
        let settle = Duration::from_secs(u64::from(VISIBILITY) + 2);
        Reader::attaching(authenticator, clocks, show.elapsed(), now(), settle, tags.acknowledged)
    };
    if let Some(deadline) = mine.deadline {
        reader.ends_by(deadline);
    }
    let mut tail = Tail::new(reader, queues.clone(), pair.clone(), mine, None, args::OnInterrupt::Detach);
    let mut phases = Phases::default();
    let left = tail.run(&mut show, &mut phases, &mut Signals::listen()?, None, Until::End).await;
    if left.is_some() && tail.end().is_none() {
        show.warn(&format!("left; the deployment goes on: {}", pair.follow(&target, &id)));
    }
    let (code, open) = end(&arguments.following, &target, &show, &tail, &mut phases, left, &id);
    if !open && let Err(failure) = pair.delete(&queues).await {
        show.warn(&failure.to_string());
    }
    show.end();
    Ok(code)
}
