//! The command line, and what a recipe can express: signals, timeouts, rollback, environment and
//! work directory.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Instant;

use relay_tests::kit::deploy::relay;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

fn sandbox() -> Arc<Sandbox> {
    let step =
        |name: &str, script: &str| format!("\n[[steps]]\nname = \"{name}\"\nrun = [\"sh\", \"-c\", '''{script}''']\n");
    let rollback = |name: &str, script: &str| step(name, script).replace("[[steps]]", "[[rollback]]");
    let codes = "success_codes = [0, 2]\n";
    let parameter = "\n[parameters]\ncode = { pattern = \"[0-9]{1,3}\" }\n";
    let of = |name: &str, body: String| target(name, &Head::default(), &body);
    let quick = Head { timeout: "2s", cancel: r#"{ signal = "TERM", grace = "1s" }"#, ..Head::default() };
    Sandbox::start(
        Options::default()
            .target("test/quick", target("test/quick", &quick, SHELL))
            .target(
                "test/merged",
                of("test/merged", SHELL.to_owned()).replacen("timeout = ", "output = \"merged\"\ntimeout = ", 1),
            )
            .target(
                "test/steps",
                of(
                    "test/steps",
                    [
                        step("one", "pwd; ls -A; echo 1 > file"),
                        step("two", "pwd; cat file; echo 2 >> file"),
                        step("three", "cat file; exit 3"),
                        step("four", "echo never"),
                    ]
                    .concat(),
                ),
            )
            .target(
                "test/rollback",
                of(
                    "test/rollback",
                    [
                        parameter.to_owned(),
                        step("one", "exit $RELAY_PARAM_CODE") + codes,
                        step("two", "echo two"),
                        rollback("undo", "echo undone; exit 9"),
                        rollback("more", "echo never"),
                    ]
                    .concat(),
                ),
            )
            .target(
                "test/clean",
                target("test/clean", &Head::default(), &format!("NAME = \"a value\"\nHOME = \"/nowhere\"\n{SHELL}")),
            )
            .target(
                "test/role",
                target("test/role", &Head::default(), SHELL)
                    .replace("\ntimeout", "\nrole = \"arn:aws:iam::222222222222:role/relay-deploy/payments\"\ntimeout"),
            ),
    )
}

#[test]
fn keygen_makes_a_key_that_only_its_owner_reads_and_never_overwrites() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = relay(folder.path(), &["keygen", "--out", "ci.pem"]);
    assert_eq!(code, 0, "{err}");
    let file = folder.path().join("ci.pem");
    let pem = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = relay_protocol::keys::PrivateKey::from_pem(&pem).unwrap();
    assert!(out.contains(&format!("key = \"{}\"", key.public())) && out.contains(&key.public().key_id()), "{out}");
    assert!(!format!("{out}{err}").contains("PRIVATE KEY"));
    let (code, _, err) = relay(folder.path(), &["keygen", "--out", "ci.pem"]);
    assert_eq!(code, 119);
    assert!(err.contains("already exists") && err.contains("hint: "), "{err}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), pem);
    // The key works as a file and as text.
    let sandbox = sandbox();
    let hello = || sandbox.deploy("demo/hello").param("name", "world").without("RELAY_SIGNING_KEY");
    hello().args(&["--key", file.to_str().unwrap()]).run().exits(120).says("unverified");
    hello().env("RELAY_SIGNING_KEY", &pem).run().exits(120).says("unverified");
    std::fs::write(&file, sandbox.variable("RELAY_SIGNING_KEY")).unwrap();
    hello().args(&["--key", file.to_str().unwrap()]).run().exits(0);
}

// clause: SIG-3
#[test]
fn a_key_that_never_leaves_kms_signs_requests() {
    let sandbox = Sandbox::start(Options::default());
    let (arn, der) = sandbox.ci().create_signing_key();
    let public = relay_protocol::PublicKey::from_der(&der).unwrap();
    let deploy = || sandbox.deploy("demo/hello").param("name", "world").env("RELAY_SIGNING_KEY", &arn);
    deploy().run().exits(120).says("unverified");
    // The platform team replaces the other key with it.
    let operator = sandbox.operator();
    let (old, entry_point, text) = operator.definition("relay_demo_hello");
    let text = text.replace(&sandbox.signing_key().public().to_string(), &public.to_string());
    let pin = relay_policy::Pin::of(&"demo/hello".parse().unwrap(), &text);
    operator.register("relay_demo_hello", &pin.entry_point(&entry_point[0]), &text, "relay-demo-hello");
    operator.deregister(&old);
    // KMS makes high `s` as often as low. Every reader must accept both.
    for _ in 0..4 {
        deploy().run().exits(0);
    }
}

#[test]
fn inspect_decodes_and_believes_nothing_without_a_key() {
    let sandbox = sandbox();
    let done = sandbox.deploy("demo/hello").param("name", "world").run().exits(0);
    let folder = tempfile::tempdir().unwrap();
    let bundle = sandbox.evidence(&done.id(), "request.json").unwrap();
    std::fs::write(folder.path().join("bundle.json"), bundle).unwrap();
    std::fs::write(folder.path().join("record.json"), done.result("/record").to_string()).unwrap();
    let inspect = |arguments: &[&str]| -> Value {
        let (code, out, err) = relay(folder.path(), &[&["inspect"], arguments].concat());
        let seen: Value = serde_json::from_str(&out).unwrap();
        // With keys, the exit code says whether one of them has signed.
        let valid = seen.pointer("/request/signatures/0/valid_by").or(seen.pointer("/signatures/0/valid_by"));
        assert_eq!(code, i32::from(valid.is_some_and(Value::is_null)), "{err}");
        assert_eq!(valid.is_some(), arguments.contains(&"--key"), "without a key nothing was checked");
        seen
    };
    let key = sandbox.signing_key().public().to_string();
    let seen = inspect(&["bundle.json", "--key", &key]);
    assert_eq!(seen["request"]["payload"]["parameters"], json!({ "name": "world" }));
    assert_eq!(seen["request"]["signatures"][0]["valid_by"], json!(sandbox.signing_key().public().key_id()));
    assert_eq!(inspect(&["bundle.json"])["request"]["signatures"][0]["valid_by"], Value::Null);
    let target_key = sandbox.target_public_key();
    let seen = inspect(&["record.json", "--key", &target_key.to_string(), "--key", &key]);
    assert_eq!(seen["payload"]["predicate"]["deployment_id"], json!(done.id()));
    assert_eq!(seen["signatures"][0]["valid_by"], json!(target_key.key_id()));
    assert_eq!(inspect(&["record.json", "--key", &key])["signatures"][0]["valid_by"], Value::Null);
    assert_eq!(relay(folder.path(), &["inspect", "nowhere.json"]).0, 119);
}

// clause: OUT-3
#[test]
fn usage_is_119_and_publishes_nothing() {
    let sandbox = Sandbox::start(Options { launchers: 0, ..Options::default() });
    let rows: [(&[&str], &str); 9] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--param", "name"], "NAME=VALUE"),
        (&["--param", "Name=x"], "--param"),
        (&["--param", "name=x", "--param", "name=y"], "given twice"),
        (&["--timeout", "soon"], "write a duration such as 90s"),
        (&["--topic", "relay"], "the topic is"),
        (&["--key", "/nowhere/key.pem"], "neither a PEM nor a file"),
        (&["--config", "/nowhere/relay.toml"], "/nowhere/relay.toml"),
        (&["--artifact", "source=/nowhere/at/all"], "/nowhere/at/all"),
    ];
    for (arguments, words) in rows {
        let done = sandbox.deploy("demo/hello").args(arguments).run().exits(119).says(words);
        assert_eq!(done.out(), "", "{arguments:?}");
        assert!(done.result.is_none_or(|result| result["exit_code"] == 119), "{arguments:?}");
    }
    sandbox.deploy("no-slash").run().exits(119).says("no-slash");
    sandbox
        .deploy("demo/hello")
        .without("RELAY_TOPIC_ARN")
        .run()
        .exits(119)
        .says("no topic is configured")
        .says("hint: ");
    sandbox
        .deploy("demo/hello")
        .without("RELAY_SIGNING_KEY")
        .run()
        .exits(119)
        .says("nothing is configured to sign with")
        .says("relay keygen");
    sandbox
        .deploy("demo/hello")
        .env("RELAY_TARGET_PUBLIC_KEY", "no key")
        .run()
        .exits(119)
        .says("the pinned target key is not a public key");
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(relay(folder.path(), &[]).0, 119);
    assert_eq!(relay(folder.path(), &["dance"]).0, 119);
    for help in [&["--help"][..], &["--version"], &["deploy", "--help"]] {
        assert_eq!(relay(folder.path(), help).0, 0, "{help:?}");
    }
    let calls = sandbox
        .log()
        .into_iter()
        .filter(|entry| matches!(entry.operation.as_str(), "Publish" | "CreateQueue" | "PutObject"));
    assert_eq!(calls.count(), 0);
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let sandbox = sandbox();
    let (topic, good) = (sandbox.topic().to_string(), sandbox.variable("RELAY_SIGNING_KEY").to_owned());
    let wrong = "arn:aws:sns:eu-west-1:222222222222:wrong";
    let deploy = |file: &str, environment: Option<&str>, flag: Option<&str>| {
        let mut deploy = sandbox.deploy("demo/hello").param("name", "world").without("RELAY_TOPIC_ARN");
        let deeper = deploy.folder().join("a/b");
        std::fs::create_dir_all(&deeper).unwrap();
        std::fs::write(deploy.folder().join("relay.toml"), file).unwrap();
        if let Some(topic) = environment {
            deploy = deploy.env("RELAY_TOPIC_ARN", topic);
        }
        if let Some(topic) = flag {
            deploy = deploy.args(&["--topic", topic]);
        }
        deploy.run()
    };
    let by_default = |topic: &str| format!("[default]\ntopic = \"{topic}\"\n");
    let by_target = |topic: &str| format!("[targets.\"demo/hello\"]\ntopic = \"{topic}\"\n");
    deploy(&by_default(&topic), None, None).exits(0);
    deploy(&by_default(wrong), None, None).exits(125).says(wrong);
    deploy(&format!("{}{}", by_default(wrong), by_target(&topic)), None, None).exits(0);
    deploy(&by_target(wrong), Some(&topic), None).exits(0);
    deploy(&by_target(&topic), Some(wrong), None).exits(125).says(wrong);
    deploy(&by_target(wrong), Some(wrong), Some(&topic)).exits(0);
    deploy(&by_target(&topic), Some(&topic), Some(wrong)).exits(125).says(wrong);
    deploy("[default]\ntopics = \"x\"\n", Some(&topic), None).exits(119).says("topics");
    deploy("[targets.\"no slash\"]\n", Some(&topic), None).exits(119);

    // A key in the file is a path relative to the file, from whichever folder below it `relay` is
    // called.
    let deploy = sandbox.deploy("demo/hello").param("name", "world").without("RELAY_SIGNING_KEY");
    std::fs::create_dir(deploy.folder().join("keys")).unwrap();
    std::fs::write(deploy.folder().join("keys/ci.pem"), good).unwrap();
    std::fs::write(deploy.folder().join("relay.toml"), "[default]\nkey = \"keys/ci.pem\"\n").unwrap();
    let config = deploy.folder().join("relay.toml");
    deploy.args(&["--config", config.to_str().unwrap()]).run().exits(0);
}

