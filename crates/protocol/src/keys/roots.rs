//! Trust roots: the signers that a target's configuration names, as data (clauses ENV-5, SIG-4,
//! CTL-2).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::public::{VerifyingKey, VerifyingKeyError};
use crate::envelope::{Envelope, Signature, SignedBy, Statement, Verified, VerifyError};
use crate::names::{AccountId, PublicKey};

/// The name of a signer or of a person in a configuration, for people and for policies.
pub type SignerName = String;

/// One entry of a target's `[[signers]]`.
#[derive(Clone, Debug)]
pub struct TrustedSigner {
    /// How a signature is shown to be this signer's.
    pub proof: Proof,
    /// The signer's name for people, logs and records.
    pub name: SignerName,
    /// Whom the entry stands for.
    pub kind: SignerKind,
    /// The groups that policies refer to.
    pub groups: BTreeSet<String>,
    /// The accounts that may own the signer's queues.
    pub ci_accounts: Vec<AccountId>,
}

/// Whom an entry of `[[signers]]` stands for. It says to whom a credential is issued, not who
/// types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignerKind {
    /// A CI system.
    Ci,
    /// A program that acts by itself, such as a bot.
    Agent,
    /// The person of this name. Several signers may be one person; approvals count persons (clause
    /// APP-4).
    Person(SignerName),
}

impl SignerKind {
    /// The kind as configurations and policies write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ci => "ci",
            Self::Agent => "agent",
            Self::Person(_) => "person",
        }
    }

    /// The name of the person, if it is one.
    pub fn person(&self) -> Option<&str> {
        match self {
            Self::Person(name) => Some(name),
            Self::Ci | Self::Agent => None,
        }
    }
}

/// How a signature is shown to be a signer's.
#[derive(Clone, Debug)]
pub enum Proof {
    /// By a public key.
    Key {
        /// The key as written in the configuration.
        public: PublicKey,
        /// The key as a curve point, ready to verify with.
        verifying: VerifyingKey,
    },
    /// By an identity token that commits to the request digest. Reserved: no token is accepted yet
    /// (clause SIG-5).
    Token(TokenRule),
}

/// Which tokens belong to a signer. Reserved: it is parsed and checked for its form, but no token
/// matches yet (clause SIG-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRule {
    /// The numeric id of the repository, which does not change when the repository is renamed.
    pub repository_id: String,
    /// The numeric id of the repository's owner.
    pub repository_owner_id: String,
    /// The environment that the job runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The reusable workflow that the job runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_workflow_ref: Option<String>,
}

impl TrustedSigner {
    /// The proof for a signer with a public key.
    ///
    /// # Errors
    ///
    /// If `public` is not a key of a supported kind.
    pub fn by_key(public: PublicKey) -> Result<Proof, VerifyingKeyError> {
        let verifying = VerifyingKey::from_spki(&public)?;
        Ok(Proof::Key { public, verifying })
    }
}

/// All signers that a target trusts.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    signers: Vec<TrustedSigner>,
}

impl TrustRoots {
    /// The trust roots made of these signers.
    pub fn new(signers: Vec<TrustedSigner>) -> Self {
        Self { signers }
    }

    /// The signers, in the order of the configuration.
    pub fn signers(&self) -> &[TrustedSigner] {
        &self.signers
    }

    /// Verifies an envelope against these signers, then parses it ([`Envelope::verify`]).
    ///
    /// # Errors
    ///
    /// The same as for [`Envelope::verify`].
    pub fn verify<T: Statement>(&self, envelope: &Envelope) -> Result<Verified<T, KnownSigner>, VerifyError> {
        envelope.verify(|pae, signature| self.signed_by(pae, signature))
    }

    /// Tries every key: the key id is only a hint, and a wrong hint may cost nothing but time
    /// (clause ENV-6). With at most eight signatures and a handful of signers, that time is
    /// microseconds.
    fn signed_by(&self, pae: &[u8], signature: &Signature) -> Option<SignedBy<KnownSigner>> {
        let bytes = signature.bytes()?;
        self.signers.iter().find_map(|signer| match &signer.proof {
            Proof::Key { public, verifying } if verifying.verify(pae, &bytes) => {
                let key_id = public.key_id();
                let known = KnownSigner {
                    key_id: key_id.clone(),
                    name: signer.name.clone(),
                    kind: signer.kind.clone(),
                    groups: signer.groups.clone(),
                    ci_accounts: signer.ci_accounts.clone(),
                };
                Some(SignedBy { key_id, signer: known })
            }
            Proof::Key { .. } | Proof::Token(_) => None,
        })
    }
}

/// A trusted signer whose signature is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSigner {
    /// The SHA-256 of the public key in hex.
    pub key_id: String,
    /// The name in the signer's entry.
    pub name: SignerName,
    /// Whom the signer's entry stands for.
    pub kind: SignerKind,
    /// The groups in the signer's entry.
    pub groups: BTreeSet<String>,
    /// The CI accounts in the signer's entry.
    pub ci_accounts: Vec<AccountId>,
}

/// A single key as its own trust root: the target key for vouches and records, the runner key for
/// frames, the session key for control statements.
///
/// ```
/// use relay_protocol::keys::{PrivateKey, SingleKey};
/// use relay_protocol::{Cancel, Control, DeploymentId, Digest, Envelope, Statement, Timestamp};
///
/// let control = Control {
///     deployment_id: DeploymentId::new(1_790_000_000_000, [7; 10]),
///     request_digest: Digest::of(b"the request"),
///     issued_at: Timestamp::from_unix(1_790_000_000),
///     cancel: Cancel::Requested,
/// };
/// let key = PrivateKey::from_seed([7; 32]);
/// let envelope = key.sign_envelope(Envelope::new(Control::TYPE, control.to_payload()));
/// let verified = SingleKey::new(key.public())?.verify::<Control>(&envelope)?;
/// assert_eq!(verified.statement(), &control);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct SingleKey {
    key_id: String,
    verifying: VerifyingKey,
}

impl SingleKey {
    /// A trust root for `public`.
    ///
    /// # Errors
    ///
    /// If `public` is not a key of a supported kind.
    pub fn new(public: &PublicKey) -> Result<Self, VerifyingKeyError> {
        Ok(Self { key_id: public.key_id(), verifying: VerifyingKey::from_spki(public)? })
    }

    /// Verifies an envelope against this key, then parses it ([`Envelope::verify`]).
    ///
    /// # Errors
    ///
    /// The same as for [`Envelope::verify`].
    pub fn verify<T: Statement>(&self, envelope: &Envelope) -> Result<Verified<T, ()>, VerifyError> {
        envelope.verify(|pae, signature| {
            let valid = self.verifying.verify(pae, &signature.bytes()?);
            valid.then(|| SignedBy { key_id: self.key_id.clone(), signer: () })
        })
    }

    /// Whether `sig`, in the form that a frame carries (standard base64), is this key's signature
    /// over `pae` (clause FRM-4).
    pub fn verify_detached(&self, pae: &[u8], sig: &str) -> bool {
        crate::encoding::from_base64(sig).is_ok_and(|bytes| self.verifying.verify(pae, &bytes))
    }
}
