//! Identity tokens as signatures: a compact JWS (RFC 7515) whose only audience is the digest of the
//! envelope that it signs (clauses SIG-5 to SIG-8).
//!
//! A library judges the signature alone. Header and claims go through the strict reader, and times
//! are left to the caller, who knows as of when a statement is judged.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::issuer::{Algorithm, IssuerKeys, KeyName};
use crate::encoding::Digest;
use crate::limits;
use crate::request::{Request, Stage};
use crate::strict;
use crate::time::Timestamp;

/// What the audience of a token starts with; the digest of the envelope follows.
const AUDIENCE: &str = "relay:sha256:";

/// Header members that would let a token choose its key, or hide a rule that a reader must know
/// (RFC 7515, section 4.1; RFC 7797).
const REFUSED: [&str; 6] = ["crit", "b64", "jku", "jwk", "x5u", "x5c"];

/// The member of AWS's tokens whose content the caller chooses. It never becomes a tag.
const CHOSEN_BY_THE_CALLER: &str = "request_tags";

/// An issuer that a target's configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// The name in the configuration; it begins the tags of this issuer's claims.
    pub name: String,
    /// The URL, exactly as a token's `iss` has it.
    pub url: String,
    /// The algorithms that its tokens may have.
    pub algorithms: Vec<Algorithm>,
}

/// The times of a token. The caller decides which of them count, because it depends on the
/// statement (clause SIG-8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// `iat`
    pub issued_at: Timestamp,
    /// `nbf`, or `iat` if the token has none.
    pub not_before: Timestamp,
    /// `exp`
    pub expires_at: Timestamp,
}

impl TokenTimes {
    /// Whether the token is valid at `at`, give or take the skew of two clocks.
    pub fn cover(&self, at: Timestamp) -> bool {
        self.not_before.since(at) <= limits::CLOCK_SKEW && at.since(self.expires_at) <= limits::CLOCK_SKEW
    }

    /// Whether the token was made between `from` and `to`, give or take the skew of two clocks.
    pub fn made_within(&self, from: Timestamp, to: Timestamp) -> bool {
        from.since(self.issued_at) <= limits::CLOCK_SKEW && self.issued_at.since(to) <= limits::CLOCK_SKEW
    }

    /// Checks a token on a request or dry run at `now` (clause SIG-8). It was made for this
    /// request, so within its life. The launcher also requires that it has not expired; a runner
    /// starts later.
    ///
    /// # Errors
    ///
    /// Why the token does not count.
    pub fn check_request(&self, request: &Request, now: Timestamp, stage: Stage) -> Result<(), TokenTimeError> {
        let Self { issued_at, not_before, expires_at } = *self;
        if !self.made_within(request.issued_at, request.expires_at) {
            return Err(TokenTimeError::Outside { issued_at });
        }
        if not_before.since(now) > limits::CLOCK_SKEW {
            return Err(TokenTimeError::NotYetValid { not_before });
        }
        match stage {
            Stage::Launch if !self.cover(now) => Err(TokenTimeError::Expired { expires_at }),
            Stage::Launch | Stage::Run => Ok(()),
        }
    }

    /// Whether a token on an approval or control statement that was made at `at` counts (clause
    /// SIG-8).
    pub fn count_at(&self, at: Timestamp) -> bool {
        self.cover(at) && self.issued_at.since(at) <= limits::CLOCK_SKEW
    }
}

/// Why the token of a request does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenTimeError {
    /// It was made for another time.
    #[error("its token was made at {issued_at}, outside the life of the request")]
    Outside {
        /// `iat`
        issued_at: Timestamp,
    },
    /// Its time has not come.
    #[error("its token is valid only from {not_before} on")]
    NotYetValid {
        /// `nbf`
        not_before: Timestamp,
    },
    /// Its time is over.
    #[error("its token has expired at {expires_at}; the launcher was reached too late")]
    Expired {
        /// `exp`
        expires_at: Timestamp,
    },
}

/// A token that was read. Its signature is not verified yet.
#[derive(Debug)]
pub struct Token {
    algorithm: Algorithm,
    kid: String,
    issuer: String,
    audience: String,
    times: TokenTimes,
    /// The claims by their JSON pointers.
    tags: BTreeMap<String, String>,
    /// What the signature is over: header and claims as they were sent.
    signed: String,
    signature: Vec<u8>,
}

