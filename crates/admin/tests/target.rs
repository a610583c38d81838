//! Tests of the `target` commands as a platform team runs them: the real program, its messages and
//! its exit codes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::process::Command;

use relay_protocol::keys::PrivateKey;
use relay_protocol::request::Origin;
use relay_protocol::{Bundle, DeploymentId, Digest, Envelope, Request, Statement as _, Timestamp};
use tempfile::TempDir;

const PERMIT: &str = r#"permit(principal in Group::"payments-ci", action == Action::"deploy", resource);"#;

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed([n; 32])
}

/// A configuration: the head that the tests of `relay-policy` share, and this file's own steps.
fn configuration(policy: &str) -> String {
    let keyed = |text: String, n: u8| text.replace(&format!("${{KEY_{n}}}"), &key(n).public().to_string());
    let head = include_str!("../../policy/tests/payments.toml").replace("${POLICY}", policy);
    (1..=6).fold(head, keyed)
        + r#"[parameters]
image = { pattern = "sha256:[0-9a-f]{4}" }

[[steps]]
name = "apply"
run = ["terraform", "apply", "-var", "image={image} x"]

[[rollback]]
name = "undo"
run = ["terraform", "destroy"]
"#
}

/// A folder that holds `t.toml`, in which the program runs.
struct Place(TempDir);

impl Place {
    fn with(configuration: &str) -> Self {
        let place = Self(TempDir::new().unwrap());
        place.write("t.toml", configuration);
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// Returns the exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_relay-admin"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn test(&self, arguments: &[&str]) -> (i32, String) {
        let (code, out, err) = self.run(&[&["target", "test", "t.toml"], arguments].concat());
        (code, format!("{out}{err}"))
    }
}

#[test]
fn a_good_file_is_ok_and_named_by_its_digest() {
    let text = configuration(PERMIT);
    let place = Place::with(&text);
    let ok = format!("t.toml: ok, sha256 {}\n", Digest::of(text.as_bytes()));
    assert_eq!(place.run(&["target", "check", "t.toml"]), (0, ok, String::new()));
}

#[test]
fn errors_have_a_place_and_findings_a_field() {
    let check = |from: &str, to: &str| {
        let text = configuration(PERMIT);
        assert!(text.contains(from), "{from}");
        let (code, out, err) = Place::with(&text.replacen(from, to, 1)).run(&["target", "check", "t.toml"]);
        assert_eq!(code, 1, "{out}{err}");
        format!("{out}{err}")
    };
    for (from, to, expected) in [
        ("bucket =", "buckett =", &["error: t.toml: ", "line 3", "unknown field `buckett`"] as &[&str]),
        ("[[steps]]", "[[steps]", &["error: t.toml: ", "line "]),
        ("sha256:[0-9a-f]{4}", "sha256:[0-9a-f", &["error: t.toml: `parameters.image`"]),
        ("\"sha256:", "\"^sha256:", &["t.toml: warning: parameters.image: ", "an anchor at one end only"]),
        ("sha256:[0-9a-f]{4}", ".*", &["t.toml: warning: parameters.image: ", "accepts any value"]),
        ("image={image} x", "x", &["t.toml: warning: parameters.image: no step uses {image}"]),
        ("Group::\"payments-ci\"", "Group::\"payment-ci\"", &["t.toml: warning: policy: ", "the group `payment-ci`"]),
        (PERMIT, "permit(principal, action, resource) when { principal is Target };", &["t.toml: warning: policy: "]),
        (PERMIT, "permit(principal, action, resource) when { context.nonsense };", &["error: t.toml: `policy`"]),
    ] {
        let said = check(from, to);
        assert!(expected.iter().all(|part| said.contains(part)), "{to}: {said}");
    }
}

#[test]
fn every_file_is_checked_and_the_worst_decides() {
    let place = Place::with(&configuration(PERMIT));
    place.write("bad.toml", "nonsense");
    let (code, out, err) = place.run(&["target", "check", "bad.toml", "t.toml"]);
    assert!(code == 1 && out.starts_with("t.toml: ok") && err.starts_with("error: bad.toml: "), "{out}{err}");
    let (code, _, err) = place.run(&["target", "check", "gone.toml", "t.toml"]);
    assert!(code == 119 && err.starts_with("error: gone.toml: No such file"), "{err}");
    for bad in [&["target", "check"] as &[&str], &["target"], &["target", "render"], &["target", "test", "t.toml"]] {
        let (code, out, err) = place.run(bad);
        assert!(code == 119 && out.is_empty() && err.contains("Usage:"), "{bad:?}: {out}{err}");
    }
    let (code, out, _) = place.run(&["target", "test", "--help"]);
    assert!(code == 0 && out.contains("no key is needed"), "{out}");
}

