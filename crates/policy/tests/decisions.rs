//! Decisions about requests, made with the example configuration of the documentation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use relay_policy::{Allowed, Asked, Configuration, ConfigurationError, Denied, authorise, check, may_cancel, verify};
use relay_protocol::keys::{IssuerKeys, PrivateKey};
use relay_protocol::limits::{COMMANDS_MAX, CONTROL_LIFETIME};
use relay_protocol::request::{Origin, Stage};
use relay_protocol::{
    Approval, Bundle, Cancel, Control, DeploymentId, Digest, Envelope, Reason, Request, Statement as _, Ticket,
    Timestamp,
};

const ISSUED: i64 = 1_795_300_000;

fn key(n: u8) -> PrivateKey {
    PrivateKey::from_seed([n; 32])
}

/// The head of the configuration that the tests of this crate and of `relay-admin` share, completed
/// with what this target runs.
fn text(policy: &str) -> String {
    let keyed = |text: String, n: u8| text.replace(&format!("${{KEY_{n}}}"), &key(n).public().to_string());
    let head = (1..=6).fold(include_str!("payments.toml").replace("${POLICY}", policy), keyed);
    // In these tests, anna has no CI account.
    let anna = "groups = [\"people\"]\n";
    head.replacen(&format!("{anna}ci_accounts = [\"111111111111\"]\n"), anna, 1)
        + r#"[parameters]
image = { pattern = "sha256:[0-9a-f]{4}" }
source = { artifact = "s3://example-ci-artifacts/payments/", max = "50MiB" }

[environment]
TF_IN_AUTOMATION = "1"

[[steps]]
name = "plan"
run = ["terraform", "plan", "-var", "image={image}"]
success_codes = [0, 2]

[[steps]]
name = "apply"
run = ["terraform", "apply", "tfplan"]
"#
}

const PERMIT: &str = r#"permit(principal in Group::"payments-ci", action == Action::"deploy", resource);"#;
const APPROVED: &str = r#"@id("two-persons") permit(principal in Group::"payments-ci", action == Action::"deploy", resource) when { context.approvals >= 1 };
permit(principal in Group::"people", action == Action::"approve", resource);"#;

fn request(change: impl FnOnce(&mut Request)) -> Request {
    request_at(ISSUED, change)
}

fn request_at(issued: i64, change: impl FnOnce(&mut Request)) -> Request {
    let id = DeploymentId::new(u64::try_from(issued).unwrap() * 1_000, [1; 10]);
    let queue = |name: String| format!("https://sqs.eu-west-1.amazonaws.com/111111111111/{name}").parse().unwrap();
    let mut request = Request {
        audience: "arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap(),
        target: "payments/production".parse().unwrap(),
        parameters: BTreeMap::from([
            ("image".parse().unwrap(), "sha256:00ff".into()),
            ("source".parse().unwrap(), "0".repeat(64)),
        ]),
        reply_queue: queue(id.reply_queue_name()),
        control_queue: Some(queue(id.control_queue_name())),
        deployment_id: id,
        session_key: key(9).public().clone(),
        ticket: Some(Ticket::new([7; 16])),
        issued_at: Timestamp::from_unix(issued),
        expires_at: Timestamp::from_unix(issued + 900),
        origin: Origin::default(),
        traceparent: None,
    };
    change(&mut request);
    request
}

/// An approval of `request` under this policy.
fn approval_under(policy: &str, request: &Request, by: u8, change: impl FnOnce(&mut Approval)) -> Envelope {
    let mut approval = Approval {
        subject: request.subject(Digest::of(text(policy).as_bytes())).unwrap_or(Digest::of(b"none")),
        issued_at: request.issued_at.plus(-60),
        expires_at: request.issued_at.plus(3_600),
    };
    change(&mut approval);
    key(by).sign_envelope(Envelope::new(Approval::TYPE, approval.to_payload()))
}

