//! The whole path: deployments on the installed package, from CI to the tool.

use std::path::Path;

use relay_tests::emulator::{CI, Outcome, TARGET, text, wait_for};
use serde_json::json;

use crate::accounts::{Accounts, BUCKET, Ended, LIMIT, PASSWORD};
use crate::deviations;

/// Returns an error with this message if the condition does not hold.
macro_rules! must {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}

pub(crate) fn run(package: &Path) -> Outcome<()> {
    let accounts = Accounts::make("e2e", package, false)?;
    [is_tried, succeeds, fails_with_the_tools_code, is_refused, is_cancelled]
        .iter()
        .try_for_each(|step| step(&accounts))
        .map_err(|error| accounts.with_logs(&error))?;
    deviations::tell(false);
    println!("\nThe whole path works on ministack.");
    Ok(())
}

fn words(ended: &Ended) -> String {
    format!("exit {:?}\n{}\n{}\n{}", ended.code, ended.stdout, ended.stderr, ended.result)
}

fn succeeds(accounts: &Accounts) -> Outcome<()> {
    let deployment = accounts.deploy(&["--param", "code=0", "--param", "wait=yes"])?;
    wait_for("the tool's first line, while it still runs", LIMIT, || {
        Ok(deployment.stdout().contains("hello from the artifact").then_some(()))
    })
    .map_err(|error| format!("{error}; relay says:\n{}", deployment.stderr()))?;
    accounts.go()?;
    let ended = deployment.end()?;
    must!(ended.code == Some(0), "the deployment should have succeeded: {}", words(&ended));
    must!(ended.stdout == "hello from the artifact\ndone\n", "stdout is not the tool's: {}", words(&ended));
    must!(ended.result["output"]["verified"] == true, "the output is not verified: {}", words(&ended));
    must!(ended.result["outputs"]["made"] == "yes", "the tool's output is missing: {}", words(&ended));
    must!(!ended.stderr.contains(PASSWORD), "the password is not masked: {}", words(&ended));
    must!(ended.stderr.contains("the password is "), "the secret is missing: {}", words(&ended));
    must!(ended.result["record"]["payload"].is_string(), "the record is missing: {}", words(&ended));
    let id = text(&ended.result, &["deployment_id"])?;
    let world = &accounts.world;
    evidence_proves(accounts, &ended, &["claim", "request.json", "runner/record.json", "runner/record.sigstore.json"])?;
    let saved =
        world.call(TARGET, "s3", "ListObjectsV2", json!({"Bucket": BUCKET, "Prefix": "saved/example/shop/"}))?;
    must!(saved["KeyCount"] == 1, "the saved files are missing: {saved}");
    let queues = world.call(CI, "sqs", "ListQueues", json!({"QueueNamePrefix": "relay-"}))?;
    must!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "queues are left behind: {queues}");
    let arn = json!([text(&ended.result, &["task_arn"])?]);
    let task = wait_for("ECS to see the end", LIMIT, || {
        let tasks = world.call(TARGET, "ecs", "DescribeTasks", json!({"cluster": "relay", "tasks": arn}))?;
        Ok((tasks["tasks"][0]["lastStatus"] == "STOPPED").then(|| tasks["tasks"][0].clone()))
    })?;
    must!(task["startedBy"] == json!(id) && task["containers"][0]["exitCode"] == 0, "ECS reports this task: {task}");
    let log = accounts.log("/relay/launcher")?;
    must!(log.contains("\"admitted\"") && log.contains(&id), "the launcher's log is not in /relay/launcher:\n{log}");
    println!(
        "ok: exit 0, live, with artifact, secrets, outputs, saved files and record; evidence, queues, task and logs are as expected"
    );
    Ok(())
}

/// Checks that the deployment left evidence with these names, and that `relay verify` proves a copy
/// of it, but not after a change.
fn evidence_proves(accounts: &Accounts, ended: &Ended, names: &[&str]) -> Outcome<()> {
    let id = text(&ended.result, &["deployment_id"])?;
    let (folder, found) = accounts.world.evidence("example/shop", &id)?;
    let missing = names.iter().find(|name| !found.iter().any(|one| one == *name));
    must!(missing.is_none(), "the evidence has no {missing:?}, only {found:?}");
    let configurations = found.iter().filter(|name| name.starts_with("configuration/")).count();
    must!(configurations == 1, "the evidence has {configurations} configurations: {found:?}");
    let copy = accounts.copy_evidence(&folder)?;
    let (code, words) = accounts.verify(&copy)?;
    must!(code == Some(0), "relay verify ends with {code:?}:\n{words}");
    let request = copy.join("request.json");
    let bytes = std::fs::read(&request).map_err(|error| error.to_string())?;
    std::fs::write(&request, [&bytes[..], b" "].concat()).map_err(|error| error.to_string())?;
    let (code, words) = accounts.verify(&copy)?;
    must!(code != Some(0), "relay verify proves evidence that was changed:\n{words}");
    Ok(())
}

/// A dry run answers with the key id of the target key, which must be the pinned one.
fn is_tried(accounts: &Accounts) -> Outcome<()> {
    let ended = accounts.deploy(&["--dry-run", "--param", "code=0", "--param", "wait=no"])?.end()?;
    must!(ended.code == Some(0), "the dry run should have been allowed: {}", words(&ended));
    println!("ok: a dry run is allowed, and its answer fits the pins");
    Ok(())
}

fn fails_with_the_tools_code(accounts: &Accounts) -> Outcome<()> {
    let ended = accounts.deploy(&["--param", "code=37", "--param", "wait=no"])?.end()?;
    must!(
        ended.code == Some(37) && ended.result["decided_by"] == "tool",
        "it should have ended with the tool's 37: {}",
        words(&ended)
    );
    println!("ok: the tool's exit code 37");
    Ok(())
}

fn is_refused(accounts: &Accounts) -> Outcome<()> {
    let ended = accounts.deploy(&["--param", "code=$(id)", "--param", "wait=no"])?.end()?;
    must!(
        ended.code == Some(120) && ended.result["decided_by"] == "relay",
        "it should have been refused: {}",
        words(&ended)
    );
    must!(ended.stdout.is_empty(), "something ran: {}", words(&ended));
    evidence_proves(
        accounts,
        &ended,
        &["claim", "request.json", "launcher/record.json", "launcher/record.sigstore.json"],
    )?;
    println!("ok: a bad parameter is refused, exit 120, and the launcher's record says so");
    Ok(())
}

fn is_cancelled(accounts: &Accounts) -> Outcome<()> {
    let deployment = accounts.deploy(&["--param", "code=0", "--param", "wait=yes"])?;
    wait_for("the tool to run", LIMIT, || Ok(deployment.stdout().contains("hello").then_some(())))
        .map_err(|error| format!("{error}; relay says:\n{}", deployment.stderr()))?;
    deployment.interrupt()?;
    let ended = deployment.end()?;
    must!(ended.code == Some(130), "it should have been cancelled: {}", words(&ended));
    println!("ok: an interrupted job stops the tool, exit 130");
    Ok(())
}
