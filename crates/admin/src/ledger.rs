//! `ledger verify`: reads the ledger and the objects that it lists, and says what is missing or
//! changed. [`relay_engine::ledger`] decides (clauses LED-3, LED-4).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use relay_aws::clock::now;
use relay_aws::objects::{Listed, Objects};
use relay_aws::{AwsError, Kind, Sdk};
use relay_console::Failure;
use relay_engine::ledger::{Audit, Problem, Terms};
use relay_protocol::evidence::Evidence;
use relay_protocol::keys::SingleKey;
use relay_protocol::ledger::{DEPLOYMENTS, FOLDER, OBJECT_MAX, day_of};
use relay_protocol::limits::LEDGER_ENTRY_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::task::family_of;
use relay_protocol::{DeploymentId, PublicKey, TargetName};
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::cli;
use crate::target::{self, unreadable};

/// How many objects are read at the same time.
const AT_ONCE: usize = 16;

/// Verifies the ledger. Returns 1 if anything is missing or changed.
pub(crate) async fn verify(arguments: &cli::VerifyLedger, out: &mut impl Write) -> Result<u8, Failure> {
    let (_, configuration) = target::load(&arguments.file)?;
    let bucket = configuration.evidence.clone();
    let keys = arguments.keys.iter().map(|text| key(text)).collect::<Result<_, _>>()?;
    let started = trails(&arguments.trails)?;
    let objects = Objects::new(&Sdk::from_environment(Some(configuration.topic.region())).await);
    let reading = |error: AwsError| Failure::aws(&format!("reading s3://{bucket}"), &error);
    let retention_days = i64::from(arguments.retention_days);
    let mut audit = Audit::new(Terms { bucket: bucket.clone(), keys, now: now(), retention_days });

    // The ledger first: what is written from here on is not covered.
    let entries = objects.list_all(&bucket, FOLDER, |_| true).await.map_err(reading)?;
    let entries: BTreeSet<String> = entries.into_iter().map(|entry| entry.key).collect();
    let mut problems = Vec::new();
    for name in &entries {
        let bytes = read(&objects, &bucket, name).await.map_err(reading)?.unwrap_or_default();
        audit.entry(name, &bytes);
        if let Some(archive) = &arguments.archive {
            problems.extend(archived(&objects, archive, &format!("{bucket}/{name}"), &bytes).await?);
        }
    }
    if let Some(archive) = &arguments.archive {
        problems.extend(only_archived(&objects, archive, &bucket, &entries).await?);
    }
    let all = objects.list_all(&bucket, DEPLOYMENTS, |object| day_of(&object.key).is_some()).await.map_err(reading)?;
    let found: BTreeSet<String> = all.iter().map(|object| object.key.clone()).collect();
    let count = compare(&objects, &bucket, all, &mut audit).await.map_err(reading)?;
    problems.extend(audit.end(&found));
    problems.extend(started.iter().filter_map(|started| unclaimed(started, &found)));

    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    let (entries, objects) = (entries.len(), count);
    if problems.is_empty() {
        writeln!(out, "{bucket}: {entries} entries without a gap; {objects} claims and records as they were listed")?;
        writeln!(out, "not covered: what was never claimed, and what was removed before an entry listed it")?;
        return Ok(0);
    }
    writeln!(out, "{bucket}: {} of {entries} entries and {objects} objects are not proved", problems.len())?;
    Ok(ExitCode::No.code())
}

fn key(text: &str) -> Result<SingleKey, Failure> {
    let public: PublicKey =
        text.trim().parse().map_err(|problem| Failure::usage(format!("--key is not a public key: {problem}")))?;
    SingleKey::new(&public).map_err(|problem| Failure::usage(format!("--key: {problem}")))
}

/// Reads an entry, or a copy of one. An object that is too large is read as an empty one, which
/// proves nothing.
async fn read(objects: &Objects, bucket: &str, name: &str) -> Result<Option<Vec<u8>>, AwsError> {
    match objects.get(bucket, name, 2 * LEDGER_ENTRY_MAX as u64).await {
        Err(error) if error.kind == Kind::Invalid => Ok(Some(Vec::new())),
        object => Ok(object?.map(|object| object.bytes)),
    }
}

/// Compares an entry with its copy.
async fn archived(objects: &Objects, archive: &str, key: &str, bytes: &[u8]) -> Result<Option<Problem>, Failure> {
    let copy = read(objects, archive, key).await;
    let copy = copy.map_err(|error| Failure::aws(&format!("reading s3://{archive}/{key}"), &error))?;
    let text = match copy {
        Some(copy) if copy == bytes => return Ok(None),
        Some(_) => "differs from the entry in the evidence bucket",
        None => "is not in the archive",
    };
    Ok(Some(Problem { object: format!("s3://{archive}/{key}"), text: text.to_owned() }))
}

