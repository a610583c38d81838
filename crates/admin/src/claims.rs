//! `target test --claims`: a request that is signed by a token with these claims. The token is real
//! and signed; a stand-in replaces the issuer's key, within this process.

use std::collections::BTreeMap;
use std::path::Path;

use data_encoding::BASE64URL_NOPAD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature as Ecdsa, SigningKey};
use relay_console::Failure;
use relay_protocol::encoding::strict_json;
use relay_protocol::keys::{Algorithm, IssuerKey, IssuerKeys, Jwk, Proof, Token, TokenRule, TrustRoots, TrustedSigner};
use relay_protocol::{Envelope, Signature, Timestamp};
use serde_json::{Map, Value, json};

use crate::target::unreadable;

/// The name of the stand-in key.
const KID: &str = "stand-in";

/// The claims of a job's token, and the key that signs for its issuer.
pub(crate) struct Claims {
    claims: Map<String, Value>,
    issuer: String,
    key: SigningKey,
}

impl Claims {
    /// Reads the claims: a JSON object, or a token, whose signature does not matter.
    pub(crate) fn read(file: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
        let text = match text.trim().split('.').collect::<Vec<_>>().as_slice() {
            [_, claims, _] => {
                let decoded =
                    BASE64URL_NOPAD.decode(claims.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                decoded.unwrap_or_else(|| text.clone())
            }
            _ => text.clone(),
        };
        let odd = |problem: String| Failure::usage(format!("{}: {problem}", file.display()));
        strict_json(text.as_bytes()).map_err(|error| odd(format!("neither a token nor JSON: {error}")))?;
        let claims: Map<String, Value> =
            serde_json::from_str(&text).map_err(|_| odd("the claims are not a JSON object".to_owned()))?;
        let issuer = claims.get("iss").and_then(Value::as_str).map(str::to_owned);
        let issuer = issuer.ok_or_else(|| odd("there is no `iss`, which says whose token it is".to_owned()))?;
        let key = SigningKey::from_slice(&[7; 32]).map_err(|error| odd(error.to_string()))?;
        Ok(Self { claims, issuer, key })
    }

    /// The rules that accept tokens of this issuer, with the index of their signers.
    fn rules<'a>(&'a self, roots: &'a TrustRoots) -> impl Iterator<Item = (usize, &'a TrustedSigner, &'a TokenRule)> {
        roots.signers().iter().enumerate().filter_map(|(at, signer)| match &signer.proof {
            Proof::Token(rule) if rule.issuer.url == self.issuer => Some((at, signer, rule)),
            Proof::Token(_) | Proof::Key { .. } => None,
        })
    }

    /// The signers whose entries these claims fit; an error says what each entry misses.
    pub(crate) fn signers(&self, roots: &TrustRoots) -> Result<Vec<usize>, String> {
        let tags = self.tags();
        let misses = |rule: &TokenRule| {
            let missed = rule
                .claims
                .iter()
                .find(|(pointer, accepted)| tags.get(*pointer).is_none_or(|value| !accepted.contains(value)))?;
            let wanted: Vec<&str> = missed.1.iter().map(String::as_str).collect();
            let found = tags.get(missed.0).map_or("missing".to_owned(), |value| format!("`{value}`"));
            Some(format!("`{}` is {found}, and accepted is {}", missed.0.trim_start_matches('/'), wanted.join(", ")))
        };
        let judged: Vec<_> = self.rules(roots).map(|(at, signer, rule)| (at, &signer.name, misses(rule))).collect();
        let fitting: Vec<usize> = judged.iter().filter(|(_, _, missed)| missed.is_none()).map(|(at, ..)| *at).collect();
        if !fitting.is_empty() {
            return Ok(fitting);
        }
        let why: Vec<String> =
            judged.into_iter().filter_map(|(_, name, missed)| Some(format!("{name}: {}", missed?))).collect();
        match why.as_slice() {
            [] => Err(format!("no signer of this target accepts tokens of {}", self.issuer)),
            why => Err(format!("these claims fit no signer; {}", why.join("; "))),
        }
    }

    /// The tags by their pointers.
    fn tags(&self) -> BTreeMap<String, String> {
        let token = Token::parse(&self.token("", Timestamp::from_unix(0)));
        token.map(|token| token.tags("")).unwrap_or_default()
    }

    fn token(&self, audience: &str, at: Timestamp) -> String {
        let mut claims = self.claims.clone();
        claims.remove("nbf");
        for (name, value) in [("aud", json!(audience)), ("iat", json!(at.unix())), ("exp", json!(at.unix() + 300))] {
            claims.insert(name.to_owned(), value);
        }
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": KID})), part(&Value::Object(claims)));
        let signature: Ecdsa = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
    }

    /// Signs the envelope by a token that was made at `at`.
    pub(crate) fn sign(&self, envelope: Envelope, at: Timestamp) -> Envelope {
        let sig = self.token(&Token::audience_for(envelope.digest()), at);
        envelope.with_signature(Signature { keyid: String::new(), sig })
    }

    /// Lets the issuer sign with the stand-in key.
    pub(crate) fn stand_in(&self, signers: &mut [TrustedSigner]) {
        for signer in signers {
            if let Proof::Token(rule) = &mut signer.proof
                && rule.issuer.url == self.issuer
            {
                rule.issuer.algorithms = vec![Algorithm::ES256];
            }
        }
    }

    /// The stand-in key, as a key of the issuer.
    pub(crate) fn keys(&self, at: Timestamp) -> IssuerKeys {
        let point = self.key.verifying_key().to_sec1_point(false);
        let (x, y) = point.as_bytes().get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
        let jwk = Jwk::P256 { point: [x.to_vec(), y.to_vec()] };
        let (issuer, kid) = (self.issuer.clone(), KID.to_owned());
        [IssuerKey { issuer, kid, jwk, seen_at: at, gone_at: None, revoked: false }].into_iter().collect()
    }
}
