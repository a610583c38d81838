//! A private key as CI systems hand it on: on one line, indented, quoted, with a byte order mark,
//! or in base64 once more.

use relay_protocol::encoding::from_base64;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// Returns the PEM in a text in its usual form, or `None` if there is none.
pub(crate) fn find(text: &str) -> Option<Zeroizing<String>> {
    let trimmed = text.trim_start_matches('\u{feff}').trim().trim_matches(['"', '\'']).trim();
    if let Some(pem) = tidy(trimmed) {
        return Some(pem);
    }
    let joined: Zeroizing<String> = Zeroizing::new(trimmed.split_ascii_whitespace().collect());
    let decoded = Zeroizing::new(from_base64(&joined).ok()?);
    tidy(std::str::from_utf8(&decoded).ok()?)
}

/// Writes each part of a PEM on its own line (RFC 7468, section 3).
fn tidy(text: &str) -> Option<Zeroizing<String>> {
    // Some CI systems keep a secret on one line, with `\n` for each line break.
    let text = Zeroizing::new(text.replace("\\r", "").replace("\\n", "\n"));
    let (label, rest) = text.split_once(BEGIN)?.1.split_once(DASHES)?;
    let (body, _) = rest.split_once(&format!("-----END {label}{DASHES}"))?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    let mut pem = Zeroizing::new(format!("{BEGIN}{label}{DASHES}\n"));
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).ok()?);
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}{DASHES}\n"));
    Some(pem)
}

#[cfg(test)]
mod tests {
    use relay_protocol::encoding::base64;
    use relay_protocol::keys::PrivateKey;

    use super::*;

    #[test]
    fn a_key_is_found_in_whatever_a_ci_system_makes_of_it() {
        let key = PrivateKey::from_seed([9; 32]);
        let pem = key.to_pem().to_string();
        let forms = [
            pem.clone(),
            pem.replace('\n', "\r\n"),
            pem.trim().replace('\n', "\\n"),
            pem.trim().replace('\n', " "),
            pem.lines().map(|line| format!("    {line}\n")).collect(),
            format!("\u{feff}{pem}"),
            format!("\"{}\"", pem.trim()),
            format!("'{}'\n", pem.replace('\n', "\\n")),
            base64(pem.as_bytes()),
            base64(pem.as_bytes()).as_bytes().chunks(20).map(|line| String::from_utf8_lossy(line) + "\n").collect(),
        ];
        for form in forms {
            let found = find(&form).unwrap_or_else(|| panic!("{form:?}"));
            assert_eq!(PrivateKey::from_pem(&found).unwrap().public(), key.public(), "{form:?}");
        }
        for other in ["", "key.pem", "/secrets/key.pem", "-----BEGIN", "aGVsbG8=", "-----BEGIN X-----"] {
            assert!(find(other).is_none(), "{other:?}");
        }
    }
}
