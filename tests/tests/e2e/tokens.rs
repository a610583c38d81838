//! Deployments without any key: the job's identity token is the signature. The launcher, the
//! runner, and the function that fetches the issuers' keys over HTTPS are the real programs.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use relay_protocol::Digest;
use relay_protocol::keys::IssuerKey;
use relay_tests::kit::deploy::Deploy;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The variables of a job on GitHub that may ask for a token.
const GITHUB: [&str; 2] = ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"];

/// The deployment signs with a token, and has no key.
fn keyless(call: Deploy) -> Deploy {
    call.without("RELAY_SIGNING_KEY").args(&["--key", "oidc"])
}

/// The bearer token of a job whose tokens have these claims in place of the usual ones.
fn bearer(changes: &Value) -> String {
    format!("sandbox.{}", BASE64URL_NOPAD.encode(changes.to_string().as_bytes()))
}

/// A deployment by a job on GitHub with these claims.
fn claiming(call: Deploy, changes: &Value) -> Deploy {
    keyless(call).env(GITHUB[1], &bearer(changes))
}

fn record(sandbox: &Sandbox, id: &str, writer: &str) -> Value {
    let envelope = eventually("the record", || sandbox.evidence(id, &format!("{writer}/record.json")));
    let envelope: Value = serde_json::from_slice(&envelope).unwrap();
    let payload = data_encoding::BASE64.decode(envelope["payload"].as_str().unwrap().as_bytes()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

fn subjects(record: &Value) -> Vec<&str> {
    record["subject"].as_array().unwrap().iter().map(|subject| subject["name"].as_str().unwrap()).collect()
}

// clause: SIG-5, SIG-7, SIG-9, EVD-5, REC-2, REC-3
#[test]
fn a_job_without_any_key_deploys() {
    let sandbox = Sandbox::start(Options::default());
    let by_github = keyless(sandbox.shell("echo github")).run().exits(0);
    assert_eq!(by_github.out(), "github\n");
    let of_github = record(&sandbox, &by_github.id(), "runner");
    let signer = &of_github["predicate"]["signers"][0];
    assert_eq!((&signer["name"], &signer["claims"]["github/actor"]), (&json!("sandbox-github"), &json!("octocat")));
    assert_eq!(subjects(&of_github)[..4], ["request", "request.json", "configuration", "issuer-keys.json"]);

    // Everywhere else the job's role has a token from STS; what the caller tagged is no claim.
    let by_role = GITHUB.iter().fold(keyless(sandbox.shell("echo role")), |call, name| call.without(name));
    let by_role = by_role.run().exits(0);
    let of_role = record(&sandbox, &by_role.id(), "runner");
    let claims = &of_role["predicate"]["signers"][0]["claims"];
    assert_eq!(claims["aws/sub"], "arn:aws:iam::111111111111:role/ci");
    assert_eq!(claims["aws/https:~1~1sts.amazonaws.com~1/aws_account"], "111111111111");

    // A program prints one: here, what GitHub's endpoint says to curl.
    let call = keyless(sandbox.shell("echo program"));
    let program = call.folder().join("token");
    let script = "#!/bin/sh\ncurl -s -H \"authorization: bearer sandbox\" \"$ASK&audience=$1\" | sed 's/.*\"value\":\"//; s/\".*//'\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ask = sandbox.variable(GITHUB[0]).to_owned();
    let call = GITHUB.iter().fold(call, |call, name| call.without(name)).env("ASK", &ask);
    call.args(&["--token-command", program.to_str().unwrap()]).run().exits(0);

    // The launcher's own record, of a refusal, names the claims too.
    let refused = keyless(sandbox.deploy("demo/hello")).param("name", "NOT ALLOWED").run().exits(120);
    let refused = record(&sandbox, &refused.id(), "launcher");
    assert_eq!(refused["predicate"]["signers"][0]["claims"]["github/environment"], "production");
    assert!(subjects(&refused).contains(&"issuer-keys.json"));
}

// clause: SIG-6, SIG-7, ENV-8
#[test]
fn a_job_of_another_place_is_a_stranger() {
    let sandbox = Sandbox::start(Options::default());
    for changes in [
        json!({"repository_id": "75"}),
        json!({"environment": "staging"}),
        json!({"environment": null}),
        json!({"event_name": "pull_request"}),
        json!({"iss": "https://evil.example"}),
    ] {
        let done = claiming(sandbox.shell("echo no"), &changes).run();
        assert!(done.code == 120 && done.out().is_empty(), "{changes}: {}", done.err());
    }
    // A token that is verified, but too old for the request: the requester is told.
    let old = json!({"iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_000_300});
    claiming(sandbox.shell("echo no"), &old).run().exits(120).says("outside the life of the request");
}

// clause: SIG-9, KEY-3, KEY-4
#[test]
fn keys_are_the_issuers_own_and_can_be_revoked() {
    let sandbox = Sandbox::start(Options::default());
    keyless(sandbox.shell("echo one")).run().exits(0);
    assert_eq!(sandbox.http("POST", "keys/rotate", b"").0, 200);
    keyless(sandbox.shell("echo two")).run().exits(120);
    assert_eq!(sandbox.http("POST", "keys/fetch", b"").0, 200);
    keyless(sandbox.shell("echo three")).run().exits(0);

    let (operator, bucket) = (sandbox.operator(), sandbox.bucket());
    let keys: Vec<(String, IssuerKey)> = operator
        .keys(&bucket, "jwks/")
        .into_iter()
        .map(|name| (name.clone(), IssuerKey::parse(&operator.get_object(&bucket, &name).unwrap()).unwrap()))
        .filter(|(_, key)| key.issuer.ends_with("/github"))
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys.iter().filter(|(_, key)| key.gone_at.is_some()).count(), 1, "the old key is kept, and marked");
    for (name, key) in keys {
        let revoked = IssuerKey { revoked: true, ..key };
        operator.put_object(&bucket, &name, revoked.to_json().into_bytes());
    }
    keyless(sandbox.shell("echo four")).run().exits(120);
    // Fetching again does not undo it.
    assert_eq!(sandbox.http("POST", "keys/fetch", b"").0, 200);
    keyless(sandbox.shell("echo five")).run().exits(120);
}

// clause: SIG-8, LAU-12, EVD-5, KEY-4
/// The token expires while the tool runs, the issuer's keys are revoked, and the target is frozen.
#[test]
fn a_deployment_is_judged_as_of_its_beginning() {
    let sandbox = Sandbox::start(Options { settings: vec!["schedule_ms=500".to_owned()], ..Options::default() });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // Two clocks may differ by a minute, so this token is valid for half a minute more.
    let short = json!({"iat": now - 35, "nbf": now - 35, "exp": now - 30});
    let cancelled = claiming(sandbox.shell("trap 'exit 9' INT; while :; do sleep 0.1; done"), &short).start();
    let killed = claiming(sandbox.shell("while :; do sleep 0.1; done"), &short).start();
    cancelled.until_stderr("step 1/1");
    killed.until_stderr("step 1/1");
    let (operator, bucket) = (sandbox.operator(), sandbox.bucket());
    for name in operator.keys(&bucket, "jwks/") {
        let key = IssuerKey::parse(&operator.get_object(&bucket, &name).unwrap()).unwrap();
        operator.put_object(&bucket, &name, IssuerKey { revoked: true, ..key }.to_json().into_bytes());
    }
    let (_, entry_point, configuration) = operator.definition("relay_demo_shell");
    let frozen = format!("frozen = true\n{configuration}");
    let digest = Digest::of(frozen.as_bytes()).to_string();
    let entry_point = [&entry_point[..entry_point.len() - 1], &[digest]].concat();
    operator.register("relay_demo_shell", &entry_point, &frozen, "relay-demo-shell");
    eventually("the token has expired", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        (now > short["exp"].as_u64().unwrap() + 61).then_some(())
    });
    keyless(sandbox.shell("echo new")).run().exits(120);

    cancelled.signal(Signal::INT);
    let cancelled = cancelled.wait().exits(130);
    assert_eq!(record(&sandbox, &cancelled.id(), "runner")["predicate"]["outcome"]["ended"]["reason"], "cancelled");

    let task = sandbox.tasks().into_iter().find(|task| task.status() == "RUNNING").unwrap();
    rustix::process::kill_process(task.pid().unwrap(), Signal::KILL).unwrap();
    let killed = killed.wait();
    assert_ne!(killed.code, 0);
    let launchers = record(&sandbox, &killed.id(), "launcher");
    assert_eq!(launchers["predicate"]["signers"][0]["name"], "sandbox-github");
}

fn guarded(policy: &'static str) -> Arc<Sandbox> {
    let head = Head { policy, ..Head::default() };
    let more = r#"
[[issuers]]
name = "github"
url = "${GITHUB_ISSUER}"
preset = "github"

[[issuers]]
name = "aws"
url = "${STS_ISSUER}"
preset = "aws"

[[persons]]
name = "octocat"
claims = { "github/actor_id" = "12" }

[[signers]]
name = "main"
issuer = "github"
claims = { repository_id = "74", repository_owner_id = "65", event_name = "push", ref = "refs/heads/main" }
groups = ["sandbox"]
ci_accounts = ["111111111111"]

[[signers]]
name = "the-lead"
issuer = "aws"
claims = { sub = "arn:aws:iam::111111111111:role/ci" }
kind = "person"
own_role = true
groups = ["people"]
"#;
    Sandbox::start(Options::default().target("test/keyless", target("test/keyless", &head, SHELL) + more))
}

// clause: APP-4, SIG-8
/// A job on GitHub asks and a person's role approves: there is no key anywhere.
#[test]
fn a_token_approves_what_a_token_asks() {
    let policy = r#"permit(principal in Group::"sandbox", action == Action::"deploy", resource)
            when { context.approvals >= 1 && context.requester_known };
        permit(principal in Group::"people", action == Action::"approve", resource);"#;
    let sandbox = guarded(policy);
    let waiting = keyless(sandbox.deploy("test/keyless")).param("script", "echo approved");
    let waiting = waiting.args(&["--wait-approval", "5m"]).start();
    waiting.until_stderr("relay approve ");
    let said = waiting.stderr_so_far();
    let ticket = said.split_once("relay approve ").unwrap().1.split_whitespace().next().unwrap().to_owned();
    let call = keyless(sandbox.relay(&["approve", &ticket]));
    let call = GITHUB.iter().fold(call, |call, name| call.without(name));
    let approved = call.through(&["sh", "-c", "echo test/keyless | \"$0\" \"$@\""]).run().exits(0);
    assert!(approved.out().contains("github/actor = octocat"), "{}", approved.out());
    assert_eq!(waiting.wait().exits(0).out(), "approved\n");

    // Nobody knows who pressed the button, so no approval helps.
    let unknown = claiming(sandbox.deploy("test/keyless"), &json!({"actor_id": "99"})).param("script", "true");
    unknown.run().exits(120).says("no policy of test/keyless permits main");
}

// clause: SIG-7
#[test]
fn policies_see_the_claims() {
    let policy = r#"permit(principal, action, resource)
        when { principal.hasTag("github/workflow") && principal.getTag("github/workflow") == "deploy" };"#;
    let sandbox = guarded(policy);
    let run = |changes: Value| claiming(sandbox.deploy("test/keyless"), &changes).param("script", "true").run();
    run(json!({})).exits(0);
    run(json!({"workflow": "other"})).exits(120);
    run(json!({"workflow": null})).exits(120);
}

/// What a CI step sees when there is no token, or one that cannot sign.
#[test]
fn a_token_that_cannot_sign_is_named_before_anything_is_published() {
    let sandbox = Sandbox::start(Options::default());
    let call = || GITHUB.iter().fold(keyless(sandbox.shell("true")), |call, name| call.without(name));
    let on_github = call().without("AWS_ACCESS_KEY_ID").env("GITHUB_ACTIONS", "true");
    on_github.run().exits(119).says("may not ask GitHub").says("permissions: id-token: write");
    let refused = keyless(sandbox.shell("true")).env(GITHUB[1], "nobody's");
    refused.run().exits(125).says("HTTP status 403").says("id-token: write");
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let other = format!(
        "{}.{}.{}",
        part(r#"{"alg":"ES384","kid":"k"}"#),
        part(r#"{"iss":"i","aud":"a","iat":1,"exp":2}"#),
        part("s")
    );
    let symmetric = format!(
        "{}.{}.{}",
        part(r#"{"alg":"HS256","kid":"k"}"#),
        part(r#"{"iss":"i","aud":"a","iat":1,"exp":2}"#),
        part("s")
    );
    for (printed, code, words) in [
        ("exit 3", 125, "ended with exit status: 3"),
        ("echo", 119, "not a compact JWS"),
        ("head -c 5000 /dev/zero | tr '\\0' a", 119, "it has 5000 characters; the limit is 4096"),
        (&format!("echo {other}"), 119, "not for the audience that was asked for"),
        (&format!("echo {symmetric}"), 119, "the header's `alg` is missing, refused, or of another form"),
    ] {
        let call = call();
        let program = call.folder().join("token");
        std::fs::write(&program, format!("#!/bin/sh\n{printed}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let done = call.args(&["--token-command", program.to_str().unwrap()]).run().exits(code).says(words);
        assert!(!done.err().contains(&other) && !done.err().contains(&symmetric), "a token is never printed");
    }
    assert!(sandbox.calls("sns", "Publish").is_empty());
}

#[test]
fn the_doctor_says_what_the_token_claims() {
    let sandbox = Sandbox::start(Options::default());
    let done = keyless(sandbox.relay(&["doctor", "demo/hello", "--try", "--param", "name=x"])).run().exits(0);
    assert!(done.out().contains("GitHub's token endpoint gave an identity token"), "{}", done.out());
    assert!(done.out().contains("/repository_id = 74"), "{}", done.out());
}
