//! Merges the command line with relay.toml. Flags beat the environment, and the environment beats
//! the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use relay_aws::Sdk;
use relay_console::Failure;
use relay_engine::{Pins, Timeouts};
use relay_protocol::keys::{PrivateKey, VerifyingKey};
use relay_protocol::limits::APPROVAL_LIFETIME_MAX;
use relay_protocol::request::TraceParent;
use relay_protocol::{ParameterName, PublicKey, QueueUrl, Region, TargetName, TopicArn};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::args;
use crate::pem;
use crate::signing::{KmsKey, Signer};
use crate::token::{OIDC, TokenSource};

/// Where right pins come from.
pub(crate) const PIN_HINT: &str = "correct target_key and answer_key in relay.toml: the output RelayToml of the target's stack has the commands that print them";

/// Everything that a deployment needs, validated.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) target: TargetName,
    /// The target that the user may have meant.
    pub(crate) similar: Option<TargetName>,
    pub(crate) topic: TopicArn,
    pub(crate) key: Signer,
    /// `None` if the caller wants to trust whoever answers first.
    pub(crate) pins: Option<Pins>,
    pub(crate) parameters: BTreeMap<ParameterName, String>,
    pub(crate) artifacts: BTreeMap<ParameterName, PathBuf>,
    /// Bucket and prefix.
    pub(crate) artifact_store: Option<(String, String)>,
    /// How long to wait for approvals, and the bucket and prefix where the request waits.
    pub(crate) wait_approval: Option<(Duration, (String, String))>,
    pub(crate) reply_queue: Option<QueueUrl>,
    /// How long the deployment may take before this command asks it to stop.
    pub(crate) timeout: Option<Duration>,
    /// How long to keep asking while the target is busy.
    pub(crate) wait: Option<Duration>,
    pub(crate) timeouts: Timeouts,
    /// How long nothing may be printed before a line says what is running. Zero means forever.
    pub(crate) heartbeat: Duration,
    /// The trace context of the request, and so of the tool.
    pub(crate) context: Option<TraceParent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    targets: BTreeMap<TargetName, Target>,
    #[serde(default)]
    default: Target,
}

/// What relay.toml says about one target, or about all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    topic: Option<String>,
    key: Option<String>,
    token_command: Option<String>,
    #[serde(default, deserialize_with = "keys")]
    target_key: Option<String>,
    #[serde(default, deserialize_with = "keys")]
    answer_key: Option<String>,
    artifact_store: Option<String>,
    approvals: Option<String>,
    evidence: Option<String>,
    reply_queue_url: Option<String>,
}

/// Checks the form of relay.toml.
pub(crate) fn check(text: &str) -> Result<(), String> {
    toml::from_str::<File>(text).map(drop).map_err(|error| error.to_string())
}

impl Settings {
    /// Reads and validates the settings of `relay deploy`.
    pub(crate) fn of(arguments: &args::Deploy) -> Result<Self, Failure> {
        let asking = &arguments.asking;
        let target: TargetName = arguments.target.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let layers = Layers::read(&asking.place)?;
        let (texts, similar) = (layers.texts(&target), layers.similar(&target).cloned());
        let did_you_mean = |failure: Failure| match &similar {
            Some(similar) => failure.hint(format!("did you mean {similar}?")),
            None => failure,
        };
        let topic = texts.topic(&target).map_err(did_you_mean)?;
        Ok(Self {
            key: texts.signer(Some(topic.region()))?,
            topic,
            pins: texts.pins(&target)?,
            parameters: pairs("--param", &arguments.parameters)?,
            artifacts: pairs("--artifact", &arguments.artifacts)?
                .into_iter()
                .map(|(name, path)| (name, PathBuf::from(path)))
                .collect(),
            artifact_store: texts.artifact_store(&target)?,
            wait_approval: match asking.wait_approval.as_deref() {
                Some(text) => Some((duration("--wait-approval", text)?, texts.approval_store(&target)?)),
                None => None,
            },
            reply_queue: texts.reply_queue()?,
            wait: asking.wait.as_deref().map(|text| duration("--wait", text)).transpose()?,
            timeout: asking.timeout.as_deref().map(|text| duration("--timeout", text)).transpose()?,
            timeouts: Timeouts {
                admission: duration("--admission-timeout", &asking.admission_timeout)?,
                ..timeouts(&asking.following)?
            },
            heartbeat: heartbeat(&asking.following)?,
            context: std::env::var("TRACEPARENT").ok().and_then(|text| text.try_into().ok()),
            target,
            similar,
        })
    }
}

