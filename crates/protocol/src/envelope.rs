//! The DSSE v1 envelope. It verifies the bytes, then parses those same bytes, and returns a
//! [`Verified`], which nothing else can create.
//!
//! Clauses ENV-1 to ENV-10. Source: <https://github.com/secure-systems-lab/dsse>, `protocol.md` and
//! `envelope.md`.

use serde::{Deserialize, Serialize};

use crate::encoding::{self, Digest};
use crate::limits;
use crate::strict;

/// DSSE's pre-authentication encoding (PAE), the bytes that are signed: `"DSSEv1" SP len(type) SP
/// type SP len(body) SP body` (clause ENV-3).
pub fn pae(payload_type: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
    out.extend_from_slice(body);
    out
}

/// One signature of an envelope. The key id is a hint and decides nothing (clause ENV-6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The hint: the SHA-256 of the signer's public key in hex, or any other text.
    #[serde(default)]
    pub keyid: String,
    /// The signature: base64 of the bytes that the key made, or a compact JWS.
    pub sig: String,
}

impl Signature {
    /// A key's signature with `keyid` as its hint.
    pub fn new(keyid: String, sig: &[u8]) -> Self {
        Self { keyid, sig: encoding::base64(sig) }
    }

    /// The bytes of a key's signature; `None` if `sig` is not base64, as with a token. The kind of
    /// the key decides whether they have the right form (clauses SIG-1, SIG-2).
    pub fn bytes(&self) -> Option<Vec<u8>> {
        encoding::from_base64_either(&self.sig).ok()
    }
}

/// An envelope as it travels. Nothing in it may be trusted before [`Envelope::verify`] succeeds.
///
/// ```
/// use relay_protocol::Envelope;
///
/// let envelope = Envelope::new("http://example.com/HelloWorld", b"hello world".to_vec());
/// assert_eq!(envelope.pae(), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
/// assert_eq!(Envelope::parse(envelope.to_json().as_bytes(), 1_024)?, envelope);
/// # Ok::<(), relay_protocol::EnvelopeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Signature>,
}

/// The JSON form. Unknown members are ignored here and nowhere else, as DSSE requires (clause
/// ENV-2).
#[derive(Serialize, Deserialize)]
struct Wire {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<Signature>,
}

/// The envelope cannot be read. The sender is at fault.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The input is over a size limit, so nothing was parsed (clause LIM-2).
    #[error("the envelope is {found} bytes; the limit is {limit}")]
    TooLarge {
        /// The size in bytes.
        found: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The input is not JSON in the form of an envelope (clause ENV-1).
    #[error("the envelope is not JSON of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    /// `payload` is not base64 (clause ENC-2).
    #[error("the envelope's payload is not base64")]
    Base64,
    /// There are too many signatures, or one of them is too long (clause LIM-4).
    #[error("the envelope has too many signatures, or one that is too long")]
    Signatures,
    /// There are too many approvals (clause LIM-5).
    #[error("there are more than {max} approvals", max = limits::APPROVALS_MAX)]
    Approvals,
}

/// A signer as the verifier knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy<S> {
    /// The SHA-256 of the public key in hex. Two signatures with the same key id are from the same
    /// signer.
    pub key_id: String,
    /// What the verifier knows about the signer.
    pub signer: S,
}

/// A payload that an envelope can carry. Each payload has exactly one type and one parser.
pub trait Statement: Sized {
    /// The `payloadType`, compared byte for byte (clause ENV-4).
    const TYPE: &'static str;
    /// The largest payload, in bytes (clause LIM-3).
    const MAX: usize = limits::PAYLOAD_MAX;
    /// Parses a payload after its signature was verified.
    ///
    /// # Errors
    ///
    /// If the payload does not have the form that its type requires.
    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error>;
}

/// A statement whose bytes were verified before they were parsed. [`Envelope::verify`] is the only
/// constructor. Code that holds a `Verified<T>` need not verify again, and nothing unverified can
/// become one (promise P2).
#[derive(Clone, Debug)]
pub struct Verified<T, S> {
    statement: T,
    envelope: Envelope,
    signers: Vec<S>,
    digest: Digest,
}

impl<T, S> Verified<T, S> {
    /// The verified statement.
    pub fn statement(&self) -> &T {
        &self.statement
    }

    /// The signers: one entry per key id, sorted by key id, never empty.
    pub fn signers(&self) -> &[S] {
        &self.signers
    }

    /// SHA-256 of the PAE: the request digest (clause ENV-10).
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The envelope reduced to what was verified: only valid signatures, one per signer, sorted by
    /// key id (clause ENV-9).
    pub fn canonical(&self) -> &Envelope {
        &self.envelope
    }
}

