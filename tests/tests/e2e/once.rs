//! However often a request is delivered or replayed, its tool runs at most once. A target with one
//! slot runs one deployment at a time.

use std::path::PathBuf;
use std::sync::Arc;

use relay_protocol::{RequestRef, overrides};
use relay_tests::kit::asking::{self, now};
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Asking, Options, Sandbox, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

fn sandbox() -> Arc<Sandbox> {
    let one = |name: &str| target(name, &Head { concurrency: 1, ..Head::default() }, SHELL);
    let artifact = "\n[parameters]\nsource = { artifact = \"s3://${ARTIFACTS}/test/ordered/\", max = \"1MiB\" }\n\n[[steps]]\nname = \"run\"\nrun = [\"sh\", \"source/run.sh\"]\n";
    let mut options = Options { launchers: 3, ..Options::default() };
    for name in ["test/busy", "test/dead", "test/young", "test/old", "test/freed"] {
        options = options.target(name, one(name));
    }
    Sandbox::start(
        options.target("test/ordered", target("test/ordered", &Head { concurrency: 1, ..Head::default() }, artifact)),
    )
}

/// A file to which the tool adds a line each time it runs.
struct Marker(PathBuf);

impl Marker {
    fn new(sandbox: &Sandbox, name: &str) -> Self {
        Self(sandbox.folder().join(name))
    }

    fn script(&self, rest: &str) -> String {
        format!("echo ran >> {}; {rest}", self.0.display())
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(&self.0).map_or(0, |text| text.lines().count())
    }
}

fn claim(sandbox: &Sandbox, id: &str) -> Option<Value> {
    sandbox.claim(id)
}

/// Counts the successful writes of a claim.
fn claims_written(sandbox: &Sandbox, id: &str) -> usize {
    let key = format!("/{id}/claim");
    sandbox.calls("s3", "PutObject").iter().filter(|entry| entry.ok && entry.text("key").ends_with(&key)).count()
}

// clause: CLM-1, REQ-3, LAU-7
#[test]
fn the_same_request_published_three_times_runs_once() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "thrice");
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script("exit 4"))]);
    asking.publish();
    asking.publish();
    let end = asking.end();
    assert_eq!((end.kind(), end.body["outcome"]["exited"]["code"].as_i64()), ("finished", Some(4)));
    // A later copy gets the same answer.
    asking.publish();
    let admitted = || asking.replies().into_iter().filter(|reply| reply.kind() == "admitted").count();
    eventually("admitted three times", || (admitted() == 3).then_some(()));
    let replies = asking.replies();
    assert!(
        replies.iter().all(|reply| reply.from != "launcher" || (reply.genuine && reply.kind() == "admitted")),
        "{replies:?}"
    );
    assert_eq!(marker.runs(), 1);
    assert_eq!(sandbox.tasks_of(&asking.id()).len(), 1);
    assert_eq!(claims_written(&sandbox, &asking.id()), 1);
    for run in sandbox.run_tasks(&asking.id()) {
        assert_eq!(run.text("clientToken"), asking.id());
    }
}

// clause: LAU-7, LAU-8, CLM-5
/// The same event reaches all launcher processes at the same time, as a concurrent duplicate
/// delivery.
#[test]
fn concurrent_deliveries_run_once() {
    let sandbox = sandbox();
    for round in 0..3 {
        let marker = Marker::new(&sandbox, &format!("concurrent-{round}"));
        let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]);
        let event = asking.event();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| sandbox.invoke(&event));
            }
        });
        assert_eq!(asking.end().kind(), "finished");
        eventually("eight answers", || {
            let answers = asking.replies().into_iter().filter(|reply| reply.from == "launcher").count();
            (answers == 8).then_some(())
        });
        assert!(asking.replies().iter().all(|reply| reply.from != "launcher" || reply.kind() == "admitted"));
        assert_eq!((marker.runs(), sandbox.tasks_of(&asking.id()).len()), (1, 1));
    }
}