/// Returns how long nothing may be printed.
pub(crate) fn heartbeat(following: &args::Following) -> Result<Duration, Failure> {
    duration_or_none("--heartbeat", &following.heartbeat)
}

/// Returns the timeouts of a reader.
pub(crate) fn timeouts(following: &args::Following) -> Result<Timeouts, Failure> {
    Ok(Timeouts {
        start: duration("--start-timeout", &following.start_timeout)?,
        silence: duration("--silence-timeout", &following.silence_timeout)?,
        drain: duration("--drain-timeout", &following.drain_timeout)?,
        outage: duration("--outage-timeout", &following.outage_timeout)?,
        ..Timeouts::default()
    })
}

/// Flags and environment, and relay.toml with the directory that its paths are relative to.
#[derive(Debug)]
pub(crate) struct Layers {
    flags: args::Place,
    file: File,
    folder: PathBuf,
}

/// Where requests wait for approvals: the region, if it is known, and bucket and prefix.
pub(crate) type Store = (Option<Region>, (String, String));

/// What the layers say about one target, as text. Each method validates its own value.
#[derive(Debug)]
pub(crate) struct Texts {
    topic: Option<String>,
    key: Option<String>,
    token_command: Option<PathBuf>,
    /// The directory of relay.toml, if the key comes from there.
    key_folder: Option<PathBuf>,
    target_key: Option<String>,
    answer_key: Option<String>,
    trust_first_answer: bool,
    artifact_store: Option<String>,
    approvals: Option<String>,
    evidence: Option<String>,
    reply_queue_url: Option<String>,
}

impl Layers {
    /// Reads relay.toml. `flags` already holds the values from the environment.
    pub(crate) fn read(flags: &args::Place) -> Result<Self, Failure> {
        let (file, folder) = read_file(flags.config.as_deref())?;
        Ok(Self { flags: flags.clone(), file, folder })
    }

    /// Reads relay.toml alone, without flags or environment.
    pub(crate) fn of_file(path: Option<&Path>) -> Result<Self, Failure> {
        Self::read(&args::Place { config: path.map(Path::to_owned), ..args::Place::default() })
    }

    /// Returns where deployments may be: the regions of all topics known here, and the caller's
    /// own.
    pub(crate) async fn regions(&self) -> BTreeSet<Region> {
        let topics = self.file.targets.values().chain([&self.file.default]).map(|target| &target.topic);
        let topics = topics.chain([&self.flags.topic]).flatten();
        let mut regions: BTreeSet<Region> =
            topics.filter_map(|topic| Some(topic.parse::<TopicArn>().ok()?.region().clone())).collect();
        let own = Sdk::from_environment(None).await.region().and_then(|region| region.parse().ok());
        regions.extend(own);
        regions
    }

    /// Returns every bucket and prefix where requests may wait for approvals: of the target that is
    /// named, or else of all targets in relay.toml; with the region of the target's topic.
    pub(crate) fn approval_stores(&self, target: Option<&TargetName>) -> Result<Vec<Store>, Failure> {
        let targets: Vec<&TargetName> = match target {
            Some(target) => vec![target],
            None => self.targets().collect(),
        };
        let mut stores = BTreeSet::new();
        for target in targets {
            let texts = self.texts(target);
            if texts.approvals.is_some() {
                let region = texts.topic(target).ok().map(|topic| topic.region().clone());
                stores.insert((region, texts.approval_store(target)?));
            }
        }
        // A place for all targets may be known without any target.
        let everywhere = self.flags.approval_store.as_deref().or(self.file.default.approvals.as_deref());
        if let (true, Some(text)) = (stores.is_empty(), everywhere.filter(|text| !text.contains("{target}"))) {
            stores.insert((None, store("approval store", text.trim())?));
        }
        if stores.is_empty() {
            let more = "; with {target} in it, name the target with --target";
            return Err(
                no_approval_store().hint(format!("the store may come from relay.toml or RELAY_APPROVALS{more}"))
            );
        }
        Ok(stores.into_iter().collect())
    }

