//! `init --apply`: shows the plan, then installs the stacks and writes the files, so that nothing
//! that one stack puts out is typed into another. It can be run again: for a second target, or
//! after a failure. Files that exist are kept, and stacks keep what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use serde_json::json;

use super::accounts::Accounts;
use super::answers::{Answers, Questions};
use super::files::{HEAD, KEY_FILE, Parameters, write_new};
use crate::account::Account;
use crate::cli::{Ci, Init, Render};
use crate::install::{self, CI_STACK, FOUNDATION_STACK, NETWORK_STACK, flat, public_key};
use crate::{render, target};

/// Parameters that are lists: a further target adds to them.
const LISTS: &[&str] = &["Subjects", "TopicArns", "QueueRegions", "TargetAccountIds", "CiAccountIds", "CiRoleArns"];

/// Parameters that decide what a stack is. A further target cannot change them.
const FIXED: &[&str] = &["Provider", "ExistingRoleName", "Architecture"];

/// Carries out the plan.
pub(super) fn apply(
    mut answers: Answers,
    accounts: &Accounts,
    arguments: &Init,
    questions: &mut Questions<'_, '_, impl Write>,
    out: &mut impl Write,
) -> Result<u8, Failure> {
    let zip = install::launcher_zip(arguments.launcher_zip.as_deref())?;
    let network = Network::of(arguments, &accounts.target)?;
    other_region(&answers, accounts)?;
    left_over(accounts)?;
    write!(out, "{}", plan(&answers, accounts, &network)?)?;
    if arguments.dry_run {
        return Ok(0);
    }
    if !questions.confirm("Carry it out? (yes or no)")? {
        return Err(Failure::usage("nothing was made"));
    }
    let outputs = install_ci(&answers, accounts, out)?;
    if answers.signer.is_none() {
        let arn = outputs.get("SigningKeyArn").cloned();
        let arn = arn.ok_or_else(|| Failure::usage("the stack relay-ci has no signing key: pass --new-key"))?;
        answers.signer = Some(public_key(&accounts.ci, &arn)?);
        answers.kms_key = Some(arn);
    }
    install_foundation(&answers, accounts, &zip, out)?;
    let (vpc, subnets) = network.install(&answers, &accounts.target, out)?;
    for (path, text, mode) in files(&answers, arguments)? {
        keep_or_write(&arguments.dir.join(&path), &text, mode, out)?;
    }
    install_target(&answers, accounts, arguments, (&vpc, &subnets), out)?;
    answers.target_public_key = Some(public_key(&accounts.target, &target_key(&answers))?);
    answers.answer_public_key = Some(public_key(&accounts.target, "alias/relay-answer")?);
    add_to_relay_toml(&answers, &arguments.dir, out)?;
    write!(out, "{}", last_steps(&answers))?;
    Ok(0)
}

fn target_key(answers: &Answers) -> String {
    answers.target_key.clone().unwrap_or_else(|| answers.target.key_alias())
}

/// Where tasks run.
enum Network {
    Subnets {
        vpc: String,
        ids: Vec<String>,
    },
    /// The stack of network.yaml, which may be there already.
    New,
}

impl Network {
    fn of(arguments: &Init, account: &Account) -> Result<Self, Failure> {
        if arguments.new_network {
            return Ok(Self::New);
        }
        if arguments.subnets.is_empty() {
            return Err(Failure::usage("say where tasks run: --subnets subnet-…,subnet-… or --new-network").hint(
                "private subnets with a way to AWS cost nothing more; --new-network costs about 102 US dollars a month",
            ));
        }
        Ok(Self::Subnets { vpc: install::vpc_of(account, &arguments.subnets)?, ids: arguments.subnets.clone() })
    }

    fn install(
        &self,
        answers: &Answers,
        account: &Account,
        out: &mut impl Write,
    ) -> Result<(String, Vec<String>), Failure> {
        match self {
            Self::Subnets { vpc, ids } => Ok((vpc.clone(), ids.clone())),
            Self::New => {
                let parameters = vec![("CiAccountIds", answers.ci_account.to_string())];
                let outputs = stack(account, NETWORK_STACK, install::NETWORK, (parameters, None), out)?;
                Ok(install::network_in(&outputs))
            }
        }
    }
}

