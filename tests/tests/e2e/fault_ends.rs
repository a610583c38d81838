//! Whole deployments, each under one fault, as a table: the exit code, the output, and the words
//! that tell whose turn it is. The output equals the tool's to the byte, or relay reports what is
//! missing. The tool never runs twice.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use serde_json::{Value, json};

/// The tool's exit code, which differs from all of relay's.
const CODE: i32 = 7;

/// A tool that prints for a second and then ends.
const SHORT: &str = "i=0; while [ $i -lt 20 ]; do echo line; i=$((i+1)); sleep 0.05; done; exit 7";

/// A tool that prints until it is stopped.
const ENDLESS: &str = "while :; do echo line; sleep 0.05; done";

/// A target with one slot.
const SINGLE: &str = "test/single";

/// A row of the table.
#[derive(Clone)]
struct Row {
    name: &'static str,
    target: &'static str,
    rules: Value,
    settings: Vec<&'static str>,
    script: &'static str,
    args: Vec<&'static str>,
    codes: Vec<i32>,
    says: Vec<&'static str>,
}

/// A fault that the deployment survives.
fn overcome(name: &'static str, rules: Value) -> Row {
    let (target, args, settings) = ("demo/shell", vec!["--strict-output"], vec!["task_events=true"]);
    Row { name, target, rules, settings, script: SHORT, args, codes: vec![CODE], says: Vec::new() }
}

/// A fault that ends the deployment.
fn ended(name: &'static str, rules: Value, code: i32, says: &[&'static str]) -> Row {
    let args = vec!["--drain-timeout", "2s"];
    Row { args, script: ENDLESS, codes: vec![code], says: says.to_vec(), ..overcome(name, rules) }
}

impl Row {
    fn set(mut self, setting: &'static str) -> Self {
        self.settings.push(setting);
        self
    }

    fn without_events(mut self) -> Self {
        self.settings.retain(|setting| *setting != "task_events=true");
        self
    }