/// An approval of `request` under [`APPROVED`].
fn approval(request: &Request, by: u8, change: impl FnOnce(&mut Approval)) -> Envelope {
    approval_under(APPROVED, request, by, change)
}

fn asked(configuration: &Configuration, request: &Request, by: u8, approvals: Vec<Envelope>) -> Asked {
    let envelope = key(by).sign_envelope(Envelope::new(Request::TYPE, request.to_payload()));
    verify(&Bundle { request: envelope, approvals }, configuration, &IssuerKeys::default()).unwrap()
}

fn decide(policy: &str, request: &Request, by: u8, approvals: Vec<Envelope>) -> Result<Vec<String>, Reason> {
    let configuration = Configuration::parse(&text(policy)).unwrap();
    let asked = asked(&configuration, request, by, approvals);
    authorise(&configuration, &asked, request.issued_at, Stage::Launch)
        .map(|allowed| allowed.policies)
        .map_err(|Denied { reason, .. }| reason)
}

#[test]
fn the_policy_decides_by_group_and_is_named() {
    assert_eq!(decide(PERMIT, &request(|_| {}), 1, vec![]), Ok(vec!["policy0".into()]));
    assert_eq!(decide(PERMIT, &request(|_| {}), 2, vec![]), Err(Reason::Queue), "anna has no CI account");
    let others = r#"permit(principal in Group::"people", action, resource);"#;
    assert_eq!(decide(others, &request(|_| {}), 1, vec![]), Err(Reason::Policy));
}

// clause: APP-2, APP-3, APP-4
#[test]
fn approvals_count_persons_other_than_those_who_ask() {
    let two = APPROVED.replace(">= 1", ">= 2");
    let ok = Ok(vec!["two-persons".to_owned()]);
    let r = request(|_| {});
    let by = |policy: &str, asks: u8, approve: &[u8]| {
        let approvals = approve.iter().map(|by| approval_under(policy, &r, *by, |_| {})).collect();
        decide(policy, &r, asks, approvals)
    };
    assert_eq!(by(APPROVED, 1, &[2]), ok);
    assert_eq!(by(APPROVED, 1, &[3]), Err(Reason::Approval), "CI's other key is no person");
    assert_eq!(by(APPROVED, 1, &[5]), Err(Reason::Approval), "an agent is no person");
    assert_eq!(by(&two, 1, &[2, 4]), Err(Reason::Approval), "two keys of one person");
    assert_eq!(by(&two, 1, &[2, 2]), Err(Reason::Approval), "one approval, twice");
    assert_eq!(by(&two, 1, &[2, 6]), ok);
    assert_eq!(by(APPROVED, 4, &[2]), Err(Reason::Approval), "anna asks by one key and approves by another");
    assert_eq!(by(APPROVED, 4, &[6]), ok);
}

// clause: APP-2, APP-4
#[test]
fn an_approval_is_bound_to_the_configuration_and_the_ticket() {
    let r = request(|_| {});
    let newer = APPROVED.replace("two-persons", "newer");
    assert_eq!(decide(&newer, &r, 1, vec![approval(&r, 2, |_| {})]), Err(Reason::Approval), "another configuration");
    let again = request(|r| r.ticket = Some(Ticket::new([8; 16])));
    assert_eq!(decide(APPROVED, &again, 1, vec![approval(&r, 2, |_| {})]), Err(Reason::Approval), "another ticket");
    let without = request(|r| r.ticket = None);
    assert_eq!(decide(APPROVED, &without, 1, vec![approval(&without, 2, |_| {})]), Err(Reason::Approval));
    assert_eq!(decide(APPROVED, &without, 1, vec![approval(&r, 2, |_| {})]), Err(Reason::Approval));
}

