//! Trust roots: the signers that a target's configuration names, as data (clauses ENV-5, SIG-4, CTL-2).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::public::{VerifyingKey, VerifyingKeyError};
use crate::envelope::{Envelope, Signature, SignedBy, Statement, Verified, VerifyError};
use crate::names::{AccountId, PublicKey};

/// A signer's or person's name in a configuration: for people and for policies.
pub type SignerName = String;

/// One entry of a target's `[[signers]]`.
#[derive(Clone, Debug)]
pub struct TrustedSigner {
    /// How it is proved that a signature is theirs.
    pub proof: Proof,
    /// For people, logs and records.
    pub name: SignerName,
    /// Several signers may be one person; approvals count persons.
    pub person: SignerName,
    /// The groups that policies speak of.
    pub groups: BTreeSet<String>,
    /// The accounts in which their queues may lie.
    pub ci_accounts: Vec<AccountId>,
}

/// How it is proved that a signature is a signer's.
#[derive(Clone, Debug)]
pub enum Proof {
    /// By a public key.
    Key {
        /// The key as it stands in the configuration.
        public: PublicKey,
        /// The key as a point.
        verifying: VerifyingKey,
    },
    /// By an identity token that commits to the request digest. Reserved: no token is accepted yet (clause SIG-5).
    Token(TokenRule),
}

/// Which tokens are a signer's. Reserved: read and checked in form, never matched yet (clause SIG-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRule {
    /// The repository's number, which a rename does not change.
    pub repository_id: String,
    /// Its owner's number.
    pub repository_owner_id: String,
    /// The environment that the job runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The reusable workflow that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_workflow_ref: Option<String>,
}

impl TrustedSigner {
    /// A signer by a public key.
    pub fn by_key(public: PublicKey) -> Result<Proof, VerifyingKeyError> {
        let verifying = VerifyingKey::from_spki(&public)?;
        Ok(Proof::Key { public, verifying })
    }
}

/// All signers whom a target trusts.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    signers: Vec<TrustedSigner>,
}

impl TrustRoots {
    /// Roots of these signers.
    pub fn new(signers: Vec<TrustedSigner>) -> Self {
        Self { signers }
    }

    /// The signers, in the configuration's order.
    pub fn signers(&self) -> &[TrustedSigner] {
        &self.signers
    }

    /// Verifies an envelope by these signers, then parses it ([`Envelope::verify`]).
    pub fn verify<T: Statement>(&self, envelope: &Envelope) -> Result<Verified<T, KnownSigner>, VerifyError> {
        envelope.verify(|pae, signature| self.signed_by(pae, signature))
    }

    /// Tries every key: the key id is a hint, and a hint that lies must cost nothing but time (clause ENV-6). With at most
    /// eight signatures and a handful of signers, the time is microseconds.
    fn signed_by(&self, pae: &[u8], signature: &Signature) -> Option<SignedBy<KnownSigner>> {
        let bytes = signature.bytes()?;
        self.signers.iter().find_map(|signer| match &signer.proof {
            Proof::Key { public, verifying } if verifying.verify(pae, &bytes) => {
                let key_id = public.key_id();
                let known = KnownSigner {
                    key_id: key_id.clone(),
                    name: signer.name.clone(),
                    person: signer.person.clone(),
                    groups: signer.groups.clone(),
                    ci_accounts: signer.ci_accounts.clone(),
                };
                Some(SignedBy { key_id, signer: known })
            }
            Proof::Key { .. } | Proof::Token(_) => None,
        })
    }
}

/// Somebody whose signature is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSigner {
    /// Hex SHA-256 of the key.
    pub key_id: String,
    /// The entry's name.
    pub name: SignerName,
    /// The entry's person.
    pub person: SignerName,
    /// The entry's groups.
    pub groups: BTreeSet<String>,
    /// The entry's accounts.
    pub ci_accounts: Vec<AccountId>,
}

/// A single key as its own trust root: the target key for vouches and records, the runner key for frames, the session key for controls.
#[derive(Clone, Debug)]
pub struct SingleKey {
    key_id: String,
    verifying: VerifyingKey,
}

impl SingleKey {
    /// Reads the key.
    pub fn new(public: &PublicKey) -> Result<Self, VerifyingKeyError> {
        Ok(Self { key_id: public.key_id(), verifying: VerifyingKey::from_spki(public)? })
    }

    /// Verifies an envelope by this key, then parses it ([`Envelope::verify`]).
    pub fn verify<T: Statement>(&self, envelope: &Envelope) -> Result<Verified<T, ()>, VerifyError> {
        envelope.verify(|pae, signature| {
            let valid = self.verifying.verify(pae, &signature.bytes()?);
            valid.then(|| SignedBy { key_id: self.key_id.clone(), signer: () })
        })
    }

    /// Whether `sig`, as a frame bears it (standard base64 of 64 bytes), is this key's over `pae` (clause FRM-4).
    pub fn verify_detached(&self, pae: &[u8], sig: &str) -> bool {
        crate::encoding::from_base64(sig)
            .ok()
            .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
            .is_some_and(|bytes| self.verifying.verify(pae, &bytes))
    }
}