// clause: LAU-8, BUN-3
#[test]
fn run_task_says_exactly_what_was_verified() {
    let sandbox = sandbox();
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    // The same statement in another spelling: a false key id, a stranger's second signature, and
    // white space.
    let stranger = asking::new_key();
    let mut odd: Value = serde_json::from_str(&asking::bundle(stranger.sign_envelope(asking.envelope()))).unwrap();
    odd["request"]["signatures"][0]["keyid"] = json!("a false hint");
    odd["request"]["unknown"] = json!("ignored, as DSSE requires");
    asking.publish_as(&format!(" {odd:#}\n"), &asking.hints()).unwrap();
    assert_eq!(asking.end().kind(), "finished");
    let tasks = sandbox.tasks_of(&asking.id());
    let [task] = tasks.as_slice() else { panic!("{} tasks", tasks.len()) };
    let named = RequestRef::of(&asking.request, asking.digest());
    assert_eq!(
        task.0["overrides"]["containerOverrides"],
        json!([{ "name": "runner", "environment": [{ "name": overrides::VARIABLE, "value": named.to_json() }] }])
    );
    let stored = sandbox.evidence(&asking.id(), "request.json").unwrap();
    assert_eq!(String::from_utf8(stored).unwrap(), asking.bundle(), "the evidence has the canonical form");
    let runs = sandbox.run_tasks(&asking.id());
    let (arn, ..) = sandbox.operator().definition("relay_demo_shell");
    assert_eq!(runs.len(), 1);
    assert_eq!((runs[0].text("clientToken"), runs[0].text("taskDefinition")), (asking.id().as_str(), arn.as_str()));
    assert_eq!(task.0["taskDefinitionArn"], json!(arn));
}

// clause: CLM-1, CLM-5
/// A caller with the right to RunTask replays a deployment that has run: another token, the same
/// overrides.
#[test]
fn a_replay_past_the_launcher_loses_the_claim() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "replayed");
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]);
    asking.publish();
    assert_eq!(asking.end().kind(), "finished");
    let (stands, frames) = (claim(&sandbox, &asking.id()).unwrap(), asking.replies().len());
    let arn = sandbox.operator().run_task(&asking.launch()).unwrap();
    let task = sandbox.task_when(&arn, "STOPPED");
    assert_eq!(task.exit_code(), Some(120), "{}", task.log());
    assert!(task.log().contains("replayed"), "{}", task.log());
    assert!(!sandbox.done_by(&task).iter().any(|entry| entry.service == "sqs"), "a loser sends nothing");
    assert_eq!(asking.replies().len(), frames);
    assert_eq!((claim(&sandbox, &asking.id()).unwrap(), claims_written(&sandbox, &asking.id())), (stands, 1));
    assert_eq!(marker.runs(), 1);
}

// clause: CLM-5
/// The replay arrives while the deployment runs, and disturbs nothing.
#[test]
fn a_replay_in_mid_run_disturbs_nothing() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "mid-run");
    let go = sandbox.folder().join("mid-run-go");
    let script = marker.script(&format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo done", go.display()));
    let running = sandbox.shell(&script).start();
    running.until_stdout("begun");
    let id = running.id();
    let first = sandbox.tasks_of(&id).pop().unwrap();
    let overridden =
        first.0["overrides"]["containerOverrides"][0]["environment"][0]["value"].as_str().unwrap().to_owned();
    let launch = relay_tests::kit::account::Launch {
        definition: "relay_demo_shell".into(),
        environment: vec![(overrides::VARIABLE.to_owned(), overridden)],
        ..Default::default()
    };
    let arns: Vec<String> = (0..3).map(|_| sandbox.operator().run_task(&launch).unwrap()).collect();
    for arn in arns {
        let task = sandbox.task_when(&arn, "STOPPED");
        assert_eq!(task.exit_code(), Some(120));
        assert!(!sandbox.done_by(&task).iter().any(|entry| entry.service == "sqs"));
    }
    std::fs::write(go, "").unwrap();
    let done = running.wait().exits(0);
    assert_eq!((done.out().as_str(), marker.runs()), ("begun\ndone\n", 1));
    assert_eq!(*done.result("/task_arn"), json!(first.arn()));
}