#[test]
fn a_mistyped_target_is_named_with_the_one_that_was_meant() {
    let sandbox = sandbox();
    let deploy = sandbox.deploy("test/merge").param("script", "true");
    std::fs::write(deploy.folder().join("relay.toml"), "[targets.\"test/merged\"]\n").unwrap();
    let done = deploy.run().exits(120);
    // The launcher cannot tell an unknown target from an unknown key, and says so.
    done.says("relay.toml names no target test/merge; did you mean test/merged?").says("target");
}

#[test]
fn quiet_leaves_both_streams_to_the_tool() {
    let done = sandbox().shell("echo out; printf err >&2; exit 3").args(&["--quiet"]).run().exits(3);
    assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"out\n"[..], &b"err"[..]));
}

const PATIENT: &str =
    "trap 'echo got INT; sleep 0.3; echo released the lock; exit 0' INT; echo begun; while :; do sleep 0.05; done";

// clause: CTL-5
#[test]
fn a_signal_stops_the_tool_gracefully() {
    let sandbox = sandbox();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let running = sandbox.shell(PATIENT).start();
        running.until_stdout("begun");
        running.signal(signal);
        let done = running.wait().exits(code);
        assert_eq!(done.out(), "begun\ngot INT\nreleased the lock\n", "the recipe's own signal, whatever stopped CI");
        assert_eq!((done.result("/reason"), done.result("/output/verified")), (&json!("cancelled"), &json!(true)));
        let task = sandbox.tasks_of(&done.id()).pop().unwrap();
        assert_eq!(sandbox.task_when(task.arn(), "STOPPED").exit_code(), Some(130));
    }
}

