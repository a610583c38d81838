//! The claim and the locks in S3, by the rules of [`relay_engine::claim`] and
//! [`relay_engine::lock`]. The claim decides which process may run a deployment. The locks limit
//! how many deployments of a target run at a time.

use std::time::Duration;

use data_encoding::HEXLOWER;
use relay_aws::clock::now;
use relay_aws::objects::{Condition, Objects};
use relay_aws::tasks::Tasks;
use relay_aws::{AwsError, Kind};
use relay_engine::Backoff;
use relay_engine::claim::{self, After, Put};
use relay_engine::lock::{self, Content, Slot};
use relay_policy::{Configuration, TICKET_USED};
use relay_protocol::claim::{Claim, Holder, Lock, LockHolder};
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::{DeploymentId, Digest, Reason, RequestRef};

use crate::start::Refusal;
use crate::workplace::StepError;

/// How often a write of a claim or a lock is attempted while S3 does not answer or reports a race.
const TRIES: u32 = 8;

/// Pause after a lost race, so that the winner's write is visible.
const RACE: Duration = Duration::from_millis(100);

/// Writes the claim `key` for this process, or fails with the holder's name if another process was
/// faster.
///
/// The claim contains a nonce of this process. If the response to a write is lost, the retry
/// reports that the object exists. The nonce then tells this process's claim from a stranger's.
pub(crate) async fn claim(
    objects: &Objects,
    bucket: &str,
    key: &str,
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
    match write_once(objects, bucket, key, &claim.to_bytes()).await? {
        Once::Written => Ok(()),
        Once::Stands(bytes) => {
            let stands = bytes.and_then(|bytes| Claim::parse(&bytes).ok());
            if claim::is_mine(stands.as_ref(), &claim) { Ok(()) } else { Err(lost_to(stands)) }
        }
    }
}

/// The result of writing an object that is written once.
enum Once {
    /// This process has written it.
    Written,
    /// It exists already, with these bytes. It may be this process's own: the response to an
    /// earlier try may have been lost.
    Stands(Option<Vec<u8>>),
}

/// Writes an object that is written once. Tries again while it is unclear whether it was written.
async fn write_once(objects: &Objects, bucket: &str, key: &str, body: &[u8]) -> Result<Once, AwsError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for attempt in 1.. {
        let put = match objects.put(bucket, key, body.to_vec(), Condition::Absent).await {
            Ok(_) => Put::Written,
            Err(error) if error.kind == Kind::Precondition => Put::Exists,
            Err(error) if error.is_transient() && attempt < TRIES => Put::Unclear,
            Err(error) => return Err(error),
        };
        match claim::after_put(put) {
            After::Won => break,
            After::ReadBack => {
                let stands = objects.get(bucket, key, CLAIM_MAX as u64).await?;
                return Ok(Once::Stands(stands.map(|object| object.bytes)));
            }
            After::Again => tokio::time::sleep(backoff.pause()).await,
        }
    }
    Ok(Once::Written)
}

fn lost_to(stands: Option<Claim>) -> Refusal {
    Refusal::Replayed(match stands.map(|claim| claim.holder) {
        Some(Holder::Runner { task_arn, .. }) => task_arn,
        Some(Holder::Launcher { reason, .. }) => format!("the launcher, which answered {reason}"),
        // An unreadable claim is still a claim.
        None => "a holder that relay cannot read".to_owned(),
    })
}

/// Marks the ticket of the request as used by writing the object `key`, or fails if another
/// deployment has used it (clause APP-5).
pub(crate) async fn use_ticket(objects: &Objects, bucket: &str, key: &str, mine: &RequestRef) -> Result<(), StepError> {
    let body = mine.to_json().into_bytes();
    let odd = |error: AwsError| StepError::new(Reason::Runner, format!("cannot mark the ticket as used: {error}"));
    match write_once(objects, bucket, key, &body).await.map_err(odd)? {
        Once::Stands(bytes) if bytes.as_ref() != Some(&body) => Err(StepError::new(Reason::Approval, TICKET_USED)),
        Once::Written | Once::Stands(_) => Ok(()),
    }
}

/// A slot that this deployment holds.
#[derive(Debug)]
pub(crate) struct Held {
    key: String,
    etag: String,
}

/// The result of an attempt to take a slot.
#[derive(Debug)]
pub(crate) enum Taken {
    /// This deployment holds a slot.
    Held(Held),
    /// All slots are held. Names the holder of the last one tried.
    Busy(String),
}

/// Takes one of the target's slots if [`lock`] finds one free.
pub(crate) async fn take_lock(
    objects: &Objects,
    tasks: &Tasks,
    configuration: &Configuration,
    id: &DeploymentId,
    task_arn: &str,
) -> Result<Taken, AwsError> {
    let mine = LockHolder { deployment_id: id.clone(), task_arn: task_arn.to_owned(), taken_at: now().unix() };
    let body = Lock { holder: Some(mine.clone()) }.to_bytes();
    let mut busy = String::new();
    for number in lock::order(lock::first(id, configuration.concurrency), configuration.concurrency) {
        let key = Lock::key(&configuration.target, number);
        let object = objects.get(&configuration.bucket, &key, CLAIM_MAX as u64).await?;
        let content = Content::of(object.as_ref().map(|object| object.bytes.as_slice()));
        let slot = match content.holder() {
            Some(holder) if *holder == mine => Slot::Mine,
            Some(holder) => {
                let task = tasks.describe(holder.cluster(), &holder.task_arn).await?;
                Slot::of(&content, task.as_ref(), now())
            }
            None => Slot::of(&content, None, now()),
        };
        if !slot.is_free() {
            busy = content.by(&key);
            continue;
        }
        let condition = object.as_ref().map_or(Condition::Absent, |object| Condition::Matches(&object.etag));
        match put(objects, &configuration.bucket, &key, &body, condition).await {
            Ok(etag) => return Ok(Taken::Held(Held { key, etag })),
            Err(error) if matches!(error.kind, Kind::Precondition | Kind::Conflict) => {
                tokio::time::sleep(RACE).await;
                // The response to this process's own write may have been lost: it then holds the
                // lock.
                if let Some(object) = objects.get(&configuration.bucket, &key, CLAIM_MAX as u64).await?
                    && Content::of(Some(&object.bytes)) == Content::Held(mine.clone())
                {
                    return Ok(Taken::Held(Held { key, etag: object.etag }));
                }
                busy = "another deployment that took the lock first".to_owned();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Taken::Busy(busy))
}

/// Writes a lock. S3's 409 reports a concurrent write, not that the slot is taken, so the write is
/// retried.
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

/// Frees a slot. If that fails, the next deployment finds this task STOPPED and takes the slot
/// over.
pub(crate) async fn release(objects: &Objects, bucket: &str, held: &Held) {
    let empty = Lock::default().to_bytes();
    if let Err(problem) = put(objects, bucket, &held.key, &empty, Condition::Matches(&held.etag)).await {
        tracing::warn!(%problem, key = held.key, "cannot release the lock; it becomes free when ECS reports that this task has stopped");
    }
}