// clause: APP-4
#[test]
fn the_policies_say_who_may_approve_what() {
    let r = request(|_| {});
    let under = |approve: &str, by: u8, change: fn(&mut Approval)| {
        let policy = format!("{}\n{approve}", APPROVED.lines().next().unwrap());
        decide(&policy, &r, 1, vec![approval_under(&policy, &r, by, change)])
    };
    let ok = Ok(vec!["two-persons".to_owned()]);
    let people = r#"permit(principal in Group::"people", action == Action::"approve", resource)"#;
    assert_eq!(under("", 2, |_| {}), Err(Reason::Approval), "no policy permits an approval");
    assert_eq!(under(&format!("{people};"), 2, |_| {}), ok);
    for (condition, good) in [
        ("context.requester.name == \"ci\" && context.requester.kind == \"ci\"", true),
        ("context.requester.name == \"anna\"", false),
        ("context.requester has person", false),
        ("principal has person && principal.person == \"anna\"", true),
        ("context.approvals == 0", true),
        ("context.requester_known", false),
        ("context.parameters.image == \"sha256:00ff\"", true),
        // The request is of 22:26:40; approvals are a minute older.
        ("context.issued_at < datetime(\"2026-11-21T22:26:00Z\")", true),
        ("context.issued_at < datetime(\"2026-11-21T22:25:40Z\")", false),
    ] {
        let expected = if good { ok.clone() } else { Err(Reason::Approval) };
        assert_eq!(under(&format!("{people} when {{ {condition} }};"), 2, |_| {}), expected, "{condition}");
    }
    let erring = format!("{people} when {{ 9223372036854775807 + context.approvals + 1 > 0 }};");
    assert_eq!(under(&erring, 2, |_| {}), Err(Reason::Policy), "an error means no, as everywhere");
}

// clause: APP-4
#[test]
fn an_approval_that_does_not_count_is_told_why() {
    let configuration = Configuration::parse(&text(APPROVED)).unwrap();
    let told = |r: &Request, approval: Envelope| {
        let asked = asked(&configuration, r, 4, vec![approval]);
        authorise(&configuration, &asked, r.issued_at, Stage::Launch).unwrap_err().message
    };
    let r = request(|_| {});
    for (by, why) in [(2, "this person asked for the deployment"), (3, "its kind is `ci`"), (5, "its kind is `agent`")]
    {
        let message = told(&r, approval(&r, by, |_| {}));
        assert!(message.starts_with("0 persons have approved exactly this deployment"), "{message}");
        assert!(message.contains(why), "{message}");
    }
    let late = told(&r, approval(&r, 6, |a| a.expires_at = a.issued_at.plus(59)));
    assert!(late.contains("the approval by ben does not count: it was valid from "), "{late}");
    let other = told(&r, approval(&request(|r| r.ticket = Some(Ticket::new([9; 16]))), 6, |_| {}));
    assert!(other.contains("another ticket"), "{other}");
    let without = request(|r| r.ticket = None);
    assert!(told(&without, approval(&r, 6, |_| {})).contains("no ticket"));
}

// clause: APP-2, APP-3, APP-4
#[test]
fn an_approval_covers_exactly_these_parameters_for_its_time() {
    let r = request(|_| {});
    let ok = Ok(vec!["two-persons".to_owned()]);
    assert_eq!(decide(APPROVED, &r, 1, vec![]), Err(Reason::Approval));
    assert_eq!(decide(APPROVED, &r, 1, vec![approval(&r, 2, |_| {})]), ok);
    assert_eq!(decide(APPROVED, &r, 1, vec![approval(&r, 8, |_| {})]), Err(Reason::Approval), "an unknown key");
    let other = request(|r| {
        r.parameters.insert("image".parse().unwrap(), "sha256:aaaa".into());
    });
    assert_eq!(decide(APPROVED, &r, 1, vec![approval(&other, 2, |_| {})]), Err(Reason::Approval), "other parameters");
    assert_eq!(
        decide(APPROVED, &r, 1, vec![approval(&r, 2, |a| a.expires_at = a.issued_at.plus(59))]),
        Err(Reason::Approval),
        "expired"
    );
    assert_eq!(
        decide(APPROVED, &r, 1, vec![approval(&r, 2, |a| a.expires_at = a.issued_at.plus(86_401))]),
        Err(Reason::Approval),
        "its lifetime is too long"
    );
}

