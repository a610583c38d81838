//! Finds a deployment that another call started: its queues by its id, and what their tags say.

use std::collections::BTreeSet;

use relay_aws::queues::Queues;
use relay_aws::sessions::Sessions;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_protocol::{AccountId, DeploymentId, Region, TargetName, TopicArn};

use crate::args;
use crate::queues::Pair;
use crate::settings::{Layers, Texts};
use crate::tags::Tags;

/// A deployment's queues and tags, with the settings that apply to it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: DeploymentId,
    pub(crate) target: TargetName,
    pub(crate) topic: TopicArn,
    pub(crate) texts: Texts,
    pub(crate) sdk: Sdk,
    pub(crate) queues: Queues,
    pub(crate) pair: Pair,
    pub(crate) tags: Tags,
}

/// A deployment that has no queue.
#[derive(Debug)]
pub(crate) struct Gone {
    pub(crate) id: DeploymentId,
    /// The target that the caller named.
    pub(crate) target: Option<TargetName>,
    pub(crate) texts: Option<Texts>,
    regions: BTreeSet<Region>,
}

impl Gone {
    /// The error for a command that needs the queue.
    pub(crate) fn failure(&self) -> Failure {
        let regions: Vec<&str> = self.regions.iter().map(Region::as_str).collect();
        Failure::usage(match regions.as_slice() {
            [] => "no region is configured".to_owned(),
            regions => format!("no queue of {} exists in {}", self.id, regions.join(", ")),
        })
        .hint("if it is in another region, pass --target or set AWS_REGION; otherwise the call that followed the deployment to its end deleted it, or a sweep of old queues did: ask the platform team for the output (`relay-admin log`)")
    }
}

/// Finds a deployment that has a queue.
pub(crate) async fn find(whose: &args::DeploymentRef) -> Result<Found, Failure> {
    look_for(whose).await?.map_err(|gone| gone.failure())
}

/// Searches the target's region or, without a target, every region that is known here.
pub(crate) async fn look_for(whose: &args::DeploymentRef) -> Result<Result<Found, Box<Gone>>, Failure> {
    let id: DeploymentId = whose.id.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let layers = Layers::read(&whose.place)?;
    let target = whose.target.as_deref().map(str::parse::<TargetName>).transpose();
    let target = target.map_err(|error| Failure::usage(format!("--target: {error}")))?;
    let regions = match &target {
        Some(target) => BTreeSet::from([layers.texts(target).topic(target)?.region().clone()]),
        None => layers.regions().await,
    };
    let fixed = target.as_ref().map(|target| layers.texts(target).reply_queue()).transpose()?.flatten();
    let mut account = None;
    for region in &regions {
        let sdk = Sdk::from_environment(Some(region)).await;
        let queues = Queues::new(&sdk);
        let (pair, tags) = match &fixed {
            Some(queue) => (Pair::fixed(queue.clone()), Tags::default()),
            None => {
                let account = match &account {
                    Some(account) => account,
                    None => account.insert(own_account(&sdk).await?),
                };
                let pair = Pair::of(&id, account, region)?;
                let tags = match queues.tags(&pair.reply).await {
                    Ok(tags) => Tags::parse(&tags),
                    Err(error) if error.kind == Kind::NotFound => continue,
                    // Without the right to read tags, continue as if there were none.
                    Err(error) if error.kind == Kind::Denied && target.is_some() => Tags::default(),
                    Err(error) => return Err(Failure::aws("reading the tags of the deployment's queue", &error)),
                };
                (pair, tags)
            }
        };
        let Some(target) = target.clone().or_else(|| tags.target.clone()) else {
            return Err(Failure::usage(format!("the queue of {id} does not name its target")).hint("pass --target"));
        };
        let texts = layers.texts(&target);
        // Local configuration takes precedence over what a queue says.
        let topic = texts.topic(&target).or_else(|failure| tags.topic.clone().ok_or(failure))?;
        return Ok(Ok(Found { id, target, topic, texts, sdk, queues, pair, tags }));
    }
    let texts = target.as_ref().map(|target| layers.texts(target));
    Ok(Err(Box::new(Gone { id, target, texts, regions })))
}

/// Returns the account that the caller's credentials belong to.
pub(crate) async fn own_account(sdk: &Sdk) -> Result<AccountId, Failure> {
    let identity = Sessions::new(sdk).identity().await;
    let account = identity.map_err(|error| Failure::aws("getting the caller's account", &error))?.account;
    account.parse().map_err(|error| Failure::usage(format!("{error}")))
}
