//! Every deployment leaves the truth: a runner's record that its tool cannot suppress, a launcher's
//! record where no runner could write one, and evidence that anybody can check offline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_protocol::claim::Holder;
use relay_protocol::record::{Deployment, LauncherOutcome, Record, Unfinished};
use relay_protocol::{Envelope, Reason, Statement as _};
use relay_tests::kit::sandbox::command;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Asking, Options, Sandbox, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default())
}

/// A rule under which a call fails with access denied.
fn denied(service: &str, operation: &str, more: &str) -> String {
    format!(
        "[[rule]]\nservice = \"{service}\"\noperation = \"{operation}\"\nkind = \"error\"\ncode = \"AccessDeniedException\"\n{more}\n"
    )
}

/// The runner's record in the evidence, verified by the target key.
fn runner_record(sandbox: &Sandbox, id: &str) -> Option<Record<Deployment>> {
    let bytes = sandbox.evidence(id, "runner/record.json")?;
    let envelope = Envelope::parse(&bytes, 1 << 20).expect("an envelope");
    let verified = sandbox.target_key().verify::<Record<Deployment>>(&envelope).expect("the target key signed it");
    Some(verified.statement().clone())
}

/// The launcher's record in the evidence, verified by the answer key.
fn launcher_record(sandbox: &Sandbox, id: &str) -> Option<Record<Unfinished>> {
    let bytes = sandbox.evidence(id, "launcher/record.json")?;
    let envelope = Envelope::parse(&bytes, 1 << 20).expect("an envelope");
    let verified = sandbox.answer_key().verify::<Record<Unfinished>>(&envelope).expect("the answer key signed it");
    Some(verified.statement().clone())
}

// clause: FRM-14, REC-4, FRM-20
/// Control characters grow sixfold in JSON, and again in the record's base64. A deep tree
/// overflowed the stack of whoever removed it recursively.
#[test]
fn what_a_tool_returns_and_leaves_behind_cannot_erase_the_record() {
    let sandbox = sandbox();
    let controls = r#"perl -e 'print "a=", "\x01" x 18000, "\n"' >> $RELAY_OUTPUT"#;
    let deep = r#"perl -e 'for (1..15000) { mkdir "d"; chdir "d" or die }'"#;
    let many = r#"perl -e 'print "n$_=", "x" x 100, "\n" for 1..400' >> $RELAY_OUTPUT"#;
    let argument = format!(": {}", "\\\"é".repeat(4_000));
    for (script, code) in [(controls, 0), (deep, 0), (many, 0), (argument.as_str(), 0)] {
        let what: String = script.chars().take(60).collect();
        let done = sandbox.shell(&format!("{script}; exit {code}")).args(&["--require-record"]).run().exits(code);
        assert_eq!(*done.result("/record_problem"), Value::Null, "{what}: {}", done.err());
        let record = runner_record(&sandbox, &done.id()).unwrap_or_else(|| panic!("{what}: no record"));
        let outcome = serde_json::to_value(&record.predicate.outcome).unwrap();
        assert_eq!(outcome, json!({ "exited": { "code": code } }), "{what}");
        let task = sandbox.tasks_of(&done.id()).remove(0);
        let task = sandbox.task_when(task.arn(), "STOPPED");
        assert_eq!(task.exit_code(), Some(0), "{what}: {}", task.log());
    }
    // What a tool leaves behind is removed, however deep it is.
    let left: Vec<PathBuf> = walk(&sandbox.folder().join("state")).filter(|path| path.ends_with("d/d/d")).collect();
    assert_eq!(left, [] as [PathBuf; 0]);
}

