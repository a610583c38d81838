//! Vectors of the envelope and its signatures.

mod audit;
mod signatures;

use relay_protocol::{Control, Envelope, Signature, Statement as _, encoding, record};

use super::keys::{self, Key};
use super::request::{self, TYPE, good};
use super::{Body, Cases, Vector, verdict};

fn base() -> Vector {
    Vector { statement: "request".into(), keys: vec![keys::ci().public(), keys::kms().public()], ..Vector::default() }
        .body(signed(&[&keys::ci()]).to_json())
}

fn signed(by: &[&Key]) -> Envelope {
    keys::envelope(TYPE, good().json(), by)
}

fn unsigned() -> Envelope {
    signed(&[])
}

/// The good payload with these signatures. Each is a key id and the value of `sig`.
fn with(signatures: &[(String, String)]) -> String {
    signatures
        .iter()
        .fold(unsigned(), |envelope, (keyid, sig)| {
            envelope.with_signature(Signature { keyid: keyid.clone(), sig: sig.clone() })
        })
        .to_json()
}

/// Fills in the expected output of an accepted case.
fn unfold(vector: Vector) -> Vector {
    let out = verdict("envelope", &vector).expect("an accepted envelope");
    vector.but(|v| (v.digest, v.canonical) = (out.digest, out.canonical))
}

pub(super) fn cases() -> Cases {
    let mut all = accepted();
    all.extend(forms());
    all.extend(unbelieved());
    all.extend(signatures::signatures());
    all.extend(signatures::records());
    all.extend(audit::summaries());
    all.extend(audit::entries());
    all
}

