//! KMS with real P-256 signing keys. As in AWS, signatures are not normalised to low-s.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::call::Call;
use super::contract::{Effect, Reaction, Table};
use super::principal::REGION;
use super::resource_policy::{Policy, authorise};
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::{epoch_seconds, random, uuid};

pub(crate) const OPERATIONS: Table<Kms> =
    &[("Sign", Kms::sign), ("GetPublicKey", Kms::get_public_key), ("CreateKey", Kms::create)];

#[derive(Debug, Default)]
pub(crate) struct Kms {
    /// By ARN.
    keys: BTreeMap<String, Key>,
}

struct Key {
    account: String,
    secret: SigningKey,
    /// SubjectPublicKeyInfo in DER.
    public: Vec<u8>,
    policy: Option<Policy>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Kms {
    /// Makes a key: its ARN and its public key as SubjectPublicKeyInfo in DER.
    pub(crate) fn make(&mut self, account: &str, policy: Option<&str>) -> Result<(String, Vec<u8>), String> {
        // About one random number in 2^32 is not a valid key, so try several.
        let secret =
            (0..8).find_map(|_| SigningKey::from_slice(&random::<32>()).ok()).ok_or("no randomness for a key")?;
        let public = secret.verifying_key().to_public_key_der().map_err(|error| error.to_string())?;
        let public = public.as_bytes().to_vec();
        let arn = format!("arn:aws:kms:{REGION}:{account}:key/{}", uuid());
        let policy = policy.map(Policy::parse).transpose()?;
        let key = Key { account: account.to_owned(), secret, public: public.clone(), policy };
        self.keys.insert(arn.clone(), key);
        Ok((arn, public))
    }

    /// Finds the key that a call names, and checks that the caller may use it for this operation.
    fn find(&self, call: &Call) -> Outcome<(String, &Key)> {
        let id = call.params.text_or_empty("KeyId");
        let own = format!("arn:aws:kms:{REGION}:{}:key/{id}", call.principal.account);
        let arn = if id.starts_with("arn:") { id } else { own.as_str() };
        let action = format!("kms:{}", call.operation);
        let Some(key) = self.keys.get(arn) else {
            // A caller from another account cannot tell a missing key from a forbidden one.
            if arn.split(':').nth(4).is_some_and(|account| account != call.principal.account) {
                authorise("", None, &call.principal, &action, arn)?;
            }
            return Err(AwsError::client("NotFoundException", format!("Key '{arn}' does not exist")));
        };
        authorise(&key.account, key.policy.as_ref(), &call.principal, &action, arn)?;
        Ok((arn.to_owned(), key))
    }

    fn sign(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (arn, key) = self.find(call)?;
        let internal = |error: p256::ecdsa::Error| AwsError::new(500, "KMSInternalException", error.to_string());
        let signature: Signature = key.secret.sign_prehash(&digest(call)?).map_err(internal)?;
        let signature = BASE64.encode(signature.to_der().as_bytes());
        let answer = json!({"KeyId": arn, "Signature": signature, "SigningAlgorithm": "ECDSA_SHA_256"});
        Ok(Answer::Json(answer).into())
    }

    fn get_public_key(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (arn, key) = self.find(call)?;
        Ok(Answer::Json(json!({
            "KeyId": arn, "PublicKey": BASE64.encode(&key.public), "KeyUsage": "SIGN_VERIFY",
            "KeySpec": "ECC_NIST_P256", "CustomerMasterKeySpec": "ECC_NIST_P256",
            "SigningAlgorithms": ["ECDSA_SHA_256"],
        }))
        .into())
    }

    fn create(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (spec, usage) = (call.text("KeySpec"), call.text("KeyUsage"));
        if spec != Some("ECC_NIST_P256") || usage != Some("SIGN_VERIFY") {
            let message = "The sandbox supports only ECC_NIST_P256 keys for SIGN_VERIFY.";
            return Err(AwsError::client("UnsupportedOperationException", message));
        }
        let account = &call.principal.account;
        let made = self.make(account, call.text("Policy"));
        let (arn, _) = made.map_err(|error| AwsError::client("MalformedPolicyDocumentException", error))?;
        Ok(Answer::Json(json!({"KeyMetadata": {
            "KeyId": arn.rsplit('/').next(), "Arn": arn, "AWSAccountId": account,
            "CreationDate": epoch_seconds(call.now.ms), "Enabled": true, "KeyState": "Enabled",
            "KeyUsage": "SIGN_VERIFY", "KeySpec": "ECC_NIST_P256", "CustomerMasterKeySpec": "ECC_NIST_P256",
            "KeyManager": "CUSTOMER", "Origin": "AWS_KMS", "SigningAlgorithms": ["ECDSA_SHA_256"],
        }}))
        .into())
    }
}

/// The digest to sign: the one in the call, or that of the message in the call.
fn digest(call: &Call) -> Outcome<Vec<u8>> {
    let validation = |message: &str| AwsError::client("ValidationException", message);
    if call.text("SigningAlgorithm") != Some("ECDSA_SHA_256") {
        return Err(AwsError::client("InvalidKeyUsageException", "The key supports ECDSA_SHA_256 only."));
    }
    let message = call.text("Message").and_then(|text| BASE64.decode(text.as_bytes()).ok()).unwrap_or_default();
    match call.text("MessageType").unwrap_or("RAW") {
        "DIGEST" if message.len() == 32 => Ok(message),
        "DIGEST" => Err(validation("Digest is invalid length for algorithm ECDSA_SHA_256.")),
        "RAW" if (1..=4096).contains(&message.len()) => Ok(Sha256::digest(&message).to_vec()),
        _ => Err(validation("Message must be 1 to 4096 bytes, MessageType RAW or DIGEST.")),
    }
}
