//! Untrusted text, in every place where a stranger can choose it, never becomes a command for a
//! terminal or a CI system in relay's messages.

use std::path::Path;
use std::process::Output;

use relay_tests::kit::sandbox::command;
use relay_tests::{Options, Sandbox};

/// Texts without NUL, which no argument can contain.
const HOSTILE: &[&str] = &[
    "\x1b[31mred\x1b]0;title\x07",
    "\u{9b}31m",
    "a\rrelay: fine",
    "a\n::error::a line of relay's",
    "::set-output name=a::b",
    "a ##[error]b",
    "##vso[task.complete]",
    "a\u{202e}b\u{ad}c\u{200b}d\u{e0041}e\u{fff9}f",
    "a\nhint: run this",
];

fn harmless(place: &str, output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8(bytes.clone()).unwrap_or_else(|_| panic!("{place}: not UTF-8"));
        for line in text.split('\n') {
            let odd = |c: &char| c.is_control() || "\u{202e}\u{ad}\u{200b}\u{e0041}\u{fff9}".contains(*c);
            assert_eq!(line.chars().find(odd), None, "{place}: {line:?}");
            assert!(!line.trim_start().starts_with("::"), "{place}: {line:?}");
            assert!(!line.contains("##[") && !line.contains("##vso["), "{place}: {line:?}");
            assert_ne!(line, "hint: run this", "{place}: {text}");
        }
    }
}

/// A launcher's record, with a text of somebody else's in each place that takes any text.
const UNFINISHED: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[],
"predicateType":"urn:relay:launcher-record:v1","predicate":{"deployment_id":"01980000-0000-7000-8000-000000000000",
"target":"demo/hello","audience":"arn:aws:sns:eu-west-1:222222222222:relay","parameters":{},"signers":[],"approvers":[],
"recorded_at":"2026-11-27T00:00:00Z","outcome":"refused","reason":"policy","message":"HOSTILE","task_arn":"HOSTILE",
"launcher_version":"HOSTILE"}}"#;

fn run(folder: &Path, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = command(program);
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    command.output().expect("the program starts")
}