/// Why an envelope failed verification. Senders cannot tell these errors apart (clause ENV-8); the
/// difference is for the log.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The payload has another type, so its signature is for another purpose (clause ENV-4).
    #[error("the payload's type is `{}`, not `{expected}`", encoding::printable(.found))]
    PayloadType {
        /// The required type.
        expected: &'static str,
        /// The type in the envelope.
        found: String,
    },
    /// The envelope has no signatures.
    #[error("the envelope is not signed")]
    Unsigned,
    /// No signature is valid for a trusted key (clause ENV-5).
    #[error("none of the {count} signatures verifies with a key that is trusted here")]
    NoValidSignature {
        /// The number of signatures that were tried.
        count: usize,
    },
    /// The payload is over its size limit (clause LIM-3).
    #[error("the payload is {found} bytes; the limit is {limit}")]
    TooLarge {
        /// The size in bytes.
        found: usize,
        /// The limit for payloads of this type.
        limit: usize,
    },
    /// The payload is signed, but does not have the form that its type requires (clause ENV-7).
    #[error("the signed payload is malformed: {0}")]
    Malformed(serde_json::Error),
}

impl Envelope {
    /// An unsigned envelope around `payload`.
    pub fn new(payload_type: &str, payload: Vec<u8>) -> Self {
        Self { payload, payload_type: payload_type.to_owned(), signatures: Vec::new() }
    }

    /// The bytes to sign (clause ENV-3).
    pub fn pae(&self) -> Vec<u8> {
        pae(&self.payload_type, &self.payload)
    }

    /// SHA-256 of [`Envelope::pae`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.pae())
    }

    /// Adds a signature without checking it.
    #[must_use]
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.signatures.push(signature);
        self
    }

    /// The unverified payload, for inspection by a person. Decisions take a [`Verified`].
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// The payload type, also unverified.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The signatures, also unverified.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Reads an envelope from at most `limit` bytes of JSON (clauses ENV-1, ENV-2, LIM-4).
    ///
    /// # Errors
    ///
    /// If the JSON is longer than `limit`, does not have the form of an envelope, has a payload
    /// that is not base64, or has more or longer signatures than allowed.
    pub fn parse(json: &[u8], limit: usize) -> Result<Self, EnvelopeError> {
        if json.len() > limit {
            return Err(EnvelopeError::TooLarge { found: json.len(), limit });
        }
        Self::from_wire(strict::from_slice(json)?)
    }

    fn from_wire(wire: Wire) -> Result<Self, EnvelopeError> {
        if wire.signatures.len() > limits::SIGNATURES_MAX
            || wire.signatures.iter().any(|s| s.sig.len() > limits::SIGNATURE_MAX)
        {
            return Err(EnvelopeError::Signatures);
        }
        let payload = encoding::from_base64_either(&wire.payload).map_err(|_| EnvelopeError::Base64)?;
        Ok(Self { payload, payload_type: wire.payload_type, signatures: wire.signatures })
    }

    fn to_wire(&self) -> Wire {
        Wire {
            payload: encoding::base64(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.clone(),
        }
    }

    /// The JSON form, with the members in this order, no whitespace, and standard base64.
    pub fn to_json(&self) -> String {
        encoding::to_json(&self.to_wire())
    }

    /// Verifies the envelope, then parses the same bytes. Parsing must come last (clauses ENV-4 to
    /// ENV-10). `signed_by` returns the signers of a signature over a PAE: none, one, or, for a
    /// token, each of the entries that it fits. A signature without a signer is ignored (clause
    /// ENV-5). Programs use [`TrustRoots::verify`](crate::keys::TrustRoots::verify) and
    /// [`SingleKey::verify`](crate::keys::SingleKey::verify) instead.
    ///
    /// # Errors
    ///
    /// If the envelope has another payload type, an oversized payload, no signatures or no valid
    /// signature, or if the verified payload is malformed.
    pub fn verify<T: Statement, S, I: IntoIterator<Item = SignedBy<S>>>(
        &self,
        signed_by: impl Fn(&[u8], &Signature) -> I,
    ) -> Result<Verified<T, S>, VerifyError> {
        if self.payload_type != T::TYPE {
            return Err(VerifyError::PayloadType { expected: T::TYPE, found: self.payload_type.clone() });
        }
        if self.payload.len() > T::MAX {
            return Err(VerifyError::TooLarge { found: self.payload.len(), limit: T::MAX });
        }
        if self.signatures.is_empty() {
            return Err(VerifyError::Unsigned);
        }
        let pae = self.pae();
        let mut valid: Vec<(Vec<SignedBy<S>>, Signature)> = Vec::new();
        for signature in &self.signatures {
            let mut by: Vec<_> = signed_by(&pae, signature).into_iter().collect();
            by.sort_by(|a, b| a.key_id.cmp(&b.key_id));
            if let Some(keyid) = by.first().map(|first| first.key_id.clone()) {
                let sig = signature.bytes().map_or_else(|| signature.sig.clone(), |bytes| encoding::base64(&bytes));
                valid.push((by, Signature { keyid, sig }));
            }
        }
        if valid.is_empty() {
            return Err(VerifyError::NoValidSignature { count: self.signatures.len() });
        }
        valid.sort_by(|(_, a), (_, b)| (&a.keyid, &a.sig).cmp(&(&b.keyid, &b.sig)));
        valid.dedup_by(|(_, later), (_, first)| later.keyid == first.keyid);
        let statement = T::parse(&self.payload).map_err(VerifyError::Malformed)?;
        let (by, signatures): (Vec<_>, _) = valid.into_iter().unzip();
        let mut by: Vec<SignedBy<S>> = by.into_iter().flatten().collect();
        by.sort_by(|a, b| a.key_id.cmp(&b.key_id));
        by.dedup_by(|later, first| later.key_id == first.key_id);
        let signers = by.into_iter().map(|by| by.signer).collect();
        let envelope = Self { payload: self.payload.clone(), payload_type: self.payload_type.clone(), signatures };
        Ok(Verified { statement, digest: Digest::of(&pae), envelope, signers })
    }
}

