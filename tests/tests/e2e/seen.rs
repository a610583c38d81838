//! What people see who watch deployments: an event for each end, figures in the launcher's log for
//! metrics, and traces.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;

use relay_tests::{Options, Sandbox, eventually};
use serde_json::{Value, json};

/// The details of the events that say how this deployment ended.
fn events(sandbox: &Sandbox, id: &str) -> Vec<Value> {
    let of_it = |entry: &relay_tests::kit::sandbox::Entry| entry.detail["detail"]["deployment_id"] == id;
    let calls = sandbox.calls("events", "PutEvents").into_iter().filter(|entry| entry.ok && of_it(entry));
    calls.map(|entry| entry.detail["detail"].clone()).collect()
}

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default().set("task_events=true"))
}

#[test]
fn each_end_is_told_once_as_an_event() {
    let sandbox = sandbox();
    let wrong = sandbox.deploy("demo/shell").param("script", "x").param("odd", "x").run().exits(120).id();
    let calls: [(String, &str, Value, Value); 4] = [
        (sandbox.shell("exit 0").run().exits(0).id(), "succeeded", json!(0), Value::Null),
        (sandbox.shell("exit 9").run().exits(9).id(), "failed", json!(9), Value::Null),
        (wrong, "refused", Value::Null, json!("parameter")),
        (
            sandbox.shell("kill -9 $PPID; sleep 9").args(&["--drain-timeout", "1s"]).run().exits(122).id(),
            "lost",
            Value::Null,
            json!("lost"),
        ),
    ];
    for (id, outcome, code, reason) in &calls {
        let told = eventually("the event", || events(&sandbox, id).into_iter().next());
        assert_eq!((&told["outcome"], &told["exit_code"], &told["reason"]), (&json!(outcome), code, reason), "{told}");
        assert_eq!((&told["target"], &told["requesters"]), (&json!("demo/shell"), &json!(["sandbox-ci"])), "{told}");
        let folder = told["evidence"].as_str().unwrap();
        assert!(folder.starts_with("s3://relay-evidence-") && folder.ends_with(&format!("/{id}/")), "{folder}");
        assert_eq!(told["start_seconds"].is_u64(), *outcome != "refused", "{told}");
    }
    // ECS's events, and the watchdog, report the end of a task again and again.
    for (id, outcome, ..) in &calls {
        for task in sandbox.tasks_of(id) {
            let detail = json!({ "clusterArn": task.0["clusterArn"], "taskArn": task.arn() });
            let event = json!({ "source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail });
            sandbox.invoke(&event);
        }
        sandbox.launcher_idle();
        assert_eq!(events(&sandbox, id).len(), 1, "{outcome}");
    }
    // The metric filters read these lines.
    let log = sandbox.launcher_log();
    let ended: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == "ended")
        .collect();
    assert_eq!(ended.len(), calls.len(), "{log}");
    assert!(ended.iter().any(|line| line["outcome"] == "succeeded" && line["start_seconds"].is_u64()), "{ended:?}");
}

#[test]
fn an_event_that_is_not_taken_changes_no_outcome() {
    let sandbox = sandbox();
    for kind in ["kind = \"error\"\ncode = \"AccessDeniedException\"", "kind = \"delay\"\ndelay_ms = [60000, 60000]"] {
        sandbox.set_faults(&format!("[[rule]]\nservice = \"events\"\noperation = \"PutEvents\"\n{kind}\n"));
        let done = sandbox.shell("exit 3").run().exits(3);
        eventually("the warning", || {
            sandbox.launcher_log().contains("no event says how the deployment ended").then_some(())
        });
        assert!(events(&sandbox, &done.id()).is_empty());
    }
}

/// A collector that takes one document. Returns its address, and what it got.
fn collector() -> (String, std::thread::JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        loop {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).unwrap();
            all.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&all).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(document) = serde_json::from_str(body)
            {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
                return (head.to_owned(), document);
            }
        }
    });
    (address, thread)
}

#[test]
fn a_trace_joins_the_caller_and_the_tool() {
    let sandbox = sandbox();
    let caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (address, thread) = collector();
    let call = sandbox.shell("echo $TRACEPARENT; exit 3").env("TRACEPARENT", caller);
    let call = call.env("OTEL_EXPORTER_OTLP_ENDPOINT", &address).env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc");
    let done = call.run().exits(3);
    let (head, document) = thread.join().unwrap();
    assert!(head.starts_with("POST /v1/traces ") && head.contains("x-key: abc"), "{head}");
    let spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["deploy demo/shell", "admission", "start", "run"]);
    assert_eq!(spans[0]["parentSpanId"], "b7ad6b7169203331");
    let context = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01\n", spans[0]["spanId"].as_str().unwrap());
    assert_eq!(done.out(), context, "the tool's spans are children of the deployment's");
    // Without a collector, the tool has the caller's context.
    assert_eq!(sandbox.shell("echo $TRACEPARENT").env("TRACEPARENT", caller).run().out(), format!("{caller}\n"));
    // A collector that is away costs a warning.
    let call = sandbox.shell("exit 0").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    call.run().exits(0).says("the trace was not sent");
}
