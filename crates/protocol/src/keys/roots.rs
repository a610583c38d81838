//! Trust roots: the signers that a target's configuration names, as data (clauses ENV-5, SIG-4,
//! SIG-7, CTL-2).

use std::collections::{BTreeMap, BTreeSet};

use super::issuer::{IssuerKeys, KeyName};
use super::public::{VerifyingKey, VerifyingKeyError};
use super::token::{Issuer, Token, TokenTimes};
use crate::encoding::Digest;
use crate::envelope::{Envelope, SignedBy, Statement, Verified, VerifyError};
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
    /// By an identity token whose only audience is the digest of the envelope (clause SIG-5).
    Token(TokenRule),
}

/// Which tokens belong to a signer (clause SIG-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRule {
    /// The issuer that the tokens come from.
    pub issuer: Issuer,
    /// The claims that a token must have, by their JSON pointer (RFC 6901), each with the values
    /// that are accepted.
    pub claims: BTreeMap<String, BTreeSet<String>>,
}

impl TokenRule {
    /// Whether these tags, made under the issuer's name, have every claim that the rule demands.
    fn fits(&self, tags: &BTreeMap<String, String>) -> bool {
        let fits = |(pointer, accepted): (&String, &BTreeSet<String>)| {
            tags.get(&format!("{}{pointer}", self.issuer.name)).is_some_and(|value| accepted.contains(value))
        };
        self.claims.iter().all(fits)
    }

    /// The key id of the entry `name`: SHA-256 of the issuer, a zero byte and the name (clause
    /// SIG-7).
    pub fn key_id(&self, name: &str) -> String {
        Digest::of(&[self.issuer.url.as_bytes(), &[0], name.as_bytes()].concat()).to_string()
    }
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

    fn known(
        &self,
        key_id: String,
        claims: BTreeMap<String, String>,
        token: Option<TokenFacts>,
    ) -> SignedBy<KnownSigner> {
        let known = KnownSigner {
            key_id: key_id.clone(),
            name: self.name.clone(),
            kind: self.kind.clone(),
            groups: self.groups.clone(),
            ci_accounts: self.ci_accounts.clone(),
            claims,
            token,
        };
        SignedBy { key_id, signer: known }
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

    /// Verifies an envelope against these signers, then parses it ([`Envelope::verify`]). Tokens
    /// are judged by `keys`; without any, no token is valid. The times of tokens are not judged
    /// here: [`KnownSigner::token`] has them (clause SIG-8).
    ///
    /// # Errors
    ///
    /// The same as for [`Envelope::verify`].
    pub fn verify<T: Statement>(
        &self,
        envelope: &Envelope,
        keys: &IssuerKeys,
    ) -> Result<Verified<T, KnownSigner>, VerifyError> {
        envelope.verify(|pae, signature| match signature.bytes() {
            Some(bytes) => self.by_key(pae, &bytes).into_iter().collect(),
            None => self.by_token(pae, &signature.sig, keys),
        })
    }

    /// The keys that the tokens on `envelope` name, as far as they are for this envelope and fit a
    /// signer (clause SIG-9). Nothing is verified: this says which keys to read before
    /// [`Self::verify`].
    pub fn key_names(&self, envelope: &Envelope) -> BTreeSet<KeyName> {
        let digest = envelope.digest();
        let tokens = envelope.signatures().iter().filter_map(|signature| Token::parse(&signature.sig).ok());
        tokens.filter(|token| self.fitting(token, digest).next().is_some()).map(|token| token.key_name()).collect()
    }

    /// Why the tokens on `envelope` are not valid, for a log. Keys' signatures have no reason.
    pub fn why_not(&self, envelope: &Envelope, keys: &IssuerKeys) -> Vec<String> {
        let digest = envelope.digest();
        let why = |text: &str| match Token::parse(text) {
            Err(error) => error.to_string(),
            Ok(token) if token.audience() != Token::audience_for(digest) => "a token for another envelope".to_owned(),
            Ok(token) => match self.fitting(&token, digest).next() {
                None => format!("a token of {} whose claims fit no signer", token.key_name().issuer),
                Some((_, rule)) if !token.is_from(&rule.issuer, keys) => {
                    let KeyName { issuer, kid } = token.key_name();
                    format!("a token of {issuer} whose key `{kid}` is not known, is revoked, or has not signed it")
                }
                Some(_) => "a valid token".to_owned(),
            },
        };
        let tokens = envelope.signatures().iter().filter(|signature| signature.bytes().is_none());
        tokens.map(|signature| crate::encoding::printable(&why(&signature.sig))).collect()
    }

    /// The entries that a token for this envelope fits. Its signature is not verified.
    fn fitting<'a>(
        &'a self,
        token: &'a Token,
        digest: Digest,
    ) -> impl Iterator<Item = (&'a TrustedSigner, &'a TokenRule)> {
        let is_for_it = token.audience() == Token::audience_for(digest);
        self.rules().filter(move |(_, rule)| {
            is_for_it && token.key_name().issuer == rule.issuer.url && rule.fits(&token.tags(&rule.issuer.name))
        })
    }

