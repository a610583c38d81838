//! `relay attach`: follows a deployment that another call has left, from another machine too. What the other had printed and deleted does not
//! come again; what it had only received does, and may so be printed twice rather than never.

use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::queues::{Queues, VISIBILITY};
use relay_aws::sessions::Sessions;
use relay_aws::{Failure, Kind, Sdk};
use relay_protocol::{AccountId, DeploymentId, TargetName};
use relay_stream::{Authenticator, Reader};

use crate::args;
use crate::deploy::end;
use crate::queues::Pair;
use crate::settings::{Layers, clocks};
use crate::show::{Phases, Show};
use crate::tail::{Signed, Tail, Until};

/// Follows to the end; the exit code is the registry's.
pub(crate) async fn attach(arguments: &args::Attach) -> Result<u8, Failure> {
    let began = Instant::now();
    let target: TargetName = arguments.target.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let id: DeploymentId = arguments.id.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let texts = Layers::read(&arguments.place)?.texts(&target);
    let (topic, target_key, fixed) = (texts.topic(&target)?, texts.target_key()?, texts.reply_queue()?);
    let clocks = clocks(&arguments.following)?;
    let sdk = Sdk::from_environment(Some(&topic.region())).await;
    let pair = match fixed {
        Some(queue) => Pair::fixed(queue),
        None => {
            let identity = Sessions::new(&sdk).identity().await;
            let account = identity.map_err(|error| Failure::aws("asking whose queues these are", &error))?.account;
            let account: AccountId = account.parse().map_err(|error| Failure::usage(format!("{error}")))?;
            Pair::of(&id, &account, &topic)?
        }
    };
    let queues = Queues::new(&sdk);
    let mut show = Show::new(arguments.following.output, arguments.following.quiet, began);
    if target_key.is_none() {
        show.warn("no target key is pinned: the first runner that answers is believed; add target_key to relay.toml");
    }
    // A queue that is gone is told at once. What this look receives comes again before the reader settles, by a margin.
    match queues.receive(&pair.reply, 0).await {
        Err(error) if error.kind == Kind::NotFound => {
            return Err(Failure::usage(format!("there is no queue {} any more", pair.reply.name())).hint(
                "whoever followed the deployment to its end deleted it, or a day has passed; the launcher's and the runner's logs have the rest",
            ));
        }
        Err(error) => return Err(Failure::aws("reading the deployment's queue", &error)),
        Ok(_) => {}
    }
    let settle = Duration::from_secs(u64::from(VISIBILITY) + 2);
    let authenticator = Authenticator::attaching(id.clone(), target_key, Signed);
    let reader = Reader::attaching(authenticator, clocks, show.elapsed(), now(), settle);
    let mut tail = Tail::new(reader, queues.clone(), pair.reply.clone(), None, args::OnInterrupt::Detach);
    let mut phases = Phases::default();
    let left = tail.run(&mut show, &mut phases, None, Until::End).await?;
    if left.is_some() && tail.end().is_none() {
        show.warn(&format!("left; the deployment goes on: relay attach {target} {id}"));
    }
    let (code, open) = end(&arguments.following, &target, &show, &tail, &mut phases, left, &id);
    if !open && let Err(failure) = pair.delete(&queues).await {
        show.warn(&failure.to_string());
    }
    show.end();
    Ok(code)
}
