//! `relay-admin` with an operator's credentials: it lists what is alive and stops it. A set-up
//! written by `init` can be deployed to.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use relay_tests::kit::sandbox::{TARGET, command};
use relay_tests::{Options, Sandbox, eventually};
use serde_json::{Value, json};

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default())
}

/// Arguments, variables, exit code, and expected words.
type Row<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a str);

fn ps(sandbox: &Sandbox) -> Vec<Value> {
    let (code, out, err) = sandbox.admin(&["ps", "--output", "json"]);
    assert_eq!(code, 0, "{err}");
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn live(sandbox: &Sandbox, id: &str) -> Option<Value> {
    ps(sandbox).into_iter().find(|one| one["deployment_id"] == id)
}

const PATIENT: &str = "trap 'echo got INT; exit 0' INT; echo begun; while :; do sleep 0.05; done";

#[test]
fn what_is_alive_is_listed_and_can_be_stopped() {
    let sandbox = sandbox();
    let running = sandbox
        .shell(PATIENT)
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_ACTOR", "an\u{202e}na")
        .env("GITHUB_SERVER_URL", "https://github.example")
        .env("GITHUB_REPOSITORY", "example/payments")
        .env("GITHUB_RUN_ID", "7")
        .start();
    running.until_stdout("begun");
    let id = running.id();
    let seen = live(&sandbox, &id).expect("it is alive");
    assert_eq!((&seen["target"], &seen["state"]), (&json!("demo/shell"), &json!("RUNNING")));
    // What the request says of itself is in the evidence.
    assert_eq!(seen["says"]["run_url"], Value::Null);
    let evidence = ["--evidence", &sandbox.evidence_bucket()];
    let (_, out, _) = sandbox.admin(&[&["ps", "--output", "json"], &evidence[..]].concat());
    let seen: Value = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .find(|one: &Value| one["deployment_id"] == *id)
        .unwrap();
    assert_eq!(seen["says"]["run_url"], "https://github.example/example/payments/actions/runs/7");
    assert_eq!(seen["task_arn"], sandbox.tasks_of(&id)[0].arn());
    let (code, out, _) = sandbox.admin(&[&["ps"], &evidence[..]].concat());
    let row = out.lines().find(|line| line.starts_with(&id)).expect("a row");
    assert_eq!((code, out.lines().next().unwrap().split_whitespace().next()), (0, Some("DEPLOYMENT")));
    // What the request says about itself is untrusted text, and cannot reverse the row.
    assert!(row.contains("demo/shell") && row.contains("RUNNING") && row.contains("github an\\u{202e}na"), "{row}");

    let (code, out, err) = sandbox.admin(&["stop", &id, "--reason", "wrong account"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("asked ECS to stop {id} (demo/shell)")) && out.contains("120 seconds"), "{out}");
    let done = running.wait().exits(122).says("stopped");
    assert_eq!(done.out(), "begun\ngot INT\n", "the tool received its signal, and its last output arrived");
    let task = sandbox.task_when(sandbox.tasks_of(&id)[0].arn(), "STOPPED");
    assert_eq!(
        task.0["stoppedReason"],
        format!("stopped by arn:aws:sts::{TARGET}:assumed-role/operator/operator: wrong account")
    );
    assert_eq!(live(&sandbox, &id), None);
    let (code, _, err) = sandbox.admin(&["stop", &id]);
    assert!(code == 1 && err.contains("has already stopped: stopped by arn:"), "{err}");
}

#[test]
fn what_is_stopping_already_is_not_asked_again() {
    let sandbox = sandbox();
    let gate = sandbox.folder().join("stopping");
    let script = format!("trap 'echo got INT' INT; echo begun; while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let running = sandbox.shell(&script).start();
    running.until_stdout("begun");
    let id = running.id();
    assert_eq!(sandbox.admin(&["stop", &id]).0, 0);
    eventually("ps shows that it is stopping", || live(&sandbox, &id).filter(|one| one["state"] == "STOPPING"));
    let (code, out, _) = sandbox.admin(&["stop", &id, "--reason", "again"]);
    assert!(code == 0 && out.contains("is already stopping: stopped by"), "{out}");
    let stops = sandbox.calls("ecs", "StopTask");
    let arn = sandbox.tasks_of(&id)[0].arn().to_owned();
    assert_eq!(stops.iter().filter(|call| call.text("task") == arn).count(), 1);
    std::fs::write(gate, "").unwrap();
    running.wait().exits(122);
}

#[test]
fn what_cannot_be_done_is_said_with_its_reason() {
    let sandbox = sandbox();
    let stranger = "01980000-0000-7000-8000-000000000000";
    let rows: [Row; 6] = [
        (&["stop", stranger], &[], 1, "found no task of 01980000-0000-7000-8000-000000000000 in the cluster relay"),
        (&["stop", "payments/production"], &[], 119, "not a deployment id"),
        (&["stop", stranger, "--cluster", "nowhere"], &[], 125, "ClusterNotFoundException"),
        (&["ps", "--cluster", "nowhere"], &[], 125, "hint: check the name, the account and the region"),
        (&["ps"], &[("AWS_ACCESS_KEY_ID", "AKIANOBODY")], 125, "hint: relay has no valid AWS credentials"),
        (
            &["ps"],
            &[("AWS_REGION", ""), ("AWS_CONFIG_FILE", "/nowhere"), ("AWS_EC2_METADATA_DISABLED", "true")],
            119,
            "no region is configured: set AWS_REGION",
        ),
    ];
    for (arguments, environment, code, words) in rows {
        let (found, out, err) = sandbox.admin_with(arguments, environment);
        assert_eq!((found, out.as_str()), (code, ""), "{arguments:?} {environment:?}: {err}");
        assert!(err.contains(words), "{words}: {err}");
    }
    let (code, out, err) = sandbox.admin(&["ps", "--cluster", "default"]);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.contains("no deployment is alive in the cluster default"), "{err}");
}

/// Adds the settings that only a sandbox needs, and replaces the account's key with the sandbox's.
fn for_the_sandbox(configuration: &str) -> String {
    let key = "\"alias/relay-payments-production\"";
    assert!(configuration.contains(key), "{configuration}");
    format!(
        "endpoint = \"${{ENDPOINT}}\"\nworkspace = \"${{WORKSPACE}}\"\nuid = 0\n{}",
        configuration.replace(key, "\"${TARGET_KEY}\"")
    )
}

#[test]
fn what_init_writes_deploys() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "init",
        folder.path().to_str().unwrap(),
        "--target",
        "payments/production",
        "--target-account",
        TARGET,
        "--region",
        "eu-west-1",
        "--ci-account",
        "111111111111",
        "--ci",
        "gitlab",
        "--ci-source",
        "example/payments",
        "--code-bucket",
        "example-code",
        "--new-key",
    ];
    let made = command("relay-admin").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let configuration = std::fs::read_to_string(folder.path().join("targets/payments-production.toml")).unwrap();
    let sandbox = Sandbox::start(Options::default().target("payments/production", for_the_sandbox(&configuration)));
    let config = folder.path().join("relay.toml");
    let own = ["RELAY_TOPIC_ARN", "RELAY_SIGNING_KEY", "RELAY_ARTIFACT_STORE"];
    let mut deploy = sandbox.deploy("payments/production").param("version", "1.2.3");
    for name in own {
        deploy = deploy.without(name);
    }
    let done = deploy.args(&["--config", config.to_str().unwrap()]).run().exits(0);
    assert_eq!(done.out(), "deploying 1.2.3\n");
    assert_eq!(*done.result("/output/verified"), json!(true));
    doctor_agrees(&sandbox, folder.path(), &own);
}