#[test]
fn a_second_signal_leaves_at_once() {
    let sandbox = sandbox();
    let gate = sandbox.folder().join("second-signal");
    let script =
        format!("trap 'echo got INT' INT; echo begun; while [ ! -e {} ]; do sleep 0.05; done; exit 0", gate.display());
    let running = sandbox.shell(&script).start();
    running.until_stdout("begun");
    running.signal(Signal::INT);
    // An immediate second signal counts as the same one: `timeout` signals the process and its
    // group.
    running.signal(Signal::INT);
    running.until_stderr("SIGINT: sent the cancel");
    running.until_stderr("has 5s to stop by itself");
    running.until_stdout("got INT");
    std::thread::sleep(std::time::Duration::from_millis(600));
    let began = Instant::now();
    running.signal(Signal::TERM);
    let done = running.wait().exits(130).says("relay exited before the end");
    assert!(began.elapsed().as_secs() < 3, "it did not exit immediately");
    assert_eq!(*done.result("/decided_by"), json!("relay"));
    std::fs::write(gate, "").unwrap();
}

// clause: CTL-5
#[test]
fn a_tool_that_outstays_its_grace_is_signalled_once_more() {
    let sandbox = sandbox();
    let script = "trap 'n=$((n+1)); echo TERM $n; [ $n = 1 ] || exit 0' TERM; echo begun; while :; do sleep 0.05; done";
    let running = sandbox.deploy("test/quick").param("script", script).start();
    running.until_stdout("begun");
    running.signal(Signal::INT);
    assert_eq!(running.wait().exits(130).out(), "begun\nTERM 1\nTERM 2\n");
}

