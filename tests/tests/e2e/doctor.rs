//! `relay doctor` against the sandbox: its report when everything works, and when one thing is
//! wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use std::sync::Arc;

use relay_tests::kit::sandbox::command;
use relay_tests::{Options, Sandbox};
use serde_json::Value;
use tempfile::TempDir;

/// No test here reaches the launcher.
fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options { launchers: 0, ..Options::default() })
}

/// Runs `relay doctor` in `folder` with these variables; an empty value removes one. Returns exit
/// code and stdout.
fn doctor(sandbox: &Sandbox, folder: &TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = command("relay");
    command.arg("doctor").args(arguments).envs(sandbox.environment()).current_dir(folder.path()).stdin(Stdio::null());
    for (name, value) in environment {
        match value.is_empty() {
            true => command.env_remove(name),
            false => command.env(name, value),
        };
    }
    let output = command.output().expect("relay starts");
    let words = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), words)
}

fn hello(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    doctor(&sandbox(), &TempDir::new().unwrap(), &[&["demo/hello"], arguments].concat(), environment)
}

/// Arguments, variables, exit code, and expected words.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);

#[track_caller]
fn says(words: &str, line: &str) {
    assert!(words.lines().any(|found| found.starts_with(line)), "no line begins with `{line}`: {words}");
}

#[test]
fn an_open_way_is_told_and_nothing_is_changed() {
    // Its own sandbox: the log must hold only this test's calls.
    let sandbox = Sandbox::start(Options { launchers: 0, ..Options::default() });
    let (code, words) = doctor(&sandbox, &TempDir::new().unwrap(), &["demo/hello"], &[]);
    assert_eq!(code, 0, "{words}");
    for line in [
        "ok    topic: arn:aws:sns:eu-west-1:222222222222:relay for demo/hello",
        "ok    key: the target's signers must include MCowBQYDK2VwAyEA",
        "ok    pins: target key ",
        "ok    region: eu-west-1",
        "ok    endpoint: AWS_ENDPOINT_URL points to 127.0.0.1:",
        "ok    identity: arn:aws:sts::111111111111:assumed-role/ci/ci; the signer's ci_accounts must include 111111111111",
        "ok    clock: ",
        "skip  queues: ",
        "ok    artifacts: s3://relay-sandbox-artifacts/demo/hello/ is reachable",
        "skip  dry run: ",
    ] {
        says(&words, line);
    }
    let calls: Vec<String> = sandbox.log().into_iter().map(|entry| entry.operation).collect();
    assert_eq!(calls, ["GetCallerIdentity", "GetObject"]);
}

