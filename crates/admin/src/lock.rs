//! `lock show` and `lock clear`: the slots of a target, with an operator's credentials in the
//! target account. The rule for a slot is the runner's own (clauses LCK-1 to LCK-3), but a person
//! may also free a slot that cannot be read, or whose task ECS does not know.

use std::io::Write;

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::{Condition, Objects};
use relay_aws::tasks::Tasks;
use relay_console::Failure;
use relay_engine::lock::{Content, Slot};
use relay_policy::Configuration;
use relay_protocol::claim::Lock;
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::outcome::ExitCode;

use crate::{cli, target};

/// One slot as it is found.
struct Found {
    key: String,
    /// The object's ETag, if there is one.
    etag: Option<String>,
    content: Content,
    slot: Slot,
}

/// Runs the command. Returns 1 if it was to free a slot and did not.
pub(crate) async fn lock(arguments: &cli::Lock, out: &mut impl Write) -> Result<u8, Failure> {
    match arguments {
        cli::Lock::Show { file } => {
            let (_, configuration) = target::load(file)?;
            let sdk = Sdk::from_environment(Some(configuration.topic.region())).await;
            for number in 0..configuration.concurrency {
                let found = find(&sdk, &configuration, number).await?;
                writeln!(out, "{number}  {}  {}", words(found.slot), found.content.by(&found.key))?;
            }
            Ok(0)
        }
        cli::Lock::Clear { file, slot } => {
            let (_, configuration) = target::load(file)?;
            if *slot >= configuration.concurrency {
                return Err(Failure::usage(format!("{} has no slot {slot}", configuration.target)));
            }
            let sdk = Sdk::from_environment(Some(configuration.topic.region())).await;
            clear(&sdk, &configuration, *slot, out).await
        }
    }
}

async fn find(sdk: &Sdk, configuration: &Configuration, number: u32) -> Result<Found, Failure> {
    let key = Lock::key(&configuration.target, number);
    let doing = format!("reading s3://{}/{key}", configuration.bucket);
    let object = Objects::new(sdk).get(&configuration.bucket, &key, CLAIM_MAX as u64).await;
    let object = object.map_err(|error| Failure::aws(&doing, &error))?;
    let content = Content::of(object.as_ref().map(|object| object.bytes.as_slice()));
    let task = match content.holder() {
        Some(holder) => {
            let task = Tasks::new(sdk).describe(holder.cluster(), &holder.task_arn).await;
            task.map_err(|error| Failure::aws(&format!("asking ECS about {}", holder.task_arn), &error))?
        }
        None => None,
    };
    let slot = Slot::of(&content, task.as_ref(), now());
    Ok(Found { key, etag: object.map(|object| object.etag), content, slot })
}

async fn clear(sdk: &Sdk, configuration: &Configuration, number: u32, out: &mut impl Write) -> Result<u8, Failure> {
    let Found { key, etag, content, slot } = find(sdk, configuration, number).await?;
    let (Some(etag), false) = (etag, slot == Slot::Empty) else {
        writeln!(out, "slot {number} of {} is free", configuration.target)?;
        return Ok(ExitCode::No.code());
    };
    if slot == Slot::Alive {
        let failure =
            format!("slot {number} is held by {}, and ECS knows its task: nothing was freed", content.by(&key));
        return Err(Failure::new(ExitCode::No, failure)
            .hint("stop the deployment first: `relay cancel`, or in an emergency `relay-admin stop`"));
    }
    // Only the content that was looked at is replaced.
    let condition = Condition::Matches(&etag);
    let written = Objects::new(sdk).put(&configuration.bucket, &key, Lock::default().to_bytes(), condition).await;
    written.map_err(|error| Failure::aws(&format!("writing s3://{}/{key}", configuration.bucket), &error))?;
    writeln!(out, "freed slot {number} of {}, which was held by {}", configuration.target, content.by(&key))?;
    Ok(0)
}

fn words(slot: Slot) -> &'static str {
    match slot {
        Slot::Empty => "free",
        Slot::Mine | Slot::Alive => "held",
        Slot::Stopped => "held by a task that has stopped",
        Slot::Forgotten => "held by a task that ECS does not know",
        Slot::Fresh => "held by a task that ECS does not know yet",
        Slot::Unreadable => "unreadable",
    }
}
