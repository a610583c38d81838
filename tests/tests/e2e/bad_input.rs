//! Bad input is refused, by the program that must refuse it and with a helpful message, and nothing
//! runs.

use std::sync::Arc;

use relay_protocol::frame::FrameSource;
use relay_protocol::request::Hints;
use relay_protocol::{Approval, Digest, Envelope, Reason, Request, Statement as _};
use relay_tests::kit::account::{Account, Launch};
use relay_tests::kit::asking::{bundle, new_id, new_key};
use relay_tests::kit::targets::{Head, SHELL, runner_role, target};
use relay_tests::{Asking, Deployed, Options, Sandbox, eventually};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

const PERMIT: &str = r#"permit(principal in Group::"sandbox", action, resource);"#;

fn sandbox() -> Arc<Sandbox> {
    let with = |name: &str, policy: &'static str| target(name, &Head { policy, ..Head::default() }, SHELL);
    let tool = |name: &str, program: &str| {
        target(name, &Head::default(), &format!("\n[[steps]]\nname = \"tool\"\nrun = [\"{program}\"]\n"))
    };
    let small = "\n[parameters]\nsource = { artifact = \"s3://${ARTIFACTS}/test/small/\", max = \"1KiB\" }\n\n[[steps]]\nname = \"run\"\nrun = [\"sh\", \"source/run.sh\"]\n";
    Sandbox::start(Options::default()
            .target("test/others", with("test/others", r#"permit(principal in Group::"others", action, resource);"#))
            .target("test/forbidden", with("test/forbidden", "permit(principal, action, resource); forbid(principal, action, resource) when { context.parameters.script == \"no\" };"))
            .target("test/erring", with("test/erring", "permit(principal, action, resource); forbid(principal, action, resource) when { context.parameters.script == \"no\" && 9223372036854775807 + context.approvals + 1 > 0 };"))
            .target("test/approved", with("test/approved", "permit(principal, action, resource) when { context.approvals >= 1 };"))
            .target("test/frozen", with("test/frozen", PERMIT).replace("concurrency = 64", "concurrency = 64\nfrozen = true"))
            .target("test/no-tool", tool("test/no-tool", "no-such-tool-anywhere"))
            .target("test/not-executable", tool("test/not-executable", "/etc/passwd"))
            .target("test/small", target("test/small", &Head::default(), small)))
}

fn claim(sandbox: &Sandbox, id: &str) -> Option<Value> {
    sandbox.claim(id)
}

/// Asserts a refusal by launcher or runner, with exit code 120, these words and a hint, and that no
/// task ran.
#[track_caller]
fn refused(sandbox: &Sandbox, done: Deployed, reason: Reason, words: &str) -> Deployed {
    let done = done.exits(120).says(words).says("hint: ");
    assert_eq!(done.out(), "");
    assert_eq!((done.result("/reason"), done.result("/decided_by")), (&json!(reason), &json!("relay")));
    assert!(sandbox.run_tasks(&done.id()).is_empty(), "a task was run: {}", done.err());
    done
}

/// Runs a task that must refuse by itself: without a frame, without a claim, and without any call
/// except for its own identity and its request.
#[track_caller]
fn refuses_in_silence(sandbox: &Sandbox, name: &str, asking: &Asking, launch: &Launch) {
    let arn = sandbox.operator().run_task(launch).unwrap();
    let task = sandbox.task_when(&arn, "STOPPED");
    assert_eq!(task.exit_code(), Some(120), "{name}: {}", task.log());
    assert!(task.log().contains("nothing was run"), "{name}: {}", task.log());
    assert!(asking.replies().is_empty(), "{name}: a frame was sent");
    assert!(claim(sandbox, &asking.id()).is_none(), "{name}: a claim was made");
    let harmless = ["credentials", "metadata", "sts"];
    let done = sandbox.done_by(&task);
    let reads = |entry: &relay_tests::kit::sandbox::Entry| {
        entry.operation == "GetObject" && entry.text("key").ends_with("/request.json")
    };
    let is_harmless =
        |entry: &relay_tests::kit::sandbox::Entry| harmless.contains(&entry.service.as_str()) || reads(entry);
    assert!(done.iter().all(is_harmless), "{name}: {done:?}");
}

/// A bundle with the payload's text changed and signed again.
fn signed(asking: &Asking, change: impl FnOnce(String) -> String) -> String {
    let payload = String::from_utf8(asking.request.to_payload()).unwrap();
    bundle(asking.key.sign_envelope(Envelope::new(Request::TYPE, change(payload).into_bytes())))
}

type Row = (&'static str, fn(&Asking) -> String);

/// Bodies that cannot be verified, each made from a valid request.
const UNVERIFIED: [Row; 17] = [
    ("unsigned", |a| bundle(Envelope::new(Request::TYPE, a.request.to_payload()))),
    ("a stranger's key", |a| bundle(new_key().sign_envelope(Envelope::new(Request::TYPE, a.request.to_payload())))),
    ("many strangers' keys", |a| {
        bundle((0..8).fold(Envelope::new(Request::TYPE, a.request.to_payload()), |e, _| new_key().sign_envelope(e)))
    }),
    ("a signature over other bytes", |a| {
        let mut other = a.request.clone();
        other.parameters.insert("script".parse().unwrap(), "true".into());
        let signature = a.envelope().signatures()[0].clone();
        bundle(Envelope::new(Request::TYPE, other.to_payload()).with_signature(signature))
    }),
    ("a signature of half its length", |a| {
        let mut body: Value = serde_json::from_str(&a.bundle()).unwrap();
        let sig = body["request"]["signatures"][0]["sig"].as_str().unwrap()[..44].to_owned();
        body["request"]["signatures"][0]["sig"] = json!(sig);
        body.to_string()
    }),
    ("a payload of another type", |a| {
        bundle(a.key.sign_envelope(Envelope::new(Approval::TYPE, a.request.to_payload())))
    }),
    ("a type that was changed after the signature", |a| a.bundle().replace("request.v1", "request.v2")),
    ("an unknown member", |a| signed(a, |p| p.replacen('{', r#"{"command":["sh"],"#, 1))),
    ("a duplicate member", |a| signed(a, |p| p.replacen('{', r#"{"target":"demo/hello","#, 1))),
    ("a duplicate parameter", |a| signed(a, |p| p.replacen(r#""script":"#, r#""script":"true","script":"#, 1))),
    ("bytes after the payload", |a| signed(a, |p| p + " {}")),
    ("an array instead of the object", |a| signed(a, |p| format!("[{p}]"))),
    ("deep nesting in the payload", |a| signed(a, |_| "[".repeat(4_000) + &"]".repeat(4_000))),
    ("deep nesting in the body", |_| "[".repeat(16_000)),
    ("bytes after the body", |a| a.bundle() + "{}"),
    ("not JSON", |_| "please deploy".to_owned()),
    ("200 KiB of JSON", |a| a.bundle().replacen('{', &format!("{{\"x\":\"{}\",", "a".repeat(200 << 10)), 1)),
];

// clause: ENV-5, ENV-7, ENV-8, LAU-3, LAU-5, LAU-6
/// Whatever is wrong, the launcher sends the same single answer, to the queue that the hints name,
/// and does nothing else.
#[test]
fn what_cannot_be_verified_is_told_so_and_no_more() {
    let sandbox = sandbox();
    let marker = sandbox.folder().join("unverified");
    let script = format!("echo ran >> {}", marker.display());
    for (name, body) in UNVERIFIED {
        let asking = Asking::new(&sandbox, "demo/shell", &[("script", &script)]);
        let body = body(&asking);
        asking.publish_as(&body, &asking.hints()).unwrap();
        is_unverified(&sandbox, name, &asking, &body, &asking.hints());
        // The runner reaches the same verdict by itself.
        if body.len() < 6_000 {
            let launch = asking.launch_of(&body, asking.digest());
            let before = asking.replies().len();
            let arn = sandbox.operator().run_task(&launch).unwrap();
            let task = sandbox.task_when(&arn, "STOPPED");
            assert_eq!(task.exit_code(), Some(120), "{name}: {}", task.log());
            assert_eq!(asking.replies().len(), before, "{name}: the runner sends nothing");
            assert!(claim(&sandbox, &asking.id()).is_none(), "{name}: the runner claims nothing");
        }
    }
    assert!(!marker.exists());
}

#[track_caller]
fn is_unverified(sandbox: &Sandbox, name: &str, asking: &Asking, body: &str, hints: &Hints) {
    let end = asking.end();
    let expected = json!({
        "deployment_id": hints.deployment_id, "kind": "unverified", "body_sha256": Digest::of(body.as_bytes()),
        "target": hints.target, "ci_account": hints.ci_account,
    });
    assert_eq!((&end.body, end.genuine, end.from.as_str()), (&expected, true, "launcher"), "{name}");
    assert_eq!(asking.replies().len(), 1, "{name}");
    assert!(sandbox.run_tasks(&asking.id()).is_empty(), "{name}: a task was run");
    assert!(claim(sandbox, &asking.id()).is_none(), "{name}: a claim was made");
}

// clause: HNT-2, LAU-2, LAU-5, ENV-8
#[test]
fn hints_that_differ_or_lead_nowhere_are_unverified_too() {
    let sandbox = sandbox();
    let asking = || Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    type Change = fn(&mut Hints);
    let rows: [(&str, Change); 3] = [
        ("another target of the same signer", |hints| hints.target = "demo/hello".parse().unwrap()),
        ("a target that does not exist", |hints| hints.target = "no/such".parse().unwrap()),
        ("a target of another family", |hints| hints.target = "demo/shel".parse().unwrap()),
    ];
    for (name, change) in rows {
        let asking = asking();
        let mut hints = asking.hints();
        change(&mut hints);
        asking.publish_as(&asking.bundle(), &hints).unwrap();
        is_unverified(&sandbox, name, &asking, &asking.bundle(), &hints);
    }
    // The id of another deployment: the answer goes to that deployment's queue. It names the body,
    // by which that CLI recognises that the answer is not for its own request.
    let (victim, asking) = (asking(), asking());
    asking.publish_as(&asking.bundle(), &victim.hints()).unwrap();
    is_unverified(&sandbox, "another id", &victim, &asking.bundle(), &victim.hints());
    assert!(asking.replies().is_empty());
}

// clause: HNT-1, LAU-1, LAU-5
#[test]
fn nobody_is_answered_whom_the_settings_do_not_name() {
    let sandbox = Sandbox::start(Options::default());
    let stranger = Account::new("333333333333", sandbox.variable("AWS_ENDPOINT_URL"));
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    stranger.create_queue(&asking.request.deployment_id.reply_queue_name());
    let mut hints = asking.hints();
    hints.ci_account = "333333333333".parse().unwrap();
    asking.publish_as(&asking.bundle(), &hints).unwrap();
    // Hints that do not even match the grammar get no answer.
    let odd = [("target", "demo/shell"), ("deployment_id", "../../etc"), ("ci_account", "111111111111")];
    sandbox.ci().publish(sandbox.topic().as_str(), &asking.bundle(), &odd).unwrap();
    sandbox.ci().publish(sandbox.topic().as_str(), &asking.bundle(), &odd[..1]).unwrap();
    eventually("three messages were handled", || (sandbox.calls("lambda", "InvocationEnded").len() == 3).then_some(()));
    assert!(sandbox.calls("lambda", "InvocationEnded").iter().all(|entry| entry.ok));
    let sent = sandbox.log().into_iter().filter(|entry| entry.operation.starts_with("SendMessage")).count();
    assert_eq!((sent, sandbox.calls("s3", "PutObject").len(), sandbox.calls("ecs", "RunTask").len()), (0, 0, 0));
}

#[test]
fn sns_itself_refuses_a_megabyte() {
    let sandbox = sandbox();
    let asking = Asking::without_queues(&sandbox, "demo/shell", &[("script", "true")]);
    let body = asking.bundle().replacen('{', &format!("{{\"x\":\"{}\",", "a".repeat(1 << 20)), 1);
    assert!(asking.publish_as(&body, &asking.hints()).unwrap_err().contains("too long"));
    assert!(sandbox.run_tasks(&asking.id()).is_empty());
}

// clause: REQ-4, REQ-7, REQ-8, REQ-9, REQ-10, LAU-6, LAU-10
#[test]
fn a_verified_request_is_told_which_check_failed_and_by_how_much() {
    let sandbox = sandbox();
    for (seconds, reason, words) in
        [(-900 - 330, Reason::Expired, "expired 5m"), (330, Reason::NotYetValid, "of clock skew is tolerated")]
    {
        let asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]).moved(seconds);
        asking.publish();
        is_refused(&sandbox, &asking, reason, words);
    }
    type Change = fn(&mut Request);
    let rows: [(Reason, &str, Change); 8] = [
        (Reason::Lifetime, "is 901 s", |r| r.expires_at = r.issued_at.plus(901)),
        (Reason::Lifetime, "is 0 s", |r| r.expires_at = r.issued_at),
        (Reason::Audience, "is meant for arn:aws:sns:eu-west-1:222222222222:other", |r| {
            r.audience = "arn:aws:sns:eu-west-1:222222222222:other".parse().unwrap();
        }),
        (Reason::Queue, "control queue", |r| {
            r.control_queue = Some(
                format!("https://sqs.eu-west-1.amazonaws.com/111111111111/{}", r.deployment_id.reply_queue_name())
                    .parse()
                    .unwrap(),
            );
        }),
        (Reason::Queue, "control queue", |r| {
            r.control_queue = Some(
                format!("https://sqs.eu-west-1.amazonaws.com/333333333333/{}", r.deployment_id.control_queue_name())
                    .parse()
                    .unwrap(),
            );
        }),
        (Reason::Parameter, "missing", |r| r.parameters.clear()),
        (Reason::Parameter, "NUL", |r| drop(r.parameters.insert("script".parse().unwrap(), "a\0b".into()))),
        (Reason::Parameter, "no parameter `command`", |r| {
            drop(r.parameters.insert("command".parse().unwrap(), "sh".into()))
        }),
    ];
    for (reason, words, change) in rows {
        let mut asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
        change(&mut asking.request);
        asking.publish();
        is_refused(&sandbox, &asking, reason, words);
    }
}

#[track_caller]
fn is_refused(sandbox: &Sandbox, asking: &Asking, reason: Reason, words: &str) {
    let end = asking.end();
    assert_eq!((end.kind(), end.reason(), end.genuine), ("refused", reason.code(), true), "{end:?}");
    assert!(end.message().contains(words), "`{words}` is not in `{}`", end.message());
    assert_eq!(reason.exit_code().code(), 120);
    assert!(sandbox.run_tasks(&asking.id()).is_empty(), "{reason}: a task was run");
    let holder = claim(sandbox, &asking.id()).expect("a refusal is claimed")["holder"]["launcher"].clone();
    assert_eq!((&holder["verdict"], &holder["reason"]), (&json!("refused"), &json!(reason)));
}

// clause: REQ-7
#[test]
fn a_reply_queue_in_an_account_that_is_not_the_signers_is_refused() {
    let sandbox = sandbox();
    for (account, name) in
        [("333333333333", None), ("222222222222", None), ("111111111111", Some(new_id().reply_queue_name()))]
    {
        let mut asking = Asking::without_queues(&sandbox, "demo/shell", &[("script", "true")]);
        let name = name.unwrap_or_else(|| asking.request.deployment_id.reply_queue_name());
        asking.request.reply_queue = format!("https://sqs.eu-west-1.amazonaws.com/{account}/{name}").parse().unwrap();
        Account::new(account, sandbox.variable("AWS_ENDPOINT_URL")).create_queue(&name);
        asking.publish();
        let held = eventually("a claim", || claim(&sandbox, &asking.id()));
        assert_eq!(held["holder"]["launcher"]["reason"], json!("queue"), "{account}");
        assert!(sandbox.run_tasks(&asking.id()).is_empty());
    }
}

// clause: LAU-6
/// If several checks fail, the answer names the first in the order of the clause.
#[test]
fn the_first_check_that_fails_is_the_one_that_is_told() {
    let sandbox = sandbox();
    type Change = fn(Asking) -> Asking;
    let broken: [(Reason, Change); 5] = [
        (Reason::Audience, |mut a| {
            a.request.audience = "arn:aws:sns:eu-west-1:222222222222:other".parse().unwrap();
            a
        }),
        (Reason::Expired, |a| a.moved(-2_000)),
        (Reason::Frozen, |a| a),
        (Reason::Parameter, |mut a| {
            a.request.parameters.clear();
            a
        }),
        (Reason::Queue, |mut a| {
            a.request.control_queue = Some(a.request.reply_queue.clone());
            a
        }),
    ];
    for first in 0..broken.len() {
        let (reason, _) = broken[first];
        // Only a frozen target can be refused for being frozen. After that check, the test uses a
        // target that nobody may deploy.
        let name = if first <= 2 { "test/frozen" } else { "test/others" };
        let mut asking = Asking::new(&sandbox, name, &[("script", "true")]);
        for (_, change) in &broken[first..] {
            asking = change(asking);
        }
        asking.publish();
        is_refused(&sandbox, &asking, reason, "");
    }
    let asking = Asking::new(&sandbox, "test/others", &[("script", "true")]);
    asking.publish();
    is_refused(&sandbox, &asking, Reason::Policy, "no policy of test/others permits");
}

// clause: LAU-4, RUN-6, RUN-7, APP-4
#[test]
fn no_permit_a_forbid_and_an_error_each_mean_no() {
    let sandbox = sandbox();
    for (name, script, reason, words) in [
        ("test/others", "true", Reason::Policy, "no policy of test/others permits"),
        ("test/forbidden", "no", Reason::Policy, "no policy of test/forbidden permits"),
        ("test/erring", "no", Reason::Policy, "could not be evaluated"),
        ("test/approved", "true", Reason::Approval, "0 persons have approved"),
        ("test/frozen", "true", Reason::Frozen, "deployments of test/frozen are frozen"),
    ] {
        refused(&sandbox, sandbox.deploy(name).param("script", script).run(), reason, words);
        // If the launcher is bypassed, the runner decides the same.
        let asking = Asking::new(&sandbox, name, &[("script", script)]);
        runner_denies(&sandbox, &asking, reason, words);
    }
    for name in ["test/forbidden", "test/erring"] {
        sandbox.deploy(name).param("script", "exit 8").run().exits(8);
    }
}

/// Asserts that the runner claims, sends nothing but `finished` with the reason as frame 0 and with
/// a vouch, and exits with 120.
#[track_caller]
fn runner_denies(sandbox: &Sandbox, asking: &Asking, reason: Reason, words: &str) {
    let arn = sandbox.operator().run_task(&asking.launch()).unwrap();
    let end = asking.end();
    assert_eq!(
        (end.kind(), end.from.as_str(), end.reason(), end.genuine),
        ("finished", "runner", reason.code(), true),
        "{end:?}"
    );
    assert!(end.message().contains(words), "`{words}` is not in `{}`", end.message());
    assert_eq!((&end.body["seq"], &end.body["frames"], end.vouch.is_some()), (&json!(0), &json!(1), true));
    let task = sandbox.task_when(&arn, "STOPPED");
    assert_eq!(task.exit_code(), Some(120));
    assert_eq!(asking.replies().len(), 1, "only the end is sent");
    assert_eq!(claim(sandbox, &asking.id()).unwrap()["holder"]["runner"]["task_arn"], json!(arn));
    assert!(!sandbox.done_by(&task).iter().any(|entry| entry.text("key").starts_with("locks/")), "no lock is taken");
}

// clause: RUN-6, RUN-7
#[test]
fn the_runner_decides_again() {
    let sandbox = sandbox();
    type Change = fn(&mut Request);
    let later = Asking::new(&sandbox, "demo/shell", &[("script", "true")]).moved(300);
    runner_denies(&sandbox, &later, Reason::NotYetValid, "in the future");
    let rows: [(Reason, &str, Change); 4] = [
        (Reason::Parameter, "missing", |r| r.parameters.clear()),
        (Reason::Parameter, "no parameter `command`", |r| {
            drop(r.parameters.insert("command".parse().unwrap(), "sh".into()))
        }),
        (Reason::Lifetime, "is 901 s", |r| r.expires_at = r.issued_at.plus(901)),
        (Reason::Queue, "control queue", |r| {
            let name = r.deployment_id.reply_queue_name();
            r.control_queue = Some(format!("https://sqs.eu-west-1.amazonaws.com/111111111111/{name}").parse().unwrap());
        }),
    ];
    for (reason, words, change) in rows {
        let mut asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
        change(&mut asking.request);
        runner_denies(&sandbox, &asking, reason, words);
    }
}

// clause: RUN-4
#[test]
fn the_runner_verifies_place_and_identity_before_it_claims() {
    let sandbox = sandbox();
    let mut asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    asking.request.audience = "arn:aws:sns:eu-west-1:222222222222:other".parse().unwrap();
    refuses_in_silence(&sandbox, "audience", &asking, &asking.launch());

    let asking = Asking::new(&sandbox, "demo/hello", &[("name", "world")]);
    let launch = Launch { definition: "relay_demo_shell".into(), ..asking.launch() };
    refuses_in_silence(&sandbox, "target", &asking, &launch);

    let asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    refuses_in_silence(&sandbox, "no envelope", &asking, &Launch { environment: vec![], ..asking.launch() });

    // The same revision with another role would have other permissions.
    let (_, entry_point, configuration) = sandbox.operator().definition("relay_demo_shell");
    let arn = sandbox.operator().register("relay_test_role", &entry_point, &configuration, "relay-somebody-else");
    refuses_in_silence(&sandbox, "role", &asking, &Launch { definition: arn, ..asking.launch() });
}

// clause: LAU-2, RUN-2
#[test]
fn a_configuration_that_is_not_the_pinned_one_is_none() {
    let sandbox = sandbox();
    let operator = sandbox.operator();
    let (_, entry_point, good) = operator.definition("relay_demo_shell");
    let pinned = |target: &str, text: &str| {
        let mut entry_point = entry_point.clone();
        entry_point[3] = target.to_owned();
        entry_point[5] = Digest::of(text.as_bytes()).to_string();
        entry_point
    };
    let named = |target: &str| good.replace("demo/shell", target).replace("relay-demo-shell", &runner_role(target));
    let rows: [(&str, &str, Vec<String>, String); 6] = [
        ("does not parse", "test/broken", pinned("test/broken", "target ="), "target =".into()),
        (
            "an unknown member",
            "test/unknown",
            pinned("test/unknown", &format!("shell = true\n{}", named("test/unknown"))),
            format!("shell = true\n{}", named("test/unknown")),
        ),
        ("another digest", "test/digest", pinned("test/digest", "other"), named("test/digest")),
        ("another target", "test/name", pinned("test/name", &good), good.clone()),
        ("another target in the pin", "test/pin", pinned("test/name", &named("test/pin")), named("test/pin")),
        (
            "one more argument",
            "test/more",
            [pinned("test/more", &named("test/more")), vec!["--verbose".into()]].concat(),
            named("test/more"),
        ),
    ];
    for (name, target, entry_point, text) in rows {
        let family = format!("relay_{}", target.replace('/', "_"));
        operator.register(&family, &entry_point, &text, &runner_role(target));
        let asking = Asking::new(&sandbox, target, &[("script", "true")]);
        refuses_in_silence(&sandbox, name, &asking, &asking.launch());
        let started = sandbox.run_tasks(&asking.id()).len();
        asking.publish();
        let end = asking.end();
        assert_eq!((end.kind(), end.genuine), ("unverified", true), "{name}");
        assert_eq!(sandbox.run_tasks(&asking.id()).len(), started, "{name}: the launcher ran a task");
    }
    // The newest active revision counts, whatever it contains. The launcher may take the one before
    // for the newest for five seconds more (LAU-2).
    let soon = |what: &str, code: i32, out: &str| {
        eventually(what, || {
            let done = sandbox.deploy("test/newest").param("script", "true").run();
            (done.code == code && done.out() == out).then_some(done)
        })
    };
    let family = "relay_test_newest";
    let old = named("test/newest");
    operator.register(family, &pinned("test/newest", &old), &old, &runner_role("test/newest"));
    sandbox.deploy("test/newest").param("script", "echo old").run().exits(0);
    let new = old.replace(r#"run = ["sh", "-c", "{script}"]"#, r#"run = ["sh", "-c", "echo new; {script}"]"#);
    operator.register(family, &pinned("test/newest", &new), &new, &runner_role("test/newest"));
    soon("the new revision runs", 0, "new\n");
    let broken = operator.register(family, &pinned("test/newest", "other"), &old, &runner_role("test/newest"));
    soon("the broken revision refuses", 120, "").says("unverified");
    operator.deregister(&broken);
    soon("the revision before it counts again", 0, "new\n");
}

#[test]
fn a_wrong_key_and_an_unknown_target_are_refused() {
    let sandbox = sandbox();
    let key = new_key();
    let wrong = sandbox.deploy("demo/hello").param("name", "world").env("RELAY_SIGNING_KEY", &key.to_pem()).run();
    refused(&sandbox, wrong, Reason::Unverified, "the request could not be verified");
    refused(
        &sandbox,
        sandbox.deploy("no/such").run(),
        Reason::Unverified,
        "check the target's name, and that its signers include the signing key",
    );
}

// clause: REQ-6, REQ-14, RUN-9
#[test]
fn a_parameter_that_does_not_fit_is_named() {
    let sandbox = sandbox();
    let hello = || sandbox.deploy("demo/hello");
    for (value, words) in [
        ("", "does not match its pattern"),
        ("World", "does not match its pattern"),
        ("a b", "does not match its pattern"),
        ("$(reboot)", "does not match its pattern"),
        ("`reboot`", "does not match its pattern"),
        ("a;reboot", "does not match its pattern"),
        ("--version", "does not match its pattern"),
        ("{name}", "does not match its pattern"),
        ("world\n", "has the character \\u{a} (a control character) at position 6"),
        ("w\u{43e}rld", "has the character \\u{43e} (not ASCII) at position 2"),
        ("world\u{200b}", "has the character \\u{200b} (not ASCII) at position 6"),
        ("a\u{1b}[31m", "has the character \\u{1b} (a control character) at position 2"),
    ] {
        refused(&sandbox, hello().param("name", value).run(), Reason::Parameter, words);
    }
    refused(&sandbox, hello().run(), Reason::Parameter, "the parameter `name` is missing");
    let unknown = hello().param("name", "world").param("command", "reboot").run();
    refused(&sandbox, unknown, Reason::Parameter, "there is no parameter `command`; this target has: name");
    // The pattern of demo/shell allows everything. The check that a value is not an option applies
    // all the same.
    let option = sandbox.deploy("demo/shell").param("script", "--version").run();
    refused(&sandbox, option, Reason::Parameter, "would be read as an option");
    // NUL cannot be an argument, but it can be signed: see
    // `a_verified_request_is_told_which_check_failed_and_by_how_much`.
}

// clause: LIM-1, OUT-3
#[test]
fn a_request_over_the_limit_is_not_even_published() {
    let sandbox = Sandbox::start(Options::default());
    let done = sandbox.shell(&"true ".repeat(8_000)).run().exits(119).says("32768").says("put data into an artifact");
    sandbox.shell(&"true ".repeat(4_000)).run().exits(119).says("longer than 16384 bytes");
    assert!(done.err().chars().filter(char::is_ascii_digit).count() > 4, "by how much: {}", done.err());
    let calls = sandbox.log().into_iter().filter(|entry| matches!(entry.operation.as_str(), "Publish" | "CreateQueue"));
    assert_eq!(calls.count(), 0);
    // A request just under the limit runs.
    sandbox.shell(&format!("true {}", "x".repeat(16_000))).run().exits(0);
}

// clause: OUT-3
#[test]
fn what_aws_denies_has_a_code_and_a_hint() {
    let sandbox = Sandbox::start(Options::default());
    let closed = sandbox.operator().create_topic("closed");
    let hello = || sandbox.deploy("demo/hello").param("name", "world");
    hello()
        .args(&["--topic", "arn:aws:sns:eu-west-1:222222222222:nowhere"])
        .run()
        .exits(125)
        .says("hint: check the name, the account and the region");
    hello().args(&["--topic", &closed]).run().exits(125).says("hint: the credentials in use lack sns:Publish");
    let none = hello().without("AWS_ACCESS_KEY_ID").without("AWS_SECRET_ACCESS_KEY");
    none.env("AWS_EC2_METADATA_DISABLED", "true")
        .env("HOME", "/nonexistent")
        .run()
        .exits(125)
        .says("hint: relay has no valid AWS credentials");
    hello().env("AWS_ACCESS_KEY_ID", "AKIANOSUCHKEY").run().exits(125).says("hint: relay has no valid AWS credentials");
    hello().env("AWS_ENDPOINT_URL", "http://127.0.0.1:9").run().exits(125).says("hint: check the network");
    assert!(sandbox.calls("ecs", "RunTask").is_empty());
    // Queues that were created for nothing have been deleted.
    assert_eq!(sandbox.http("GET", "queues", b"").1, "[]");
}

/// An entry of a hostile tar file: name, type, link target and content.
type Entry<'a> = (&'a str, tar::EntryType, &'a str, &'a [u8]);

/// A `.tar.zst` with entries that no honest packer would write.
fn forged(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    zstd::encode_all(tar.into_inner().unwrap().as_slice(), 3).unwrap()
}

/// Uploads bytes under a digest, and deploys with that digest.
fn deploy_artifact(sandbox: &Sandbox, target: &str, digest: &str, bytes: Option<Vec<u8>>) -> Deployed {
    if let Some(bytes) = bytes {
        sandbox.ci().put_object("relay-sandbox-artifacts", &format!("{target}/{digest}.tar.zst"), bytes);
    }
    sandbox.deploy(target).param("source", digest).run()
}

/// Asserts that the runner refused the artifact before any step, and left nothing of it behind.
#[track_caller]
fn bad_artifact(sandbox: &Sandbox, name: &str, done: Deployed, words: &str) {
    let done = done.exits(120).says(words);
    assert_eq!((done.out().as_str(), done.result("/reason")), ("", &json!("artifact")), "{name}");
    assert!(!done.err().contains("relay step"), "{name}: a step began: {}", done.err());
    let work = sandbox.folder().join("state/work").join(done.id());
    eventually("the work directory is gone", || (!work.exists()).then_some(()));
}

// clause: ART-3, ART-4, ART-5, ART-6
#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn a_hostile_artifact_is_refused_whole() {
    use tar::EntryType as T;
    let sandbox = sandbox();
    let run: Entry<'_> = ("run.sh", T::Regular, "", b"echo ran\n");
    let outside = sandbox.folder().join("outside");
    let absolute = format!("{}/escaped", outside.display());
    std::fs::create_dir(&outside).unwrap();
    let bomb = vec![0; 32 << 20];
    let rows: Vec<(&str, Vec<Entry<'_>>, &str)> = vec![
        ("climbs", vec![run, ("../escaped", T::Regular, "", b"x")], ".."),
        ("climbs from below", vec![run, ("a/../../escaped", T::Regular, "", b"x")], ".."),
        ("absolute", vec![run, (&absolute, T::Regular, "", b"x")], "escaped"),
        ("a link that leads out", vec![run, ("link", T::Symlink, "../../..", b"")], "link"),
        ("an absolute link", vec![run, ("link", T::Symlink, "/etc", b"")], "link"),
        ("a hard link", vec![run, ("link", T::Link, "run.sh", b"")], "link"),
        ("a device", vec![run, ("device", T::Char, "", b"")], "device"),
        ("a pipe", vec![run, ("pipe", T::Fifo, "", b"")], "pipe"),
        (
            "through its own link",
            vec![
                run,
                ("real/", T::Directory, "", b""),
                ("link", T::Symlink, "real", b""),
                ("link/file", T::Regular, "", b"x"),
            ],
            "link",
        ),
        ("over its own link", vec![run, ("link", T::Symlink, "run.sh", b""), ("link", T::Regular, "", b"x")], "link"),
        ("a bomb", vec![run, ("zeros", T::Regular, "", &bomb)], ""),
    ];
    for (name, entries, words) in rows {
        let bytes = forged(&entries);
        let digest = Digest::of(&bytes).to_string();
        bad_artifact(&sandbox, name, deploy_artifact(&sandbox, "demo/source", &digest, Some(bytes)), words);
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was written outside");
    assert!(!sandbox.folder().join("state/work/escaped").exists());
    // The same code can build a valid artifact.
    let good = forged(&[run, ("link", T::Symlink, "run.sh", b"")]);
    let done = deploy_artifact(&sandbox, "demo/source", &Digest::of(&good).to_string(), Some(good.clone())).exits(0);
    assert_eq!(done.out(), "ran\n");

    // The content does not match the digest: not a byte of it is unpacked, however hostile it is.
    let hostile = forged(&[run, ("../escaped", T::Regular, "", b"x")]);
    let digest = Digest::of(b"what was meant").to_string();
    let done = deploy_artifact(&sandbox, "demo/source", &digest, Some(hostile.clone()));
    bad_artifact(&sandbox, "another digest", done, &format!("has the digest {}", Digest::of(&hostile)));
    let truncated = good[..good.len() - 1].to_vec();
    let done = deploy_artifact(&sandbox, "demo/source", &Digest::of(&good).to_string(), Some(truncated));
    bad_artifact(&sandbox, "truncated", done, "has the digest");
    bad_artifact(
        &sandbox,
        "missing",
        deploy_artifact(&sandbox, "demo/source", &Digest::of(b"nowhere").to_string(), None),
        "does not exist",
    );
    let no_tar = zstd::encode_all(&b"not a tar"[..], 3).unwrap();
    bad_artifact(
        &sandbox,
        "not a tar",
        deploy_artifact(&sandbox, "demo/source", &Digest::of(&no_tar).to_string(), Some(no_tar)),
        "",
    );
    let noise: Vec<u8> = (0..2_000_u32).flat_map(|n| Digest::of(&n.to_be_bytes()).as_bytes().to_vec()).collect();
    let large = forged(&[run, ("noise", T::Regular, "", &noise)]);
    bad_artifact(
        &sandbox,
        "too large",
        deploy_artifact(&sandbox, "test/small", &Digest::of(&large).to_string(), Some(large)),
        "1024",
    );
}

#[test]
fn a_tool_that_cannot_be_started_says_so() {
    let sandbox = sandbox();
    let missing = sandbox.deploy("test/no-tool").run().exits(127).says("cannot start `no-such-tool-anywhere`");
    assert_eq!(*missing.result("/decided_by"), json!("tool"));
    sandbox.deploy("test/not-executable").run().exits(126).says("cannot start `/etc/passwd`");
    sandbox.shell("kill -KILL $$").run().exits(137).says("signal 9");
}

// clause: FRM-1, FRM-5, FRM-6, FRM-18
/// A writer to the queue can neither end a deployment nor change its output.
#[test]
fn forged_frames_change_nothing() {
    let sandbox = sandbox();
    // Genuine frames of another deployment, with all their attributes.
    let other = Asking::new(&sandbox, "demo/shell", &[("script", "echo of another deployment")]);
    other.publish();
    other.end();
    let go = sandbox.folder().join("forged-go");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; echo done; exit 5", go.display());
    let running = sandbox.shell(&script).start();
    running.until_stdout("begun");
    let id = running.id();
    let queue = format!("https://sqs.eu-west-1.amazonaws.com/111111111111/relay-{id}-reply");
    let send = |body: &str, attributes: &[(&str, &str)]| sandbox.ci().send(&queue, body, attributes).unwrap();
    let mut sent = 0;
    let mut forge = |body: &str, attributes: &[(&str, &str)]| {
        send(body, attributes);
        sent += 1;
    };
    forge("garbage", &[]);
    forge("{}", &[("from", "runner")]);
    forge("{}", &[("from", "nobody"), ("sig", "AAAA")]);
    let digest = Digest::of(b"").to_string();
    let stream = json!({ "bytes": 0, "sha256": digest });
    for seq in [0, 2, 3, 1_000_000] {
        let end = json!({
            "deployment_id": id, "seq": seq, "kind": "finished", "outcome": { "exited": { "code": 0 } }, "frames": seq + 1,
            "stdout": stream, "stderr": stream, "outputs": {},
        })
        .to_string();
        let stranger = new_key();
        let sig = relay_protocol::encoding::base64(&stranger.sign(&FrameSource::Runner.pae(&end)));
        forge(&end, &[("from", "runner"), ("sig", &sig)]);
        // Signed by CI's own key, which may sign requests but no frames.
        let sig = relay_protocol::encoding::base64(&sandbox.signing_key().sign(&FrameSource::Runner.pae(&end)));
        forge(&end, &[("from", "runner"), ("sig", &sig)]);
    }
    for kind in ["refused", "launch_failed"] {
        let word = json!({ "deployment_id": id, "kind": kind, "request_digest": digest, "reason": "policy", "message": "\u{1b}[2Jforged" }).to_string();
        let sig = relay_protocol::encoding::base64(&new_key().sign(&FrameSource::Launcher.pae(&word)));
        forge(&word, &[("from", "launcher"), ("sig", &sig)]);
    }
    for reply in other.replies() {
        let attributes: Vec<(&str, &str)> =
            reply.raw.attributes.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        forge(&reply.raw.body, &attributes);
    }
    // All of them have been read from the queue before the tool goes on.
    eventually("the forged frames were read", || {
        let queues: Value = serde_json::from_str(&sandbox.http("GET", "queues", b"").1).unwrap();
        let one = queues
            .as_array()
            .unwrap()
            .iter()
            .find(|q| q.to_string().contains(&format!("relay-{id}-reply")))
            .cloned()
            .unwrap();
        (one["ready"] == json!(0) && one["inFlight"] == json!(0)).then_some(())
    });
    std::fs::write(go, "").unwrap();
    let done = running.wait().exits(5);
    assert_eq!(done.out(), "begun\ndone\n");
    assert_eq!(*done.result("/output/verified"), json!(true));
    assert!(!done.err().contains("forged") && !done.err().contains("another deployment"), "{}", done.err());
    done.says(&format!("{sent} frames that were not signed by this deployment's keys were dropped"));
}

// clause: LAU-8, LAU-10
#[test]
fn what_ecs_does_not_start_is_told_with_its_reason() {
    let sandbox = Sandbox::start(Options::default().set("function_timeout_ms=12000"));
    let fault = |kind: &str, more: &str| {
        sandbox.set_faults(&format!("[[rule]]\nservice = \"ecs\"\noperation = \"RunTask\"\nkind = \"{kind}\"\n{more}"));
    };
    // Fails twice and then succeeds: every attempt has the same token.
    for kind in ["run-task-failures", "throttle"] {
        fault(kind, "count = 2");
        let done = sandbox.shell("exit 3").run().exits(3);
        let runs = sandbox.run_tasks(&done.id());
        assert!(runs.len() >= 3 && runs.iter().all(|run| run.text("clientToken") == done.id()), "{kind}: {runs:?}");
        assert_eq!(sandbox.tasks_of(&done.id()).len(), 1);
    }
    // Fails forever.
    for (kind, more, reason, words) in [
        ("run-task-failures", "", "capacity", "Capacity is unavailable at this time"),
        ("throttle", "", "quota", "A fault of the sandbox"),
        ("error", "code = \"ClientException\"", "launch", "A fault of the sandbox"),
    ] {
        fault(kind, more);
        let done = sandbox.shell("exit 3").run().exits(121).says(words).says("hint: ");
        assert_eq!((done.result("/reason"), done.out().as_str()), (&json!(reason), ""));
        assert!(sandbox.tasks_of(&done.id()).is_empty());
        let held = claim(&sandbox, &done.id()).unwrap();
        assert_eq!(held["holder"]["launcher"]["verdict"], json!("launch_failed"));
    }
}

// clause: OUT-4
#[test]
fn what_is_not_known_is_neither_success_nor_failure() {
    let sandbox = sandbox();
    // The runner is killed, so there is no last frame.
    let running = sandbox.shell("while :; do echo alive; sleep 0.1; done").args(&["--silence-timeout", "3s"]).start();
    running.until_stdout("alive");
    let task = sandbox.tasks_of(&running.id()).pop().unwrap();
    kill_process(task.pid().unwrap(), Signal::KILL).unwrap();
    let done = running.wait().exits(122).says("outcome unknown").says(task.arn()).says("aws ecs describe-tasks");
    assert_eq!(*done.result("/exit_code"), json!(122));
    // The task is stopped from outside: the tool is stopped gracefully, and how much it had done is
    // unknown.
    let running = sandbox.shell("trap 'echo told; exit 0' INT; echo begun; while :; do sleep 0.1; done").start();
    running.until_stdout("begun");
    let task = sandbox.tasks_of(&running.id()).pop().unwrap();
    sandbox.operator().stop_task(task.arn(), "somebody else");
    let done = running.wait().exits(122);
    assert_eq!((done.out().as_str(), done.result("/reason")), ("begun\ntold\n", &json!("stopped")));
    // No launcher answers.
    let mute = Sandbox::start(Options { launchers: 0, ..Options::default() });
    let done = mute.shell("true").args(&["--admission-timeout", "2s"]).run().exits(122);
    done.says("while waiting for the launcher's answer").says("-reply keeps its messages for a day");
    // The request is admitted, but the runner never starts.
    let slow = Sandbox::start(Options::default().set("provisioning_ms=60000"));
    let done = slow.shell("true").args(&["--start-timeout", "2s"]).run().exits(122);
    done.says("while waiting for the runner's start");
}

// clause: CTL-2, CTL-3, CTL-4, CTL-5
#[test]
fn only_those_who_may_can_stop_a_deployment() {
    let sandbox = sandbox();
    let script = "trap 'echo told; exit 0' INT; echo begun; while :; do sleep 0.05; done";
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", script)]);
    asking.publish();
    asking.reply("output");
    asking.control("garbage");
    asking.control(&asking.bundle());
    asking.control(&asking.cancel(&new_key(), asking.digest()));
    asking.control(&asking.cancel(&asking.session, Digest::of(b"another request")));
    let other = Asking::without_queues(&sandbox, "demo/shell", &[("script", "true")]);
    asking.control(&other.cancel(&asking.session, asking.digest()));
    // All five have been read, and the tool still runs.
    let task = sandbox.tasks_of(&asking.id()).pop().unwrap();
    eventually("the statements were dropped", || {
        (task.log().matches("may not stop this deployment").count() == 5).then_some(())
    });
    assert!(asking.replies().iter().all(|reply| reply.kind() != "finished"));
    // A cancel by the session key works. A second one changes nothing.
    asking.control(&asking.cancel(&asking.session, asking.digest()));
    asking.control(&asking.cancel(&asking.session, asking.digest()));
    let end = asking.end();
    assert_eq!((end.reason(), end.from.as_str()), ("cancelled", "runner"));
    let output: String =
        asking.replies().iter().filter(|reply| reply.kind() == "output").map(|reply| reply.body.to_string()).collect();
    assert_eq!(output.matches("told").count(), 1);

    // A cancel by a signer whom the policy allows, before the first step: no step begins.
    let asking = Asking::new(&sandbox, "demo/shell", &[("script", "echo never")]);
    asking.control(&asking.cancel(&asking.key, asking.digest()));
    asking.publish();
    assert_eq!(asking.end().reason(), "cancelled");
    assert!(asking.replies().iter().any(|reply| reply.kind() == "started"));
    assert!(!asking.replies().iter().any(|reply| matches!(reply.kind(), "step" | "output")), "a step began");
}

/// The bodies that were refused above leave no task process and no dead letter behind.
#[test]
fn bad_input_is_no_fault_of_the_launcher() {
    let sandbox = Sandbox::start(Options::default());
    for (_, body) in UNVERIFIED {
        let asking = Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
        asking.publish_as(&body(&asking), &asking.hints()).unwrap();
    }
    eventually("all were handled", || {
        (sandbox.calls("lambda", "InvocationEnded").len() >= UNVERIFIED.len()).then_some(())
    });
    assert_eq!(sandbox.http("GET", "dead-letters", b"").1, "[]");
    assert!(sandbox.calls("lambda", "LauncherEnded").is_empty(), "a launcher died");
}