/// Refuses a second stack of the CI account in another region.
fn other_region(answers: &Answers, accounts: &Accounts) -> Result<(), Failure> {
    let role = json!({"RoleName": "relay-ci"});
    let made_here = accounts.ci.parameters(CI_STACK)?.is_some();
    if answers.ci == Ci::Jenkins || made_here || accounts.ci.call("iam", "get-role", &role).is_err() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "account {} has the role relay-ci, and no stack {CI_STACK} in {}",
        accounts.ci.id, accounts.ci.region
    ))
    .hint("the CI account has one stack, in one region: name that region with --ci-region"))
}

/// Refuses to make a stack whose buckets an earlier one has left: their names are fixed, so
/// CloudFormation could not make them.
fn left_over(accounts: &Accounts) -> Result<(), Failure> {
    let name = |prefix: &str, account: &Account| format!("{prefix}-{}-{}", account.id, account.region);
    for (account, stack, bucket) in [
        (&accounts.ci, CI_STACK, name("relay-artifacts", &accounts.ci)),
        (&accounts.target, FOUNDATION_STACK, name("relay-evidence", &accounts.target)),
        (&accounts.target, FOUNDATION_STACK, name("relay", &accounts.target)),
    ] {
        let is_there = account.call("s3api", "head-bucket", &json!({ "Bucket": bucket })).is_ok();
        if is_there && account.parameters(stack)?.is_none() {
            let problem =
                format!("account {} has no stack {stack}, and an earlier one left the bucket {bucket}", account.id);
            return Err(Failure::usage(problem).hint(
                "empty and delete that bucket if nobody needs its evidence, or import it into a stack of that name",
            ));
        }
    }
    Ok(())
}

/// The plan in words: each stack, whether it is created or updated, and what it costs.
fn plan(answers: &Answers, accounts: &Accounts, network: &Network) -> Result<String, Failure> {
    let stack = |account: &Account, name: &str| {
        let there = account.parameters(name)?.is_some();
        Ok::<_, Failure>(format!("{} stack {name}", if there { "update" } else { "create" }))
    };
    let (network, cost) = match network {
        Network::Subnets { ids, .. } => (format!("tasks run in {}", ids.join(", ")), ""),
        Network::New => (
            format!("{}: a VPC with two private subnets and AWS's endpoints", stack(&accounts.target, NETWORK_STACK)?),
            ", and about 102 for the endpoints of the network",
        ),
    };
    let key = if answers.signer.is_none() { ", and a signing key in KMS" } else { "" };
    Ok(format!(
        "In the CI account {ci}, {ci_region}:\n\
         \x20 {ci_stack}: CI's role {role}{key},\n\
         \x20   both for every target that this CI account may ask (infra/README.md: one role for each pipeline)\n\
         In the target account {target}, {region}:\n\
         \x20 bucket {bucket}: the launcher's code\n\
         \x20 {foundation}: topic, launcher, cluster, evidence\n\
         \x20 {network}\n\
         \x20 {target_stack}: the target {of}, which may do what targets/{name}.policy.json allows\n\
         In this folder: relay.toml, targets/{name}.toml and its policy, a CI job; what exists is kept\n\
         Cost a month, altogether: about 5 US dollars for an account, 1 for each further target{cost}\n",
        ci = accounts.ci.id,
        ci_region = accounts.ci.region,
        ci_stack = stack(&accounts.ci, CI_STACK)?,
        foundation = stack(&accounts.target, FOUNDATION_STACK)?,
        target_stack = stack(&accounts.target, &install::stack_of(&answers.target))?,
        role = answers.ci_role(),
        target = accounts.target.id,
        region = answers.region,
        bucket = answers.code_bucket,
        name = flat(&answers.target),
        of = answers.target,
    ))
}

/// Adds what a stack has already to the parameters for it. A list grows; what the parameters do not
/// name stays as it is.
fn merged(stack: &str, old: &BTreeMap<String, String>, new: Parameters) -> Result<Vec<(String, String)>, Failure> {
    let merge = |(name, value): (&'static str, String)| {
        let before = old.get(name).map(String::as_str).unwrap_or_default();
        if before.is_empty() || before == value {
            return Ok((name.to_owned(), value));
        }
        if FIXED.contains(&name) {
            return Err(Failure::usage(format!(
                "the stack {stack} has {name} {before}, and this target needs {value:?}"
            ))
            .hint("a target for another CI system or architecture needs accounts of its own, or stacks by hand"));
        }
        // An account has one provider for each issuer, and it stays with the stack that made it.
        let value = match name {
            "CreateProvider" if before == "true" => before.to_owned(),
            name if LISTS.contains(&name) => union(before, &value),
            _ => value,
        };
        Ok((name.to_owned(), value))
    };
    new.into_iter().map(merge).collect()
}

