//! The keys of token issuers, as objects of the relay bucket (clauses SIG-6, SIG-9). One role
//! fetches them from the issuers; launcher and runner only read them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::limits;
use crate::strict;
use crate::time::Timestamp;

/// An algorithm that a token may be signed with (RFC 7518, section 3.1). All of them are
/// asymmetric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RS256, Self::ES256, Self::ES384];

    /// The name in a token's header.
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
        }
    }
}

/// The text names no algorithm that is accepted; `none` and `HS256` among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of the algorithms RS256, ES256 and ES384")]
pub struct UnknownAlgorithm;

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(UnknownAlgorithm)
    }
}

/// A public key as a JWK (RFC 7517), with the members that RFC 7638 requires and no others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "JwkFile", into = "JwkFile")]
pub enum Jwk {
    /// An RSA key with the exponent 65537.
    Rsa {
        /// The modulus, 2,048 to 4,096 bits, big-endian.
        n: Vec<u8>,
    },
    /// A point on P-256.
    P256 {
        /// The coordinates, 32 bytes each.
        point: [Vec<u8>; 2],
    },
    /// A point on P-384.
    P384 {
        /// The coordinates, 48 bytes each.
        point: [Vec<u8>; 2],
    },
}

/// Why a JWK cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a JWK of the form RSA (2048 to 4096 bits, exponent 65537), EC P-256 or EC P-384, for signatures, with a `kid`"
)]
pub struct BadJwk;

/// The exponent that every RSA key has, 65537.
const EXPONENT: &str = "AQAB";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JwkFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

impl TryFrom<JwkFile> for Jwk {
    type Error = BadJwk;

    fn try_from(file: JwkFile) -> Result<Self, BadJwk> {
        let bytes = |text: Option<String>| BASE64URL_NOPAD.decode(text?.as_bytes()).ok();
        let sized = |text, size| bytes(text).filter(|found| found.len() == size).ok_or(BadJwk);
        match (file.kty.as_str(), file.crv.as_deref()) {
            ("RSA", None) if file.e.as_deref() == Some(EXPONENT) && file.x.is_none() && file.y.is_none() => {
                let n = bytes(file.n).ok_or(BadJwk)?;
                let leading = n.first().ok_or(BadJwk)?.leading_zeros() as usize;
                let bits = (n.len() * 8).saturating_sub(leading);
                if leading < 8 && (2_048..=4_096).contains(&bits) { Ok(Self::Rsa { n }) } else { Err(BadJwk) }
            }
            ("EC", Some(curve @ ("P-256" | "P-384"))) if file.n.is_none() && file.e.is_none() => {
                let size = if curve == "P-256" { 32 } else { 48 };
                let point = [sized(file.x, size)?, sized(file.y, size)?];
                Ok(if size == 32 { Self::P256 { point } } else { Self::P384 { point } })
            }
            _ => Err(BadJwk),
        }
    }
}

impl From<Jwk> for JwkFile {
    fn from(jwk: Jwk) -> Self {
        let text = |bytes: &[u8]| Some(BASE64URL_NOPAD.encode(bytes));
        let ec = |crv: &str, [x, y]: &[Vec<u8>; 2]| Self {
            crv: Some(crv.to_owned()),
            e: None,
            kty: "EC".to_owned(),
            n: None,
            x: text(x),
            y: text(y),
        };
        match jwk {
            Jwk::Rsa { n } => {
                Self { crv: None, e: Some(EXPONENT.to_owned()), kty: "RSA".to_owned(), n: text(&n), x: None, y: None }
            }
            Jwk::P256 { point } => ec("P-256", &point),
            Jwk::P384 { point } => ec("P-384", &point),
        }
    }
}

