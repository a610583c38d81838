//! `relay history`: the latest deployments of a target, read from its evidence, and what runs now.

use relay_aws::Sdk;
use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_protocol::encoding::{ascii_json, printable};
use relay_protocol::evidence::{Evidence, Writer};
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::outcome::Outcome;
use relay_protocol::time::plain_duration;
use relay_protocol::{DeploymentId, TargetName};
use serde_json::{Value, json};

use crate::args::{self, Output};
use crate::settings::Layers;
use crate::show::{line, out};
use crate::verify::checks::{Keys, Signed};
use crate::verify::keys;

/// The most parameters, in characters, that a line for people shows.
const PARAMETERS: usize = 100;

/// A deployment as its evidence shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    id: DeploymentId,
    ended: Ended,
    /// Who asked.
    who: Vec<String>,
    parameters: Vec<String>,
    /// Seconds from the request to the end.
    seconds: Option<i64>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ended {
    /// The tool exited with this code.
    Exited(u8),
    /// relay, or the launcher, ended it for this reason. It ran, or may have run, if this is set.
    ByRelay { reason: String, ran: bool },
    /// There is no record yet, or none that was written.
    Open,
    /// A record is there, and it is not proved.
    NotProved(String),
}

/// Lists the deployments, and returns 0.
pub(crate) async fn history(arguments: &args::History) -> Result<u8, Failure> {
    let target: TargetName = arguments.target.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let texts = Layers::read(&arguments.place)?.texts(&target);
    let topic = texts.topic(&target)?;
    let keys = keys(None, &arguments.place, &target)?;
    let bucket = arguments.evidence.as_deref().or(texts.evidence()).ok_or_else(|| {
        Failure::usage(format!("it is not known where the evidence of {target} is"))
            .hint("pass --evidence BUCKET, or add evidence = \"BUCKET\" to relay.toml; the target's file names it")
    })?;
    let reader = Reader { objects: Objects::new(&Sdk::from_environment(Some(topic.region())).await), bucket, target };
    let mut entries = Vec::new();
    for id in reader.latest(arguments.last).await? {
        let entry = reader.entry(id, &keys).await?;
        match arguments.output {
            Output::Text => out(&text(&entry)),
            Output::Json => out(&ascii_json(&document(&entry))),
        }
        entries.push(entry);
    }
    if arguments.output == Output::Text {
        line(&now_running(&entries, arguments.last));
        if let Some(entry) = entries.first() {
            let folder = Evidence::of(&reader.target, &entry.id).folder().to_owned();
            line(&format!(
                "the latest one's evidence, for verify, report and redeploy: aws s3 cp --recursive s3://{bucket}/{folder}/ FOLDER"
            ));
        }
    }
    Ok(0)
}

/// Reads a target's evidence.
struct Reader<'a> {
    objects: Objects,
    bucket: &'a str,
    target: TargetName,
}

impl Reader<'_> {
    /// The ids of the latest deployments, the latest first. An id begins with its time.
    async fn latest(&self, most: usize) -> Result<Vec<DeploymentId>, Failure> {
        let prefix = format!("deployments/{}/", self.target);
        let mut days = self.folders(&prefix).await?;
        // Beside the days are `tickets` and `saved`.
        days.retain(|day| day.starts_with(|c: char| c.is_ascii_digit()));
        let mut found = Vec::new();
        for day in days.iter().rev() {
            let ids = self.folders(&format!("{prefix}{day}/")).await?;
            found.extend(ids.iter().rev().filter_map(|id| id.parse().ok()).take(most - found.len()));
            if found.len() == most {
                break;
            }
        }
        Ok(found)
    }

    /// The names of the folders in a folder, sorted.
    async fn folders(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let paths = self.objects.folders(self.bucket, prefix).await;
        let paths = paths.map_err(|error| Failure::aws(&format!("listing s3://{}/{prefix}", self.bucket), &error))?;
        let name = |path: &String| Some(path.strip_prefix(prefix)?.trim_end_matches('/').to_owned());
        let mut names: Vec<String> = paths.iter().filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    async fn entry(&self, id: DeploymentId, keys: &Keys) -> Result<Entry, Failure> {
        let evidence = Evidence::of(&self.target, &id);
        for writer in [Writer::Runner, Writer::Launcher] {
            let key = evidence.record(writer);
            let found = self.objects.get(self.bucket, &key, 2 * RECORD_MAX as u64).await;
            let found = found.map_err(|error| Failure::aws(&format!("reading s3://{}/{key}", self.bucket), &error))?;
            if let Some(object) = found {
                return Ok(entry(id, &object.bytes, keys, &self.target));
            }
        }
        Ok(Entry { id, ended: Ended::Open, who: Vec::new(), parameters: Vec::new(), seconds: None })
    }
}