    fn rules(&self) -> impl Iterator<Item = (&TrustedSigner, &TokenRule)> {
        self.signers.iter().filter_map(|signer| match &signer.proof {
            Proof::Token(rule) => Some((signer, rule)),
            Proof::Key { .. } => None,
        })
    }

    /// Tries every key: the key id is only a hint, and a wrong hint may cost nothing but time
    /// (clause ENV-6). With at most eight signatures and a handful of signers, that time is
    /// microseconds.
    fn by_key(&self, pae: &[u8], signature: &[u8]) -> Option<SignedBy<KnownSigner>> {
        self.signers.iter().find_map(|signer| match &signer.proof {
            Proof::Key { public, verifying } if verifying.verify(pae, signature) => {
                Some(signer.known(public.key_id(), BTreeMap::new(), None))
            }
            Proof::Key { .. } | Proof::Token(_) => None,
        })
    }

    /// Every entry that a token fits is a signer of its own (clause SIG-7).
    fn by_token(&self, pae: &[u8], text: &str, keys: &IssuerKeys) -> Vec<SignedBy<KnownSigner>> {
        let Ok(token) = Token::parse(text) else { return Vec::new() };
        let fitting: Vec<_> = self.fitting(&token, Digest::of(pae)).collect();
        // All of them name one issuer, because a configuration has one entry for a URL.
        if !fitting.first().is_some_and(|(_, rule)| token.is_from(&rule.issuer, keys)) {
            return Vec::new();
        }
        let persons = fitting.iter().filter_map(|(signer, _)| signer.kind.person().map(str::to_owned)).collect();
        let facts = TokenFacts { times: token.times(), persons };
        let known = |(signer, rule): (&TrustedSigner, &TokenRule)| {
            signer.known(rule.key_id(&signer.name), token.tags(&rule.issuer.name), Some(facts.clone()))
        };
        fitting.into_iter().map(known).collect()
    }
}

/// The facts of a verified token that served as a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFacts {
    /// When the token was made and is valid.
    pub times: TokenTimes,
    /// The persons of all entries that the token fits.
    pub persons: BTreeSet<SignerName>,
}

/// A trusted signer whose signature is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSigner {
    /// The SHA-256 of the public key in hex, or [`TokenRule::key_id`].
    pub key_id: String,
    /// The name in the signer's entry.
    pub name: SignerName,
    /// Whom the signer's entry stands for.
    pub kind: SignerKind,
    /// The groups in the signer's entry.
    pub groups: BTreeSet<String>,
    /// The CI accounts in the signer's entry.
    pub ci_accounts: Vec<AccountId>,
    /// The claims of the token as tags ([`Token::tags`]); empty for a key.
    pub claims: BTreeMap<String, String>,
    /// The token, if the signature is one. Its times are not judged yet.
    pub token: Option<TokenFacts>,
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
