//! `unverified` is not signed by anything of the requester's, and anybody who may publish can
//! provoke one. It counts only for what this reader has published, and only if no better answer
//! comes (clauses FRM-6, FRM-18).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use std::time::Duration;

use relay_engine::{Authenticator, End, Finish, Inbox, MemorySpool, Outbox, Pins, Seal as _, Start, Timeouts, Unfit};
use relay_protocol::frame::LauncherKind;
use relay_protocol::outcome::{Outcome, Reason};
use relay_protocol::{DeploymentId, Digest, LauncherFrame, PublicKey, Timestamp};
use toy::{Keys, Toy, published};

struct Reader {
    id: DeploymentId,
    keys: Keys,
    inbox: Inbox<Toy>,
}

impl Reader {
    fn new(admission: Duration) -> Self {
        let (id, request) = (DeploymentId::new(0, [3; 10]), Digest::of(b"request"));
        let keys = Keys::new(&id, request);
        let authenticator = Authenticator::new(published(&id, request), keys.pins(), Toy);
        let timeouts = Timeouts { admission, ..Timeouts::default() };
        let inbox = Inbox::new(authenticator, Start::Fresh, timeouts, Duration::ZERO, Timestamp::from_unix(0));
        Self { id, keys, inbox }
    }

    fn at(&mut self, seconds: f32, kind: LauncherKind) {
        let frame = self.keys.launcher(&LauncherFrame { deployment_id: self.id.clone(), kind });
        self.inbox.handle(Duration::from_secs_f32(seconds), 0, frame);
    }

    /// The reason of a refusal, after this time.
    fn end_at(&mut self, seconds: f32) -> Option<Reason> {
        while self.inbox.poll_event().is_some() {}
        self.inbox.handle_timeout(Duration::from_secs_f32(seconds));
        self.inbox.poll_end().map(|end| match end {
            End::Refused { reason, .. } => *reason,
            other => panic!("{other:?}"),
        })
    }
}

fn unverified(target: &str) -> LauncherKind {
    LauncherKind::Unverified {
        body_sha256: Digest::of(b"body"),
        target: target.parse().unwrap(),
        ci_account: "111111111111".parse().unwrap(),
    }
}

// clause: FRM-18
#[test]
fn a_copy_with_other_hints_does_not_end_the_wait() {
    let mut reader = Reader::new(Duration::from_secs(300));
    reader.at(1.0, unverified("demo/other"));
    assert_eq!((reader.end_at(100.0), reader.inbox.dropped()), (None, 1));
}

// clause: FRM-6
#[test]
fn an_unverified_counts_when_nothing_better_comes() {
    let mut alone = Reader::new(Duration::from_secs(300));
    alone.at(1.0, unverified("demo/hello"));
    assert_eq!(alone.end_at(3.9), None);
    assert_eq!((alone.end_at(4.0), alone.inbox.dropped()), (Some(Reason::Unverified), 0));

    let mut overtaken = Reader::new(Duration::from_secs(300));
    overtaken.at(1.0, unverified("demo/hello"));
    let admitted = LauncherKind::Admitted {
        request_digest: Digest::of(b"request"),
        task_arn: "task".into(),
        deadline: Timestamp::from_unix(1_000),
        policies: Vec::new(),
    };
    overtaken.at(3.9, admitted);
    overtaken.at(4.0, unverified("demo/hello"));
    assert_eq!(overtaken.end_at(100.0), None);

    // Where the user waits for less, the end says what is known.
    let mut hasty = Reader::new(Duration::from_secs(2));
    hasty.at(1.0, unverified("demo/hello"));
    assert_eq!(hasty.end_at(2.0), Some(Reason::Unverified));
}

// clause: VCH-1, FRM-6
#[test]
fn a_pin_that_does_not_fit_is_noticed_and_decides_nothing() {
    let (id, request) = (DeploymentId::new(0, [3; 10]), Digest::of(b"request"));
    let keys = Keys::new(&id, request);
    let other = Keys::by(PublicKey::from_der(b"another key").unwrap(), 9, &id, request);
    let pins = |target: &Keys, answer: &Keys| {
        Some(Pins { target: vec![target.target.clone()], answer: vec![answer.answer.clone()] })
    };
    let inbox = |pins| {
        let authenticator = Authenticator::new(published(&id, request), pins, Toy);
        Inbox::new(authenticator, Start::Fresh, Timeouts::default(), Duration::ZERO, Timestamp::from_unix(0))
    };
    let refused = LauncherKind::Refused { request_digest: request, reason: Reason::Policy, message: String::new() };
    let answer = |of: &DeploymentId| keys.launcher(&LauncherFrame { deployment_id: of.clone(), kind: refused.clone() });
    let heartbeat = format!("{{\"deployment_id\":\"{id}\",\"seq\":0,\"kind\":\"heartbeat\",\"elapsed_ms\":1}}");
    for (pins, frame, unfit) in [
        (pins(&keys, &other), answer(&id), Some(Unfit::Answer)),
        (pins(&keys, &other), answer(&DeploymentId::new(0, [4; 10])), None),
        (pins(&other, &keys), keys.seal(heartbeat.clone(), true), Some(Unfit::Target)),
        (pins(&keys, &keys), keys.seal(heartbeat, true), None),
    ] {
        let mut inbox = inbox(pins);
        inbox.handle(Duration::ZERO, 0, frame);
        assert_eq!(inbox.unfit(), unfit);
        assert!(inbox.poll_end().is_none());
    }
}

// clause: FRM-20
#[test]
fn an_end_without_a_record_is_said_to_be_unproved() {
    let mut reader = Reader::new(Duration::from_secs(300));
    let mut outbox = Outbox::new(reader.id.clone(), Duration::ZERO, reader.keys.clone(), MemorySpool::default());
    outbox.finish(Duration::ZERO, Finish::of(Outcome::Exited { code: 0, signal: None }));
    while let Some(frame) = outbox.poll_frame(Duration::ZERO) {
        reader.inbox.handle(Duration::ZERO, 0, frame.signed.clone());
    }
    while reader.inbox.poll_event().is_some() {}
    let end = reader.inbox.poll_end();
    assert!(matches!(end, Some(End::Finished { record: Err(_), .. })), "{end:?}");
}