// clause: CLM-2
#[test]
fn a_claim_whose_answer_was_lost_is_known_by_its_nonce() {
    let sandbox = Sandbox::start(Options::default());
    let marker = Marker::new(&sandbox, "lost-answer");
    sandbox.set_faults("[[rule]]\nservice = \"s3\"\noperation = \"PutObject\"\nmatch = \"/claim\"\nkind = \"lost-response\"\ncount = 1\n");
    let done = sandbox.shell(&marker.script("exit 6")).run().exits(6);
    let writes = sandbox
        .calls("s3", "PutObject")
        .into_iter()
        .filter(|entry| entry.text("key").ends_with(&format!("/{}/claim", done.id())));
    let writes: Vec<String> = writes.map(|entry| entry.error.unwrap_or_default()).collect();
    assert!(writes.len() >= 2 && writes[1].starts_with("PreconditionFailed"), "{writes:?}");
    assert_eq!(marker.runs(), 1);

    // A claim that cannot be read back decides nothing, and its writer stops.
    sandbox.set_faults(
        "[[rule]]\nservice = \"s3\"\noperation = \"PutObject\"\nmatch = \"/claim\"\nkind = \"lost-response\"\ncount = 1\n\
         [[rule]]\nservice = \"s3\"\noperation = \"GetObject\"\nmatch = \"/claim\"\nkind = \"error\"\n",
    );
    let marker = Marker::new(&sandbox, "unreadable");
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]);
    let arn = sandbox.operator().run_task(&asking.launch()).unwrap();
    let task = sandbox.task_when(&arn, "STOPPED");
    assert_eq!(task.exit_code(), Some(125), "{}", task.log());
    assert!(asking.replies().is_empty());
    assert_eq!(marker.runs(), 0);
}

// clause: REQ-10, RUN-5, LAU-10, CLM-3
#[test]
fn a_request_over_its_end_never_runs() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "late");
    // By topic: the launcher's bound is a minute after the expiry.
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]).moved(-15 * 60 - 100);
    asking.publish();
    let end = asking.end();
    assert_eq!((end.kind(), end.reason(), end.genuine), ("refused", "expired", true));
    assert!(end.message().contains("expired 1m"), "by how much: {}", end.message());
    assert!(sandbox.run_tasks(&asking.id()).is_empty());
    // A refused request stays refused, both by topic and past the launcher.
    asking.publish();
    eventually("a second refusal", || {
        (asking.replies().iter().filter(|reply| reply.reason() == "expired").count() == 2).then_some(())
    });
    let arn = sandbox.operator().run_task(&asking.launch()).unwrap();
    let task = sandbox.task_when(&arn, "STOPPED");
    assert_eq!(task.exit_code(), Some(120), "the launcher's verdict holds the claim: {}", task.log());
    // Past the launcher, and beyond the runner's bound of ten minutes: the runner claims and
    // refuses.
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]).moved(-26 * 60);
    let arn = sandbox.operator().run_task(&asking.launch()).unwrap();
    let end = asking.end();
    assert_eq!((end.kind(), end.from.as_str(), end.reason()), ("finished", "runner", "expired"));
    assert_eq!(sandbox.task_when(&arn, "STOPPED").exit_code(), Some(120));
    assert_eq!(claim(&sandbox, &asking.id()).unwrap()["holder"]["runner"]["task_arn"], json!(arn));
    // Within that bound, it is not a replay but a slow start.
    let slow = Asking::new(&sandbox, "demo/shell", &[("script", "true")]).moved(-20 * 60);
    sandbox.operator().run_task(&slow.launch()).unwrap();
    assert_eq!(slow.end().body["outcome"]["exited"]["code"], json!(0));
    assert_eq!(marker.runs(), 0);
}

// clause: CLM-3, LAU-10
/// A refusal is final, even after the reason for it has passed.
#[test]
fn a_refused_id_stays_refused() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "refused");
    // Two minutes ahead: refused now, and valid in a minute. The claim must outlive that.
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]).moved(120);
    asking.publish();
    assert_eq!(asking.end().reason(), "not_yet_valid");
    let stands = claim(&sandbox, &asking.id()).unwrap();
    assert_eq!(stands["holder"]["launcher"]["reason"], json!("not_yet_valid"));
    // The same claim, on a request that is valid: only the claim can refuse it.
    let good = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]);
    let verdict = json!({ "request_digest": good.digest(), "holder": { "launcher": stands["holder"]["launcher"] } });
    sandbox.operator().put_object(
        &sandbox.evidence_bucket(),
        &good.evidence().claim(),
        verdict.to_string().into_bytes(),
    );
    good.publish();
    let end = good.end();
    assert_eq!((end.kind(), end.reason(), end.message()), ("refused", "not_yet_valid", asking.end().message()));
    let arn = sandbox.operator().run_task(&good.launch()).unwrap();
    assert_eq!(sandbox.task_when(&arn, "STOPPED").exit_code(), Some(120));
    assert!(sandbox.run_tasks(&good.id()).iter().all(|run| run.principal.ends_with("operator")));
    assert_eq!(marker.runs(), 0);
}