// clause: FRM-17
#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn no_argument_file_or_variable_becomes_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let write = |name: &str, text: &str| std::fs::write(here.join(name), text).unwrap();
    let key = here.join("key.pem");
    assert!(run(here, "relay", &["keygen", "--out", key.to_str().unwrap()], &[]).status.success());
    let topic = "arn:aws:sns:eu-west-1:222222222222:relay";
    for hostile in HOSTILE {
        let pair = format!("a={hostile}");
        for arguments in [
            &["deploy", hostile] as &[&str],
            &[hostile],
            &["deploy", "demo/hello", hostile],
            &["deploy", "demo/hello", "--param", hostile],
            &["deploy", "demo/hello", "--param", &pair, "--topic", hostile],
            &["deploy", "demo/hello", "--topic", topic, "--key", hostile],
            &["deploy", "demo/hello", "--topic", topic, "--key", "key.pem", "--artifact", &pair],
            &["deploy", "demo/hello", "--timeout", hostile],
            &["deploy", "demo/hello", "--topic", topic, "--key", "key.pem", "--target-key", hostile],
            &["deploy", "demo/hello", "--topic", topic, "--key", "key.pem", "--answer-key", hostile],
            &["deploy", "demo/hello", "--topic", topic, "--reply-queue-url", hostile],
            &["deploy", hostile, "--dry-run"],
            &["doctor", hostile, "--try"],
            &["attach", hostile],
            &["status", hostile],
            &["cancel", hostile],
            &["gc", "--region", hostile, "--keep", hostile],
            &["inspect", hostile],
            &["inspect", "key.pem", "--key", hostile],
            &["verify", hostile],
            &["verify", "record.json", "--key", hostile],
            &["verify", "record.json", "--config", hostile],
            &["keygen", "--out", hostile],
        ] {
            harmless(&format!("relay {arguments:?}"), &run(here, "relay", arguments, &[]));
        }
        for name in ["RELAY_TOPIC_ARN", "RELAY_SIGNING_KEY", "RELAY_TARGET_PUBLIC_KEY", "AWS_REGION"] {
            let output = run(here, "relay", &["deploy", "demo/hello"], &[(name, hostile)]);
            harmless(&format!("{name}={hostile:?}"), &output);
        }
        let quoted = serde_json::json!(hostile).to_string();
        for (name, text) in [
            ("relay.toml", format!("[targets.{quoted}]\ntopic = {quoted}\n")),
            ("relay.toml", format!("[targets.\"demo/hello\"]\ntopic = {quoted}\ntarget_key = {quoted}\n")),
            ("relay.toml", format!("{hostile} = [\n")),
        ] {
            write(name, &text);
            harmless(&format!("{text:?}"), &run(here, "relay", &["deploy", "demo/hello"], &[]));
            harmless(&format!("doctor, {text:?}"), &run(here, "relay", &["doctor", "demo/hello"], &[]));
            std::fs::remove_file(here.join(name)).unwrap();
        }
        let payload = UNFINISHED.replace("\"HOSTILE\"", &quoted);
        let record = relay_protocol::Envelope::new(relay_protocol::record::TYPE, payload.into_bytes());
        write("record.json", &record.to_json());
        let key = relay_tests::kit::asking::new_key().public().to_string();
        let verified = run(here, "relay", &["verify", "record.json", "--key", &key], &[]);
        assert!(
            String::from_utf8_lossy(&verified.stdout).contains("how it ended: "),
            "the record is read: {verified:?}"
        );
        harmless("verify", &verified);
        write("body.json", &format!("{{\"request\":{quoted},{quoted}:1}}"));
        harmless("inspect", &run(here, "relay", &["inspect", "body.json"], &[]));
        let good = include_str!("../../../infra/examples/payments-production.toml");
        for (from, to) in [
            ("\"payments/production\"", quoted.as_str()),
            ("Group::\"payments-ci\"", &format!("Group::{quoted}")),
            ("name = \"ci\"", &format!("name = {quoted}")),
            ("name = \"apply\"", &format!("name = {quoted}")),
            ("[parameters]", &format!("[parameters]\n{quoted} = 1")),
            ("timeout = \"45m\"", &format!("timeout = {quoted}")),
            ("timeout = \"45m\"", hostile),
        ] {
            assert!(good.contains(from), "{from}");
            write("t.toml", &good.replacen(from, to, 1));
            let place = format!("t.toml with {to:?}");
            harmless(&place, &run(here, "relay-admin", &["target", "check", "t.toml"], &[]));
            harmless(&place, &run(here, "relay-admin", &["target", "test", "t.toml", "--signer", "ci"], &[]));
        }
        write("t.toml", good);
        for arguments in [
            &["target", "check", hostile] as &[&str],
            &["target", hostile],
            &["target", "test", "t.toml", "--signer", hostile],
            &["target", "test", "t.toml", "--signer", "ci", "--param", &pair],
            &["target", "test", "t.toml", "--request", "body.json"],
            &["target", "test", "t.toml", "--signer", "ci", "--at", hostile],
            &["target", "render", "t.toml", "--image", hostile],
            &["log", "t.toml", hostile],
            &["log", hostile, "01980000-0000-7000-8000-000000000000"],
            &["stop", hostile],
            &["ps", "--cluster", hostile, "--evidence", hostile],
            &["init", hostile, "--target", hostile],
        ] {
            harmless(&format!("relay-admin {arguments:?}"), &run(here, "relay-admin", arguments, &[]));
        }
    }
}

// clause: FRM-17
/// AWS's errors, and the reason of a stop, which any operator may write.
#[test]
fn what_aws_or_an_operator_says_becomes_no_command() {
    let sandbox = Sandbox::start(Options::default().set("task_events=true"));
    // All in one, since each failed call is tried again for a while.
    let hostile = HOSTILE.join("\n");
    let quoted = serde_json::json!(hostile).to_string();
    for (service, operation) in [("sqs", "CreateQueue"), ("sns", "Publish"), ("sts", "GetCallerIdentity")] {
        let code = format!("code = {quoted}");
        sandbox.set_faults(&format!(
            "[[rule]]\nservice = \"{service}\"\noperation = \"{operation}\"\nkind = \"error\"\n{code}\n"
        ));
        for arguments in [&["deploy", "demo/hello", "--param", "name=x"] as &[&str], &["doctor", "demo/hello", "--try"]]
        {
            let mut relay = command("relay");
            relay.args(arguments).envs(sandbox.environment());
            harmless(&format!("{operation}: {hostile:?}, {arguments:?}"), &relay.output().unwrap());
        }
    }
    sandbox.set_faults("");
    let running = sandbox.shell("echo begun; while :; do sleep 0.1; done").start();
    running.until_stdout("begun");
    let task = sandbox.tasks_of(&running.id()).remove(0);
    sandbox.operator().stop_task(task.arn(), &hostile);
    let done = running.wait().exits(122);
    harmless(
        "a stop",
        &Output { status: std::process::ExitStatus::default(), stdout: done.stdout, stderr: done.stderr },
    );
    for arguments in [&["ps"] as &[&str], &["stop", task.0["startedBy"].as_str().unwrap()]] {
        let mut admin = command("relay-admin");
        admin.args(arguments).envs(sandbox.environment()).env("AWS_ACCESS_KEY_ID", "222222222222");
        harmless(&format!("{arguments:?}"), &admin.output().unwrap());
    }
}