impl Jwk {
    /// The one algorithm that the key is for.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::RS256,
            Self::P256 { .. } => Algorithm::ES256,
            Self::P384 { .. } => Algorithm::ES384,
        }
    }

    /// Whether `signature`, in the form that a token carries, is valid for `text`.
    pub fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        use ring::signature::{
            ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
            UnparsedPublicKey,
        };
        // SEC 1, section 2.3.3: 4 marks a point that is not compressed.
        let uncompressed = |[x, y]: &[Vec<u8>; 2]| [&[4], x.as_slice(), y.as_slice()].concat();
        match self {
            Self::Rsa { n } => RsaPublicKeyComponents { n: n.as_slice(), e: [1, 0, 1].as_slice() }
                .verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
                .is_ok(),
            Self::P256 { point } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(point)).verify(text, signature).is_ok()
            }
            Self::P384 { point } => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, uncompressed(point)).verify(text, signature).is_ok()
            }
        }
    }
}

/// A key of an issuer, as it lies under [`IssuerKey::object`] (clause SIG-9).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerKey {
    /// The issuer, as a token's `iss` names it.
    pub issuer: String,
    /// The name of the key in a token's header.
    pub kid: String,
    /// The key.
    pub jwk: Jwk,
    /// When the issuer last listed the key.
    pub seen_at: Timestamp,
    /// When the issuer was first found not to list it any longer. Tokens from before that stay
    /// valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// Whether the platform team has revoked the key. Nothing that it signed is accepted any
    /// longer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", deserialize_with = "strict::or_default")]
    pub revoked: bool,
}

impl IssuerKey {
    /// The name of the object that holds a key.
    pub fn object(issuer: &str, kid: &str) -> String {
        format!("{}/{}", Self::folder(issuer), Digest::of(kid.as_bytes()))
    }

    /// The folder of an issuer's objects, without a slash at its end.
    pub fn folder(issuer: &str) -> String {
        format!("jwks/{}", Digest::of(issuer.as_bytes()))
    }

    /// Reads an object.
    ///
    /// # Errors
    ///
    /// If it is not a strict object of this form (clause ENC-6).
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(json)
    }

    /// The object's text.
    pub fn to_json(&self) -> String {
        to_json(self)
    }

    /// The object after the issuer was asked at `now`, if it changes. `listed` is the key that the
    /// issuer lists under this name, if it does. A revoked key stays revoked.
    #[must_use]
    pub fn after(&self, listed: Option<&Jwk>, now: Timestamp) -> Option<Self> {
        match listed {
            Some(jwk) => Some(Self { jwk: jwk.clone(), seen_at: now, gone_at: None, ..self.clone() }),
            None if self.gone_at.is_none() => Some(Self { gone_at: Some(now), ..self.clone() }),
            None => None,
        }
    }

    /// Whether tokens may be judged by this key at `now`: the issuer listed it in the last 48
    /// hours, and nobody has revoked it.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        !self.revoked && now.since(self.seen_at) <= limits::ISSUER_KEY_LIFETIME
    }

    /// Whether the key may have signed a token that was issued at `issued_at`.
    fn was_listed(&self, issued_at: Timestamp) -> bool {
        self.gone_at.is_none_or(|gone| issued_at <= gone)
    }
}

/// The keys that tokens are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssuerKeys(BTreeMap<(String, String), IssuerKey>);

/// The name of one key: the issuer and the `kid`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyName {
    /// The issuer.
    pub issuer: String,
    /// The `kid`.
    pub kid: String,
}

/// The form of `issuer-keys.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<IssuerKey>,
}

impl IssuerKeys {
    /// The keys of the object `issuer-keys.json` (clause EVD-5).
    ///
    /// # Errors
    ///
    /// If it does not have the form that [`Self::to_json`] writes.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let file: KeysFile = strict::from_slice(json)?;
        Ok(file.keys.into_iter().collect())
    }

    /// The object `issuer-keys.json`: the keys in the order of issuer and `kid`.
    pub fn to_json(&self) -> String {
        to_json(&KeysFile { keys: self.0.values().cloned().collect() })
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Only the keys with these names.
    #[must_use]
    pub fn only(&self, names: &BTreeSet<KeyName>) -> Self {
        let wanted = |key: &&IssuerKey| names.contains(&KeyName { issuer: key.issuer.clone(), kid: key.kid.clone() });
        self.0.values().filter(wanted).cloned().collect()
    }

    /// Whether these are the same keys as `others`, under the same names, whenever each was seen
    /// (clause RUN-4).
    pub fn have_the_keys_of(&self, others: &Self) -> bool {
        self.0.len() == others.0.len()
            && self.0.iter().all(|(name, key)| others.0.get(name).is_some_and(|other| other.jwk == key.jwk))
    }

    /// The key that a token which was issued at `issued_at` may be judged by.
    pub(super) fn find(&self, issuer: &str, kid: &str, issued_at: Timestamp) -> Option<&Jwk> {
        let key = self.0.get(&(issuer.to_owned(), kid.to_owned()))?;
        key.was_listed(issued_at).then_some(&key.jwk)
    }
}