fn union(old: &str, new: &str) -> String {
    let mut seen = BTreeSet::new();
    old.split(',').chain(new.split(',')).filter(|one| seen.insert(*one)).collect::<Vec<_>>().join(",")
}

fn stack(
    account: &Account,
    name: &str,
    template: &str,
    (parameters, bucket): (Parameters, Option<&str>),
    out: &mut impl Write,
) -> Result<BTreeMap<String, String>, Failure> {
    let old = account.parameters(name)?.unwrap_or_default();
    let parameters = merged(name, &old, parameters)?;
    writeln!(out, "stack {name} in account {}", account.id)?;
    out.flush()?;
    account.deploy(name, template, &parameters, bucket)
}

fn install_ci(
    answers: &Answers,
    accounts: &Accounts,
    out: &mut impl Write,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut parameters = answers.ci_account_parameters();
    if answers.signer.is_none() {
        parameters.push(("SigningKey", "true".to_owned()));
    }
    if answers.ci != Ci::Jenkins && !has_provider(&accounts.ci, answers.ci)? {
        parameters.retain(|(name, _)| *name != "CreateProvider");
        parameters.push(("CreateProvider", "true".to_owned()));
    }
    stack(&accounts.ci, CI_STACK, install::CI_ACCOUNT, (parameters, None), out)
}

/// Whether the account has an OpenID Connect provider for a CI system's issuer.
fn has_provider(account: &Account, ci: Ci) -> Result<bool, Failure> {
    let issuer = if ci == Ci::Gitlab { "/gitlab.com" } else { "/token.actions.githubusercontent.com" };
    let answer = account.call("iam", "list-open-id-connect-providers", &json!({}))?;
    let mut all = answer["OpenIDConnectProviderList"].as_array().into_iter().flatten();
    Ok(all.any(|one| one["Arn"].as_str().is_some_and(|arn| arn.ends_with(issuer))))
}

fn install_foundation(answers: &Answers, accounts: &Accounts, zip: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let (account, bucket) = (&accounts.target, answers.code_bucket.as_str());
    if let Err(refused) = account.call("s3api", "head-bucket", &json!({ "Bucket": bucket })) {
        // S3 does not say why it refuses this call. A bucket of somebody else cannot be made.
        if !refused.code.contains("404") && !refused.code.contains("NoSuchBucket") {
            return Err(Failure::from(refused).hint(format!("the bucket {bucket} may belong to another account")));
        }
        writeln!(out, "bucket {bucket} in account {}", account.id)?;
        install::make_bucket(account, bucket)?;
        let block = json!({
            "BlockPublicAcls": true, "IgnorePublicAcls": true, "BlockPublicPolicy": true, "RestrictPublicBuckets": true,
        });
        account.call(
            "s3api",
            "put-public-access-block",
            &json!({"Bucket": bucket, "PublicAccessBlockConfiguration": block}),
        )?;
    }
    install::upload(account, bucket, &answers.code_key(), zip)?;
    let parameters = answers.foundation_parameters();
    stack(account, FOUNDATION_STACK, install::FOUNDATION, (parameters, Some(bucket)), out)?;
    Ok(())
}

fn install_target(
    answers: &Answers,
    accounts: &Accounts,
    arguments: &Init,
    (vpc, subnets): (&str, &[String]),
    out: &mut impl Write,
) -> Result<(), Failure> {
    let name = flat(&answers.target);
    let file = arguments.dir.join(format!("targets/{name}.toml"));
    let (_, configuration) = target::load(&file)?;
    // A configuration that was written before names its images, or leaves them to the flags.
    let flags = configuration.images.is_none();
    let render = Render {
        deploy_policy: Some(arguments.dir.join(format!("targets/{name}.policy.json"))),
        image: arguments.image.clone().filter(|_| flags),
        runner_image: arguments.runner_image.clone().filter(|_| flags),
        arm64: arguments.arm64,
        ..Render::of(file)
    };
    let template = render::text(&render, out)?;
    let parameters = vec![("VpcId", vpc.to_owned()), ("Subnets", subnets.join(","))];
    stack(&accounts.target, &install::stack_of(&answers.target), &template, (parameters, None), out)?;
    Ok(())
}

