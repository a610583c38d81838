//! Start-up times: `relay deploy` from its start to its publication, and the launcher from its
//! start, or from the event, to RunTask; over HTTP and over TLS. The sandbox answers immediately.
//! The time that it still takes is subtracted, according to its own log.

use std::time::Duration;

use relay_tests::kit::sandbox::{CI, Entry};
use relay_tests::{Options, Sandbox};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::statistics::{summary, uncovered};
use crate::tool::now_ns;
use crate::{Form, Outcome};

/// Measures the start of the CLI, and warm and cold starts of the launcher.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let mut results = serde_json::Map::new();
    for (suffix, https) in [("", false), ("_tls", true)] {
        for (name, times) in starts(form, https)? {
            results.insert(format!("{name}{suffix}"), times);
        }
    }
    let result = Value::Object(results);
    println!("{result}");
    Ok(result)
}

/// The times of one sandbox. With `https`, CLI and launcher reach it over TLS, and each connection
/// costs a handshake.
fn starts(form: Form, https: bool) -> Outcome<[(&'static str, Value); 3]> {
    let options = Options { launchers: 1, ..Options::default() };
    let sandbox = Sandbox::start(options.set(&format!("launcher_https={https}")));
    let mut results = [const { Vec::new() }; 4];
    let [cli, cli_beyond, warm, warm_beyond] = &mut results;
    for _ in 0..form.pick(5, 20, 50) {
        let (began, id) = deploy(&sandbox, https)?;
        let log = sandbox.log();
        let published = entry(&log, |entry| entry.is("sns", "Publish"))?;
        let by_ci: Vec<&Entry> = log.iter().filter(|entry| entry.account == CI).collect();
        cli.push(published.at_unix_us - began);
        cli_beyond.push(uncovered(began, published.at_unix_us, &spans(&by_ci)));
        let invoked = entry(&log, |entry| entry.is("lambda", "Invoke"))?.at_unix_us;
        let (all, beyond) = to_run_task(&log, &id, invoked)?;
        warm.push(all);
        warm_beyond.push(beyond);
    }
    let [cli, cli_beyond, warm, warm_beyond] = results.each_ref().map(|samples| summary(samples));
    let (cold, cold_beyond) = cold(&sandbox, https, form.pick(3, 8, 15))?;
    Ok([
        ("cli", json!({ "to_publish": cli, "beyond_aws": cli_beyond })),
        ("launcher_warm", json!({ "to_run_task": warm, "beyond_aws": warm_beyond })),
        ("launcher_cold", json!({ "to_run_task": summary(&cold), "beyond_aws": summary(&cold_beyond) })),
    ])
}

/// Kills the launcher's process and starts a deployment while there is none, so that the launcher
/// starts cold.
fn cold(sandbox: &Sandbox, https: bool, wanted: usize) -> Outcome<(Vec<u64>, Vec<u64>)> {
    let (mut cold, mut beyond) = (Vec::new(), Vec::new());
    // The sandbox restarts the launcher later each time that it dies. At first it may be back
    // before the event arrives.
    for _ in 0..wanted * 3 {
        let pids: Vec<i32> = serde_json::from_str(&sandbox.http("GET", "launchers", b"").1)?;
        for pid in pids.into_iter().filter_map(Pid::from_raw) {
            kill_process(pid, Signal::KILL)?;
        }
        let (_, id) = deploy(sandbox, https)?;
        let log = sandbox.log();
        let started = entry(&log, |entry| entry.is("lambda", "LauncherStarted"))?.at_unix_us;
        let invoked = entry(&log, |entry| entry.is("lambda", "Invoke"))?.at_unix_us;
        if invoked < started {
            let (all, rest) = to_run_task(&log, &id, started)?;
            cold.push(all);
            beyond.push(rest);
        }
        if cold.len() == wanted {
            break;
        }
    }
    Ok((cold, beyond))
}

/// The microseconds from `began` to RunTask, and the part of them that no AWS call of the launcher
/// covers.
fn to_run_task(log: &[Entry], id: &str, began: u64) -> Outcome<(u64, u64)> {
    let run = entry(log, |entry| entry.is("ecs", "RunTask") && entry.text("startedBy") == id)?.at_unix_us;
    let own: Vec<&Entry> = log.iter().filter(|entry| entry.principal.ends_with("/relay-launcher")).collect();
    Ok((run.saturating_sub(began), uncovered(began, run, &spans(&own))))
}

fn spans(entries: &[&Entry]) -> Vec<(u64, u64)> {
    entries.iter().map(|entry| (entry.at_unix_us, entry.at_unix_us + entry.took_us)).collect()
}

/// The newest entry that satisfies `is`.
fn entry(log: &[Entry], is: impl Fn(&Entry) -> bool) -> Outcome<&Entry> {
    log.iter().rev().find(|entry| is(entry)).ok_or_else(|| "the log has no such entry".into())
}

/// Runs one deployment. Also returns when it began, in microseconds since the Unix epoch.
fn deploy(sandbox: &Sandbox, https: bool) -> Outcome<(u64, String)> {
    let mut deploy = sandbox.deploy("demo/hello").param("name", "bench").bound(Duration::from_secs(60));
    if https {
        deploy = deploy.env("AWS_ENDPOINT_URL", sandbox.variable("RELAY_SANDBOX_HTTPS"));
        deploy = deploy.env("AWS_CA_BUNDLE", sandbox.variable("RELAY_SANDBOX_CA"));
    }
    // Measure the program's start, without the preparation of its folder.
    let began = now_ns() / 1_000;
    let done = deploy.run();
    if done.code != 0 {
        return Err(format!("relay deploy: {}: {}", done.code, done.err()).into());
    }
    Ok((began, done.id()))
}
