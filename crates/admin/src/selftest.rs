//! `selftest`: tries out in two real accounts what relay assumes about AWS.
//!
//! [`assumptions`] is the table; each check works on a [`trial::Trial`], which takes down what was
//! made. First come the checks that need nothing, then relay is installed, then those that need it.

pub(crate) mod assumptions;
mod deployments;
mod queues;
mod roles;
mod storage;
mod tasks;
mod trial;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use relay_aws::clock::now;
use relay_console::Failure;
use relay_protocol::Envelope;
use relay_protocol::keys::PrivateKey;
use relay_protocol::outcome::ExitCode;
use serde_json::json;

use crate::account::{self, Account};
use crate::cli::{Render, Selftest};
use crate::{install, render};
use assumptions::{Assumption, BARE, INSTALLED, all};
use trial::{Place, Problem, Trial, Verdict};

/// The type of the report's payload.
const TYPE: &str = "application/vnd.relay.selftest+json";

/// How long a self-test takes, in hours, for the estimate of its cost.
const HOURS: f64 = 1.0;

/// The finding about one assumption.
struct Found {
    name: &'static str,
    verdict: Verdict,
    seconds: u64,
}

impl Found {
    fn words(&self) -> (&'static str, &str) {
        match &self.verdict {
            Verdict::AsOnAws(found) => ("as on AWS", found),
            Verdict::Differs(found) => ("differs", found),
            Verdict::NotApplicable(found) => ("not applicable", found),
        }
    }

    fn is_as_on_aws(&self) -> bool {
        matches!(self.verdict, Verdict::AsOnAws(_))
    }
}

pub(crate) fn selftest(arguments: &Selftest, out: &mut impl Write) -> Result<u8, Failure> {
    let known = arguments.known_differences.as_deref().map(known_differences).transpose()?.unwrap_or_default();
    if let Some(odd) = arguments.only.iter().find(|name| all().all(|one| one.name != **name)) {
        let names: Vec<&str> = all().map(|one| one.name).collect();
        return Err(
            Failure::usage(format!("there is no check {odd}")).hint(format!("the checks: {}", names.join(", ")))
        );
    }
    let region = account::region(arguments.region.as_ref(), &arguments.target_profile)?;
    let ci = Account::of_profile(&arguments.ci_profile, &region)?;
    let target = Account::of_profile(&arguments.target_profile, &region)?;
    if ci.id == target.id {
        return Err(Failure::usage(format!("both profiles are of account {}", ci.id))
            .hint("relay keeps CI out of the target account, so the self-test needs two accounts"));
    }
    plan(arguments, &ci, &target, out)?;
    is_free(&ci, &target)?;
    if arguments.dry_run {
        return Ok(0);
    }
    let zip = install::launcher_zip(arguments.launcher_zip.as_deref())?;
    let key = match &arguments.key {
        Some(file) => {
            let pem = fs::read_to_string(file).map_err(|error| crate::target::unreadable(file, &error))?;
            PrivateKey::from_pem(&pem).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?
        }
        None => PrivateKey::from_seed(crate::random()?),
    };
    let interrupted = listen()?;
    let name = format!("relay-selftest-{}", data_encoding::HEXLOWER.encode(&crate::random::<4>()?));
    let mut trial = Trial::new(ci, target, name, interrupted);
    let began = (now(), Instant::now());
    let mut found = Vec::new();
    let outcome = checks(arguments, &zip, &mut trial, &mut found, out);
    writeln!(out, "\ntaking down what was made; this takes some minutes")?;
    let left = trial.take_down();
    for what in &left {
        writeln!(out, "left behind: {what}")?;
    }
    let report = json!({
        "relay": relay_console::version(), "began": began.0, "seconds": began.1.elapsed().as_secs(), "region": region,
        "complete": outcome.is_ok() && arguments.only.is_empty(),
        "checks": found.iter().map(|one| {
            let (verdict, words) = one.words();
            json!({"name": one.name, "verdict": verdict, "found": words, "seconds": one.seconds})
        }).collect::<Vec<_>>(),
        "cost": {"usd": cost(began.1.elapsed().as_secs_f64() / 3_600.0, arguments.subnets.is_empty())},
        "left": left, "key": key.public(),
    });
    let report = anonymous(&report.to_string(), &trial);
    let signed = key.sign_envelope(Envelope::new(TYPE, report.into_bytes()));
    let text = serde_json::to_string_pretty(&signed).unwrap_or_default();
    fs::write(&arguments.report, text + "\n")
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", arguments.report.display())))?;
    writeln!(out, "wrote the signed report {}, without account numbers", arguments.report.display())?;
    outcome?;
    let holds = judge(arguments, &found, &known, out)?;
    Ok(if holds && left.is_empty() { 0 } else { ExitCode::No.code() })
}

