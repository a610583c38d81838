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
    [succeeds, fails_with_the_tools_code, is_refused, is_cancelled]
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
    world.call(TARGET, "s3", "HeadObject", json!({"Bucket": BUCKET, "Key": format!("claims/{id}")}))?;
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
        "ok: exit 0, live, with artifact, secrets, outputs, saved files and record; claim, queues, task and logs are as expected"
    );
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
    println!("ok: a bad parameter is refused, exit 120");
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
