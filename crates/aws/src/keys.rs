//! KMS: sign with an account's key, and read its public half.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};

use relay_protocol::Digest;
use relay_protocol::keys::p256_signature_from_der;

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// KMS.
#[derive(Clone, Debug)]
pub struct Keys {
    client: aws_sdk_kms::Client,
}

impl Keys {
    /// From a set-up.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_kms::Client::new(&sdk.config) }
    }

    /// The signature of a P-256 key over a SHA-256 digest, as it travels (clause SIG-3). With the digest instead of the text there is no limit of
    /// 4,096 bytes. A key of another kind is [`Kind::Invalid`].
    pub async fn sign(&self, key: &str, digest: &Digest) -> Result<[u8; 64], AwsError> {
        let call = self
            .client
            .sign()
            .key_id(key)
            .message(Blob::new(digest.as_bytes().as_slice()))
            .message_type(MessageType::Digest)
            .signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        let output = call.send().await.map_err(from_sdk("kms:Sign"))?;
        let der = output
            .signature
            .map(Blob::into_inner)
            .ok_or_else(|| AwsError::new("kms:Sign", Kind::Unreachable, "the answer has no signature"))?;
        p256_signature_from_der(&der)
            .ok_or_else(|| AwsError::new("kms:Sign", Kind::Invalid, format!("{key} is not a P-256 key")))
    }

    /// The SubjectPublicKeyInfo of a key.
    pub async fn public_key(&self, key: &str) -> Result<Vec<u8>, AwsError> {
        let output = self.client.get_public_key().key_id(key).send().await.map_err(from_sdk("kms:GetPublicKey"))?;
        output
            .public_key
            .map(Blob::into_inner)
            .ok_or_else(|| AwsError::new("kms:GetPublicKey", Kind::Unreachable, "the answer has no key"))
    }
}
