//! AWS at its worst, seeded: duplicates, reordering, delays, throttling, errors and lost answers.
//! The output stays the same to the byte, and the tool runs once. `fault_ends.rs` has a table of
//! how a deployment ends under each single fault.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay_tests::{Asking, Options, Sandbox, eventually, sha256, sized};
use serde_json::json;

/// Every receive and every delivery is duplicated, reordered and delayed.
const SHUFFLED: &str = r#"
[[rule]]
service = "sns"
operation = "Publish"
kind = "duplicate"

[[rule]]
service = "sns"
operation = "Publish"
kind = "delay"
delay_ms = [0, 150]

[[rule]]
service = "lambda"
operation = "Invoke"
kind = "duplicate"

[[rule]]
service = "lambda"
operation = "Invoke"
kind = "delay"
delay_ms = [0, 150]

[[rule]]
service = "sqs"
operation = "SendMessageBatch"
kind = "duplicate"
probability = 0.5

[[rule]]
service = "sqs"
operation = "SendMessageBatch"
kind = "delay"
probability = 0.7
delay_ms = [0, 300]

[[rule]]
service = "sqs"
operation = "ReceiveMessage"
kind = "duplicate"

[[rule]]
service = "sqs"
operation = "ReceiveMessage"
kind = "reorder"

[[rule]]
service = "sqs"
operation = "ReceiveMessage"
kind = "delay"
probability = 0.5
delay_ms = [0, 100]
"#;

/// One in five calls fails, in one of the ways in which calls can fail.
fn failing(operations: &[(&str, &str)]) -> String {
    let rule = |kind: &str, service: &str, operation: &str| {
        format!(
            "[[rule]]\nservice = \"{service}\"\noperation = \"{operation}\"\nkind = \"{kind}\"\nprobability = 0.07\n\n"
        )
    };
    operations
        .iter()
        .flat_map(|(service, operation)| {
            ["throttle", "error", "lost-response"].map(|kind| rule(kind, service, operation))
        })
        .collect()
}

/// The tool's output: lines on both streams in turn, pauses, a block that fills several frames, and
/// no final newline.
const SCRIPT: &str = "i=0; while [ $i -lt 40 ]; do echo out $i; echo err $i >&2; i=$((i+1)); [ $((i % 10)) = 0 ] && sleep 0.05; done; \
                      seq 60000; printf 'no newline'; exit 23";

fn expected() -> (Vec<u8>, Vec<u8>) {
    let lines = |name: &str| (0..40).map(|n| format!("{name} {n}\n")).collect::<String>();
    let block: String = (1..=60_000).map(|n| format!("{n}\n")).collect();
    (format!("{}{block}no newline", lines("out")).into_bytes(), lines("err").into_bytes())
}

/// Runs one deployment under one schedule. An error says how to replay it.
fn once(sandbox: &Sandbox, plan: &str, name: &str, seed: u64) -> Result<(), String> {
    let marker = sandbox.folder().join(format!("{name}-{seed}"));
    sandbox.set_faults(&format!("seed = {seed}\n{plan}"));
    let script = format!("echo ran >> {}; {SCRIPT}", marker.display());
    let done = sandbox.shell(&script).args(&["--strict-output"]).bound(Duration::from_secs(180)).run();
    let wrong = |what: String| {
        Err(format!(
            "{name}: {what}; replay with: RELAY_SEED={seed} cargo test -p relay-tests --test faults {name}\n{}",
            done.err()
        ))
    };
    let (out, err) = expected();
    let runs = std::fs::read_to_string(&marker).unwrap_or_default().lines().count();
    if done.code != 23 {
        return wrong(format!("exit code {}", done.code));
    }
    if runs != 1 {
        return wrong(format!("{runs} runs of the tool"));
    }
    if done.stdout != out {
        return wrong(format!(
            "stdout: {} bytes with digest {}, not {} with {}",
            done.stdout.len(),
            sha256(&done.stdout),
            out.len(),
            sha256(&out)
        ));
    }
    if done.tool_err() != err {
        return wrong(format!("stderr: {:?}", String::from_utf8_lossy(&done.tool_err())));
    }
    if *done.result("/output/verified") != json!(true) {
        return wrong("the output is not verified".to_owned());
    }
    Ok(())
}

/// Runs all seeds, four at a time, each with its own sandbox; or only the seed that `RELAY_SEED`
/// names.
fn seeds(count: usize, plan: &str, name: &str) {
    let only = std::env::var("RELAY_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    let (first, last) = only.map_or((0, count as u64), |seed| (seed, seed + 1));
    let next = AtomicU64::new(first);
    let (failures, faults): (Vec<_>, Vec<usize>) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    let sandbox = Sandbox::start(Options::default());
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= last {
                            let faults = sandbox.log().iter().filter(|entry| !entry.faults.is_empty()).count();
                            return (failures, faults);
                        }
                        failures.extend(once(&sandbox, plan, name, seed).err());
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).unzip()
    });
    let failures: Vec<String> = failures.into_iter().flatten().collect();
    assert!(faults.iter().sum::<usize>() as u64 >= 5 * (last - first), "hardly any fault happened: {faults:?}");
    assert!(failures.is_empty(), "{} of {count} seeds failed:\n{}", failures.len(), failures.join("\n"));
}

