//! `remove`: takes targets, or a whole installation, out of an account. Without --apply it only
//! shows the plan. Evidence and keys always stay: a record must remain verifiable.

use std::collections::BTreeSet;
use std::io::Write;

use relay_console::Failure;
use relay_protocol::TargetName;
use relay_protocol::outcome::ExitCode;
use serde_json::json;

use crate::account::{self, Account};
use crate::cli::Remove;
use crate::install::{self, CI_STACK, FOUNDATION_STACK, NETWORK_STACK, Resource};

/// The kinds of resources that outlive their stack, by the templates' DeletionPolicy.
const KEPT: &[&str] = &["AWS::S3::Bucket", "AWS::KMS::Key", "AWS::IAM::OIDCProvider"];

/// A stack to delete.
struct Step<'a> {
    account: &'a Account,
    stack: String,
    resources: Vec<Resource>,
}

pub(crate) fn remove(arguments: &Remove, out: &mut impl Write) -> Result<u8, Failure> {
    let region = account::region(arguments.region.as_ref(), &arguments.profile)?;
    let account = Account::of_profile(&arguments.profile, &region)?;
    let steps = steps(arguments, &account)?;
    if steps.is_empty() {
        let names = arguments.targets.iter().map(|target| format!(": no stack {}", install::stack_of(target)));
        let names = names.collect::<Vec<_>>().join("");
        writeln!(out, "nothing to remove in account {} in {region}{names}", account.id)?;
        return Ok(ExitCode::No.code());
    }
    for step in &steps {
        writeln!(out, "delete stack {} in account {} in {region}:", step.stack, step.account.id)?;
        for resource in &step.resources {
            let what = if KEPT.contains(&resource.kind.as_str()) { "keep" } else { "delete" };
            writeln!(out, "  {what} {} {}", resource.kind, resource.id)?;
        }
    }
    writeln!(out, "Buckets with evidence and artifacts, and keys, stay: delete them by hand once nobody needs them.")?;
    if !arguments.apply {
        writeln!(out, "Nothing was removed. To carry this out, add --apply.")?;
        return Ok(0);
    }
    for step in &steps {
        writeln!(out, "deleting stack {}", step.stack)?;
        out.flush()?;
        install::delete(step.account, &step.stack)?;
    }
    for target in &arguments.targets {
        writeln!(out, "Remove the section [targets.\"{target}\"] from relay.toml, and its job from CI.")?;
    }
    writeln!(out, "Removed. The parameters of the stack {CI_STACK} still name what CI was allowed.")?;
    Ok(0)
}

/// The stacks to delete, in order. A stack that others need cannot be deleted.
fn steps<'a>(arguments: &Remove, account: &'a Account) -> Result<Vec<Step<'a>>, Failure> {
    let mut names: Vec<String> = arguments.targets.iter().map(install::stack_of).collect();
    for target in &arguments.targets {
        is_idle(account, target)?;
    }
    if arguments.foundation {
        let users = users(account)?;
        let staying: Vec<&String> = users.iter().filter(|user| !names.contains(user)).collect();
        if !staying.is_empty() {
            let staying = staying.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("the stack {FOUNDATION_STACK} is needed by {staying}"))
                .hint("remove those targets first, or name them in this command"));
        }
        names.extend([NETWORK_STACK, FOUNDATION_STACK].map(str::to_owned));
    }
    if arguments.ci {
        names.push(CI_STACK.to_owned());
    }
    let mut steps = Vec::new();
    for stack in names {
        let resources = install::resources(account, &stack)?;
        if !resources.is_empty() {
            steps.push(Step { account, stack, resources });
        }
    }
    Ok(steps)
}

/// Refuses to remove a target whose tasks run.
fn is_idle(account: &Account, target: &TargetName) -> Result<(), Failure> {
    let running = json!({"cluster": "relay", "family": target.family(), "desiredStatus": "RUNNING"});
    let tasks = match account.call("ecs", "list-tasks", &running) {
        Err(refused) if refused.code == "ClusterNotFoundException" => return Ok(()),
        tasks => tasks?,
    };
    match tasks["taskArns"].as_array().map_or(0, Vec::len) {
        0 => Ok(()),
        n => Err(Failure::usage(format!("{n} deployments of {target} are running"))
            .hint("wait for them, or stop them with `relay-admin stop`")),
    }
}

/// The stacks that import a value of the foundation.
fn users(account: &Account) -> Result<BTreeSet<String>, Failure> {
    let name = format!("{FOUNDATION_STACK}-ExecutionRoleArn");
    match account.call("cloudformation", "list-imports", &json!({ "ExportName": name })) {
        Ok(answer) => {
            let names = answer["Imports"].as_array().into_iter().flatten();
            Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
        }
        // AWS says so if the export does not exist, or nobody imports it.
        Err(refused) if refused.code == "ValidationError" => Ok(BTreeSet::new()),
        Err(refused) => Err(refused.into()),
    }
}
