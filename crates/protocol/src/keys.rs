//! Keys and tokens: who signed, and how that is shown (clauses SIG-1 to SIG-9).
//!
//! Verification is pure: [`TrustRoots`] are data and identify the signer of a signature, and the
//! keys of token issuers are an argument. Signing with a key in memory is here too; signing with
//! KMS, and asking for a token, is left to an adapter.

mod issuer;
mod private;
mod public;
mod roots;
mod token;

pub use issuer::{
    Algorithm, BadJwk, Discovery, IssuerKey, IssuerKeys, Jwk, JwksError, KeyName, UnknownAlgorithm, read_jwks,
};
pub use private::{PrivateKey, PrivateKeyError};
pub use public::{Cached, Verifier, VerifyingKey, VerifyingKeyError, p256_with_low_s};
pub use roots::{
    KnownSigner, Proof, SignerKind, SignerName, SingleKey, TokenFacts, TokenRule, TrustRoots, TrustedSigner,
};
pub use token::{Issuer, Token, TokenError, TokenTimeError, TokenTimes, pointer};