impl FromIterator<IssuerKey> for IssuerKeys {
    fn from_iter<I: IntoIterator<Item = IssuerKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| ((key.issuer.clone(), key.kid.clone()), key)).collect())
    }
}

/// A member of an issuer's JWKS. Further members are ignored, as RFC 7517 requires.
#[derive(Deserialize)]
struct Published {
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    key_ops: Option<Vec<String>>,
    kty: String,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// An issuer's discovery document (OpenID Connect Discovery 1.0, section 3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Discovery {
    issuer: String,
    /// Where the issuer's keys are.
    pub jwks_uri: String,
}

impl Discovery {
    /// Reads the document of `issuer`, which must name itself.
    ///
    /// # Errors
    ///
    /// If the text is not such a document, or is another issuer's, or its keys are not at `https`.
    pub fn parse(json: &[u8], issuer: &str) -> Result<Self, serde_json::Error> {
        use serde::de::Error as _;
        let read: Self = strict::from_slice(json)?;
        if read.issuer != issuer {
            return Err(serde_json::Error::custom(format!(
                "it is the document of the issuer {}",
                crate::encoding::printable(&read.issuer)
            )));
        }
        if !read.jwks_uri.starts_with("https://") {
            return Err(serde_json::Error::custom("its `jwks_uri` does not use https"));
        }
        Ok(read)
    }
}

#[derive(Deserialize)]
struct JwksFile {
    keys: Vec<serde_json::Value>,
}

/// Reads an issuer's JWKS: the keys for signatures that relay can use, by `kid`. Keys of other
/// kinds are skipped, because an issuer may publish them beside (RFC 7517, section 5).
///
/// # Errors
///
/// If the text is not a JWKS, if one `kid` names two keys, or if no key can be used.
pub fn read_jwks(json: &[u8]) -> Result<BTreeMap<String, Jwk>, JwksError> {
    let file: JwksFile = strict::from_slice(json).map_err(|error| JwksError::Form(error.to_string()))?;
    let mut keys = BTreeMap::new();
    for value in file.keys {
        let Some((kid, jwk)) = usable(value) else { continue };
        if keys.insert(kid.clone(), jwk).is_some() {
            return Err(JwksError::Twice(kid));
        }
        if keys.len() > limits::JWKS_MAX {
            return Err(JwksError::Many);
        }
    }
    if keys.is_empty() { Err(JwksError::Empty) } else { Ok(keys) }
}

/// Why a text is not a JWKS that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// It is not JSON of that form.
    #[error("not a JWKS: {0}")]
    Form(String),
    /// Two keys have one name.
    #[error("two keys have the name `{}`", crate::encoding::printable(.0))]
    Twice(String),
    /// It has more keys than an issuer needs, and each would be stored.
    #[error("there are more than {max} keys in it", max = limits::JWKS_MAX)]
    Many,
    /// It has no key that relay can use.
    #[error("there is no key in it that relay can use: {BadJwk}")]
    Empty,
}

