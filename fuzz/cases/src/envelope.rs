//! Envelopes, bundles and messages: the input that a topic and a task's overrides deliver.

use relay_protocol::limits::{APPROVALS_MAX, BUNDLE_MAX, PAYLOAD_MAX, SIGNATURE_MAX, SIGNATURES_MAX};
use relay_protocol::record::Record;
use relay_protocol::{
    Approval, Bundle, Control, Envelope, Message, Request, Signature, SignedBy, Statement, Verified, Vouch,
};

/// A toy verifier. The first byte of the signature selects one of three signers. A value of 240 or
/// more selects none.
fn toys(_: &[u8], signature: &Signature) -> Option<SignedBy<&'static str>> {
    let name = ["anna", "ci", "operator"].get(usize::from(*signature.bytes()?.first()?) / 80)?;
    Some(SignedBy { key_id: (*name).to_owned(), signer: name })
}

/// Parses the bytes as an envelope, a bundle and a message, verifies each one that parses, and
/// checks that it survives being written and parsed again.
pub fn envelope(data: &[u8]) {
    if let Ok(envelope) = Envelope::parse(data, BUNDLE_MAX) {
        assert!(data.len() <= BUNDLE_MAX);
        one(&envelope);
    }
    match (Bundle::parse(data), Message::parse(data)) {
        (Ok(bundle), Ok(Message::Request(request))) => {
            assert_eq!(bundle, request, "the override and the message are parsed alike");
            together(&bundle);
        }
        (Err(_), Ok(Message::Control(control))) => {
            one(&control);
            // An ignored member of an envelope need not be valid UTF-8, so not every JSON parser
            // accepts the data.
            if let Ok(members) = serde_json::from_slice::<serde_json::Map<_, _>>(data) {
                assert_eq!(members.len(), 1, "a control statement has no other members");
            }
            assert_eq!(
                Message::parse(Message::control_json(&control).as_bytes()).ok(),
                Some(Message::Control(control))
            );
        }
        // No task is started for a dry run, so a runner does not know one.
        (Err(_), Ok(Message::DryRun(bundle))) => together(&bundle),
        (Err(_), Err(_)) => {}
        (bundle, message) => panic!("the runner reads {bundle:?}, the launcher {message:?}"),
    }
}

fn one(envelope: &Envelope) {
    assert!(envelope.signatures().len() <= SIGNATURES_MAX);
    assert!(envelope.signatures().iter().all(|signature| signature.sig.len() <= SIGNATURE_MAX));
    let json = envelope.to_json();
    assert_eq!(Envelope::parse(json.as_bytes(), usize::MAX).ok().as_ref(), Some(envelope));
    believed::<Request>(envelope);
    believed::<Approval>(envelope);
    believed::<Control>(envelope);
    believed::<Vouch>(envelope);
    believed::<Record>(envelope);
}

/// A verified envelope has one canonical form, and canonicalising it again changes nothing.
fn believed<T: Statement>(envelope: &Envelope) -> Option<Verified<T, &'static str>> {
    let verified: Verified<T, &'static str> = envelope.verify(toys).ok()?;
    assert_eq!(envelope.payload_type(), T::TYPE);
    assert!(envelope.unverified_payload().len() <= PAYLOAD_MAX);
    let canonical = verified.canonical();
    assert_eq!(verified.digest(), envelope.digest());
    assert_eq!(canonical.unverified_payload(), envelope.unverified_payload());
    let ids: Vec<&str> = canonical.signatures().iter().map(|signature| signature.keyid.as_str()).collect();
    assert!(!ids.is_empty() && ids.is_sorted_by(|a, b| a < b), "one signature for each signer: {ids:?}");
    assert_eq!(ids, verified.signers());
    let again: Verified<T, &'static str> = canonical.verify(toys).expect("the canonical form is verified");
    assert_eq!(again.canonical().to_json(), canonical.to_json());
    Some(verified)
}

fn together(bundle: &Bundle) {
    assert!(bundle.approvals.len() <= APPROVALS_MAX);
    let json = bundle.to_json();
    if json.len() <= BUNDLE_MAX {
        assert_eq!(Bundle::parse(json.as_bytes()).ok().as_ref(), Some(bundle));
    }
    bundle.approvals.iter().for_each(one);
    one(&bundle.request);
    let Some(request) = believed::<Request>(&bundle.request) else { return };
    let mut approvals: Vec<_> = bundle.approvals.iter().filter_map(believed::<Approval>).collect();
    let canonical = Bundle::canonical(&request, &approvals);
    approvals.reverse();
    approvals.extend(bundle.approvals.first().and_then(believed::<Approval>));
    assert_eq!(
        Bundle::canonical(&request, &approvals),
        canonical,
        "neither order nor duplicates change the canonical form"
    );
    // A bundle that the launcher stores can be parsed by the runner.
    if canonical.to_json().len() <= BUNDLE_MAX {
        assert_eq!(Bundle::parse(canonical.to_json().as_bytes()).ok(), Some(canonical));
    }
}
