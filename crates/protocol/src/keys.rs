//! Keys: who signed, and with which key (clauses SIG-1 to SIG-5).
//!
//! Verification is pure: [`TrustRoots`] are data and identify the signer of a signature. Signing
//! with a key in memory is here too; signing with KMS is left to an adapter. Keyless tokens are a
//! reserved variant: their rules are parsed, but no token is accepted yet.

mod private;
mod public;
mod roots;

pub use private::{PrivateKey, PrivateKeyError};
pub use public::{Cached, Verifier, VerifyingKey, VerifyingKeyError, p256_with_low_s};
pub use roots::{KnownSigner, Proof, SignerKind, SignerName, SingleKey, TokenRule, TrustRoots, TrustedSigner};
