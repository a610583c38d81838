//! KMS: signs with an account's key and reads the public half of a key.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};

use relay_protocol::Digest;
use relay_protocol::keys::p256_signature_from_der;

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// A client of KMS.
#[derive(Clone, Debug)]
pub struct Keys {
    client: aws_sdk_kms::Client,
}

impl Keys {
    /// Creates the client from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_kms::Client::new(&sdk.config) }
    }

    /// Signs a SHA-256 digest with the P-256 key `key`, and returns the signature in the form that
    /// envelopes carry (clause SIG-3). KMS accepts messages of at most 4,096 bytes; passing the
    /// digest avoids this limit.
    ///
    /// # Errors
    ///
    /// [`Kind::Invalid`] if `key` is not a P-256 key, [`Kind::Unreachable`] if the response has no
    /// signature, or the error that the call returned.
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
            .ok_or_else(|| AwsError::new("kms:Sign", Kind::Unreachable, "the response has no signature"))?;
        p256_signature_from_der(&der)
            .ok_or_else(|| AwsError::new("kms:Sign", Kind::Invalid, format!("{key} is not a P-256 key")))
    }

    /// Reads the public half of a key, as a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    ///
    /// [`Kind::Unreachable`] if the response has no public key, or the error that the call
    /// returned.
    pub async fn public_key(&self, key: &str) -> Result<Vec<u8>, AwsError> {
        let output = self.client.get_public_key().key_id(key).send().await.map_err(from_sdk("kms:GetPublicKey"))?;
        output
            .public_key
            .map(Blob::into_inner)
            .ok_or_else(|| AwsError::new("kms:GetPublicKey", Kind::Unreachable, "the response has no public key"))
    }
}
