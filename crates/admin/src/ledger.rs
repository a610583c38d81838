//! `ledger verify`: reads the ledger and the objects that it lists, and says what is missing or
//! changed. [`relay_engine::ledger`] decides (clauses LED-3, LED-4).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use relay_aws::clock::now;
use relay_aws::objects::{Listed, Objects};
use relay_aws::{AwsError, Sdk};
use relay_console::Failure;
use relay_engine::ledger::{Audit, Problem, Terms};
use relay_protocol::keys::SingleKey;
use relay_protocol::ledger::{DEPLOYMENTS, FOLDER, lists};
use relay_protocol::limits::LEDGER_ENTRY_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{DeploymentId, PublicKey};
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
    let entries = objects.list_all(&bucket, FOLDER).await.map_err(reading)?;
    let mut problems = Vec::new();
    for Listed { key, .. } in &entries {
        let entry = objects.get(&bucket, key, 2 * LEDGER_ENTRY_MAX as u64).await.map_err(reading)?;
        let bytes = entry.map(|object| object.bytes).unwrap_or_default();
        audit.entry(key, &bytes);
        if let Some(archive) = &arguments.archive {
            problems.extend(archived(&objects, archive, &format!("{bucket}/{key}"), &bytes).await?);
        }
    }
    let all = objects.list_all(&bucket, DEPLOYMENTS).await.map_err(reading)?;
    let found: BTreeSet<String> = all.iter().map(|object| object.key.clone()).collect();
    let count = compare(&objects, &bucket, all, &mut audit).await.map_err(reading)?;
    problems.extend(audit.end(&found));
    problems.extend(unclaimed(&started, &found));

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

/// Compares an entry with its copy.
async fn archived(objects: &Objects, archive: &str, key: &str, bytes: &[u8]) -> Result<Option<Problem>, Failure> {
    let copy = objects.get(archive, key, 2 * LEDGER_ENTRY_MAX as u64).await;
    let copy = copy.map_err(|error| Failure::aws(&format!("reading s3://{archive}/{key}"), &error))?;
    let text = match copy {
        Some(copy) if copy.bytes == bytes => return Ok(None),
        Some(_) => "differs from the entry in the evidence bucket",
        None => "is not in the archive",
    };
    Ok(Some(Problem { object: format!("s3://{archive}/{key}"), text: text.to_owned() }))
}

/// Reads every object that the ledger may list. Returns how many there are.
async fn compare(objects: &Objects, bucket: &str, all: Vec<Listed>, audit: &mut Audit) -> Result<usize, AwsError> {
    let mut waiting = all.into_iter().filter(|object| lists(&object.key));
    let (mut reads, mut count) = (JoinSet::new(), 0);
    loop {
        while reads.len() < AT_ONCE
            && let Some(Listed { key, written_at }) = waiting.next()
        {
            let (objects, bucket) = (objects.clone(), bucket.to_owned());
            reads.spawn(async move { (objects.digest(&bucket, &key).await, key, written_at) });
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
    error_code: Option<String>,
    request_parameters: Option<Parameters>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    started_by: Option<String>,
}

/// The deployments whose tasks were started, by CloudTrail's word.
fn trails(files: &[impl AsRef<Path>]) -> Result<BTreeSet<DeploymentId>, Failure> {
    let mut started = BTreeSet::new();
    for file in files.iter().map(AsRef::as_ref) {
        let text = std::fs::read(file).map_err(|error| unreadable(file, &error))?;
        let trail: Trail = serde_json::from_slice(&text)
            .map_err(|error| Failure::usage(format!("{} is not a file of CloudTrail: {error}", file.display())))?;
        let runs =
            trail.records.into_iter().filter(|event| event.event_name == "RunTask" && event.error_code.is_none());
        let ids = runs.filter_map(|event| event.request_parameters?.started_by?.parse().ok());
        started.extend(ids);
    }
    Ok(started)
}

fn unclaimed<'a>(
    started: &'a BTreeSet<DeploymentId>,
    found: &'a BTreeSet<String>,
) -> impl Iterator<Item = Problem> + 'a {
    let missing = |id: &&DeploymentId| !found.iter().any(|key| key.ends_with(&format!("/{id}/claim")));
    started
        .iter()
        .filter(missing)
        .map(|id| Problem { object: id.to_string(), text: "has a task, by CloudTrail, and no claim".to_owned() })
}