/// The folders below `root`, three levels deep.
fn walk(root: &Path) -> impl Iterator<Item = PathBuf> {
    let mut found = vec![root.to_owned()];
    for level in 0..6 {
        let known = found.clone();
        for folder in known.iter().filter(|path| path.components().count() == root.components().count() + level) {
            found.extend(std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found.into_iter()
}

// clause: REC-4, FRM-20
#[test]
fn a_record_that_is_missing_is_told_and_can_be_required() {
    let sandbox = Sandbox::start(Options::default().set("task_events=true"));
    let runner = "by = \"relay-demo-shell\"";
    // The first signature is the vouch's.
    let sign = |more: &str| denied("kms", "Sign", &format!("{runner}\nafter = 1\n{more}"));
    let put = |more: &str| denied("s3", "PutObject", &format!("{runner}\nmatch = \"runner/record.json\"\n{more}"));
    for rule in [sign("count = 1"), put("count = 2")] {
        sandbox.set_faults(&rule);
        let done = sandbox.shell("exit 3").args(&["--require-record"]).run().exits(3);
        assert_eq!(*done.result("/record_problem"), Value::Null, "a fault that passes is waited for");
        assert!(runner_record(&sandbox, &done.id()).is_some());
    }
    for (rule, words) in [(sign(""), "the record is not signed"), (put(""), "not in the evidence bucket")] {
        sandbox.set_faults(&rule);
        let done = sandbox.shell("exit 3").run().exits(3).says("not proved").says(words);
        assert!(done.result("/record_problem").as_str().is_some_and(|problem| problem.contains(words)));
        sandbox.set_faults(&rule);
        let done = sandbox.shell("exit 3").args(&["--require-record"]).run().exits(123).says(words);
        assert_eq!(*done.result("/exit_code"), json!(123));
        // The launcher sees a task that stopped without a record.
        sandbox.set_faults("");
        let id = done.id();
        let record = eventually("the launcher's record", || launcher_record(&sandbox, &id)).predicate;
        assert_eq!((record.outcome, record.reason), (LauncherOutcome::Lost, Reason::Lost));
        assert_eq!(record.exit_code, Some(3));
    }
}

// clause: REC-5, REC-1, EVD-2
#[test]
fn the_launcher_leaves_a_record_of_what_no_runner_can() {
    let sandbox = Sandbox::start(Options::default().set("task_events=true").set("function_timeout_ms=12000").target(
        "test/forbidden",
        target("test/forbidden", &Head { policy: "forbid(principal, action, resource);", ..Head::default() }, SHELL),
    ));
    let recorded = |id: &str| eventually("the launcher's record", || launcher_record(&sandbox, id));
    let agrees = |id: &str, outcome, reason| {
        let record = recorded(id);
        assert_eq!((record.predicate.outcome, record.predicate.reason), (outcome, reason), "{record:?}");
        assert_eq!(record.predicate.deployment_id.as_str(), id);
        let request = sandbox.evidence(id, "request.json").expect("the request");
        assert_eq!(record.subject("request.json"), Some(relay_protocol::Digest::of(&request)));
        assert!(sandbox.evidence(id, "launcher/record.sigstore.json").is_some());
        assert!(sandbox.evidence(id, "runner/record.json").is_none());
    };
    let done = sandbox.deploy("test/forbidden").param("script", "true").run().exits(120);
    agrees(&done.id(), LauncherOutcome::Refused, Reason::Policy);

    sandbox.set_faults("[[rule]]\nservice = \"ecs\"\noperation = \"RunTask\"\nkind = \"image-pull\"\n");
    let done = sandbox.shell("true").run().exits(121);
    agrees(&done.id(), LauncherOutcome::NeverStarted, Reason::ImagePull);
    sandbox.set_faults("");

    // The runner dies by itself, and somebody stops the next one for good.
    let wait = "echo begun; while :; do sleep 0.1; done";
    let running = sandbox.shell(wait).args(&["--drain-timeout", "2s"]).start();
    running.until_stdout("begun");
    let id = running.id();
    kill_process(sandbox.tasks_of(&id).remove(0).pid().unwrap(), Signal::KILL).unwrap();
    running.wait().exits(122);
    agrees(&id, LauncherOutcome::Lost, Reason::Lost);

    sandbox.set_faults(
        "[[rule]]\nservice = \"ecs\"\noperation = \"RunTask\"\nkind = \"out-of-memory\"\ndelay_ms = [1500, 1500]\n",
    );
    let running = sandbox.shell(wait).args(&["--drain-timeout", "2s"]).run().exits(122);
    agrees(&running.id(), LauncherOutcome::Killed, Reason::OutOfMemory);
    sandbox.set_faults("");

    // Whoever cannot sign, or takes an id that is another's, leaves nothing of this kind.
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    asking
        .publish_as(
            &relay_tests::kit::asking::bundle(Envelope::new(
                relay_protocol::Request::TYPE,
                asking.request.to_payload(),
            )),
            &asking.hints(),
        )
        .unwrap();
    assert_eq!(asking.end().kind(), "unverified");
    assert_eq!(sandbox.operator().keys(&sandbox.evidence_bucket(), asking.evidence().folder()), [] as [String; 0]);
}

// clause: LAU-12, EVD-3
/// The answer of the record's write may be lost, and a delivery repeated: one record stands.
#[test]
fn one_record_stands_whatever_is_repeated() {
    let sandbox = Sandbox::start(Options::default().target(
        "test/forbidden",
        target("test/forbidden", &Head { policy: "forbid(principal, action, resource);", ..Head::default() }, SHELL),
    ));
    sandbox.set_faults(
        "[[rule]]\nservice = \"lambda\"\noperation = \"Invoke\"\nkind = \"duplicate\"\n\
         [[rule]]\nservice = \"s3\"\noperation = \"PutObject\"\nmatch = \"launcher/record.json\"\nkind = \"timeout-after\"\ncount = 1\n",
    );
    let done = sandbox.deploy("test/forbidden").param("script", "true").run().exits(120);
    sandbox.launcher_idle();
    let record = sandbox.evidence(&done.id(), "launcher/record.json").unwrap();
    let bundle: Value =
        serde_json::from_slice(&sandbox.evidence(&done.id(), "launcher/record.sigstore.json").unwrap()).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(bundle["dsseEnvelope"]["signatures"][0]["sig"], record["signatures"][0]["sig"]);
    let claim = sandbox.claim(&done.id()).unwrap();
    let claim = relay_protocol::claim::Claim::parse(claim.to_string().as_bytes()).unwrap();
    assert!(matches!(claim.holder, Holder::Launcher { .. }));
}

// clause: EVD-1
#[test]
fn launcher_and_runners_each_write_what_is_theirs_and_nobody_writes_twice() {
    let sandbox = sandbox();
    let done = sandbox.shell("true").run().exits(0);
    let id = done.id();
    sandbox.task_when(sandbox.tasks_of(&id)[0].arn(), "STOPPED");
    let folder = sandbox.operator().keys(&sandbox.evidence_bucket(), "deployments/demo/shell/");
    let written: Vec<_> = sandbox
        .calls("s3", "PutObject")
        .into_iter()
        .filter(|put| put.text("bucket") == sandbox.evidence_bucket())
        .collect();
    for put in &written {
        let launcher = put.principal.contains("relay-launcher");
        let key = put.text("key");
        let theirs = key.contains("/runner/") || key.ends_with("/claim");
        assert_eq!(launcher, !theirs, "{key} by {}", put.principal);
        assert!(!put.text("if_none_match").is_empty(), "{key} can be overwritten: {put:?}");
    }
    assert!(folder.iter().all(|key| key.contains(&id)) && folder.len() >= 6, "{folder:?}");
}

fn verify(sandbox: &Sandbox, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("relay.toml"), sandbox.pins("demo/shell")).unwrap();
    let output = command("relay").arg("verify").args(arguments).current_dir(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

// clause: EVD-4, REC-2, REC-6, REC-7
#[test]
#[allow(clippy::too_many_lines, reason = "one deployment, looked at in every way")]
fn verify_accepts_a_whole_deployment_and_finds_every_changed_byte() {
    let sandbox = sandbox();
    let done = sandbox.shell("seq 5000; echo oops >&2; echo url=x >> $RELAY_OUTPUT; exit 3").run().exits(3);
    let id = done.id();
    let end = eventually("the last object", || {
        let keys = sandbox.operator().keys(&sandbox.evidence_bucket(), "deployments/demo/shell/");
        let has = |name: &str| keys.iter().any(|key| key.contains(&id) && key.ends_with(name));
        let stopped = sandbox.tasks_of(&id).iter().all(|task| task.status() == "STOPPED");
        (stopped && has("runner/record.json") && has("runner/000000.jsonl")).then_some(keys)
    });
    assert!(!end.is_empty());
    let copy = sandbox.evidence_folder(&id);
    let folder = copy.path().to_str().unwrap().to_owned();
    let (code, words) = verify(&sandbox, &[&folder]);
    assert_eq!(code, 0, "{words}");
    for line in [
        "record: signed by the pinned target key",
        "request: is the one of the record",
        "signed by sandbox-ci",
        "configuration: is the one",
        "claim: fits: it is held by the task",
        "transcript: whole: ",
        "the tool exited with 3",
        "vsa.json: the launcher found at",
        "from which image: ECS reported none; on FARGATE",
    ] {
        assert!(words.contains(line), "{line}: {words}");
    }
    assert_eq!(words.lines().filter(|line| line.starts_with("proved")).count(), 6, "{words}");

    // A bare key proves the signature, and not the target.
    let key = sandbox.variable("RELAY_TARGET_PUBLIC_KEY");
    let (code, words) = verify(&sandbox, &[&folder, "--key", key]);
    assert!(code == 0 && words.contains("a bare key does not prove"), "{words}");
    let (code, words) = verify(&sandbox, &[&folder, "--key", sandbox.variable("RELAY_ANSWER_PUBLIC_KEY")]);
    assert!(code == 1 && words.contains("NOT PROVED  record: "), "{words}");

    // Each byte of each object counts. A sample of them is changed, one at a time.
    let files: Vec<PathBuf> = [
        "runner/record.json",
        "runner/record.sigstore.json",
        "request.json",
        "runner/000000.jsonl",
        "launcher/vsa.json",
    ]
    .iter()
    .map(|name| copy.path().join(name))
    .chain(std::fs::read_dir(copy.path().join("configuration")).unwrap().map(|entry| entry.unwrap().path()))
    .collect();
    for file in files {
        let good = std::fs::read(&file).unwrap();
        // White space, the names of optional members and the hint `keyid` are not signed: in the
        // frames, the values are changed.
        let text = String::from_utf8(good.clone()).unwrap();
        let values = ["\"sig\":\"", "\"vouch\":\"", "\"body\":\""].into_iter();
        let values = values.flat_map(|name| text.match_indices(name).map(|(at, found)| at + found.len() + 12));
        let hints = text.match_indices("\"keyid\":\"").map(|(at, found)| at..at + found.len() + 65);
        let hints: Vec<_> = hints.collect();
        let is_hint = |at: usize| hints.iter().any(|hint| hint.contains(&at));
        let places: Vec<usize> = match file.extension().is_some_and(|extension| extension == "jsonl") {
            true => values.collect(),
            false => (1..12).map(|part| good.len() * part / 12).filter(|at| !is_hint(*at)).collect(),
        };
        for at in places {
            let mut bad = good.clone();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            std::fs::write(&file, &bad).unwrap();
            let (code, words) = verify(&sandbox, &[&folder]);
            let says_so = code == 119 || words.contains("NOT PROVED");
            assert!(code != 0 && says_so, "{} at {at}: {code} {words}", file.display());
        }
        std::fs::write(&file, &good).unwrap();
    }
    // A claim is not signed, but it must fit.
    let claim = std::fs::read_to_string(copy.path().join("claim")).unwrap();
    for (from, to) in [("task/relay/", "task/relay/x"), ("\"request_digest\":\"", "\"request_digest\":\"00")] {
        assert!(claim.contains(from), "{claim}");
        std::fs::write(copy.path().join("claim"), claim.replace(from, to)).unwrap();
        assert_eq!(verify(&sandbox, &[&folder]).0, 1);
    }
    std::fs::write(copy.path().join("claim"), claim).unwrap();
    // What is missing is said, and so is what was cut off.
    let frames = copy.path().join("runner/000000.jsonl");
    let good = std::fs::read_to_string(&frames).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    std::fs::write(&frames, lines[..lines.len() - 1].join("\n")).unwrap();
    let (code, words) = verify(&sandbox, &[&folder]);
    assert!(code == 1 && words.contains("does not have the deployment's end"), "{words}");
    std::fs::remove_file(&frames).unwrap();
    let (code, words) = verify(&sandbox, &[&folder]);
    assert!(code == 0 && words.contains("open        transcript: not given"), "{words}");
    assert_eq!(verify(&sandbox, &["/nowhere"]).0, 119);
    assert_eq!(verify(&sandbox, &[copy.path().join("runner").to_str().unwrap()]).0, 119);
}

#[test]
fn inspect_with_a_key_fails_unless_that_key_has_signed() {
    let sandbox = sandbox();
    let done = sandbox.shell("true").run().exits(0);
    let file = sandbox.folder().join("record.json");
    std::fs::write(&file, done.result("/record").to_string()).unwrap();
    let inspect = |keys: &[&str]| {
        let keys = keys.iter().flat_map(|key| ["--key", key]);
        let output = command("relay").arg("inspect").arg(&file).args(keys).output().unwrap();
        output.status.code().unwrap()
    };
    let (target, answer) = (sandbox.variable("RELAY_TARGET_PUBLIC_KEY"), sandbox.variable("RELAY_ANSWER_PUBLIC_KEY"));
    assert_eq!(inspect(&[target]), 0);
    assert_eq!(inspect(&[answer, target]), 0);
    assert_eq!(inspect(&[answer]), 1);
    assert_eq!(inspect(&[]), 0, "without a key nothing is claimed");
    let mut forged = done.result("/record").clone();
    forged["payload"] = json!(relay_protocol::encoding::base64(b"{\"_type\":\"x\"}"));
    std::fs::write(&file, forged.to_string()).unwrap();
    assert_eq!(inspect(&[target]), 1);
}

/// A runner's log is for machines: every line is JSON, in which no name stands twice.
#[test]
fn each_line_of_the_logs_is_json_without_a_doubled_name() {
    let sandbox = sandbox();
    let done = sandbox.shell("true").run().exits(0);
    let task = sandbox.tasks_of(&done.id()).remove(0);
    let task = sandbox.task_when(task.arn(), "STOPPED");
    let log = task.log() + &sandbox.launcher_log();
    let mut lines = 0;
    for line in log.lines().filter(|line| line.starts_with('{')) {
        relay_protocol::encoding::strict_json(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
        lines += 1;
    }
    assert!(lines == 3 && log.contains("\"target\":\"demo/shell\""), "{log}");
}

// clause: SIG-8, EVD-5, REC-2
/// Offline, the token on the request is judged by the keys in the evidence.
#[test]
fn verify_judges_tokens_and_says_who_asked() {
    let sandbox = sandbox();
    let done = sandbox.shell("echo x").without("RELAY_SIGNING_KEY").args(&["--key", "oidc"]).run().exits(0);
    let folder = sandbox.evidence_folder(&done.id());
    let path = folder.path().to_str().unwrap();
    let (code, said) = verify(&sandbox, &[path]);
    assert_eq!(code, 0, "{said}");
    for words in [
        "says        who asked: sandbox-github, by an identity token of https://localhost:",
        "sub repo:octo-org/payments:environment:production, actor octocat",
        "says        who approved: nobody",
        "proved      issuer-keys.json: has the keys",
        "signed by sandbox-github",
        "says        how it ended: the tool exited with 0",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let keys = folder.path().join("issuer-keys.json");
    let text = std::fs::read_to_string(&keys).unwrap();
    let changed = text.replacen("\"x\":\"", "\"x\":\"A", 1).replacen("\"n\":\"", "\"n\":\"x", 1);
    std::fs::write(&keys, changed).unwrap();
    let (code, said) = verify(&sandbox, &[path]);
    assert!(code == 1 && said.contains("NOT PROVED  issuer-keys.json: is not the one of the record"), "{said}");
    std::fs::remove_file(&keys).unwrap();
    let (code, said) = verify(&sandbox, &[path]);
    assert!(
        code == 1 && said.contains("issuer-keys.json: not given") && said.contains("NOT PROVED  request"),
        "{said}"
    );
}
