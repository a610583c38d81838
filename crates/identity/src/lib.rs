//! Who signed: keys, signatures, trust roots, signers and persons.
//!
//! Verification is pure: a [`TrustRoots`] is data, and [`relay_protocol::Verifier`] over it says whose a signature is. Signing with a key
//! in memory is here too; signing with KMS is an adapter's work. Tokens (keyless) are a reserved variant: they are parsed as what they
//! are and never accepted yet.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod private;
mod public;
mod roots;

pub use private::{PrivateKey, PrivateKeyError};
pub use public::{FrameKeys, VerifyingKey, VerifyingKeyError, p256_signature_from_der};
pub use roots::{KnownSigner, Proof, SessionKey, SignerName, SingleKey, TokenRule, TrustRoots, TrustedSigner};
