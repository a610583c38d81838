//! `relay attach`: follows a deployment that another call has left, from another machine too. What the other had printed and deleted does not
//! come again; what it had only received does, and may so be printed twice rather than never.

use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::queues::VISIBILITY;
use relay_aws::{Failure, Kind};
use relay_stream::{Authenticator, Reader};

use crate::args;
use crate::deploy::end;
use crate::settings::clocks;
use crate::show::{Phases, Show};
use crate::tail::{Signed, Tail, Until};
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
    // A queue that is gone is told at once. What this look receives comes again before the reader settles, by a margin.
    match queues.receive(&pair.reply, 0).await {
        Err(error) if error.kind == Kind::NotFound => {
            return Err(Failure::usage(format!("there is no queue {} any more", pair.reply.name())).hint(
                "whoever followed the deployment to its end deleted it, or a day has passed: a platform team's `relay-admin log` has the output",
            ));
        }
        Err(error) => return Err(Failure::aws("reading the deployment's queue", &error)),
        Ok(_) => {}
    }
    let settle = Duration::from_secs(u64::from(VISIBILITY) + 2);
    let authenticator = Authenticator::attaching(id.clone(), target_key, Signed);
    let reader = Reader::attaching(authenticator, clocks, show.elapsed(), now(), settle, tags.acknowledged);
    let mut tail = Tail::new(reader, queues.clone(), pair.clone(), tags, None, args::OnInterrupt::Detach);
    let mut phases = Phases::default();
    let left = tail.run(&mut show, &mut phases, None, Until::End).await?;
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