#[test]
fn a_tool_that_does_not_listen_is_killed_after_the_grace() {
    let sandbox = sandbox();
    let running = sandbox
        .deploy("test/quick")
        .param("script", "trap '' TERM INT; echo begun; while :; do sleep 0.05; done")
        .start();
    running.until_stdout("begun");
    running.signal(Signal::INT);
    let done = running.wait().exits(130);
    assert_eq!(*done.result("/reason"), json!("cancelled"));
}

// clause: RUN-13
#[test]
fn time_outs_of_either_side_are_124() {
    let sandbox = sandbox();
    // The target's timeout: TERM, a second of grace, KILL.
    let done = sandbox
        .deploy("test/quick")
        .param("script", "trap 'echo got TERM; exit 0' TERM; echo begun; while :; do sleep 0.05; done")
        .run()
        .exits(124);
    assert_eq!((done.out().as_str(), done.result("/reason")), ("begun\ngot TERM\n", &json!("timed_out")));
    let done = sandbox
        .deploy("test/quick")
        .param("script", "trap '' TERM; echo begun; while :; do sleep 0.05; done; echo never")
        .run()
        .exits(124);
    assert_eq!(done.out(), "begun\n");
    // The timeout of the command.
    let done = sandbox.shell(PATIENT).args(&["--timeout", "2s"]).run().exits(124);
    assert_eq!(done.out(), "begun\ngot INT\nreleased the lock\n");
    // A timeout that is never reached changes nothing.
    sandbox.shell("exit 5").args(&["--timeout", "10m"]).run().exits(5);
}

