//! Vectors of the vouch: which key may vouch for which runner key.

use super::*;

pub(super) fn vouches() -> Cases {
    let first = |clause: &str, expect: &str, comment: &str, vouch: String| {
        runner(fresh().odd(clause, expect, comment), started()).but(|v| v.vouch = Some(vouch))
    };
    let target = keys::target();
    let with = |name: &str, value: String| vouched(&vouch().with(name, text(&value)), &target);
    vec![
        (
            "no-vouch-yet",
            runner(
                fresh().odd("FRM-1", "no-vouch", "The runner key is not known, and there is no vouch."),
                heartbeat(),
            ),
        ),
        (
            "vouch-by-the-runner-itself",
            first("VCH-1", "bad-vouch", "The runner key vouches for itself.", vouched(&vouch(), &keys::runner())),
        ),
        (
            "vouch-by-the-answer-key",
            first("VCH-1", "bad-vouch", "The answer key vouches.", vouched(&vouch(), &keys::answer())),
        ),
        ("vouch-by-a-ci-signer", first("VCH-1", "bad-vouch", "A CI signer vouches.", vouched(&vouch(), &keys::ci()))),
        (
            "vouch-unsigned",
            first(
                "VCH-1",
                "bad-vouch",
                "A vouch without a signature.",
                keys::envelope(Vouch::TYPE, vouch().json(), &[]).to_json(),
            ),
        ),
        (
            "vouch-of-another-type",
            first(
                "VCH-1, ENV-4",
                "bad-vouch",
                "The target key signed these bytes as something else.",
                keys::envelope(relay_protocol::record::TYPE, vouch().json(), &[&target]).to_json(),
            ),
        ),
        (
            "vouch-with-unknown-member",
            first(
                "VCH-1, ENC-6",
                "bad-vouch",
                "A member that nobody knows.",
                vouched(&vouch().with("until", "0"), &target),
            ),
        ),
        (
            "vouch-as-array",
            first(
                "VCH-1, ENC-6",
                "bad-vouch",
                "The members' values in an array.",
                keys::envelope(Vouch::TYPE, vouch().array(), &[&target]).to_json(),
            ),
        ),
        ("vouch-is-no-json", first("VCH-1", "bad-vouch", "The attribute is no envelope.", "yes".into())),
        (
            "vouch-for-another-deployment",
            first("VCH-3", "wrong-vouch", "A vouch for another deployment.", with("deployment_id", other_id())),
        ),
        (
            "vouch-for-another-request",
            first(
                "VCH-3",
                "wrong-vouch",
                "A vouch for another request of this id.",
                with("request_digest", "0".repeat(64)),
            ),
        ),
        (
            "vouch-for-another-key",
            first(
                "FRM-5",
                "bad-frame-signature",
                "A good vouch for another key than the one that signed.",
                with("runner_key", keys::stranger().public()),
            ),
        ),
        (
            "vouch-for-a-key-of-small-order",
            first("SIG-4", "bad-key", "A vouch for a point of small order.", with("runner_key", keys::small_order())),
        ),
        (
            "vouch-for-a-key-not-canonical",
            first(
                "SIG-4",
                "bad-key",
                "A vouch for an Ed25519 key whose y is written as y + p.",
                with("runner_key", keys::ed25519_not_canonical()),
            ),
        ),
        (
            "later-vouch-for-another-key",
            runner(
                base().odd("VCH-4", "ok", "The runner key is fixed; a vouch for another key changes nothing."),
                heartbeat(),
            )
            .but(|v| v.vouch = Some(with("runner_key", keys::stranger().public()))),
        ),
        (
            "later-vouch-is-nonsense",
            runner(base().odd("VCH-4", "ok", "The runner key is fixed; the vouch is not looked at."), heartbeat())
                .but(|v| v.vouch = Some("yes".into())),
        ),
        (
            "later-vouch-and-its-key",
            runner(
                base().odd(
                    "VCH-4",
                    "bad-frame-signature",
                    "The runner key is fixed; a frame by another vouched key is not believed.",
                ),
                heartbeat(),
            )
            .but(|v| {
                v.vouch = Some(with("runner_key", keys::stranger().public()));
                v.sig = Some(keys::stranger().detached(RUNNER_FRAME_TYPE, &heartbeat()));
            }),
        ),
        (
            "first-vouch-without-a-pin",
            first(
                "VCH-5",
                "ok",
                "No target key is pinned: the first vouch is taken at its word.",
                vouched(&vouch(), &keys::stranger()),
            )
            .but(|v| (v.target_key, v.answer_key) = (None, None)),
        ),
    ]
}
