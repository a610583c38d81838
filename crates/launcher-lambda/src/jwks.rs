//! The function `jwks`: it fetches the keys of the foundation's issuers into the relay bucket
//! (clause SIG-9). It takes no URL from a caller. Apart from it, only the platform role writes
//! those objects, to revoke a key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lambda_runtime::Error;
use relay_aws::clock::now;
use relay_aws::fetch::{Fetch, FetchError};
use relay_aws::issuer_keys::{self, Stored};
use relay_aws::objects::{Condition, Objects};
use relay_aws::{AwsError, Kind, Sdk};
use relay_protocol::Region;
use relay_protocol::keys::{Discovery, IssuerKey, Jwk, JwksError, read_jwks};
use tracing::{error, info};

/// The largest discovery document and JWKS, in bytes.
const ANSWER_MAX: usize = 256 * 1_024;

/// How many objects an issuer may have, with those of keys that are gone. Each run reads them all.
const ISSUER_OBJECTS_MAX: usize = 256;

/// What the function works with.
#[derive(Debug)]
pub(crate) struct Collector {
    bucket: String,
    issuers: Vec<String>,
    objects: Objects,
    fetch: Fetch,
}

/// Why the keys of an issuer could not be fetched.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("its discovery document: {0}")]
    Discovery(String),
    #[error("its keys: {0}")]
    Jwks(#[from] JwksError),
}

impl Collector {
    /// Reads `RELAY_BUCKET`, `RELAY_ISSUERS` (URLs, separated by commas) and `AWS_REGION`.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let text = |name: &str| std::env::var(name).map_err(|_| format!("the environment variable {name} is missing"));
        let region: Region = text("AWS_REGION")?.parse().map_err(|error| format!("AWS_REGION is {error}"))?;
        let issuers = text("RELAY_ISSUERS")?;
        let issuers = issuers.split(',').map(str::trim).filter(|url| !url.is_empty()).map(str::to_owned).collect();
        Ok(Self {
            bucket: text("RELAY_BUCKET")?,
            issuers,
            objects: Objects::new(&Sdk::of_function(&region)),
            fetch: Fetch::from_environment()?,
        })
    }

    /// Fetches the keys of every issuer. Nothing that one issuer does can stop the others; the
    /// invocation fails in the end, so that an alarm sees it.
    pub(crate) async fn run(self: Arc<Self>) -> Result<(), Error> {
        let mut failed = Vec::new();
        for issuer in &self.issuers {
            let keys = match self.fetch(issuer).await {
                Ok(keys) => keys,
                Err(problem) => {
                    error!(issuer, %problem, "cannot fetch the keys; tokens stay valid by the keys that are known, for two days");
                    failed.push(issuer.as_str());
                    continue;
                }
            };
            info!(issuer, count = keys.len(), "fetched the keys");
            if let Err(problem) = self.store(issuer, keys).await {
                error!(issuer, %problem, "cannot write its keys to the relay bucket");
                failed.push(issuer.as_str());
            }
        }
        if let Err(problem) = self.retire().await {
            error!(%problem, "cannot mark the keys of other issuers as gone");
            failed.push("the issuers of before");
        }
        if failed.is_empty() { Ok(()) } else { Err(format!("no keys from {}", failed.join(", ")).into()) }
    }

    /// Fetches the keys that an issuer lists.
    async fn fetch(&self, issuer: &str) -> Result<BTreeMap<String, Jwk>, Failed> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let discovery = self.fetch.get(&url, &[], ANSWER_MAX).await?;
        let discovery = Discovery::parse(&discovery, issuer).map_err(|error| Failed::Discovery(error.to_string()))?;
        Ok(read_jwks(&self.fetch.get(&discovery.jwks_uri, &[], ANSWER_MAX).await?)?)
    }

    /// Brings the objects of an issuer up to date with the keys that it lists. Each write has a
    /// condition: somebody who revokes a key at the same moment wins.
    async fn store(&self, issuer: &str, mut listed: BTreeMap<String, Jwk>) -> Result<(), AwsError> {
        let stored = issuer_keys::all(&self.objects, &self.bucket, &IssuerKey::folder(issuer)).await?;
        let count = stored.len();
        for (key, etag) in stored.into_iter().filter_map(usable) {
            if let Some(after) = key.after(listed.remove(&key.kid).as_ref(), now()) {
                self.put(&after, Condition::Matches(&etag)).await?;
            }
        }
        if count + listed.len() > ISSUER_OBJECTS_MAX {
            let problem =
                format!("it has listed more than {ISSUER_OBJECTS_MAX} keys by now; remove those that are gone");
            return Err(AwsError::new("s3:PutObject", Kind::Invalid, problem));
        }
        for (kid, jwk) in listed {
            let issuer = issuer.to_owned();
            let key = IssuerKey { issuer, kid, jwk, seen_at: now(), gone_at: None, revoked: false };
            self.put(&key, Condition::Absent).await?;
        }
        Ok(())
    }

    /// Marks the keys of issuers that are not among the settings any longer as gone, so that no new
    /// token of theirs is accepted.
    async fn retire(&self) -> Result<(), AwsError> {
        let ours: BTreeSet<String> = self.issuers.iter().map(|issuer| IssuerKey::folder(issuer) + "/").collect();
        for folder in self.objects.folders(&self.bucket, "jwks/").await? {
            if ours.contains(&folder) {
                continue;
            }
            for (key, etag) in
                issuer_keys::all(&self.objects, &self.bucket, &folder).await?.into_iter().filter_map(usable)
            {
                if let Some(after) = key.after(None, now()) {
                    self.put(&after, Condition::Matches(&etag)).await?;
                }
            }
        }
        Ok(())
    }

    async fn put(&self, key: &IssuerKey, condition: Condition<'_>) -> Result<(), AwsError> {
        let name = IssuerKey::object(&key.issuer, &key.kid);
        match self.objects.put(&self.bucket, &name, key.to_json(), condition).await {
            Err(error) if !matches!(error.kind, Kind::Precondition | Kind::Conflict) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// A stored key with its ETag, if the object is one.
fn usable(Stored { name, etag, key }: Stored) -> Option<(IssuerKey, String)> {
    let key = key.inspect_err(|problem| error!(name, problem, "not a key: nobody uses this object"));
    Some((key.ok()?, etag))
}