// clause: CLM-4, LAU-7
#[test]
fn an_id_belongs_to_one_request() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "two-requests");
    let first = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]);
    first.publish();
    assert_eq!(first.end().kind(), "finished");
    let mut second = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script("echo another"))]);
    second.request.deployment_id = first.request.deployment_id.clone();
    second.request.reply_queue = first.request.reply_queue.clone();
    second.request.control_queue = first.request.control_queue.clone();
    second.publish();
    let refused = eventually("a refusal", || second.replies().into_iter().find(|reply| reply.kind() == "refused"));
    assert_eq!((refused.reason(), refused.genuine), ("id_in_use", true));
    assert_eq!(refused.body["request_digest"], json!(second.digest()));
    // Past the launcher, the runner loses the claim.
    let arn = sandbox.operator().run_task(&second.launch()).unwrap();
    assert_eq!(sandbox.task_when(&arn, "STOPPED").exit_code(), Some(120));
    assert_eq!((marker.runs(), claims_written(&sandbox, &first.id())), (1, 1));
}

// clause: LAU-9
/// The token is bound to a task that neither a claim nor `startedBy` reveals: only ECS's conflict
/// names that task.
#[test]
fn a_conflict_is_judged_by_the_request_in_the_other_task() {
    let sandbox = Sandbox::start(Options::default().set("provisioning_ms=4000"));
    let marker = Marker::new(&sandbox, "conflict");
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", &marker.script(""))]);
    let hidden = relay_tests::kit::account::Launch {
        token: Some(asking.id()),
        started_by: Some("somebody-else".into()),
        ..asking.launch()
    };
    let arn = sandbox.operator().run_task(&hidden).unwrap();
    asking.publish();
    let admitted = asking.reply("admitted");
    assert_eq!(admitted.body["task_arn"], json!(arn), "the same request is admitted again");

    let other = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    let foreign = Asking::new(&sandbox, "demo/shell", &[("script", "false")]);
    let hidden = relay_tests::kit::account::Launch { token: Some(other.id()), started_by: None, ..foreign.launch() };
    sandbox.operator().run_task(&hidden).unwrap();
    other.publish();
    let refused = other.end();
    assert_eq!((refused.kind(), refused.reason()), ("refused", "id_in_use"));
    assert!(claim(&sandbox, &other.id()).is_none(), "the refusal of another request with this id is not claimed");

    let conflicts = sandbox
        .calls("ecs", "RunTask")
        .into_iter()
        .filter(|entry| entry.error.as_deref().is_some_and(|error| error.starts_with("ConflictException")));
    assert_eq!(conflicts.count(), 2, "both requests met the conflict");
    assert_eq!(asking.end().kind(), "finished");
    assert_eq!(marker.runs(), 1);
}