/// Reads lines of `NAME: WHY`. Empty lines and lines that begin with # are skipped.
fn known_differences(file: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text = fs::read_to_string(file).map_err(|error| crate::target::unreadable(file, &error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| match line.split_once(": ") {
        Some((name, why)) if all().any(|one| one.name == name) => Ok((name.to_owned(), why.to_owned())),
        Some((name, _)) => Err(Failure::usage(format!("{}: there is no check {name}", file.display()))),
        None => Err(Failure::usage(format!("{}: write each line as NAME: WHY, not {line}", file.display()))),
    };
    lines.map(read).collect()
}

/// Refuses accounts in which relay is installed: names would collide.
fn is_free(ci: &Account, target: &Account) -> Result<(), Failure> {
    for (account, stack) in [(ci, install::CI_STACK), (target, install::FOUNDATION_STACK)] {
        if account.parameters(stack)?.is_some() {
            return Err(Failure::usage(format!("account {} has the stack {stack} already", account.id))
                .hint("use two accounts without relay, and with nothing of value"));
        }
    }
    Ok(())
}

/// Says what is going to be made, and what it costs.
fn plan(arguments: &Selftest, ci: &Account, target: &Account, out: &mut impl Write) -> Result<(), Failure> {
    let network = match arguments.subnets.is_empty() {
        true => format!("the stack of network.yaml, with {} interface endpoints in two zones", install::ENDPOINTS),
        false => "no network: tasks run in the given subnets".to_owned(),
    };
    writeln!(
        out,
        "in the CI account {}: a role, the stack of ci-account.yaml, queues\n\
         in the target account {}: the stack of foundation.yaml, {network}, the stack of a target,\n\
         buckets, queues, a topic, roles, an EventBridge rule, keys, task definitions; about 20 tasks\n\
         all names begin with relay-selftest- or are those of an installation\n\
         checks: {}\n\
         cost: about {:.2} US dollars, if it takes an hour (list prices of us-east-1; docs/operations.md has them)",
        ci.id,
        target.id,
        all().filter(|one| wanted(arguments, one)).count(),
        cost(HOURS, arguments.subnets.is_empty()),
    )?;
    Ok(())
}

/// US dollars for a self-test of so many hours: endpoints by the hour and zone, seven keys for an
/// hour of their month, and twenty tasks of two minutes on a vCPU and 2 GB. Requests cost less than
/// a cent.
fn cost(hours: f64, network: bool) -> f64 {
    let endpoints = if network { f64::from(install::ENDPOINTS) * 2.0 * 0.01 * hours.max(1.0) } else { 0.0 };
    let tasks = 20.0 * (2.0 / 60.0) * (0.04048 + 2.0 * 0.004_445);
    let cents = (endpoints + 7.0 / 730.0 * hours + tasks + 0.005) * 100.0;
    cents.ceil() / 100.0
}

/// Sets the flag at the first SIGINT or SIGTERM.
fn listen() -> Result<&'static AtomicBool, Failure> {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = {
        use tokio::signal::unix::{SignalKind, signal};
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        let (mut interrupt, mut terminate) = signals;
        loop {
            runtime.block_on(async {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            });
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(&INTERRUPTED)
}

fn wanted(arguments: &Selftest, one: &Assumption) -> bool {
    arguments.only.is_empty() || arguments.only.iter().any(|name| name == one.name)
}

/// Makes all checks.
fn checks(
    arguments: &Selftest,
    zip: &Path,
    trial: &mut Trial<'_>,
    found: &mut Vec<Found>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    check_all(arguments, BARE, trial, found, out)?;
    if !INSTALLED.iter().any(|one| wanted(arguments, one)) {
        return Ok(());
    }
    writeln!(out, "\ninstalling relay in both accounts")?;
    let place = installed(arguments, zip, trial).map_err(|problem| match problem {
        Problem::Interrupted => stopped(),
        Problem::Refused(refused) => refused.into(),
        Problem::Other(why) => Failure::new(ExitCode::Fault, format!("cannot install relay: {why}")),
    })?;
    trial.place = Some(place);
    check_all(arguments, INSTALLED, trial, found, out)
}

fn stopped() -> Failure {
    Failure::new(ExitCode::Interrupted, "the self-test was stopped")
}

fn check_all(
    arguments: &Selftest,
    of: &'static [Assumption],
    trial: &mut Trial<'_>,
    found: &mut Vec<Found>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    for one in of.iter().filter(|one| wanted(arguments, one)) {
        trial.go_on().map_err(|_| stopped())?;
        let began = Instant::now();
        let verdict = match (one.check)(trial) {
            Ok(verdict) => verdict,
            Err(Problem::Interrupted) => return Err(stopped()),
            Err(Problem::Refused(refused)) => Verdict::Differs(refused.to_string()),
            Err(Problem::Other(why)) => Verdict::Differs(why),
        };
        let one = Found { name: one.name, verdict, seconds: began.elapsed().as_secs() };
        let (verdict, words) = one.words();
        writeln!(out, "{:<28} {verdict}: {words}", one.name)?;
        out.flush()?;
        found.push(one);
    }
    Ok(())
}

/// Installs relay in both accounts, with one target.
fn installed(arguments: &Selftest, zip: &Path, trial: &Trial<'_>) -> Result<Place, Problem> {
    let folder = fs::canonicalize(std::env::temp_dir())?.join(&trial.name);
    fs::create_dir_all(&folder)?;
    let remove = folder.clone();
    trial.later(format!("folder {}", folder.display()), move || {
        // A folder that stays in the temporary folder does no harm.
        let _ = fs::remove_dir_all(&remove);
        Ok(())
    });
    let role = trial.role(&trial.ci, "ci", &["sts:AssumeRole"], None)?;
    install_accounts(arguments, zip, trial, &role)?;
    let (vpc, subnets) = network(arguments, trial)?;
    let key = PrivateKey::from_seed(crate::random()?);
    fs::write(folder.join("ci.pem"), key.to_pem())?;
    let target = install_target(arguments, trial, &folder, &key, (&vpc, &subnets))?;
    let foundation = trial.target.outputs(&trial.name)?;
    let output = |outputs: &BTreeMap<String, String>, name: &str| {
        outputs.get(name).cloned().ok_or_else(|| Problem::Other(format!("a stack has no output {name}")))
    };
    Ok(Place {
        subnets,
        security_group: output(&target, "SecurityGroupId")?,
        execution_role: output(&foundation, "ExecutionRoleArn")?,
        image: arguments.image.name().to_owned(),
        ci: trial.assume(&trial.ci, &role)?,
        folder,
    })
}

/// Deploys a stack that is removed in the end, with the keys and buckets that it keeps.
fn stack(
    trial: &Trial<'_>,
    account: &Account,
    name: &str,
    template: &str,
    (parameters, bucket): (Vec<(&str, String)>, Option<&str>),
) -> Result<BTreeMap<String, String>, Problem> {
    trial.go_on()?;
    let (owner, stack) = (account.clone(), name.to_owned());
    trial.later(format!("stack {name} in account {}", account.id), move || {
        let made = install::resources(&owner, &stack)?;
        install::delete(&owner, &stack)?;
        made.iter().try_for_each(|resource| match resource.kind.as_str() {
            "AWS::S3::Bucket" => trial::remove_bucket(&owner, &resource.id).or_else(gone),
            "AWS::KMS::Key" => {
                let key = json!({"KeyId": resource.id, "PendingWindowInDays": 7});
                owner.call("kms", "schedule-key-deletion", &key).map(|_| ()).or_else(gone)
            }
            _ => Ok(()),
        })
    });
    let parameters: Vec<_> = parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(account.deploy(name, template, &parameters, bucket)?)
}

fn gone(refused: account::Refused) -> Result<(), account::Refused> {
    if trial::is_gone(&refused) { Ok(()) } else { Err(refused) }
}

/// The CI account and the foundation.
fn install_accounts(arguments: &Selftest, zip: &Path, trial: &Trial<'_>, role: &str) -> Result<(), Problem> {
    let (ci, target, name) = (&trial.ci, &trial.target, &trial.name);
    let region = target.region.to_string();
    let parameters = vec![
        ("Provider", "none".to_owned()),
        ("ExistingRoleName", role.rsplit('/').next().unwrap_or_default().to_owned()),
        ("TopicArns", install::topic(&target.region, &target.id)),
        ("QueueRegions", region),
        ("TargetAccountIds", target.id.to_string()),
    ];
    stack(trial, ci, &format!("{name}-ci"), install::CI_ACCOUNT, (parameters, None))?;
    let bucket = format!("{name}-code");
    trial::make_bucket(trial, target, &bucket)?;
    install::upload(target, &bucket, "relay-launcher.zip", zip)?;
    let parameters = vec![
        ("CiAccountIds", ci.id.to_string()),
        ("CiRoleArns", role.to_owned()),
        ("CodeBucket", bucket.clone()),
        ("CodeKey", "relay-launcher.zip".to_owned()),
        ("Architecture", if arguments.arm64 { "arm64" } else { "x86_64" }.to_owned()),
    ];
    stack(trial, target, name, install::FOUNDATION, (parameters, Some(&bucket)))?;
    Ok(())
}

/// The VPC and the subnets of the tasks.
fn network(arguments: &Selftest, trial: &Trial<'_>) -> Result<(String, Vec<String>), Problem> {
    if !arguments.subnets.is_empty() {
        return Ok((install::vpc_of(&trial.target, &arguments.subnets)?, arguments.subnets.clone()));
    }
    let name = format!("{}-network", trial.name);
    let parameters = vec![("CiAccountIds", trial.ci.id.to_string())];
    let outputs = stack(trial, &trial.target, &name, install::NETWORK, (parameters, None))?;
    Ok(install::network_in(&outputs))
}

/// The target, and what CI knows about it.
fn install_target(
    arguments: &Selftest,
    trial: &Trial<'_>,
    folder: &Path,
    key: &PrivateKey,
    (vpc, subnets): (&str, &[String]),
) -> Result<BTreeMap<String, String>, Problem> {
    let file = folder.join("target.toml");
    fs::write(&file, configuration(trial, key))?;
    let render = Render {
        image: Some(arguments.image.clone()),
        runner_image: arguments.runner_image.clone(),
        arm64: arguments.arm64,
        ..Render::of(file)
    };
    let template = render::text(&render, &mut std::io::sink())?;
    let parameters =
        vec![("Foundation", trial.name.clone()), ("VpcId", vpc.to_owned()), ("Subnets", subnets.join(","))];
    let outputs = stack(trial, &trial.target, &format!("{}-target", trial.name), &template, (parameters, None))?;
    let toml = format!(
        "[targets.\"{target}\"]\ntopic = \"{}\"\ntarget_key = \"{}\"\nanswer_key = \"{}\"\n",
        install::topic(&trial.target.region, &trial.target.id),
        install::public_key(&trial.target, "alias/relay-selftest-shell")?,
        install::public_key(&trial.target, "alias/relay-answer")?,
        target = deployments::TARGET,
    );
    fs::write(folder.join("relay.toml"), toml)?;
    Ok(outputs)
}

fn configuration(trial: &Trial<'_>, key: &PrivateKey) -> String {
    let (account, region) = (&trial.target.id, &trial.target.region);
    let mut text = format!(
        "target = \"{}\"\ntopic = \"{}\"\nbucket = \"relay-{account}-{region}\"\n\
         evidence = \"relay-evidence-{account}-{region}\"\ntarget_key = \"alias/relay-selftest-shell\"\n\
         runner_role = \"relay-selftest-shell\"\n",
        deployments::TARGET,
        install::topic(&trial.target.region, &trial.target.id),
    );
    if let Some(endpoint) = account::emulator() {
        let _ = writeln!(text, "endpoint = {}", json!(endpoint));
    }
    text + &deployments::steps()
        + &format!(
            "\n[[signers]]\nname = \"ci\"\nkey = \"{}\"\ngroups = [\"ci\"]\nci_accounts = [\"{}\"]\n",
            key.public(),
            trial.ci.id
        )
}

/// Replaces the account numbers of a report.
fn anonymous(report: &str, trial: &Trial<'_>) -> String {
    report.replace(trial.ci.id.as_str(), "CI-ACCOUNT").replace(trial.target.id.as_str(), "TARGET-ACCOUNT")
}

/// Compares what was found with what is known. Returns whether they agree.
fn judge(
    arguments: &Selftest,
    found: &[Found],
    known: &BTreeMap<String, String>,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let mut odd = Vec::new();
    for one in found {
        match (one.is_as_on_aws(), known.get(one.name)) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => odd.push(format!("{} is listed as a difference, and is as on AWS now", one.name)),
            (false, None) => odd.push(format!("{}: {}: {}", one.name, one.words().0, one.words().1)),
        }
    }
    let unmade = known.keys().filter(|name| arguments.only.is_empty() && found.iter().all(|one| one.name != **name));
    odd.extend(unmade.map(|name| format!("{name} was not checked")));
    let as_on_aws = found.iter().filter(|one| one.is_as_on_aws()).count();
    let listed = if known.is_empty() { "" } else { ", as listed" };
    match odd.is_empty() {
        true => writeln!(out, "{as_on_aws} checks as on AWS, {} not{listed}", found.len() - as_on_aws)?,
        false => writeln!(out, "{as_on_aws} of {} checks are as on AWS; look at:\n{}", found.len(), odd.join("\n"))?,
    }
    Ok(odd.is_empty())
}
