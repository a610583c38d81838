//! Creates what a new sandbox contains (keys, buckets, the topic and targets) and the environment
//! variables for a command.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use serde_json::{Value, json};

use super::effects::invoke;
use super::shared::Host;
use super::targets::{self, Context, Given};
use super::{issuers, own};
use crate::services::{CI_ACCOUNT, REGION, TARGET_ACCOUNT, lock};
use crate::wire::times::{iso_seconds, now_ms, random, uuid};

const ARTIFACTS: &str = "relay-sandbox-artifacts";
const APPROVALS: &str = "relay-sandbox-approvals";

/// Secrets and parameters that tests and the built-in targets can use.
const SECRETS: [(&str, &str); 3] = [
    ("secretsmanager:eu-west-1:222222222222:secret:demo/database-password-SaNdBx", "sandbox-secret-7f3a"),
    (
        "secretsmanager:eu-west-1:222222222222:secret:demo/json-SaNdBx",
        r#"{"user":"relay","password":"sandbox-json-91c2"}"#,
    ),
    ("ssm:eu-west-1:222222222222:parameter/demo/api-token", "sandbox-parameter-55d0"),
];

/// A secret that is a JSON object with a hundred values.
const HUNDRED: &str = "secretsmanager:eu-west-1:222222222222:secret:demo/hundred-values-SaNdBx";

fn hundred_values() -> String {
    let values = (0..100).map(|n| (format!("key{n}"), json!(format!("sandbox-value-{n:02}-6b0f"))));
    Value::Object(values.collect()).to_string()
}

/// The environment for a command.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    pub(super) pairs: Vec<(String, String)>,
    /// Notes for the user.
    pub(super) notes: own::Notes,
}

/// The facts about the account that the launcher gets as environment variables.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) topic: String,
    pub(super) bucket: String,
    pub(super) evidence: String,
    pub(super) answer_key: String,
}

/// The roles of the tools, of relay's programs, and of the launcher.
const TOOLS: &str = "arn:aws:iam::*:role/relay-deploy/*";
const RELAY: &str = "arn:aws:iam::*:role/relay/*";
const LAUNCHER: &str = "arn:aws:iam::*:role/relay/relay-launcher";
const COLLECTOR: &str = "arn:aws:iam::*:role/relay/relay-jwks";
const LEDGER: &str = "arn:aws:iam::*:role/relay/relay-ledger";

/// A statement that denies `actions` on `resources` to these principals, whatever else allows it.
fn deny(actions: &[&str], resources: &[String], condition: Value) -> Value {
    json!({"Effect": "Deny", "Principal": "*", "Action": actions, "Resource": resources, "Condition": condition})
}

fn policy(statements: &[Value]) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

/// A policy that denies `actions` to the tool's roles.
fn guard(actions: &[&str]) -> String {
    policy(&[deny(actions, &["*".to_owned()], json!({"ArnLike": {"aws:PrincipalArn": TOOLS}}))])
}

/// A policy for a signing key: of relay's roles, only this one signs with it.
fn only(role: &str) -> String {
    let others = json!({"ArnLike": {"aws:PrincipalArn": RELAY}, "ArnNotLike": {"aws:PrincipalArn": role}});
    policy(&[
        deny(&["kms:Sign"], &["*".to_owned()], json!({"ArnLike": {"aws:PrincipalArn": TOOLS}})),
        deny(&["kms:Sign"], &["*".to_owned()], others),
    ])
}

/// A policy for the relay bucket: the tool writes nothing, and of relay's roles only the function
/// `jwks` writes the issuers' keys.
fn collector(bucket: &str) -> String {
    let tools = json!({"ArnLike": {"aws:PrincipalArn": TOOLS}});
    let others = json!({"ArnLike": {"aws:PrincipalArn": RELAY}, "ArnNotLike": {"aws:PrincipalArn": COLLECTOR}});
    policy(&[
        deny(&["s3:PutObject", "s3:DeleteObject"], &["*".to_owned()], tools),
        deny(&["s3:PutObject", "s3:DeleteObject"], &[format!("arn:aws:s3:::{bucket}/jwks/*")], others),
    ])
}

