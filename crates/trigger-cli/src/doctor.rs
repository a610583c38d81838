//! `relay doctor`: finds what stands between this machine and a first deployment. This file gathers
//! the facts, and [`mod@findings`] says what they mean.
//!
//! What only an attempt can show is reported as unchecked. Nothing is inferred from a right that a
//! deployment does not need.

mod facts;
mod findings;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use relay_aws::Sdk;
use relay_aws::objects::Objects;
use relay_aws::probe::probe;
use relay_console::Failure;
use relay_protocol::encoding::{ascii_json, escaped, printable};
use relay_protocol::frame::Tried;
use relay_protocol::keys::Token;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{Digest, ParameterName, TargetName, TopicArn};
use serde_json::json;

use crate::args::{self, Output};
use crate::doctor::facts::{DryRun, Facts, Key, Queue, Store};
use crate::doctor::findings::{Finding, findings};
use crate::dry_run::Trial;
use crate::request::{new_key, request_for};
use crate::settings::{Layers, Texts, pairs};
use crate::signing::Signer;

/// How long the launcher may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

type Parameters = BTreeMap<ParameterName, String>;

/// Checks each target, and prints each finding once. The exit code is `Usage` if a setting is bad,
/// else that of the first bad finding, else 0.
pub(crate) async fn doctor(arguments: &args::Doctor) -> Result<u8, Failure> {
    let layers = Layers::read(&arguments.place)?;
    let targets: Vec<TargetName> = match &arguments.target {
        Some(text) => vec![text.parse().map_err(|error| Failure::usage(format!("{error}")))?],
        None => layers.targets().cloned().collect(),
    };
    if targets.is_empty() {
        return Err(Failure::usage("no target is named").hint("name one, as in `relay doctor payments/production`, or add [targets.\"…\"] to relay.toml (`relay-admin init` writes it)"));
    }
    let parameters = pairs("--param", &arguments.parameters)?;
    let mut said: Vec<Finding> = Vec::new();
    for target in targets {
        let texts = layers.texts(&target);
        for finding in findings(&look(target, &texts, arguments.dry_run.then_some(&parameters)).await) {
            if !said.contains(&finding) {
                show(&finding, arguments.output)?;
                said.push(finding);
            }
        }
    }
    let bad = |exit| said.iter().any(|finding| finding.exit == Some(exit));
    let first = said.iter().find_map(|finding| finding.exit);
    Ok(if bad(ExitCode::Usage) { Some(ExitCode::Usage) } else { first }.map_or(0, ExitCode::code))
}

/// Gathers the facts about one target. With `parameters`, it makes a dry run.
async fn look(target: TargetName, texts: &Texts, parameters: Option<&Parameters>) -> Facts {
    let topic = texts.topic(&target);
    let region = topic.as_ref().ok().map(TopicArn::region);
    let sdk = Sdk::from_environment(region).await;
    let probe = match &topic {
        Ok(_) => Some(probe(&sdk).await),
        Err(_) => None,
    };
    // Without an identity, every further call would only fail for the same reason.
    let known = probe.as_ref().is_some_and(|probe| probe.identity.is_ok());
    let (key, pins) = (texts.signer(region), texts.pins(&target));
    let fixed = texts.reply_queue().transpose();
    let dry_run = match (parameters, &topic, &key, &pins) {
        (None, ..) => DryRun::NotTried,
        (Some(parameters), Ok(topic), Ok(key), Ok(pins)) if known => {
            let reply_queue = fixed.as_ref().and_then(|queue| queue.as_ref().ok());
            let trial = Trial { target: &target, topic, key, pins: pins.as_ref(), reply_queue, patience: PATIENCE };
            let answer = Box::new(try_request(&trial, &sdk, parameters).await);
            DryRun::Tried { answer, parameters: !parameters.is_empty() }
        }
        _ => DryRun::NotPossible,
    };
    let queues = Queue::of(fixed, &dry_run);
    let artifacts = store(texts, &target, known.then(|| Objects::new(&sdk))).await;
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
        key: match key {
            Ok(Signer::Held(key)) => Ok(Key::Public { public: key.public().clone(), file: key_file(texts) }),
            Ok(Signer::Kms(key)) => key.public().await.map(|public| Key::Public { public, file: None }),
            Ok(Signer::Token(source)) => {
                // Any digest will do: this token signs nothing.
                let token = source.token(Digest::of(b"relay doctor")).await;
                token.map(|token| Key::Token { source: source.words(), claims: claims(&token) })
            }
            Err(failure) => Err(failure),
        },
        pins,
        region: ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| variables.get(*name)).cloned(),
        proxies: set(|name| ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"].contains(&name.to_uppercase().as_str()))
            .map(|(name, _)| name.clone())
            .collect(),
        target,
        topic,
        endpoints,
        probe,
        queues,
        dry_run,
        artifacts,
    }
}

/// The key's file and its mode, if the key is in one and files have modes.
fn key_file(texts: &Texts) -> Option<(PathBuf, u32)> {
    texts.key_file().and_then(|path| Some((path.clone(), relay_platform::mode(&std::fs::metadata(path).ok()?)?)))
}

/// The claims of a token that says who the job is, without times and ids of its own.
fn claims(token: &str) -> BTreeMap<String, String> {
    const OTHERS: [&str; 6] = ["/aud", "/iat", "/nbf", "/exp", "/jti", "/runner_environment"];
    let tags = Token::parse(token).map(|token| token.tags("")).unwrap_or_default();
    tags.into_iter().filter(|(name, _)| !OTHERS.contains(&name.as_str())).collect()
}

/// Looks at the artifact store, if there is one and if AWS can be asked.
async fn store(texts: &Texts, target: &TargetName, objects: Option<Objects>) -> Result<Option<Store>, Failure> {
    let Some((bucket, prefix)) = texts.artifact_store(target)? else { return Ok(None) };
    let answer = match objects {
        Some(objects) => Some(objects.look(&bucket, &format!("{prefix}relay-doctor")).await),
        None => None,
    };
    Ok(Some(Store { bucket, prefix, answer }))
}

/// Makes a dry run with these parameters.
async fn try_request(trial: &Trial<'_>, sdk: &Sdk, parameters: &Parameters) -> Result<Tried, Failure> {
    let session = new_key()?;
    let place = (trial.topic, trial.target);
    let asked = trial.ask(sdk, &[], |id, now, pair| request_for(place, parameters, (id, now), &session, pair)).await?;
    Ok(asked.tried)
}

fn show(finding: &Finding, output: Output) -> Result<(), Failure> {
    let Finding { level, check, text, remedy, .. } = finding;
    let line = match output {
        Output::Json => ascii_json(&json!({ "level": level.name(), "check": check, "text": text, "remedy": remedy })),
        Output::Text => {
            let remedy = remedy.as_deref().map(|remedy| format!(" — {}", printable(remedy))).unwrap_or_default();
            // Not cut: the claims of a token are long, and all of them are wanted.
            format!("{:<5} {check}: {}{remedy}", level.name(), escaped(text))
        }
    };
    writeln!(std::io::stdout(), "{line}").map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))
}
