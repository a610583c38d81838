//! Leaves the record in the evidence bucket, before the last frame says how the deployment ended
//! (clauses REC-4, FRM-20). The tool has ended by then, and can no longer do anything about it.

use std::future::Future;
use std::time::Duration;

use relay_aws::keys::SigningKey;
use relay_aws::objects::Objects;
use relay_aws::{AwsError, Kind};
use relay_engine::Backoff;
use relay_protocol::Envelope;
use relay_protocol::encoding::short;
use relay_protocol::evidence::{Evidence, Writer};
use relay_protocol::record;
use tokio::time::Instant;
use tracing::{error, warn};

use crate::stop::Stopper;

/// How long S3 and KMS are tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long they are tried once the container is being stopped.
const HURRY: Duration = Duration::from_secs(20);

/// How long an answer is tried that seldom changes: access denied, or something that is not there.
/// A permission that was granted a moment ago may not have arrived everywhere.
const FINAL: Duration = Duration::from_secs(10);

/// The first and the longest pause between two tries.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// The record as it was left, and what is wrong with it, if anything is.
#[derive(Debug)]
pub(crate) struct Left {
    /// The record; without a signature if it could not be signed.
    pub(crate) record: Envelope,
    /// Why it is not signed, or not in the bucket.
    pub(crate) problem: Option<String>,
}

/// Where a record is left, and who signs it.
pub(crate) struct Desk<'a> {
    pub(crate) key: &'a SigningKey,
    pub(crate) objects: &'a Objects,
    pub(crate) bucket: &'a str,
    pub(crate) evidence: Evidence,
    pub(crate) stopper: &'a Stopper,
}

impl Desk<'_> {
    /// Signs the record and writes it, also as a Sigstore bundle.
    pub(crate) async fn leave(&self, unsigned: Envelope) -> Left {
        let record = match self.insist(|| self.key.sign_envelope(unsigned.clone())).await {
            Ok(record) => record,
            Err(error) => return Left { record: unsigned, problem: Some(told("the record is not signed", &error)) },
        };
        // The bundle first: where there is a record, its bundle is there too.
        for (name, text) in [
            (self.evidence.sigstore(Writer::Runner), record::sigstore(&record)),
            (self.evidence.record(Writer::Runner), record.to_json()),
        ] {
            // Only this runner, which holds the claim, writes this name. If an object is there, an
            // earlier try has succeeded, and its answer was lost.
            if let Err(error) = self.insist(|| self.objects.put_once(self.bucket, &name, text.clone())).await {
                let problem = Some(told("the record is not in the evidence bucket", &error));
                return Left { record, problem };
            }
        }
        Left { record, problem: None }
    }

    /// Tries until it succeeds, or the time for it is over.
    async fn insist<T, F: Future<Output = Result<T, AwsError>>>(&self, work: impl Fn() -> F) -> Result<T, AwsError> {
        let began = Instant::now();
        let mut backoff = PAUSE;
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let patience = match error.kind {
                Kind::Denied | Kind::NotFound | Kind::Invalid => FINAL,
                _ if self.stopper.is_terminated() => HURRY,
                _ => PATIENCE,
            };
            if began.elapsed() + backoff.peek() > patience {
                return Err(error);
            }
            warn!(%error, "cannot leave the record yet; trying again");
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

fn told(what: &str, problem: &AwsError) -> String {
    error!(%problem, what);
    short(&format!("{what}: {problem}"))
}
