//! `relay gc`: deletes what aborted CI jobs left behind. It deletes a queue only if the tags say
//! that its deployment is over, and has been for long enough.

use std::collections::BTreeMap;

use relay_aws::clock::now;
use relay_aws::queues::Queues;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_protocol::outcome::ExitCode;
use relay_protocol::time::plain_duration;
use relay_protocol::{AccountId, DeploymentId, Region};

use crate::args;
use crate::found::own_account;
use crate::queues::Pair;
use crate::settings::{Layers, duration_or_none};
use crate::show::{line, out};
use crate::tags::Tags;

/// Sweeps each region. The exit code is 0 only if no check and no deletion failed.
pub(crate) async fn gc(arguments: &args::Gc) -> Result<u8, Failure> {
    let keep = i64::try_from(duration_or_none("--keep", &arguments.keep)?.as_secs()).unwrap_or(i64::MAX);
    let regions = match arguments.regions.as_slice() {
        [] => Layers::of_file(arguments.config.as_deref())?.regions().await,
        regions => regions
            .iter()
            .map(|region| region.parse::<Region>())
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::usage(format!("--region: {error}")))?,
    };
    if regions.is_empty() {
        return Err(Failure::usage("no region is configured").hint("pass --region, or set AWS_REGION"));
    }
    let (mut gone, mut kept, mut failed) = (0_u64, 0_u64, 0_u64);
    for region in &regions {
        let sdk = Sdk::from_environment(Some(region)).await;
        let (queues, account) = (Queues::new(&sdk), own_account(&sdk).await?);
        let urls = queues.list("relay-").await;
        let urls = urls.map_err(|error| Failure::aws(&format!("listing the queues in {region}"), &error))?;
        let sweep = Sweep { queues, account, region, keep, dry_run: arguments.dry_run };
        for id in deployments(&urls) {
            match sweep.one(&id).await {
                Ok(true) => gone += 1,
                Ok(false) => kept += 1,
                Err(failure) => {
                    failed += 1;
                    line(&format!("relay: {id}: {}", failure.error));
                }
            }
        }
    }
    let done = if arguments.dry_run { "would delete" } else { "deleted" };
    line(&format!(
        "relay: {done} the queues of {gone} deployments, left those of {kept} in place{}",
        if failed > 0 { format!(", {failed} failed") } else { String::new() }
    ));
    Ok(if failed > 0 { ExitCode::Fault.code() } else { 0 })
}

/// Returns the deployments that these queues belong to. Pre-made queues have other names.
fn deployments(urls: &[String]) -> Vec<DeploymentId> {
    let id = |url: &String| {
        let name = url.rsplit('/').next()?.strip_prefix("relay-")?;
        name.strip_suffix("-reply").or_else(|| name.strip_suffix("-control"))?.parse::<DeploymentId>().ok()
    };
    let all: BTreeMap<String, DeploymentId> = urls.iter().filter_map(id).map(|id| (id.to_string(), id)).collect();
    all.into_values().collect()
}

/// The sweep of one region.
struct Sweep<'a> {
    queues: Queues,
    account: AccountId,
    region: &'a Region,
    /// Seconds for which to keep the queues of a finished deployment.
    keep: i64,
    dry_run: bool,
}

impl Sweep<'_> {
    /// Deletes the queues of one deployment if it is over. Returns whether it did, or in a dry run
    /// would have.
    async fn one(&self, id: &DeploymentId) -> Result<bool, Failure> {
        let Self { queues, account, region, keep, dry_run } = self;
        let pair = Pair::of(id, account, region)?;
        let mut tags = Tags::default();
        // The reply queue's tags are kept up to date. A control queue that remains alone has the
        // tags of its creation.
        for queue in [Some(&pair.reply), pair.control.as_ref()].into_iter().flatten() {
            match queues.tags(queue).await {
                Ok(found) => {
                    tags = Tags::parse(&found);
                    break;
                }
                Err(error) if error.kind == Kind::NotFound => {}
                Err(error) => return Err(Failure::aws(&format!("reading the tags of {}", queue.name()), &error)),
            }
        }
        let now = now();
        if tags.deployment.as_ref() != Some(id) || !tags.is_dead(now, *keep) {
            return Ok(false);
        }
        let whose = tags.target.map(|target| format!(" ({target})")).unwrap_or_default();
        let over = tags.deadline.map_or(0, |deadline| now.since(deadline));
        if !*dry_run {
            pair.delete(queues).await?;
        }
        out(&format!("{id}{whose}: over for at least {}", plain_duration(over)));
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_queues_that_are_named_for_a_deployment_are_looked_at() {
        let (a, b) = (DeploymentId::new(1, [1; 10]), DeploymentId::new(2, [2; 10]));
        let url = |name: &str| format!("https://sqs.eu-west-1.amazonaws.com/111111111111/{name}");
        let names = [
            b.reply_queue_name(),
            a.reply_queue_name(),
            a.control_queue_name(),
            "relay-dead-letters".to_owned(),
            "relay-x-reply".to_owned(),
            format!("other-{a}-reply"),
            format!("relay-{a}-other"),
        ];
        assert_eq!(deployments(&names.map(|name| url(&name))), [a, b]);
    }
}
