//! Vectors of claim, lock and override: which are accepted, and which are malformed.

use super::request;
use super::{Cases, Vector};

const TASK: &str = "arn:aws:ecs:eu-west-1:222222222222:task/relay/0123456789abcdef0123456789abcdef";

fn case(object: &str, expect: &str, comment: &str, body: &str) -> Vector {
    let vector = Vector { object: object.into(), ..Vector::default() };
    vector.odd("ENC-6", expect, comment).body(body)
}

pub(super) fn cases() -> Cases {
    let digest = request::digest();
    let runner = format!(r#"{{"runner":{{"task_arn":"{TASK}","nonce":"0f1e2d3c"}}}}"#);
    let launcher = r#"{"launcher":{"verdict":"refused","reason":"busy","message":"another deployment is running"}}"#;
    let held_by = |holder: &str| format!(r#"{{"request_digest":"{digest}","holder":{holder}}}"#);
    let claim = |expect: &str, comment: &str, body: &str| case("claim", expect, comment, body);
    let odd = |comment: &str, body: &str| claim("malformed-payload", comment, body);
    let slot = format!(r#"{{"deployment_id":"{}","task_arn":"{TASK}","taken_at":1780315200}}"#, request::id());
    let named = |expect: &str, comment: &str, body: &str| case("override", expect, comment, body);
    let reference = format!(
        r#"{{"target":"payments/production","deployment_id":"{}","request_digest":"{digest}"}}"#,
        request::id()
    );
    let lock = |expect: &str, comment: &str, body: &str| case("lock", expect, comment, body);
    let mut all = vec![
        ("by-a-runner", claim("ok", "A runner's claim.", &held_by(&runner))),
        ("by-the-launcher", claim("ok", "The launcher's verdict.", &held_by(launcher))),
        (
            "holder-as-array",
            odd("The holder's values in an array.", &held_by(&format!(r#"{{"runner":["{TASK}","0f"]}}"#))),
        ),
        (
            "launcher-as-array",
            odd("The verdict's values in an array.", &held_by(r#"{"launcher":["refused","busy","another"]}"#)),
        ),
        ("claim-as-array", odd("The claim's values in an array.", &format!(r#"["{digest}",{runner}]"#))),
        (
            "holder-unknown-member",
            odd("A member that nobody knows.", &held_by(&runner.replace(r#""nonce""#, r#""at":1,"nonce""#))),
        ),
        ("holder-twice", odd("Two holders.", &held_by(&format!(r#"{runner},"holder":{launcher}"#)))),
        ("holder-of-nobody", odd("A holder that nobody knows.", &held_by(r#"{"person":{}}"#))),
        (
            "two-holders-in-one",
            odd(
                "A runner's and the launcher's in one object.",
                &held_by(&runner.replace("}}", &format!("}},{}", &launcher[1..]))),
            ),
        ),
        ("unknown-verdict", odd("A verdict that there is not.", &held_by(&launcher.replace("refused", "postponed")))),
        ("trailing-bytes", odd("Something after the object.", &(held_by(&runner) + "x"))),
        ("lock-held", lock("ok", "A slot that is held.", &format!(r#"{{"holder":{slot}}}"#))),
        ("lock-free", lock("ok", "A slot that was freed.", "{}")),
        ("lock-null", lock("ok", "An optional member may be null.", r#"{"holder":null}"#)),
        (
            "lock-holder-as-array",
            lock(
                "malformed-payload",
                "The holder's values in an array.",
                &format!(r#"{{"holder":["{}","{TASK}",1780315200]}}"#, request::id()),
            ),
        ),
        (
            "lock-taken-before-1970",
            lock(
                "malformed-payload",
                "A negative time.",
                &format!(r#"{{"holder":{}}}"#, slot.replace(":1780315200", ":-1")),
            ),
        ),
        ("override", named("ok", "The request that a task is started for.", &reference)),
        (
            "override-unknown-member",
            named(
                "malformed-payload",
                "A member that nobody knows.",
                &reference.replacen('{', r#"{"command":"sh","#, 1),
            ),
        ),
        (
            "override-as-array",
            named(
                "malformed-payload",
                "The members' values in an array.",
                &format!(r#"["payments/production","{}","{digest}"]"#, request::id()),
            ),
        ),
        (
            "override-without-a-digest",
            named(
                "malformed-payload",
                "`request_digest` is absent.",
                &reference.replace(&format!(r#","request_digest":"{digest}""#), ""),
            ),
        ),
        (
            "override-with-a-bundle",
            named("malformed-payload", "A bundle in place of the reference.", r#"{"request":{},"approvals":[]}"#),
        ),
        ("lock-as-array", lock("malformed-payload", "The lock's one value in an array.", &format!("[{slot}]"))),
    ];
    for (name, object, expect, comment, body) in super::token::objects() {
        let vector = Vector { object: object.into(), ..Vector::default() };
        all.push((name, vector.odd("SIG-9, EVD-5", expect, comment).body(body)));
    }
    all
}
