//! Signed payloads, and the small objects of the relay bucket.

use relay_protocol::claim::{Claim, Lock};
use relay_protocol::limits::{CLOCK_SKEW, CONTROL_LIFETIME, PARAMETER_VALUE_MAX, PARAMETERS_MAX, TEXT_MAX};
use relay_protocol::record::{Deployment, Record, Unfinished};
use relay_protocol::request::{Hints, Stage};
use relay_protocol::{Approval, Control, Digest, Request, RequestRef, Statement as _, Vouch};
use serde_json::Value;

/// The parsed value accounts for all of the input. A duplicate member, or one that is silently
/// dropped, would give the input a second meaning.
pub(crate) fn says_the_same(read: &[u8], written: &[u8]) {
    let value = |json| serde_json::from_slice::<Value>(json).expect("JSON that serde parses too");
    assert_eq!(without_absent(value(read)), value(written));
}

/// Removes what may be left out: members that are `null`, and an empty origin.
fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, without_absent(value)));
            let says = |name: &str, value: &Value| {
                !(value.is_null() || name == "origin" && value.as_object().is_some_and(serde_json::Map::is_empty))
            };
            Value::Object(members.filter(|(name, value)| says(name, value)).collect())
        }
        other => other,
    }
}

/// Parses the bytes as the payload of a request and of an approval.
pub fn request(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        let payload = request.to_payload();
        says_the_same(data, &payload);
        let again = Request::parse(&payload).expect("a written payload can be parsed");
        assert_eq!(again, request);
        let subject = |request: &Request| request.subject(Digest::of(b"a configuration"));
        assert_eq!((again.to_payload(), subject(&again)), (payload, subject(&request)));
        assert_eq!(subject(&request).is_some(), request.ticket.is_some());
        assert!(request.session_key.is_ed25519());
        assert!(request.parameters.len() <= PARAMETERS_MAX);
        assert!(request.parameters.values().all(|value| value.len() <= PARAMETER_VALUE_MAX));
        let origin = &request.origin;
        let texts = [&origin.system, &origin.run_url, &origin.commit, &origin.actor];
        for text in texts.into_iter().flatten() {
            assert!(text.as_str().len() <= TEXT_MAX && !text.as_str().contains(char::is_control));
        }
        assert!(Hints::of(&request).agree_with(&request));
        in_time_and_place(&request);
    }
    if let Ok(approval) = Approval::parse(data) {
        // Approvals are written only through serde, as here.
        let payload = serde_json::to_vec(&approval).expect("strings");
        says_the_same(data, &payload);
        assert_eq!(Approval::parse(&payload).ok().as_ref(), Some(&approval));
        for seconds in [-CLOCK_SKEW - 1, -CLOCK_SKEW, 0, 1, 86_400] {
            let at = approval.issued_at.plus(seconds);
            if approval.covers(approval.subject, at) {
                assert!(at <= approval.expires_at && approval.issued_at.since(at) <= CLOCK_SKEW);
            }
        }
    }
}

fn in_time_and_place(request: &Request) {
    let around = [request.issued_at, request.expires_at];
    for now in around.into_iter().flat_map(|at| [-700, -61, -60, 0, 60, 61, 600, 601].map(|seconds| at.plus(seconds))) {
        let (launch, run) = (request.check_time(now, Stage::Launch), request.check_time(now, Stage::Run));
        assert!(launch.is_err() || run.is_ok(), "a request that may be launched may not run");
        if run.is_ok() {
            assert!(request.expires_at > request.issued_at && request.issued_at.since(now) <= CLOCK_SKEW);
        }
    }
    assert_eq!(request.check_place(&request.audience, &request.target), Ok(()));
    let accounts = [request.reply_queue.account().clone()];
    let allowed = request.check_queues(&accounts, &[]).is_ok();
    let own = request.reply_queue.name() == request.deployment_id.reply_queue_name();
    assert!(!allowed || own && request.reply_queue.region() == request.audience.region());
    assert!(request.check_queues(&[], &[]).is_err(), "without accounts no queue is allowed");
    let fixed: Vec<_> = [&request.reply_queue].into_iter().chain(&request.control_queue).cloned().collect();
    assert_eq!(request.check_queues(&[], &fixed), Ok(()));
}

/// Parses the bytes as the payload of a control statement, a vouch or a record, and as a claim or a
/// lock.
pub fn control(data: &[u8]) {
    if let Ok(control) = Control::parse(data) {
        let payload = control.to_payload();
        says_the_same(data, &payload);
        assert_eq!(Control::parse(&payload).ok().as_ref(), Some(&control));
        for seconds in [-CLOCK_SKEW - 1, -CLOCK_SKEW, 0, CONTROL_LIFETIME, CONTROL_LIFETIME + 1] {
            let now = control.issued_at.plus(seconds);
            let in_time = (-CLOCK_SKEW..=CONTROL_LIFETIME).contains(&now.since(control.issued_at));
            assert_eq!(control.is_for(&control.deployment_id, control.request_digest, now), in_time);
        }
    }
    if let Ok(vouch) = Vouch::parse(data) {
        let payload = vouch.to_payload();
        says_the_same(data, &payload);
        assert!(vouch.runner_key.is_ed25519());
        assert_eq!(Vouch::parse(&payload).ok(), Some(vouch));
    }
    if let Ok(record) = Record::<Deployment>::parse(data) {
        assert_eq!(Record::parse(record.to_envelope().unverified_payload()).ok(), Some(record));
    }
    if let Ok(record) = Record::<Unfinished>::parse(data) {
        assert_eq!(Record::parse(record.to_envelope().unverified_payload()).ok(), Some(record));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(named) = RequestRef::parse(text)
    {
        says_the_same(data, named.to_json().as_bytes());
        assert_eq!(RequestRef::parse(&named.to_json()).ok(), Some(named));
    }
    if let Ok(claim) = Claim::parse(data) {
        says_the_same(data, &claim.to_bytes());
        assert_eq!(Claim::parse(&claim.to_bytes()).ok(), Some(claim));
    }
    if let Ok(lock) = Lock::parse(data) {
        says_the_same(data, &lock.to_bytes());
        assert_eq!(Lock::parse(&lock.to_bytes()).ok(), Some(lock));
    }
}
