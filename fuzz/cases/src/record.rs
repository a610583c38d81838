//! Records and verification summaries in their envelopes, and as Sigstore bundles.

use relay_protocol::keys::{PrivateKey, SingleKey};
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::record::{self, Deployment, Predicate, Record, Unfinished};
use relay_protocol::summary::Summary;
use relay_protocol::{Envelope, Statement as _};

/// Parses the bytes as a statement of each kind, signs it, and changes the envelope by what follows
/// the first NUL: a place of two bytes, and what is added there.
pub fn record(data: &[u8]) {
    let (text, change) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, [].as_slice()),
    };
    one::<Deployment>(text, change);
    one::<Unfinished>(text, change);
    one::<Summary>(text, change);
    if let Ok(envelope) = Envelope::parse(data, 2 * RECORD_MAX) {
        assert!(Envelope::parse(envelope.to_json().as_bytes(), 2 * RECORD_MAX).is_ok());
    }
}

fn one<P: Predicate + PartialEq + std::fmt::Debug>(text: &[u8], change: &[u8]) {
    let Ok(statement) = Record::<P>::parse(text) else { return };
    let key = PrivateKey::from_seed([7; 32]);
    let reader = SingleKey::new(key.public()).expect("a good key");
    let signed = key.sign_envelope(statement.to_envelope());
    let verified = reader.verify::<Record<P>>(&signed).expect("it was signed");
    assert_eq!(*verified.statement(), statement);
    let bundle: serde_json::Value = serde_json::from_str(&record::sigstore(&signed)).expect("JSON");
    assert_eq!(bundle["dsseEnvelope"].to_string(), serde_json::to_value(&signed).expect("JSON").to_string());
    let [low, high, with @ ..] = change else { return };
    let mut bytes = signed.to_json().into_bytes();
    let at = usize::from(u16::from_le_bytes([*low, *high])) % bytes.len();
    for (place, byte) in bytes.iter_mut().skip(at).zip(with) {
        *place = place.wrapping_add(*byte);
    }
    if let Some(found) =
        Envelope::parse(&bytes, 2 * RECORD_MAX).ok().and_then(|envelope| reader.verify::<Record<P>>(&envelope).ok())
    {
        assert_eq!(found.digest(), verified.digest(), "other bytes are believed");
    }
}
