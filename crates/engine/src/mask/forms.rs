//! The forms in which a secret is found (clauses MSK-1 to MSK-3). docs/protocol.md has the list,
//! with what is not found.

use std::collections::BTreeSet;

use relay_protocol::encoding::base64;
use serde_json::Value;

/// Secrets shorter than this many bytes are not masked: they would black out half of the output and
/// hide nothing.
pub const SECRET_MIN: usize = 4;

/// Shorter encoded forms (base64, hexadecimal) are not masked, for the same reason. A secret of
/// five bytes has no shorter form.
const ENCODED_MIN: usize = 6;

/// A line of a secret counts as a secret only with so many letters or digits: `    }` does not.
const LINE_MIN: usize = 4;

/// Longer values are searched for in parts of this size, so that little is held back. It is a
/// multiple of three, so base64 divides where they do.
const PART: usize = 768;

/// How deep JSON values and JSON texts in them are searched for strings.
const DEPTH: usize = 16;

/// What to search for.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// In the stream as it is. Sorted.
    pub(super) plain: Vec<Vec<u8>>,
    /// In the stream without its line breaks. Sorted.
    pub(super) wrapped: Vec<Vec<u8>>,
}

impl Patterns {
    /// The patterns for these secrets.
    pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut values = BTreeSet::new();
        secrets.for_each(|secret| add_values(secret, DEPTH, &mut values));
        let (mut plain, mut wrapped) = (BTreeSet::new(), BTreeSet::new());
        for value in values.iter().flat_map(|value| parts(value)) {
            plain.extend(texts(value));
            wrapped.extend(encodings(value).filter(|encoded| encoded.len() >= ENCODED_MIN));
        }
        Self { plain: plain.into_iter().collect(), wrapped: wrapped.into_iter().collect() }
    }
}

/// Collects a secret's values: itself, its lines, and the strings of a JSON text.
fn add_values(secret: &[u8], depth: usize, values: &mut BTreeSet<Vec<u8>>) {
    let trimmed = secret.trim_ascii();
    if trimmed.len() < SECRET_MIN || !values.insert(trimmed.to_vec()) {
        return;
    }
    let lines = trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    values.extend(lines.filter(|line| is_secret_line(line)).map(<[u8]>::to_vec));
    if depth > 0
        && let Ok(json @ (Value::Object(_) | Value::Array(_))) = serde_json::from_slice(trimmed)
    {
        add_leaves(&json, depth - 1, values);
    }
}

fn add_leaves(json: &Value, depth: usize, values: &mut BTreeSet<Vec<u8>>) {
    match json {
        Value::String(text) => add_values(text.as_bytes(), depth, values),
        Value::Array(all) => all.iter().for_each(|value| add_leaves(value, depth, values)),
        Value::Object(all) => all.values().for_each(|value| add_leaves(value, depth, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The frame of a PEM is no secret, and neither is a line of brackets.
fn is_secret_line(line: &[u8]) -> bool {
    let frame = [b"-----BEGIN ".as_slice(), b"-----END "];
    line.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()).count() >= LINE_MIN
        && !frame.iter().any(|frame| line.starts_with(frame))
}

/// The value in parts of [`PART`] bytes. The last part may be longer, so that none is short.
fn parts(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = (value.len() / PART).max(1);
    (0..count).map(move |at| {
        let end = if at + 1 == count { value.len() } else { (at + 1) * PART };
        value.get(at * PART..end).unwrap_or_default()
    })
}

/// The value as it is, and as other languages quote it.
fn texts(value: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![value.to_vec()];
    let Ok(text) = std::str::from_utf8(value) else { return all };
    for quote in [json, json_ascii, json_for_html, json_with_slashes] {
        let once = quote(text);
        // JSON in a string of JSON, as in a state file.
        all.extend([json(&once).into_bytes(), once.into_bytes()]);
    }
    for (plain, upper) in [("-_.~", true), ("-_.~", false), ("-_.!~*'()", true), ("-_.~/", true)] {
        let percent = percent(value, plain, upper);
        all.extend([percent.replace("%20", "+").into_bytes(), percent.into_bytes()]);
    }
    for apostrophe in ["&apos;", "&#39;", "&#x27;", "'"] {
        for quote in ["&quot;", "&#34;", "\""] {
            let xml = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            all.push(xml.replace('\'', apostrophe).replace('"', quote).into_bytes());
        }
    }
    all
}

/// The content of a JSON string.
fn json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// The same with `\u` for all that is not ASCII, as Python writes it.
fn json_ascii(text: &str) -> String {
    let mut out = String::new();
    for c in json(text).chars() {
        match c {
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    out
}

/// The same with `\u` for `<`, `>` and `&`, as Go writes it.
fn json_for_html(text: &str) -> String {
    json(text).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// The same with `\/`, as PHP writes it.
fn json_with_slashes(text: &str) -> String {
    json(text).replace('/', "\\/")
}

/// Percent-encodes all but letters, digits and `plain`.
fn percent(value: &[u8], plain: &str, upper: bool) -> String {
    let mut out = String::new();
    for byte in value {
        match byte {
            byte if byte.is_ascii_alphanumeric() || plain.as_bytes().contains(byte) => out.push(char::from(*byte)),
            byte if upper => out.push_str(&format!("%{byte:02X}")),
            byte => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// The value in hexadecimal, and in base64 wherever it stands in what was encoded.
fn encodings(value: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![hex.to_uppercase(), hex];
    for before in 0..3_usize {
        let encoded = base64(&[&vec![0; before], value].concat());
        // Bits of the neighbours are in what comes before and after these characters.
        let (first, end) = ((before * 8).div_ceil(6), (before + value.len()) * 8 / 6);
        all.push(encoded.get(first..end).unwrap_or_default().to_owned());
        // At the end of what was encoded, the last character has no bits of a neighbour.
        all.push(encoded.trim_end_matches('=').get(first..).unwrap_or_default().to_owned());
    }
    let url: Vec<String> = all.iter().skip(2).map(|text| text.replace('+', "-").replace('/', "_")).collect();
    all.into_iter().chain(url).map(String::into_bytes)
}
