//! Claims and tasks of a deployment id: what somebody has decided already.

use std::time::Duration;

use relay_aws::objects::Condition;
use relay_aws::{AwsError, Kind};
use relay_engine::claim::{self, After, Put};
use relay_engine::launch::prior;
use relay_policy::Denied;
use relay_protocol::claim::{Claim, Holder, Verdict};
use relay_protocol::encoding::short;
use relay_protocol::frame::LauncherKind;
use relay_protocol::limits::CLAIM_MAX;
use relay_protocol::task::Task;
use relay_protocol::{DeploymentId, Digest, Timestamp};

use crate::launch::Launcher;

/// How often a contested claim is tried.
const TRIES: usize = 5;

/// A final word about a request.
pub(crate) struct FinalWord<'a> {
    pub(crate) id: &'a DeploymentId,
    pub(crate) request: Digest,
    pub(crate) verdict: Verdict,
    pub(crate) denied: Denied,
}

impl Launcher {
    /// Claims the id with a final verdict; if somebody was faster, their word stands (clause CLM-3). `deadline` is told if
    /// that is a runner's.
    pub(crate) async fn final_word(&self, word: FinalWord<'_>, deadline: Timestamp) -> Result<LauncherKind, AwsError> {
        let FinalWord { id, request, verdict, denied: Denied { reason, message } } = word;
        // A claim must be small enough to be read back.
        let holder = Holder::Launcher { verdict, reason, message: short(&message) };
        let claim = Claim { request_digest: request, holder };
        let key = Claim::key(id);
        for _ in 0..TRIES {
            let put = self.objects.put(&self.settings.bucket, &key, claim.to_bytes(), Condition::Absent).await;
            match claim::after_put(put_of(put)?) {
                After::Won => return Ok(prior::of_claim(&claim, request, deadline)),
                After::ReadBack => {
                    if let Some(stands) = self.read_claim(id).await? {
                        return Ok(prior::of_claim(&stands, request, deadline));
                    }
                }
                After::Again => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Err(AwsError::new("s3:PutObject", Kind::Conflict, "the claim stays contested"))
    }

    pub(crate) async fn read_claim(&self, id: &DeploymentId) -> Result<Option<Claim>, AwsError> {
        let Some(object) = self.objects.get(&self.settings.bucket, &Claim::key(id), CLAIM_MAX as u64).await? else {
            return Ok(None);
        };
        // A claim that cannot be read still claims: better one deployment that must be asked for again than one that runs
        // twice.
        let unreadable = |error: serde_json::Error| {
            AwsError::new("s3:GetObject", Kind::Invalid, format!("the claim of {id} cannot be read: {error}"))
        };
        Claim::parse(&object.bytes).map(Some).map_err(unreadable)
    }

    /// A task that this id has started.
    pub(crate) async fn started_task(&self, id: &DeploymentId) -> Result<Option<Task>, AwsError> {
        for arn in self.tasks.started_by(&self.settings.cluster, id.as_str()).await? {
            if let Some(task) = self.tasks.describe(&self.settings.cluster, &arn).await? {
                return Ok(Some(task));
            }
        }
        Ok(None)
    }
}

/// How S3 answered a write of a claim. What was not answered at all is Lambda's to try again.
fn put_of(put: Result<String, AwsError>) -> Result<Put, AwsError> {
    match put {
        Ok(_) => Ok(Put::Written),
        Err(error) if error.kind == Kind::Precondition => Ok(Put::Exists),
        Err(error) if error.kind == Kind::Conflict => Ok(Put::Unclear),
        Err(error) => Err(error),
    }
}
