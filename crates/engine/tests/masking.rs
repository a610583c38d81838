//! Nothing of a secret survives, in any form that docs/protocol.md lists and however the stream is
//! divided, and all other text stays as it is.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::collection::vec;
use proptest::prelude::*;
use relay_engine::Masker;
use relay_protocol::encoding::base64;
use serde_json::{Value, json};

/// Text around secrets, in letters that no secret here has.
const BEFORE: &str = "~~ before: ";
const AFTER: &str = " :after ~~\n";

fn masked(secret: &str, parts: &[&[u8]]) -> String {
    let mut masker = Masker::new(&[secret]);
    let mut shown: Vec<u8> = parts.iter().flat_map(|part| masker.push(part)).collect();
    shown.extend(masker.finish());
    String::from_utf8_lossy(&shown).into_owned()
}

/// A value whose letters occur nowhere else: no window of it may survive.
fn value() -> impl Strategy<Value = String> {
    "[A-Z0-9+/&<\"'\\\\é ]{0,6}[G-Z]{6,40}[A-Z0-9+/=&%ß]{0,20}[G-Z]"
}

fn pem(lines: &[String]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}

fn wrapped(text: &str, columns: usize, end: &str) -> String {
    text.as_bytes().chunks(columns).map(|line| String::from_utf8_lossy(line).into_owned()).collect::<Vec<_>>().join(end)
}

/// Every form of `value` that is found, in text.
fn forms(value: &str) -> Vec<String> {
    let quoted = json!(value).to_string();
    let quoted = &quoted[1..quoted.len() - 1];
    let ascii: String = value
        .chars()
        .flat_map(|c| {
            if c.is_ascii() {
                vec![c.to_string()]
            } else {
                c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
        })
        .collect();
    let ascii = if value.contains(['"', '\\']) { quoted.to_owned() } else { ascii };
    let percent: String = value
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let xml = value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;");
    let mut all = vec![
        value.to_owned(),
        quoted.to_owned(),
        ascii,
        percent.replace("%20", "+"),
        percent,
        hex.to_uppercase(),
        wrapped(&hex, 60, "\n"),
        xml,
    ];
    let twice = json!(quoted).to_string();
    all.push(twice[1..twice.len() - 1].to_owned());
    all
}

/// The windows of base64 text that only the value decides: none may survive.
fn base64_leaks(shown: &str, value: &str) -> bool {
    let shown: String = shown.chars().filter(|c| !"\r\n".contains(*c)).collect();
    (0..3_usize).any(|before| {
        let encoded = base64(&[&vec![0; before], value.as_bytes()].concat());
        let own = &encoded[(before * 8).div_ceil(6)..(before + value.len()) * 8 / 6];
        own.as_bytes().windows(6).any(|window| shown.contains(std::str::from_utf8(window).unwrap()))
    })
}

fn leaks(shown: &str, value: &str) -> bool {
    let letters: Vec<char> = value.chars().collect();
    letters.windows(4).any(|window| {
        window.iter().all(|c| ('G'..='Z').contains(c)) && shown.contains(&window.iter().collect::<String>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    // clause: MSK-1, MSK-2, MSK-4, MSK-5
    #[test]
    fn a_value_is_masked_in_each_form_and_at_each_split(value in value(), cuts in vec(any::<prop::sample::Index>(), 0..5)) {
        let value = value.trim().to_owned();
        for form in forms(&value) {
            let text = format!("{BEFORE}{form}{AFTER}");
            let bytes = text.as_bytes();
            let mut divisions: Vec<Vec<&[u8]>> = (0..bytes.len().min(64)).map(|at| vec![&bytes[..at], &bytes[at..]]).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            divisions.push(at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect());
            divisions.push(bytes.chunks(1).collect());
            for division in divisions {
                prop_assert_eq!(masked(&value, &division), format!("{BEFORE}***{AFTER}"), "{}", form);
            }
        }
    }

    // clause: MSK-2
    #[test]
    fn base64_is_masked_wherever_the_value_stands_and_however_it_is_wrapped(
        value in value(), user in "[a-z]{1,9}", after in "[a-z]{0,3}", columns in prop::sample::select(vec![60_usize, 64, 76])
    ) {
        let value = value.trim().to_owned();
        let encoded = base64(format!("{user}:{value}{after}").as_bytes());
        let url = encoded.replace('+', "-").replace('/', "_");
        for text in [encoded.clone(), url, wrapped(&encoded, columns, "\n"), wrapped(&encoded, columns, "\r\n")] {
            let text = format!("{BEFORE}{text}{AFTER}");
            for division in [vec![text.as_bytes()], text.as_bytes().chunks(7).collect(), text.as_bytes().chunks(1).collect()] {
                let shown = masked(&value, &division);
                prop_assert!(!base64_leaks(&shown.replace("-", "+").replace("_", "/"), &value), "{shown}");
                prop_assert!(shown.starts_with(BEFORE) && shown.ends_with(AFTER) && shown.contains("***"), "{shown}");
            }
        }
    }

    // clause: MSK-1, MSK-3
    #[test]
    fn the_strings_of_a_json_secret_and_the_lines_of_a_pem_are_secrets(
        password in "[G-Z]{8,30}", lines in vec("[G-Z0-9+/]{64}", 1..20), split in any::<prop::sample::Index>()
    ) {
        let key = pem(&lines);
        let account = json!({ "type": "service_account", "private_key": key, "client": { "id": ["x", password] } });
        let nested = json!({ "username": "u", "credentials": account.to_string() });
        for secret in [account.to_string(), serde_json::to_string_pretty(&account).unwrap(), nested.to_string()] {
            let mut text = format!("{BEFORE}{password}\n{key}");
            lines.iter().for_each(|line| text.push_str(&format!("   {line}\n")));
            text.push_str(&format!("{}\n{secret}{AFTER}", json!({ "a": key, "b": Value::from(password.clone()) })));
            let (one, two) = text.as_bytes().split_at(split.index(text.len()));
            let shown = masked(&secret, &[one, two]);
            prop_assert!(!leaks(&shown, &password), "{shown}");
            prop_assert!(!lines.iter().any(|line| leaks(&shown, line)), "{shown}");
            prop_assert!(shown.starts_with(BEFORE) && shown.ends_with(AFTER));
        }
    }
}

// clause: MSK-3
#[test]
fn what_is_no_secret_stays() {
    let secret = serde_json::to_string_pretty(&json!({ "a": { "b": "hunter22", "c": "no", "d": 7 } })).unwrap();
    let plan = "resource {\n    }\n  }\n}\n no { \"d\": 7 }\n";
    assert_eq!(masked(&secret, &[plan.as_bytes()]), plan);
    assert_eq!(masked(&secret, &[b"b = hunter22"]), "b = ***");
    assert_eq!(masked("abc", &[b"abc"]), "abc", "too short");
}
