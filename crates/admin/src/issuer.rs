//! `issuer list` and `issuer revoke`: the keys of token issuers in a target's relay bucket, with
//! the platform role's credentials (clause SIG-9).

use std::io::Write;

use relay_aws::Sdk;
use relay_aws::clock::now;
use relay_aws::objects::{Condition, Object, Objects};
use relay_console::Failure;
use relay_policy::Configuration;
use relay_protocol::encoding::printable;
use relay_protocol::keys::IssuerKey;
use relay_protocol::limits::ISSUER_KEY_MAX;
use relay_protocol::outcome::ExitCode;

use crate::{cli, target};

/// Runs the command. Returns 1 if there is no such key.
pub(crate) async fn issuer(arguments: &cli::Issuer, out: &mut impl Write) -> Result<u8, Failure> {
    let (cli::Issuer::List { file } | cli::Issuer::Revoke { file, .. }) = arguments;
    let (_, configuration) = target::load(file)?;
    let objects = Objects::new(&Sdk::from_environment(Some(configuration.topic.region())).await);
    let keys = keys(&objects, &configuration).await?;
    match arguments {
        cli::Issuer::List { .. } => {
            for (_, _, key) in &keys {
                writeln!(out, "{}  {}  {}", printable(&key.issuer), printable(&key.kid), words(key))?;
            }
            Ok(0)
        }
        cli::Issuer::Revoke { issuer, kid, .. } => {
            let Some((name, object, key)) =
                keys.into_iter().find(|(_, _, key)| key.issuer == *issuer && key.kid == *kid)
            else {
                writeln!(out, "{} has no key `{}` of {}", configuration.bucket, printable(kid), printable(issuer))?;
                return Ok(ExitCode::No.code());
            };
            let revoked = IssuerKey { revoked: true, ..key }.to_json();
            // Only the content that was looked at is replaced: the function may write meanwhile.
            let written = objects.put(&configuration.bucket, &name, revoked, Condition::Matches(&object.etag)).await;
            written.map_err(|error| {
                Failure::aws(&format!("writing s3://{}/{name}", configuration.bucket), &error)
                    .hint("if the function relay-jwks has written it at the same moment, try again")
            })?;
            writeln!(out, "revoked the key `{}` of {}", printable(kid), printable(issuer))?;
            Ok(0)
        }
    }
}

/// Every key in the bucket, with its object.
async fn keys(objects: &Objects, configuration: &Configuration) -> Result<Vec<(String, Object, IssuerKey)>, Failure> {
    let bucket = &configuration.bucket;
    let reading = |error| Failure::aws(&format!("reading s3://{bucket}/jwks/"), &error);
    let mut keys = Vec::new();
    for name in objects.list(bucket, "jwks/").await.map_err(reading)? {
        let object = objects.get(bucket, &name, ISSUER_KEY_MAX).await.map_err(reading)?;
        keys.extend(object.and_then(|object| {
            let key = IssuerKey::parse(&object.bytes).ok()?;
            Some((name, object, key))
        }));
    }
    Ok(keys)
}

fn words(key: &IssuerKey) -> String {
    match (key.revoked, key.gone_at) {
        (true, _) => "revoked".to_owned(),
        (false, _) if !key.is_usable(now()) => format!("not used any longer, last seen {}", key.seen_at),
        (false, Some(gone)) => format!("gone since {gone}; tokens from before are accepted"),
        (false, None) => format!("in use, last seen {}", key.seen_at),
    }
}