/// Asserts that `relay doctor` approves the set-up. Only the artifact bucket is exempt: it comes
/// from ci-account.yaml, which a sandbox does not have.
fn doctor_agrees(sandbox: &Sandbox, folder: &Path, own: &[&str]) {
    let mut doctor = command("relay");
    doctor.args(["doctor", "--try"]).envs(sandbox.environment()).current_dir(folder);
    for name in own {
        doctor.env_remove(name);
    }
    let words = String::from_utf8(doctor.output().unwrap().stdout).unwrap();
    let bad: Vec<&str> = words.lines().filter(|line| !line.starts_with("ok") && !line.starts_with("skip")).collect();
    assert_eq!(
        bad,
        [
            "bad   artifacts: the bucket relay-artifacts-111111111111-eu-west-1 does not exist — check `artifact_store` in relay.toml"
        ]
    );
}

// clause: LCK-2, LCK-3
/// A slot is freed only when ECS knows no living task of its holder.
#[test]
fn a_lock_whose_holder_is_gone_can_be_freed_and_no_other() {
    let sandbox = sandbox();
    let file = sandbox.folder().join("one.toml");
    let configuration = relay_tests::kit::targets::target(
        "demo/shell",
        &relay_tests::kit::targets::Head { concurrency: 1, ..Default::default() },
        relay_tests::kit::targets::SHELL,
    );
    let bucket = sandbox.bucket();
    let own = [
        ("${TOPIC}", sandbox.topic().to_string()),
        ("${BUCKET}", bucket.clone()),
        ("${EVIDENCE}", sandbox.evidence_bucket()),
        ("${TARGET_KEY}", "alias/relay-demo-shell".to_owned()),
        ("${ENDPOINT}", "http://127.0.0.1:1".to_owned()),
        ("${WORKSPACE}", "/work".to_owned()),
        ("${SIGNER_KEY}", sandbox.signing_key().public().to_string()),
    ];
    let text = own.iter().fold(configuration, |text, (name, value)| text.replace(name, value));
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();

    let running = sandbox.shell(PATIENT).start();
    running.until_stdout("begun");
    let key = "locks/demo/shell/0";
    let holder =
        |arn: &str| json!({"holder": {"deployment_id": running.id(), "task_arn": arn, "taken_at": 1}}).to_string();
    let put = |body: String| sandbox.operator().put_object(&bucket, key, body.into_bytes());

    put(holder(sandbox.tasks_of(&running.id())[0].arn()));
    let (code, out, err) = sandbox.admin(&["lock", "show", file]);
    assert!(code == 0 && out.starts_with("0  held ") && out.contains(&running.id()), "{out}{err}");
    let (code, _, err) = sandbox.admin(&["lock", "clear", file]);
    assert!(code == 1 && err.contains("nothing was freed"), "{code} {err}");

    for gone in [holder("arn:aws:ecs:eu-west-1:222222222222:task/relay/gone"), "no lock".to_owned()] {
        put(gone);
        let (code, out, err) = sandbox.admin(&["lock", "clear", file]);
        assert!(code == 0 && out.contains("freed slot 0"), "{code} {out}{err}");
        assert_eq!(sandbox.operator().get_json(&bucket, key), Some(json!({})));
    }
    let (code, out, _) = sandbox.admin(&["lock", "clear", file]);
    assert!(code == 1 && out.contains("is free"), "{out}");
    assert_eq!(sandbox.admin(&["lock", "clear", file, "--slot", "1"]).0, 119);
}

