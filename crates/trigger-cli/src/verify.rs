//! `relay verify`: checks a deployment's evidence offline. This file reads the files and prints the
//! findings; [`checks`] makes them, and [`replay`] reads archived frames.

pub(crate) mod checks;
pub(crate) mod replay;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use relay_console::{Failure, harmless};
use relay_protocol::outcome::ExitCode;
use relay_protocol::{PublicKey, TargetName};
use serde_json::Value;

use crate::args;
use crate::settings::{Layers, public_key};
use crate::verify::checks::{Evidence, Finding, Keys, Level, Signed, check};

/// The most bytes that are read of one file: several times what a runner puts into one.
const FILE_MAX: u64 = 64 << 20;

/// Reads the evidence, checks it, and prints what is proved and what is not. The exit code is 0
/// only if everything that was given is proved.
pub(crate) fn verify(arguments: &args::Verify) -> Result<u8, Failure> {
    let evidence = gather(arguments)?;
    let signed = Signed::read(&evidence.record).map_err(Failure::usage)?;
    let place = place(arguments.config.as_deref());
    let keys = keys(arguments.key.as_deref(), &place, signed.target())?;
    let findings = check(&evidence, &signed, &keys);
    let text: String = findings.iter().map(line).collect();
    std::io::stdout()
        .write_all(harmless(&text).as_bytes())
        .map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))?;
    let unproved = findings.iter().any(|finding| finding.level == Level::NotProved);
    Ok(if unproved { ExitCode::No.code() } else { 0 })
}

fn line(Finding { level, what, text }: &Finding) -> String {
    let level = match level {
        Level::Proved => "proved",
        Level::Says => "says",
        Level::NotProved => "NOT PROVED",
        Level::Open => "open",
    };
    format!("{level:<10}  {what}: {text}\n")
}

/// Where the pins of a record's target are: in relay.toml, and before it in the environment.
pub(crate) fn place(config: Option<&Path>) -> args::Place {
    let variable = |name| std::env::var(name).ok();
    args::Place {
        target_key: variable("RELAY_TARGET_PUBLIC_KEY"),
        answer_key: variable("RELAY_ANSWER_PUBLIC_KEY"),
        config: config.map(Path::to_owned),
        ..args::Place::default()
    }
}

/// The keys that may have signed: one that was given, or the target's pins.
pub(crate) fn keys(given: Option<&str>, place: &args::Place, target: &TargetName) -> Result<Keys, Failure> {
    match given {
        Some(text) => Ok(Keys::Bare(key(text)?)),
        None => {
            let pins = Layers::read(place)?.texts(target).pins(target).map_err(|failure| Failure {
                hints: vec![
                    "relay.toml must have both keys of the target that the record names (--config FILE); with --key, one key is enough and proves less".to_owned(),
                ],
                ..failure
            })?;
            pins.map(Keys::Pinned).ok_or_else(|| Failure::usage(format!("no keys are pinned for {target}")))
        }
    }
}

fn key(text: &str) -> Result<PublicKey, Failure> {
    public_key(text).map_err(|problem| Failure::usage(format!("--key is {problem}")))
}

/// The record in a folder of evidence, in a file, or in a file of `--result-file`.
pub(crate) fn record_at(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.is_dir() {
        return read(&writer(path)?.join("record.json"));
    }
    let bytes = read(path).map_err(|failure| {
        failure
            .hint("a record is a file, or a folder copied from the evidence bucket; `relay history` says where it is")
    })?;
    match result_file(&bytes) {
        Some(result) if result["record"].is_null() => {
            Err(Failure::usage(format!("the result in {} has no record", path.display()))
                .hint("a deployment that was refused or never started has its record only in the evidence bucket"))
        }
        Some(result) => Ok(result["record"].to_string().into_bytes()),
        None => Ok(bytes),
    }
}

/// The content of a file, if it is one of `--result-file`.
pub(crate) fn result_file(bytes: &[u8]) -> Option<Value> {
    let result: Option<Value> = serde_json::from_slice(bytes).ok();
    result.filter(|result| result["exit_code"].is_u64() && result["target"].is_string())
}

/// The subfolder with the record: the runner's, or else the launcher's.
fn writer(folder: &Path) -> Result<PathBuf, Failure> {
    let of = |name: &str| Some(folder.join(name)).filter(|folder| folder.join("record.json").is_file());
    of("runner").or_else(|| of("launcher")).ok_or_else(|| {
        Failure::usage(format!("{} has neither runner/record.json nor launcher/record.json", folder.display())).hint(
            "copy a deployment's whole folder from the evidence bucket: aws s3 cp --recursive s3://BUCKET/deployments/TARGET/DAY/ID/ FOLDER",
        )
    })
}

/// Reads what was named, and what lies in the folder if one was named.
fn gather(arguments: &args::Verify) -> Result<Evidence, Failure> {
    let mut evidence = evidence_at(&arguments.path)?;
    if let Some(path) = &arguments.request {
        evidence.request = Some(read(path)?);
    }
    if let Some(path) = &arguments.configuration {
        evidence.configurations = vec![read(path)?];
    }
    if !arguments.transcript.is_empty() {
        evidence.transcript = arguments.transcript.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    }
    Ok(evidence)
}

/// Reads a record, or everything that lies in a folder of evidence.
pub(crate) fn evidence_at(path: &Path) -> Result<Evidence, Failure> {
    let mut evidence = Evidence::default();
    if path.is_dir() {
        let folder = path;
        let (runner, launcher, writer) = (folder.join("runner"), folder.join("launcher"), writer(folder)?);
        evidence.record = read(&writer.join("record.json"))?;
        evidence.sigstore = read_if_there(&writer.join("record.sigstore.json"))?;
        evidence.request = read_if_there(&folder.join("request.json"))?;
        evidence.issuer_keys = read_if_there(&folder.join("issuer-keys.json"))?;
        evidence.claim = read_if_there(&folder.join("claim"))?;
        evidence.summary = read_if_there(&launcher.join("vsa.json"))?;
        evidence.configurations = all(&folder.join("configuration"), "toml")?;
        evidence.transcript = all(&runner, "jsonl")?;
    } else {
        evidence.record = read(path)?;
    }
    Ok(evidence)
}

/// Reads a file of bounded size.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let named = |error: std::io::Error| Failure::usage(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    File::open(path).map_err(named)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(named)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::usage(format!("{} is larger than {FILE_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    if path.is_file() { read(path).map(Some) } else { Ok(None) }
}

/// Reads the files of a folder that have this extension, in the order of their names.
fn all(folder: &Path, extension: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}
