//! Vectors of the control statement: its signer, its deployment, and its validity period.

use relay_protocol::{DeploymentId, Statement as _};

use super::request::{self, ISSUED, Payload, text};
use super::verdict::moment;
use super::{Cases, Vector, keys};

const TYPE: &str = relay_protocol::Control::TYPE;

pub(super) fn good() -> Payload {
    Payload::of(&[
        ("deployment_id", text(&request::id())),
        ("request_digest", text(&request::digest())),
        ("issued_at", text(ISSUED)),
        ("cancel", text("interrupted")),
    ])
}

fn signed(payload: &Payload, key: &keys::Key) -> String {
    message(&keys::envelope(TYPE, payload.json(), &[key]).to_json())
}

fn message(envelope: &str) -> String {
    format!("{{\"control\":{envelope}}}")
}

pub(super) fn cases() -> Cases {
    let base = Vector {
        keys: vec![keys::ci().public()],
        now: ISSUED.into(),
        session_key: Some(keys::session().public()),
        deployment_id: request::id(),
        request_digest: request::digest(),
        ..Vector::default()
    };
    let odd = |clause: &str, expect: &str, comment: &str, payload: &Payload| {
        base.odd(clause, expect, comment).body(signed(payload, &keys::session()))
    };
    let by =
        |expect: &str, comment: &str, key: &keys::Key| base.odd("CTL-2", expect, comment).body(signed(&good(), key));
    let at = |expect: &str, comment: &str, age: i64| {
        odd("CTL-4", expect, comment, &good()).but(|v| v.now = moment(ISSUED, age))
    };
    let other = DeploymentId::new(1_780_315_200_000, [8; 10]).to_string();
    let request = keys::envelope(request::TYPE, request::good().json(), &[&keys::session()]).to_json();
    vec![
        ("good", odd("CTL-1, CTL-2", "ok", "Signed by the session key.", &good())),
        ("by-a-signer", by("ok", "Signed by a signer of the target; whether he may is for the policy.", &keys::ci())),
        ("by-a-stranger", by("no-valid-signature", "Signed by somebody else.", &keys::stranger())),
        ("by-the-runner", by("no-valid-signature", "Signed by the runner key.", &keys::runner())),
        ("by-the-target-key", by("no-valid-signature", "Signed by the target key.", &keys::target())),
        (
            "session-key-is-no-key",
            by("no-valid-signature", "The request's session key is no key.", &keys::session()).but(|v| {
                v.clause = "REQ-11".into();
                v.session_key = Some("AAAA".into());
            }),
        ),
        (
            "of-another-deployment",
            odd(
                "CTL-3",
                "not-for-this-deployment",
                "Names another deployment.",
                &good().with("deployment_id", text(&other)),
            ),
        ),
        (
            "of-another-request",
            odd(
                "CTL-3",
                "not-for-this-deployment",
                "Names another request of this id.",
                &good().with("request_digest", text(&"0".repeat(64))),
            ),
        ),
        ("old", at("not-for-this-deployment", "15 minutes and 1 s old.", 901)),
        ("as-old-as-allowed", at("ok", "15 minutes old.", 900)),
        ("from-the-future", at("not-for-this-deployment", "Issued in 61 s.", -61)),
        ("from-the-future-within-skew", at("ok", "Issued in 60 s.", -60)),
        (
            "unknown-cause",
            odd("CTL-1, ENC-6", "malformed-payload", "A cause that nobody knows.", &good().with("cancel", "\"bored\"")),
        ),
        (
            "cause-as-object",
            odd(
                "CTL-1, ENC-6",
                "malformed-payload",
                "The cause is the name of a member, not a string.",
                &good().with("cancel", r#"{"interrupted":null}"#),
            ),
        ),
        (
            "unknown-member",
            odd("ENC-6", "malformed-payload", "A member that nobody knows.", &good().with("grace", "0")),
        ),
        (
            "request-in-place-of-control",
            base.odd("ENV-4", "payload-type", "A signed request where a control statement should stand.")
                .body(message(&request)),
        ),
        (
            "not-wrapped",
            base.odd("BUN-1", "malformed-envelope", "The envelope itself, without `control` around it.")
                .body(keys::envelope(TYPE, good().json(), &[&keys::session()]).to_json()),
        ),
        (
            "null-request-beside-control",
            base.odd("BUN-2", "malformed-envelope", "A good control statement, and a request that is null.")
                .body(signed(&good(), &keys::session()).replacen('{', r#"{"request":null,"#, 1)),
        ),
        ("control-null", base.odd("BUN-2", "malformed-envelope", "`control` is null.").body(message("null"))),
    ]
}