fn accepted() -> Cases {
    let ok = |clause: &str, comment: &str, json: String| unfold(base().odd(clause, "ok", comment).body(json));
    let ci = keys::ci();
    let json = signed(&[&ci]).to_json();
    let sig = keys::ci().sign(&unsigned().pae());
    let url_safe = |text: &str| text.replace('+', "-").replace('/', "_");
    // Bytes whose base64 has both characters in which the alphabets differ.
    let payload = good().with("parameters", r#"{"image":"~~>>>???ÿÿÿ"}"#).json();
    let both = keys::envelope(TYPE, &payload, &[&ci]).to_json();
    let specification = Vector {
        statement: "dsse-example".into(),
        keys: vec!["MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZ805D3eqNZywjCI19lInBJOp7YMrCrzAH3CVTAOQ0jgMeCvVTiaRJaRPRDOv8UMs6U4SvKc6pnrIDOoSYI3fdA==".into()],
        ..Vector::default()
    };
    let printed = format!(
        "{{\"payload\": \"aGVsbG8gd29ybGQ=\",\n \"payloadType\": \"http://example.com/HelloWorld\",\n \"signatures\": [{{\"sig\": \"{SPECIFICATION_SIG}\"}}]}}"
    );
    let der = p256::ecdsa::Signature::from_slice(&encoding::from_base64(SPECIFICATION_SIG).unwrap()).unwrap();
    let der = der.normalize_s().to_der().as_bytes().to_vec();
    let other = keys::stranger();
    vec![
        (
            "dsse-specification",
            specification
                .odd("ENV-3, SIG-2", "ok", "The vector of the DSSE specification, with its signature in DER.")
                .body(printed.replace(SPECIFICATION_SIG, &encoding::base64(&der))),
        ),
        (
            "dsse-specification-as-printed",
            specification
                .odd(
                    "SIG-2",
                    "no-valid-signature",
                    "The vector of the DSSE specification as printed there: its signature is r‖s.",
                )
                .body(printed),
        ),
        ("good-ed25519", ok("ENV-1, ENV-3, SIG-1", "Nothing is odd.", json.clone())),
        ("good-p256", ok("SIG-2", "Signed by a key in KMS.", signed(&[&keys::kms()]).to_json())),
        (
            "two-signers",
            ok("ENV-9", "Two signers, in the wrong order: the canonical form sorts them by key id.", {
                let mut by =
                    [&keys::ci(), &keys::kms()].map(|key| (key.id(), encoding::base64(&key.sign(&unsigned().pae()))));
                by.sort();
                by.reverse();
                with(&by)
            }),
        ),
        (
            "two-signatures-by-one-signer",
            ok(
                "ENV-9",
                "One P-256 key signed twice, with two nonces: the smaller text stays, and there is one signer.",
                with(&[
                    (keys::kms().id(), second_p256()),
                    (keys::kms().id(), encoding::base64(&keys::kms().sign(&unsigned().pae()))),
                ]),
            ),
        ),
        (
            "a-strangers-signature-beside",
            ok(
                "ENV-5, ENV-9",
                "The first signature is by an unknown key; it is ignored and leaves the canonical form.",
                signed(&[&other, &ci]).to_json(),
            ),
        ),
        (
            "keyid-lies",
            ok("ENV-6", "`keyid` names another trusted key.", with(&[(keys::kms().id(), encoding::base64(&sig))])),
        ),
        (
            "keyid-absent",
            ok("ENV-1, ENV-6", "There is no `keyid`.", json.replace(&format!("\"keyid\":\"{}\",", ci.id()), "")),
        ),
        (
            "base64-url-safe",
            ok(
                "ENC-2",
                "Payload and signature in the URL-safe alphabet; the canonical form has the standard one.",
                url_safe_values(&both, &url_safe),
            ),
        ),
        (
            "unknown-members",
            ok(
                "ENV-2",
                "Members that nobody knows, in the envelope and in a signature, one of them deep.",
                json.replace("{\"keyid\"", "{\"cert\":{\"a\":[[[[]]]]},\"keyid\"").replacen('{', "{\"version\":2,", 1),
            ),
        ),
        (
            "token-beside-a-signature",
            ok(
                "SIG-5, ENV-5",
                "A token stands beside a good signature; it is ignored.",
                with(&[(String::new(), TOKEN.into()), (ci.id(), encoding::base64(&sig))]),
            ),
        ),
        (
            "eight-signatures",
            ok(
                "LIM-4",
                "Eight signatures, the most; the last is good.",
                signed(&[&other, &other, &other, &other, &other, &other, &other, &ci]).to_json(),
            ),
        ),
    ]
}

/// The signature that the DSSE specification prints.
const SPECIFICATION_SIG: &str =
    "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==";

const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJhdWQiOiJyZWxheTpzaGEyNTY6MDAifQ.c2lnbmF0dXJl";

/// Replaces the base64 alphabet in `payload` and `sig` only.
fn url_safe_values(json: &str, url_safe: &dyn Fn(&str) -> String) -> String {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    let replaced = url_safe(value["payload"].as_str().unwrap());
    assert!(replaced.contains('-') && replaced.contains('_'), "the payload shows both letters");
    value["payload"] = replaced.into();
    value["signatures"][0]["sig"] = url_safe(value["signatures"][0]["sig"].as_str().unwrap()).into();
    value.to_string()
}

/// Another valid signature of the good request by the P-256 key. It has a different nonce, as each
/// signature by KMS has.
fn second_p256() -> String {
    use p256::ecdsa::signature::hazmat::PrehashSigner as _;
    let Key::P256(key) = keys::kms() else { unreachable!("the KMS key is P-256") };
    // RFC 6979 derives the nonce from the digest. The signature covers the same number, but the
    // extra byte changes the nonce.
    let mut digest = unsigned().digest().as_bytes().to_vec();
    digest.push(0);
    let signature: p256::ecdsa::Signature = key.sign_prehash(&digest).unwrap();
    encoding::base64(signature.normalize_s().to_der().as_bytes())
}

fn forms() -> Cases {
    let odd = |clause: &str, comment: &str, body: String| base().odd(clause, "malformed-envelope", comment).body(body);
    let json = signed(&[&keys::ci()]).to_json();
    let payload = encoding::base64(good().json().as_bytes());
    let sig = encoding::base64(&keys::ci().sign(&unsigned().pae()));
    let other = keys::stranger();
    vec![
        ("not-json", odd("ENV-1", "No JSON.", "relay".into())),
        (
            "array",
            odd(
                "ENV-1",
                "The members' values in an array.",
                format!("[\"{payload}\",\"{TYPE}\",[{{\"keyid\":\"\",\"sig\":\"{sig}\"}}]]"),
            ),
        ),
        (
            "signature-as-array",
            odd(
                "ENV-1",
                "A signature's values in an array.",
                format!("{{\"payload\":\"{payload}\",\"payloadType\":\"{TYPE}\",\"signatures\":[[\"\",\"{sig}\"]]}}"),
            ),
        ),
        (
            "payload-twice",
            odd("ENV-1", "Two payloads, the second another.", json.replacen('{', "{\"payload\":\"e30=\",", 1)),
        ),
        (
            "unknown-member-twice",
            odd(
                "ENC-5, ENV-2",
                "A member that nobody knows stands twice.",
                json.replacen('{', "{\"version\":2,\"version\":3,", 1),
            ),
        ),
        (
            "unknown-member-beyond-a-double",
            odd("ENC-5, ENV-2", "A member that nobody knows, 1e400.", json.replacen('{', "{\"version\":1e400,", 1)),
        ),
        (
            "unknown-member-with-half-a-character",
            odd(
                "ENC-5, ENV-2",
                "A member that nobody knows, with an unpaired surrogate.",
                json.replacen('{', "{\"version\":\"\\ud800\",", 1),
            ),
        ),
        (
            "unknown-member-not-utf-8",
            odd("ENC-5, ENV-2", "A member that nobody knows, with a byte that is no UTF-8.", String::new()).but(|v| {
                let (head, tail) = json.split_at(1);
                let bytes = [head.as_bytes(), b"\"version\":\"\xff\",", tail.as_bytes()].concat();
                v.body = Body::Bytes { base64: encoding::base64(&bytes) };
            }),
        ),
        ("payload-type-absent", odd("ENV-1", "No payload type.", json.replace("payloadType", "payload_type"))),
        ("signatures-absent", odd("ENV-1", "No list of signatures.", json.replace("signatures", "signature"))),
        ("sig-absent", odd("ENV-1", "A signature without `sig`.", json.replace("\"sig\"", "\"signature\""))),
        ("keyid-null", odd("ENV-1", "`keyid` is null.", json.replace(&format!("\"{}\"", keys::ci().id()), "null"))),
        (
            "payload-unpadded",
            odd(
                "ENC-1, ENC-2",
                "The payload's base64 has no padding.",
                format!("{{\"payload\":\"e30\",\"payloadType\":\"{TYPE}\",\"signatures\":[{{\"sig\":\"{sig}\"}}]}}"),
            ),
        ),
        (
            "payload-is-two-texts",
            odd(
                "ENC-1",
                "Two padded base64 texts in a row.",
                format!(
                    "{{\"payload\":\"{}{}\",\"payloadType\":\"{TYPE}\",\"signatures\":[{{\"sig\":\"{sig}\"}}]}}",
                    encoding::base64(&good().json().as_bytes()[..1]),
                    encoding::base64(&good().json().as_bytes()[1..])
                ),
            ),
        ),
        (
            "payload-of-two-alphabets",
            odd(
                "ENC-2",
                "Both alphabets in one text.",
                format!("{{\"payload\":\"-_+/\",\"payloadType\":\"{TYPE}\",\"signatures\":[{{\"sig\":\"{sig}\"}}]}}"),
            ),
        ),
        (
            "payload-with-line-break",
            odd(
                "ENC-1",
                "A line break in the payload's base64.",
                format!(
                    "{{\"payload\":\"{}\\n{}\",\"payloadType\":\"{TYPE}\",\"signatures\":[{{\"sig\":\"{sig}\"}}]}}",
                    &payload[..64],
                    &payload[64..]
                ),
            ),
        ),
        (
            "nine-signatures",
            odd(
                "LIM-4",
                "Nine signatures.",
                signed(&[&other, &other, &other, &other, &other, &other, &other, &other, &keys::ci()]).to_json(),
            ),
        ),
        ("sig-too-long", odd("LIM-4", "A signature of 4097 characters.", with(&[(String::new(), "A".repeat(4_097))]))),
        (
            "too-large",
            base().odd("LIM-2", "too-large", "An envelope of more than 65536 bytes.").but(|v| {
                v.body = Body::Long { before: json, repeat: " ".into(), times: 65_536, after: String::new() };
            }),
        ),
        (
            "payload-too-large",
            base().odd("LIM-3", "too-large", "A payload of 32769 bytes, signed.").body(
                keys::envelope(TYPE, good().json() + &" ".repeat(32_769 - good().json().len()), &[&keys::ci()])
                    .to_json(),
            ),
        ),
        (
            "payload-too-large-unsigned",
            base()
                .odd("LIM-3, ENV-7", "too-large", "A payload of 32769 bytes, not signed: its size is looked at first.")
                .body(keys::envelope(TYPE, " ".repeat(32_769), &[]).to_json()),
        ),
    ]
}

fn unbelieved() -> Cases {
    let odd = |clause: &str, expect: &str, comment: &str, body: String| base().odd(clause, expect, comment).body(body);
    let ci = keys::ci();
    let retyped = |payload_type: &str| keys::envelope(payload_type, good().json(), &[&ci]).to_json();
    let json = signed(&[&ci]).to_json();
    let swapped = json.replace(
        &encoding::base64(good().json().as_bytes()),
        &encoding::base64(good().with("target", "\"payments/staging\"").json().as_bytes()),
    );
    vec![
        (
            "payload-type-of-another-statement",
            odd(
                "ENV-4",
                "payload-type",
                "A signed control statement where a request should stand.",
                keys::envelope(Control::TYPE, good().json(), &[&ci]).to_json(),
            ),
        ),
        (
            "payload-type-upper-case",
            odd(
                "ENV-4",
                "payload-type",
                "The type in upper case: media types are alike, bytes are not.",
                retyped(&TYPE.to_uppercase()),
            ),
        ),
        (
            "payload-type-with-parameter",
            odd("ENV-4", "payload-type", "The type with a parameter.", retyped(&format!("{TYPE}; charset=utf-8"))),
        ),
        (
            "payload-type-of-version-2",
            odd("ENV-4, VER-1", "payload-type", "A request of version 2.", retyped(&TYPE.replace("v1", "v2"))),
        ),
        (
            "payload-type-changed-after-signing",
            base().odd("ENV-3, ENV-5", "no-valid-signature", "Signed as an approval, relabelled as a request.").body(
                keys::envelope(super::approval::TYPE, good().json(), &[&ci]).to_json().replace("approval", "request"),
            ),
        ),
        ("unsigned", odd("ENV-5", "unsigned", "No signature.", unsigned().to_json())),
        (
            "unsigned-and-of-another-type",
            odd(
                "ENV-4, ENV-7",
                "payload-type",
                "No signature and another type: the type is looked at first.",
                keys::envelope(Control::TYPE, "{}", &[]).to_json(),
            ),
        ),
        (
            "signed-by-a-stranger",
            odd(
                "ENV-5",
                "no-valid-signature",
                "Signed by a key that nobody trusts.",
                signed(&[&keys::stranger()]).to_json(),
            ),
        ),
        (
            "only-unknown-signatures",
            odd(
                "ENV-5",
                "no-valid-signature",
                "Two signatures, both by unknown keys.",
                signed(&[&keys::stranger(), &keys::session()]).to_json(),
            ),
        ),
        (
            "nobody-is-trusted",
            odd("ENV-5", "no-valid-signature", "A good signature, but no trust root.", json.clone())
                .but(|v| v.keys.clear()),
        ),
        (
            "payload-replaced",
            odd("ENV-3, ENV-5", "no-valid-signature", "The payload was replaced after signing.", swapped),
        ),
        (
            "signed-without-pae",
            odd(
                "ENV-3",
                "no-valid-signature",
                "The signature is over the payload alone.",
                with(&[(ci.id(), encoding::base64(&ci.sign(good().json().as_bytes())))]),
            ),
        ),
        (
            "signed-over-base64",
            odd(
                "ENV-3",
                "no-valid-signature",
                "The signature is over the PAE of the base64 text, not of the bytes.",
                with(&[(
                    ci.id(),
                    encoding::base64(
                        &ci.sign(&relay_protocol::pae(TYPE, encoding::base64(good().json().as_bytes()).as_bytes())),
                    ),
                )]),
            ),
        ),
        (
            "malformed-and-signed-by-a-stranger",
            odd(
                "ENV-7",
                "no-valid-signature",
                "The payload is no JSON and the signature not valid: the payload is not looked at.",
                keys::envelope(TYPE, "nonsense", &[&keys::stranger()]).to_json(),
            ),
        ),
        (
            "malformed-and-signed",
            odd(
                "ENV-7",
                "malformed-payload",
                "The payload is no JSON, and signed.",
                keys::envelope(TYPE, "nonsense", &[&ci]).to_json(),
            ),
        ),
    ]
}
