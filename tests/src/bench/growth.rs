//! Growth: how time, memory and AWS requests grow with the deployments that run at the same time,
//! with the output of one deployment, and with the targets. Each deployment is checked: its own
//! output, its own exit code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use serde_json::{Value, json};

use crate::memory::available_mib;
use crate::throughput::{Run, by_relay, expected};
use crate::tool::Kind;
use crate::{Form, Outcome};

/// Deployments at a time in the row with many targets.
const LIVE: u32 = 64;

/// How often the machine's free memory is read.
const PERIOD: Duration = Duration::from_millis(20);

/// Measures all three.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let live: &[u32] = form.pick(&[4, 16], &[16, 64, 256], &[16, 64, 256]);
    let output: &[u64] = form.pick(&[10, 20, 25], &[10, 20, 25, 30], &[10, 20, 25, 30]);
    let deployments = live.iter().map(|live| many(*live, 1)).collect::<Outcome<Vec<Value>>>()?;
    let few = LIVE.min(live[1]);
    let targets = [1, few].into_iter().map(|targets| many(few, targets)).collect::<Outcome<Vec<Value>>>()?;
    let output = output.iter().map(|power| one(1 << power)).collect::<Outcome<Vec<Value>>>()?;
    Ok(json!({ "deployments": deployments, "targets": targets, "output": output }))
}

/// Runs `live` deployments, which are all alive at the same time, of `targets` targets.
fn many(live: u32, targets: u32) -> Outcome<Value> {
    // A slot becomes free only after the deployment's last frame.
    let head = Head { concurrency: 2 * live, ..Head::default() };
    let name = |n: u32| format!("bench/many{n}");
    // On AWS, Lambda retries after one minute, then after two. The sandbox's tenths of a second
    // would all fall into the rush of hundreds of processes that begin.
    let patient = Options::default().set("lambda_retry_1_ms=10000").set("lambda_retry_2_ms=20000");
    let options = (0..targets).fold(patient.set("log_limit=5000000"), |options, n| {
        let configuration = target(&name(n), &head, SHELL);
        options.target(&name(n), configuration)
    });
    let sandbox = Sandbox::start(options);
    let gate = sandbox.folder().join("gate");
    let (done, wrong) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let before = available_mib();
    let (mut least, mut all_live) = (before, None);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..live {
            let (sandbox, gate, wrong, done, target) = (&sandbox, &gate, &wrong, &done, name(number % targets));
            scope.spawn(move || {
                if let Err(what) = small(sandbox, &target, number, gate) {
                    wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_string());
                }
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while done.load(Ordering::Relaxed) < live {
            least = least.min(available_mib());
            // If one of them fails, the others must not wait for it forever.
            let is_time = count(&live_folder(&gate)) == live || done.load(Ordering::Relaxed) > 0;
            if all_live.is_none() && is_time {
                all_live = Some(began.elapsed().as_secs_f64());
                drop(std::fs::write(&gate, ""));
            }
            std::thread::sleep(PERIOD);
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (tasks, left) = (sandbox.tasks().len(), sandbox.http("GET", "queues", b"").1);
    if !wrong.is_empty() || tasks != live as usize || left != "[]" {
        let words = wrong.join("; ");
        return Err(format!("{} of {live} wrong, {tasks} tasks, queues left: {left}: {words}", wrong.len()).into());
    }
    let memory = before.saturating_sub(least);
    let (mut requests, mut operations): (u32, BTreeMap<String, f64>) = Default::default();
    for entry in sandbox.log().iter().filter(|entry| crate::requests::is_billed(entry)) {
        requests += 1;
        *operations.entry(format!("{}:{}", entry.service, entry.operation)).or_default() += 1.0 / f64::from(live);
    }
    println!(
        "{live} deployments at the same time, {targets} targets: {seconds:.1} s, {memory} MiB, {requests} requests"
    );
    Ok(json!({
        "live": live, "targets": targets, "seconds": seconds, "all_live_after": all_live,
        "memory_mib": memory, "requests": requests, "of_one": operations,
    }))
}

/// The folder in which each deployment that is alive leaves a file.
fn live_folder(gate: &Path) -> PathBuf {
    gate.with_extension("live")
}

/// How many files a folder has.
fn count(folder: &Path) -> u32 {
    std::fs::read_dir(folder).map_or(0, |files| u32::try_from(files.count()).unwrap_or(u32::MAX))
}

/// One small deployment, which ends when the gate is open.
fn small(sandbox: &Sandbox, target: &str, number: u32, gate: &Path) -> Outcome {
    let code = i32::try_from(number % 100)?;
    let (gate, live) = (gate.display(), live_folder(gate));
    std::fs::create_dir_all(&live)?;
    let live = live.display();
    let script = format!(
        "i=0; while [ $i -lt 20 ]; do echo deployment {number} line $i; echo error {number} $i >&2; i=$((i+1)); done; \
         : > {live}/{number}; while [ ! -e {gate} ]; do sleep 0.5; done; echo last of {number}; exit {code}"
    );
    let deploy = sandbox.deploy(target).param("script", &script).bound(Duration::from_secs(3_600));
    // Hundreds of processes at a time may need minutes to begin on a small machine.
    let patience = ["--admission-timeout", "30m", "--start-timeout", "30m", "--silence-timeout", "10m"];
    let done = deploy.args(&["--strict-output"]).args(&patience).run();
    let out: String = (0..20).map(|i| format!("deployment {number} line {i}\n")).collect();
    let err: String = (0..20).map(|i| format!("error {number} {i}\n")).collect();
    if done.code != code || done.out() != format!("{out}last of {number}\n") || done.tool_err() != err.as_bytes() {
        return Err(format!("deployment {number}: {} instead of {code}: {}", done.code, done.err()).into());
    }
    Ok(())
}

/// Runs one deployment that prints `size` bytes of text.
fn one(size: u64) -> Outcome<Value> {
    let sandbox = Sandbox::start(Options::default());
    let run = Run { target: "demo/shell", kind: Kind::Text, size, expected: expected(Kind::Text, size)? };
    let began = Instant::now();
    let (_, memory) = by_relay(&sandbox, &run)?;
    let seconds = began.elapsed().as_secs_f64();
    let requests = sandbox.log().iter().filter(|entry| crate::requests::is_billed(entry)).count();
    let peak = |who: &str| memory[who]["peak_mib"].as_f64().unwrap_or_default();
    println!(
        "{size} bytes of text: {seconds:.2} s, {requests} requests, {:.1} and {:.1} MiB",
        peak("runner"),
        peak("cli")
    );
    Ok(json!({
        "bytes": size, "seconds": seconds, "requests": requests,
        "runner_mib": peak("runner"), "cli_mib": peak("cli"),
    }))
}
