//! KMS: signs with an account's key and reads the public half of a key.

use std::sync::Arc;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{MessageType, SigningAlgorithmSpec};

use relay_protocol::keys::p256_with_low_s;
use relay_protocol::{Digest, Envelope, PublicKey, Signature};
use tokio::sync::OnceCell;

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
    pub async fn sign(&self, key: &str, digest: &Digest) -> Result<Vec<u8>, AwsError> {
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
        p256_with_low_s(&der)
            .ok_or_else(|| AwsError::new("kms:Sign", Kind::Invalid, format!("{key} is not a P-256 key")))
    }

    /// Reads the public half of a key.
    ///
    /// # Errors
    ///
    /// [`Kind::Unreachable`] if the response has no public key, [`Kind::Invalid`] if that is no
    /// SubjectPublicKeyInfo, or the error that the call returned.
    pub async fn public_key(&self, key: &str) -> Result<PublicKey, AwsError> {
        let output = self.client.get_public_key().key_id(key).send().await.map_err(from_sdk("kms:GetPublicKey"))?;
        let der = output
            .public_key
            .map(Blob::into_inner)
            .ok_or_else(|| AwsError::new("kms:GetPublicKey", Kind::Unreachable, "the response has no public key"))?;
        PublicKey::from_der(&der)
            .map_err(|error| AwsError::new("kms:GetPublicKey", Kind::Invalid, format!("{key}: {error}")))
    }
}

/// One KMS key that signs. Clones share what they know of it.
#[derive(Clone, Debug)]
pub struct SigningKey {
    keys: Keys,
    name: String,
    public: Arc<OnceCell<PublicKey>>,
}

impl SigningKey {
    /// The key with this id, ARN or alias. No call is made yet.
    pub fn new(sdk: &Sdk, name: impl Into<String>) -> Self {
        Self { keys: Keys::new(sdk), name: name.into(), public: Arc::default() }
    }

    /// Signs a digest, as [`Keys::sign`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Keys::sign`].
    pub async fn sign(&self, digest: &Digest) -> Result<Vec<u8>, AwsError> {
        self.keys.sign(&self.name, digest).await
    }

    /// Adds the key's signature to an envelope, with its key id as the hint. The public half is
    /// read once.
    ///
    /// # Errors
    ///
    /// Those of [`Keys::sign`] and [`Keys::public_key`].
    pub async fn sign_envelope(&self, envelope: Envelope) -> Result<Envelope, AwsError> {
        let sig = self.sign(&envelope.digest()).await?;
        let public = self.public.get_or_try_init(|| self.keys.public_key(&self.name)).await?;
        Ok(envelope.with_signature(Signature::new(public.key_id(), &sig)))
    }
}