/// Why a text is not a token that can be judged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not three parts of base64url without padding, or it is too long.
    #[error("not a compact JWS of at most {max} characters", max = limits::SIGNATURE_MAX)]
    Form,
    /// The header or the claims are not JSON objects by the strict rules.
    #[error("the {part} is not a JSON object by the strict rules: {problem}")]
    Json {
        /// `header` or `claims`.
        part: &'static str,
        /// The fault that the parser found.
        problem: String,
    },
    /// The header has a member that is refused, or lacks one.
    #[error("the header's `{0}` is missing, refused, or of another form")]
    Header(&'static str),
    /// A claim is missing or of another form.
    #[error("the claim `{0}` is missing or of another form")]
    Claim(&'static str),
    /// The tags that the claims become are too long together: nested names repeat.
    #[error("the claims are longer than {max} bytes with their paths", max = limits::TAGS_MAX)]
    Tags,
}

impl Token {
    /// Reads a token (clause SIG-6).
    ///
    /// # Errors
    ///
    /// If the text does not have the form of a token that a reader may judge.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
        if text.len() > limits::SIGNATURE_MAX {
            return Err(TokenError::Form);
        }
        let bytes = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Form);
        let object = |name, part: &str| {
            let bytes = bytes(part)?;
            strict::from_slice::<Map<String, Value>>(&bytes)
                .map_err(|error| TokenError::Json { part: name, problem: error.to_string() })
        };
        let signature = bytes(signature)?;
        let header = object("header", header)?;
        let claims = object("claims", claims)?;
        if let Some(refused) = REFUSED.into_iter().find(|name| header.contains_key(*name)) {
            return Err(TokenError::Header(refused));
        }
        let named = |name: &'static str| header.get(name).and_then(Value::as_str).ok_or(TokenError::Header(name));
        let algorithm = named("alg")?.parse().map_err(|_| TokenError::Header("alg"))?;
        let kid = named("kid")?;
        if !(1..=limits::KID_MAX).contains(&kid.len()) {
            return Err(TokenError::Header("kid"));
        }
        let tags = flat(&claims, "");
        if tags.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > limits::TAGS_MAX {
            return Err(TokenError::Tags);
        }
        let issued_at = time(&claims, "iat")?.ok_or(TokenError::Claim("iat"))?;
        let times = TokenTimes {
            issued_at,
            not_before: time(&claims, "nbf")?.unwrap_or(issued_at),
            expires_at: time(&claims, "exp")?.ok_or(TokenError::Claim("exp"))?,
        };
        Ok(Self {
            algorithm,
            kid: kid.to_owned(),
            issuer: claims.get("iss").and_then(Value::as_str).ok_or(TokenError::Claim("iss"))?.to_owned(),
            audience: audience(&claims).ok_or(TokenError::Claim("aud"))?.to_owned(),
            times,
            signed: signed.to_owned(),
            signature,
            tags,
        })
    }

    /// The audience that a token for an envelope must have.
    pub fn audience_for(digest: Digest) -> String {
        format!("{AUDIENCE}{digest}")
    }

    /// The name of the key that the token says it is signed with.
    pub fn key_name(&self) -> KeyName {
        KeyName { issuer: self.issuer.clone(), kid: self.kid.clone() }
    }

    /// The token's own audience.
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The token's times.
    pub fn times(&self) -> TokenTimes {
        self.times
    }

    /// Whether the token is `issuer`'s, and its signature is valid by one of `keys`.
    pub fn is_from(&self, issuer: &Issuer, keys: &IssuerKeys) -> bool {
        self.issuer == issuer.url
            && issuer.algorithms.contains(&self.algorithm)
            && keys.find(&self.issuer, &self.kid, self.times.issued_at).is_some_and(|key| {
                key.algorithm() == self.algorithm && key.verify(self.signed.as_bytes(), &self.signature)
            })
    }

    /// The claims as tags: `<issuer's name>/<JSON pointer>` (RFC 6901), so that no issuer can
    /// imitate another's claim. Strings stay as they are; integers and booleans become their JSON
    /// text. Arrays, `null`, other numbers, and what the caller of STS chose are left out.
    pub fn tags(&self, issuer: &str) -> BTreeMap<String, String> {
        self.tags.iter().map(|(pointer, value)| (format!("{issuer}{pointer}"), value.clone())).collect()
    }
}

fn flat(object: &Map<String, Value>, path: &str) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::new();
    for (name, value) in object.iter().filter(|(name, _)| *name != CHOSEN_BY_THE_CALLER) {
        let path = format!("{path}/{}", pointer(name));
        match value {
            Value::String(text) => drop(tags.insert(path, text.clone())),
            Value::Bool(truth) => drop(tags.insert(path, truth.to_string())),
            Value::Number(number) if number.is_i64() || number.is_u64() => drop(tags.insert(path, number.to_string())),
            Value::Object(inner) => tags.extend(flat(inner, &path)),
            Value::Number(_) | Value::Array(_) | Value::Null => {}
        }
    }
    tags
}

/// A member's name as a part of a JSON pointer (RFC 6901, section 3).
pub fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A time in whole seconds since 1970; `None` if it is absent.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().filter(|seconds| (0..=limits::TIME_MAX).contains(seconds));
    seconds.map(|seconds| Some(Timestamp::from_unix(seconds))).ok_or(TokenError::Claim(name))
}