#[test]
fn a_try_leaves_nothing_behind() {
    let sandbox = Sandbox::start(Options::default());
    let try_it = || doctor(&sandbox, &TempDir::new().unwrap(), &["demo/hello", "--try"], &[]);
    let queues = |operation| -> Vec<String> {
        let mut names: Vec<String> = sandbox
            .calls("sqs", operation)
            .iter()
            .filter(|call| call.ok)
            .map(|call| call.text("queue").to_owned())
            .collect();
        names.sort();
        names
    };
    let (code, words) = try_it();
    assert_eq!(code, 0, "{words}");
    says(&words, "ok    queues: ");
    says(
        &words,
        "skip  dry run: the launcher knows the target and the key, and the pins fit; not checked: the policy, because",
    );
    assert_eq!((queues("CreateQueue").len(), queues("CreateQueue")), (2, queues("DeleteQueue")));
    for operation in ["CreateQueue", "ReceiveMessage", "DeleteQueue"] {
        sandbox.set_faults(&format!(
            "[[rule]]\nservice = \"sqs\"\noperation = \"{operation}\"\nkind = \"error\"\ncode = \"AccessDenied\"\n"
        ));
        let (code, words) = try_it();
        assert_eq!(code, 125, "{words}");
        says(&words, "bad   dry run: ");
        says(&words, "skip  queues: not known");
        assert!(words.contains(&format!("credentials in use lack sqs:{operation}")), "{words}");
    }
    // Both queues that could not be read have been deleted. The two whose deletion the fault denied
    // remain.
    assert_eq!(queues("DeleteQueue").len(), 4);
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn each_thing_in_the_way_has_its_line_and_its_code() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("ci.pem");
    std::fs::write(&key, sandbox().variable("RELAY_SIGNING_KEY")).unwrap();
    let mode = |mode| std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    let path = key.to_str().unwrap();
    let rows: [Row; 15] = [
        (&[], &[("RELAY_TOPIC_ARN", "")], 119, "bad   topic: no topic is configured for demo/hello — add"),
        (&["--topic", "relay"], &[], 119, "bad   topic: the topic is not the ARN"),
        (&[], &[("RELAY_SIGNING_KEY", "")], 119, "bad   key: nothing is configured to sign with — pass --key oidc"),
        (&["--key", "/nowhere/ci.pem"], &[], 119, "bad   key: /nowhere/ci.pem is neither a PEM nor a file"),
        (&[], &[("RELAY_TARGET_PUBLIC_KEY", "")], 119, "bad   pins: target_key is not pinned for demo/hello"),
        (
            &["--trust-first-answer"],
            &[("RELAY_TARGET_PUBLIC_KEY", ""), ("RELAY_ANSWER_PUBLIC_KEY", "")],
            0,
            "warn  pins: none for demo/hello",
        ),
        (&["--target-key", "no key"], &[], 119, "bad   pins: "),
        (&[], &[("AWS_REGION", "us-east-1")], 0, "ok    region: eu-west-1, from the topic; relay ignores us-east-1"),
        (
            &[],
            &[("AWS_ACCESS_KEY_ID", "AKIANOBODY")],
            125,
            "bad   identity: getting the caller's identity: sts:GetCallerIdentity: InvalidClientTokenId",
        ),
        (
            &[],
            &[("AWS_ACCESS_KEY_ID", "222222222222")],
            0,
            "warn  identity: arn:aws:sts::222222222222:assumed-role/operator",
        ),
        (&[], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], 125, "bad   identity: "),
        (&[], &[("HTTPS_PROXY", "http://127.0.0.1:1")], 0, "ok    proxy: HTTPS_PROXY is set"),
        (&["--artifact-store", "s3://nowhere/x/"], &[], 119, "bad   artifacts: the bucket nowhere does not exist —"),
        (
            &["--artifact-store", "s3://relay-222222222222-eu-west-1/x/"],
            &[],
            125,
            "bad   artifacts: reading an object in s3://relay-222222222222-eu-west-1/x/: s3:GetObject: AccessDenied",
        ),
        (
            &["--reply-queue-url", "https://sqs.us-east-1.amazonaws.com/111111111111/replies"],
            &[],
            119,
            "bad   queues: replies is in us-east-1, but the topic is in eu-west-1",
        ),
    ];
    for (arguments, environment, code, line) in rows {
        let (found, words) = hello(arguments, environment);
        assert_eq!(found, code, "{arguments:?} {environment:?}: {words}");
        says(&words, line);
    }
    mode(0o644);
    let (code, words) = hello(&["--key", path], &[]);
    assert_eq!(code, 0);
    says(&words, &format!("warn  key: users other than the owner have access to {path} (mode 644) — chmod 600 {path}"));
    mode(0o600);
    says(&hello(&["--key", path], &[]).1, &format!("ok    key: {path}; "));
    // A fault in a setting determines the exit code: AWS may answer differently after it is
    // corrected.
    let (code, _) = hello(&["--target-key", "no key"], &[("AWS_ACCESS_KEY_ID", "AKIANOBODY")]);
    assert_eq!(code, 119);
}

#[test]
fn each_target_of_the_file_is_looked_at_and_a_thing_is_said_once() {
    let (sandbox, folder) = (sandbox(), TempDir::new().unwrap());
    let (code, words) = doctor(&sandbox, &folder, &[], &[]);
    assert!(code == 119 && words.contains("no target is named") && words.contains("hint: "), "{words}");
    let topic = sandbox.topic();
    let file = format!(
        "[default]\ntopic = \"{topic}\"\n[targets.\"a/one\"]\n[targets.\"b/two\"]\ntopic = \"odd\"\n[targets.\"c/three\"]\n"
    );
    std::fs::write(folder.path().join("relay.toml"), file).unwrap();
    let (code, words) = doctor(&sandbox, &folder, &[], &[("RELAY_TOPIC_ARN", "")]);
    assert_eq!(code, 119);
    for line in [
        &format!("ok    topic: {topic} for a/one"),
        "bad   topic: the topic is not",
        &format!("ok    topic: {topic} for c/three"),
    ] {
        says(&words, line);
    }
    assert_eq!(words.lines().filter(|line| line.starts_with("ok    identity: ")).count(), 1, "{words}");
    std::fs::write(folder.path().join("relay.toml"), "[targets.\"no slash\"]\n").unwrap();
    assert_eq!(doctor(&sandbox, &folder, &[], &[]).0, 119);
}

#[test]
fn as_json_it_is_an_object_a_line() {
    let (code, words) = hello(&["--output", "json", "--topic", "re\u{1b}lay"], &[]);
    assert_eq!(code, 119);
    let lines: Vec<Value> = words.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let topic = lines.iter().find(|line| line["check"] == "topic").unwrap();
    assert_eq!(topic["level"], "bad");
    assert!(topic["text"].as_str().unwrap().contains("the topic is not") && !words.contains('\u{1b}'), "{words}");
    let pin = lines.iter().find(|line| line["check"] == "pins").unwrap();
    assert_eq!((&pin["level"], &pin["remedy"]), (&Value::from("ok"), &Value::Null));
}
