//! `relay-admin selftest` on two ministack accounts: it shows exactly the listed differences, and
//! leaves nothing behind, also when a person stops it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use relay_tests::emulator::{CI, Outcome, TARGET, World, wait_for};
use serde_json::{Value, json};

use crate::accounts::named;
use crate::shim::Lab;

/// The checks that do not end as on AWS on ministack, and why.
const KNOWN: &str = "src/emulator/known-differences.txt";

/// What a whole self-test may take. Generous: nothing waits for it to pass.
const LIMIT: Duration = Duration::from_secs(1_800);

pub(crate) fn run(package: &Path) -> Outcome<()> {
    let lab = Lab::make("selftest", package)?;
    let world = &lab.world;
    let before = everything(world)?;
    let selftest = |more: &[&str]| {
        let mut command = lab.program("relay-admin", &world.folder);
        command.args(["selftest", "--ci-profile", "ci", "--target-profile", "target", "--image", &lab.image.named()]);
        command.args(more);
        command
    };

    let planned = selftest(&["--dry-run"]).status().map_err(named("relay-admin"))?;
    expect(planned.success() && everything(world)? == before, "a dry run plans, and makes nothing")?;

    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join(KNOWN).display().to_string();
    let report = world.folder.join("report.json");
    let mut whole = selftest(&["--known-differences", &known, "--report", &report.display().to_string()]);
    let mut whole = whole.spawn().map_err(named("relay-admin"))?;
    let status = wait_for("the self-test", LIMIT, || whole.try_wait().map_err(named("relay-admin")))?;
    expect(status.success(), "the self-test shows the listed differences and no other")?;
    let rest = left(world, &before)?;
    expect(rest.is_empty(), &format!("nothing is left behind: {rest:?}"))?;
    is_signed_and_anonymous(&report)?;

    // Stopped while the stacks are being made.
    let mut stopped = selftest(&["--only", "deployment-succeeds", "--report", "stopped.json"]);
    let mut stopped = stopped.spawn().map_err(named("relay-admin"))?;
    wait_for("the first stack", LIMIT, || {
        let stacks = world.call(CI, "cloudformation", "DescribeStacks", json!({}))?;
        Ok(stacks["Stacks"].as_array().filter(|stacks| !stacks.is_empty()).map(|_| ()))
    })?;
    let interrupt = Command::new("kill").args(["-INT", &stopped.id().to_string()]).status().map_err(named("kill"))?;
    expect(interrupt.success(), "a Ctrl-C")?;
    let status = wait_for("the end of the stopped self-test", LIMIT, || stopped.try_wait().map_err(named("kill")))?;
    expect(status.code() == Some(130), &format!("a stopped self-test ends with {status}"))?;
    let rest = left(world, &before)?;
    expect(rest.is_empty(), &format!("nothing is left after Ctrl-C: {rest:?}"))?;
    println!("\nThe self-test works on ministack, and leaves nothing behind.");
    Ok(())
}

pub(crate) fn expect(holds: bool, what: &str) -> Outcome<()> {
    if holds {
        println!("ok: {what}");
        Ok(())
    } else {
        Err(format!("not so: {what}"))
    }
}

/// Checks the report's signature with the key that it names, and that it names no account.
fn is_signed_and_anonymous(report: &Path) -> Outcome<()> {
    let text = fs::read_to_string(report).map_err(named(report.display()))?;
    let envelope: Value = serde_json::from_str(&text).map_err(named(report.display()))?;
    let payload = envelope["payload"].as_str().unwrap_or_default();
    let payload = relay_protocol::encoding::from_base64(payload).map_err(named("the payload"))?;
    let words = String::from_utf8_lossy(&payload).into_owned();
    expect(!words.contains(CI) && !words.contains(TARGET), "the report names no account")?;
    let content: Value = serde_json::from_str(&words).map_err(named("the payload"))?;
    let key = content["key"].as_str().unwrap_or_default().parse().map_err(named("the key"))?;
    let key = relay_protocol::keys::VerifyingKey::from_spki(&key).map_err(named("the key"))?;
    // The text that DSSE signs: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
    let kind = envelope["payloadType"].as_str().unwrap_or_default();
    let signed = [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), &payload].concat();
    let signature = envelope["signatures"][0]["sig"].as_str().unwrap_or_default();
    let signature = relay_protocol::encoding::from_base64(signature).map_err(named("the signature"))?;
    expect(key.verify(&signed, &signature), "the report's signature fits")?;
    expect(content["complete"] == true && content["left"] == json!([]), "the report is complete")
}

/// The names of what exists in both accounts.
pub(crate) fn everything(world: &World) -> Outcome<Vec<String>> {
    let mut all = Vec::new();
    for account in [CI, TARGET] {
        for (service, operation, list, name) in [
            ("cloudformation", "DescribeStacks", "Stacks", "StackName"),
            ("s3", "ListBuckets", "Buckets", "Name"),
            ("sqs", "ListQueues", "QueueUrls", ""),
            ("sns", "ListTopics", "Topics", "TopicArn"),
            ("iam", "ListRoles", "Roles", "RoleName"),
            ("iam", "ListOpenIDConnectProviders", "OpenIDConnectProviderList", "Arn"),
            ("events", "ListRules", "Rules", "Name"),
            ("lambda", "ListFunctions", "Functions", "FunctionName"),
            ("ecs", "ListClusters", "clusterArns", ""),
            ("ecs", "ListTaskDefinitions", "taskDefinitionArns", ""),
            ("logs", "DescribeLogGroups", "logGroups", "logGroupName"),
            ("ec2", "DescribeVpcs", "Vpcs", "VpcId"),
            ("kms", "ListAliases", "Aliases", "AliasName"),
        ] {
            let answer = world.call(account, service, operation, json!({}))?;
            let names = answer[list].as_array().into_iter().flatten();
            let names = names.filter_map(|one| if name.is_empty() { one.as_str() } else { one[name].as_str() });
            all.extend(names.map(|name| format!("{account} {service} {name}")));
        }
        let keys = world.call(account, "kms", "ListKeys", json!({}))?;
        for key in keys["Keys"].as_array().into_iter().flatten() {
            let described = world.call(account, "kms", "DescribeKey", json!({"KeyId": key["KeyId"]}))?;
            let metadata = &described["KeyMetadata"];
            if metadata["KeyState"] != "PendingDeletion" && metadata["KeyManager"] != "AWS" {
                all.push(format!("{account} kms {}", metadata["Arn"]));
            }
        }
    }
    all.sort();
    Ok(all)
}

/// What exists now and did not exist before.
fn left(world: &World, before: &[String]) -> Outcome<Vec<String>> {
    Ok(everything(world)?.into_iter().filter(|name| !before.contains(name)).collect())
}