// clause: RUN-11
#[test]
fn steps_run_in_order_in_one_directory_and_the_first_failure_ends_them() {
    let sandbox = sandbox();
    let done = sandbox.deploy("test/steps").run().exits(3);
    let out = done.out();
    let lines: Vec<&str> = out.lines().collect();
    let [first, second, one, and_one, two] = lines.as_slice() else { panic!("{out}") };
    // The directory is empty at first, and all steps share it.
    assert_eq!((first, *one, *and_one, *two), (second, "1", "1", "2"));
    assert!(first.contains(&done.id()), "{first}");
    assert_eq!(*done.result("/step"), json!("three"));
    // It is removed after the last frame.
    eventually("the work directory is gone", || (!std::path::Path::new(first).exists()).then_some(()));
    assert!(done.err().contains("relay step 1/4 one") && !done.err().contains("four"), "{}", done.err());
}

// clause: RUN-11
#[test]
fn rollback_runs_after_a_failure_and_never_changes_the_code() {
    let sandbox = sandbox();
    let deploy = |code: &str| sandbox.deploy("test/rollback").param("code", code).run();
    // After either success code of the step, the next step runs. The last step's code is the
    // deployment's.
    assert_eq!(deploy("0").exits(0).out(), "two\n");
    assert_eq!(deploy("2").exits(0).out(), "two\n");
    // Any other code ends the steps. A failure of the rollback ends the rollback, and is reported.
    let done = deploy("7").exits(7).says("the rollback step `undo` failed with exit code 9");
    assert_eq!(
        (done.out().as_str(), done.result("/step"), done.result("/decided_by")),
        ("undone\n", &json!("one"), &json!("tool"))
    );
}

// clause: RUN-10
#[test]
fn merged_output_comes_in_the_order_in_which_it_was_written() {
    let script = "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; exit 6";
    let done = sandbox().deploy("test/merged").param("script", script).run().exits(6);
    let expected: String = (0..2_000).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert!(done.out() == expected, "{} bytes came instead of {}", done.stdout.len(), expected.len());
    assert_eq!(done.tool_err(), b"");
}

