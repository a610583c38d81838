//! The claims and tasks of a deployment id, which show what is already decided.

use std::time::Duration;

use relay_aws::objects::Condition;
use relay_aws::{AwsError, Kind};
use relay_engine::claim::{self, After, Put};
use relay_policy::Denied;
use relay_protocol::claim::{Claim, Holder, Verdict};
use relay_protocol::encoding::short;
use relay_protocol::evidence::Evidence;
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::task::Task;
use relay_protocol::{DeploymentId, Digest};

use crate::launcher::Launcher;

/// How often the write of a contested claim is attempted.
const TRIES: usize = 5;

/// A final verdict on a request.
pub(crate) struct FinalWord<'a> {
    pub(crate) evidence: &'a Evidence,
    pub(crate) request: Digest,
    pub(crate) verdict: Verdict,
    pub(crate) denied: Denied,
}

impl Launcher {
    /// Claims the id with a final verdict, and returns the claim that stands: another writer may
    /// have been faster (clause CLM-3).
    pub(crate) async fn final_word(&self, word: FinalWord<'_>) -> Result<Claim, AwsError> {
        let FinalWord { evidence, request, verdict, denied: Denied { reason, message, .. } } = word;
        // A claim must be small enough to be read back.
        let holder = Holder::Launcher { verdict, reason, message: short(&message) };
        let claim = Claim { request_digest: request, holder };
        let key = evidence.claim();
        for _ in 0..TRIES {
            let put = self.objects.put(&self.settings.evidence, &key, claim.to_bytes(), Condition::Absent).await;
            match claim::after_put(put_of(put)?) {
                After::Won => return Ok(claim),
                After::ReadBack => {
                    if let Some(stands) = self.read_claim(evidence).await? {
                        return Ok(stands);
                    }
                }
                After::Again => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Err(AwsError::new("s3:PutObject", Kind::Conflict, "the claim is still contested after several attempts"))
    }

    /// Reads the claim of a deployment, if there is one.
    pub(crate) async fn read_claim(&self, evidence: &Evidence) -> Result<Option<Claim>, AwsError> {
        let key = evidence.claim();
        let Some(object) = self.objects.get(&self.settings.evidence, &key, CLAIM_MAX as u64).await? else {
            return Ok(None);
        };
        // An unreadable claim is still a claim. A deployment that must be requested again is better
        // than one that runs twice.
        let unreadable = |error: serde_json::Error| {
            AwsError::new("s3:GetObject", Kind::Invalid, format!("cannot read {key}: {error}"))
        };
        Claim::parse(&object.bytes).map(Some).map_err(unreadable)
    }

    /// Finds a task that was started with this id.
    pub(crate) async fn started_task(&self, id: &DeploymentId) -> Result<Option<Task>, AwsError> {
        for arn in self.tasks.started_by(&self.settings.cluster, id.as_str()).await? {
            if let Some(task) = self.tasks.describe(&self.settings.cluster, &arn).await? {
                return Ok(Some(task));
            }
        }
        Ok(None)
    }
}

/// Classifies S3's answer to the write of a claim. All other errors fail the invocation, and Lambda
/// retries it.
fn put_of(put: Result<String, AwsError>) -> Result<Put, AwsError> {
    match put {
        Ok(_) => Ok(Put::Written),
        Err(error) if error.kind == Kind::Precondition => Ok(Put::Exists),
        Err(error) if error.kind == Kind::Conflict => Ok(Put::Unclear),
        Err(error) => Err(error),
    }
}
