//! `relay deploy --dry-run` and `relay doctor --try` ask the launcher and start nothing. Both name
//! what is wrong: the key, a pin, the topic, the target, a parameter, or the policy's no. Without
//! usable pins nothing is published at all.

use std::sync::Arc;

use relay_tests::kit::deploy::Deploy;
use relay_tests::kit::sandbox::command;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};

/// A target that two persons must approve, one that forbids, and `demo/shell`, which permits.
fn sandbox() -> Arc<Sandbox> {
    let with = |name: &str, policy: &'static str| target(name, &Head { policy, ..Head::default() }, SHELL);
    Sandbox::start(
        Options::default()
            .target("test/forbidden", with("test/forbidden", "forbid(principal, action, resource);"))
            .target(
                "test/approved",
                with("test/approved", "permit(principal, action, resource) when { context.approvals >= 1 };"),
            ),
    )
}

/// Both commands about this target.
fn both(sandbox: &Sandbox, target: &str, script: &str) -> [(&'static str, Deploy); 2] {
    let patience = ["--admission-timeout", "2s"];
    [
        ("deploy", sandbox.relay(&["deploy", target, "--dry-run"]).param("script", script).args(&patience)),
        ("doctor", sandbox.relay(&["doctor", target, "--try"]).param("script", script)),
    ]
}

/// Asserts that nothing was started and nothing is left behind.
fn nothing_is_left(sandbox: &Sandbox) {
    assert!(sandbox.tasks().is_empty());
    let (bucket, evidence) = (sandbox.bucket(), sandbox.evidence_bucket());
    assert_eq!(sandbox.operator().keys(&evidence, ""), [] as [String; 0]);
    assert_eq!(sandbox.operator().keys(&bucket, ""), [] as [String; 0]);
    let made = sandbox.calls("sqs", "CreateQueue").len();
    assert_eq!(sandbox.calls("sqs", "DeleteQueue").iter().filter(|call| call.ok).count(), made);
}

// clause: DRY-1, DRY-2, DRY-3
#[test]
fn a_dry_run_is_answered_and_starts_nothing() {
    let sandbox = sandbox();
    let file = sandbox.folder().join("ran");
    for (name, run) in both(&sandbox, "demo/shell", &format!("touch {}", file.display())) {
        let done = run.run().exits(0);
        let words = done.out() + &done.err();
        assert!(words.contains("allowed by policy0") || words.contains("would be allowed"), "{name}: {words}");
    }
    assert!(!file.exists());
    sandbox.launcher_idle();
    nothing_is_left(&sandbox);
}

// clause: DRY-2, DRY-3
#[test]
#[allow(clippy::too_many_lines, reason = "a table of cases")]
fn a_dry_run_names_what_is_wrong() {
    let sandbox = sandbox();
    let other = tempfile::tempdir().unwrap();
    let key = other.path().join("other.pem");
    let made = command("relay").args(["keygen", "--out", key.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success());
    let said = String::from_utf8(made.stdout).unwrap();
    let strange = said.split_once("key = \"").unwrap().1.split('"').next().unwrap().to_owned();
    let lonely = sandbox.ci().create_topic("lonely");
    let missing = "arn:aws:sns:eu-west-1:222222222222:nowhere";
    // Target, what is changed, exit code, words.
    type Change<'a> = Box<dyn Fn(Deploy) -> Deploy + 'a>;
    let as_is: fn(Deploy) -> Deploy = |run| run;
    let rows: Vec<(&str, &str, Change<'_>, i32, &str)> = vec![
        (
            "wrong key",
            "demo/shell",
            Box::new(|run| run.args(&["--key", key.to_str().unwrap()])),
            120,
            "not be verified",
        ),
        (
            "target pin",
            "demo/shell",
            Box::new(|run| run.env("RELAY_TARGET_PUBLIC_KEY", &strange)),
            119,
            "the pinned target key of demo/shell has the id",
        ),
        (
            "answer pin",
            "demo/shell",
            Box::new(|run| run.env("RELAY_ANSWER_PUBLIC_KEY", &strange)),
            119,
            "the pinned answer key of demo/shell does not fit",
        ),
        (
            "another account, no launcher",
            "demo/shell",
            Box::new(|run| run.args(&["--topic", &lonely])),
            122,
            "no answer arrived",
        ),
        ("no topic", "demo/shell", Box::new(|run| run.args(&["--topic", missing])), 125, "NotFound"),
        ("target", "demo/nothing", Box::new(as_is), 120, "not be verified"),
        (
            "parameter",
            "demo/shell",
            Box::new(|run| run.param("nonsense", "1")),
            120,
            "there is no parameter `nonsense`",
        ),
        ("policy", "test/forbidden", Box::new(as_is), 120, "no policy of test/forbidden permits"),
        ("approval", "test/approved", Box::new(as_is), 120, "approv"),
    ];
    for (what, target, change, code, words) in rows {
        for (name, run) in both(&sandbox, target, "true") {
            let done = change(run).run();
            let said = done.out() + &done.err();
            let done = done.exits(code);
            assert!(said.contains(words), "{what}, {name}: {said}");
            drop(done);
        }
    }
    sandbox.launcher_idle();
    nothing_is_left(&sandbox);
}

// clause: VCH-5
#[test]
fn without_usable_pins_nothing_is_published() {
    let sandbox = sandbox();
    // Not base64, no key, a key of small order, and a point that is not on the curve.
    let small = relay_protocol::encoding::base64(
        &[&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 1][..], &[0; 31]].concat(),
    );
    let curve: &[u8] = &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    let off_the_curve = relay_protocol::encoding::base64(&[curve, &[7; 64]].concat());
    for name in ["RELAY_TARGET_PUBLIC_KEY", "RELAY_ANSWER_PUBLIC_KEY"] {
        sandbox.shell("true").without(name).run().exits(119).says("--trust-first-answer");
        for bad in ["AAAA", "no key", &small, &off_the_curve] {
            let done = sandbox.shell("true").env(name, bad).run().exits(119);
            assert!(done.err().contains("hint: ") || done.err().contains(name), "{bad}: {}", done.err());
        }
    }
    assert!(sandbox.calls("sns", "Publish").is_empty() && sandbox.calls("sqs", "CreateQueue").is_empty());
    let bare = sandbox.shell("true").without("RELAY_ANSWER_PUBLIC_KEY").without("RELAY_TARGET_PUBLIC_KEY");
    bare.args(&["--trust-first-answer"]).run().exits(0).says("no keys are pinned");
}

// clause: FRM-6, VCH-1
/// A well-formed key that is another's: the deployment may be running, and the words say so.
#[test]
fn a_pin_that_does_not_fit_is_named() {
    let sandbox = sandbox();
    let (target, answer) = (sandbox.variable("RELAY_TARGET_PUBLIC_KEY"), sandbox.variable("RELAY_ANSWER_PUBLIC_KEY"));
    let done =
        sandbox.shell("true").env("RELAY_TARGET_PUBLIC_KEY", answer).args(&["--start-timeout", "3s"]).run().exits(122);
    assert_eq!(done.out(), "", "nobody is believed");
    assert!(done.err().contains("target key") && done.err().contains("does not fit"), "{}", done.err());
    let done = sandbox.shell("true").env("RELAY_ANSWER_PUBLIC_KEY", target).args(&["--admission-timeout", "3s"]).run();
    assert!(done.err().contains("answer key") && done.err().contains("does not fit"), "{}", done.err());
}