    fn args(mut self, args: &[&'static str]) -> Self {
        self.args.extend(args);
        self
    }
}

fn rule(service: &str, operation: &str, kind: &str) -> Value {
    json!({"service": service, "operation": operation, "kind": kind})
}

/// The rule with one more field.
fn with(mut rule: Value, name: &str, value: Value) -> Value {
    rule[name] = value;
    rule
}

fn once(rule: Value) -> Value {
    with(rule, "count", json!(1))
}

fn of_task(kind: &str) -> Value {
    with(rule("ecs", "RunTask", kind), "delay_ms", json!([1_500, 1_500]))
}

fn event(kind: &str) -> Value {
    with(rule("lambda", "Invoke", kind), "match", json!("events"))
}

fn on(rule: Value, what: &str) -> Value {
    with(rule, "match", json!(what))
}

#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn table() -> Vec<Row> {
    let put = |kind: &str| rule("s3", "PutObject", kind);
    let lost = |service: &str, operation: &str| once(rule(service, operation, "lost-response"));
    let limit = "You've reached the limit on the number of vCPUs you can run concurrently";
    let patient = &["--admission-timeout", "8s"][..];
    vec![
        // The task, and how it ends.
        ended("the task is killed", json!([of_task("task-killed")]), 122, &["(lost)", "bytes of stdout"]),
        ended(
            "the runner dies after a batch",
            json!([with(
                on(once(rule("sqs", "SendMessageBatch", "crash")), "role/relay/relay-demo-shell"),
                "after",
                json!(2)
            )]),
            122,
            &["(lost)", "bytes of stdout", "aws ecs describe-tasks"],
        ),
        ended(
            "the task never starts",
            json!([rule("ecs", "RunTask", "never-started")]),
            122,
            &["while waiting for the runner's start", "aws ecs describe-tasks"],
        )
        .args(&["--start-timeout", "3s"]),
        ended(
            "out of memory",
            json!([of_task("out-of-memory")]),
            122,
            &["(out_of_memory)", "OutOfMemoryError", "hint: the target's owner should raise the task's memory"],
        ),
        ended(
            "the image cannot be pulled",
            json!([rule("ecs", "RunTask", "image-pull")]),
            121,
            &[
                "never started",
                "CannotPullContainerError",
                "(image_pull)",
                "hint: the target's owner should check the image",
            ],
        ),
        ended(
            "no network interface",
            json!([rule("ecs", "RunTask", "no-network")]),
            121,
            &["never started", "(network)", "hint: the target's owner should check the subnets"],
        ),
        ended(
            "no capacity, reported later",
            json!([rule("ecs", "RunTask", "no-capacity")]),
            121,
            &["never started", "(capacity)", "hint: nobody's fault"],
        ),
        ended(
            "no capacity, reported immediately",
            json!([rule("ecs", "RunTask", "run-task-failures")]),
            121,
            &["never started", "(capacity)", "hint: nobody's fault"],
        )
        .set("function_timeout_ms=12000"),
        ended(
            "the quota is used up",
            json!([with(rule("ecs", "RunTask", "run-task-failures"), "code", json!(limit))]),
            121,
            &["(quota)", "hint: the target account's owner should ask AWS"],
        )
        .set("function_timeout_ms=12000"),
        ended(
            "a Spot interruption",
            json!([of_task("spot-interruption")]),
            122,
            &["(stopped)", "hint: ask who stopped it"],
        ),
        ended("maintenance", json!([of_task("maintenance")]), 122, &["(stopped)"]),
        ended("stopped by hand", json!([of_task("stopped-by-hand")]), 122, &["(stopped)", "hint: ask who stopped it"]),
        // The launcher.
        overcome("the launcher dies after RunTask", json!([once(rule("ecs", "RunTask", "crash"))])),
        overcome("the launcher dies before its answer", json!([once(rule("runtime", "Response", "crash"))])),
        ended(
            "the launcher always dies",
            json!([rule("runtime", "Next", "crash")]),
            122,
            &["while waiting for the launcher's answer", "dead-letter queue"],
        )
        .args(patient),
        overcome(
            "it dies once as it starts",
            json!([once(rule("runtime", "Next", "cold-start")), once(rule("runtime", "Init", "crash"))]),
        ),
        ended(
            "it always dies as it starts",
            json!([rule("runtime", "Next", "cold-start"), rule("runtime", "Init", "crash")]),
            122,
            &["while waiting for the launcher's answer", "dead-letter queue"],
        )
        .args(patient),
        overcome(
            "a slow cold start",
            json!([
                once(rule("runtime", "Next", "cold-start")),
                with(rule("runtime", "Init", "delay"), "delay_ms", json!([3_000, 3_000]))
            ]),
        ),
        overcome(
            "two invocations at once",
            json!([
                rule("lambda", "Invoke", "duplicate"),
                with(rule("ecs", "RunTask", "delay"), "delay_ms", json!([500, 500]))
            ]),
        ),
        // Events about the task.
        overcome("events arrive late", json!([with(event("delay"), "delay_ms", json!([1_000, 3_000]))])),
        overcome("events arrive twice", json!([event("duplicate")])),
        overcome("events overtake each other", json!([event("reorder")])),
        overcome("events are lost", json!([event("lost")])),
        ended(
            "events are lost, and the watchdog reports the end",
            json!([event("lost"), of_task("task-killed")]),
            122,
            &["(lost)", "bytes of stdout"],
        )
        .set("schedule_ms=300"),
        // Queues, claim and lock, and lost answers.
        overcome(
            "new queues are not visible for five seconds",
            json!([with(rule("sqs", "CreateQueue", "not-visible"), "delay_ms", json!([5_000, 5_000]))]),
        ),
        overcome("the claim races", json!([with(on(put("conflict"), "/claim"), "count", json!(2))])),
        Row {
            target: SINGLE,
            ..overcome("the only lock races", json!([with(on(put("conflict"), "locks/"), "count", json!(3))]))
        },
        overcome("the claim's answer is lost", json!([on(lost("s3", "PutObject"), "/claim")])),
        overcome("the lock's answer is lost", json!([on(lost("s3", "PutObject"), "locks/")])),
        overcome("RunTask's answer is lost", json!([lost("ecs", "RunTask")])),
        overcome("answers to sent batches are lost", json!([with(lost("sqs", "SendMessageBatch"), "count", json!(3))])),
        overcome("Publish's answer is lost", json!([lost("sns", "Publish")])),
        overcome("CreateQueue's answers are lost", json!([with(lost("sqs", "CreateQueue"), "count", json!(2))])),
        overcome("answers to deletes are lost", json!([with(lost("sqs", "DeleteMessageBatch"), "count", json!(3))])),
        // Services that are unavailable or busy.
        overcome("KMS is throttled for a while", json!([with(rule("kms", "*", "throttle"), "count", json!(6))])),
        ended(
            "KMS is throttled forever",
            json!([rule("kms", "Sign", "throttle")]),
            122,
            &["while waiting for the launcher's answer"],
        )
        .args(patient),
        overcome("STS is unavailable for a moment", json!([with(rule("sts", "*", "outage"), "count", json!(2))])),
        // The runner exits with 125 before it can send a frame. Only its log says that nothing ran,
        // and the CLI does not read that, so the outcome is unknown.
        ended(
            "STS is unavailable",
            json!([rule("sts", "*", "outage")]),
            122,
            &["(runner)", "hint: see the task's log"],
        ),
        Row {
            // The SDK gives up a call after four attempts. Whatever happens then must be reported.
            codes: vec![CODE, 121, 122, 125],
            ..overcome(
                "half of all calls are throttled",
                json!([with(rule("*", "*", "throttle"), "probability", json!(0.5))]),
            )
        }
        .args(&["--admission-timeout", "30s", "--start-timeout", "30s", "--silence-timeout", "30s"])
        .without_events(),
    ]
}

