//! Keys: who signed, by which key (clauses SIG-1 to SIG-5).
//!
//! Verification is pure: [`TrustRoots`] are data, and say whose a signature is. Signing with a key in memory is
//! here too; signing with KMS is an adapter's work. Tokens (keyless) are a reserved variant: they are parsed as
//! what they are and never accepted yet.

mod private;
mod public;
mod roots;

pub use private::{PrivateKey, PrivateKeyError};
pub use public::{Cached, Verifier, VerifyingKey, VerifyingKeyError, p256_signature_from_der};
pub use roots::{KnownSigner, Proof, SignerName, SingleKey, TokenRule, TrustRoots, TrustedSigner};
