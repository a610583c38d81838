//! What is there when the sandbox starts: keys, buckets, the topic, targets; and the environment that a command is given.

use std::path::Path;
use std::sync::Arc;

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use serde_json::{Value, json};

use crate::clock::{iso_seconds, now_ms, random, uuid};
use crate::launcher::Facts;
use crate::targets::{self, Context};
use crate::world::World;
use crate::{CI_ACCOUNT, REGION, TARGET_ACCOUNT};

const ARTIFACTS: &str = "relay-sandbox-artifacts";

/// The environment for a command.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    pub(crate) pairs: Vec<(String, String)>,
}

/// The tool's roles may not sign or write in relay's own places, however much else they may do.
fn guard(actions: &[&str]) -> String {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": actions, "Resource": "*",
        "Condition": {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/relay-deploy/*"}},
    }]})
    .to_string()
}

fn artifacts_policy() -> String {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{TARGET_ACCOUNT}:root")},
        "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*",
    }]})
    .to_string()
}

/// Fills both accounts and says what a command and the launcher need to know.
pub(crate) fn prepare(world: &Arc<World>, more_targets: Option<&Path>) -> Result<(Environment, Facts), String> {
    let signer = SigningKey::from_bytes(&random::<32>());
    let private = signer.to_pkcs8_pem(LineEnding::LF).map_err(|e| e.to_string())?;
    let public = signer.verifying_key().to_public_key_der().map_err(|e| e.to_string())?;
    let settings = &world.settings;
    let topic = settings.topic.clone().unwrap_or_else(|| format!("arn:aws:sns:{REGION}:{TARGET_ACCOUNT}:relay"));
    let bucket = settings.bucket.clone().unwrap_or_else(|| format!("relay-{TARGET_ACCOUNT}-{REGION}"));
    let (made_key, target_public) = world.kms.make(TARGET_ACCOUNT, Some(&guard(&["kms:Sign"])))?;
    let target_key = settings.target_key.clone().unwrap_or(made_key);
    world.sns.preset(&topic, CI_ACCOUNT)?;
    world.s3.make(&bucket, TARGET_ACCOUNT, Some(&guard(&["s3:PutObject", "s3:DeleteObject"])))?;
    world.s3.make(ARTIFACTS, CI_ACCOUNT, Some(&artifacts_policy()))?;
    world.secrets.preset();
    world.ecs.add_cluster(TARGET_ACCOUNT, "relay");
    world.ecs.add_cluster(TARGET_ACCOUNT, "default");
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let work = world.state_dir.join("work");
    std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let signer_key = BASE64.encode(public.as_bytes());
    let context = Context {
        endpoint: world.third_party.clone().unwrap_or_else(|| world.endpoint.clone()),
        workspace: work.to_string_lossy().into_owned(),
        topic: topic.clone(),
        bucket: bucket.clone(),
        target_key: target_key.clone(),
        signer_key: signer_key.clone(),
        path: path.clone(),
        artifacts: ARTIFACTS.to_owned(),
    };
    targets::register(world, &context, more_targets)?;

    let bin = world.bin_dir.to_string_lossy();
    let mut pairs = vec![
        ("AWS_ENDPOINT_URL", context.endpoint),
        ("AWS_ACCESS_KEY_ID", CI_ACCOUNT.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "sandbox".to_owned()),
        ("AWS_REGION", REGION.to_owned()),
        ("RELAY_TOPIC_ARN", topic.clone()),
        ("RELAY_SIGNING_KEY", private.to_string()),
        ("RELAY_TARGET_PUBLIC_KEY", BASE64.encode(&target_public)),
        ("RELAY_ARTIFACTS", format!("s3://{ARTIFACTS}/{{target}}/")),
        ("RELAY_SANDBOX_STATE", world.state_dir.to_string_lossy().into_owned()),
        ("RELAY_SANDBOX_ENDPOINT", world.endpoint.clone()),
        ("RELAY_SANDBOX_SIGNER_KEY", signer_key),
        ("PATH", format!("{bin}:{path}")),
    ];
    if world.third_party.is_some() {
        pairs.push(("AWS_ENDPOINT_URL_ECS", world.endpoint.clone()));
        pairs.retain(|(name, _)| *name != "RELAY_TARGET_PUBLIC_KEY");
    }
    let pairs: Vec<(String, String)> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let as_json: serde_json::Map<String, Value> = pairs.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let file = world.state_dir.join("environment.json");
    std::fs::write(&file, Value::Object(as_json).to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok((Environment { pairs }, Facts { topic, bucket, target_key }))
}

/// EventBridge's schedule, which wakes the launcher's watchdog.
pub(crate) async fn schedule(world: Arc<World>) {
    let mut ticks = tokio::time::interval(world.settings.schedule);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = world.shutting_down() => return,
        }
        let event = json!({
            "version": "0", "id": uuid(), "detail-type": "Scheduled Event", "source": "aws.events",
            "account": TARGET_ACCOUNT, "time": iso_seconds(now_ms()), "region": REGION,
            "resources": [format!("arn:aws:events:{REGION}:{TARGET_ACCOUNT}:rule/relay-watchdog")], "detail": {},
        });
        world.lambda.invoke(&world, "schedule", event, std::time::Duration::ZERO);
    }
}
