//! Who saved an artifact: the mark in the evidence, and the record of the deployment that it names
//! (clause ART-8).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::evidence::{Evidence, Writer};
use relay_protocol::limits::{CLAIM_MAX, RECORD_MAX};
use relay_protocol::{Digest, Envelope, RequestRef, TargetName};

use crate::AwsError;
use crate::objects::Objects;

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
        let mark = objects.get_fitting(bucket, &Evidence::saved(target, *digest), CLAIM_MAX as u64).await?;
        let named = mark.and_then(|mark| RequestRef::parse(std::str::from_utf8(&mark.bytes).ok()?).ok());
        // A mark that names another target's deployment would be read with rights that were not
        // given for it.
        let Some(named) = named.filter(|named| named.target == *target) else { continue };
        let record = named.evidence().record(Writer::Runner);
        let record = objects.get_fitting(bucket, &record, 2 * RECORD_MAX as u64).await?;
        let record = record.and_then(|record| Envelope::parse(&record.bytes, 2 * RECORD_MAX).ok());
        found.extend(record.map(|record| (*digest, (named, record))));
    }
    Ok(found)
}