#[test]
fn an_evaluation_error_denies_although_a_permit_matches() {
    // Long arithmetic overflows when it is evaluated. Cedar by itself would skip this forbid and
    // permit.
    let erring = format!(
        r#"{PERMIT} forbid(principal, action, resource) when {{ context.hour + 9223372036854775807 > 0 && context.hour * 9223372036854775807 == 5 }};"#
    );
    let configuration = Configuration::parse(&text(&erring)).unwrap();
    let r = request(|_| {});
    let denied =
        authorise(&configuration, &asked(&configuration, &r, 1, vec![]), r.issued_at, Stage::Launch).unwrap_err();
    assert_eq!(denied.reason, Reason::Policy);
    assert!(denied.message.contains("could not be evaluated"), "{}", denied.message);
}

#[test]
fn time_is_the_requests_own_and_a_forbid_is_a_freeze() {
    let weekend = format!(
        r#"{PERMIT} @id("weekend") forbid(principal, action, resource) when {{ ["saturday", "sunday"].contains(context.weekday) }};"#
    );
    let at = |text: &str| request_at(text.parse::<Timestamp>().unwrap().unix(), |_| {});
    let saturday = at("2026-11-21T12:00:00Z");
    let monday = at("2026-11-23T12:00:00Z");
    assert_eq!(decide(&weekend, &saturday, 1, vec![]), Err(Reason::Policy));
    assert!(decide(&weekend, &monday, 1, vec![]).is_ok());
}

// clause: LAU-4
#[test]
fn a_freeze_cannot_be_dated_back() {
    let freeze = format!("{PERMIT} forbid(principal, action, resource) when {{ context.hour >= 12 }};");
    let configuration = Configuration::parse(&text(&freeze)).unwrap();
    let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let before = request_at(noon.unix() - 1, |_| {});
    let asked = asked(&configuration, &before, 1, vec![]);
    let at = |now: Timestamp, stage| authorise(&configuration, &asked, now, stage).map(|_| ()).map_err(|d| d.reason);
    assert_eq!(at(noon.plus(-1), Stage::Launch), Ok(()));
    assert_eq!(at(noon.plus(960), Stage::Launch), Err(Reason::Expired));
    assert_eq!(at(noon.plus(899), Stage::Launch), Err(Reason::Policy), "the launcher's own clock says noon");
    assert_eq!(at(noon.plus(899), Stage::Run), Ok(()), "the runner starts later, and asks as of the request");
    // A freeze that is over by the launcher's clock was not when the request was made.
    let late = request_at(noon.unix() + 43_199, |_| {});
    let asked = self::asked(&configuration, &late, 1, vec![]);
    assert_eq!(
        authorise(&configuration, &asked, noon.plus(43_260), Stage::Launch).map(|_| ()).map_err(|d| d.reason),
        Err(Reason::Policy)
    );
}