#[test]
fn what_is_allowed_says_by_which_policy_and_what_runs() {
    let place = Place::with(&configuration(PERMIT));
    let allowed = "allowed by policy0 (signer ci, 0 approvals)\n\
                   step apply: [\"terraform\",\"apply\",\"-var\",\"image=sha256:00ff x\"]\n\
                   rollback undo: [\"terraform\",\"destroy\"]\n";
    let image = "image=sha256:00ff";
    for signer in ["ci", &key(1).public().to_string(), &key(1).public().key_id()] {
        assert_eq!(place.test(&["--signer", signer, "--param", image]), (0, allowed.to_owned()));
    }
    // Policies still see each signer's own key id.
    let policy =
        format!(r#"@id("by key") permit(principal == Signer::"{}", action, resource);"#, key(2).public().key_id());
    let place = Place::with(&configuration(&policy));
    assert!(place.test(&["--signer", "anna", "--param", image]).1.starts_with("allowed by by key (signer anna"));
    assert_eq!(place.test(&["--signer", "ci", "--param", image]).0, 1);
}

#[test]
fn what_is_denied_says_why_and_what_to_do() {
    let place = Place::with(&configuration(PERMIT));
    for (arguments, expected) in [
        (
            &["--signer", "anna", "--param", "image=sha256:00ff"] as &[&str],
            "denied: policy: no policy of payments/production permits anna",
        ),
        (&["--signer", "ci"], "denied: parameter: the parameter `image` is missing"),
        (&["--signer", "ci", "--param", "image=latest"], "denied: parameter: the parameter `image` does not match"),
        (
            &["--signer", "ci", "--param", "image=sha256:00ff", "--param", "x=y"],
            "denied: parameter: there is no parameter `x`",
        ),
    ] {
        let (code, said) = place.test(arguments);
        assert!(code == 1 && said.starts_with(expected) && said.contains("\nhint: "), "{said}");
    }
    for arguments in [
        &["--signer", "bob"] as &[&str],
        &["--signer", "ci", "--param", "image"],
        &["--signer", "ci", "--param", "image=a", "--param", "image=b"],
        &["--signer", "ci", "--approvals", "1", "--approved-by", "anna"],
        &["--signer", "ci", "--at", "tomorrow"],
        &["--signer", "ci", "--request", "gone.json"],
    ] {
        let (code, said) = place.test(arguments);
        assert!(code == 119 && said.starts_with("error: "), "{said}");
    }
    let said = place.test(&["--signer", "bob"]).1;
    assert!(said.contains("this target has: ci, anna, ci-old, anna-laptop, bot, ben"), "{said}");
}

#[test]
fn approvals_and_the_time_are_as_in_a_real_deployment() {
    let policy = PERMIT.replace(';', r#" when { context.approvals >= 1 && context.weekday != "saturday" };"#)
        + r#"permit(principal in Group::"people", action == Action::"approve", resource);"#;
    let place = Place::with(&configuration(&policy));
    let test = |more: &[&str]| {
        let at = if more.contains(&"--at") { &[] as &[&str] } else { &["--at", "2026-11-23T12:00:00Z"] };
        place.test(&[&["--signer", "ci", "--param", "image=sha256:00ff"], at, more].concat())
    };
    let (code, said) = test(&[]);
    assert!(code == 1 && said.starts_with("denied: approval: 0 persons"), "{said}");
    let (code, said) = test(&["--approved-by", "ci-old"]);
    assert!(code == 1 && said.starts_with("denied: approval: "), "no person: {said}");
    for more in [&["--approved-by", "anna"], &["--approvals", "1"]] {
        let (code, said) = test(more);
        assert!(code == 0 && said.starts_with("allowed by policy0 (signer ci, 1 approval)\n"), "{said}");
    }
    let (code, said) = test(&["--approvals", "3"]);
    assert!(code == 119 && said.contains("only 2 persons of this target"), "{said}");
    let (code, said) = test(&["--approvals", "2", "--at", "2026-11-21T12:00:00Z"]);
    assert!(code == 1 && said.starts_with("denied: policy: "), "a saturday: {said}");
}

fn request() -> Request {
    let issued_at = Timestamp::from_unix(1_795_300_000);
    let id = DeploymentId::new(issued_at.unix().unsigned_abs() * 1000, [1; 10]);
    let queue = |name| format!("https://sqs.eu-west-1.amazonaws.com/111111111111/{name}").parse().unwrap();
    Request {
        audience: "arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap(),
        target: "payments/production".parse().unwrap(),
        parameters: [("image".parse().unwrap(), "sha256:00ff".to_owned())].into(),
        reply_queue: queue(id.reply_queue_name()),
        control_queue: Some(queue(id.control_queue_name())),
        deployment_id: id,
        session_key: key(9).public().clone(),
        ticket: None,
        issued_at,
        expires_at: Timestamp::from_unix(1_795_300_900),
        origin: Origin::default(),
        traceparent: None,
    }
}

#[test]
fn a_request_from_a_file_is_decided_at_its_own_time() {
    let place = Place::with(&configuration(PERMIT));
    place.write("r.json", &String::from_utf8(request().to_payload()).unwrap());
    let ask = |more: &[&str]| place.test(&[&["--request", "r.json"], more].concat());
    assert_eq!(ask(&["--signer", "ci"]).0, 0);
    let (code, said) = ask(&["--signer", "ci", "--at", "2026-12-24T00:00:00Z"]);
    assert!(code == 1 && said.starts_with("denied: expired: "), "{said}");
    let (code, said) = ask(&[]);
    assert!(code == 119 && said.contains("--signer"), "{said}");
    let mut other = request();
    other.target = "payments/staging".parse().unwrap();
    place.write("r.json", &String::from_utf8(other.to_payload()).unwrap());
    let (code, said) = ask(&["--signer", "ci"]);
    assert!(code == 1 && said.starts_with("denied: target: "), "{said}");
    place.write("r.json", "{}");
    assert_eq!(ask(&["--signer", "ci"]).0, 119);
}

#[test]
fn a_signed_bundle_is_verified_with_the_real_keys() {
    let place = Place::with(&configuration(PERMIT));
    let write = |by: u8| {
        let request = key(by).sign_envelope(Envelope::new(Request::TYPE, request().to_payload()));
        place.write("b.json", &Bundle { request, approvals: Vec::new() }.to_json());
    };
    write(1);
    let (code, said) = place.test(&["--request", "b.json"]);
    assert!(code == 0 && said.starts_with("allowed by policy0 (signer ci"), "{said}");
    assert_eq!(place.test(&["--request", "b.json", "--signer", "ci"]).0, 119);
    write(8);
    let (code, said) = place.test(&["--request", "b.json"]);
    assert!(code == 1 && said.starts_with("denied: unverified: "), "{said}");
}

#[test]
fn the_pin_is_what_a_task_definition_holds() {
    let text = configuration(PERMIT);
    let (code, out, _) = Place::with(&text).run(&["target", "pin", "t.toml"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let digest = Digest::of(text.as_bytes()).to_string();
    let expected = serde_json::json!({
        "family": "relay_payments_production",
        "entryPoint":
            ["/relay/relay-runner", "run", "--target", "payments/production", "--configuration-sha256", digest],
    });
    assert_eq!((code, json), (0, expected));
}

/// What would become of a job's request, by the claims that `relay doctor` shows.
#[test]
fn claims_stand_for_a_job() {
    let by_token = configuration(PERMIT).replace(
        "[parameters]",
        "[[persons]]\nname = \"octocat\"\nclaims = { \"github/actor_id\" = \"12\" }\n\n[[signers]]\nname = \"main\"\nissuer = \"github\"\nclaims = { repository_id = \"74\", repository_owner_id = \"65\", event_name = \"push\", ref = \"refs/heads/main\" }\ngroups = [\"payments-ci\"]\nci_accounts = [\"111111111111\"]\n\n[parameters]",
    );
    let place = Place::with(&by_token);
    let claims = |change: &str| {
        let all = r#"{"iss":"https://token.actions.githubusercontent.com","exp":1,"repository_id":"74","repository_owner_id":"65","event_name":"push","ref":"refs/heads/main","actor_id":"12"}"#;
        place.write("claims.json", &all.replacen('{', &format!("{{{change}"), 1));
        place.test(&["--claims", "claims.json", "--param", "image=sha256:00ff"])
    };
    let (code, out) = claims("");
    assert!(code == 0 && out.contains("(signer main, 0 approvals)"), "{out}");
    place.write("claims.json", r#"{"iss":"https://token.actions.githubusercontent.com","repository_id":"75","repository_owner_id":"65","event_name":"push","ref":"refs/heads/main"}"#);
    let (code, out) = place.test(&["--claims", "claims.json", "--param", "image=sha256:00ff"]);
    assert!(code == 1 && out.contains("main: `repository_id` is `75`, and accepted is 74"), "{out}");
    place.write("claims.json", r#"{"iss":"https://other.example"}"#);
    let (_, out) = place.test(&["--claims", "claims.json", "--param", "image=sha256:00ff"]);
    assert!(out.contains("no signer of this target accepts tokens of https://other.example"), "{out}");
    for (text, words) in [("{}", "there is no `iss`"), ("[]", "not a JSON object"), ("x", "neither a token nor JSON")] {
        place.write("claims.json", text);
        let (code, _, err) =
            place.run(&["target", "test", "t.toml", "--claims", "claims.json", "--param", "image=sha256:00ff"]);
        assert!(code == 119 && err.contains(words), "{text}: {err}");
    }
    let (code, _, err) = place.run(&["target", "test", "t.toml", "--signer", "main", "--param", "image=sha256:00ff"]);
    assert!(code == 119 && err.contains("--claims FILE"), "{err}");
}
