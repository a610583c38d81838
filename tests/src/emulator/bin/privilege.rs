//! The templates' permissions are sufficient and necessary. Everything works with all of them.
//! Without any single one something fails, which shows that it is needed and that ministack checks
//! it. [`NOT_JUDGED`] lists those that ministack does not judge; `tests/tests/infra.rs` checks
//! these as data.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relay_tests::emulator::{CI, Caller, Outcome, REGION, TARGET, text, wait_for};
use serde_json::{Value, json};

use crate::accounts::{ARTIFACTS, Accounts, BOUNDARY, BUCKET, DEPLOY_ROLE, Deployment, EVIDENCE, LIMIT, TOPIC, docker};
use crate::cases::{CASES, Case, DENIED, DENIES, NOT_JUDGED, Way, Who};
use crate::deviations;

/// A policy of the templates.
struct Document {
    name: &'static str,
    account: &'static str,
    place: Place,
}

enum Place {
    /// The role and the policy's name.
    Inline(String, &'static str),
    /// The policy's ARN.
    Managed(&'static str),
    /// The key's ARN or alias.
    Key(String),
    Topic,
    Bucket(&'static str),
}

pub(crate) fn run(package: &Path) -> Outcome<()> {
    let accounts = Accounts::make("least-privilege", package, true)?;
    let over = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let opener = scope.spawn(|| open_queues(&accounts, &over));
        let report = Check { accounts: &accounts }.all();
        over.store(true, Ordering::Relaxed);
        opener.join().map_err(|_| "the thread that opens queues panicked".to_owned())??;
        report
    })?;
    deviations::tell(true);
    println!("\n{report}");
    Ok(())
}

/// Changes the policies of new queues in the same way as those of the templates.
fn open_queues(accounts: &Accounts, over: &AtomicBool) -> Outcome<()> {
    let root = Caller::root(CI);
    let mut seen = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        let queues = accounts.world.call(CI, "sqs", "ListQueues", json!({"QueueNamePrefix": "relay-"}))?;
        for url in queues["QueueUrls"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !seen.insert(url.to_owned()) {
                continue;
            }
            let parameters = json!({"QueueUrl": url, "AttributeNames": ["Policy"]});
            if url.contains("/relay-trial-") {
                continue;
            }
            // The queue may be gone already.
            let Ok(attributes) = accounts.world.ask(&root, "sqs", "GetQueueAttributes", parameters)? else { continue };
            let Some(policy) = attributes["Attributes"]["Policy"].as_str() else { continue };
            let policy = deviations::apply(deviations::File::Queue, policy, "", true)?;
            let parameters = json!({"QueueUrl": url, "Attributes": {"Policy": policy}});
            let _ = accounts.world.ask(&root, "sqs", "SetQueueAttributes", parameters)?;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

const TAKEN: &str = "removed";

struct Check<'a> {
    accounts: &'a Accounts,
}

impl Check<'_> {
    /// Runs every check and returns the table.
    fn all(&self) -> Outcome<String> {
        self.make_trials()?;
        self.nothing_more()?;
        let documents = self.documents()?;
        self.with_everything()?;
        let mut rows = Vec::new();
        for document in &documents {
            self.without_each(document, &mut rows)?;
        }
        // Every permission must be back in place.
        self.with_everything()?;
        let known = CASES.iter().map(|case| (case.of, case.sid, case.action));
        let known = known.chain(NOT_JUDGED.iter().map(|(of, sid, action, _)| (*of, *sid, *action)));
        let gone = known.filter(|(of, sid, action)| !rows.iter().any(|row| row.is(of, sid, action)));
        let gone = gone.map(|(of, sid, action)| format!("{of} {sid} {action}: the templates no longer have it"));
        let failed = rows.iter().filter_map(|row| row.found.as_ref().err().map(|why| format!("{row} {why}")));
        let bad: Vec<String> = failed.chain(gone).collect();
        let table = table(&rows);
        if !bad.is_empty() {
            return Err(format!("{}\n\n{table}", bad.join("\n")));
        }
        let taken = rows.iter().filter(|row| row.found.as_ref().is_ok_and(|found| found.starts_with(TAKEN))).count();
        Ok(format!(
            "{table}\n\n{taken} permissions and denials were removed, one at a time, and each removal showed; {} are not judged here; {} calls are denied.",
            rows.len() - taken,
            DENIED.len()
        ))
    }

    /// Creates queues for single calls, like the CLI's, a claim, and roles that are limited only by
    /// denials.
    fn make_trials(&self) -> Outcome<()> {
        for name in ["relay-trial-reply", "relay-trial-control"] {
            let policy = json!({"Version": "2012-10-17", "Statement": [{
                "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{TARGET}:root")}, "Action": "sqs:*", "Resource": "*",
            }]});
            let queue = json!({"QueueName": name, "Attributes": {"Policy": policy.to_string()}});
            self.accounts.world.call(CI, "sqs", "CreateQueue", queue)?;
        }
        let claim = json!({"Bucket": EVIDENCE, "Key": "deployments/example/shop/2026-01-01/trial/claim"});
        self.accounts.world.call(TARGET, "s3", "PutObject", claim)?;
        // Roles that may do anything that no statement denies: a person, a role of relay, the
        // launcher, the ledger, another target's runner, a tool.
        for (path, name) in [
            ("/", "admin"),
            ("/relay/", "relay-admin"),
            ("/relay/", "relay-launcher-eu-west-1-admin"),
            ("/relay/", "relay-ledger-eu-west-1-admin"),
            ("/relay/runner/", "relay-example-admin"),
            ("/relay-deploy/", "shop-admin"),
        ] {
            let root = json!({"AWS": format!("arn:aws:iam::{TARGET}:root")});
            let all = json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]);
            self.accounts.world.make_role(TARGET, &format!("{path}{name}"), &root, &all)?;
        }
        Ok(())
    }

    fn documents(&self) -> Outcome<Vec<Document>> {
        let roles = self.accounts.world.call(CI, "iam", "ListRoles", json!({"PathPrefix": "/relay-ci/"}))?;
        let roles = roles["Roles"].as_array().cloned().unwrap_or_default();
        let sweep = roles.iter().filter_map(|role| role["RoleName"].as_str()).find(|name| name.contains("Sweep"));
        let sweep = sweep.ok_or("ci-account.yaml created no role for the sweep")?.to_owned();
        let here = |name, place| Document { name, account: TARGET, place };
        let ci = |name, place| Document { name, account: CI, place };
        let inline = |name, role: &str, policy| here(name, Place::Inline(role.to_owned(), policy));
        Ok(vec![
            ci("CI", Place::Managed("arn:aws:iam::111111111111:policy/relay-ci/relay-ci")),
            ci("CI signs", Place::Managed("arn:aws:iam::111111111111:policy/relay-ci/relay-ci-signs")),
            ci("request key", Place::Key(self.accounts.request_key.clone())),
            ci("sweep", Place::Inline(sweep, "sweep")),
            ci("artifact bucket", Place::Bucket(ARTIFACTS)),
            here("topic", Place::Topic),
            inline("launcher", "relay-launcher-eu-west-1", "launcher"),
            inline("jwks", "relay-jwks-eu-west-1", "jwks"),
            inline("ledger", "relay-ledger-eu-west-1", "ledger"),
            inline("execution", "relay-execution-eu-west-1", "execution"),
            inline("runner", "relay-example-shop", "runner"),
            inline("deploy", "shop", "deploy"),
            here("boundary", Place::Managed(BOUNDARY)),
            here("answer key", Place::Key(self.accounts.answer_key.clone())),
            here("ledger key", Place::Key(self.accounts.ledger_key.clone())),
            here("target key", Place::Key(self.accounts.target_key.clone())),
            here("data key", Place::Key("alias/relay-data".to_owned())),
            here("relay bucket", Place::Bucket(BUCKET)),
            here("evidence bucket", Place::Bucket(EVIDENCE)),
        ])
    }

    fn with_everything(&self) -> Outcome<()> {
        for way in [Way::DryRun, Way::Deploy, Way::Upload, Way::Refused, Way::Cancel, Way::Takeover] {
            self.prepare(way)?;
            let deployment = self.set_off(way)?;
            let ended = deployment.end().map_err(|error| self.accounts.with_logs(&error))?;
            if ended.code != Some(good_end(way)) {
                let words = format!("with every permission, {way:?} ends with {:?}:\n{}", ended.code, ended.stderr);
                return Err(self.accounts.with_logs(&words));
            }
            println!("ok: with every permission: {way:?}");
        }
        for case in CASES {
            if let Way::Call(who, service, operation, parameters) = case.way {
                let answer = self.ask(who, service, operation, parameters)?;
                let right = match &answer {
                    Ok(_) => case.action != DENIES,
                    Err(error) => case.action == DENIES && denied(error),
                };
                if !right {
                    return Err(format!("with every statement, {who:?} {service}:{operation}: {answer:?}"));
                }
            }
        }
        Ok(())
    }

    fn without_each(&self, document: &Document, rows: &mut Vec<Row>) -> Outcome<()> {
        let whole = self.read(document)?;
        for (sid, action) in permissions(&whole) {
            let mut row = Row { of: document.name, sid, action, found: Ok(String::new()) };
            let listed = NOT_JUDGED.iter().find(|(of, sid, action, _)| row.is(of, sid, action));
            let case = CASES.iter().find(|case| row.is(case.of, case.sid, case.action));
            row.found = match (case, listed) {
                (Some(case), _) => {
                    self.prepare(case.way)?;
                    self.write(document, &without(&whole, &row.sid, &row.action))?;
                    let found = self.fails(case);
                    self.write(document, &whole)?;
                    found.map(|said| format!("{TAKEN}: {said}"))
                }
                (None, Some((_, _, _, why))) => Ok(format!("not judged: {why}")),
                (None, None) => Err("no case covers it, and no reason is given".to_owned()),
            };
            rows.push(row);
        }
        println!("done: {}, {} permissions and denials", document.name, permissions(&whole).len());
        Ok(())
    }

    /// Runs the attempt that must fail now, and checks that it reports the reason. Returns that
    /// text.
    fn fails(&self, case: &Case) -> Outcome<String> {
        if let Way::Call(who, service, operation, parameters) = case.way {
            return match self.ask(who, service, operation, parameters)? {
                Ok(_) if case.action == DENIES => Ok("allowed".to_owned()),
                Err(error) if case.action == DENIES => Err(format!("the call still fails: {error}")),
                Ok(_) => Err("the call is still allowed".to_owned()),
                Err(error) if denied(&error) => Ok("denied".to_owned()),
                Err(error) => Err(format!("the call fails, but for another reason: {error}")),
            };
        }
        let before = self.logs()?;
        let mut deployment = self.set_off(case.way)?;
        let mut ended = None;
        let found = wait_for("a failure", LIMIT, || {
            let logs = self.logs()?;
            let news = logs.iter().zip(&before).filter_map(|(now, before)| now.get(before.len()..));
            let said = std::iter::once(deployment.stderr().as_str()).chain(news).collect::<Vec<_>>().join("\n");
            let line = said.lines().find(|line| line.contains(case.says)).map(|line| excerpt(line, case.says));
            // The last output may have come after it was read, so read once more after the end.
            let was_over = ended.is_some();
            ended = deployment.has_ended()?;
            Ok(line.map(Ok).or(was_over.then_some(Err(said))))
        });
        let stderr = deployment.stderr();
        drop(deployment);
        self.clear()?;
        match found? {
            Ok(line) => Ok(line),
            Err(_) if ended == Some(good_end(case.way)) => Err("it still works".to_owned()),
            Err(said) => {
                Err(format!("it ends with {ended:?}, but no output contains {:?}:\n{stderr}\n{said}", case.says))
            }
        }
    }

    /// Does what the attempt requires to have happened before, while no permission is missing.
    fn prepare(&self, way: Way) -> Outcome<()> {
        if way == Way::Takeover {
            let deployment = self.accounts.deploy(&["--param", "code=0", "--param", "wait=yes"])?;
            self.runs(&deployment)?;
            drop(deployment);
            self.clear()?;
        }
        Ok(())
    }

    /// Starts the attempt that needs the permission.
    fn set_off(&self, way: Way) -> Outcome<Deployment> {
        let soon =
            ["--admission-timeout", "8s", "--start-timeout", "8s", "--silence-timeout", "20s", "--drain-timeout", "8s"];
        let deploy = |parameters: &[&str]| self.accounts.deploy(&[parameters, &soon].concat());
        let quick = ["--param", "code=0", "--param", "wait=no"];
        let slow = ["--param", "code=0", "--param", "wait=yes"];
        match way {
            Way::Deploy | Way::Takeover => deploy(&quick),
            Way::DryRun => deploy(&[&quick[..], &["--dry-run"]].concat()),
            Way::Refused => deploy(&["--param", "code=none", "--param", "wait=no"]),
            Way::Upload => {
                let folder =
                    tempfile::tempdir_in(&self.accounts.world.folder).map_err(|error| error.to_string())?.keep();
                std::fs::write(folder.join("hello"), folder.display().to_string())
                    .map_err(|error| error.to_string())?;
                deploy(&[&quick[..], &["--artifact", &format!("source={}", folder.display())]].concat())
            }
            Way::Cancel => {
                let deployment = deploy(&slow)?;
                self.runs(&deployment)?;
                deployment.interrupt()?;
                Ok(deployment)
            }
            Way::Call(..) => Err("a call is not a deployment".to_owned()),
        }
    }

    fn runs(&self, deployment: &Deployment) -> Outcome<()> {
        let running = wait_for("the tool to run", LIMIT, || Ok(deployment.stdout().contains("hello").then_some(())));
        running.map_err(|error| self.accounts.with_logs(&format!("{error}:\n{}", deployment.stderr())))
    }

    /// Kills the tasks that still run, and waits until ECS reports that they have stopped.
    fn clear(&self) -> Outcome<()> {
        wait_for("the tasks to stop", LIMIT, || {
            for container in self.accounts.containers()? {
                // The task may end by itself.
                let _ = docker(&["kill", &container]);
            }
            let tasks = self.accounts.world.call(TARGET, "ecs", "ListTasks", json!({"cluster": "relay"}))?;
            Ok(tasks["taskArns"].as_array().is_none_or(Vec::is_empty).then_some(()))
        })
    }

    /// The launcher's log and the tasks' log.
    fn logs(&self) -> Outcome<[String; 2]> {
        Ok([self.accounts.log("/relay/launcher")?, self.accounts.log("/relay/tasks")?])
    }

    /// Checks that the calls in [`DENIED`] are denied, and that other jobs cannot become CI.
    fn nothing_more(&self) -> Outcome<()> {
        for subject in ["repo:example/other:environment:production", "repo:example/shop:pull_request"] {
            if self.accounts.ci_session(subject)?.is_ok() {
                return Err(format!("a job of {subject} can become CI"));
            }
        }
        for (who, service, operation, parameters) in DENIED {
            match self.ask(*who, service, operation, parameters)? {
                Err(error) if denied(&error) => {}
                Err(error) => {
                    return Err(format!(
                        "{who:?} {service}:{operation} {parameters} should be denied, but fails with {error}"
                    ));
                }
                Ok(_) => return Err(format!("{who:?} may {service}:{operation} {parameters}")),
            }
        }
        println!("ok: {} calls are denied", DENIED.len());
        Ok(())
    }

    /// Makes a call as `who`. The inner error is AWS's.
    fn ask(&self, who: Who, service: &str, operation: &str, parameters: &str) -> Outcome<Outcome<Value>> {
        let filled = parameters
            .replace("{target key}", &self.accounts.target_key)
            .replace("{answer key}", &self.accounts.answer_key)
            .replace("{ledger key}", &self.accounts.ledger_key)
            .replace("{request key}", &self.accounts.request_key)
            .replace("{topic}", TOPIC)
            .replace("{bucket}", BUCKET)
            .replace("{evidence}", EVIDENCE)
            .replace("{artifacts}", ARTIFACTS)
            .replace("{task}", &self.stopped_task()?);
        let parameters: Value = serde_json::from_str(&filled).map_err(|error| format!("{parameters}: {error}"))?;
        let caller = match self.caller(who)? {
            Ok(caller) => caller,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.accounts.world.ask(&caller, service, operation, parameters)?.map_err(|refused| refused.to_string()))
    }

    /// The ARN of a task that has ended; empty if there is none yet.
    fn stopped_task(&self) -> Outcome<String> {
        let stopped = json!({"cluster": "relay", "desiredStatus": "STOPPED"});
        let tasks = self.accounts.world.call(TARGET, "ecs", "ListTasks", stopped)?;
        Ok(tasks["taskArns"][0].as_str().unwrap_or_default().to_owned())
    }

    fn caller(&self, who: Who) -> Outcome<Outcome<Caller>> {
        let world = &self.accounts.world;
        let (by, role) = match who {
            Who::Ci => return Ok(Ok(self.accounts.ci.clone())),
            Who::Runner => return Ok(Ok(self.accounts.runner.clone())),
            Who::Launcher => {
                (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/relay-launcher-{REGION}"))
            }
            Who::Jwks => (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/relay-jwks-{REGION}")),
            Who::Ledger => (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/relay-ledger-{REGION}")),
            Who::LedgerAdmin => {
                (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/relay-ledger-{REGION}-admin"))
            }
            Who::Deploy => (self.accounts.runner.clone(), DEPLOY_ROLE.to_owned()),
            Who::Admin => (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/admin")),
            Who::RelayAdmin => (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/relay-admin")),
            Who::LauncherAdmin => {
                (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/relay-launcher-{REGION}-admin"))
            }
            Who::RunnerAdmin => {
                (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay/runner/relay-example-admin"))
            }
            Who::ToolAdmin => (Caller::root(TARGET), format!("arn:aws:iam::{TARGET}:role/relay-deploy/shop-admin")),
        };
        let answer = world.ask(&by, "sts", "AssumeRole", json!({"RoleArn": role, "RoleSessionName": "trial"}))?;
        Ok(answer.map_err(|refused| refused.to_string()).and_then(|answer| Caller::session(&answer)))
    }

    fn read(&self, document: &Document) -> Outcome<Value> {
        let call =
            |service, operation, parameters| self.accounts.world.call(document.account, service, operation, parameters);
        let parsed = |value: &Value| match value.as_str() {
            Some(text) => serde_json::from_str(text).map_err(|error| error.to_string()),
            None => Ok(value.clone()),
        };
        match &document.place {
            Place::Inline(role, policy) => parsed(
                &call("iam", "GetRolePolicy", json!({"RoleName": role, "PolicyName": policy}))?["PolicyDocument"],
            ),
            Place::Managed(arn) => {
                let policy = call("iam", "GetPolicy", json!({"PolicyArn": arn}))?;
                let version = json!({"PolicyArn": arn, "VersionId": text(&policy, &["Policy", "DefaultVersionId"])?});
                parsed(&call("iam", "GetPolicyVersion", version)?["PolicyVersion"]["Document"])
            }
            Place::Key(key) => {
                let key = json!({"KeyId": key, "PolicyName": "default"});
                parsed(&call("kms", "GetKeyPolicy", key)?["Policy"])
            }
            Place::Topic => {
                parsed(&call("sns", "GetTopicAttributes", json!({"TopicArn": TOPIC}))?["Attributes"]["Policy"])
            }
            Place::Bucket(name) => parsed(&call("s3", "GetBucketPolicy", json!({"Bucket": name}))?["Policy"]),
        }
    }

    fn write(&self, document: &Document, policy: &Value) -> Outcome<()> {
        let call =
            |service, operation, parameters| self.accounts.world.call(document.account, service, operation, parameters);
        let policy = policy.to_string();
        match &document.place {
            Place::Inline(role, name) => {
                call("iam", "PutRolePolicy", json!({"RoleName": role, "PolicyName": name, "PolicyDocument": policy}))
            }
            Place::Managed(arn) => {
                let old = call("iam", "GetPolicy", json!({"PolicyArn": arn}))?;
                let version = json!({"PolicyArn": arn, "PolicyDocument": policy, "SetAsDefault": true});
                call("iam", "CreatePolicyVersion", version)?;
                let old = json!({"PolicyArn": arn, "VersionId": text(&old, &["Policy", "DefaultVersionId"])?});
                call("iam", "DeletePolicyVersion", old)
            }
            Place::Key(key) => {
                let key = json!({"KeyId": key, "PolicyName": "default", "Policy": policy});
                call("kms", "PutKeyPolicy", key)
            }
            Place::Topic => {
                let attribute = json!({"TopicArn": TOPIC, "AttributeName": "Policy", "AttributeValue": policy});
                call("sns", "SetTopicAttributes", attribute)
            }
            Place::Bucket(name) => call("s3", "PutBucketPolicy", json!({"Bucket": name, "Policy": policy})),
        }
        .map(|_| ())
    }
}

/// The result for one permission.
struct Row {
    of: &'static str,
    sid: String,
    action: String,
    found: Outcome<String>,
}

impl Row {
    fn is(&self, of: &str, sid: &str, action: &str) -> bool {
        self.of == of && self.sid == sid && (action == "*" || self.action == action)
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = self.found.as_deref().unwrap_or("FAILED");
        write!(f, "{:<15} {:<27} {:<34} {found}", self.of, self.sid, self.action)
    }
}

/// The rows as text. Adjacent rows of one statement with the same result are merged.
fn table(rows: &[Row]) -> String {
    let same = |one: &Row, other: &Row| one.of == other.of && one.sid == other.sid && one.found == other.found;
    let merged = rows.chunk_by(same).filter_map(|rows| {
        let first = rows.first()?;
        let action = if rows.len() == 1 { first.action.clone() } else { format!("{} actions", rows.len()) };
        Some(Row { action, found: first.found.clone(), sid: first.sid.clone(), of: first.of }.to_string())
    });
    merged.collect::<Vec<_>>().join("\n")
}

/// The expected exit code of a deployment that has every permission.
fn good_end(way: Way) -> i32 {
    match way {
        Way::Refused => 120,
        Way::Cancel => 130,
        _ => 0,
    }
}

fn denied(error: &str) -> bool {
    ["AccessDenied", "AuthorizationError", "403"].iter().any(|word| error.contains(word))
}

/// At most 60 characters of the line, from the text that was looked for.
fn excerpt(line: &str, says: &str) -> String {
    let at = line.find(says).unwrap_or_default();
    line.get(at..).unwrap_or_default().chars().take(60).collect()
}

/// An action without the `*` that [`deviations`] adds.
fn plain(action: &str) -> String {
    if action.starts_with("sqs:") { action.trim_end_matches('*').to_owned() } else { action.to_owned() }
}

fn list(value: &Value) -> Vec<String> {
    let all = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn statements(policy: &Value) -> impl Iterator<Item = &Value> {
    policy["Statement"].as_array().into_iter().flatten()
}

/// The statement and the action of every permission. A statement that denies counts as one.
fn permissions(policy: &Value) -> Vec<(String, String)> {
    let of = |statement: &Value| {
        let denies = statement["Effect"] == "Deny";
        if denies {
            vec![DENIES.to_owned()]
        } else {
            list(&statement["Action"]).iter().map(|action| plain(action)).collect()
        }
    };
    let sid = |statement: &Value| statement["Sid"].as_str().unwrap_or("(no Sid)").to_owned();
    statements(policy).flat_map(|one| of(one).into_iter().map(move |action| (sid(one), action))).collect()
}

/// The policy without one action of one statement. If it was the only action, the statement is
/// removed.
fn without(policy: &Value, sid: &str, action: &str) -> Value {
    let mut policy = policy.clone();
    let kept = statements(&policy).cloned().filter_map(|mut one| {
        if one["Sid"] == sid {
            let actions: Vec<String> = list(&one["Action"]).into_iter().filter(|its| plain(its) != action).collect();
            if actions.is_empty() || action == DENIES {
                return None;
            }
            one["Action"] = json!(actions);
        }
        Some(one)
    });
    let mut kept: Vec<Value> = kept.collect();
    if kept.is_empty() {
        // A policy must have a statement, so this one denies an action that does not exist.
        kept.push(
            json!({"Sid": "Nothing", "Effect": "Deny", "Principal": "*", "Action": "none:None", "Resource": "*"}),
        );
    }
    policy["Statement"] = json!(kept);
    policy
}
