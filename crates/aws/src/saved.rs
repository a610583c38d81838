//! Who saved an artifact: the mark in the evidence, and the record of the deployment that it names
//! (clause ART-8).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::evidence::{Evidence, Writer};
use relay_protocol::limits::{CLAIM_MAX, RECORD_MAX};
use relay_protocol::{Digest, Envelope, RequestRef, TargetName};

use crate::objects::Objects;
use crate::{AwsError, Kind};

/// Reads what the evidence has for each artifact, by the target that saved it. Nothing of it is
/// verified yet; what is missing or cannot be read is left out.
///
/// # Errors
///
/// The error of the call.
pub async fn read(
    objects: &Objects,
    bucket: &str,
    artifacts: &BTreeSet<(TargetName, Digest)>,
) -> Result<BTreeMap<Digest, (RequestRef, Envelope)>, AwsError> {
    let mut found = BTreeMap::new();
    for (target, digest) in artifacts {
        let mark = small(objects, bucket, &Evidence::saved(target, *digest), CLAIM_MAX).await?;
        let named = mark.and_then(|mark| RequestRef::parse(std::str::from_utf8(&mark).ok()?).ok());
        // A mark that names another target's deployment would be read with rights that were not
        // given for it.
        let Some(named) = named.filter(|named| named.target == *target) else { continue };
        let record = small(objects, bucket, &named.evidence().record(Writer::Runner), 2 * RECORD_MAX).await?;
        let record = record.and_then(|record| Envelope::parse(&record, 2 * RECORD_MAX).ok());
        found.extend(record.map(|record| (*digest, (named, record))));
    }
    Ok(found)
}

/// Reads an object. One that is too large counts as missing.
async fn small(objects: &Objects, bucket: &str, key: &str, max: usize) -> Result<Option<Vec<u8>>, AwsError> {
    match objects.get(bucket, key, max as u64).await {
        Err(error) if error.kind == Kind::Invalid => Ok(None),
        object => Ok(object?.map(|object| object.bytes)),
    }
}