/// The one audience: a string, or a list of exactly one.
fn audience(claims: &Map<String, Value>) -> Option<&str> {
    match claims.get("aud")? {
        Value::String(only) => Some(only),
        Value::Array(list) if list.len() == 1 => list.first()?.as_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> Result<Token, TokenError> {
        let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        Token::parse(&format!("{}.{}.{}", part(header), part(claims), part("signature")))
    }

    const HEADER: &str = r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#;
    const CLAIMS: &str = r#"{"iss":"i","aud":"a","iat":1,"exp":2}"#;

    // clause: SIG-6
    #[test]
    fn a_token_cannot_choose_its_key_or_hide_a_rule() {
        assert!(token(HEADER, CLAIMS).is_ok());
        for name in REFUSED {
            let header = HEADER.replace("\"typ\":\"JWT\"", &format!("\"{name}\":[]"));
            assert_eq!(token(&header, CLAIMS).unwrap_err(), TokenError::Header(name));
        }
        for alg in ["none", "HS256", "rs256", "RS512", "PS256", "EdDSA", ""] {
            let header = HEADER.replace("RS256", alg);
            assert_eq!(token(&header, CLAIMS).unwrap_err(), TokenError::Header("alg"), "{alg}");
        }
        assert_eq!(token(&HEADER.replace("\"k\"", "\"\""), CLAIMS).unwrap_err(), TokenError::Header("kid"));
        assert_eq!(token(r#"{"alg":"RS256"}"#, CLAIMS).unwrap_err(), TokenError::Header("kid"));
    }

    // clause: SIG-6
    #[test]
    fn claims_are_read_strictly() {
        for (claims, bad) in [
            (CLAIMS.replace("\"aud\":\"a\"", "\"aud\":[\"a\",\"a\"]"), "aud"),
            (CLAIMS.replace("\"aud\":\"a\"", "\"aud\":[]"), "aud"),
            (CLAIMS.replace("\"aud\":\"a\",", ""), "aud"),
            (CLAIMS.replace("\"iss\":\"i\"", "\"iss\":[\"i\"]"), "iss"),
            (CLAIMS.replace("\"exp\":2", "\"exp\":2.5"), "exp"),
            (CLAIMS.replace("\"exp\":2", "\"exp\":\"2\""), "exp"),
            (CLAIMS.replace(",\"exp\":2", ""), "exp"),
            (CLAIMS.replace("\"exp\":2", "\"exp\":2,\"nbf\":null"), "nbf"),
            (CLAIMS.replace("\"iat\":1", "\"iat\":-1"), "iat"),
            (CLAIMS.replace("\"iat\":1", "\"iat\":99999999999999"), "iat"),
        ] {
            assert_eq!(token(HEADER, &claims).unwrap_err(), TokenError::Claim(bad), "{claims}");
        }
        let twice = CLAIMS.replace("\"exp\":2", "\"exp\":2,\"iss\":\"j\"");
        assert!(matches!(token(HEADER, &twice), Err(TokenError::Json { part: "claims", .. })));
        assert!(matches!(token("[]", CLAIMS), Err(TokenError::Json { part: "header", .. })));
        let text = format!("{}.e30", BASE64URL_NOPAD.encode(HEADER.as_bytes()));
        for odd in [text.clone(), format!("{text}.="), format!("{text}.AB"), format!("{text}.AA.AA"), String::new()] {
            assert_eq!(Token::parse(&odd).unwrap_err(), TokenError::Form, "{odd}");
        }
    }

    // clause: SIG-7
    #[test]
    fn claims_become_tags_by_their_path() {
        let claims = r#"{"iss":"i","aud":"a","iat":1,"exp":2,"n":-7,"yes":true,"f":1.5,"e":1e2,"list":["x"],"no":null,
            "https://sts.amazonaws.com/":{"org_id":"o","request_tags":{"team":"x"}},"a~b":"t","request_tags":"y"}"#;
        let tags = token(HEADER, claims).unwrap().tags("aws");
        let tags: Vec<(&str, &str)> = tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("aws/aud", "a"),
            ("aws/a~0b", "t"),
            ("aws/exp", "2"),
            ("aws/https:~1~1sts.amazonaws.com~1/org_id", "o"),
            ("aws/iat", "1"),
            ("aws/iss", "i"),
            ("aws/n", "-7"),
            ("aws/yes", "true"),
        ];
        assert_eq!(tags, expected);
    }

    // clause: SIG-8
    #[test]
    fn times_have_the_skew_of_two_clocks() {
        let at = Timestamp::from_unix;
        let times = TokenTimes { issued_at: at(1_000), not_before: at(1_010), expires_at: at(2_000) };
        assert!(times.cover(at(950)) && !times.cover(at(949)));
        assert!(times.cover(at(2_060)) && !times.cover(at(2_061)));
        assert!(times.made_within(at(1_060), at(1_100)) && !times.made_within(at(1_061), at(1_100)));
        assert!(times.made_within(at(100), at(940)) && !times.made_within(at(100), at(939)));
    }
}
