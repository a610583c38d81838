//! Every operation that the sandbox knows × every kind of fault that it has; the sandbox provides
//! both lists. Either the fault takes effect, or the sandbox says why it would have no meaning and
//! rejects a rule that asks for it. An operation without a hook fails here, and so does a kind for
//! which the test has no line that shows its effect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use relay_tests::kit::sandbox::{CI, Entry, TARGET};
use relay_tests::{Options, Sandbox, eventually};
use rustix::process::{Signal, kill_process};
use serde::Deserialize;
use serde_json::{Value, json};

/// The message of a fault that the sandbox injects.
const WORDS: &str = "A fault of the sandbox.";

#[derive(Debug, Deserialize)]
struct Kind {
    name: String,
    what: String,
    unsuited: BTreeMap<String, String>,
}

/// The sandboxes: one without a launcher, so that this test acts as the launcher, and one with a
/// real launcher.
struct Matrix {
    bare: Arc<Sandbox>,
    live: Arc<Sandbox>,
    names: u32,
}

type Reply = Option<(u16, String)>;

fn read<T: serde::de::DeserializeOwned>(sandbox: &Sandbox, path: &str) -> T {
    let (status, text) = sandbox.http("GET", path, b"");
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Makes one call with its parameters, in the protocol of the service. A service or S3 operation
/// that is not listed here is new and needs a line.
fn call(sandbox: &Sandbox, account: &str, service: &str, operation: &str, parameters: &Value) -> Reply {
    let credential = format!(
        "authorization: AWS4-HMAC-SHA256 Credential={account}/20260101/eu-west-1/{service}/aws4_request, Signature=0\r\n"
    );
    let text = |name: &str| parameters[name].as_str().unwrap_or("none").to_owned();
    match service {
        "credentials" | "metadata" => sandbox.raw("GET", &format!("/_sandbox/{service}/{}", text("task")), "", b""),
        "runtime" => {
            let path = |rest: &str| format!("/2018-06-01/runtime/{rest}");
            match operation {
                "Next" => sandbox.raw("GET", &path("invocation/next"), "", b""),
                "Response" => sandbox.raw("POST", &path(&format!("invocation/{}/response", text("id"))), "", b"{}"),
                "Error" => sandbox.raw("POST", &path(&format!("invocation/{}/error", text("id"))), "", b"{}"),
                "InitError" => sandbox.raw("POST", &path("init/error"), "", b"{}"),
                other => panic!("runtime:{other} is new: add its request here"),
            }
        }
        "s3" => {
            let (method, path) = match operation {
                "PutObject" => ("PUT", "/relay-matrix/key"),
                "GetObject" => ("GET", "/relay-matrix/key"),
                "HeadObject" => ("HEAD", "/relay-matrix/key"),
                "DeleteObject" => ("DELETE", "/relay-matrix/key"),
                "ListObjectsV2" => ("GET", "/relay-matrix?list-type=2"),
                "CreateBucket" => ("PUT", "/relay-matrix"),
                "HeadBucket" => ("HEAD", "/relay-matrix"),
                other => panic!("s3:{other} is new: add its request here"),
            };
            sandbox.raw(method, path, &credential, b"")
        }
        "sns" | "sts" => {
            let pairs = parameters.as_object().into_iter().flatten();
            let pairs = pairs.map(|(name, value)| format!("&{name}={}", value.as_str().unwrap_or_default()));
            let body = format!("Action={operation}&Version=2010-03-31{}", pairs.collect::<String>());
            sandbox.raw("POST", "/", &credential, body.as_bytes())
        }
        "ecs" | "events" | "kms" | "lambda" | "secretsmanager" | "sqs" | "ssm" => {
            let headers = format!("{credential}x-amz-target: Any.{operation}\r\n");
            sandbox.raw("POST", "/", &headers, parameters.to_string().as_bytes())
        }
        other => panic!("{other} is a new service: add its protocol here"),
    }
}

fn json_of(reply: &Reply) -> Value {
    let (_, text) = reply.as_ref().expect("an answer");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Sets one rule for exactly this operation.
fn set(sandbox: &Sandbox, service: &str, operation: &str, kind: &str, more: Value) -> (u16, String) {
    let mut rule = json!({"service": service, "operation": operation, "kind": kind});
    rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    sandbox.http("POST", "faults", json!({"seed": 7, "rule": [rule]}).to_string().as_bytes())
}

fn clear(sandbox: &Sandbox) {
    sandbox.set_faults("");
}

/// Waits for the newest log entry of an operation with exactly this fault applied.
fn entry(sandbox: &Sandbox, service: &str, operation: &str, kind: &str) -> Entry {
    eventually(&format!("{kind} at {service}:{operation}"), || {
        let mut log = sandbox.log().into_iter().rev();
        log.find(|entry| entry.is(service, operation) && entry.faults == [kind])
    })
}

impl Matrix {
    /// Creates a queue. Returns its URL.
    fn queue(&mut self) -> String {
        self.names += 1;
        clear(&self.bare);
        let made = call(&self.bare, CI, "sqs", "CreateQueue", &json!({"QueueName": format!("matrix-{}", self.names)}));
        json_of(&made)["QueueUrl"].as_str().unwrap().to_owned()
    }

    /// The numbers of ready and delayed messages in a queue.
    fn counts(&self, url: &str) -> (u64, u64) {
        let queues: Vec<Value> = read(&self.bare, "queues");
        let queue = queues.iter().find(|queue| queue["url"] == url).unwrap();
        (queue["ready"].as_u64().unwrap(), queue["delayed"].as_u64().unwrap())
    }

    /// The bodies of the next `count` events for a launcher.
    fn take(&self, count: usize) -> String {
        (0..count).map(|_| self.next().1).collect()
    }

    /// Takes and answers the next event for a launcher. Returns its request id and body.
    fn next(&self) -> (String, String) {
        let (_, body) = call(&self.bare, CI, "runtime", "Next", &json!({})).unwrap();
        let id = self.bare.calls("runtime", "Next").pop().unwrap().text("requestId").to_owned();
        call(&self.bare, CI, "runtime", "Response", &json!({"id": id})).unwrap();
        (id, body)
    }

    /// The position of the newest log entry.
    fn newest(&self) -> u64 {
        self.bare.log().last().map_or(0, |entry| entry.n)
    }

    /// The invocations of the launcher since log position `n`.
    fn invoked_since(&self, n: u64) -> Vec<Entry> {
        self.bare.calls("lambda", "Invoke").into_iter().filter(|entry| entry.n > n).collect()
    }

    fn invoke(&self, event: &str) {
        let before = self.newest();
        self.bare.invoke(&json!({"matrix": event}));
        eventually("the event is taken in", || self.invoked_since(before).pop());
    }

    /// Makes one call of any operation, after setting up what it needs to have an effect.
    fn ask(&mut self, service: &str, operation: &str, kind: &str, more: Value) -> Reply {
        let (account, parameters) = match (service, operation) {
            ("runtime", "Next") => {
                clear(&self.bare);
                self.invoke("one");
                (CI, json!({}))
            }
            ("runtime", "Response" | "Error") => {
                clear(&self.bare);
                self.invoke("one");
                call(&self.bare, CI, "runtime", "Next", &json!({})).unwrap();
                (CI, json!({"id": self.bare.calls("runtime", "Next").pop().unwrap().text("requestId")}))
            }
            ("sqs", operation) if operation.ends_with("Batch") => {
                let entry = json!({"Id": "a", "MessageBody": "x", "ReceiptHandle": "0-1", "VisibilityTimeout": 1});
                (CI, json!({"QueueUrl": self.queue(), "Entries": [entry]}))
            }
            _ => (TARGET, json!({})),
        };
        assert_eq!(set(&self.bare, service, operation, kind, more).0, 200);
        call(&self.bare, account, service, operation, &parameters)
    }

    /// Shows that a kind of fault takes effect on an operation. A kind that is not listed here is
    /// new and needs a line.
    #[allow(clippy::too_many_lines, reason = "a table of cases")]
    fn show(&mut self, service: &str, operation: &str, kind: &str) {
        let place = format!("{kind} at {service}:{operation}");
        let soon = json!({"delay_ms": [30, 30]});
        match (service, operation, kind) {
            ("runtime", "Init", _) | (_, _, "cold-start") => self.show_with_a_process(operation, kind),
            (_, _, "error" | "throttle" | "outage" | "conflict") => {
                let (status, _) = self.ask(service, operation, kind, json!({})).expect("an answer");
                let entry = entry(&self.bare, service, operation, kind);
                let error = entry.error.unwrap_or_default();
                let code = match kind {
                    "throttle" => ["Throttl", "SlowDown"].iter().any(|code| error.contains(code)),
                    "outage" => error.starts_with("ServiceUnavailable"),
                    "conflict" => error.starts_with("Conditional") || error.starts_with("Conflict"),
                    _ => true,
                };
                assert!(
                    status >= 400 && entry.runs == 0 && error.ends_with(WORDS) && code,
                    "{place}: {status} {error}"
                );
            }
            (_, _, "timeout-before" | "timeout-after" | "crash") => {
                assert_eq!(self.ask(service, operation, kind, json!({})), None, "{place}");
                let entry = entry(&self.bare, service, operation, kind);
                assert_eq!(entry.runs, u32::from(kind != "timeout-before"), "{place}");
                if service == "lambda" && entry.runs == 1 {
                    self.take(1);
                }
            }
            ("sqs", "SendMessage" | "SendMessageBatch", "duplicate" | "delay") => {
                let url = self.queue();
                set(&self.bare, service, operation, kind, json!({"delay_ms": [60_000, 60_000]}));
                let parameters =
                    json!({"QueueUrl": url, "MessageBody": "x", "Entries": [{"Id": "a", "MessageBody": "x"}]});
                call(&self.bare, CI, service, operation, &parameters).unwrap();
                assert_eq!(self.counts(&url), if kind == "delay" { (0, 1) } else { (2, 0) }, "{place}");
            }
            ("sqs", "ReceiveMessage", "duplicate" | "reorder") => {
                let url = self.queue();
                let numbers: Vec<String> = (0..10).map(|n| n.to_string()).collect();
                for number in &numbers {
                    call(&self.bare, CI, "sqs", "SendMessage", &json!({"QueueUrl": url, "MessageBody": number}));
                }
                set(&self.bare, service, operation, kind, json!({}));
                let parameters = json!({"QueueUrl": url, "MaxNumberOfMessages": 10});
                let answer = json_of(&call(&self.bare, CI, service, operation, &parameters));
                let bodies: Vec<&str> =
                    answer["Messages"].as_array().unwrap().iter().map(|one| one["Body"].as_str().unwrap()).collect();
                match kind {
                    "duplicate" => {
                        assert_eq!((bodies, self.counts(&url).0), (numbers.iter().map(String::as_str).collect(), 10))
                    }
                    _ => assert_ne!(bodies, numbers),
                }
            }
            ("sns", "Publish", "duplicate" | "delay") => {
                clear(&self.bare);
                let before = self.newest();
                set(&self.bare, service, operation, kind, soon);
                let topic = self.bare.variable("RELAY_TOPIC_ARN").to_owned();
                call(&self.bare, CI, service, operation, &json!({"TopicArn": topic, "Message": "matrix"})).unwrap();
                let published = entry(&self.bare, service, operation, kind);
                let copies = if kind == "duplicate" { 2 } else { 1 };
                let delivered = eventually(&place, || {
                    let invoked = self.invoked_since(before);
                    (invoked.len() >= copies).then(|| invoked[0].clone())
                });
                assert!(kind == "duplicate" || delivered.at_ms >= published.at_ms + 30, "{place}: {delivered:?}");
                self.take(copies);
            }
            ("lambda", "Invoke", "duplicate" | "delay" | "lost" | "reorder") => {
                let count = match kind {
                    "delay" => json!({"delay_ms": [30, 30]}),
                    _ => json!({"count": 1, "delay_ms": [60_000, 60_000]}),
                };
                set(&self.bare, service, operation, kind, count);
                self.invoke("first");
                let taken_in = entry(&self.bare, service, operation, kind);
                if kind == "delay" {
                    let (id, _) = self.next();
                    let mut handed = self.bare.calls("runtime", "Next").into_iter();
                    let handed = handed.find(|entry| entry.text("requestId") == id).unwrap();
                    assert!(handed.at_ms >= taken_in.at_ms + 30, "{place}: {handed:?}");
                    return;
                }
                self.invoke("second");
                let bodies: String = match kind {
                    "lost" => self.take(1),
                    "reorder" => self.take(2),
                    _ => self.take(3),
                };
                let order: Vec<&str> = bodies.split('"').filter(|word| ["first", "second"].contains(word)).collect();
                match kind {
                    "lost" => assert_eq!(order, ["second"]),
                    "reorder" => assert_eq!(order, ["second", "first"]),
                    _ => assert_eq!(order, ["first", "first", "second"]),
                }
            }
            (_, _, "duplicate") => {
                self.ask(service, operation, kind, json!({})).expect("an answer");
                assert_eq!(entry(&self.bare, service, operation, kind).runs, 2, "{place}");
            }
            (_, _, "hold-before" | "hold-after") => self.show_held(service, operation, kind),
            (_, _, "delay") => {
                self.ask(service, operation, kind, soon).expect("an answer");
                let entry = entry(&self.bare, service, operation, kind);
                assert!(entry.took_us >= 30_000 && entry.runs == 1, "{place}: {entry:?}");
            }
            (_, _, "partial-batch") => {
                let answer = json_of(&self.ask(service, operation, kind, json!({})));
                assert_eq!(answer["Failed"][0]["Message"], WORDS, "{place}: {answer}");
            }
            ("sqs", "CreateQueue", "not-visible") => {
                set(&self.bare, service, operation, kind, json!({"delay_ms": [60_000, 60_000]}));
                let named = json!({"QueueName": "matrix-hidden"});
                let made = call(&self.bare, CI, service, operation, &named);
                assert_eq!(made.as_ref().unwrap().0, 200);
                let hidden = json!({"QueueUrl": json_of(&made)["QueueUrl"]});
                let (status, error) = call(&self.bare, CI, "sqs", "GetQueueAttributes", &hidden).unwrap();
                assert!(status == 400 && error.contains("QueueDoesNotExist"), "{place}: {error}");
            }
            ("ecs", "RunTask", _) => self.show_a_task(kind),
            _ => panic!("{place}: no check for this kind of fault on this operation; add one"),
        }
    }

    /// Shows that a held call is listed, and that it continues when the rules are replaced.
    fn show_held(&mut self, service: &str, operation: &str, kind: &str) {
        let held = || read::<Vec<Value>>(&self.bare, "held");
        let body = json!({"Id": "a", "MessageBody": "x", "ReceiptHandle": "0-1", "VisibilityTimeout": 1});
        let parameters =
            json!({"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/none", "Entries": [body]});
        assert_eq!(set(&self.bare, service, operation, kind, json!({})).0, 200);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| call(&self.bare, TARGET, service, operation, &parameters));
            eventually(&format!("{kind} at {service}:{operation}"), || {
                held().iter().any(|one| one["operation"] == operation).then_some(())
            });
            assert!(!asked.is_finished(), "{kind} at {service}:{operation}");
            clear(&self.bare);
            asked.join().unwrap().expect("an answer");
        });
        assert_eq!(entry(&self.bare, service, operation, kind).runs, 1);
        eventually("nothing is held", || held().is_empty().then_some(()));
        if service == "lambda" {
            self.take(1);
        }
    }

    /// Shows the kinds that determine how a task ends.
    fn show_a_task(&mut self, kind: &str) {
        clear(&self.bare);
        let container = json!({"name": "runner", "image": "none", "entryPoint": ["/bin/sleep", "600"]});
        let definition = json!({"family": "matrix", "containerDefinitions": [container]});
        call(&self.bare, TARGET, "ecs", "RegisterTaskDefinition", &definition).unwrap();
        assert_eq!(set(&self.bare, "ecs", "RunTask", kind, json!({"delay_ms": [20, 20]})).0, 200);
        let network = json!({"awsvpcConfiguration": {"subnets": ["subnet-1"]}});
        let request = json!({"cluster": "relay", "taskDefinition": "matrix", "launchType": "FARGATE", "networkConfiguration": network});
        let answer = json_of(&call(&self.bare, TARGET, "ecs", "RunTask", &request));
        if kind == "run-task-failures" {
            assert_eq!(answer["tasks"], json!([]));
            assert!(answer["failures"][0]["reason"].as_str().unwrap().contains("Capacity"), "{answer}");
            return;
        }
        let arn = answer["tasks"][0]["taskArn"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let (failed, exited) = ("TaskFailedToStart", "EssentialContainerExited");
        let (status, code, exit, words) = match kind {
            "never-started" => ("PENDING", "", None, ""),
            "image-pull" => ("STOPPED", failed, None, "CannotPullContainerError"),
            "no-capacity" => ("STOPPED", failed, None, "Capacity is unavailable"),
            "no-network" => ("STOPPED", failed, None, "network interface"),
            "task-killed" => ("STOPPED", exited, Some(137), "Essential container in task exited"),
            "out-of-memory" => ("STOPPED", exited, Some(137), "OutOfMemoryError: Container killed due to memory usage"),
            "spot-interruption" => ("STOPPED", "SpotInterruption", Some(143), "Spot"),
            "maintenance" => ("STOPPED", "TerminationNotice", Some(143), "maintenance"),
            "stopped-by-hand" => ("STOPPED", "UserInitiated", Some(143), "by user"),
            other => panic!("{other} is a new kind of RunTask fault: add how the task ends"),
        };
        let task = self.bare.task_when(&arn, status);
        let said = format!("{} {}", task.0["stoppedReason"], task.0["containers"][0]["reason"]);
        assert!(said.contains(words) && task.exit_code() == exit, "{kind}: {said}, {:?}", task.exit_code());
        assert_eq!(task.0["stopCode"].as_str().unwrap_or_default(), code, "{kind}");
    }

    /// Shows the kinds that need a launcher's real process: its start, and a new process for an
    /// invocation.
    fn show_with_a_process(&self, operation: &str, kind: &str) {
        let pid = || read::<Vec<i32>>(&self.live, "launchers").into_iter().next();
        let before = eventually("a launcher runs", pid);
        assert_eq!(set(&self.live, "runtime", operation, kind, json!({"count": 1})).0, 200);
        if operation == "Init" {
            // The end of one process starts another.
            kill_process(rustix::process::Pid::from_raw(before).unwrap(), Signal::KILL).unwrap();
        }
        self.live.invoke(&json!({"detail-type": "of no kind"}));
        let applied = entry(&self.live, "runtime", operation, kind);
        let ended = eventually("the invocation succeeds at last", || {
            self.live
                .log()
                .into_iter()
                .find(|entry| entry.n > applied.n && entry.is("lambda", "InvocationEnded") && entry.ok)
        });
        assert_ne!(eventually("a launcher runs", pid), before, "{kind}");
        match kind {
            // The first attempt failed together with the process that was to serve it.
            "crash" => assert!(ended.detail["tries"].as_u64() >= Some(1)),
            "delay" => assert!(applied.took_us >= 10_000, "{applied:?}"),
            "cold-start" => assert_eq!(ended.detail["tries"], 1),
            other => panic!("{other} is a new kind of fault at a process's start: add what it shows"),
        }
        self.live.launcher_idle();
    }
}