/// The copies of entries that the evidence bucket does not have any more. Those before its first
/// entry may have expired there, which the audit judges.
async fn only_archived(
    objects: &Objects,
    archive: &str,
    bucket: &str,
    entries: &BTreeSet<String>,
) -> Result<Vec<Problem>, Failure> {
    let prefix = format!("{bucket}/");
    let copies = objects.list_all(archive, &format!("{prefix}{FOLDER}"), |_| true).await;
    let copies = copies.map_err(|error| Failure::aws(&format!("listing s3://{archive}/{prefix}{FOLDER}"), &error))?;
    let names = copies.iter().filter_map(|copy| copy.key.strip_prefix(&prefix));
    let is_missing = |name: &&str| !entries.contains(*name) && entries.first().is_none_or(|first| **name > **first);
    let removed = |name: &str| Problem {
        object: name.to_owned(),
        text: format!("was removed: its copy is s3://{archive}/{prefix}{name}"),
    };
    Ok(names.filter(is_missing).map(removed).collect())
}

/// Reads every object that the ledger lists or must list. Returns how many there are.
async fn compare(objects: &Objects, bucket: &str, all: Vec<Listed>, audit: &mut Audit) -> Result<usize, AwsError> {
    let mut waiting = all.into_iter();
    let (mut reads, mut count) = (JoinSet::new(), 0);
    loop {
        while reads.len() < AT_ONCE
            && let Some(Listed { key, written_at, size }) = waiting.next()
        {
            let (objects, bucket) = (objects.clone(), bucket.to_owned());
            reads.spawn(async move {
                // No entry lists an object that is larger than this, so its bytes do not matter.
                let is_read = size <= OBJECT_MAX;
                let digest = if is_read { objects.digest(&bucket, &key, OBJECT_MAX).await } else { Ok(None) };
                (digest, key, written_at)
            });
        }
        let Some(read) = reads.join_next().await else { return Ok(count) };
        // A read that panicked or was cancelled leaves its object unseen, which the audit reports.
        if let Ok((digest, key, written_at)) = read {
            audit.object(&key, written_at, digest?);
            count += 1;
        }
    }
}

/// A file of CloudTrail.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Trail {
    records: Vec<Event>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(default)]
    event_name: String,
    #[serde(default, rename = "eventID")]
    event_id: String,
    error_code: Option<String>,
    request_parameters: Option<Started>,
}

/// What a task was started with, by CloudTrail's word.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    started_by: Option<String>,
    #[serde(default)]
    task_definition: String,
    #[serde(skip)]
    event_id: String,
}

impl Started {
    /// The target that the task definition belongs to.
    fn target(&self) -> Option<TargetName> {
        TargetName::of_family(family_of(&self.task_definition))
    }

    fn deployment_id(&self) -> Option<DeploymentId> {
        self.started_by.as_ref()?.parse().ok()
    }
}

/// The tasks of relay's families and of deployments, which were started by CloudTrail's word.
fn trails(files: &[impl AsRef<Path>]) -> Result<Vec<Started>, Failure> {
    let mut all = Vec::new();
    for file in files.iter().map(AsRef::as_ref) {
        let text = std::fs::read(file).map_err(|error| unreadable(file, &error))?;
        let trail: Trail = serde_json::from_slice(&text)
            .map_err(|error| Failure::usage(format!("{} is not a file of CloudTrail: {error}", file.display())))?;
        let runs =
            trail.records.into_iter().filter(|event| event.event_name == "RunTask" && event.error_code.is_none());
        let started = runs.filter_map(|event| Some(Started { event_id: event.event_id, ..event.request_parameters? }));
        all.extend(started.filter(|started| started.target().is_some() || started.deployment_id().is_some()));
    }
    Ok(all)
}

/// A task that no claim of its target stands for.
fn unclaimed(started: &Started, found: &BTreeSet<String>) -> Option<Problem> {
    let text = |text: String| Some(Problem { object: format!("the RunTask event {}", started.event_id), text });
    let definition = &started.task_definition;
    match (started.target(), started.deployment_id()) {
        (Some(target), Some(id)) if found.contains(&Evidence::of(&target, &id).claim()) => None,
        (Some(target), Some(id)) => text(format!("started a task for {id} of {target}, which has no claim")),
        (Some(target), None) => text(format!("started a task of {target} for no deployment")),
        (None, _) => text(format!("started a deployment's task of {definition:?}, which is no target's")),
    }
}