/// A policy for the evidence bucket: launcher and runner each write names of their own, and the
/// tool writes none.
fn writers(bucket: &str) -> String {
    let names = |parts: &[&str]| -> Vec<String> {
        parts.iter().map(|part| format!("arn:aws:s3:::{bucket}/deployments/*/*/*/*/{part}")).collect()
    };
    let beside = ["saved/*", "tickets/*"].map(|part| format!("arn:aws:s3:::{bucket}/deployments/*/*/{part}")).to_vec();
    let runner = [names(&["runner/*"]), beside].concat();
    let everything = [format!("arn:aws:s3:::{bucket}/*")];
    let tools = json!({"ArnLike": {"aws:PrincipalArn": TOOLS}});
    let runners = json!({"ArnLike": {"aws:PrincipalArn": RELAY}, "ArnNotLike": {"aws:PrincipalArn": LAUNCHER}});
    let launcher = json!({"ArnLike": {"aws:PrincipalArn": LAUNCHER}});
    let no_ledger = json!({"ArnLike": {"aws:PrincipalArn": RELAY}, "ArnNotLike": {"aws:PrincipalArn": LEDGER}});
    let ledger = json!({"ArnLike": {"aws:PrincipalArn": LEDGER}});
    policy(&[
        deny(&["s3:PutObject", "s3:DeleteObject"], &everything, tools),
        deny(
            &["s3:PutObject"],
            &names(&["request.json", "issuer-keys.json", "configuration/*", "launcher/*"]),
            runners,
        ),
        deny(&["s3:PutObject"], &runner, launcher),
        deny(&["s3:PutObject"], &[format!("arn:aws:s3:::{bucket}/ledger/*")], no_ledger),
        deny(&["s3:PutObject"], &[format!("arn:aws:s3:::{bucket}/deployments/*")], ledger),
    ])
}

fn artifacts_policy() -> String {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{TARGET_ACCOUNT}:root")},
        "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*",
    }]})
    .to_string()
}

/// Makes buckets, secrets and clusters.
fn fill(host: &Host, bucket: &str, evidence: &str) -> Result<(), String> {
    let services = &host.services;
    lock(&services.s3).make(bucket, TARGET_ACCOUNT, Some(&collector(bucket)))?;
    lock(&services.s3).make(evidence, TARGET_ACCOUNT, Some(&writers(evidence)))?;
    lock(&services.s3).make(ARTIFACTS, CI_ACCOUNT, Some(&artifacts_policy()))?;
    lock(&services.s3).make(APPROVALS, CI_ACCOUNT, None)?;
    for (name, value) in SECRETS {
        lock(&services.secrets).put(&format!("arn:aws:{name}"), value);
    }
    lock(&services.secrets).put(&format!("arn:aws:{HUNDRED}"), &hundred_values());
    for cluster in ["relay", "default"] {
        lock(&services.ecs).add_cluster(TARGET_ACCOUNT, cluster);
    }
    Ok(())
}

/// Makes a key: the private half as PEM, and the public half in base64.
fn new_key() -> Result<(String, String), String> {
    let key = SigningKey::from_bytes(&random::<32>());
    let private = key.to_pkcs8_pem(LineEnding::LF).map_err(|e| e.to_string())?;
    let public = key.verifying_key().to_public_key_der().map_err(|e| e.to_string())?;
    Ok((private.to_string(), BASE64.encode(public.as_bytes())))
}

/// Makes the ledger key, and returns its public half in base64.
fn ledger_key(host: &Host) -> Result<String, String> {
    let (key, public) = lock(&host.services.kms).make(TARGET_ACCOUNT, Some(&only(LEDGER)))?;
    let _ = host.ledger_key.set(key);
    Ok(BASE64.encode(&public))
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned())
}

/// Makes the folder under which the tasks work.
fn workspace(host: &Host) -> Result<String, String> {
    let work = host.places.state_dir.join("work");
    std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    Ok(work.to_string_lossy().into_owned())
}