    /// Returns the targets that relay.toml names.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &TargetName> {
        self.file.targets.keys()
    }

    /// Returns the target of relay.toml that `target` most likely stands for, if relay.toml names
    /// targets and not this one.
    pub(crate) fn similar(&self, target: &TargetName) -> Option<&TargetName> {
        let distance = |name: &TargetName| strsim::damerau_levenshtein(name.as_str(), target.as_str());
        let nearest = self.file.targets.keys().min_by_key(|name| distance(name))?;
        (1..=3).contains(&distance(nearest)).then_some(nearest)
    }

    /// Returns what the layers say about `target`.
    pub(crate) fn texts(&self, target: &TargetName) -> Texts {
        let specific = self.file.targets.get(target).cloned().unwrap_or_default();
        let pick = |flag: &Option<String>, field: fn(&Target) -> &Option<String>| {
            // Check each layer separately: a CI system passes an unset secret as an empty variable,
            // which must not hide the pin in the file.
            // It may also add a line break.
            let texts = [flag, field(&specific), field(&self.file.default)].into_iter().flatten();
            texts.map(|text| text.trim()).find(|text| !text.is_empty()).map(str::to_owned)
        };
        Texts {
            topic: pick(&self.flags.topic, |t| &t.topic),
            key: pick(&self.flags.key, |t| &t.key),
            key_folder: self.flags.key.as_deref().is_none_or(|key| key.trim().is_empty()).then(|| self.folder.clone()),
            token_command: self.token_command(pick(&self.flags.token_command, |t| &t.token_command)),
            target_key: pick(&self.flags.target_key, |t| &t.target_key),
            answer_key: pick(&self.flags.answer_key, |t| &t.answer_key),
            trust_first_answer: self.flags.trust_first_answer,
            artifact_store: pick(&self.flags.artifact_store, |t| &t.artifact_store),
            approvals: pick(&self.flags.approval_store, |t| &t.approvals),
            evidence: pick(&None, |t| &t.evidence),
            reply_queue_url: pick(&self.flags.reply_queue_url, |t| &t.reply_queue_url),
        }
    }
}

impl Layers {
    /// The program that prints tokens. A path of relay.toml is relative to that file; a flag's and
    /// a variable's are the caller's, and a bare name is looked for on the PATH.
    fn token_command(&self, text: Option<String>) -> Option<PathBuf> {
        let is_from_file = self.flags.token_command.as_deref().is_none_or(|text| text.trim().is_empty());
        text.map(|text| if is_from_file && text.contains('/') { self.folder.join(text) } else { PathBuf::from(text) })
    }
}

impl Texts {
    /// Returns the topic, which must be known.
    pub(crate) fn topic(&self, target: &TargetName) -> Result<TopicArn, Failure> {
        let text = self.topic.as_deref().ok_or_else(|| {
            Failure::usage(format!("no topic is configured for {target}"))
                .hint(format!("add [targets.\"{target}\"] with topic = \"arn:…\" to relay.toml, or pass --topic"))
        })?;
        text.parse().map_err(|error| Failure::usage(format!("the topic is {error}")))
    }

    /// Returns what signs, which must be known.
    pub(crate) fn signer(&self, region: Option<&Region>) -> Result<Signer, Failure> {
        let text = match (self.key.as_deref(), &self.token_command) {
            (Some(OIDC) | None, Some(program)) => return Ok(Signer::Token(TokenSource::Program(program.clone()))),
            (Some(OIDC), None) => {
                return TokenSource::of(region, |name| std::env::var(name).ok()).map(Signer::Token);
            }
            (Some(_), Some(_)) => {
                return Err(Failure::usage(
                    "both a key and a token command are configured, and relay cannot sign with both",
                )
                .hint("leave the key out (--key, RELAY_SIGNING_KEY, relay.toml), or pass --key oidc"));
            }
            (Some(text), None) => text,
            (None, None) => {
                return Err(Failure::usage("nothing is configured to sign with").hint(
                    "pass --key oidc (the job's own identity token), --key FILE or the ARN of a KMS key, or make a key with `relay keygen`",
                ));
            }
        };
        match KmsKey::parse(text) {
            Some(key) => Ok(Signer::Kms(key)),
            None => read_key(text, self.key_folder.as_deref()).map(Signer::Held),
        }
    }

    /// Returns the path of the key file, if the key is in one.
    pub(crate) fn key_file(&self) -> Option<PathBuf> {
        self.key
            .as_deref()
            .filter(|text| *text != OIDC && pem::find(text).is_none() && KmsKey::parse(text).is_none())
            .map(|text| key_file(text, self.key_folder.as_deref()))
    }

