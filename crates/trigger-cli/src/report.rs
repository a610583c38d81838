//! `relay report`: one deployment as a single HTML page that needs no network. This file reads the
//! evidence or the result file; [`log`] makes lines of the frames, and [`page`] makes the page.

mod log;
mod page;

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use relay_console::Failure;
use serde_json::Value;

use crate::args;
use crate::report::log::Log;
use crate::report::page::{Page, Phase};
use crate::show::line;
use crate::verify::checks::{self, Evidence, Signed};
use crate::verify::{evidence_at, keys, place, read, result_file};

/// Writes the page, and prints its path.
pub(crate) fn report(arguments: &args::Report) -> Result<u8, Failure> {
    let result = if arguments.path.is_dir() { None } else { result_file(&read(&arguments.path)?) };
    let page = match result {
        Some(result) => of_result(&result, arguments)?,
        None => of_evidence(&evidence_at(&arguments.path)?, arguments)?,
    };
    let html = page.html();
    let name = || PathBuf::from(format!("relay-report-{}.html", page.id.as_deref().unwrap_or("unknown")));
    let out = arguments.out.clone().unwrap_or_else(name);
    if out.as_os_str() == "-" {
        std::io::stdout().write_all(html.as_bytes())?;
        return Ok(0);
    }
    fs::write(&out, html).map_err(|error| Failure::usage(format!("cannot write {}: {error}", out.display())))?;
    line(&format!("relay: wrote {}", out.display()));
    Ok(0)
}

/// The page of a result file: it knows the phases, and has no log.
fn of_result(result: &Value, arguments: &args::Report) -> Result<Page, Failure> {
    let mut page = match &result["record"] {
        Value::Null => Page::default(),
        record => of_evidence(&Evidence { record: record.to_string().into_bytes(), ..Evidence::default() }, arguments)?,
    };
    let text = |name: &str| result[name].as_str().map(str::to_owned);
    page.id = text("deployment_id");
    page.target = text("target").unwrap_or_default();
    page.succeeded = result["exit_code"] == 0;
    page.outcome = match (text("reason"), text("message")) {
        (Some(reason), Some(message)) => format!("exit {}: {message} ({reason})", result["exit_code"]),
        (None, Some(message)) => format!("exit {}: {message}", result["exit_code"]),
        _ => format!("exit {}", result["exit_code"]),
    };
    let begins = |name: &str| result["milliseconds"][name].as_u64();
    let names = [("published", "launcher"), ("admitted", "task starts"), ("started", "tool runs"), ("finished", "")];
    let known: Vec<(u64, &str)> = names.iter().filter_map(|(name, what)| Some((begins(name)?, *what))).collect();
    if !known.is_empty() {
        let spans = known.windows(2).filter_map(|pair| match pair {
            [(from, what), (to, _)] => Some(Phase::new(what, to.saturating_sub(*from), true)),
            _ => None,
        });
        let asking = Phase::new("asking", known.first().map_or(0, |(at, _)| *at), true);
        page.phases = std::iter::once(asking).chain(spans).collect();
    }
    page.no_log = "A result file has no log. Copy the deployment's folder from the evidence bucket, and run \
        `relay report` on the folder."
        .to_owned();
    Ok(page)
}

/// The page of a record, and of the rest of the evidence as far as it is there.
fn of_evidence(evidence: &Evidence, arguments: &args::Report) -> Result<Page, Failure> {
    let signed = Signed::read(&evidence.record).map_err(Failure::usage)?;
    let keys = keys(arguments.key.as_deref(), &place(arguments.config.as_deref()), signed.target())?;
    let findings = checks::check(evidence, &signed, &keys);
    let log = Log::of(&evidence.transcript, signed.about().deployment_id, keys.of_target());
    let mut page = Page::of(&signed, findings, log);
    page.no_log = "The evidence has no frames of the runner, so there is no log.".to_owned();
    Ok(page)
}