/// A case: its name, the variables that are set, and the command.
type Case = (&'static str, Vec<(String, String)>, Vec<String>);

// clause: RUN-1, RUN-2
#[test]
fn an_override_of_command_or_configuration_runs_nothing() {
    let sandbox = sandbox();
    let marker = Marker::new(&sandbox, "override");
    let script = marker.script("");
    let (_, _, hello) = sandbox.operator().definition("relay_demo_hello");
    let (_, _, shell) = sandbox.operator().definition("relay_demo_shell");
    let variable = |value: String| ("RELAY_CONFIGURATION".to_owned(), value);
    let cases: [Case; 5] = [
        ("a command", vec![], vec!["sh".into(), "-c".into(), script.clone()]),
        ("one more argument", vec![], vec!["--verbose".into()]),
        ("an empty argument", vec![], vec![String::new()]),
        ("one more byte of configuration", vec![variable(format!("{shell}\n"))], vec![]),
        ("the configuration of another target", vec![variable(hello)], vec![]),
    ];
    for (name, environment, command) in cases {
        let asking = Asking::new(&sandbox, "demo/shell", &[("script", &script)]);
        let mut launch = asking.launch();
        launch.environment.extend(environment);
        launch.command = command;
        let arn = sandbox.operator().run_task(&launch).unwrap();
        let task = sandbox.task_when(&arn, "STOPPED");
        assert_eq!(task.exit_code(), Some(120), "{name}: {}", task.log());
        assert!(asking.replies().is_empty(), "{name}: nothing is sent");
        assert!(claim(&sandbox, &asking.id()).is_none(), "{name}: nothing is claimed");
        assert!(
            !sandbox.done_by(&task).iter().any(|entry| entry.service != "credentials" && entry.service != "metadata"),
            "{name}"
        );
    }
    assert_eq!(marker.runs(), 0);
}

// clause: RUN-3
/// Variables that an override can set and that the SDK would read: none changes where the runner
/// connects, or what the tool sees.
#[test]
fn variables_of_an_override_are_not_read() {
    let sandbox = sandbox();
    let nowhere = "http://127.0.0.1:9";
    let names = [
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_SQS",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL_KMS",
        "AWS_ENDPOINT_URL_STS",
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", "env; exit 9")]);
    let mut launch = asking.launch();
    launch.environment.extend(names.map(|name| (name.to_owned(), nowhere.to_owned())));
    for (name, value) in [
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "333333333333"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_PROFILE", "other"),
        ("RELAY_TOPIC_ARN", "x"),
        ("RELAY_BUCKET", "x"),
        ("LD_PRELOAD", ""),
        ("RUST_LOG", "off"),
        ("TMPDIR", "/nowhere"),
        ("STRANGE", "1"),
    ] {
        launch.environment.push((name.to_owned(), value.to_owned()));
    }
    let arn = sandbox.operator().run_task(&launch).unwrap();
    let end = asking.end();
    let log = sandbox.task_when(&arn, "STOPPED").log();
    assert_eq!(end.body["outcome"]["exited"]["code"], json!(9), "{end:?} {log}");
    let output = asking
        .replies()
        .iter()
        .filter(|reply| reply.kind() == "output")
        .map(|reply| reply.body.to_string())
        .collect::<String>();
    assert!(output.contains("RELAY_DEPLOYMENT_ID"), "{output}");
    for stranger in ["127.0.0.1:9", "us-east-1", "333333333333", "STRANGE", "RUST_LOG"] {
        assert!(!output.contains(stranger), "{stranger} reached the tool: {output}");
    }
}

// clause: LCK-1, LCK-3
#[test]
fn one_slot_one_deployment_and_the_second_is_told_who_holds_it() {
    let sandbox = sandbox();
    let lock = || sandbox.operator().get_json(&sandbox.bucket(), "locks/test/busy/0");
    let go = sandbox.folder().join("busy-go");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done", go.display());
    let running = sandbox.deploy("test/busy").param("script", &script).start();
    running.until_stdout("begun");
    assert_eq!(lock().unwrap()["holder"]["deployment_id"], json!(running.id()));
    let second = sandbox.deploy("test/busy").param("script", "echo never").run().exits(120);
    assert_eq!((second.out().as_str(), second.result("/reason")), ("", &json!("busy")));
    let second = second.says(&running.id());
    assert!(sandbox.run_tasks(&second.id()).is_empty(), "the launcher ran a task");
    // Past the launcher, the runner's decision is final and the same.
    let asking = Asking::new(&sandbox, "test/busy", &[("script", "echo never")]);
    let arn = sandbox.operator().run_task(&asking.launch()).unwrap();
    let end = asking.end();
    assert_eq!((end.kind(), end.from.as_str(), end.reason()), ("finished", "runner", "busy"));
    assert!(end.message().contains(&running.id()), "{}", end.message());
    assert_eq!(sandbox.task_when(&arn, "STOPPED").exit_code(), Some(120));
    assert!(!asking.replies().iter().any(|reply| reply.kind() == "step"), "no step began");
    assert_eq!(lock().unwrap()["holder"]["deployment_id"], json!(running.id()), "the holder keeps it");
    std::fs::write(go, "").unwrap();
    running.wait().exits(0);
    assert_eq!(lock(), Some(json!({})), "freed");
    sandbox.deploy("test/busy").param("script", "true").run().exits(0);
}

// clause: LCK-1
#[test]
fn the_lock_is_held_from_before_the_artifacts_to_after_the_steps() {
    let sandbox = sandbox();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run.sh"), "echo ran\n").unwrap();
    let done = sandbox
        .deploy("test/ordered")
        .args(&["--artifact", &format!("source={}", folder.path().display())])
        .run()
        .exits(0);
    assert_eq!(done.out(), "ran\n");
    let task = sandbox.tasks_of(&done.id()).pop().unwrap();
    let steps: Vec<&str> = sandbox
        .done_by(&task)
        .iter()
        .filter(|entry| entry.service == "s3" && entry.ok)
        .filter_map(|entry| match (entry.operation.as_str(), entry.text("key")) {
            ("PutObject", key) if key.ends_with("/claim") => Some("claim"),
            ("PutObject", key) if key.starts_with("locks/") => Some("lock"),
            ("GetObject", key) if key.contains(".tar.zst") => Some("artifact"),
            _ => None,
        })
        .collect();
    assert_eq!(steps, ["claim", "lock", "artifact", "lock"]);
}

// clause: LCK-2
#[test]
fn a_lock_is_taken_over_from_a_dead_task_only() {
    let sandbox = sandbox();
    let put = |target: &str, arn: &str, age: i64| {
        let holder = json!({ "deployment_id": asking::new_id(), "task_arn": arn, "taken_at": now().unix() - age });
        let body = json!({ "holder": holder }).to_string().into_bytes();
        sandbox.operator().put_object(&sandbox.bucket(), &format!("locks/{target}/0"), body);
    };
    // A killed runner leaves its lock behind. ECS reports that its task is STOPPED.
    let asking = Asking::new(&sandbox, "test/dead", &[("script", "sleep 600")]);
    asking.publish();
    asking.reply("step");
    let task = sandbox.tasks_of(&asking.id()).pop().unwrap();
    kill_process(task.pid().unwrap(), Signal::KILL).unwrap();
    sandbox.task_when(task.arn(), "STOPPED");
    let lock = sandbox.operator().get_json(&sandbox.bucket(), "locks/test/dead/0").unwrap();
    assert_eq!(lock["holder"]["deployment_id"], json!(asking.id()));
    sandbox.deploy("test/dead").param("script", "true").run().exits(0);
    // A task that ECS does not know: not known yet if the lock is young, no longer known if it is
    // old.
    let unknown = "arn:aws:ecs:eu-west-1:222222222222:task/relay/0123456789abcdef0123456789abcdef";
    put("test/young", unknown, 60);
    let young = sandbox.deploy("test/young").param("script", "echo never").run().exits(120);
    assert_eq!((young.out().as_str(), young.result("/reason")), ("", &json!("busy")));
    assert!(sandbox.run_tasks(&young.id()).is_empty(), "the launcher ran a task");
    put("test/old", unknown, 601);
    sandbox.deploy("test/old").param("script", "true").run().exits(0);
    // A lock that was released.
    sandbox.operator().put_object(&sandbox.bucket(), "locks/test/freed/0", b"{}".to_vec());
    sandbox.deploy("test/freed").param("script", "true").run().exits(0);
}

// clause: LCK-2
#[test]
fn a_lock_that_cannot_be_read_is_held() {
    let sandbox = sandbox();
    let newer = b"{\"holder\":{\"of\":\"a newer version\"}}";
    sandbox.operator().put_object(&sandbox.bucket(), "locks/test/busy/0", newer.to_vec());
    let done = sandbox.deploy("test/busy").param("script", "echo never").run().exits(120).says("cannot be read");
    assert_eq!((done.out().as_str(), done.result("/reason")), ("", &json!("busy")));
    assert!(sandbox.run_tasks(&done.id()).is_empty());
    // The runner decides the same where no launcher has checked.
    let asking = Asking::new(&sandbox, "test/busy", &[("script", "echo never")]);
    sandbox.operator().run_task(&asking.launch()).unwrap();
    let end = asking.end();
    assert_eq!((end.kind(), end.reason()), ("finished", "busy"));
    assert!(end.message().contains("locks/test/busy/0"), "{}", end.message());
    let stands = sandbox.operator().get_json(&sandbox.bucket(), "locks/test/busy/0");
    assert_eq!(stands, serde_json::from_slice(newer).ok(), "it is not overwritten");
}