    /// Returns the pinned keys, which must be known unless the caller wants to trust whoever
    /// answers first.
    pub(crate) fn pins(&self, target: &TargetName) -> Result<Option<Pins>, Failure> {
        let target_key = pin("target key", self.target_key.as_deref())?;
        let answer_key = pin("answer key", self.answer_key.as_deref())?;
        let missing = match (target_key, answer_key) {
            (Some(target), Some(answer)) => return Ok(Some(Pins { target, answer })),
            (None, None) if self.trust_first_answer => return Ok(None),
            (None, None) => "neither target_key nor answer_key is pinned",
            (None, Some(_)) => "target_key is not pinned",
            (Some(_), None) => "answer_key is not pinned",
        };
        Err(Failure::usage(format!("{missing} for {target}, so relay could not tell a true answer from a forged one"))
            .hint("the output RelayToml of the target's stack has the section for relay.toml, with the commands that print both keys; for a trial without pins: --trust-first-answer"))
    }

    /// Returns the artifact store's bucket and prefix, if one is named.
    pub(crate) fn artifact_store(&self, target: &TargetName) -> Result<Option<(String, String)>, Failure> {
        let filled = self.artifact_store.as_deref().map(|text| text.replace("{target}", target.as_str()));
        filled.map(|text| store("artifact store", &text)).transpose()
    }

    /// Returns the bucket and prefix where requests wait for approvals, which must be known.
    pub(crate) fn approval_store(&self, target: &TargetName) -> Result<(String, String), Failure> {
        let text = self.approvals.as_deref().ok_or_else(no_approval_store)?;
        store("approval store", &text.replace("{target}", target.as_str()))
    }

    /// Returns the target account's evidence bucket, if relay.toml names it.
    pub(crate) fn evidence(&self) -> Option<&str> {
        self.evidence.as_deref()
    }

    /// Returns the pre-made reply queue, if one is named.
    pub(crate) fn reply_queue(&self) -> Result<Option<QueueUrl>, Failure> {
        let queue = self.reply_queue_url.as_deref().map(str::parse).transpose();
        queue.map_err(|error| Failure::usage(format!("--reply-queue-url: {error}")))
    }
}

/// Reads a pin: one key or, while it is being replaced, several with commas. Each must be able to
/// verify something: nothing is published otherwise.
fn pin(name: &str, text: Option<&str>) -> Result<Option<Vec<PublicKey>>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |problem: String| Failure::usage(format!("the pinned {name} is {problem}")).hint(PIN_HINT);
    text.split(',').map(public_key).collect::<Result<_, _>>().map(Some).map_err(wrong)
}

/// The ids of a pin's keys, for people.
pub(crate) fn key_ids(keys: &[PublicKey]) -> String {
    keys.iter().map(PublicKey::key_id).collect::<Vec<_>>().join(" or ")
}

/// A pin in relay.toml: a key, or a list of keys.
fn keys<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a key in base64, or a list of keys")]
    enum Keys {
        One(String),
        Several(Vec<String>),
    }
    match Keys::deserialize(deserializer)? {
        Keys::One(key) => Ok(Some(key)),
        // Without this error, the pin of [default] would count.
        Keys::Several(keys) if keys.is_empty() => Err(serde::de::Error::custom("the list of keys is empty")),
        Keys::Several(keys) => Ok(Some(keys.join(","))),
    }
}

/// Reads a public key that can verify something; an error says what the text is instead.
pub(crate) fn public_key(text: &str) -> Result<PublicKey, String> {
    let key: PublicKey = text.trim().parse().map_err(|error| format!("{error}"))?;
    VerifyingKey::from_spki(&key).map_err(|error| error.to_string())?;
    Ok(key)
}

/// Reads the relay.toml that the flag names, else the nearest one in this directory or above. It is
/// not an error to find none. Also returns the directory that its paths are relative to.
fn read_file(flag: Option<&Path>) -> Result<(File, PathBuf), Failure> {
    let here = std::env::current_dir().unwrap_or_default();
    let found = match flag {
        Some(path) => Some(path.to_owned()),
        None => here.ancestors().map(|folder| folder.join("relay.toml")).find(|path| path.is_file()),
    };
    let Some(path) = found else { return Ok((File::default(), here)) };
    let text =
        std::fs::read_to_string(&path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    let file = toml::from_str(&text).map_err(|error| {
        // Not the line itself: it may hold a key.
        let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().lines().count().max(1));
        let place = line.map(|line| format!(", line {line}")).unwrap_or_default();
        Failure::usage(format!("{}{place}: {}", path.display(), error.message()))
    })?;
    Ok((file, path.parent().map(Path::to_owned).unwrap_or_default()))
}

