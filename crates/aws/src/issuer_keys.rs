//! The keys of token issuers in the relay bucket (clause SIG-9).

use std::collections::BTreeSet;

use relay_protocol::keys::{IssuerKey, IssuerKeys, KeyName};
use relay_protocol::limits::{ISSUER_KEY_MAX, ISSUER_KEYS_MAX};

use crate::AwsError;
use crate::clock::now;
use crate::objects::{Object, Objects};

/// An object in a folder of issuers' keys.
#[derive(Debug)]
pub struct Stored {
    /// The name of the object.
    pub name: String,
    /// The ETag of the content that was read.
    pub etag: String,
    /// The key, or why the content is none.
    pub key: Result<IssuerKey, String>,
}

/// Reads every object whose name begins with `folder`, whether or not it may be used.
///
/// # Errors
///
/// The error of the first call that fails.
pub async fn all(objects: &Objects, bucket: &str, folder: &str) -> Result<Vec<Stored>, AwsError> {
    let mut all = Vec::new();
    for name in objects.list(bucket, folder).await? {
        let object = objects.get(bucket, &name, ISSUER_KEY_MAX).await?;
        all.extend(object.map(|Object { bytes, etag }| {
            let key = IssuerKey::parse(&bytes).map_err(|problem| problem.to_string());
            Stored { name, etag, key }
        }));
    }
    Ok(all)
}

/// Reads the keys with these names that may be used now. A key that is not there, that is revoked
/// or that was not listed for too long is left out, and so is every key beyond the first
/// [`ISSUER_KEYS_MAX`]: strangers can name any number.
///
/// # Errors
///
/// The error of the call.
pub async fn read(objects: &Objects, bucket: &str, names: &BTreeSet<KeyName>) -> Result<IssuerKeys, AwsError> {
    let mut keys = Vec::new();
    for KeyName { issuer, kid } in names.iter().take(ISSUER_KEYS_MAX) {
        let object = objects.get_fitting(bucket, &IssuerKey::object(issuer, kid), ISSUER_KEY_MAX).await?;
        let key = object.and_then(|object| IssuerKey::parse(&object.bytes).ok());
        keys.extend(key.filter(|key| key.issuer == *issuer && key.kid == *kid && key.is_usable(now())));
    }
    Ok(keys.into_iter().collect())
}
