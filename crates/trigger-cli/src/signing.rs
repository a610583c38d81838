//! Signs requests with a key that this process holds, with one that never leaves KMS, or with the
//! job's own identity token.

use relay_aws::keys::Keys;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_protocol::keys::PrivateKey;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{Envelope, PublicKey, Region, Signature};

use crate::token::TokenSource;

/// The means by which the caller signs.
#[derive(Debug)]
pub(crate) enum Signer {
    /// A key from a PEM.
    Held(PrivateKey),
    /// A P-256 key in KMS.
    Kms(KmsKey),
    /// No key: the job's identity token is the signature.
    Token(TokenSource),
}

/// A KMS key by its ARN, which names the region to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KmsKey {
    arn: String,
    region: Region,
}

impl KmsKey {
    /// Parses `arn:<partition>:kms:<region>:<account>:key/<id>`, or an alias in place of the key.
    /// Returns `None` if the text is not a KMS ARN.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        match parts.as_slice() {
            ["arn", _, "kms", region, _, key] if key.starts_with("key/") || key.starts_with("alias/") => {
                Some(Self { arn: text.to_owned(), region: region.parse().ok()? })
            }
            _ => None,
        }
    }

    async fn keys(&self) -> Keys {
        Keys::new(&Sdk::from_environment(Some(&self.region)).await)
    }

    /// Fetches the public half, which targets list among their signers.
    pub(crate) async fn public(&self) -> Result<PublicKey, Failure> {
        let public = self.keys().await.public_key(&self.arn).await;
        public.map_err(|error| Failure::aws(&format!("reading the public half of {}", self.arn), &error))
    }
}

impl Signer {
    /// The name under which an approval by this signer is stored: the key id, so that a key
    /// approves once; for a token the approval's digest, because one role can be several persons.
    pub(crate) async fn name_of(&self, approval: &Envelope) -> Result<String, Failure> {
        match self {
            Self::Held(key) => Ok(key.public().key_id()),
            Self::Kms(key) => Ok(key.public().await?.key_id()),
            Self::Token(_) => Ok(approval.digest().to_string()),
        }
    }

    /// Signs an envelope.
    pub(crate) async fn sign(&self, envelope: Envelope) -> Result<Envelope, Failure> {
        let key = match self {
            Self::Held(key) => return Ok(key.sign_envelope(envelope)),
            Self::Kms(key) => key,
            Self::Token(source) => {
                let sig = source.token(envelope.digest()).await?;
                return Ok(envelope.with_signature(Signature { keyid: String::new(), sig }));
            }
        };
        let signature =
            key.keys().await.sign(&key.arn, &envelope.digest()).await.map_err(|error| match error.kind {
                Kind::Invalid => Failure::new(ExitCode::Usage, error.to_string())
                    .hint("create a KMS key with the key spec ECC_NIST_P256 and the key usage SIGN_VERIFY"),
                _ => Failure::aws(&format!("signing the request with {}", key.arn), &error),
            })?;
        // The key id is a hint that no reader needs (clause ENV-6), and asking KMS for it would
        // cost one more call.
        Ok(envelope.with_signature(Signature::new(String::new(), &signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_says_where_to_ask() {
        let key = KmsKey::parse("arn:aws:kms:eu-west-1:111111111111:key/6f1f").unwrap();
        assert_eq!(key.region.to_string(), "eu-west-1");
        assert!(KmsKey::parse("arn:aws:kms:eu-west-1:111111111111:alias/relay-ci").is_some());
        for other in ["ci-key.pem", "arn:aws:sns:eu-west-1:111111111111:relay", "arn:aws:kms:!:1:key/x", "-----BEGIN"] {
            assert_eq!(KmsKey::parse(other), None, "{other}");
        }
    }
}
