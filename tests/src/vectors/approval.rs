//! Vectors of the approval: what it covers, and when it is valid.

use relay_protocol::{Digest, Request, Statement as _};

use super::request::{self, ISSUED, Payload, text};
use super::verdict::moment;
use super::{Cases, Vector, keys};

pub(super) const TYPE: &str = relay_protocol::Approval::TYPE;

/// The digest of the configuration that the approval is for.
fn configuration() -> Digest {
    Digest::of(b"target = \"payments/production\"\n")
}

fn subject() -> String {
    let request = Request::parse(request::approvable().json().as_bytes()).unwrap();
    request.subject(configuration()).unwrap().to_string()
}

/// A valid approval of the request with a ticket, for three hours.
pub(super) fn good(issued: &str) -> Payload {
    Payload::of(&[
        ("subject", text(&subject())),
        ("issued_at", text(issued)),
        ("expires_at", text(&moment(issued, 3 * 3_600))),
    ])
}

fn signed(payload: &Payload) -> String {
    keys::envelope(TYPE, payload.json(), &[&keys::second()]).to_json()
}

pub(super) fn cases() -> Cases {
    let yesterday = moment(ISSUED, -3_600);
    let base = Vector {
        keys: vec![keys::ci().public(), keys::second().public()],
        request: Some(request::approvable().json()),
        configuration: configuration().to_string(),
        ..Vector::default()
    };
    let odd = |clause: &str, expect: &str, comment: &str, payload: &Payload| {
        base.odd(clause, expect, comment).body(signed(payload))
    };
    let good = good(&yesterday);
    let lasting = |from: i64, to: i64| {
        good.clone().with("issued_at", text(&moment(ISSUED, from))).with("expires_at", text(&moment(ISSUED, to)))
    };
    let with_request = |change: Payload| {
        base.odd("APP-2", "not-covering", "The request has another value of a parameter.")
            .body(signed(&good))
            .but(|v| v.request = Some(change.json()))
    };
    let subject_upper = text(&subject().to_uppercase());
    vec![
        (
            "good",
            odd(
                "APP-1, APP-2",
                "ok",
                "Nothing is odd; the request's parameters hold a quote and a letter beyond ASCII.",
                &good,
            ),
        ),
        (
            "parameters-in-another-order",
            base.odd("APP-2", "ok", "The request's parameters stand in another order: RFC 8785 sorts them.")
                .body(signed(&good))
                .but(|v| {
                    v.request = Some(
                        request::approvable()
                            .with("parameters", r#"{ "note" : "a \"b\" \u00e9", "image":"sha256:6f1e" }"#)
                            .json(),
                    );
                }),
        ),
        ("other-parameters", with_request(request::approvable().with("parameters", r#"{"image":"sha256:0000"}"#))),
        (
            "other-target",
            with_request(request::approvable().with("target", text("payments/staging")))
                .but(|v| v.comment = "The request has another target.".into()),
        ),
        (
            "other-audience",
            with_request(request::approvable().with("audience", text("arn:aws:sns:eu-west-1:333333333333:relay")))
                .but(|v| v.comment = "The request has another audience.".into()),
        ),
        (
            "other-ticket",
            with_request(request::approvable().with("ticket", text("0123456789abcdef0123456789abcdee")))
                .but(|v| v.comment = "The request has another ticket: it is for another deployment.".into()),
        ),
        ("no-ticket", with_request(request::good()).but(|v| v.comment = "The request has no ticket.".into())),
        (
            "other-configuration",
            base.odd("APP-2", "not-covering", "The target's configuration has changed since the approval.")
                .body(signed(&good))
                .but(|v| v.configuration = Digest::of(b"target = \"payments/production\"").to_string()),
        ),
        (
            "by-a-stranger",
            base.odd("APP-1", "no-valid-signature", "Signed by a key that the target does not know.")
                .body(keys::envelope(TYPE, good.json(), &[&keys::stranger()]).to_json()),
        ),
        (
            "by-the-session-key",
            base.odd("APP-1", "no-valid-signature", "Signed by the request's own session key.")
                .body(keys::envelope(TYPE, good.json(), &[&keys::session()]).to_json()),
        ),
        (
            "request-in-place-of-approval",
            base.odd("ENV-4", "payload-type", "A signed request where an approval should stand.")
                .body(keys::envelope(request::TYPE, request::good().json(), &[&keys::second()]).to_json()),
        ),
        (
            "unknown-member",
            odd("ENC-6", "malformed-payload", "A member that nobody knows.", &good.clone().with("comment", "\"\"")),
        ),
        (
            "payload-as-array",
            base.odd("ENC-6", "malformed-payload", "The members' values in an array.")
                .body(keys::envelope(TYPE, good.array(), &[&keys::second()]).to_json()),
        ),
        (
            "digest-upper-case",
            odd(
                "ENC-3",
                "malformed-payload",
                "The subject in upper case.",
                &good.clone().with("subject", subject_upper),
            ),
        ),
        (
            "digest-too-short",
            odd(
                "ENC-3",
                "malformed-payload",
                "A subject of 62 digits.",
                &good.clone().with("subject", text(&"0".repeat(62))),
            ),
        ),
        (
            "lives-a-day",
            odd("APP-3", "ok", "Lives 24 hours, and ends when the request was issued.", &lasting(-86_400, 0)),
        ),
        ("lives-too-long", odd("APP-3", "not-covering", "Lives 24 hours and 1 s.", &lasting(-86_400, 1))),
        ("over", odd("APP-3", "not-covering", "Ended 1 s before the request was issued.", &lasting(-3_600, -1))),
        ("ends-before-it-begins", odd("APP-3", "not-covering", "Ends before it begins.", &lasting(10, 5))),
        (
            "given-after-the-request",
            odd("APP-3", "not-covering", "Issued 61 s after the request.", &lasting(61, 3_600)),
        ),
        ("given-within-skew", odd("APP-3", "ok", "Issued 60 s after the request.", &lasting(60, 3_600))),
    ]
}
