//! An issuer of identity tokens: signs claims, lists its keys, and rotates them. One stands for
//! GitHub, and one for STS.
//!
//! The RSA keys lie beside this file for everyone to see, because making one takes seconds. They
//! protect nothing: nobody but a sandbox on loopback believes them.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::{Value, json};

use super::call::Now;
use crate::wire::times::uuid;

const RSA_KEYS: [&str; 2] = [include_str!("issuer-key-1.pem"), include_str!("issuer-key-2.pem")];

/// An issuer and its keys.
#[derive(Debug)]
pub(crate) struct Issuer {
    /// The URL, as `iss` has it.
    pub(crate) url: String,
    keys: Vec<SigningKey>,
    /// The key that signs now. The issuer lists this one alone.
    current: usize,
}

#[derive(Debug)]
enum SigningKey {
    Rsa(RsaKeyPair),
    P384(EcdsaKeyPair),
}

impl Issuer {
    /// An issuer with two RSA keys, as GitHub has them.
    pub(crate) fn github(url: &str) -> Self {
        let read = |pem: &str| {
            let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
            RsaKeyPair::from_pkcs8(&BASE64.decode(text.as_bytes()).ok()?).map(SigningKey::Rsa).ok()
        };
        Self { url: url.to_owned(), keys: RSA_KEYS.into_iter().filter_map(read).collect(), current: 0 }
    }

    /// An issuer with a new key on P-384, as STS signs on request.
    pub(crate) fn sts(url: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P384_SHA384_FIXED_SIGNING, SystemRandom::new());
        let make = || {
            EcdsaKeyPair::from_pkcs8(
                algorithm,
                EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok()?.as_ref(),
                &random,
            )
            .ok()
        };
        Self { url: url.to_owned(), keys: make().map(SigningKey::P384).into_iter().collect(), current: 0 }
    }

    /// Signs with the next key from now on.
    pub(crate) fn rotate(&mut self) {
        self.current = (self.current + 1) % self.keys.len().max(1);
    }

    /// A token with these claims beside the registered ones, for one audience.
    pub(crate) fn token(&self, now: Now, audience: &str, seconds: u64, claims: Value) -> Result<String, String> {
        let key = self.keys.get(self.current).ok_or("no key")?;
        let at = now.ms / 1_000;
        let mut all = json!({
            "iss": self.url, "aud": audience, "iat": at, "nbf": at, "exp": at + seconds, "jti": uuid(),
        });
        if let (Some(all), Value::Object(claims)) = (all.as_object_mut(), claims) {
            for (name, value) in claims {
                // A claim that is `null` is left out.
                if value.is_null() { drop(all.remove(&name)) } else { drop(all.insert(name, value)) }
            }
        }
        let header = json!({"typ": "JWT", "alg": key.algorithm(), "kid": self.kid()});
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&header), part(&all));
        let signature = key.sign(signed.as_bytes()).ok_or("cannot sign")?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }

    fn kid(&self) -> String {
        format!("sandbox-{}", self.current + 1)
    }

    /// The discovery document.
    pub(crate) fn discovery(&self) -> Value {
        json!({"issuer": self.url, "jwks_uri": format!("{}/.well-known/jwks", self.url)})
    }

    /// The keys that it lists.
    pub(crate) fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.keys.get(self.current).map(|key| key.jwk(&self.kid())).into_iter().collect();
        json!({ "keys": keys })
    }
}

impl SigningKey {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P384(_) => "ES384",
        }
    }

    fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).ok()?;
                Some(signature)
            }
            Self::P384(key) => Some(key.sign(&random, text).ok()?.as_ref().to_vec()),
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(key.public());
                json!({"kty": "RSA", "kid": kid, "alg": "RS256", "use": "sig", "n": text(&public.n), "e": text(&public.e)})
            }
            Self::P384(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(48).unwrap_or_default();
                json!({"kty": "EC", "crv": "P-384", "kid": kid, "alg": "ES384", "use": "sig", "x": text(x), "y": text(y)})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn github_rotates_and_both_sign() {
        let mut github = Issuer::github("https://localhost/github");
        assert_eq!(github.keys.len(), 2);
        let before = github.jwks();
        github.rotate();
        assert_ne!(github.jwks(), before);
        for issuer in [github, Issuer::sts("https://localhost/sts")] {
            let token = issuer.token(Now::read(), "a", 300, json!({"sub": "s", "nbf": null})).unwrap();
            let claims = token.split('.').nth(1).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok()).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!((&claims["sub"], claims.get("nbf")), (&json!("s"), None));
        }
    }
}
