//! Many deployments, up to 64 at a time on one sandbox. Each prints its own output and ends with
//! its own exit code.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use serde_json::{Value, json};

use crate::{Form, Outcome};

/// Deployments that run at the same time.
const LIVE: u32 = 64;

/// Runs the deployments and measures how long they take together.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let all = form.pick(16, 64, 1_000);
    let live = LIVE.min(all);
    // A slot becomes free only after the deployment's last frame, so allow more slots than live
    // deployments.
    let head = Head { concurrency: 2 * LIVE, ..Head::default() };
    let sandbox = Sandbox::start(Options::default().target("demo/many", target("demo/many", &head, SHELL)));
    let (next, wrong) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..live {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        return;
                    }
                    if let Err(what) = one(&sandbox, number) {
                        wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_string());
                    }
                }
            });
        }
    });
    let seconds = began.elapsed().as_secs_f64();
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (tasks, left) = (sandbox.tasks().len(), sandbox.http("GET", "queues", b"").1);
    if !wrong.is_empty() || tasks != all as usize || left != "[]" {
        return Err(format!(
            "{} of {all} wrong, {tasks} tasks, queues left: {left}: {}",
            wrong.len(),
            wrong.join("; ")
        )
        .into());
    }
    println!("{all} deployments, {live} at a time: all correct, no output mixed up, {seconds:.1} s");
    Ok(json!({ "deployments": all, "live": live, "seconds": seconds, "right": all - u32::try_from(wrong.len())? }))
}

fn one(sandbox: &Sandbox, number: u32) -> Outcome {
    let code = i32::try_from(number % 100)?;
    let script = format!(
        "i=0; while [ $i -lt 50 ]; do echo deployment {number} line $i; echo error {number} $i >&2; i=$((i+1)); done; \
         sleep 1; echo last of {number}; exit {code}"
    );
    let done = sandbox.deploy("demo/many").param("script", &script).args(&["--strict-output"]).run();
    let out: String = (0..50).map(|i| format!("deployment {number} line {i}\n")).collect();
    let err: String = (0..50).map(|i| format!("error {number} {i}\n")).collect();
    if done.code != code || done.out() != format!("{out}last of {number}\n") || done.tool_err() != err.as_bytes() {
        return Err(format!("deployment {number}: {} instead of {code}: {}", done.code, done.err()).into());
    }
    Ok(())
}