// clause: LAU-4
#[test]
fn a_policy_that_decides_nothing_or_nests_too_deeply_is_refused() {
    let error = |policy: &str| Configuration::parse(&text(policy)).unwrap_err().to_string();
    let template = format!(r#"{PERMIT} @id("not-bob") forbid(principal == ?principal, action, resource);"#);
    assert!(error(&template).contains("not-bob is a template"), "{}", error(&template));
    let when = |condition: &str| format!("permit(principal, action, resource) when {{ {condition} }};");
    let nested = |levels: usize| when(&format!("{}true{}", "(".repeat(levels), ")".repeat(levels)));
    assert!(Configuration::parse(&text(&nested(63))).is_ok());
    let lists = format!("{}{} == {}{}", "[".repeat(5_000), "]".repeat(5_000), "[".repeat(5_000), "]".repeat(5_000));
    for odd in [nested(64), nested(152), nested(20_000), when(&lists), when(&"!".repeat(3_000))] {
        assert!(Configuration::parse(&text(&odd)).is_err(), "{} bytes", odd.len());
    }
    let digest = |n: usize| format!("\"sha256:{n:04x}\"");
    let digests = (0..600).map(digest).collect::<Vec<_>>().join(", ");
    assert!(Configuration::parse(&text(&when(&format!("[{digests}].contains(context.parameters.image)")))).is_ok());
}

// clause: LAU-4
#[test]
fn a_long_chain_of_alternatives_is_read_and_asked() {
    let alternative = |n: usize| format!("context.parameters.image == \"sha256:{n:04x}\"");
    let chain = (0..499).map(alternative).collect::<Vec<_>>().join(" || ");
    let policy = format!(r#"permit(principal in Group::"payments-ci", action, resource) when {{ {chain} }};"#);
    assert!(decide(&policy, &request(|_| {}), 1, vec![]).is_ok());
    let other = request(|r| drop(r.parameters.insert("image".parse().unwrap(), "sha256:ffff".into())));
    assert_eq!(decide(&policy, &other, 1, vec![]), Err(Reason::Policy));
}

// clause: LIM-8
#[test]
fn the_command_lines_are_bounded() {
    let long = "x".repeat(16_000);
    let many = (0..9).map(|_| "\"{image}\"").collect::<Vec<_>>().join(", ");
    let with = |arguments: &str| {
        let text = text(PERMIT).replace("sha256:[0-9a-f]{4}", "x*").replace("\"-var\", \"image={image}\"", arguments);
        let configuration = Configuration::parse(&text).unwrap();
        let r = request(|r| drop(r.parameters.insert("image".parse().unwrap(), long.clone())));
        authorise(&configuration, &asked(&configuration, &r, 1, vec![]), r.issued_at, Stage::Launch)
            .map(|_| ())
            .map_err(|denied| denied.reason)
    };
    assert_eq!(with("\"{image}\""), Ok(()));
    assert_eq!(with(&many), Err(Reason::TooLarge));
    // The limit is the last size that is allowed. Without these arguments, the steps have `fixed`
    // bytes.
    let fixed = bytes_of_commands(&text(PERMIT).replace("\"-var\", \"image={image}\"", "\"\""));
    let exactly = |size: usize| {
        let (images, rest) = ((size - fixed) / long.len(), (size - fixed) % long.len());
        format!("{}\"{}\"", "\"{image}\", ".repeat(images), "y".repeat(rest))
    };
    assert_eq!(with(&exactly(COMMANDS_MAX)), Ok(()));
    assert_eq!(with(&exactly(COMMANDS_MAX + 1)), Err(Reason::TooLarge));
}

// clause: REQ-9, REQ-10, RUN-5
#[test]
fn time_and_place_are_told_apart() {
    let configuration = Configuration::parse(&text(PERMIT)).unwrap();
    let at = |r: &Request, now: i64, stage| {
        authorise(&configuration, &asked(&configuration, r, 1, vec![]), Timestamp::from_unix(now), stage)
            .map(|_| ())
            .map_err(|d| (d.reason, d.message))
    };
    let r = request(|_| {});
    assert!(at(&r, ISSUED + 960, Stage::Launch).is_ok());
    let (reason, message) = at(&r, ISSUED + 961, Stage::Launch).unwrap_err();
    assert_eq!((reason, message.starts_with("the request expired 1m01s ago")), (Reason::Expired, true), "{message}");
    assert!(at(&r, ISSUED + 1_500, Stage::Run).is_ok());
    assert_eq!(at(&r, ISSUED + 1_501, Stage::Run).unwrap_err().0, Reason::Expired);
    assert!(at(&r, ISSUED - 60, Stage::Launch).is_ok());
    assert_eq!(at(&r, ISSUED - 61, Stage::Launch).unwrap_err().0, Reason::NotYetValid);
    assert_eq!(
        at(&request(|r| r.expires_at = r.issued_at.plus(901)), ISSUED, Stage::Launch).unwrap_err().0,
        Reason::Lifetime
    );
    assert_eq!(
        at(
            &request(|r| r.audience = "arn:aws:sns:eu-west-1:333333333333:relay".parse().unwrap()),
            ISSUED,
            Stage::Launch
        )
        .unwrap_err()
        .0,
        Reason::Audience
    );
    assert_eq!(
        at(&request(|r| r.target = "payments/staging".parse().unwrap()), ISSUED, Stage::Launch).unwrap_err().0,
        Reason::Target
    );
    for queue in [
        "https://sqs.eu-west-1.amazonaws.com/333333333333/relay-x-reply",
        "https://sqs.eu-west-1.amazonaws.com/111111111111/other",
        "https://sqs.us-east-1.amazonaws.com/111111111111/relay-x-reply",
    ] {
        assert_eq!(
            at(&request(|r| r.reply_queue = queue.parse().unwrap()), ISSUED, Stage::Launch).unwrap_err().0,
            Reason::Queue,
            "{queue}"
        );
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    let says = |from: &str, to: &str| match Configuration::parse(&text(PERMIT).replace(from, to)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted with {to}"),
    };
    for (from, to, expected) in [
        ("timeout = \"45m\"", "timeout = \"45 minutes\"", "`timeout`"),
        ("timeout = \"45m\"", "time_out = \"45m\"", "unknown field"),
        ("image={image}", "image={imagge}", "there is no parameter `imagge`"),
        ("image={image}", "image={image", "write a parameter as"),
        ("[\"terraform\", \"plan\"", "[\"{image}\", \"plan\"", "may not choose the program"),
        ("sha256:[0-9a-f]{4}", "sha256:[0-9a-f", "parameters.image"),
        ("s3://example-ci-artifacts/payments/", "https://x/", "s3://bucket/prefix/"),
        ("TF_IN_AUTOMATION", "RELAY_ENVELOPE", "reserved for relay"),
        (PERMIT, "permit(principal, action, resource) when { context.nonsense };", "policy"),
        (PERMIT, "", "there is no policy"),
        (PERMIT, "permit(", "not valid Cedar"),
        ("target = \"payments/production\"", "target = \"payments\"", "a target such as"),
    ] {
        let said = says(from, to);
        assert!(said.contains(expected), "{to}: {said}");
    }
    let endpoint = text(PERMIT).replacen("timeout", "endpoint = \"http://evil.example\"\ntimeout", 1);
    assert!(
        matches!(Configuration::parse(&endpoint), Err(ConfigurationError::Field { field, .. }) if field == "endpoint")
    );
    for (endpoint, good) in [
        ("https://vpce.example", true),
        ("https://vpce.example:8443/", true),
        ("http://127.0.0.1:4566", true),
        ("http://[::1]:4566", true),
        ("http://127.0.0.1:80@evil.example/", false),
        ("http://localhost:80@evil.example", false),
        ("http://127.0.0.1.evil.example:80", false),
        ("http://127.0.0.1:80/path", false),
        ("https://user@host", false),
        ("ftp://127.0.0.1:1", false),
        ("127.0.0.1:4566", false),
        ("not a URL", false),
    ] {
        let text = text(PERMIT).replacen("timeout", &format!("endpoint = \"{endpoint}\"\ntimeout"), 1);
        assert_eq!(Configuration::parse(&text).is_ok(), good, "{endpoint}");
    }
    let twice = text(PERMIT).replace(&key(3).public().to_string(), &key(1).public().to_string());
    let said = Configuration::parse(&twice).unwrap_err().to_string();
    assert!(said.contains("`signers[2]`: has the same key as signers[0]"), "{said}");
}

#[test]
fn doubtful_things_are_found() {
    let findings = |policy: &str, from: &str, to: &str| {
        let configuration = Configuration::parse(&text(policy).replace(from, to)).unwrap();
        check(&configuration)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.field, finding.problem))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(findings(PERMIT, "image={image}", "x").contains("no step uses {image}"));
    assert!(findings(PERMIT, "sha256:[0-9a-f]{4}", "^sha256:[0-9a-f]{4}").contains("an anchor at one end only"));
    assert!(findings(PERMIT, "sha256:[0-9a-f]{4}", ".*").contains("accepts any value"));
    assert!(
        findings(r#"permit(principal in Group::"typo", action, resource);"#, "", "")
            .contains("no signer is in the group `typo`")
    );
    let three = APPROVED.replace(">= 1", ">= 3");
    assert!(findings(&three, "", "").contains("it asks for 3 approvals"), "{}", findings(&three, "", ""));
    let nobody = APPROVED.replace("\"approve\"", "\"cancel\"");
    assert!(findings(&nobody, "", "").contains("no permit applies to the action `approve`"));
    let known = APPROVED.replace(">= 1", ">= 1 && context.requester_known");
    assert!(findings(&known, "", "").contains("images: the policy asks for approvals"));
    let named = format!("images = {{ tool = \"tool@sha256:{}\" }}\ntimeout", "0".repeat(64));
    let found = findings(&known, "timeout", &named);
    assert!(!found.contains("approvals"), "{found}");
    for (from, to, expected) in [
        ("alias/relay-payments-production", "alias/relay-target", "the target's stack makes the key"),
        ("alias/relay-payments-production", "arn:aws:kms:eu-west-1:333333333333:key/x", "is not the ARN of a KMS key"),
        (
            "bucket = \"relay-2222",
            "bucket = \"relay-3333",
            "bucket: foundation.yaml makes the bucket relay-222222222222",
        ),
        ("evidence = \"relay-", "evidence = \"other-", "evidence: foundation.yaml makes the bucket relay-evidence-"),
        (":relay\"\nbucket", ":other\"\nbucket", "topic: foundation.yaml makes the topic `relay`"),
        ("ci_accounts = [\"111111111111\"]", "ci_accounts = [\"222222222222\"]", "the target's own account"),
        ("image = {", "db_password = { pattern = \"x\" }\nimage = {", "no place for a secret"),
    ] {
        let found = findings(PERMIT, from, to);
        assert!(found.contains(expected), "{to}: {found}");
    }
    assert_eq!(findings(PERMIT, "", ""), "", "people need no CI account");
    let bot = format!("key = \"{}\"\ngroups = [\"people\"]\n", key(5).public());
    let found = findings(PERMIT, &format!("{bot}ci_accounts = [\"111111111111\"]\n"), &bot);
    assert!(found.contains("`bot` has no `ci_accounts`"), "{found}");
    let never = r#"permit(principal, action, resource) when { principal is Target };"#;
    assert!(findings(never, "", "").contains("policy:"), "{}", findings(never, "", ""));
}

/// The bytes of all command lines that a configuration leads to.
fn bytes_of_commands(text: &str) -> usize {
    let configuration = Configuration::parse(text).unwrap();
    let r = request(|_| {});
    let asked = asked(&configuration, &r, 1, vec![]);
    let Allowed { commands: (steps, rollback), .. } =
        authorise(&configuration, &asked, r.issued_at, Stage::Launch).unwrap();
    steps.iter().chain(&rollback).flatten().map(String::len).sum()
}

// clause: CTL-1, CTL-2, CTL-3, CTL-4
#[test]
fn a_deployment_is_stopped_by_its_session_or_by_whom_the_policy_lets() {
    let policy = r#"permit(principal in Group::"payments-ci", action == Action::"deploy", resource);
        permit(principal in Group::"people", action == Action::"cancel", resource);"#;
    let configuration = Configuration::parse(&text(policy)).unwrap();
    let r = request(|_| {});
    let asked = asked(&configuration, &r, 1, vec![]);
    let may = |by: u8, change: fn(&mut Control), later: i64| {
        let mut control = Control {
            deployment_id: r.deployment_id.clone(),
            request_digest: asked.request.digest(),
            issued_at: r.issued_at,
            cancel: Cancel::Requested,
        };
        change(&mut control);
        let envelope = key(by).sign_envelope(Envelope::new(Control::TYPE, control.to_payload()));
        may_cancel(&configuration, &asked, &envelope, &IssuerKeys::default(), r.issued_at.plus(later))
    };
    // 9 is the session key, 2 is a person, 1 is CI, whom the policy does not let cancel, and 7 is a
    // stranger.
    for (by, expected) in [(9, true), (2, true), (1, false), (7, false)] {
        assert_eq!(may(by, |_| {}, 0), expected, "{by}");
        assert!(!may(by, |control| control.deployment_id = DeploymentId::new(1, [2; 10]), 0), "{by}");
        assert!(!may(by, |control| control.request_digest = Digest::of(b"other"), 0), "{by}");
        assert_eq!(may(by, |_| {}, CONTROL_LIFETIME), expected, "{by}");
        assert!(!may(by, |_| {}, CONTROL_LIFETIME + 1), "{by}");
    }
}

// clause: BUN-3, DRY-2
#[test]
fn what_was_asked_is_kept_and_who_asked_is_named() {
    let configuration = Configuration::parse(&text(APPROVED)).unwrap();
    let r = request(|_| {});
    let one = asked(&configuration, &r, 1, vec![approval(&r, 2, |_| {})]);
    let kept = Bundle::parse(one.canonical().as_bytes()).unwrap();
    assert_eq!((kept.request.digest(), kept.approvals.len()), (one.request.digest(), 1));

    let envelope = key(1).sign_envelope(Envelope::new(relay_protocol::DryRun::TYPE, r.to_payload()));
    let bundle = Bundle { request: envelope, approvals: vec![] };
    let tried = relay_policy::verify_dry_run(&bundle, &configuration, &IssuerKeys::default()).unwrap();
    let ticket = Some(format!("deployments/payments/production/tickets/{}", r.ticket.clone().unwrap()));
    assert_eq!((one.ticket(), tried.ticket()), (ticket.clone(), ticket));
    assert_eq!(tried.requesters(), one.request.signers().iter().map(|signer| signer.name.clone()).collect::<Vec<_>>());
    let denied = tried.decide(&configuration, r.issued_at).unwrap_err();
    assert_eq!(denied.message, "0 persons have approved exactly this deployment; the policy requires 1 more");
}

// clause: RUN-15
#[test]
fn only_a_target_that_changes_nothing_has_a_capacity_and_only_its_own() {
    let with = |fields: &str| {
        let text = text(PERMIT).replacen("\ntopic", &format!("\n{fields}\ntopic"), 1);
        Configuration::parse(&text).map_err(|error| error.to_string())
    };
    let own = "read_only = true\ncapacity = \"relay_payments_production\"";
    assert_eq!(with(own).unwrap().capacity.as_deref(), Some("relay_payments_production"));
    assert!(with("read_only = true").unwrap().capacity.is_none());
    for (fields, problem) in [
        ("capacity = \"relay_payments_production\"", "needs `read_only = true`"),
        ("read_only = true\ncapacity = \"relay_payments_plan\"", "a capacity provider serves one target"),
        ("read_only = true\ncapacity = \"FARGATE_SPOT\"", "a capacity provider serves one target"),
        ("read_only = true\ncapacity = \"\"", "a capacity provider serves one target"),
    ] {
        let error = with(fields).unwrap_err();
        assert!(error.contains(problem), "{fields}: {error}");
    }
}
