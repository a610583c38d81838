//! `relay doctor`: finds what stands between this machine and a first deployment. This file gathers
//! the facts, and [`mod@findings`] says what they mean.
//!
//! What only an attempt can show is reported as unchecked. Nothing is inferred from a right that a
//! deployment does not need.

mod facts;
mod findings;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;

use relay_aws::objects::Objects;
use relay_aws::probe::probe;
use relay_aws::queues::Queues;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_protocol::encoding::{ascii_json, printable};
use relay_protocol::limits::REQUEST_LIFETIME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{TargetName, TopicArn};
use serde_json::json;

use crate::args::{self, Output};
use crate::deploy::new_id;
use crate::doctor::facts::{Facts, Key, Queue, Store};
use crate::doctor::findings::{Finding, findings};
use crate::queues::Pair;
use crate::settings::{Layers, Texts};
use crate::signing::Signer;
use crate::tags::Tags;

/// Checks each target, and prints each finding once. The exit code is `Usage` if a setting is bad,
/// else `Fault` if a call to AWS failed, else 0.
pub(crate) async fn doctor(arguments: &args::Doctor) -> Result<u8, Failure> {
    let layers = Layers::read(&arguments.place)?;
    let targets: Vec<TargetName> = match &arguments.target {
        Some(text) => vec![text.parse().map_err(|error| Failure::usage(format!("{error}")))?],
        None => layers.targets().cloned().collect(),
    };
    if targets.is_empty() {
        return Err(Failure::usage("no target is named").hint("name one, as in `relay doctor payments/production`, or add [targets.\"…\"] to relay.toml (`relay-admin init` writes it)"));
    }
    let mut said: Vec<Finding> = Vec::new();
    for target in targets {
        let texts = layers.texts(&target);
        for finding in findings(&look(target, &texts, arguments.try_queues).await) {
            if !said.contains(&finding) {
                show(&finding, arguments.output)?;
                said.push(finding);
            }
        }
    }
    let bad = |exit| said.iter().any(|finding| finding.exit == Some(exit));
    let code = [ExitCode::Usage, ExitCode::Fault].into_iter().find(|exit| bad(*exit));
    Ok(code.map_or(0, ExitCode::code))
}

async fn look(target: TargetName, texts: &Texts, try_queues: bool) -> Facts {
    let topic = texts.topic(&target);
    let region = topic.as_ref().ok().map(TopicArn::region);
    let sdk = Sdk::from_environment(region).await;
    let probe = match &topic {
        Ok(_) => Some(probe(&sdk).await),
        Err(_) => None,
    };
    // Without an identity, every further call would only fail for the same reason.
    let known = probe.as_ref().is_some_and(|probe| probe.identity.is_ok());
    let queues = match (texts.reply_queue().transpose(), &topic) {
        (Some(queue), _) => Queue::Fixed(queue),
        (None, Ok(topic)) if try_queues && known => Queue::Tried(create_and_delete(&sdk, &target, topic).await),
        (None, _) => Queue::NotTried,
    };
    let artifacts = match texts.artifact_store(&target) {
        Ok(Some((bucket, prefix))) => {
            let answer = match known {
                true => Some(Objects::new(&sdk).look(&bucket, &format!("{prefix}relay-doctor")).await),
                false => None,
            };
            Ok(Some(Store { bucket, prefix, answer }))
        }
        Ok(None) => Ok(None),
        Err(failure) => Err(failure),
    };
    let variables: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let set =
        |wanted: fn(&str) -> bool| variables.iter().filter(move |(name, value)| wanted(name) && !value.is_empty());
    let mut endpoints: Vec<_> =
        set(|name| name.starts_with("AWS_ENDPOINT_URL")).map(|(name, value)| (name.clone(), value.clone())).collect();
    if let (true, Some(endpoint)) = (endpoints.is_empty(), sdk.endpoint()) {
        endpoints.push(("endpoint_url of the AWS profile".to_owned(), endpoint.to_owned()));
    }
    Facts {
        key: match texts.signer() {
            Ok(Signer::Held(key)) => Ok(key.public().clone()),
            Ok(Signer::Kms(key)) => key.public().await,
            Err(failure) => Err(failure),
        }
        .map(|public| Key {
            public,
            file: texts.key_file().and_then(|path| Some((path.clone(), std::fs::metadata(path).ok()?.mode()))),
        }),
        pin: texts.target_key(),
        region: ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| variables.get(*name)).cloned(),
        proxies: set(|name| ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].contains(&name.to_uppercase().as_str()))
            .map(|(name, _)| name.clone())
            .collect(),
        target,
        topic,
        endpoints,
        probe,
        queues,
        artifacts,
    }
}

/// Creates, reads and deletes queues as a deployment does, and leaves nothing behind.
async fn create_and_delete(sdk: &Sdk, target: &TargetName, topic: &TopicArn) -> Result<(), Failure> {
    let queues = Queues::new(sdk);
    let (id, now) = new_id()?;
    let tags = Tags::new(&id, target, topic, now.plus(REQUEST_LIFETIME_MAX));
    let pair = Pair::create(&queues, &id, topic, &tags.pairs()).await?;
    let read = match queues.receive(&pair.reply, 0).await {
        // A new queue may need a second to become visible.
        Err(error) if error.kind != Kind::NotFound => {
            Err(Failure::aws("reading this deployment's reply queue", &error))
        }
        _ => Ok(()),
    };
    pair.delete(&queues).await.and(read)
}

fn show(finding: &Finding, output: Output) -> Result<(), Failure> {
    let Finding { level, check, text, remedy, .. } = finding;
    let line = match output {
        Output::Json => ascii_json(&json!({ "level": level.name(), "check": check, "text": text, "remedy": remedy })),
        Output::Text => {
            let remedy = remedy.as_deref().map(|remedy| format!(" — {}", printable(remedy))).unwrap_or_default();
            format!("{:<5} {check}: {}{remedy}", level.name(), printable(text))
        }
    };
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))
}
