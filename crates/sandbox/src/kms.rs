//! KMS: real P-256 signing keys. Signatures are not made low-s, since the real service's are not either.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::clock::{epoch_seconds, now_ms, random, uuid};
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::resource_policy::{Policy, authorise};
use crate::world::World;

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[
    ("Sign", Handler::Now(sign)),
    ("Verify", Handler::Now(verify)),
    ("GetPublicKey", Handler::Now(get_public_key)),
    ("DescribeKey", Handler::Now(describe)),
    ("CreateKey", Handler::Now(create)),
];

#[derive(Debug, Default)]
pub(crate) struct Kms {
    keys: Mutex<BTreeMap<String, Key>>,
}

#[derive(Clone)]
struct Key {
    account: String,
    secret: SigningKey,
    public: Vec<u8>,
    created_ms: u64,
    policy: Option<Policy>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Kms {
    /// Makes a key; gives its ARN and its public key as SPKI DER.
    pub(crate) fn make(&self, account: &str, policy: Option<&str>) -> Result<(String, Vec<u8>), String> {
        // A random number is a valid key but for one in 2^32.
        let secret =
            (0..8).find_map(|_| SigningKey::from_slice(&random::<32>()).ok()).ok_or("no randomness for a key")?;
        let public = secret.verifying_key().to_public_key_der().map_err(|e| e.to_string())?.as_bytes().to_vec();
        let arn = format!("arn:aws:kms:{}:{account}:key/{}", crate::REGION, uuid());
        let policy = policy.map(Policy::parse).transpose()?;
        let key = Key { account: account.to_owned(), secret, public: public.clone(), created_ms: now_ms(), policy };
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(arn.clone(), key);
        Ok((arn, public))
    }
}

fn find(world: &World, call: &Call) -> Outcome<(String, Key)> {
    let id = call.text("KeyId").unwrap_or_default();
    let own = format!("arn:aws:kms:{}:{}:key/{id}", crate::REGION, call.principal.account);
    let keys = world.kms.keys.lock().unwrap_or_else(PoisonError::into_inner);
    let arn = if id.starts_with("arn:") { id } else { own.as_str() };
    let Some(key) = keys.get(arn) else {
        // From outside an account, what is not there and what is not allowed look the same.
        if arn.split(':').nth(4).is_some_and(|account| account != call.principal.account) {
            authorise("", None, &call.principal, &format!("kms:{}", call.operation), arn)?;
        }
        return Err(AwsError::client("NotFoundException", format!("Key '{arn}' does not exist")));
    };
    authorise(&key.account, key.policy.as_ref(), &call.principal, &format!("kms:{}", call.operation), arn)?;
    Ok((arn.to_owned(), key.clone()))
}

/// The digest to sign: given as such, or of the message.
fn digest(call: &Call) -> Outcome<Vec<u8>> {
    let validation = |message: &str| AwsError::client("ValidationException", message);
    if call.text("SigningAlgorithm") != Some("ECDSA_SHA_256") {
        return Err(AwsError::client("InvalidKeyUsageException", "The key supports ECDSA_SHA_256 only."));
    }
    let message = call.text("Message").and_then(|m| BASE64.decode(m.as_bytes()).ok()).unwrap_or_default();
    match call.text("MessageType").unwrap_or("RAW") {
        "DIGEST" if message.len() == 32 => Ok(message),
        "DIGEST" => Err(validation("Digest is invalid length for algorithm ECDSA_SHA_256.")),
        "RAW" if (1..=4096).contains(&message.len()) => Ok(Sha256::digest(&message).to_vec()),
        _ => Err(validation("Message must be 1 to 4096 bytes, MessageType RAW or DIGEST.")),
    }
}

fn sign(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (arn, key) = find(world, call)?;
    let digest = digest(call)?;
    let signature: Signature =
        key.secret.sign_prehash(&digest).map_err(|e| AwsError::new(500, "KMSInternalException", e.to_string()))?;
    let signature = BASE64.encode(signature.to_der().as_bytes());
    Ok(Answer::Json(json!({"KeyId": arn, "Signature": signature, "SigningAlgorithm": "ECDSA_SHA_256"})))
}

fn verify(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (arn, key) = find(world, call)?;
    let digest = digest(call)?;
    let signature = call.text("Signature").and_then(|s| BASE64.decode(s.as_bytes()).ok()).unwrap_or_default();
    let valid =
        Signature::from_der(&signature).is_ok_and(|s| key.secret.verifying_key().verify_prehash(&digest, &s).is_ok());
    if !valid {
        return Err(AwsError::client("KMSInvalidSignatureException", "The signature does not verify."));
    }
    Ok(Answer::Json(json!({"KeyId": arn, "SignatureValid": true, "SigningAlgorithm": "ECDSA_SHA_256"})))
}

fn get_public_key(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (arn, key) = find(world, call)?;
    Ok(Answer::Json(json!({
        "KeyId": arn, "PublicKey": BASE64.encode(&key.public), "KeyUsage": "SIGN_VERIFY",
        "KeySpec": "ECC_NIST_P256", "CustomerMasterKeySpec": "ECC_NIST_P256", "SigningAlgorithms": ["ECDSA_SHA_256"],
    })))
}

fn metadata(arn: &str, account: &str, created_ms: u64) -> Value {
    json!({"KeyMetadata": {
        "KeyId": arn.rsplit('/').next(), "Arn": arn, "AWSAccountId": account, "CreationDate": epoch_seconds(created_ms),
        "Enabled": true, "KeyState": "Enabled", "KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256",
        "CustomerMasterKeySpec": "ECC_NIST_P256", "KeyManager": "CUSTOMER", "Origin": "AWS_KMS",
        "SigningAlgorithms": ["ECDSA_SHA_256"],
    }})
}

fn describe(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (arn, key) = find(world, call)?;
    Ok(Answer::Json(metadata(&arn, &key.account, key.created_ms)))
}

fn create(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (spec, usage) = (call.text("KeySpec"), call.text("KeyUsage"));
    if spec != Some("ECC_NIST_P256") || usage != Some("SIGN_VERIFY") {
        return Err(AwsError::client("UnsupportedOperationException", "Only ECC_NIST_P256 for SIGN_VERIFY is here."));
    }
    let made = world.kms.make(&call.principal.account, call.text("Policy"));
    let (arn, _) = made.map_err(|e| AwsError::client("MalformedPolicyDocumentException", e))?;
    Ok(Answer::Json(metadata(&arn, &call.principal.account, now_ms())))
}
