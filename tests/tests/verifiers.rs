//! Third-party libraries, unmodified, judge what relay signs: the DSSE envelopes of records and
//! requests (securesystemslib), the in-toto statement (in-toto-attestation), the Sigstore bundle
//! (sigstore-models), and the keys that `relay keygen` makes (OpenSSL, `cryptography`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use relay_tests::kit::sandbox::command;
use relay_tests::kit::venv::virtual_environment;
use relay_tests::{Options, Sandbox, eventually};
use serde_json::{Value, json};

/// Runs `verify.py`. Returns what it prints.
#[track_caller]
fn verified(arguments: &[&str]) -> String {
    let output = python(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn python(arguments: &[&str]) -> std::process::Output {
    static VENV: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| virtual_environment("verifiers/verifiers.txt"));
    let venv = VENV.as_ref().unwrap_or_else(|why| panic!("{why}"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifiers/verify.py");
    Command::new(venv.join("bin/python")).arg(script).args(arguments).output().unwrap()
}

/// Writes these objects of a deployment's evidence to files. Returns their paths.
fn files(sandbox: &Sandbox, id: &str, names: &[&str]) -> Vec<String> {
    let folder = sandbox.folder().join(id);
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &&str| {
        let path = folder.join(name.replace('/', "-"));
        let object = eventually(name, || sandbox.evidence(id, name));
        std::fs::write(&path, object).unwrap();
        path.to_str().unwrap().to_owned()
    };
    names.iter().map(write).collect()
}

// clause: REC-1, REC-2, REC-6, REC-8, SIG-2, SIG-3
/// The sandbox's KMS signs as AWS's does: P-256, DER, with `s` high or low.
#[test]
fn records_of_runner_and_launcher_are_accepted() {
    let sandbox = Sandbox::start(Options::default());
    let (target, answer) = (sandbox.variable("RELAY_TARGET_PUBLIC_KEY"), sandbox.variable("RELAY_ANSWER_PUBLIC_KEY"));
    for _ in 0..4 {
        let ran = sandbox.shell("echo x=1 >> $RELAY_OUTPUT; exit 5").run().exits(5);
        let names = ["runner/record.json", "runner/record.sigstore.json", "request.json"];
        let [record, bundle, request] = files(&sandbox, &ran.id(), &names).try_into().unwrap();
        let statement: Value = serde_json::from_str(&verified(&["record", &record, &bundle, target])).unwrap();
        assert_eq!(statement["predicateType"], "urn:relay:deployment:v1");
        assert_eq!(statement["predicate"]["outcome"], json!({ "exited": { "code": 5 } }));
        assert!(!python(&["record", &record, &bundle, answer]).status.success(), "another key");
        let [summary] = files(&sandbox, &ran.id(), &["launcher/vsa.json"]).try_into().unwrap();
        let statement: Value = serde_json::from_str(&verified(&["statement", &summary, answer])).unwrap();
        assert_eq!(statement["predicateType"], "https://slsa.dev/verification_summary/v1");
        assert_eq!(statement["predicate"]["verificationResult"], "PASSED");
        assert!(!python(&["statement", &summary, target]).status.success(), "another key");
        let signer = sandbox.signing_key().public().to_string();
        let payload: Value = serde_json::from_str(&verified(&["request", &request, &signer])).unwrap();
        assert_eq!(payload["deployment_id"], ran.id());
    }
    let refused = sandbox.deploy("demo/shell").run().exits(120);
    let names = ["launcher/record.json", "launcher/record.sigstore.json"];
    let [record, bundle] = files(&sandbox, &refused.id(), &names).try_into().unwrap();
    let statement: Value = serde_json::from_str(&verified(&["record", &record, &bundle, answer])).unwrap();
    assert_eq!(statement["predicate"]["outcome"], "refused");
}

#[test]
fn keys_of_keygen_open_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    let key = key.to_str().unwrap();
    let made = command("relay").args(["keygen", "--out", key]).output().unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    let public = said.split_once("key = \"").unwrap().1.split('"').next().unwrap();
    assert_eq!(verified(&["key", key, public]), "Ed25519PrivateKey\n");
    let openssl = Command::new("openssl").args(["pkey", "-in", key, "-pubout", "-outform", "DER"]).output();
    let openssl = openssl.expect("the program openssl is installed");
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    assert_eq!(relay_protocol::encoding::base64(&openssl.stdout), public);
}

fn schema(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema").join(name);
    path.to_str().unwrap().to_owned()
}

#[test]
fn events_fit_their_schema() {
    let sandbox = Sandbox::start(Options::default().set("task_events=true"));
    let ids = [
        sandbox.shell("exit 0").run().exits(0).id(),
        sandbox.shell("exit 3").run().exits(3).id(),
        sandbox.deploy("demo/shell").param("odd", "x").run().exits(120).id(),
    ];
    for id in ids {
        let event = eventually("the event", || {
            let calls = sandbox.calls("events", "PutEvents");
            let mut details = calls.into_iter().map(|entry| entry.detail["detail"].clone());
            details.find(|detail| detail["deployment_id"] == id.as_str())
        });
        verified(&["schema", &schema("event.json"), &event.to_string()]);
    }
}

/// The targets of the examples, and of the README.
#[test]
fn targets_fit_the_schema_for_editors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let examples = std::fs::read_dir(root.join("infra/examples")).unwrap().map(|entry| entry.unwrap().path());
    let examples = examples.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    let mut texts: Vec<String> = examples.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    texts.push(readme.split_once("```toml shop.toml\n").unwrap().1.split_once("\n```").unwrap().0.to_owned());
    assert!(texts.len() > 1);
    for text in texts {
        let target: toml::Value = toml::from_str(&text).unwrap();
        let mut target = serde_json::to_value(target).unwrap();
        verified(&["schema", &schema("target.json"), &target.to_string()]);
        target["odd"] = json!(1);
        assert!(!python(&["schema", &schema("target.json"), &target.to_string()]).status.success());
    }
}

/// Every line of `--output json` and every result file fits the schema that is published for it.
#[test]
fn json_output_and_result_files_fit_their_schemas() {
    let sandbox = Sandbox::start(Options::default());
    let mut seen = std::collections::BTreeSet::new();
    let calls: [(&str, &[&str]); 10] = [
        (
            "demo/shell",
            &[
                "--param",
                "script=echo x; printf '\\377'; echo a=b >> $RELAY_OUTPUT; sleep 3; exit 3",
                "--heartbeat",
                "1s",
            ],
        ),
        ("demo/shell", &["--param", "script=sleep 60", "--timeout", "2s"]),
        ("demo/shell", &[]),
        ("demo/nothing", &[]),
        ("demo/shell", &["--param", "script=x", "--dry-run"]),
        ("demo/shell", &["--dry-run"]),
        ("demo/shell", &["--param", "script=sleep 1", "--detach"]),
        ("demo/shell", &["--topic", "arn:aws:sns:eu-west-1:222222222222:elsewhere"]),
        ("demo/shell", &["--no-such-flag"]),
        ("demo/guarded", &["--param", "name=you", "--wait-approval", "3s", "--key", "oidc"]),
    ];
    for (target, arguments) in calls {
        let with_file = !arguments.iter().any(|argument| ["--dry-run", "--detach"].contains(argument));
        let call = if with_file { sandbox.deploy(target) } else { sandbox.relay(&["deploy", target]) };
        let done = call.args(arguments).args(&["--output", "json"]).run();
        let out = done.out();
        let lines: Vec<&str> = out.lines().collect();
        assert!(!lines.is_empty(), "{target} {arguments:?}: {}", done.err());
        seen.extend(lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].to_string()));
        verified(&[&["schema", &schema("output.json")], lines.as_slice()].concat());
        if let Some(result) = &done.result {
            verified(&["schema", &schema("result.json"), &result.to_string()]);
        }
    }
    let expected = [
        "admitted",
        "detached",
        "error",
        "finished",
        "hint",
        "output",
        "published",
        "refused",
        "running",
        "step",
        "waiting",
        "waits",
        "warning",
        "would_be_refused",
        "would_run",
    ];
    for kind in expected {
        assert!(seen.contains(&format!("\"{kind}\"")), "{kind}: {seen:?}");
    }
}
