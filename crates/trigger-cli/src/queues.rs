//! The queues of one deployment: created in the CI account, open only to the target account's roles
//! under `/relay/`, and deleted at the end.

use relay_aws::queues::{Queues, VISIBILITY};
use relay_console::Failure;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{AccountId, DeploymentId, QueueUrl, Region, TargetName, TopicArn};

/// Seconds for which a queue keeps unread messages: one day, so that a deployment whose CI agent
/// died can still be examined.
const RETENTION: u32 = 86_400;

/// The reply queue and, where CI may create queues, the control queue.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) reply: QueueUrl,
    pub(crate) control: Option<QueueUrl>,
    /// Whether the queues were made for this deployment, and are deleted with it.
    pub(crate) own: bool,
}

impl Pair {
    /// A pre-made reply queue, without a control queue.
    pub(crate) fn fixed(reply: QueueUrl) -> Self {
        Self { reply, control: None, own: false }
    }

    /// Returns the queues of the deployment `id` in the CI account `account`, without creating
    /// them.
    pub(crate) fn of(id: &DeploymentId, account: &AccountId, region: &Region) -> Result<Self, Failure> {
        let queue =
            |name: String| QueueUrl::of(region, account, &name).map_err(|error| Failure::usage(error.to_string()));
        Ok(Self { reply: queue(id.reply_queue_name())?, control: Some(queue(id.control_queue_name())?), own: true })
    }

    /// Returns the command that follows the deployment. A pre-made queue does not name its target,
    /// so the command must.
    pub(crate) fn follow(&self, target: &TargetName, id: &DeploymentId) -> String {
        if self.own { format!("relay attach {id}") } else { format!("relay attach {id} --target {target}") }
    }

    /// Creates both queues in parallel.
    pub(crate) async fn create(
        queues: &Queues,
        id: &DeploymentId,
        topic: &TopicArn,
        tags: &[(&'static str, String)],
    ) -> Result<Self, Failure> {
        let (reply_name, control_name) = (id.reply_queue_name(), id.control_queue_name());
        let reply_policy = policy(topic, &["sqs:SendMessage"]);
        let control_policy =
            policy(topic, &["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]);
        let attributes = |policy: String| {
            [
                ("Policy", policy),
                ("MessageRetentionPeriod", RETENTION.to_string()),
                ("VisibilityTimeout", VISIBILITY.to_string()),
                ("SqsManagedSseEnabled", "true".to_owned()),
            ]
        };
        let (reply_attributes, control_attributes) = (attributes(reply_policy), attributes(control_policy));
        let (reply, control) = tokio::join!(
            queues.create(&reply_name, &reply_attributes, tags),
            queues.create(&control_name, &control_attributes, tags)
        );
        let created = |result: Result<String, relay_aws::AwsError>, name: &str| {
            let url = result.map_err(|error| Failure::aws("creating this deployment's queues", &error))?;
            canonical(&url, topic, name)
        };
        match (created(reply, &reply_name), created(control, &control_name)) {
            (Ok(reply), Ok(control)) => Ok(Self { reply, control: Some(control), own: true }),
            (Ok(one), Err(failure)) | (Err(failure), Ok(one)) => {
                // Nothing was published, so the queue that was created is useless.
                let _ = queues.delete_queue(&one).await;
                Err(failure)
            }
            (Err(failure), Err(_)) => Err(failure),
        }
    }

    /// Deletes the queues that were made for this deployment. A queue that stays behind keeps its
    /// messages for a day, and `relay gc` finds it by its tags.
    pub(crate) async fn delete(&self, queues: &Queues) -> Result<(), Failure> {
        if !self.own {
            return Ok(());
        }
        let gone = |result: Result<(), relay_aws::AwsError>| match result {
            Err(error) if error.kind != relay_aws::Kind::NotFound => {
                Err(Failure::aws("deleting this deployment's queues", &error))
            }
            _ => Ok(()),
        };
        match &self.control {
            Some(control) => {
                let (reply, control) = tokio::join!(queues.delete_queue(&self.reply), queues.delete_queue(control));
                gone(reply).and(gone(control))
            }
            None => gone(queues.delete_queue(&self.reply).await),
        }
    }
}

/// Returns a queue policy that admits the target account's roles under `/relay/`. The principal is
/// the account, so that its own IAM decides as well.
fn policy(topic: &TopicArn, actions: &[&str]) -> String {
    let account = topic.account();
    let partition = topic.as_str().split(':').nth(1).unwrap_or("aws");
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Sid": "RelayRolesOfTheTargetAccount",
            "Effect": "Allow",
            "Principal": { "AWS": format!("arn:{partition}:iam::{account}:root") },
            "Action": actions,
            "Resource": "*",
            "Condition": { "ArnLike": { "aws:PrincipalArn": format!("arn:{partition}:iam::{account}:role/relay/*") } }
        }]
    })
    .to_string()
}

/// Returns the canonical URL of a queue from the URL that SQS gave. The account stands in the path
/// of every form (clause NAM-6).
fn canonical(url: &str, topic: &TopicArn, name: &str) -> Result<QueueUrl, Failure> {
    let account = url.rsplit('/').nth(1).and_then(|account| account.parse::<AccountId>().ok());
    account.and_then(|account| QueueUrl::of(topic.region(), &account, name).ok()).ok_or_else(|| {
        Failure::new(ExitCode::Fault, format!("SQS returned the queue URL `{url}`, which names no account"))
    })
}