/// Reads a key from a PEM, or from a file with one. A path from relay.toml is relative to that
/// file. Any other text may be a key in another form, so it is shown only if it looks like
/// a path.
fn read_key(text: &str, folder: Option<&Path>) -> Result<PrivateKey, Failure> {
    let pem = match pem::find(text) {
        Some(pem) => pem,
        None => {
            let content = std::fs::read_to_string(key_file(text, folder)).map(Zeroizing::new).map_err(|error| {
                // No form of key looks like this.
                let is_path = text.len() < 200 && (text.starts_with(['/', '.']) || text.ends_with(".pem"));
                let name = match (folder, is_path) {
                    (Some(_), true) => format!("key = {text:?} in relay.toml"),
                    (Some(_), false) => "`key` in relay.toml".to_owned(),
                    (None, true) => text.to_owned(),
                    (None, false) => "--key or RELAY_SIGNING_KEY".to_owned(),
                };
                Failure::usage(format!("{name} is neither a PEM nor a file that can be read ({})", error.kind()))
                    .hint("make a key with `relay keygen`")
            })?;
            pem::find(&content).unwrap_or(content)
        }
    };
    PrivateKey::from_pem(&pem).map_err(|error| Failure::usage(format!("the signing key is {error}")))
}

fn key_file(text: &str, folder: Option<&Path>) -> PathBuf {
    folder.map_or_else(|| PathBuf::from(text), |folder| folder.join(text))
}

pub(crate) fn pairs(flag: &str, texts: &[String]) -> Result<BTreeMap<ParameterName, String>, Failure> {
    let mut map = BTreeMap::new();
    for text in texts {
        let form = if flag == "--artifact" { "NAME=PATH" } else { "NAME=VALUE" };
        let (name, value) =
            text.split_once('=').ok_or_else(|| Failure::usage(format!("{flag} {text}: write {form}")))?;
        let name: ParameterName = name.parse().map_err(|error| Failure::usage(format!("{flag}: {error}")))?;
        if map.insert(name.clone(), value.to_owned()).is_some() {
            return Err(Failure::usage(format!("{flag} {name} is given twice")));
        }
    }
    Ok(map)
}

fn no_approval_store() -> Failure {
    Failure::usage("no approval store is configured").hint(
        "add approvals = \"s3://bucket/{target}/\" to relay.toml, as the output Approvals of the CI account's stack says, or pass --approval-store",
    )
}

/// How long an approval may last, as typed.
pub(crate) fn approval_lifetime(text: &str) -> Result<Duration, Failure> {
    let lifetime = duration("--for", text)?;
    let most = Duration::from_secs(APPROVAL_LIFETIME_MAX.unsigned_abs());
    if lifetime > most { Err(Failure::usage(format!("--for {text}: at most 24h"))) } else { Ok(lifetime) }
}

/// Splits `s3://bucket/prefix/` into bucket and prefix.
fn store(name: &str, text: &str) -> Result<(String, String), Failure> {
    let parts = text.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    match parts {
        Some((bucket, prefix)) if !bucket.is_empty() && (prefix.is_empty() || prefix.ends_with('/')) => {
            Ok((bucket.to_owned(), prefix.to_owned()))
        }
        _ => Err(Failure::usage(format!("the {name} `{text}` is not of the form s3://bucket/prefix/"))),
    }
}

/// Parses a duration as typed, such as 90s, 45m or 2h. It must be more than zero.
fn duration(flag: &str, text: &str) -> Result<Duration, Failure> {
    match duration_or_none(flag, text)? {
        Duration::ZERO => Err(Failure::usage(format!("{flag} {text}: the duration must be more than zero"))),
        duration => Ok(duration),
    }
}

/// Parses a duration as typed, which may be zero.
pub(crate) fn duration_or_none(flag: &str, text: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::usage(format!("{flag} {text}: write a duration such as 90s, 45m or 2h"));
    let (number, factor) = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, "s")) => (number, 1),
        Some((number, "m")) => (number, 60),
        Some((number, "h")) => (number, 3_600),
        _ => return Err(wrong()),
    };
    let number = number.parse::<u32>().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * factor))
}
