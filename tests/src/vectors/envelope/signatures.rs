//! Vectors of signatures and of records.

use super::*;

pub(super) fn signatures() -> Cases {
    let odd = |clause: &str, comment: &str, sig: String| {
        base().odd(clause, "no-valid-signature", comment).body(with(&[(keys::ci().id(), sig)]))
    };
    let pae = unsigned().pae();
    let (ci, kms) = (keys::ci().sign(&pae), keys::kms().sign(&pae));
    vec![
        (
            "p256-high-s",
            odd(
                "SIG-2",
                "The same signature with n − s: valid to a verifier that does not look.",
                encoding::base64(&keys::with_high_s(&kms)),
            ),
        ),
        (
            "p256-r-s",
            odd("SIG-2", "A good signature as r‖s, the form of JWS.", encoding::base64(&keys::to_fixed(&kms))),
        ),
        (
            "p256-padded-r",
            odd("SIG-2", "r has a superfluous byte of zeros.", encoding::base64(&keys::with_padded_r(&kms))),
        ),
        (
            "p256-long-length",
            odd("SIG-2", "The length has the long form.", encoding::base64(&keys::with_long_length(&kms))),
        ),
        (
            "p256-trailing-byte",
            odd("SIG-2", "A byte follows the signature.", encoding::base64(&[&kms[..], &[0]].concat())),
        ),
        ("p256-zero", odd("SIG-2", "r and s are zero.", encoding::base64(&[0x30, 6, 2, 1, 0, 2, 1, 0]))),
        (
            "ed25519-s-plus-the-order",
            odd("SIG-1", "s is not canonical.", encoding::base64(&keys::with_s_plus_order(&ci))),
        ),
        (
            "ed25519-one-bit",
            odd("SIG-1", "One bit of the signature differs.", {
                let mut sig = ci.clone();
                sig[0] ^= 1;
                encoding::base64(&sig)
            }),
        ),
        ("sig-of-63-bytes", odd("SIG-1, SIG-2", "A signature of 63 bytes.", encoding::base64(&ci[..63]))),
        (
            "sig-of-65-bytes",
            odd("SIG-1, SIG-2", "A signature of 65 bytes.", encoding::base64(&[&ci[..], &[0]].concat())),
        ),
        (
            "sig-unpadded",
            odd(
                "ENC-1, ENC-2",
                "A good signature without padding.",
                encoding::base64(&ci).trim_end_matches('=').into(),
            ),
        ),
        (
            "sig-trailing-bits",
            odd(
                "ENC-1",
                "A good signature whose base64 has unused bits that are not zero.",
                encoding::base64(&ci)
                    .replace("A==", "B==")
                    .replace("Q==", "R==")
                    .replace("g==", "h==")
                    .replace("w==", "x=="),
            ),
        ),
        ("token", odd("SIG-5", "A token alone: this version knows none.", TOKEN.into())),
    ]
}