fn usable(value: serde_json::Value) -> Option<(String, Jwk)> {
    let Published { kid, usage, alg, key_ops, kty, crv, n, e, x, y } = serde_json::from_value(value).ok()?;
    let kid = kid.filter(|kid| (1..=limits::KID_MAX).contains(&kid.len()))?;
    let jwk = Jwk::try_from(JwkFile { crv, e, kty, n, x, y }).ok()?;
    let fits = usage.is_none_or(|usage| usage == "sig")
        && key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"))
        && alg.is_none_or(|alg| alg == jwk.algorithm().name());
    fits.then_some((kid, jwk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwks(keys: &[serde_json::Value]) -> Result<BTreeMap<String, Jwk>, JwksError> {
        read_jwks(serde_json::json!({ "keys": keys }).to_string().as_bytes())
    }

    fn rsa(bytes: usize, first: u8) -> serde_json::Value {
        let mut n = vec![0xa5; bytes];
        n[0] = first;
        serde_json::json!({ "kty": "RSA", "kid": "k", "n": BASE64URL_NOPAD.encode(&n), "e": "AQAB" })
    }

    fn with(mut key: serde_json::Value, name: &str, value: impl Into<serde_json::Value>) -> serde_json::Value {
        key[name] = value.into();
        key
    }

    // clause: SIG-9
    #[test]
    fn only_strong_keys_for_signatures_are_taken() {
        let ec = serde_json::json!({ "kty": "EC", "crv": "P-384", "kid": "e",
            "x": BASE64URL_NOPAD.encode(&[1; 48]), "y": BASE64URL_NOPAD.encode(&[2; 48]) });
        for good in
            [rsa(256, 0x80), rsa(512, 0xff), with(rsa(256, 0x80), "use", "sig"), with(ec.clone(), "alg", "ES384")]
        {
            assert_eq!(jwks(std::slice::from_ref(&good)).map(|keys| keys.len()), Ok(1), "{good}");
        }
        for bad in [
            rsa(256, 0x7f),
            rsa(257, 0),
            rsa(513, 1),
            with(rsa(256, 0x80), "e", "Aw"),
            with(rsa(256, 0x80), "use", "enc"),
            with(rsa(256, 0x80), "alg", "RS512"),
            with(rsa(256, 0x80), "key_ops", vec!["sign"]),
            with(rsa(256, 0x80), "kid", ""),
            with(rsa(256, 0x80), "x", "AA"),
            with(ec.clone(), "crv", "P-256"),
            with(ec.clone(), "n", "AA"),
            serde_json::json!({ "kty": "oct", "kid": "h", "k": "AAAA" }),
        ] {
            assert_eq!(jwks(std::slice::from_ref(&bad)), Err(JwksError::Empty), "{bad}");
        }
        assert_eq!(
            jwks(&[ec.clone(), with(ec, "x", BASE64URL_NOPAD.encode(&[3; 48]))]),
            Err(JwksError::Twice("e".into()))
        );
        assert!(matches!(read_jwks(b"{\"keys\":[],\"keys\":[]}"), Err(JwksError::Form(_))));
    }

    // clause: SIG-9
    #[test]
    fn a_stored_key_has_one_form_and_an_end() {
        let jwk = jwks(&[rsa(256, 0x80)]).unwrap().remove("k").unwrap();
        let at = Timestamp::from_unix;
        let key = IssuerKey {
            issuer: "https://issuer.example".into(),
            kid: "k".into(),
            jwk,
            seen_at: at(1_000_000),
            gone_at: None,
            revoked: false,
        };
        assert_eq!(IssuerKey::parse(key.to_json().as_bytes()).unwrap(), key);
        let last = at(1_000_000 + limits::ISSUER_KEY_LIFETIME);
        assert!(key.is_usable(last) && !key.is_usable(last.plus(1)));
        assert!(!IssuerKey { revoked: true, ..key.clone() }.is_usable(at(1_000_000)));
        let gone = IssuerKey { gone_at: Some(at(2_000_000)), ..key };
        let keys: IssuerKeys = [gone].into_iter().collect();
        let find = |seconds| keys.find("https://issuer.example", "k", at(seconds)).is_some();
        assert!(find(2_000_000) && !find(2_000_001));
        assert_eq!(IssuerKeys::parse(keys.to_json().as_bytes()).unwrap(), keys);
    }
}