#[test]
fn the_environment_is_what_the_configuration_says() {
    let sandbox = sandbox();
    let names = |out: &str| -> std::collections::BTreeMap<String, String> {
        out.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    };
    let done = sandbox.deploy("test/clean").param("script", "exec env").env("STRANGE", "1").run().exits(0);
    let seen = names(&done.out());
    // The shell itself sets `PWD`, `OLDPWD`, `SHLVL` and `_`.
    let own = ["PWD", "OLDPWD", "SHLVL", "_"];
    let keys: Vec<&str> = seen.keys().map(String::as_str).filter(|name| !own.contains(name)).collect();
    assert_eq!(
        keys,
        [
            "HOME",
            "NAME",
            "PATH",
            "RELAY_DEPLOYMENT_ID",
            "RELAY_OUTPUT",
            "RELAY_PARAM_SCRIPT",
            "RELAY_REQUESTERS",
            "RELAY_TARGET",
            "TMPDIR"
        ]
    );
    assert_eq!((seen["NAME"].as_str(), seen["HOME"].as_str()), ("a value", "/nowhere"));
    assert_eq!((seen["RELAY_TARGET"].as_str(), seen["RELAY_PARAM_SCRIPT"].as_str()), ("test/clean", "exec env"));
    assert_eq!(seen["RELAY_DEPLOYMENT_ID"], done.id());
    assert_eq!(seen["RELAY_REQUESTERS"], "sandbox-ci");

    // With a role, the tool sees where to fetch that role's credentials, with the token masked. It
    // does not see where the runner fetches its own.
    let done = sandbox.deploy("test/role").param("script", "env | grep ^AWS_ | sort").run().exits(0);
    let seen = names(&done.out());
    let keys: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(keys, ["AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]);
    assert_eq!(seen["AWS_CONTAINER_AUTHORIZATION_TOKEN"], "***");
    let endpoint = &seen["AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    assert!(!endpoint.starts_with(sandbox.variable("AWS_ENDPOINT_URL")), "{endpoint} is the runner's own");
    let assumed: Vec<_> =
        sandbox.calls("sts", "AssumeRole").into_iter().filter(|entry| entry.text("session") == done.id()).collect();
    assert_eq!(assumed.len(), 1);
    assert_eq!(assumed[0].text("role"), "arn:aws:iam::222222222222:role/relay-deploy/payments");
    assert_eq!(assumed[0].text("sourceIdentity"), done.id());
    let record = relay_protocol::Envelope::parse(done.result("/record").to_string().as_bytes(), 1 << 20).unwrap();
    let record: Value = serde_json::from_slice(record.unverified_payload()).unwrap();
    assert_eq!(record["predicate"]["isolation"], json!("credentials"));
}

#[test]
fn a_grandchild_that_keeps_stdout_open_does_not_hang_the_end() {
    let sandbox = sandbox();
    let pid = sandbox.folder().join("grandchild");
    let script = format!("sleep 300 & echo $! > {}; echo parent done", pid.display());
    let began = Instant::now();
    let done = sandbox.shell(&script).run().exits(0).says("kept its output open");
    assert_eq!(done.out(), "parent done\n");
    assert!(began.elapsed().as_secs() < 30);
    // It ended together with its step.
    let pid = std::fs::read_to_string(pid).unwrap().trim().to_owned();
    eventually("the grandchild is gone", || (!std::path::Path::new("/proc").join(&pid).exists()).then_some(()));
}

#[test]
fn an_artifact_comes_as_it_was_sent() {
    let sandbox = sandbox();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("deep")).unwrap();
    std::fs::write(folder.path().join("run.sh"), "cat source/deep/file; ls -l source/tool | cut -c1-10\n").unwrap();
    std::fs::write(folder.path().join("deep/file"), "inside\n").unwrap();
    std::fs::write(folder.path().join("tool"), "").unwrap();
    std::fs::set_permissions(folder.path().join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let deploy = || {
        sandbox
            .deploy("demo/source")
            .args(&["--artifact", &format!("source={}", folder.path().display())])
            .run()
            .exits(0)
    };
    let first = deploy();
    assert_eq!(first.out(), "inside\n-rwxr-xr-x\n");
    let record = |done: &relay_tests::Deployed| -> Value {
        let record = relay_protocol::Envelope::parse(done.result("/record").to_string().as_bytes(), 1 << 20).unwrap();
        serde_json::from_slice(record.unverified_payload()).unwrap()
    };
    let subject = |record: &Value| {
        record["subject"].as_array().unwrap().iter().find(|s| s["name"] == "artifact/source").cloned().unwrap()
    };
    let digest = record(&first)["predicate"]["parameters"]["source"].clone();
    assert_eq!(subject(&record(&first))["digest"]["sha256"], digest);
    // The same folder makes the same artifact, which is not uploaded again.
    let again = deploy();
    assert_eq!(record(&again)["predicate"]["parameters"]["source"], digest);
    let uploads = sandbox
        .calls("s3", "PutObject")
        .into_iter()
        .filter(|entry| entry.text("key").contains(digest.as_str().unwrap()));
    assert_eq!(uploads.count(), 1);
}
