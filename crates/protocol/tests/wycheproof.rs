//! Project Wycheproof's test vectors judge the verification of signatures (clauses SIG-1, SIG-2,
//! SIG-4): known attacks on Ed25519, and on ECDSA over P-256 with signatures in DER.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use relay_protocol::PublicKey;
use relay_protocol::keys::{VerifyingKey, p256_with_low_s};
use wycheproof::{TestResult, ecdsa, eddsa};

fn key(der: &[u8]) -> VerifyingKey {
    VerifyingKey::from_spki(&PublicKey::from_der(der).expect("of the size of a key")).expect("a valid key")
}

// clause: SIG-1
#[test]
fn ed25519_is_verified_as_project_wycheproof_expects() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut judged = 0;
    for group in set.test_groups {
        let key = key(&group.der);
        for test in group.tests {
            let valid = key.verify(&test.msg, &test.sig);
            assert_eq!(valid, test.result == TestResult::Valid, "test {}: {}", test.tc_id, test.comment);
            judged += 1;
        }
    }
    assert!(judged > 100, "{judged} tests");
}

// clause: SIG-2
/// relay is stricter in one point: a high s is refused, so that one signature has one form.
#[test]
fn p256_in_der_is_verified_as_project_wycheproof_expects() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let (mut judged, mut high) = (0, 0);
    for group in set.test_groups {
        let key = key(&group.der);
        for test in group.tests {
            let expected = test.result == TestResult::Valid;
            let low = p256_with_low_s(&test.sig);
            if expected && low.as_deref() != Some(test.sig.as_ref()) {
                assert!(!key.verify(&test.msg, &test.sig), "test {}: a high s", test.tc_id);
                assert!(key.verify(&test.msg, &low.expect("it is valid")), "test {}", test.tc_id);
                high += 1;
            } else {
                assert_eq!(key.verify(&test.msg, &test.sig), expected, "test {}: {}", test.tc_id, test.comment);
            }
            judged += 1;
        }
    }
    assert!(judged > 400 && high > 10, "{judged} tests, {high} of them with a high s");
}
