//! `relay inspect`: decodes bundles, envelopes, frames and claims for an auditor.

use std::io::{Read as _, Write as _};

use relay_console::Failure;
use relay_protocol::encoding::escape_non_ascii;
use relay_protocol::keys::VerifyingKey;
use relay_protocol::limits::FRAME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{Envelope, PublicKey};
use serde_json::{Value, json};

use crate::args;

/// Reads, decodes and prints. It trusts nothing: a signature is valid only if one of the given keys
/// verifies it.
pub(crate) fn inspect(arguments: &args::Inspect) -> Result<u8, Failure> {
    let named = |error: std::io::Error| Failure::usage(format!("{}: {error}", arguments.file.display()));
    let mut bytes = Vec::new();
    let limit = 4 * FRAME_MAX as u64;
    if arguments.file.as_os_str() == "-" {
        std::io::stdin().take(limit).read_to_end(&mut bytes).map_err(named)?;
    } else {
        std::fs::File::open(&arguments.file).map_err(named)?.take(limit).read_to_end(&mut bytes).map_err(named)?;
    }
    let keys = arguments.keys.iter().map(|text| key(text)).collect::<Result<Vec<_>, _>>()?;
    let json: Value =
        serde_json::from_slice(&bytes).map_err(|error| Failure::usage(format!("the input is not JSON: {error}")))?;
    let decoded = decode(json, &keys);
    let text = format!("{}\n", escape_non_ascii(&format!("{decoded:#}")));
    std::io::stdout()
        .write_all(relay_console::harmless(&text).as_bytes())
        .map_err(|error| Failure::new(ExitCode::Fault, error.to_string()))?;
    Ok(0)
}

fn key(text: &str) -> Result<(PublicKey, VerifyingKey), Failure> {
    let public: PublicKey = text.parse().map_err(|error| Failure::usage(format!("--key: {error}")))?;
    let verifying =
        VerifyingKey::from_spki(&public).map_err(|error| Failure::usage(format!("--key {text}: {error}")))?;
    Ok((public, verifying))
}

/// Replaces every envelope, at any depth, by its decoded contents.
fn decode(value: Value, keys: &[(PublicKey, VerifyingKey)]) -> Value {
    match value {
        Value::Object(object) if object.contains_key("payloadType") => {
            let text = Value::Object(object.clone()).to_string();
            match Envelope::parse(text.as_bytes(), 4 * FRAME_MAX) {
                Ok(envelope) => envelope_json(&envelope, keys),
                Err(error) => json!({ "unreadable_envelope": error.to_string(), "as_it_is": object }),
            }
        }
        Value::Object(object) => {
            Value::Object(object.into_iter().map(|(name, value)| (name, decode(value, keys))).collect())
        }
        Value::Array(array) => Value::Array(array.into_iter().map(|value| decode(value, keys)).collect()),
        other => other,
    }
}

fn envelope_json(envelope: &Envelope, keys: &[(PublicKey, VerifyingKey)]) -> Value {
    let payload = serde_json::from_slice::<Value>(envelope.unverified_payload()).map_or_else(
        |_| json!(relay_protocol::encoding::base64(envelope.unverified_payload())),
        |payload| decode(payload, keys),
    );
    let pae = envelope.pae();
    let signatures: Vec<Value> = envelope
        .signatures()
        .iter()
        .map(|signature| {
            let valid_by = signature.bytes().and_then(|bytes| {
                keys.iter().find(|(_, key)| key.verify(&pae, &bytes)).map(|(public, _)| public.key_id())
            });
            json!({ "keyid_hint": signature.keyid, "sig": signature.sig, "valid_by": valid_by })
        })
        .collect();
    json!({
        "payload_type": envelope.payload_type(),
        "digest": envelope.digest(),
        "payload": payload,
        "signatures": signatures,
    })
}
