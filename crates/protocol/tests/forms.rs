//! What the forms of statements say, and where their limits are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use relay_protocol::claim::LockHolder;
use relay_protocol::encoding::base64;
use relay_protocol::keys::{PrivateKey, SingleKey};
use relay_protocol::limits::{
    APPROVALS_MAX, BUNDLE_MAX, CLOCK_SKEW, PARAMETER_VALUE_MAX, PARAMETERS_MAX, PAYLOAD_MAX, SIGNATURE_MAX,
    SIGNATURES_MAX, TEXT_MAX,
};
use relay_protocol::record::{Subject, sigstore, subjects};
use relay_protocol::request::{Origin, Text};
use relay_protocol::{
    Approval, Bundle, Cancel, Control, DeploymentId, Digest, Envelope, EnvelopeError, Message, Request, RequestRef,
    Statement, Timestamp, VerifyError,
};
use serde_json::{Value, json};

fn key() -> PrivateKey {
    PrivateKey::from_seed([3; 32])
}

fn request() -> Request {
    let json = json!({
        "deployment_id": DeploymentId::new(1_767_225_600_000, [1; 10]),
        "audience": "arn:aws:sns:eu-west-1:222222222222:relay",
        "target": "demo/hello",
        "parameters": {},
        "reply_queue": "https://sqs.eu-west-1.amazonaws.com/111111111111/q",
        "session_key": key().public(),
        "issued_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-01T00:15:00Z",
    });
    Request::parse(json.to_string().as_bytes()).unwrap()
}

// clause: APP-3
#[test]
fn an_approval_lives_for_more_than_no_time() {
    let (subject, issued) = (Digest::of(b"x"), Timestamp::from_unix(1_000));
    let covers = |lifetime: i64, later: i64| {
        Approval { subject, issued_at: issued, expires_at: issued.plus(lifetime) }.covers(subject, issued.plus(later))
    };
    assert!(!covers(0, 0) && covers(1, 0) && covers(1, 1) && !covers(1, 2));
    assert!(covers(60, -CLOCK_SKEW) && !covers(60, -CLOCK_SKEW - 1));
}

// clause: LIM-2, LIM-4, LIM-5
#[test]
fn a_limit_is_the_last_size_that_is_read() {
    let envelope = Envelope::new("t", b"x".to_vec());
    let bundle =
        |approvals: usize| Bundle { request: envelope.clone(), approvals: vec![envelope.clone(); approvals] }.to_json();
    assert!(Bundle::parse(bundle(APPROVALS_MAX).as_bytes()).is_ok());
    for more in [1, 2, 10] {
        let found = Bundle::parse(bundle(APPROVALS_MAX + more).as_bytes());
        assert!(matches!(found, Err(EnvelopeError::Approvals)), "{more}");
    }
    let padded = |size: usize| format!("{}{}", bundle(0), " ".repeat(size - bundle(0).len()));
    assert!(Bundle::parse(padded(BUNDLE_MAX).as_bytes()).is_ok());
    assert!(matches!(Bundle::parse(padded(BUNDLE_MAX + 1).as_bytes()), Err(EnvelopeError::TooLarge { .. })));

    let json = envelope.to_json();
    assert!(Envelope::parse(json.as_bytes(), json.len()).is_ok());
    assert!(Envelope::parse(json.as_bytes(), json.len() - 1).is_err());
    let signed = |count: usize, size: usize| {
        let signatures = vec![json!({ "keyid": "", "sig": "A".repeat(size) }); count];
        json!({ "payloadType": "t", "payload": "eA==", "signatures": signatures }).to_string()
    };
    let parse = |count, size| Envelope::parse(signed(count, size).as_bytes(), 1 << 20);
    assert!(parse(SIGNATURES_MAX, SIGNATURE_MAX).is_ok());
    assert!(matches!(parse(SIGNATURES_MAX + 1, SIGNATURE_MAX), Err(EnvelopeError::Signatures)));
    assert!(matches!(parse(SIGNATURES_MAX, SIGNATURE_MAX + 1), Err(EnvelopeError::Signatures)));

    // A payload of the largest size is read, and found to be no request.
    let trusted = SingleKey::new(key().public()).unwrap();
    let of = |size: usize| {
        trusted.verify::<Request>(&key().sign_envelope(Envelope::new(Request::TYPE, vec![b' '; size]))).unwrap_err()
    };
    assert!(matches!(of(PAYLOAD_MAX), VerifyError::Malformed(_)), "{}", of(PAYLOAD_MAX));
    assert!(matches!(of(PAYLOAD_MAX + 1), VerifyError::TooLarge { .. }));
}

// clause: CTL-1
#[test]
fn a_control_statement_is_read_as_it_was_written() {
    let control = Control {
        deployment_id: DeploymentId::new(1, [1; 10]),
        request_digest: Digest::of(b"x"),
        issued_at: Timestamp::from_unix(5),
        cancel: Cancel::Requested,
    };
    assert_eq!(Control::parse(&control.to_payload()).unwrap(), control);
    let envelope = key().sign_envelope(Envelope::new(Control::TYPE, control.to_payload()));
    let Ok(Message::Control(read)) = Message::parse(Message::control_json(&envelope).as_bytes()) else {
        panic!("not a control statement")
    };
    assert_eq!(read, envelope);
}

