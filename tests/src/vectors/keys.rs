//! The fixed keys of the vectors, and the signatures that they make. None of them protects
//! anything.

use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::EncodePublicKey as _;
use relay_protocol::keys::PrivateKey;
use relay_protocol::{Envelope, PublicKey, Signature, encoding, pae};

/// A private key, derived from a fixed seed.
pub(super) enum Key {
    Ed25519(Box<PrivateKey>),
    P256(p256::ecdsa::SigningKey),
}

/// The key of a CI signer, Ed25519.
pub(super) fn ci() -> Key {
    ed25519(1)
}

/// The key of another signer of the same target, Ed25519.
pub(super) fn second() -> Key {
    ed25519(2)
}

/// A key that is not trusted, Ed25519.
pub(super) fn stranger() -> Key {
    ed25519(3)
}

/// The CLI's session key, Ed25519.
pub(super) fn session() -> Key {
    ed25519(4)
}

/// The runner's key, Ed25519.
pub(super) fn runner() -> Key {
    ed25519(5)
}

/// The key of a CI signer in KMS, P-256.
pub(super) fn kms() -> Key {
    Key::P256(p256::ecdsa::SigningKey::from_slice(&[6; 32]).unwrap())
}

/// The target key, P-256.
pub(super) fn target() -> Key {
    Key::P256(p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap())
}

/// The answer key, P-256.
pub(super) fn answer() -> Key {
    Key::P256(p256::ecdsa::SigningKey::from_slice(&[8; 32]).unwrap())
}

/// The ledger key, P-256.
pub(super) fn ledger() -> Key {
    Key::P256(p256::ecdsa::SigningKey::from_slice(&[10; 32]).unwrap())
}

fn ed25519(seed: u8) -> Key {
    Key::Ed25519(Box::new(PrivateKey::from_seed([seed; 32])))
}

impl Key {
    /// The public key: base64 of the SPKI.
    pub(super) fn public(&self) -> String {
        match self {
            Self::Ed25519(key) => key.public().to_string(),
            Self::P256(key) => {
                PublicKey::from_der(key.verifying_key().to_public_key_der().unwrap().as_bytes()).unwrap().to_string()
            }
        }
    }

    /// The key id.
    pub(super) fn id(&self) -> String {
        self.public().parse::<PublicKey>().unwrap().key_id()
    }

    /// A signature over `text`. It is deterministic: RFC 8032, or RFC 6979 with a low s.
    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Self::Ed25519(key) => key.sign(text).to_vec(),
            Self::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(text);
                signature.normalize_s().to_der().as_bytes().to_vec()
            }
        }
    }

    /// The value of a frame's attribute `sig`.
    pub(super) fn detached(&self, payload_type: &str, body: &str) -> String {
        encoding::base64(&self.sign(&pae(payload_type, body.as_bytes())))
    }
}

/// An envelope around `payload`, signed by `keys`.
pub(super) fn envelope(payload_type: &str, payload: impl AsRef<[u8]>, keys: &[&Key]) -> Envelope {
    let envelope = Envelope::new(payload_type, payload.as_ref().to_vec());
    let pae = envelope.pae();
    keys.iter().fold(envelope, |envelope, key| envelope.with_signature(Signature::new(key.id(), &key.sign(&pae))))
}

/// A P-256 signature with its s replaced by n − s.
pub(super) fn with_high_s(signature: &[u8]) -> Vec<u8> {
    let (r, s) = p256::ecdsa::Signature::from_der(signature).unwrap().split_scalars();
    p256::ecdsa::Signature::from_scalars(r, -*s).unwrap().to_der().as_bytes().to_vec()
}

/// A P-256 signature as r‖s, the form of JWS.
pub(super) fn to_fixed(signature: &[u8]) -> Vec<u8> {
    p256::ecdsa::Signature::from_der(signature).unwrap().to_bytes().to_vec()
}

/// A signature in DER with a byte of zeros before the r, which BER allows.
pub(super) fn with_padded_r(signature: &[u8]) -> Vec<u8> {
    let mut out = signature.to_vec();
    out.insert(4, 0);
    out[1] += 1;
    out[3] += 1;
    out
}

/// A signature in DER whose outer length has the long form, which BER allows.
pub(super) fn with_long_length(signature: &[u8]) -> Vec<u8> {
    let mut out = signature.to_vec();
    out.insert(1, 0x81);
    out
}

/// An Ed25519 signature with its s replaced by s + L. A verifier that does not check the range of s
/// accepts it.
pub(super) fn with_s_plus_order(signature: &[u8]) -> Vec<u8> {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut out = signature.to_vec();
    let mut carry = 0_u16;
    for (byte, order) in out.iter_mut().skip(32).zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    out
}

/// The SPKI of an Ed25519 point of order 4.
pub(super) fn small_order() -> String {
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend([0; 32]);
    encoding::base64(&der)
}

/// The SPKI of an Ed25519 key whose y is written as y + p: the point is valid, its encoding is not
/// canonical. The point is y = 3, one of the few small enough for both forms to fit.
pub(super) fn ed25519_not_canonical() -> String {
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend([0xf0]);
    der.extend([0xff; 30]);
    der.extend([0x7f]);
    encoding::base64(&der)
}

/// The SPKI of a P-256 key with its point compressed.
pub(super) fn compressed(key: &Key) -> String {
    let Key::P256(key) = key else { panic!("not a P-256 key") };
    let point = key.verifying_key().to_sec1_point(true);
    let mut der = vec![
        0x30, 0x39, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x22, 0x00,
    ];
    der.extend(point.as_bytes());
    encoding::base64(&der)
}

/// The SPKI of `key` with the length of its outer sequence in the long form, which BER allows.
pub(super) fn with_long_spki(key: &Key) -> String {
    let der = key.public().parse::<PublicKey>().unwrap().der().to_vec();
    encoding::base64(&with_long_length(&der))
}

/// The SPKI of secp256k1's generator: a valid key on a curve that relay does not support.
pub(super) fn other_curve() -> String {
    const DER: &[u8] = b"3056301006072a8648ce3d020106052b8104000a0342000479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    let der: Vec<u8> = DER.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    encoding::base64(&der)
}
