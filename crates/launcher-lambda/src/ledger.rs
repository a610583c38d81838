//! The function `ledger`: every hour it writes an entry that lists the claims and records which no
//! entry lists yet (clauses LED-1, LED-2). Only its role signs with the ledger key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lambda_runtime::Error;
use relay_aws::clock::now;
use relay_aws::keys::SigningKey;
use relay_aws::objects::{Listed, Objects};
use relay_aws::{AwsError, Kind, Sdk};
use relay_engine::ledger::{Newest, is_due, next};
use relay_protocol::ledger::{DEPLOYMENTS, FOLDER, LedgerEntry, OBJECT_MAX, day_of, days};
use relay_protocol::limits::{LEDGER_ENTRY_MAX, LEDGER_OBJECTS_MAX};
use relay_protocol::{Digest, Envelope, Region, Statement as _, Timestamp};
use tracing::info;

/// What the function works with.
#[derive(Debug)]
pub(crate) struct Clerk {
    bucket: String,
    /// A bucket elsewhere that gets a copy of each entry.
    archive: Option<String>,
    /// Seconds that an entry is about; an hour, but in a sandbox.
    period: i64,
    key: SigningKey,
    objects: Objects,
}

impl Clerk {
    /// Reads `RELAY_EVIDENCE_BUCKET`, `RELAY_LEDGER_KEY`, `RELAY_LEDGER_ARCHIVE` (optional),
    /// `RELAY_LEDGER_PERIOD` (seconds, optional) and `AWS_REGION`.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let optional = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let text = |name: &str| optional(name).ok_or_else(|| format!("the environment variable {name} is missing"));
        let region: Region = text("AWS_REGION")?.parse().map_err(|error| format!("AWS_REGION is {error}"))?;
        let period = optional("RELAY_LEDGER_PERIOD").map_or(Ok(3_600), |text| text.parse::<i64>());
        let period =
            period.ok().filter(|seconds| *seconds > 0).ok_or("RELAY_LEDGER_PERIOD is not a number of seconds")?;
        let sdk = Sdk::of_function(&region);
        Ok(Self {
            bucket: text("RELAY_EVIDENCE_BUCKET")?,
            archive: optional("RELAY_LEDGER_ARCHIVE"),
            period,
            key: SigningKey::new(&sdk, text("RELAY_LEDGER_KEY")?),
            objects: Objects::new(&sdk),
        })
    }

    /// Writes the entries that are due. Any failure fails the invocation, so that an alarm sees it;
    /// the next one goes on where this one ended.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), Error> {
        let now = now();
        let (mut newest, mut listed) = self.recent(now).await?;
        if let Some(Newest { entry, sha256 }) = &newest {
            info!(number = entry.number, %sha256, "the newest entry of the ledger so far");
            // A copy that failed last time comes first: no entry follows one without a copy.
            self.copy(entry).await?;
        }
        while is_due(newest.as_ref(), now, self.period) {
            let before = newest.as_ref().map(|newest| newest.entry.until);
            let unlisted = self.unlisted(days(before, now).collect(), &listed).await?;
            let Some(entry) = next(&self.bucket, newest.as_ref(), unlisted, now, self.period) else { break };
            listed.extend(entry.objects.keys().cloned());
            let signed = self.key.sign_envelope(entry.to_envelope()).await?.to_json();
            let sha256 = Digest::of(signed.as_bytes());
            let (number, objects, until) = (entry.number, entry.objects.len(), entry.until);
            // First the log: whatever becomes of the answer to the write, the digest is known.
            info!(number, objects, %until, %sha256, "writes an entry of the ledger");
            if !self.objects.put_once(&self.bucket, &entry.object(), signed).await? {
                info!(number, "this entry is there already");
                break;
            }
            self.copy(&entry).await?;
            newest = Some(Newest { entry, sha256 });
        }
        Ok(())
    }

    /// The newest entry, and the objects that the entries list which can still be in its days. An
    /// object of these days cannot be in an entry from before them.
    async fn recent(&self, now: Timestamp) -> Result<(Option<Newest>, BTreeSet<String>), AwsError> {
        let (mut newest, mut listed) = (None, BTreeSet::new());
        let mut first = None;
        for name in self.objects.list_all(&self.bucket, FOLDER, |_| true).await?.into_iter().rev() {
            let read = self.read(&name.key).await?;
            let first = *first.get_or_insert_with(|| days(Some(read.entry.until), now).next().unwrap_or(now));
            if read.entry.until < first {
                break;
            }
            listed.extend(read.entry.objects.keys().cloned());
            newest.get_or_insert(read);
        }
        Ok((newest, listed))
    }

    async fn read(&self, name: &str) -> Result<Newest, AwsError> {
        let unreadable = |problem: String| {
            AwsError::new("s3:GetObject", Kind::Invalid, format!("s3://{}/{name}: {problem}", self.bucket))
        };
        let object = self.objects.get(&self.bucket, name, 2 * LEDGER_ENTRY_MAX as u64).await?;
        let bytes = object.ok_or_else(|| unreadable("is not there any more".to_owned()))?.bytes;
        let envelope = Envelope::parse(&bytes, bytes.len()).map_err(|error| unreadable(error.to_string()))?;
        // Nobody else may write here, and an audit verifies every entry.
        let entry = LedgerEntry::parse(envelope.unverified_payload()).map_err(|error| unreadable(error.to_string()))?;
        Ok(Newest { entry, sha256: Digest::of(&bytes) })
    }

    /// The objects of these days' deployments that are not listed, as many as an entry has room
    /// for. An object that is too large is left out, and an audit reports it.
    async fn unlisted(
        &self,
        days: Vec<Timestamp>,
        listed: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Digest>, AwsError> {
        let mut unlisted = BTreeMap::new();
        let keep = |object: &Listed| {
            object.size <= OBJECT_MAX && day_of(&object.key).is_some() && !listed.contains(&object.key)
        };
        for service in self.objects.folders(&self.bucket, DEPLOYMENTS).await? {
            for target in self.objects.folders(&self.bucket, &service).await? {
                for day in &days {
                    let folder = format!("{target}{}/", day.day());
                    for Listed { key, .. } in self.objects.list_all(&self.bucket, &folder, keep).await? {
                        if unlisted.len() >= LEDGER_OBJECTS_MAX {
                            return Ok(unlisted);
                        }
                        let digest = self.objects.digest(&self.bucket, &key, OBJECT_MAX).await?;
                        unlisted.extend(digest.map(|digest| (key, digest)));
                    }
                }
            }
        }
        Ok(unlisted)
    }

    /// Copies an entry to the archive, unless it is there.
    async fn copy(&self, entry: &LedgerEntry) -> Result<(), AwsError> {
        let Some(archive) = &self.archive else { return Ok(()) };
        let name = entry.object();
        let object = self.objects.get(&self.bucket, &name, 2 * LEDGER_ENTRY_MAX as u64).await?;
        let Some(object) = object else { return Ok(()) };
        self.objects.put_once(archive, &format!("{}/{name}", self.bucket), object.bytes).await.map(|_| ())
    }
}