#[test]
fn every_operation_has_every_fault_or_the_reason_why_not() {
    // A retry of an invocation that this test made fail must not interfere.
    let quiet = ["lambda_retry_1_ms=3600000", "lambda_retry_2_ms=3600000", "log_limit=64"];
    let options = Options { launchers: 0, ..Options::default() };
    let bare = Sandbox::start(quiet.iter().fold(options, |options, setting| options.set(setting)));
    let live = Sandbox::start(Options { launchers: 1, ..Options::default() });
    let operations: Vec<(String, String)> = read(&bare, "operations");
    let kinds: Vec<Kind> = read(&bare, "faults");
    let services: BTreeSet<&str> = operations.iter().map(|(service, _)| service.as_str()).collect();
    assert!(
        operations.len() >= 40 && services.len() > 10 && kinds.len() > 15,
        "too few operations, services or kinds were read"
    );
    let mut matrix = Matrix { bare, live, names: 0 };
    let (mut shown, mut unsuited) = (0, 0);
    for kind in &kinds {
        assert!(!kind.what.is_empty(), "{}", kind.name);
        for (service, operation) in &operations {
            match kind.unsuited.get(&format!("{service}:{operation}")) {
                None => {
                    matrix.show(service, operation, &kind.name);
                    shown += 1;
                }
                Some(reason) => {
                    let (status, error) = set(&matrix.bare, service, operation, &kind.name, json!({}));
                    assert!(status == 400 && error.contains(reason.as_str()), "{}: {error}", kind.name);
                    unsuited += 1;
                }
            }
        }
        // Every kind must suit at least one operation.
        assert!(kind.unsuited.len() < operations.len(), "{} suits no operation", kind.name);
    }
    assert_eq!(shown + unsuited, operations.len() * kinds.len());
    assert!(shown > operations.len() * 7, "{shown} of {}", operations.len() * kinds.len());
}
