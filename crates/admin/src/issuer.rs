//! `issuer list` and `issuer revoke`: the keys of token issuers in a target's relay bucket, with
//! the platform role's credentials (clause SIG-9).

use std::io::Write;

use relay_aws::clock::now;
use relay_aws::objects::{Condition, Objects};
use relay_aws::{Sdk, issuer_keys};
use relay_console::Failure;
use relay_protocol::encoding::printable;
use relay_protocol::keys::IssuerKey;
use relay_protocol::outcome::ExitCode;

use crate::{cli, target};

/// Runs the command. Returns 1 if there is no such key.
pub(crate) async fn issuer(arguments: &cli::Issuer, out: &mut impl Write) -> Result<u8, Failure> {
    let (cli::Issuer::List { file } | cli::Issuer::Revoke { file, .. }) = arguments;
    let (_, configuration) = target::load(file)?;
    let objects = Objects::new(&Sdk::from_environment(Some(configuration.topic.region())).await);
    let bucket = &configuration.bucket;
    let stored = issuer_keys::all(&objects, bucket, "jwks/").await;
    let stored = stored.map_err(|error| Failure::aws(&format!("reading s3://{bucket}/jwks/"), &error))?;
    let keys = stored.into_iter().filter_map(|stored| Some((stored.name, stored.etag, stored.key.ok()?)));
    match arguments {
        cli::Issuer::List { .. } => {
            for (_, _, key) in keys {
                writeln!(out, "{}  {}  {}", printable(&key.issuer), printable(&key.kid), words(&key))?;
            }
            Ok(0)
        }
        cli::Issuer::Revoke { issuer, kid, .. } => {
            let mut keys = keys;
            let Some((name, etag, key)) = keys.find(|(_, _, key)| key.issuer == *issuer && key.kid == *kid) else {
                writeln!(out, "{} has no key `{}` of {}", bucket, printable(kid), printable(issuer))?;
                return Ok(ExitCode::No.code());
            };
            let revoked = IssuerKey { revoked: true, ..key }.to_json();
            // Only the content that was looked at is replaced: the function may write meanwhile.
            let written = objects.put(bucket, &name, revoked, Condition::Matches(&etag)).await;
            written.map_err(|error| {
                Failure::aws(&format!("writing s3://{}/{name}", bucket), &error)
                    .hint("if the function relay-jwks has written it at the same moment, try again")
            })?;
            writeln!(out, "revoked the key `{}` of {}", printable(kid), printable(issuer))?;
            Ok(0)
        }
    }
}

fn words(key: &IssuerKey) -> String {
    match (key.revoked, key.gone_at) {
        (true, _) => "revoked".to_owned(),
        (false, _) if !key.is_usable(now()) => format!("not used any longer, last seen {}", key.seen_at),
        (false, Some(gone)) => format!("gone since {gone}; tokens from before are accepted"),
        (false, None) => format!("in use, last seen {}", key.seen_at),
    }
}
