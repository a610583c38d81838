//! `relay attach`: follows a deployment that another call left, also from another machine. Output
//! that the other call printed and deleted does not come again. Output that it only received does
//! come again, so it may be printed twice rather than never.

use std::collections::VecDeque;
use std::time::Duration;

use relay_aws::Kind;
use relay_aws::clock::now;
use relay_aws::queues::{Queues, VISIBILITY};
use relay_console::Failure;
use relay_engine::{Authenticator, Inbox, Start};
use relay_protocol::keys::Cached;

use crate::args;
use crate::cancel::Canceller;
use crate::clock::Clock;
use crate::deploy::{DRAIN, Ending, warn_unpinned};
use crate::files::Files;
use crate::follower::Follower;
use crate::found::{Found, find};
use crate::progress::Progress;
use crate::queues::Pair;
use crate::settings::{heartbeat, timeouts};
use crate::show::Show;
use crate::signals::Signals;
use crate::tags::{TagWriter, Tags};
use crate::tail::{Patience, Tail, Until};

/// Follows a deployment to its end, and returns the exit code (clauses OUT-1 to OUT-4).
pub(crate) async fn attach(arguments: &args::Attach) -> Result<u8, Failure> {
    let clock = Clock::start();
    let mut signals = Signals::listen()?;
    let timeouts = timeouts(&arguments.following)?;
    let patience = Patience {
        timeout: None,
        on_interrupt: args::OnInterrupt::Detach,
        heartbeat: heartbeat(&arguments.following)?,
        stuck: (timeouts.outage, timeouts.drain),
    };
    let Found { id, target, texts, queues, pair, tags, .. } = find(&arguments.whose).await?;
    let pins = texts.pins(&target)?;
    let mut show = Show::new(&arguments.following, clock)?;
    warn_unpinned(&mut show, pins.is_none());
    check_queue(&queues, &pair).await?;
    // From here on this call is the reader. If it is killed, the next reader must not take the
    // earlier reader's position for exact.
    let mine = Tags { left: false, followed: Some(now()), ..tags.clone() };
    let said = pair.own && queues.tag(&pair.reply, &mine.pairs()).await.is_ok();
    let authenticator = Authenticator::attaching(id.clone(), pins, Cached::default());
    let acknowledged = tags.acknowledged;
    let start = if said && tags.left {
        Start::Resume { acknowledged }
    } else {
        Start::Join { acknowledged, settle: Duration::from_secs(u64::from(VISIBILITY) + 2) }
    };
    let mut inbox = Inbox::new(authenticator, start, timeouts, clock.elapsed(), now());
    if !pair.own {
        inbox.share();
    }
    if let Some(deadline) = mine.deadline {
        inbox.ends_by(deadline);
    }
    let mut tail = Tail {
        inbox,
        follower: Follower::new(queues.clone(), pair.reply.clone(), clock),
        tags: TagWriter::new(queues.clone(), pair.clone(), mine),
        canceller: Canceller::default(),
        progress: Progress::default(),
        clock,
        printing: VecDeque::new(),
        unfit: None,
    };
    let mut files = Files::open(&arguments.following, None).await?;
    let left = tail.run(&mut show, &mut signals, patience, Until::End).await;
    if left.is_some() && tail.inbox.poll_end().is_none() {
        show.warn(&format!(
            "stopped following; the deployment continues. To follow it again: {}",
            pair.follow(&target, &id)
        ));
    }
    let ending = Ending { following: &arguments.following, target: &target, id: &id };
    let (code, open) = ending.end(&mut show, &mut tail, left, &mut files);
    if !open && let Err(failure) = pair.delete(&queues).await {
        show.warn(&failure.to_string());
    }
    show.drain(&mut signals, DRAIN).await;
    Ok(code)
}

/// Reports a queue that is gone or denies access immediately. The tail retries a transient failure,
/// because it has a timeout for that.
async fn check_queue(queues: &Queues, pair: &Pair) -> Result<(), Failure> {
    match queues.peek(&pair.reply).await {
        Err(error) if error.kind == Kind::NotFound => {
            Err(Failure::usage(format!("the queue {} no longer exists", pair.reply.name())).hint(
                "the call that followed the deployment to its end deleted it, or a sweep of old queues did: ask the platform team for the output (`relay-admin log`)",
            ))
        }
        Err(error) if !error.is_transient() => Err(Failure::aws("reading the deployment's queue", &error)),
        _ => Ok(()),
    }
}