/// The files of this target and of its CI job, with their modes.
fn files(answers: &Answers, arguments: &Init) -> Result<Vec<(PathBuf, String, u32)>, Failure> {
    let mut files = Vec::new();
    for (path, text) in answers.files()? {
        let path = match path.parent() {
            // relay.toml comes last, with the pins; the stacks themselves have their parameters.
            Some(folder) if folder == Path::new("") || folder == Path::new("parameters") => continue,
            Some(folder) if folder == Path::new("ci") => job(&path, &text, answers, &arguments.dir),
            _ => path,
        };
        files.push((path, text, 0o644));
    }
    if let Some(key) = &answers.new_key {
        files.push((PathBuf::from(KEY_FILE), key.to_pem().to_string(), 0o600));
    }
    Ok(files)
}

/// The path of the CI job: one with the target's name, if the usual one is another target's.
fn job(path: &Path, text: &str, answers: &Answers, dir: &Path) -> PathBuf {
    match fs::read_to_string(dir.join(path)) {
        Ok(present) if present != text && !present.contains(&format!("relay deploy {} ", answers.target)) => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            path.with_file_name(format!("{}-{name}", flat(&answers.target)))
        }
        _ => path.to_owned(),
    }
}

fn keep_or_write(path: &Path, text: &str, mode: u32, out: &mut impl Write) -> Result<(), Failure> {
    if path.symlink_metadata().is_ok() {
        writeln!(out, "kept {}", path.display())?;
        return Ok(());
    }
    write_new(path, text, mode)?;
    writeln!(out, "wrote {}", path.display())?;
    Ok(())
}

/// Adds the target's section to relay.toml, unless the file has one.
fn add_to_relay_toml(answers: &Answers, dir: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let path = dir.join("relay.toml");
    let failed = |error: std::io::Error| Failure::usage(format!("cannot write {}: {error}", path.display()));
    let present = match fs::read_to_string(&path) {
        Ok(present) => present,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => HEAD.to_owned(),
        Err(error) => return Err(failed(error)),
    };
    if present.contains(&format!("[targets.\"{}\"]", answers.target)) {
        let pins = [&answers.target_public_key, &answers.answer_public_key];
        if pins.into_iter().flatten().all(|key| present.contains(&key.to_string())) {
            writeln!(out, "kept {}", path.display())?;
            return Ok(());
        }
        let problem = format!("{} has other keys for {} than the stacks", path.display(), answers.target);
        return Err(Failure::usage(problem)
            .hint(format!("remove that section, and run this again; it becomes:\n{}", answers.section())));
    }
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(failed)?;
    let gap = if present == HEAD { "" } else { "\n" };
    file.write_all(format!("{present}{gap}{}", answers.section()).as_bytes()).map_err(failed)?;
    writeln!(out, "wrote {}, with both public keys", path.display())?;
    Ok(())
}

fn last_steps(answers: &Answers) -> String {
    let secret = match (&answers.kms_key, &answers.new_key) {
        (None, Some(_)) => format!("Give {KEY_FILE} to CI as the secret RELAY_SIGNING_KEY.\n"),
        _ => String::new(),
    };
    format!(
        "\nInstalled. {secret}Commit these files, and take the job from ci/ into your pipeline.\n\
         Then, in a CI job: relay doctor --try {}\n",
        answers.target
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_target_adds_to_the_lists_of_a_stack() {
        let old = [("TopicArns", "a,b"), ("Provider", "github"), ("CreateProvider", "true"), ("CodeKey", "old")];
        let old: BTreeMap<String, String> =
            old.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let new = |provider: &str| {
            let pairs = [("TopicArns", "b,c"), ("Provider", provider), ("CreateProvider", "false"), ("CodeKey", "new")];
            pairs.map(|(name, value)| (name, value.to_owned())).to_vec()
        };
        let merged_ones = merged("relay-ci", &old, new("github")).unwrap();
        let of = |name: &str| merged_ones.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str()).unwrap();
        assert_eq!([of("TopicArns"), of("CreateProvider"), of("CodeKey")], ["a,b,c", "true", "new"]);
        assert!(merged("relay-ci", &old, new("gitlab")).unwrap_err().error.contains("Provider github"));
    }
}