// clause: FRM-7, FRM-11, FRM-13
/// 40 seeds; 8 with RELAY_QUICK.
#[test]
fn shuffled() {
    seeds(sized(40, 8), SHUFFLED, "shuffled");
}

/// 12 seeds; 3 with RELAY_QUICK.
#[test]
fn failing_calls() {
    let plan = failing(&[
        ("sqs", "SendMessageBatch"),
        ("sqs", "SendMessage"),
        ("sqs", "ReceiveMessage"),
        ("sqs", "DeleteMessageBatch"),
        ("s3", "PutObject"),
        ("s3", "GetObject"),
        ("ecs", "RunTask"),
        ("kms", "Sign"),
        ("kms", "GetPublicKey"),
        ("sns", "Publish"),
        ("lambda", "Invoke"),
    ]);
    seeds(sized(12, 3), &plan, "failing_calls");
}

/// Both combined, and batches of which a part fails. 12 seeds; 3 with RELAY_QUICK.
#[test]
fn everything() {
    let partial = "[[rule]]\nservice = \"sqs\"\noperation = \"SendMessageBatch\"\nkind = \"partial-batch\"\nprobability = 0.3\n\n";
    let plan = format!(
        "{SHUFFLED}\n{partial}{}",
        failing(&[("sqs", "SendMessageBatch"), ("s3", "PutObject"), ("ecs", "RunTask"), ("kms", "Sign")])
    );
    seeds(sized(12, 3), &plan, "everything");
}

// clause: FRM-16
/// The queues do not exist yet for the programs that write to them. A loaded machine starts them
/// late, so they are hidden for longer until both have come too early.
#[test]
fn queues_that_are_visible_late() {
    let found_both_early = |delay: u32| {
        let sandbox = Sandbox::start(Options::default());
        let hidden = format!(
            "[[rule]]\nservice = \"sqs\"\noperation = \"CreateQueue\"\nkind = \"not-visible\"\ndelay_ms = [{delay}, {delay}]\n"
        );
        once(&sandbox, &hidden, "queues_that_are_visible_late", 0).unwrap();
        let sent = sandbox.calls("sqs", "SendMessage").into_iter().chain(sandbox.calls("sqs", "SendMessageBatch"));
        let early: Vec<_> = sent.filter(|entry| !entry.ok).collect();
        let was_early = |role: &str| early.iter().any(|entry| entry.principal.ends_with(role));
        ["relay-launcher", "relay-demo-shell"].into_iter().all(was_early)
    };
    assert!([2_500, 5_000, 10_000, 20_000].into_iter().any(found_both_early), "a program was never too early");
}

/// SQS is unavailable for four seconds while the tool runs: nothing is lost.
#[test]
fn an_outage_of_sqs() {
    let sandbox = Sandbox::start(Options::default());
    let running = sandbox
        .shell("i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.1; done")
        .args(&["--strict-output"])
        .start();
    running.until_stdout("line 3");
    sandbox.set_faults("[[rule]]\nservice = \"sqs\"\nkind = \"outage\"\nuntil_ms = 4000\n");
    let done = running.wait().exits(0);
    assert_eq!(done.out(), (0..60).map(|n| format!("line {n}\n")).collect::<String>());
    assert!(sandbox.log().iter().filter(|entry| entry.faults.iter().any(|fault| fault == "outage")).count() > 1);
}

// clause: RUN-8, RUN-12
/// The runner waits a minute for a reply queue that is missing. Two deployments run in the same
/// minute: the queue of one never appears, and the queue of the other vanishes while the tool runs.
#[test]
fn a_reply_queue_that_is_not_there() {
    let sandbox = Sandbox::start(Options::default());
    let file = |name: &str| sandbox.folder().join(name);
    let began = Instant::now();

    let never =
        Asking::without_queues(&sandbox, "demo/shell", &[("script", &format!("touch {}", file("never").display()))]);
    let never_arn = sandbox.operator().run_task(&never.launch()).unwrap();

    let script = format!(
        "echo begun; while [ ! -e {} ]; do sleep 0.1; done; seq 100000; touch {}; exit 7",
        file("go").display(),
        file("ended").display()
    );
    let gone = Asking::new(&sandbox, "demo/shell", &[("script", &script)]);
    gone.publish();
    gone.reply("output");
    let gone_arn = gone.reply("admitted").body["task_arn"].as_str().unwrap().to_owned();
    sandbox.ci().delete_queue(gone.request.reply_queue.as_str());
    std::fs::write(file("go"), "").unwrap();
    // The tool runs to its end without waiting, though there is no reader.
    eventually("the tool ends", || file("ended").exists().then_some(()));
    assert!(began.elapsed().as_secs() < 50, "the tool waited for the queue");

    let gone = sandbox.task_when(&gone_arn, "STOPPED");
    assert_eq!(gone.exit_code(), Some(7), "{}", gone.log());
    let never_task = sandbox.task_when(&never_arn, "STOPPED");
    assert_eq!(never_task.exit_code(), Some(125), "{}", never_task.log());
    assert!(!file("never").exists(), "the tool was started, though `started` could not be sent");
    assert!(began.elapsed().as_secs() >= 55, "the runner did not wait a minute for a new queue");
}
