//! `relay keygen`: generates an Ed25519 signing key.

use std::io::Write as _;

use relay_console::Failure;
use relay_protocol::keys::PrivateKey;
use relay_protocol::outcome::ExitCode;

use crate::args;

/// Writes the private half to a new file that only its owner can read, and prints what to do with
/// the public half.
pub(crate) fn keygen(arguments: &args::Keygen) -> Result<u8, Failure> {
    let fault =
        |error: &dyn std::fmt::Display| Failure::new(ExitCode::Fault, format!("{}: {error}", arguments.out.display()));
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(|error| fault(&error))?;
    let key = PrivateKey::from_seed(seed);
    let mut file = relay_platform::create_private(&arguments.out).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::usage(format!("{} already exists", arguments.out.display()))
                .hint("relay never overwrites a key: choose another name with --out")
        } else {
            fault(&error)
        }
    })?;
    file.write_all(key.to_pem().as_bytes()).map_err(|error| fault(&error))?;
    let text = format!(
        "private key: {} (give it to CI as a secret: RELAY_SIGNING_KEY)\nkey id:      {}\n\n# for the target's configuration:\n[[signers]]\nname = \"ci\"\nkey = \"{}\"\ngroups = [\"ci\"]\nci_accounts = [\"<the CI account's id>\"]\n",
        arguments.out.display(),
        key.public().key_id(),
        key.public()
    );
    std::io::stdout().write_all(relay_console::harmless(&text).as_bytes()).map_err(|error| fault(&error))?;
    Ok(0)
}
