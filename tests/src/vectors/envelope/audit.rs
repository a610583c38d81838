//! Vectors of what auditors read: verification summaries, and entries of the ledger.

use relay_protocol::ledger::LedgerEntry;
use relay_protocol::summary::Summary;
use relay_protocol::{Statement as _, record};

use super::super::keys::{self, Key};
use super::super::request;
use super::super::{Cases, Vector};
use super::unfold;

pub(super) fn summaries() -> Cases {
    let summary = |kind: &str, result: &str| {
        format!(
            r#"{{"_type":"{}","subject":[{{"name":"request","digest":{{"sha256":"{digest}"}}}}],"predicateType":"{kind}","predicate":{{"verifier":{{"id":"arn:aws:sns:eu-west-1:222222222222:relay","version":{{"relay-launcher":"0.1.0"}}}},"timeVerified":"2026-06-01T12:00:10Z","resourceUri":"urn:relay:target:payments/production","policy":{{"uri":"s3://evidence/configuration.toml","digest":{{"sha256":"{digest}"}}}},"inputAttestations":[{{"uri":"s3://evidence/request.json","digest":{{"sha256":"{digest}"}}}}],"verificationResult":"{result}","verifiedLevels":["RELAY_POLICY_V1"],"slsaVersion":"1.1"}}}}"#,
            record::STATEMENT_TYPE,
            digest = request::digest(),
        )
    };
    let base = Vector { statement: "summary".into(), keys: vec![keys::answer().public()], ..Vector::default() };
    let by = |key: &Key, payload: String| keys::envelope(record::TYPE, payload, &[key]).to_json();
    let kind = <Summary as record::Predicate>::TYPE;
    let good = summary(kind, "PASSED");
    vec![
        (
            "summary-good",
            unfold(
                base.odd("REC-8", "ok", "A verification summary, signed by the answer key.")
                    .body(by(&keys::answer(), good.clone())),
            ),
        ),
        (
            "summary-by-the-target-key",
            base.odd("REC-8", "no-valid-signature", "A verification summary, signed by the target key.")
                .body(by(&keys::target(), good.clone())),
        ),
        (
            "summary-failed",
            base.odd("REC-8", "malformed-payload", "A refusal has a record and no summary.")
                .body(by(&keys::answer(), summary(kind, "FAILED"))),
        ),
        (
            "summary-of-another-version",
            base.odd("REC-8", "malformed-payload", "A summary of the first version of SLSA.")
                .body(by(&keys::answer(), summary("https://slsa.dev/verification_summary/v0.2", "PASSED"))),
        ),
        (
            "summary-as-a-record",
            base.odd("REC-1, REC-8", "malformed-payload", "A summary, and the reader expects a launcher's record.")
                .but(|v| v.statement = "launcher-record".into())
                .body(by(&keys::answer(), good)),
        ),
    ]
}

pub(super) fn entries() -> Cases {
    let digest = request::digest();
    let good = format!(
        r#"{{"bucket":"relay-evidence-222222222222-eu-west-1","number":1,"previous":"{digest}","from":"2026-06-01T12:00:00Z","until":"2026-06-01T13:00:00Z","objects":{{"deployments/payments/production/2026-06-01/{id}/claim":"{digest}"}}}}"#,
        id = request::id(),
    );
    let first = r#"{"bucket":"relay-evidence-222222222222-eu-west-1","number":0,"from":"2026-06-01T11:00:00Z","until":"2026-06-01T12:00:00Z","objects":{}}"#;
    let base = Vector { statement: "ledger-entry".into(), keys: vec![keys::ledger().public()], ..Vector::default() };
    let by = |key: &Key, payload: &str| keys::envelope(LedgerEntry::TYPE, payload, &[key]).to_json();
    let ok = |comment: &str, payload: &str| unfold(base.odd("LED-1", "ok", comment).body(by(&keys::ledger(), payload)));
    let malformed = |clause: &str, comment: &str, payload: String| {
        base.odd(clause, "malformed-payload", comment).body(by(&keys::ledger(), &payload))
    };
    let objects = |inner: &str| {
        let (before, _) = good.split_once(r#""objects":"#).unwrap();
        format!(r#"{before}"objects":{inner}}}"#)
    };
    vec![
        ("ledger-entry", ok("An entry with one object.", &good)),
        ("ledger-entry-first", ok("The first entry, of an hour in which nothing happened.", first)),
        (
            "ledger-entry-by-the-answer-key",
            base.odd("LED-1", "no-valid-signature", "An entry, signed by the answer key.")
                .body(by(&keys::answer(), &good)),
        ),
        (
            "ledger-entry-as-a-record",
            base.odd("ENV-4, LED-1", "payload-type", "An entry, and the reader expects a record.")
                .but(|v| v.statement = "record".into())
                .body(by(&keys::ledger(), &good)),
        ),
        (
            "ledger-entry-unknown-member",
            malformed(
                "ENC-6",
                "An entry with a member that this version does not know.",
                good.replace(r#","number""#, r#","note":"x","number""#),
            ),
        ),
        (
            "ledger-entry-object-twice",
            malformed(
                "ENC-5, LED-1",
                "One object under two digests.",
                objects(&format!(r#"{{"a":"{digest}","a":"{}"}}"#, "0".repeat(64))),
            ),
        ),
        (
            "ledger-entry-odd-digest",
            malformed(
                "ENC-3, LED-1",
                "A digest in upper case.",
                objects(&format!(r#"{{"a":"{}"}}"#, digest.to_uppercase())),
            ),
        ),
        (
            "ledger-entry-negative",
            malformed("ENC-7, LED-1", "A negative number.", good.replace(r#""number":1"#, r#""number":-1"#)),
        ),
    ]
}
