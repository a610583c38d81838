//! The bench: what relay costs in time, memory and money, compared with its foundations, which are
//! bare SQS calls through the same SDK and a pipe. `cargo xtask bench` builds the bench and the
//! programs that it measures, starts it, and makes the table. `bench tool …` is the tool that is
//! deployed. Each part has its own sandbox. The bench asserts only that the output is what was
//! written; the figures are not tests.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it measures")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests fail by panicking"))]
#![allow(clippy::cast_possible_truncation, reason = "random numbers are truncated on purpose")]

mod bare;
mod growth;
mod latency;
mod memory;
mod path;
mod quotas;
mod requests;
mod start;
mod statistics;
mod throughput;
mod tool;

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A minute and a half: enough to see that it works and that no figure is far off.
    Quick,
    /// Six minutes.
    Default,
    /// Everything, without a limit on the time.
    Full,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Default => "default",
            Self::Full => "full",
        }
    }

    /// The one of three values that belongs to this form.
    pub(crate) fn pick<T>(self, quick: T, default: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Default => default,
            Self::Full => full,
        }
    }
}

type Part = (&'static str, fn(Form) -> Outcome<Value>);

/// The parts, in the order in which they run.
const PARTS: &[Part] = &[
    ("path", path::measure),
    ("latency", latency::measure),
    ("throughput", throughput::measure),
    ("start", start::measure),
    ("growth", growth::measure),
    ("quotas", quotas::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["tool", rest @ ..] => tool::run(rest),
        ["measure", out, form, parts @ ..] => measure(PathBuf::from(out), form, parts),
        _ => Err("usage: bench measure FILE quick|default|full [PART…]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(out: PathBuf, form: &str, parts: &[&str]) -> Outcome {
    let forms = [Form::Quick, Form::Default, Form::Full];
    let form = forms.into_iter().find(|known| known.name() == form).ok_or("quick, default or full")?;
    let before = load();
    let mut results = Map::new();
    results.insert("form".to_owned(), json!(form.name()));
    results.insert("date".to_owned(), json!(relay_aws::clock::now()));
    results.insert("commit".to_owned(), json!(commit()));
    results.insert("profile".to_owned(), json!(if cfg!(debug_assertions) { "debug" } else { "release" }));
    results.insert("machine".to_owned(), machine());
    for (name, part) in PARTS {
        if parts.is_empty() || parts.contains(name) {
            println!("==> {name}");
            results.insert((*name).to_owned(), part(form)?);
            // What is measured stays, even if a later part fails.
            results.insert("load".to_owned(), json!({ "before": before, "after": load() }));
            std::fs::write(&out, format!("{:#}\n", Value::Object(results.clone())))?;
        }
    }
    Ok(())
}

/// The version that is measured, as `git describe` reports it. Empty if git fails.
fn commit() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty"]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn machine() -> Value {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "cpu": field("/proc/cpuinfo", "model name"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": field("/proc/meminfo", "MemTotal"),
        "kernel": kernel.trim(),
    })
}

/// The load average of the last minute, which shows what else the machine was doing.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// A script for `demo/shell` that runs this program as the tool of a deployment.
pub(crate) fn script(arguments: &[String]) -> Outcome<String> {
    let own = std::env::current_exe()?;
    Ok(format!("exec '{}' tool {}", own.display(), arguments.join(" ")))
}
