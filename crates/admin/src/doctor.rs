//! `doctor`: compares the files of targets with what their accounts have, over many accounts. It
//! only reads.

use std::io::Write;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use relay_policy::Configuration;
use relay_protocol::Digest;
use relay_protocol::outcome::ExitCode;
use serde_json::json;

use crate::account::{Account, Refused};
use crate::cli::Doctor;
use crate::install::{FOUNDATION_STACK, stack_of};
use crate::target;

pub(crate) fn doctor(arguments: &Doctor, out: &mut impl Write) -> Result<u8, Failure> {
    let files = if arguments.all { all(Path::new("targets"))? } else { arguments.files.clone() };
    let mut sick = 0_usize;
    for file in &files {
        let problems = match target::load(file) {
            Err(failure) => vec![failure.error],
            Ok((text, configuration)) => look(arguments, &text, &configuration),
        };
        match problems.is_empty() {
            true => writeln!(out, "{}: ok", file.display())?,
            false => sick += 1,
        }
        problems.iter().try_for_each(|problem| writeln!(out, "{}: {problem}", file.display()))?;
    }
    if sick == 0 {
        return Ok(0);
    }
    writeln!(out, "{sick} of {} targets need somebody", files.len())?;
    Ok(ExitCode::No.code())
}

/// The configurations in a folder, by name.
fn all(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| target::unreadable(folder, &error))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    files.sort();
    match files.is_empty() {
        false => Ok(files),
        true => Err(Failure::usage(format!("there is no .toml in {}", folder.display()))),
    }
}

/// The problems of one target.
fn look(arguments: &Doctor, text: &str, configuration: &Configuration) -> Vec<String> {
    let topic = &configuration.topic;
    let profile = arguments.profile.replace("{account}", topic.account().as_str());
    let account = match Account::of_profile(&profile, topic.region()) {
        Err(failure) => return vec![failure.error],
        Ok(account) if account.id != *topic.account() => {
            return vec![format!("profile {profile} is of account {}, not {}", account.id, topic.account())];
        }
        Ok(account) => account,
    };
    let checks: [&dyn Fn() -> Result<Option<String>, Refused>; 3] =
        [&|| foundation(&account), &|| stack(&account, &stack_of(&configuration.target)), &|| {
            pinned(&account, text, configuration)
        }];
    checks.iter().filter_map(|check| check().unwrap_or_else(|refused| Some(refused.to_string()))).collect()
}

/// Whether the foundation is there, with the launcher of this version.
fn foundation(account: &Account) -> Result<Option<String>, Refused> {
    let version = env!("CARGO_PKG_VERSION");
    Ok(match account.parameters(FOUNDATION_STACK)? {
        None => Some(format!("account {} has no stack {FOUNDATION_STACK}", account.id)),
        Some(parameters) => {
            let key = parameters.get("CodeKey").map(String::as_str).unwrap_or_default();
            let other = format!("the launcher is {key}, and this relay-admin has version {version}");
            (!key.contains(version)).then_some(other)
        }
    })
}

/// Whether the last change of a stack went well.
fn stack(account: &Account, name: &str) -> Result<Option<String>, Refused> {
    let Some(stack) = account.stack(name)? else {
        return Ok(Some(format!("account {} has no stack {name}", account.id)));
    };
    let status = stack["StackStatus"].as_str().unwrap_or_default();
    let fine = ["CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"].contains(&status);
    Ok((!fine).then(|| format!("the stack {name} is in the state {status}")))
}

/// Whether the task definition pins this very file.
fn pinned(account: &Account, text: &str, configuration: &Configuration) -> Result<Option<String>, Refused> {
    let family = configuration.target.family();
    let answer = account.call("ecs", "describe-task-definition", &json!({ "taskDefinition": family }))?;
    let containers = answer["taskDefinition"]["containerDefinitions"].as_array().into_iter().flatten();
    let mut words = containers.flat_map(|container| container["entryPoint"].as_array().into_iter().flatten());
    let digest = json!(Digest::of(text.as_bytes()));
    let other = "another version of this file is deployed: `relay-admin target render --diff` shows how it differs";
    Ok((!words.any(|word| *word == digest)).then(|| other.to_owned()))
}
