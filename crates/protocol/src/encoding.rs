//! Strict base64, hex and digests (clauses ENC-1 to ENC-4), and the escaping of untrusted text
//! (clauses FRM-3, FRM-17).

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, BASE64URL, Encoding, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A text that violates its encoding (clause ENC-1 or ENC-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Not standard, padded base64 with zero trailing bits.
    #[error("not standard, padded base64")]
    Base64,
    /// Not 64 lower-case hexadecimal digits.
    #[error("not a SHA-256 digest of 64 lower-case hexadecimal digits")]
    Digest,
}

/// Encodes bytes as standard, padded base64 (clause ENC-1).
pub fn base64(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// Decodes standard, padded base64 (clause ENC-1).
///
/// # Errors
///
/// If the text is not standard, padded base64 with zero trailing bits.
pub fn from_base64(text: &str) -> Result<Vec<u8>, EncodingError> {
    decode(text, &BASE64)
}

/// Decodes exactly one padded text. The decoder by itself would accept several in a row, which
/// would be a second spelling of the same bytes.
fn decode(text: &str, alphabet: &Encoding) -> Result<Vec<u8>, EncodingError> {
    let padding = text.find('=').unwrap_or(text.len());
    if text.len() - padding > 2 {
        return Err(EncodingError::Base64);
    }
    alphabet.decode(text.as_bytes()).map_err(|_| EncodingError::Base64)
}

/// Decodes base64 as DSSE requires of readers: standard or URL-safe alphabet, padded (clause
/// ENC-2).
///
/// # Errors
///
/// If the text is padded base64 in neither alphabet.
pub fn from_base64_either(text: &str) -> Result<Vec<u8>, EncodingError> {
    decode(text, &BASE64).or_else(|_| decode(text, &BASE64URL))
}

/// A SHA-256 digest; 64 lower-case hexadecimal digits on the wire (clause ENC-3).
///
/// ```
/// use relay_protocol::Digest;
///
/// let digest = Digest::of(b"");
/// let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// assert_eq!(digest.to_string(), text);
/// assert_eq!(text.parse(), Ok(digest));
/// ```
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

    /// The 32 bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A SHA-256 of bytes that come in parts.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next part.
    pub fn push(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// The digest of what came so far.
    pub fn digest(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
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

/// The JSON of one of this crate's own types, with the members in declaration order and without
/// whitespace. This is the form that is signed, hashed and sent.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    to_json_of(0, value)
}

/// The same for a value whose JSON has about `size` bytes: it is not moved while it grows.
#[allow(clippy::expect_used, reason = "the message states the invariant")]
pub(crate) fn to_json_of<T: Serialize>(size: usize, value: &T) -> String {
    let mut json = Vec::with_capacity(size.max(128));
    serde_json::to_writer(&mut json, value)
        .expect("JSON can express strings, numbers, lists and maps with string keys");
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Checks a text of JSON by the rules of clause ENC-5, whatever it holds.
///
/// # Errors
///
/// Why every reader of this protocol refuses the text.
pub fn strict_json(json: &[u8]) -> Result<(), serde_json::Error> {
    crate::strict::from_slice::<serde_json::Value>(json).map(drop)
}

/// Escapes the characters that SQS refuses and serde_json does not escape, so that any JSON text
/// can be an SQS body (clause FRM-3). These are U+FFFE and U+FFFF; SQS accepts U+007F, and JSON
/// already escapes the control characters below U+0020.
pub fn sqs_safe(json: String) -> String {
    // Two searches for one character each are much faster than one for either.
    if json.contains('\u{FFFE}') || json.contains('\u{FFFF}') {
        json.replace('\u{FFFE}', "\\ufffe").replace('\u{FFFF}', "\\uffff")
    } else {
        json
    }
}

/// Makes untrusted text safe for one line of a terminal or a log, and cuts it to
/// [`crate::limits::TEXT_MAX`] characters (clause FRM-17).
pub fn printable(text: &str) -> String {
    match text.char_indices().nth(crate::limits::TEXT_MAX) {
        Some((end, _)) => escaped(&text[..end]) + "…",
        None => escaped(text),
    }
}

/// Makes untrusted text safe for one line of a terminal or a log, and cuts nothing: for what a
/// person decides by.
pub fn escaped(text: &str) -> String {
    let mut out = String::new();
    let mut escaper = Escaper::default();
    for c in text.chars() {
        // The result is a single line, so a line end is escaped too.
        if c == '\n' { out.extend(c.escape_unicode()) } else { escaper.push(c, &mut out) }
    }
    escaper.end(&mut out);
    out
}

/// Escapes text, character by character (clause FRM-17): characters that control a terminal,
/// characters that reorder or hide text, and sequences that CI systems interpret as commands. Line
/// ends are kept.
#[derive(Clone, Debug)]
pub struct Escaper {
    /// Whether the current line contains only whitespace so far.
    blank: bool,
    /// A prefix of one of [`COMMANDS`] that has been read and is held back.
    held: String,
}

/// Sequences that GitHub's and Azure's runners interpret as a command anywhere in a line. `::` is
/// one only at the start of a line.
const COMMANDS: [&str; 2] = ["##[", "##vso["];

impl Default for Escaper {
    fn default() -> Self {
        Self { blank: true, held: String::new() }
    }
}

impl Escaper {
    /// Reads one more character, and appends to `out` what can no longer become a command.
    pub fn push(&mut self, c: char, out: &mut String) {
        self.held.push(c);
        if COMMANDS.contains(&self.held.as_str()) {
            // Escaping one character of a command turns it into text.
            let held = std::mem::take(&mut self.held).replacen('#', "\\u{23}", 1);
            out.push_str(&held);
            self.blank = false;
            return;
        }
        // Release what can no longer start a command.
        while !self.held.is_empty() && !COMMANDS.iter().any(|command| command.starts_with(self.held.as_str())) {
            let first = self.held.remove(0);
            self.put(first, out);
        }
    }

    /// Ends the text: what was held back is not a command, and is appended to `out`.
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

/// Whether a character directs, joins, tags or annotates text, or has no width, so that a reader
/// would miss it. These are the characters of Unicode's category Cf and the others that are ignored
/// by default, except variation selectors, which an emoji may use.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{600}'..='\u{605}' | '\u{61C}' | '\u{6DD}' | '\u{70F}' | '\u{890}'..='\u{891}' | '\u{8E2}'
        | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{110BD}' | '\u{110CD}' | '\u{13430}'..='\u{1343F}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// As much of a text as fits into [`crate::limits::TEXT_MAX`] bytes, for messages that travel
/// (clause LIM-7).
pub fn short(text: &str) -> String {
    let max = crate::limits::TEXT_MAX;
    if text.len() <= max {
        return text.to_owned();
    }
    let mark = '…';
    let end = (0..=max - mark.len_utf8()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{mark}", &text[..end])
}

/// Escapes every non-ASCII character of a JSON text, and DEL, as `\uXXXX`. The value stays the
/// same, and nothing in the text can control a terminal (clause FRM-17).
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

/// A JSON value as one line of ASCII: see [`escape_non_ascii`].
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
