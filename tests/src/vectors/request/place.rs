//! Vectors of hints, place, time and queues.

use super::*;

pub(super) fn hints_and_place() -> Cases {
    let hint = |clause: &str, comment: &str, change: fn(&mut Hints)| {
        base().odd(clause, "hints", comment).but(|v| v.hints.iter_mut().for_each(change))
    };
    vec![
        (
            "hint-target-of-bad-grammar",
            hint("HNT-1", "A hint that is no target.", |h| h.target = "../production".into()),
        ),
        ("hint-id-of-bad-grammar", hint("HNT-1", "A hint that is no deployment id.", |h| h.deployment_id = "x".into())),
        (
            "hint-account-of-bad-grammar",
            hint("HNT-1", "A hint that is no account.", |h| h.ci_account = "１１１１１１１１１１１１".into()),
        ),
        (
            "hint-target-differs",
            hint("HNT-2", "The hint names another target.", |h| h.target = "payments/staging".into()),
        ),
        (
            "hint-id-differs",
            hint("HNT-2", "The hint names another deployment.", |h| {
                h.deployment_id = id().replace('7', "8").replacen("-8", "-7", 1)
            }),
        ),
        (
            "hint-account-differs",
            hint("HNT-2", "The hint names another account.", |h| h.ci_account = "333333333333".into()),
        ),
        (
            "audience-of-another-account",
            base()
                .odd("REQ-4", "audience", "Meant for the topic of another account.")
                .but(|v| v.audience = "arn:aws:sns:eu-west-1:333333333333:relay".into()),
        ),
        (
            "target-of-another-configuration",
            base().odd("REQ-5", "target", "Signed for another target that trusts the same key.").but(|v| {
                v.target = "payments/staging".into();
            }),
        ),
        (
            "key-of-small-order",
            base()
                .odd("SIG-4", "bad-key", "The configuration trusts a point of small order.")
                .but(|v| v.keys = vec![keys::small_order()]),
        ),
        (
            "key-of-another-curve",
            base()
                .odd("SIG-4", "bad-key", "The configuration trusts a key on secp256k1.")
                .but(|v| v.keys.push(keys::other_curve())),
        ),
        (
            "key-not-canonical",
            base()
                .odd("SIG-4", "bad-key", "The configuration trusts an Ed25519 key whose y is written as y + p.")
                .but(|v| v.keys = vec![keys::ed25519_not_canonical()]),
        ),
        (
            "key-compressed",
            base()
                .odd("SIG-4", "bad-key", "The configuration trusts a P-256 key with a compressed point.")
                .but(|v| v.keys.push(keys::compressed(&keys::kms()))),
        ),
        (
            "key-with-a-long-length",
            base()
                .odd("SIG-4", "bad-key", "The configuration trusts a key whose DER has a length in the long form.")
                .but(|v| v.keys.push(keys::with_long_spki(&keys::kms()))),
        ),
        (
            "key-that-is-none",
            base()
                .odd("SIG-4", "bad-key", "The configuration trusts bytes that are no key.")
                .but(|v| v.keys = vec!["AAAA".into()]),
        ),
    ]
}

pub(super) fn times() -> Cases {
    let at = |clause: &str, expect: &str, comment: &str, stage: &str, now: &str| {
        base().odd(clause, expect, comment).but(|v| (v.stage, v.now) = (stage.into(), now.into()))
    };
    let lives = |expect: &str, comment: &str, until: &str| {
        base().odd("REQ-9", expect, comment).body(signed(&good().with("expires_at", text(until))))
    };
    let after = |seconds| verdict::moment(EXPIRES, seconds);
    let before = |seconds: i64| verdict::moment(ISSUED, -seconds);
    vec![
        ("expired", at("REQ-10", "expired", "61 s after its end.", "launch", &after(61))),
        ("expired-within-skew", at("REQ-10", "ok", "60 s after its end.", "launch", &after(60))),
        ("expired-for-the-runner", at("RUN-5", "expired", "601 s after its end, at the runner.", "run", &after(601))),
        (
            "late-for-the-runner",
            at("RUN-5", "ok", "600 s after its end, at the runner: a slow image pull.", "run", &after(600)),
        ),
        ("from-the-future", at("REQ-10", "not-yet-valid", "Issued in 61 s.", "launch", &before(61))),
        (
            "from-the-future-for-the-runner",
            at("RUN-5, REQ-10", "not-yet-valid", "Issued in 61 s, at the runner.", "run", &before(61)),
        ),
        ("from-the-future-within-skew", at("REQ-10", "ok", "Issued in 60 s.", "launch", &before(60))),
        ("lifetime-too-long", lives("lifetime", "Lives 15 minutes and 1 s.", &after(1))),
        ("lifetime-zero", lives("lifetime", "Ends when it begins.", ISSUED)),
        ("lifetime-negative", lives("lifetime", "Ends before it begins.", "2026-06-01T11:59:59Z")),
    ]
}

pub(super) fn queues() -> Cases {
    let name = format!("relay-{}-reply", id());
    let other = DeploymentId::new(1_780_315_200_000, [8; 10]).reply_queue_name();
    let replies = |comment: &str, expect: &str, url: String| {
        base().odd("REQ-7", expect, comment).body(signed(&good().with("reply_queue", text(&url)))).but(|v| {
            v.hints.iter_mut().for_each(|h| url.split('/').nth(3).unwrap_or_default().clone_into(&mut h.ci_account));
        })
    };
    let controls = |comment: &str, url: String| {
        base().odd("REQ-8", "queue", comment).body(signed(&good().with("control_queue", text(&url))))
    };
    let fixed = queue("eu-central-1", "444444444444", "relay-fixed");
    vec![
        (
            "reply-queue-in-another-region",
            replies("Not in the topic's region.", "queue", queue("eu-central-1", ACCOUNT, &name)),
        ),
        (
            "reply-queue-in-another-account",
            replies("Not in one of the signer's accounts.", "queue", queue("eu-west-1", "333333333333", &name)),
        ),
        (
            "reply-queue-of-another-deployment",
            replies("Named for another deployment.", "queue", queue("eu-west-1", ACCOUNT, &other)),
        ),
        (
            "reply-queue-is-the-control-queue",
            replies(
                "Named as a control queue.",
                "queue",
                queue("eu-west-1", ACCOUNT, &name.replace("reply", "control")),
            ),
        ),
        (
            "reply-queue-fixed",
            replies("A queue that the configuration fixes, elsewhere.", "ok", fixed.clone())
                .but(|v| v.fixed_queues = vec![fixed]),
        ),
        (
            "control-queue-in-another-account",
            controls(
                "Not in one of the signer's accounts.",
                queue("eu-west-1", "333333333333", &name.replace("reply", "control")),
            ),
        ),
        ("control-queue-is-the-reply-queue", controls("Named as a reply queue.", queue("eu-west-1", ACCOUNT, &name))),
    ]
}