fn check(row: &Row) -> Result<(), String> {
    let single = target(SINGLE, &Head { concurrency: 1, ..Head::default() }, SHELL);
    let options = row.settings.iter().fold(Options::default(), |options, setting| options.set(setting));
    let mut options = options.target(SINGLE, single);
    // A launcher that is still starting would meet the faults of a start before any request comes,
    // or take the request without them.
    let is_about_starts = row.rules.as_array().unwrap().iter().any(|rule| rule["operation"] == "Init");
    if is_about_starts {
        options.launchers = 1;
    }
    let sandbox = Sandbox::start(options);
    if is_about_starts {
        sandbox.deploy("demo/hello").param("name", "warm").run().exits(0);
        sandbox.launcher_idle();
    }
    sandbox.set_faults(&json!({"seed": 7, "rule": row.rules}).to_string());
    let marker = sandbox.folder().join("ran");
    let script = format!("echo ran >> {}; {}", marker.display(), row.script);
    let done =
        sandbox.deploy(row.target).param("script", &script).args(&row.args).bound(Duration::from_secs(100)).run();
    let wrong = |what: String| Err(format!("{}: {what}\nstderr: {}", row.name, done.err()));
    if !row.codes.contains(&done.code) {
        return wrong(format!("exit code {}, not {:?}", done.code, row.codes));
    }
    let runs = std::fs::read_to_string(&marker).unwrap_or_default().lines().count();
    if runs > 1 || (done.code == CODE && runs != 1) {
        return wrong(format!("{runs} runs of the tool"));
    }
    let out = done.out();
    let lines = out.split_inclusive('\n').filter(|line| *line == "line\n").count();
    if out.len() != 5 * lines {
        return wrong(format!("this is not the tool's output: {out:?}"));
    }
    match done.code {
        CODE if lines != 20 || *done.result("/output/verified") != json!(true) => {
            return wrong(format!("{lines} lines of 20, or not verified"));
        }
        121 if !out.is_empty() => return wrong("the deployment never started, but something was printed".to_owned()),
        // The CLI reports how much it has printed, to the byte.
        122 if done.err().contains("the task is arn:")
            && !done.err().contains(&format!("{} bytes of stdout", out.len())) =>
        {
            return wrong(format!("{} bytes were printed, but relay reports another number", out.len()));
        }
        _ => {}
    }
    // A fault that was never applied proves nothing.
    let applied = sandbox.log().iter().flat_map(|entry| entry.faults.clone()).collect::<Vec<_>>();
    for rule in row.rules.as_array().unwrap() {
        let kind = rule["kind"].as_str().unwrap().replace("lost-response", "timeout-after");
        if !applied.contains(&kind) {
            return wrong(format!("`{kind}` was never applied"));
        }
    }
    match row.says.iter().find(|words| !done.err().contains(**words)) {
        Some(words) => wrong(format!("`{words}` is not in stderr")),
        None => Ok(()),
    }
}

/// Runs all rows, three at a time, each with its own sandbox; or only the row that `RELAY_ROW`
/// names.
#[test]
fn every_fault_ends_as_the_table_says() {
    let only = std::env::var("RELAY_ROW").ok();
    let rows: Vec<Row> =
        table().into_iter().filter(|row| only.as_deref().is_none_or(|name| name == row.name)).collect();
    assert!(!rows.is_empty(), "no row is called {only:?}");
    let next = AtomicUsize::new(0);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                let checked = catch_unwind(|| check(row));
                failures.extend(checked.unwrap_or_else(|_| Err(format!("{}: see the panic above", row.name))).err());
            }
            failures
        };
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n\n"));
}