pub(super) fn records() -> Cases {
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let predicate = format!(
        r#"{{"deployment_id":"{id}","target":"payments/production","audience":"arn:aws:sns:eu-west-1:222222222222:relay","parameters":{{}},"signers":[],"approvers":[],"policies":["policy0"],"task_arn":"arn:aws:ecs:eu-west-1:222222222222:task/relay/1","runner_version":"0.1.0","started_at":"2026-06-01T12:01:00Z","finished_at":"2026-06-01T12:02:00Z","steps":[{{"name":"apply","argv":["terraform","apply"],"exit_code":0,"milliseconds":1}}],"outcome":{{"exited":{{"code":0}}}},"stdout":{{"bytes":0,"sha256":"{digest}"}},"stderr":{{"bytes":0,"sha256":"{digest}"}},"outputs":{{}},"isolation":"uid"}}"#,
        id = request::id(),
    );
    let statement = |kind: &str, predicate_type: &str| {
        format!(
            r#"{{"_type":"{kind}","subject":[{{"name":"request","digest":{{"sha256":"{}"}}}}],"predicateType":"{predicate_type}","predicate":{predicate}}}"#,
            request::digest()
        )
    };
    let unfinished = format!(
        r#"{{"_type":"{}","subject":[{{"name":"request","digest":{{"sha256":"{}"}}}}],"predicateType":"{}","predicate":{{"deployment_id":"{}","target":"payments/production","audience":"arn:aws:sns:eu-west-1:222222222222:relay","parameters":{{}},"signers":[],"approvers":[],"recorded_at":"2026-06-01T12:02:00Z","outcome":"killed","reason":"out_of_memory","message":"OutOfMemoryError","task_arn":"arn:aws:ecs:eu-west-1:222222222222:task/relay/1","exit_code":137,"launcher_version":"0.1.0"}}}}"#,
        record::STATEMENT_TYPE,
        request::digest(),
        <record::Unfinished as record::Predicate>::TYPE,
        request::id(),
    );
    let base = Vector { statement: "record".into(), keys: vec![keys::target().public()], ..Vector::default() };
    let by = |key: &Key, payload: String| keys::envelope(record::TYPE, payload, &[key]).to_json();
    let good = statement(record::STATEMENT_TYPE, <record::Deployment as record::Predicate>::TYPE);
    vec![
        (
            "record-good",
            unfold(
                base.odd("REC-1, REC-2", "ok", "A record, signed by the target key.")
                    .body(by(&keys::target(), good.clone())),
            ),
        ),
        (
            "record-of-32-KiB",
            unfold(base.odd("LIM-3", "ok", "A record that is longer than any other payload may be.").body(by(
                &keys::target(),
                good.replace(r#""outputs":{}"#, &format!(r#""outputs":{{"x":"{}"}}"#, "x".repeat(32_768))),
            )))
            .but(|v| v.canonical = None),
        ),
        (
            "launcher-record",
            unfold(
                base.odd("REC-5", "ok", "A record of the launcher, signed by the answer key.")
                    .but(|v| (v.statement, v.keys) = ("launcher-record".into(), vec![keys::answer().public()]))
                    .body(by(&keys::answer(), unfinished.clone())),
            ),
        ),
        (
            "launcher-record-by-the-target-key",
            base.odd("REC-5", "no-valid-signature", "A record of the launcher, signed by the target key.")
                .but(|v| (v.statement, v.keys) = ("launcher-record".into(), vec![keys::answer().public()]))
                .body(by(&keys::target(), unfinished.clone())),
        ),
        (
            "launcher-record-that-says-exited",
            base.odd("REC-5", "malformed-payload", "A record of the launcher with an outcome that only a runner sees.")
                .but(|v| (v.statement, v.keys) = ("launcher-record".into(), vec![keys::answer().public()]))
                .body(by(
                    &keys::answer(),
                    unfinished.replace(r#""outcome":"killed""#, r#""outcome":{"exited":{"code":0}}"#),
                )),
        ),
        (
            "launcher-record-as-a-runners",
            base.odd("REC-1, REC-5", "malformed-payload", "A launcher's record, and the reader expects a runner's.")
                .body(by(&keys::target(), unfinished)),
        ),
        (
            "record-by-the-runner-key",
            base.odd("REC-1", "no-valid-signature", "A record signed by the runner key.")
                .body(by(&keys::runner(), good)),
        ),
        (
            "record-of-another-predicate",
            base.odd("REC-2", "malformed-payload", "A signed in-toto statement about something else.")
                .body(by(&keys::target(), statement(record::STATEMENT_TYPE, "https://slsa.dev/provenance/v1"))),
        ),
        (
            "record-of-another-statement-type",
            base.odd("REC-2", "malformed-payload", "An in-toto statement of version 0.1.").body(by(
                &keys::target(),
                statement("https://in-toto.io/Statement/v0.1", <record::Deployment as record::Predicate>::TYPE),
            )),
        ),
    ]
}