#[test]
fn a_lock_names_the_cluster_of_its_holder() {
    let holder = LockHolder {
        deployment_id: DeploymentId::new(1, [1; 10]),
        task_arn: "arn:aws:ecs:eu-west-1:222222222222:task/relay/0123".to_owned(),
        taken_at: 0,
    };
    assert_eq!(holder.cluster(), "relay");
}

// clause: RUN-4
#[test]
fn a_reference_fits_one_request() {
    let (request, digest) = (request(), Digest::of(b"x"));
    let reference = RequestRef::of(&request, digest);
    assert!(reference.fits(&request, digest) && !reference.fits(&request, Digest::of(b"y")));
    let other = Request { target: "demo/other".parse().unwrap(), ..request };
    assert!(!reference.fits(&other, digest));
}

// clause: REC-2, REC-6
#[test]
fn a_record_is_about_three_things_and_lies_in_a_bundle() {
    let digests = [Digest::of(b"1"), Digest::of(b"2"), Digest::of(b"3")];
    let found = subjects(digests[0], digests[1], digests[2], None);
    let found: Vec<_> = found.iter().map(|subject| (subject.name.as_str(), subject.digest["sha256"])).collect();
    assert_eq!(found, [("request", digests[0]), ("request.json", digests[1]), ("configuration", digests[2])]);
    let with_keys = subjects(digests[0], digests[1], digests[2], Some(digests[0]));
    assert_eq!(with_keys[3], Subject::new("issuer-keys.json", digests[0]));

    let record = key().sign_envelope(Envelope::new("t", b"x".to_vec()));
    let bundle: Value = serde_json::from_str(&sigstore(&record)).unwrap();
    assert_eq!(bundle["mediaType"], "application/vnd.dev.sigstore.bundle.v0.3+json");
    assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], key().public().key_id());
    assert_eq!(bundle["dsseEnvelope"], serde_json::from_str::<Value>(&record.to_json()).unwrap());
}

// clause: REQ-12
#[test]
fn an_origin_is_written_if_it_says_something() {
    let written = |origin: Origin| {
        serde_json::from_slice::<Value>(&Request { origin, ..request() }.to_payload()).unwrap()["origin"].clone()
    };
    assert_eq!(written(Origin::default()), Value::Null);
    let text = Text::lossy("github");
    assert_eq!(written(Origin { system: Some(text), ..Origin::default() }), json!({ "system": "github" }));
}

// clause: LIM-7
#[test]
fn a_text_for_people_is_cut_and_has_no_control_characters() {
    let lossy = |text: &str| Text::lossy(text).as_str().to_owned();
    assert_eq!(lossy("a\u{1b}b\nc"), "abc");
    let full = "x".repeat(TEXT_MAX);
    assert_eq!(lossy(&full), full);
    assert_eq!(lossy(&format!("{full}y")), full);
    // A character that does not fit as a whole is left out.
    let nearly = "x".repeat(TEXT_MAX - 1);
    assert_eq!(lossy(&format!("{nearly}ü")), nearly);
}

// clause: LIM-5, LIM-7, REQ-13, REQ-16
#[test]
fn the_limits_of_a_request_are_the_last_that_are_read() {
    let base: Value = serde_json::from_slice(&request().to_payload()).unwrap();
    let reads = |member: &str, value: Value| {
        let mut changed = base.clone();
        changed[member] = value;
        let parsed = Request::parse(changed.to_string().as_bytes());
        // A request that was read is written back unchanged.
        parsed.is_ok_and(|parsed| serde_json::from_slice::<Value>(&parsed.to_payload()).unwrap() == changed)
    };
    let parameters =
        |count: usize| (0..count).map(|at| (format!("p{at}"), json!(""))).collect::<serde_json::Map<_, _>>();
    assert!(reads("parameters", json!(parameters(PARAMETERS_MAX))));
    assert!(!reads("parameters", json!(parameters(PARAMETERS_MAX + 1))));
    let value = |size: usize| json!({ "p": "x".repeat(size) });
    assert!(reads("parameters", value(PARAMETER_VALUE_MAX)) && !reads("parameters", value(PARAMETER_VALUE_MAX + 1)));
    let text = |size: usize| json!({ "actor": "x".repeat(size) });
    assert!(reads("origin", text(TEXT_MAX)) && !reads("origin", text(TEXT_MAX + 1)));
    assert!(!reads("origin", json!({ "actor": "a\nb" })));
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    assert!(reads("traceparent", json!(format!("00-{trace}-{span}-01"))));
    for wrong in [
        format!("00-{trace}0-{span}-01"),
        format!("00-{trace}-{span}0-01"),
        format!("00-{trace}-{span}-1"),
        format!("01-{trace}-{span}-01"),
        format!("00-{}-{span}-01", trace.to_uppercase()),
    ] {
        assert!(!reads("traceparent", json!(wrong)), "{wrong}");
    }
    let id = |seconds: i64| json!(DeploymentId::new(u64::try_from(1_767_225_600 + seconds).unwrap() * 1_000, [1; 10]));
    for side in [1, -1] {
        assert!(reads("deployment_id", id(side * CLOCK_SKEW)) && !reads("deployment_id", id(side * (CLOCK_SKEW + 1))));
    }
}

// clause: SIG-1
#[test]
fn a_detached_signature_is_its_keys_own() {
    let (trusted, sig) = (SingleKey::new(key().public()).unwrap(), base64(&key().sign(b"text")));
    assert!(trusted.verify_detached(b"text", &sig) && !trusted.verify_detached(b"other", &sig));
    assert!(!trusted.verify_detached(b"text", "no base64"));
}
