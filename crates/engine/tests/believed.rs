//! Which frames a reader believes, at the edges that no vector reaches: readers that attach,
//! readers without pins, and a frame of exactly the largest size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use relay_engine::{Authenticator, Rejected, Seal as _, Verdict};
use relay_protocol::frame::LauncherKind;
use relay_protocol::limits::FRAME_MAX;
use relay_protocol::outcome::Reason;
use relay_protocol::{DeploymentId, Digest, Envelope, LauncherFrame, SignedFrame, Statement as _, Vouch};
use toy::{Keys, Toy, published};

fn id() -> DeploymentId {
    DeploymentId::new(0, [3; 10])
}

fn keys() -> Keys {
    Keys::new(&id(), Digest::of(b"request"))
}

fn attaching() -> Authenticator<Toy> {
    Authenticator::attaching(id(), keys().pins(), Toy)
}

fn refused(reason: Reason) -> SignedFrame {
    let kind = LauncherKind::Refused { request_digest: Digest::of(b"request"), reason, message: String::new() };
    keys().launcher(&LauncherFrame { deployment_id: id(), kind })
}

fn heartbeat() -> String {
    format!("{{\"deployment_id\":\"{}\",\"seq\":0,\"kind\":\"heartbeat\",\"elapsed_ms\":1}}", id())
}

// clause: FRM-18, VCH-3
#[test]
fn a_reader_that_attaches_leaves_the_refusal_of_another_request_alone() {
    assert_eq!(attaching().judge(refused(Reason::IdInUse)), Verdict::Rejected(Rejected::WrongRequest));
    assert!(matches!(attaching().judge(refused(Reason::Policy)), Verdict::Authentic(_)));
    // Once a vouch has named the request, the digest decides.
    let mut knows = attaching();
    assert!(matches!(knows.judge(keys().seal(heartbeat(), true)), Verdict::Authentic(_)));
    assert!(matches!(knows.judge(refused(Reason::IdInUse)), Verdict::Authentic(_)));
}

// clause: VCH-5, ENV-4
#[test]
fn without_pins_a_vouch_must_still_be_one() {
    let unpinned = || Authenticator::new(published(&id(), Digest::of(b"request")), None, Toy);
    let good = keys().seal(heartbeat(), true);
    assert!(matches!(unpinned().judge(good.clone()), Verdict::Authentic(_)));
    let vouch = Envelope::parse(good.vouch.as_deref().unwrap().as_bytes(), 8_192).unwrap();
    assert_eq!(vouch.payload_type(), Vouch::TYPE);
    let other = Envelope::new("application/vnd.relay.control.v1+json", vouch.unverified_payload().to_vec());
    let other = other.with_signature(vouch.signatures()[0].clone()).to_json();
    let frame = SignedFrame { vouch: Some(other), ..good };
    assert_eq!(unpinned().judge(frame), Verdict::Rejected(Rejected::Vouch));
}

// clause: FRM-2
#[test]
fn a_frame_may_be_as_large_as_the_limit_and_no_larger() {
    let frame = |body| SignedFrame { from: "runner".into(), sig: String::new(), vouch: None, body };
    let room = FRAME_MAX - frame(String::new()).size();
    assert!(matches!(attaching().judge(frame("x".repeat(room))), Verdict::NotYet(_)));
    assert_eq!(attaching().judge(frame("x".repeat(room + 1))), Verdict::Rejected(Rejected::TooLarge));
}