impl Serialize for Envelope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_wire().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_wire(Wire::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p256::ecdsa::signature::Verifier as _;

    /// The test vector of the DSSE specification (`protocol.md`, "Test Vectors"): key, envelope and
    /// signature as printed there.
    #[test]
    fn the_specifications_own_vector_verifies() {
        const POINT: &str = "0467cd390f77aa359cb08c2235f652270493a9ed832b0abcc01f70954c0390d2380c782bd54e269125a44f4433aff1432ce94e12bca73aa67ac80cea12608ddf74";
        const ENVELOPE: &str = r#"{"payload": "aGVsbG8gd29ybGQ=",
 "payloadType": "http://example.com/HelloWorld",
 "signatures": [{"sig": "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"#;
        let envelope = Envelope::parse(ENVELOPE.as_bytes(), limits::BUNDLE_MAX).unwrap();
        assert_eq!(envelope.pae(), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
        let point = data_encoding::HEXLOWER.decode(POINT.as_bytes()).unwrap();
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(&envelope.signatures[0].bytes().unwrap()).unwrap();
        assert!(key.verify(&envelope.pae(), &signature).is_ok());
        assert!(key.verify(&pae("http://example.com/HelloWorld", b"hello worle"), &signature).is_err());
    }

    /// Accepts every signature whose hint is not `bad`, and maps `a2` to the signer `a`.
    fn toys(_: &[u8], signature: &Signature) -> Option<SignedBy<String>> {
        let name = signature.keyid[..1].to_owned();
        (signature.keyid != "bad").then(|| SignedBy { key_id: name.clone(), signer: name })
    }
    #[derive(Debug)]
    struct Any;
    impl Statement for Any {
        const TYPE: &'static str = "any";
        fn parse(_: &[u8]) -> Result<Self, serde_json::Error> {
            Ok(Self)
        }
    }

    #[test]
    fn the_canonical_form_keeps_one_valid_signature_for_each_signer() {
        let sig = |keyid: &str, byte| Signature::new(keyid.into(), &[byte; 64]);
        let envelope = Envelope::new("any", b"{}".to_vec())
            .with_signature(sig("b", 3))
            .with_signature(sig("a2", 2))
            .with_signature(sig("bad", 0))
            .with_signature(sig("a", 1));
        let verified = envelope.verify::<Any, _, _>(toys).unwrap();
        assert_eq!(verified.signers(), ["a", "b"]);
        assert_eq!(verified.canonical().signatures(), [sig("a", 1), sig("b", 3)]);
    }

    #[test]
    fn another_type_or_no_valid_signature_is_nothing() {
        let sig = Signature::new("bad".into(), &[0; 64]);
        let other = Envelope::new("other", vec![]).with_signature(sig.clone());
        assert!(matches!(other.verify::<Any, _, _>(toys), Err(VerifyError::PayloadType { .. })));
        assert!(matches!(Envelope::new("any", vec![]).verify::<Any, _, _>(toys), Err(VerifyError::Unsigned)));
        let unknown = Envelope::new("any", vec![]).with_signature(sig);
        assert!(matches!(unknown.verify::<Any, _, _>(toys), Err(VerifyError::NoValidSignature { count: 1 })));
    }
}