/// What a record says of a deployment, if the right key signed it, and it is about this one.
fn entry(id: DeploymentId, record: &[u8], keys: &Keys, target: &TargetName) -> Entry {
    let not_proved = |problem: String| Entry {
        id: id.clone(),
        ended: Ended::NotProved(problem),
        who: Vec::new(),
        parameters: Vec::new(),
        seconds: None,
    };
    let signed = match Signed::read(record) {
        Ok(signed) => signed,
        Err(problem) => return not_proved(problem),
    };
    if let Err(problem) = signed.verify(keys) {
        return not_proved(problem);
    }
    let about = signed.about();
    if *about.deployment_id != id || about.target != target {
        return not_proved(format!("the record is about {} of {}", about.deployment_id, about.target));
    }
    let (ended, at) = match (signed.deployment(), signed.unfinished()) {
        (Some(it), _) => (
            match &it.outcome {
                Outcome::Exited { code, .. } => Ended::Exited(*code),
                Outcome::Ended { reason, .. } => Ended::ByRelay { reason: reason.to_string(), ran: true },
            },
            Some(it.finished_at),
        ),
        (_, Some(it)) => {
            let ran = it.task_arn.is_some();
            (Ended::ByRelay { reason: it.reason.to_string(), ran }, Some(it.recorded_at))
        }
        _ => (Ended::Open, None),
    };
    let (signers, _) = signed.people();
    Entry {
        seconds: at.map(|at| at.since(id.time())),
        id,
        ended,
        who: signers.iter().map(|signer| signer.name.clone()).collect(),
        parameters: about.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect(),
    }
}

/// A line for people.
fn text(entry: &Entry) -> String {
    let ended = match &entry.ended {
        Ended::Exited(code) => format!("exit {code}"),
        Ended::ByRelay { reason, .. } => reason.clone(),
        Ended::Open => "no record: it runs, or it left none".to_owned(),
        Ended::NotProved(problem) => format!("NOT PROVED: {problem}"),
    };
    let took = entry.seconds.filter(|seconds| *seconds >= 0).map(plain_duration).unwrap_or_default();
    let who = if entry.who.is_empty() { String::new() } else { format!("by {}", entry.who.join(", ")) };
    let line =
        format!("{} {} {ended:<14} {took:>6} {} {}", entry.id.time(), entry.id, printable(&who), parameters(entry));
    line.trim_end().to_owned()
}

fn parameters(entry: &Entry) -> String {
    let all = entry.parameters.join(" ");
    let short: String = all.chars().take(PARAMETERS).collect();
    let more = if short.len() < all.len() { "…" } else { "" };
    printable(&format!("{short}{more}"))
}

/// A line for programs.
fn document(entry: &Entry) -> Value {
    let (outcome, exit_code, reason) = match &entry.ended {
        Ended::Exited(code) => ("exited", Some(*code), None),
        Ended::ByRelay { reason, .. } => ("ended_by_relay", None, Some(reason.as_str())),
        Ended::Open => ("no_record", None, None),
        Ended::NotProved(problem) => ("not_proved", None, Some(problem.as_str())),
    };
    json!({
        "deployment_id": entry.id,
        "requested_at": entry.id.time(),
        "outcome": outcome,
        "exit_code": exit_code,
        "reason": reason,
        "requesters": entry.who,
        "parameters": entry.parameters,
        "seconds": entry.seconds,
    })
}

/// Says what runs now: the result of the latest deployment that succeeded. A later one that did not
/// may have changed something. `entries` begin with the latest.
fn now_running(entries: &[Entry], asked: usize) -> String {
    let Some(at) = entries.iter().position(|entry| entry.ended == Ended::Exited(0)) else {
        let where_else = if entries.len() == asked { "; --last N looks further back" } else { "" };
        return match entries.is_empty() {
            true => "now: nothing, as far as the evidence tells: it has no deployment".to_owned(),
            false => format!("now: unknown, because none of the listed deployments succeeded{where_else}"),
        };
    };
    let found = &entries[at];
    let changed = entries[..at].iter().filter(|entry| match &entry.ended {
        Ended::Exited(_) | Ended::Open | Ended::NotProved(_) => true,
        Ended::ByRelay { ran, .. } => *ran,
    });
    let changed = match changed.count() {
        0 => String::new(),
        1 => "; a later deployment did not succeed, and may have changed something".to_owned(),
        count => format!("; {count} later deployments did not succeed, and may have changed something"),
    };
    format!("now: {} of {}, {}{changed}", found.id, found.id.time(), parameters(found)).replace(", ;", ";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64, ended: Ended) -> Entry {
        let id = DeploymentId::new(1_780_315_200_000 + n, [7; 10]);
        Entry { id, ended, who: vec!["ci".to_owned()], parameters: vec![format!("version={n}")], seconds: Some(72) }
    }

    fn refused() -> Ended {
        Ended::ByRelay { reason: "policy".to_owned(), ran: false }
    }

    #[test]
    fn what_runs_is_the_last_success_unless_a_later_one_may_have_changed_something() {
        let good = entry(1, Ended::Exited(0));
        let now = |later: Vec<Ended>| {
            let mut all: Vec<Entry> = later.into_iter().map(|ended| entry(9, ended)).collect();
            all.extend([good.clone(), entry(0, Ended::Exited(0))]);
            now_running(&all, 20)
        };
        assert!(now(vec![refused()]).ends_with("version=1"), "{}", now(vec![refused()]));
        assert!(
            now(vec![Ended::Exited(1)]).ends_with("a later deployment did not succeed, and may have changed something")
        );
        let two = now(vec![Ended::Open, refused(), Ended::ByRelay { reason: "timed_out".to_owned(), ran: true }]);
        assert!(two.contains("2 later deployments"), "{two}");
        assert!(now_running(&[entry(2, refused())], 1).contains("--last N"));
        assert!(now_running(&[], 20).starts_with("now: nothing"));
    }

    #[test]
    fn a_line_says_when_how_who_and_what() {
        let line = text(&entry(1, Ended::Exited(3)));
        assert!(line.starts_with("2026-06-01T12:00:00Z ") && line.contains(" exit 3 "), "{line}");
        assert!(line.ends_with(" by ci version=1"), "{line}");
    }
}
