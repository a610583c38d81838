//! Identity tokens and the keys of their issuers.

use data_encoding::BASE64URL_NOPAD;
use relay_protocol::keys::{IssuerKey, IssuerKeys, Token, TokenError, read_jwks};
use relay_protocol::limits::{SIGNATURE_MAX, TAGS_MAX};

/// Parses the text as a token. Then takes what is before and after the first NUL as header and
/// claims of one.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    parsed(text);
    let (header, claims) = text.split_once('\0').unwrap_or((r#"{"alg":"RS256","kid":"k"}"#, text));
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    parsed(&format!("{}.{}.{}", part(header), part(claims), part("signature")));
}

fn parsed(text: &str) {
    match Token::parse(text) {
        Ok(token) => {
            assert!(text.len() <= SIGNATURE_MAX && text.bytes().filter(|byte| *byte == b'.').count() == 2);
            let tags = token.tags("i");
            assert!(tags.keys().all(|name| name.starts_with("i/")));
            assert!(tags.iter().map(|(name, value)| name.len() - 1 + value.len()).sum::<usize>() <= TAGS_MAX);
            assert!(!tags.keys().any(|name| name.split('/').any(|part| part == "request_tags")));
            let again = Token::parse(text).unwrap();
            assert_eq!((again.key_name(), again.times(), again.tags("i")), (token.key_name(), token.times(), tags));
        }
        Err(TokenError::Form) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Parses the bytes as an issuer's JWKS, as an object of the relay bucket, and as the object of the
/// evidence. What is read survives being written.
pub fn jwks(data: &[u8]) {
    if let Ok(keys) = read_jwks(data) {
        assert!(!keys.is_empty());
        for jwk in keys.into_values() {
            assert!(!jwk.verify(b"text", b"no signature"));
            let text = serde_json::to_string(&jwk).unwrap();
            assert_eq!(serde_json::from_str::<relay_protocol::keys::Jwk>(&text).unwrap(), jwk);
        }
    }
    if let Ok(key) = IssuerKey::parse(data) {
        assert_eq!(IssuerKey::parse(key.to_json().as_bytes()).unwrap(), key);
    }
    if let Ok(keys) = IssuerKeys::parse(data) {
        assert_eq!(IssuerKeys::parse(keys.to_json().as_bytes()).unwrap(), keys);
    }
}
