//! `relay inspect`: decodes bundles, envelopes, frames and claims for an auditor. It decodes what
//! relay's own readers would refuse too, and says so.

use std::io::{Read as _, Write as _};

use relay_console::Failure;
use relay_protocol::encoding::{escape_non_ascii, strict_json};
use relay_protocol::keys::VerifyingKey;
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{Envelope, PublicKey};
use serde_json::{Value, json};

use crate::args;
use crate::settings::public_key;
use crate::show;

/// Reads, decodes and prints. It trusts nothing: a signature is valid only if one of the given keys
/// verifies it.
pub(crate) fn inspect(arguments: &args::Inspect) -> Result<u8, Failure> {
    let named = |error: std::io::Error| Failure::usage(format!("{}: {error}", arguments.file.display()));
    let mut bytes = Vec::new();
    let limit = 2 * RECORD_MAX as u64;
    if arguments.file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes).map_err(named)?;
    } else {
        std::fs::File::open(&arguments.file).map_err(named)?.take(limit).read_to_end(&mut bytes).map_err(named)?;
    }
    let keys = arguments.keys.iter().map(|text| key(text)).collect::<Result<Vec<_>, _>>()?;
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| Failure::usage(format!("the input is not JSON: {error}")))?;
    // JSON that a strict reader refuses may mean one thing here and another to somebody else.
    if let Err(problem) = strict_json(&bytes) {
        show::line(&format!("warning: relay refuses this input ({problem}); what follows is one reading of it"));
    }
    let mut all = Verdicts::default();
    let decoded = decode(json, &keys, &mut all);
    let text = format!("{}\n", escape_non_ascii(&format!("{decoded:#}")));
    std::io::stdout()
        .write_all(relay_console::harmless(&text).as_bytes())
        .map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))?;
    Ok(match all {
        Verdicts { envelopes, valid } if !keys.is_empty() && (envelopes == 0 || valid < envelopes) => {
            show::line(&format!("{valid} of {envelopes} envelopes have a signature that a given key made"));
            ExitCode::No.code()
        }
        _ => 0,
    })
}

/// How many envelopes there are, and how many of them have a valid signature.
#[derive(Debug, Default)]
struct Verdicts {
    envelopes: usize,
    valid: usize,
}

fn key(text: &str) -> Result<(PublicKey, VerifyingKey), Failure> {
    let wrong = |problem| Failure::usage(format!("--key is {problem}"));
    let public = public_key(text).map_err(wrong)?;
    let verifying = VerifyingKey::from_spki(&public).map_err(|error| wrong(error.to_string()))?;
    Ok((public, verifying))
}

/// Replaces every envelope, at any depth, by its decoded contents.
fn decode(value: Value, keys: &[(PublicKey, VerifyingKey)], all: &mut Verdicts) -> Value {
    match value {
        Value::Object(object) if object.contains_key("payloadType") => {
            let text = Value::Object(object.clone()).to_string();
            match Envelope::parse(text.as_bytes(), 2 * RECORD_MAX) {
                Ok(envelope) => envelope_json(&envelope, keys, all),
                Err(error) => json!({ "unreadable_envelope": error.to_string(), "as_it_is": object }),
            }
        }
        Value::Object(object) => {
            Value::Object(object.into_iter().map(|(name, value)| (name, decode(value, keys, all))).collect())
        }
        Value::Array(array) => Value::Array(array.into_iter().map(|value| decode(value, keys, all)).collect()),
        other => other,
    }
}

fn envelope_json(envelope: &Envelope, keys: &[(PublicKey, VerifyingKey)], all: &mut Verdicts) -> Value {
    if let Err(problem) = strict_json(envelope.unverified_payload()) {
        show::line(&format!("warning: relay refuses a payload in this input ({problem})"));
    }
    all.envelopes += 1;
    let payload = serde_json::from_slice::<Value>(envelope.unverified_payload()).map_or_else(
        |_| json!(relay_protocol::encoding::base64(envelope.unverified_payload())),
        |payload| decode(payload, keys, all),
    );
    let pae = envelope.pae();
    let signatures: Vec<Value> = envelope
        .signatures()
        .iter()
        .map(|signature| {
            let valid_by = signature.bytes().and_then(|bytes| {
                keys.iter().find(|(_, key)| key.verify(&pae, &bytes)).map(|(public, _)| public.key_id())
            });
            let mut one = json!({ "keyid_hint": signature.keyid, "sig": signature.sig });
            // Without a key, nothing was checked, and `null` would look as if it had been.
            if let (Some(one), false) = (one.as_object_mut(), keys.is_empty()) {
                one.insert("valid_by".to_owned(), json!(valid_by));
            }
            one
        })
        .collect();
    all.valid += usize::from(signatures.iter().any(|signature| !signature["valid_by"].is_null()));
    json!({
        "payload_type": envelope.payload_type(),
        "digest": envelope.digest(),
        "payload": payload,
        "signatures": signatures,
    })
}
