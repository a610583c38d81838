//! A private Ed25519 key in memory, of a signer, a session or a runner. It is wiped when dropped
//! and never shown.

use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes};
use zeroize::{Zeroize as _, Zeroizing};

use crate::envelope::{Envelope, Signature};
use crate::names::PublicKey;

/// An Ed25519 key pair.
///
/// ```
/// use relay_protocol::encoding::base64;
/// use relay_protocol::keys::{PrivateKey, SingleKey};
///
/// let key = PrivateKey::from_seed([7; 32]); // A real seed is 32 random bytes.
/// let sig = base64(&key.sign(b"text"));
/// let trusted = SingleKey::new(key.public())?;
/// assert!(trusted.verify_detached(b"text", &sig));
/// assert!(!trusted.verify_detached(b"other text", &sig));
/// # Ok::<(), relay_protocol::keys::VerifyingKeyError>(())
/// ```
pub struct PrivateKey {
    key: ed25519_dalek::SigningKey,
    public: PublicKey,
}

/// The text is not a private key that relay can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PKCS#8 PEM (`relay keygen` creates one)")]
pub struct PrivateKeyError;

impl PrivateKey {
    /// A key from 32 random bytes. The function wipes its copy of the seed.
    pub fn from_seed(mut seed: [u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(&seed);
        seed.zeroize();
        Self::of(key)
    }

    /// Reads a key from PKCS#8 PEM.
    ///
    /// # Errors
    ///
    /// If the text is not an Ed25519 private key in PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, PrivateKeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem.trim()).map(Self::of).map_err(|_| PrivateKeyError)
    }

    fn of(key: ed25519_dalek::SigningKey) -> Self {
        #[allow(clippy::expect_used, reason = "the message states the invariant")]
        let der = key.verifying_key().to_public_key_der().expect("a point of 32 bytes has one DER form");
        #[allow(clippy::expect_used, reason = "the message states the invariant")]
        let public = PublicKey::from_der(der.as_bytes()).expect("that form has 44 bytes");
        Self { key, public }
    }

    /// The key as PKCS#8 PEM, for a file that only its owner can read. It is version 1 of the form,
    /// without the public half: OpenSSL and Python's `cryptography` do not read version 2 (RFC
    /// 5958).
    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = KeypairBytes { secret_key: self.key.to_bytes(), public_key: None };
        #[allow(clippy::expect_used, reason = "the message states the invariant")]
        key.to_pkcs8_pem(LineEnding::LF).expect("32 bytes can be encoded")
    }

    /// The public half of the key pair.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `text`.
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.key.sign(text).to_bytes()
    }

    /// Adds this key's signature to an envelope.
    pub fn sign_envelope(&self, envelope: Envelope) -> Envelope {
        let signature = Signature::new(self.public.key_id(), &self.sign(&envelope.pae()));
        envelope.with_signature(signature)
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateKey").field("public", &self.public).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::VerifyingKey;

    #[test]
    fn a_key_survives_its_file_and_signs_what_it_verifies() {
        let key = PrivateKey::from_seed([9; 32]);
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.public(), again.public());
        let verifying = VerifyingKey::from_spki(key.public()).unwrap();
        assert!(verifying.verify(b"text", &again.sign(b"text")));
        assert!(!verifying.verify(b"texu", &again.sign(b"text")));
        assert!(!format!("{key:?}").contains("9, 9"));
    }
}
