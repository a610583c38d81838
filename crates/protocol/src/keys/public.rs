//! Public keys, and the verification of signatures (clauses SIG-1 to SIG-4).

use std::cell::RefCell;

use ed25519_dalek::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use p256::ecdsa::signature::Verifier as _;

use crate::names::PublicKey;

/// A public key of a supported kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyingKey {
    /// Ed25519 (RFC 8032).
    Ed25519(ed25519_dalek::VerifyingKey),
    /// ECDSA over NIST P-256, as in AWS KMS.
    P256(p256::ecdsa::VerifyingKey),
}

/// The bytes are not a public key of a supported kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither an Ed25519 nor a P-256 public key")]
pub struct VerifyingKeyError;

impl VerifyingKey {
    /// Reads a SubjectPublicKeyInfo. One key has one form: a key that would be encoded in another
    /// way is refused, such as a compressed P-256 point. An Ed25519 key of small order is refused,
    /// because one signature can be valid for many texts under it.
    ///
    /// # Errors
    ///
    /// If `key` is neither an Ed25519 key nor a P-256 key in its one form, or if it is an Ed25519
    /// key of small order.
    pub fn from_spki(key: &PublicKey) -> Result<Self, VerifyingKeyError> {
        let read = if let Ok(ed25519) = ed25519_dalek::VerifyingKey::from_public_key_der(key.der()) {
            let canonical = ed25519.to_edwards().compress().to_bytes() == ed25519.to_bytes();
            (canonical && !ed25519.is_weak()).then_some(Self::Ed25519(ed25519))
        } else {
            p256::ecdsa::VerifyingKey::from_public_key_der(key.der()).ok().map(Self::P256)
        };
        read.filter(|read| read.to_der().as_deref() == Some(key.der())).ok_or(VerifyingKeyError)
    }

    fn to_der(&self) -> Option<Vec<u8>> {
        let der = match self {
            Self::Ed25519(key) => key.to_public_key_der(),
            Self::P256(key) => key.to_public_key_der(),
        };
        der.ok().map(ed25519_dalek::pkcs8::Document::into_vec)
    }

    /// Whether `signature` is valid for `text` under this key. The kind of the key alone decides
    /// the form (clauses SIG-1, SIG-2). Ed25519 is 64 bytes, verified strictly: RFC 8032 with
    /// canonical encodings and no points of small order. P-256 is ECDSA over SHA-256 in strict DER;
    /// a high s is refused, so that nobody can derive a second valid signature from a first.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(text, &signature).is_ok()),
            Self::P256(key) => p256::ecdsa::Signature::from_der(signature).is_ok_and(|read| {
                read.normalize_s() == read && read.to_der().as_bytes() == signature && key.verify(text, &read).is_ok()
            }),
        }
    }
}

/// Checks a signature by a public key. Programs use [`Cached`]; models and fuzz targets use
/// cheap implementations of their own.
pub trait Verifier {
    /// Whether `signature` is valid for `text` under `key`.
    fn verify(&self, key: &PublicKey, text: &[u8], signature: &[u8]) -> bool;

    /// Whether `key` is a valid key of a supported kind (clause SIG-4).
    fn is_key(&self, key: &PublicKey) -> bool;
}

/// A verifier that keeps the last key that it parsed. Parsing a key costs as much as a
/// verification, and nearly all frames of a deployment are signed by the same key.
#[derive(Debug, Default)]
pub struct Cached {
    last: RefCell<Option<(PublicKey, VerifyingKey)>>,
}

impl Verifier for Cached {
    fn verify(&self, key: &PublicKey, text: &[u8], signature: &[u8]) -> bool {
        let mut last = self.last.borrow_mut();
        if last.as_ref().is_none_or(|(known, _)| known != key) {
            *last = VerifyingKey::from_spki(key).ok().map(|read| (key.clone(), read));
        }
        last.as_ref().is_some_and(|(_, key)| key.verify(text, signature))
    }

    fn is_key(&self, key: &PublicKey) -> bool {
        VerifyingKey::from_spki(key).is_ok()
    }
}

/// A signature from KMS with its s made low (clause SIG-3); `None` if it is not a P-256 signature
/// in DER.
pub fn p256_with_low_s(der: &[u8]) -> Option<Vec<u8>> {
    let signature = p256::ecdsa::Signature::from_der(der).ok()?;
    Some(signature.normalize_s().to_der().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::signature::Signer as _;

    fn p256_pair() -> (p256::ecdsa::SigningKey, VerifyingKey) {
        let signing = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let spki = PublicKey::from_der(signing.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap();
        (signing, VerifyingKey::from_spki(&spki).unwrap())
    }

    #[test]
    fn p256_refuses_a_high_s_and_takes_kms_der_normalised() {
        let (signing, verifying) = p256_pair();
        let low: p256::ecdsa::Signature = signing.sign(b"text");
        let low = low.normalize_s();
        let (r, s) = low.split_scalars();
        let high = p256::ecdsa::Signature::from_scalars(r, -*s).unwrap();
        let der = |signature: p256::ecdsa::Signature| signature.to_der().as_bytes().to_vec();
        assert!(verifying.verify(b"text", &der(low)));
        assert!(!verifying.verify(b"text", &der(high)));
        assert!(!verifying.verify(b"texu", &der(low)));
        assert!(!verifying.verify(b"text", low.to_bytes().as_slice()));
        assert_eq!(p256_with_low_s(&der(high)), Some(der(low)));
    }

    #[test]
    fn keys_of_small_order_and_other_kinds_are_refused() {
        let mut der = data_encoding::HEXLOWER.decode(b"302a300506032b6570032100").unwrap();
        der.extend([0; 32]);
        for odd in [der, b"not a key".to_vec()] {
            assert_eq!(VerifyingKey::from_spki(&PublicKey::from_der(&odd).unwrap()), Err(VerifyingKeyError));
        }
    }
}