/// Fills both accounts, and returns what a command and the launcher need.
pub(super) fn prepare(host: &Host, given: &Given) -> Result<(Environment, Facts), String> {
    let (private, signer_key) = new_key()?;
    let (approver, approver_key) = new_key()?;
    let (settings, services) = (&host.settings, &host.services);
    let topic = settings.topic.clone().unwrap_or_else(|| format!("arn:aws:sns:{REGION}:{TARGET_ACCOUNT}:relay"));
    let (bucket, evidence) = (host.bucket(), host.evidence());
    let (made_key, target_public) = lock(&services.kms).make(TARGET_ACCOUNT, Some(&guard(&["kms:Sign"])))?;
    let (answer_key, answer_public) = lock(&services.kms).make(TARGET_ACCOUNT, Some(&only(LAUNCHER)))?;
    let ledger_public = ledger_key(host)?;
    let target_key = settings.target_key.clone().unwrap_or(made_key);
    lock(&services.sns).preset(&topic, CI_ACCOUNT)?;
    fill(host, &bucket, &evidence)?;
    let path = path();
    let context = Context {
        endpoint: host.aws().to_owned(),
        workspace: workspace(host)?,
        topic: topic.clone(),
        bucket: bucket.clone(),
        evidence: evidence.clone(),
        target_key,
        target_public: BASE64.encode(&target_public),
        signer_key: signer_key.clone(),
        approver_key,
        path: path.clone(),
        artifacts: ARTIFACTS.to_owned(),
        github: lock(&services.github).url.clone(),
        sts: lock(&services.sts).issuer.url.clone(),
    };
    targets::register(host, &context, given.folder.as_deref())?;
    let notes = own::register(host, &context, given)?;

    let bin = host.places.bin_dir.to_string_lossy();
    let mut pairs = vec![
        ("AWS_ENDPOINT_URL", context.endpoint),
        ("AWS_ACCESS_KEY_ID", CI_ACCOUNT.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "sandbox".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_DEFAULT_REGION", REGION.to_owned()),
        ("RELAY_TOPIC_ARN", topic.clone()),
        ("RELAY_SIGNING_KEY", private),
        ("RELAY_TARGET_PUBLIC_KEY", context.target_public),
        ("RELAY_ANSWER_PUBLIC_KEY", BASE64.encode(&answer_public)),
        ("RELAY_SANDBOX_LEDGER_PUBLIC_KEY", ledger_public),
        ("RELAY_ARTIFACT_STORE", format!("s3://{ARTIFACTS}/{{target}}/")),
        ("RELAY_APPROVALS", format!("s3://{APPROVALS}/")),
        ("RELAY_SANDBOX_APPROVER", approver),
        ("RELAY_SANDBOX_STATE", host.places.state_dir.to_string_lossy().into_owned()),
        ("RELAY_SANDBOX_ENDPOINT", host.places.endpoint.clone()),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", format!("{}/issuers/github/token?api-version=2", host.places.endpoint)),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", notes.bearer.clone().unwrap_or_else(|| issuers::BEARER.to_owned())),
        ("RELAY_SANDBOX_HTTPS", host.places.secure.clone()),
        ("RELAY_SANDBOX_CA", host.places.authority.to_string_lossy().into_owned()),
        ("RELAY_SANDBOX_SIGNER_KEY", signer_key),
        ("PATH", format!("{bin}:{path}")),
    ];
    if host.third_party.is_some() {
        pairs.push(("AWS_ENDPOINT_URL_ECS", host.places.endpoint.clone()));
        pairs.retain(|(name, _)| !name.ends_with("_PUBLIC_KEY"));
    }
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    write(host, &pairs)?;
    Ok((Environment { pairs, notes }, Facts { topic, bucket, evidence, answer_key }))
}

/// Writes `environment.json`, for whoever starts commands without the sandbox.
fn write(host: &Host, pairs: &[(String, String)]) -> Result<(), String> {
    let as_json: serde_json::Map<String, Value> = pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let file = host.places.state_dir.join("environment.json");
    std::fs::write(&file, Value::Object(as_json).to_string()).map_err(|e| format!("{}: {e}", file.display()))
}

/// EventBridge's schedule: it wakes the launcher's watchdog.
pub(super) async fn schedule(host: Arc<Host>) {
    let mut ticks = tokio::time::interval(host.settings.schedule);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = host.shutting_down() => return,
        }
        let event = json!({
            "version": "0", "id": uuid(), "detail-type": "Scheduled Event", "source": "aws.events",
            "account": TARGET_ACCOUNT, "time": iso_seconds(now_ms()), "region": REGION,
            "resources": [format!("arn:aws:events:{REGION}:{TARGET_ACCOUNT}:rule/relay-watchdog")], "detail": {},
        });
        invoke(&host, "schedule", event, Duration::ZERO);
    }
}
