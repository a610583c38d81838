//! The claim and the lock: which process may run a deployment, and how many deployments of a target at a time (clauses CLM-1 to CLM-5, LCK-1 to LCK-3).

use std::time::Duration;

use data_encoding::HEXLOWER;
use relay_aws::clock::now;
use relay_aws::objects::{Condition, Objects};
use relay_aws::tasks::Tasks;
use relay_aws::{AwsError, Kind};
use relay_policy::Configuration;
use relay_protocol::claim::{Claim, Holder, Lock, LockHolder};
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::{DeploymentId, Digest};

use crate::start::Refusal;

/// How often a claim is tried while S3 does not answer or says that two raced.
const TRIES: u32 = 8;

/// The pause after a lost race, so that who won it can be seen.
const RACE: Duration = Duration::from_millis(100);

/// Seconds after which a lock whose task ECS does not know any more is free: a new task may not be known yet.
const UNKNOWN_HOLDER: i64 = 600;

/// Claims `id` for this process, or says who was faster. The body has a nonce of this process: a write whose answer was lost comes back as
/// "exists", and is then told from a stranger's by it.
pub(crate) async fn claim(
    objects: &Objects,
    bucket: &str,
    id: &DeploymentId,
    request: Digest,
    task_arn: &str,
) -> Result<(), Refusal> {
    let mut random = [0_u8; 16];
    let no_random = |error: getrandom::Error| AwsError {
        operation: "getrandom",
        kind: Kind::Invalid,
        code: None,
        message: error.to_string(),
        resources: Vec::new(),
    };
    getrandom::fill(&mut random).map_err(no_random)?;
    let claim = Claim {
        request_digest: request,
        holder: Holder::Runner { task_arn: task_arn.to_owned(), nonce: HEXLOWER.encode(&random) },
    };
    let key = Claim::key(id);
    let mut pause = Duration::from_millis(100);
    for attempt in 1.. {
        match objects.put(bucket, &key, claim.to_bytes(), Condition::Absent).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == Kind::Precondition => {
                let stands = objects.get(bucket, &key, CLAIM_MAX as u64).await?;
                return match stands.map(|object| Claim::parse(&object.bytes)) {
                    Some(Ok(stands)) if stands == claim => Ok(()),
                    Some(Ok(Claim { holder: Holder::Runner { task_arn, .. }, .. })) => Err(Refusal::Replayed(task_arn)),
                    Some(Ok(Claim { holder: Holder::Launcher { reason, .. }, .. })) => {
                        Err(Refusal::Replayed(format!("the launcher, which said {reason}")))
                    }
                    // A claim that cannot be read still claims.
                    Some(Err(_)) | None => Err(Refusal::Replayed("a claim that cannot be read".to_owned())),
                };
            }
            Err(error) if error.is_transient() && attempt < TRIES => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A slot that this deployment holds.
#[derive(Debug)]
pub(crate) struct Held {
    key: String,
    etag: String,
}

/// What came of the attempt to take a slot.
#[derive(Debug)]
pub(crate) enum Taken {
    /// One is held.
    Held(Held),
    /// All are held by others; the id of one of them.
    Busy(DeploymentId),
}

/// Takes one of the target's slots. A slot is taken over only from a task that ECS says is STOPPED, or no longer knows when the lock is older
/// than ten minutes.
pub(crate) async fn lock(
    objects: &Objects,
    tasks: &Tasks,
    configuration: &Configuration,
    id: &DeploymentId,
    task_arn: &str,
) -> Result<Taken, AwsError> {
    let mine = LockHolder { deployment_id: id.clone(), task_arn: task_arn.to_owned(), taken_at: now().unix() };
    let body = Lock { holder: Some(mine.clone()) }.to_bytes();
    let first = u32::from(Digest::of(id.as_str().as_bytes()).as_bytes()[0]) % configuration.concurrency;
    let mut busy = None;
    // Twice round: a slot that was lost in a race may be free the next time.
    for slot in (0..configuration.concurrency * 2).map(|n| (first + n) % configuration.concurrency) {
        let key = Lock::key(&configuration.target, slot);
        let object = objects.get(&configuration.bucket, &key, CLAIM_MAX as u64).await?;
        let holder = match object.as_ref().map(|object| Lock::parse(&object.bytes)) {
            Some(Ok(lock)) => lock.holder,
            // A lock that cannot be read is somebody's: a newer runner's, perhaps.
            Some(Err(error)) => {
                let message = format!("the lock {key} cannot be read: {error}");
                return Err(AwsError {
                    operation: "s3:GetObject",
                    kind: Kind::Invalid,
                    code: None,
                    message,
                    resources: Vec::new(),
                });
            }
            None => None,
        };
        if let Some(holder) = holder.filter(|holder| *holder != mine) {
            let free = match tasks.describe(holder.cluster(), &holder.task_arn).await? {
                Some(task) => task.last_status == "STOPPED",
                None => now().unix() - holder.taken_at > UNKNOWN_HOLDER,
            };
            if !free {
                busy = Some(holder.deployment_id);
                continue;
            }
        }
        let condition = object.as_ref().map_or(Condition::Absent, |object| Condition::Matches(&object.etag));
        match put(objects, &configuration.bucket, &key, &body, condition).await {
            Ok(etag) => return Ok(Taken::Held(Held { key, etag })),
            Err(error) if matches!(error.kind, Kind::Precondition | Kind::Conflict) => {
                tokio::time::sleep(RACE).await;
                // The answer to one's own write may have been lost: then the lock is held after all.
                if let Some(object) = objects.get(&configuration.bucket, &key, CLAIM_MAX as u64).await?
                    && Lock::parse(&object.bytes).is_ok_and(|lock| lock.holder.as_ref() == Some(&mine))
                {
                    return Ok(Taken::Held(Held { key, etag: object.etag }));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Taken::Busy(busy.unwrap_or_else(|| id.clone())))
}

/// Writes a lock. S3's 409 says only that somebody wrote at the same time, not that the slot is taken: the next try tells.
async fn put(
    objects: &Objects,
    bucket: &str,
    key: &str,
    body: &[u8],
    condition: Condition<'_>,
) -> Result<String, AwsError> {
    for _ in 1..TRIES {
        match objects.put(bucket, key, body.to_vec(), condition).await {
            Err(error) if error.kind == Kind::Conflict => tokio::time::sleep(RACE).await,
            result => return result,
        }
    }
    objects.put(bucket, key, body.to_vec(), condition).await
}

/// Frees a slot. If that fails, the next deployment finds this task STOPPED and takes the slot over.
pub(crate) async fn release(objects: &Objects, bucket: &str, held: &Held) {
    let empty = Lock::default().to_bytes();
    if let Err(problem) = put(objects, bucket, &held.key, &empty, Condition::Matches(&held.etag)).await {
        tracing::warn!(%problem, key = held.key, "the lock was not released; it is free as soon as ECS says that this task has stopped");
    }
}
