//! Clauses of `docs/protocol.md` that are about functions, not about received bytes, and so have no
//! vector.

use relay_protocol::artifact::{UnsafeEntry, check_link, components, object_key, unpacked_limit};
use relay_protocol::claim::{Claim, Holder, Lock, Verdict};
use relay_protocol::encoding::{base64, printable, sqs_safe};
use relay_protocol::keys::{SingleKey, VerifyingKey, p256_with_low_s};
use relay_protocol::ledger::LedgerEntry;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::Record;
use relay_protocol::summary::Summary;
use relay_protocol::{DeploymentId, Digest, Envelope, ExitCode, PublicKey, Reason, RequestRef, limits};
use relay_tests::vectors::{Vector, directory, on_disk};

// clause: SIG-3
#[test]
fn a_signature_of_kms_becomes_one_that_readers_accept() {
    use p256::ecdsa::signature::Signer as _;
    use p256::pkcs8::EncodePublicKey as _;
    let key = p256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
    let spki = PublicKey::from_der(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap();
    let reader = VerifyingKey::from_spki(&spki).unwrap();
    let low: p256::ecdsa::Signature = key.sign(b"text");
    let (r, s) = low.normalize_s().split_scalars();
    // KMS may return either form of `s`, low or high.
    for der in [low.normalize_s().to_der(), p256::ecdsa::Signature::from_scalars(r, -*s).unwrap().to_der()] {
        assert!(reader.verify(b"text", &p256_with_low_s(der.as_bytes()).unwrap()));
    }
    assert_eq!(p256_with_low_s(b"no DER"), None);
}

// clause: LAU-8
#[test]
fn an_override_names_the_request_and_nothing_else() {
    let id = DeploymentId::new(1_780_315_200_000, [7; 10]);
    let named =
        RequestRef { target: "a/b".parse().unwrap(), deployment_id: id.clone(), request_digest: Digest::of(b"") };
    let text = format!(r#"{{"target":"a/b","deployment_id":"{id}","request_digest":"{}"}}"#, Digest::of(b""));
    assert_eq!((named.to_json(), RequestRef::parse(&text).unwrap()), (text.clone(), named));
    // ECS allows 8,192 characters for all overrides together.
    assert!(text.len() < 1_000);
}

// clause: ART-1, ART-4
#[test]
fn an_unsafe_entry_spoils_an_artifact() {
    assert_eq!(object_key("a/", Digest::of(b"")), format!("a/{}.tar.zst", Digest::of(b"")));
    assert_eq!(components("a/./b"), Ok(vec!["a", "b"]));
    let long = "a".repeat(256);
    for path in ["/a", "\\a", "a\\b", "..", "a/../b", "a\0", long.as_str()] {
        assert!(components(path).is_err(), "{path}");
    }
    assert_eq!(check_link("a/b", "../c/./d"), Ok(()));
    for (path, target) in
        [("a", ".."), ("a/b", "c/../../.."), ("a", "/etc/passwd"), ("a", ""), ("a", "b\\c"), ("a", "b\0")]
    {
        assert!(matches!(check_link(path, target), Err(UnsafeEntry::LinkOut { .. })), "{path} -> {target}");
    }
}

// clause: ART-5
#[test]
fn an_artifact_unpacks_to_a_hundredfold_at_most() {
    assert_eq!(unpacked_limit(50_000_000, 20_000_000), 2_000_000_000);
    assert_eq!(unpacked_limit(10_000_000, u64::MAX), 1_000_000_000);
    assert_eq!(unpacked_limit(1, 1), 1_048_576);
    assert_eq!(unpacked_limit(u64::MAX, u64::MAX), u64::MAX);
}

// clause: FRM-3
#[test]
fn a_body_holds_only_what_sqs_takes() {
    let all: String = ('\0'..=char::MAX).collect();
    let body = sqs_safe(serde_json::to_string(&all).unwrap());
    let taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..);
    assert!(body.chars().all(taken));
    assert_eq!(serde_json::from_str::<String>(&body).unwrap(), all);
}

// clause: FRM-17
#[test]
fn a_strangers_text_moves_no_cursor_and_turns_no_line() {
    for odd in ["\u{1b}[31m", "\r\n", "\u{7f}", "\u{9b}", "\u{202e}", "\u{2066}", "\u{200b}", "\u{feff}"] {
        let shown = printable(odd);
        assert!(
            shown.starts_with("\\u{") && odd.chars().all(|c| c.is_ascii_graphic() || !shown.contains(c)),
            "{shown}"
        );
    }
    assert_eq!(printable(&"é".repeat(limits::TEXT_MAX + 1)), "é".repeat(limits::TEXT_MAX) + "…");
}

// clause: OUT-1, OUT-3
#[test]
fn exit_codes_are_the_tools_or_those_of_the_table() {
    assert_eq!(Outcome::Exited { code: 2, signal: None }.exit_code(), 2);
    let own = [119, 120, 121, 122, 123, 124, 125, 130, 143];
    use ExitCode as E;
    let all = [
        E::Usage,
        E::Refused,
        E::NeverStarted,
        E::Unknown,
        E::Incomplete,
        E::TimedOut,
        E::Fault,
        E::Interrupted,
        E::Terminated,
    ];
    assert_eq!(all.map(ExitCode::code), own);
    for reason in Reason::ALL {
        let code = Outcome::Ended { reason: *reason, message: String::new() }.exit_code();
        assert!(own.contains(&code), "{reason}: {code}");
    }
}

// clause: ENC-6
#[test]
fn claims_and_locks_are_strict_objects() {
    let digest = Digest::of(b"");
    let runner = format!(r#"{{"request_digest":"{digest}","holder":{{"runner":{{"task_arn":"t","nonce":"n"}}}}}}"#);
    let claim = Claim::parse(runner.as_bytes()).unwrap();
    assert_eq!(claim.holder, Holder::Runner { task_arn: "t".into(), nonce: "n".into() });
    assert_eq!(claim.to_bytes(), runner.as_bytes());
    let launcher = format!(
        r#"{{"request_digest":"{digest}","holder":{{"launcher":{{"verdict":"launch_failed","reason":"capacity","message":""}}}}}}"#
    );
    let holder = Holder::Launcher { verdict: Verdict::LaunchFailed, reason: Reason::Capacity, message: String::new() };
    assert_eq!(Claim::parse(launcher.as_bytes()).unwrap().holder, holder);
    for odd in [
        runner.replace(r#""nonce":"n""#, r#""nonce":"n","x":1"#),
        runner.replace("runner", "nobody"),
        runner.clone() + "x",
        runner.replace('{', "{\"x\":1,"),
        base64(runner.as_bytes()),
    ] {
        assert!(Claim::parse(odd.as_bytes()).is_err(), "{odd}");
    }
    assert_eq!(Lock::parse(b"{}").unwrap(), Lock::default());
    assert_eq!(Lock::default().to_bytes(), b"{}");
    assert_eq!(Lock::key(&"a/b".parse().unwrap(), 0), "locks/a/b/0");
    assert!(Lock::parse(br#"{"owner":null}"#).is_err());
}

// clause: ENV-5, REC-1, LED-1, REC-8
/// Only hints and unknown members are not covered: then the verified bytes are the same.
#[test]
fn every_byte_of_a_record_a_summary_and_an_entry_counts() {
    let all = on_disk(&directory());
    for (name, verify) in [
        ("envelope/record-good.json", (|e, k| k.verify::<Record>(e).map(|v| v.digest()).ok()) as Verify),
        ("envelope/summary-good.json", |e, k| k.verify::<Record<Summary>>(e).map(|v| v.digest()).ok()),
        ("envelope/ledger-entry.json", |e, k| k.verify::<LedgerEntry>(e).map(|v| v.digest()).ok()),
    ] {
        let vector: Vector = serde_json::from_str(&all[name]).unwrap();
        let key = SingleKey::new(&vector.keys[0].parse().unwrap()).unwrap();
        let good = vector.body.bytes();
        let digest = verify(&Envelope::parse(&good, 1 << 20).unwrap(), &key);
        assert!(digest.is_some(), "{name}");
        let text = String::from_utf8(good.clone()).unwrap();
        let place = |member: &str| {
            let start = text.find(&format!("\"{member}\":\"")).unwrap() + member.len() + 4;
            start..start + text[start..].find('"').unwrap()
        };
        let (payload, sig) = (place("payload"), place("sig"));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let found = Envelope::parse(&bad, 1 << 20).ok().and_then(|envelope| verify(&envelope, &key));
            assert!(found.is_none() || found == digest, "{name}, byte {at}: other bytes are believed");
            let signed = payload.contains(&at) || sig.contains(&at);
            assert!(!signed || found.is_none(), "{name}, byte {at}: a changed envelope is believed");
        }
    }
}

/// Verifies an envelope, and returns its digest.
type Verify = fn(&Envelope, &SingleKey) -> Option<Digest>;
