//! Base64, hex and digests, strict (clauses ENC-1 to ENC-4).

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, BASE64URL, Encoding, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The text is not what its encoding demands (clause ENC-1 or ENC-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Not standard, padded base64 with zero trailing bits.
    #[error("not standard, padded base64")]
    Base64,
    /// Not 64 lower-case hexadecimal digits.
    #[error("not a SHA-256 digest of 64 lower-case hexadecimal digits")]
    Digest,
}

/// Standard, padded base64 (clause ENC-1).
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Decodes standard, padded base64 (clause ENC-1).
pub fn from_base64(text: &str) -> Result<Vec<u8>, EncodingError> {
    decode(text, &BASE64)
}

/// The decoder takes several padded texts in a row; here that would be a second spelling of the same bytes.
fn decode(text: &str, alphabet: &Encoding) -> Result<Vec<u8>, EncodingError> {
    let padding = text.find('=').unwrap_or(text.len());
    if text.len() - padding > 2 {
        return Err(EncodingError::Base64);
    }
    alphabet.decode(text.as_bytes()).map_err(|_| EncodingError::Base64)
}

/// Decodes base64 as DSSE demands of a reader: the standard or the URL-safe alphabet, padded (clause ENC-2).
pub fn from_base64_either(text: &str) -> Result<Vec<u8>, EncodingError> {
    decode(text, &BASE64).or_else(|_| decode(text, &BASE64URL))
}

/// A SHA-256 digest; on the wire 64 lower-case hexadecimal digits (clause ENC-3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = EncodingError;
    fn from_str(text: &str) -> Result<Self, EncodingError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| EncodingError::Digest)?;
        bytes.try_into().map(Self).map_err(|_| EncodingError::Digest)
    }
}

impl TryFrom<String> for Digest {
    type Error = EncodingError;
    fn try_from(text: String) -> Result<Self, EncodingError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// The JSON of one of this crate's own types, in the order of its members, without white space: what is signed, hashed and sent.
#[allow(clippy::expect_used, reason = "the invariant is in its message")]
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("strings, numbers, lists, and maps by string: JSON has them all")
}

/// Escapes what SQS refuses and serde_json leaves alone (U+007F is allowed, U+FFFE and U+FFFF are not), so that any JSON text can be
/// an SQS body (clause FRM-3). Control characters below U+0020 are already escaped by JSON.
pub fn sqs_safe(json: String) -> String {
    if json.contains(['\u{FFFE}', '\u{FFFF}']) {
        json.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff")
    } else {
        json
    }
}

/// A stranger's text made harmless for one line of a terminal or a log, and cut to [`crate::limits::TEXT_MAX`] characters (clause FRM-17).
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut escaper = Escaper::default();
    for c in text.chars().take(crate::limits::TEXT_MAX) {
        // In one line, a line's end is a character like any other.
        if c == '\n' { out.extend(c.escape_unicode()) } else { escaper.push(c, &mut out) }
    }
    escaper.end(&mut out);
    if text.chars().nth(crate::limits::TEXT_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Escapes text, character by character: what a terminal obeys, what reorders or hides text, and what CI systems take for a command
/// (clause FRM-17). Line ends stay.
#[derive(Clone, Debug)]
pub struct Escaper {
    /// Whether nothing but blanks came in this line.
    blank: bool,
    /// How much of [`COMMANDS`] has come, and is held back.
    held: String,
}

/// What GitHub's and Azure's runners take for a command wherever it stands in a line. `::` is one only at the line's beginning.
const COMMANDS: [&str; 2] = ["##[", "##vso["];

impl Default for Escaper {
    fn default() -> Self {
        Self { blank: true, held: String::new() }
    }
}

impl Escaper {
    /// One more character; what is certain by now is added to `out`.
    pub fn push(&mut self, c: char, out: &mut String) {
        self.held.push(c);
        if COMMANDS.contains(&self.held.as_str()) {
            // Broken up, it is text.
            let held = std::mem::take(&mut self.held).replacen('#', "\\u{23}", 1);
            out.push_str(&held);
            self.blank = false;
            return;
        }
        // What cannot begin a command any more goes on its way.
        while !self.held.is_empty() && !COMMANDS.iter().any(|command| command.starts_with(self.held.as_str())) {
            let first = self.held.remove(0);
            self.put(first, out);
        }
    }

    /// There is no more: what was held back is no command.
    pub fn end(&mut self, out: &mut String) {
        for c in std::mem::take(&mut self.held).chars() {
            self.put(c, out);
        }
    }

    fn put(&mut self, c: char, out: &mut String) {
        match c {
            '\n' => out.push(c),
            ':' if self.blank => out.push_str("\\u{3a}"),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
        self.blank = c == '\n' || (self.blank && c.is_whitespace());
    }
}

/// Whether a character directs, joins, tags or annotates text, or takes no place, so that an eye would miss it: Unicode's category Cf, and
/// what else is ignored by default, variation selectors excepted (an emoji may have one).
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}'..='\u{891}' | '\u{8E2}'
        | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// As much of a text as fits into [`crate::limits::TEXT_MAX`] bytes, for messages that travel (clause LIM-7).
pub fn short(text: &str) -> String {
    let max = crate::limits::TEXT_MAX;
    if text.len() <= max {
        return text.to_owned();
    }
    let mark = '…';
    let end = (0..=max - mark.len_utf8()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{mark}", &text[..end])
}

/// A JSON text with every character beyond ASCII, and DEL, as `\uXXXX`: the same value, and nothing that a terminal could take for a command
/// (clause FRM-17).
pub fn escape_non_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// A JSON value in one line of ASCII: see [`escape_non_ascii`].
pub fn ascii_json(value: &serde_json::Value) -> String {
    escape_non_ascii(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict_and_dsse_takes_both_alphabets() {
        assert_eq!(from_base64("-_8="), Err(EncodingError::Base64));
        assert_eq!(from_base64_either("-_8="), Ok(vec![0xfb, 0xff]));
        for odd in ["YQ", "YR==", "YQ==\n", "Y Q==", "YQ==YQ==", "YWE=YQ==", "YQ==YWFh", "YQ===="] {
            assert_eq!(from_base64_either(odd), Err(EncodingError::Base64), "{odd}");
        }
    }

    #[test]
    fn digests_are_lower_case_hex_of_64_digits() {
        let text = Digest::of(b"").to_string();
        assert_eq!(text, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(text.parse(), Ok(Digest::of(b"")));
        assert_eq!(text.to_uppercase().parse::<Digest>(), Err(EncodingError::Digest));
    }

    // clause: FRM-17
    #[test]
    fn json_for_a_terminal_is_ascii_and_the_same_value() {
        let value = serde_json::json!({ "a": "\u{9b}31m\u{202e}\u{1F600}\u{7f}\n" });
        let text = ascii_json(&value);
        assert!(text.chars().all(|c| (' '..='~').contains(&c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn a_stranger_cannot_move_the_cursor() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\n"), "a\\u{1b}[2Jb\\u{202e}c\\u{a}");
    }
}