// clause: SIG-9
#[test]
fn the_platform_team_lists_and_revokes_issuers_keys() {
    let sandbox = Sandbox::start(Options::default());
    let keyless = || sandbox.shell("true").without("RELAY_SIGNING_KEY").args(&["--key", "oidc"]);
    keyless().run().exits(0);
    let (_, _, text) = sandbox.operator().definition("relay_demo_shell");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.toml"), text).unwrap();
    let admin = |arguments: &[&str]| {
        let mut command = command("relay-admin");
        command.args(["issuer"]).args(arguments).current_dir(folder.path());
        command.envs(sandbox.environment()).env("AWS_ACCESS_KEY_ID", "222222222222");
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, listed) = admin(&["list", "t.toml"]);
    let of_github = listed.lines().find(|line| line.contains("/github  sandbox-1  in use, last seen ")).unwrap();
    assert_eq!((code, listed.lines().count()), (0, 2), "{listed}");
    let issuer = of_github.split_whitespace().next().unwrap();
    assert_eq!(admin(&["revoke", "t.toml", "--issuer", issuer, "--kid", "other"]).0, 1);
    assert_eq!(admin(&["revoke", "t.toml", "--issuer", issuer, "--kid", "sandbox-1"]).0, 0);
    assert!(admin(&["list", "t.toml"]).1.contains("/github  sandbox-1  revoked"));
    keyless().run().exits(120);
}
