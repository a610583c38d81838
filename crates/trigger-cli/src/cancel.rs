//! `relay cancel`: asks a deployment to stop that another call has started, with this caller's own signature; whether that may is the target's
//! policy (clause CTL-2).

use relay_aws::clock::now;
use relay_aws::queues::{Entry, Queues};
use relay_aws::topic::Topic;
use relay_console::Failure;
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{Cancel, Control, DeploymentId, Digest, Envelope, Message, QueueUrl, Statement as _, TopicArn};

use crate::args;
use crate::show::line;
use crate::status::vouched_request;
use crate::whose::find;

/// Where a control statement goes.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    pub(crate) hints: Hints,
    pub(crate) topic: Topic,
    pub(crate) topic_arn: TopicArn,
    pub(crate) queues: Queues,
    pub(crate) queue: Option<QueueUrl>,
}

impl Ways {
    /// Sends by both ways at once; whether one of them took it, or why neither did. By the control queue it reaches a running task at once; by
    /// topic also one that does not run yet, or whose runner does not listen.
    pub(crate) async fn send(&self, body: &str) -> Result<(), String> {
        let by_queue = async {
            let queue = self.queue.as_ref()?;
            let entry = Entry { body: body.to_owned(), attributes: Vec::new() };
            let sent = self.queues.send(queue, vec![entry]).await;
            Some(
                sent.map_err(|error| error.to_string())
                    .and_then(|sent| sent.into_iter().collect::<Result<Vec<()>, _>>()),
            )
        };
        let by_topic = self.topic.publish(&self.topic_arn, body, &self.hints);
        match tokio::join!(by_queue, by_topic) {
            (Some(Ok(_)), _) | (_, Ok(_)) => Ok(()),
            (_, Err(error)) => Err(error.to_string()),
        }
    }
}

/// The statement, unsigned.
pub(crate) fn statement(id: &DeploymentId, request: Digest, cancel: Cancel) -> Envelope {
    let control = Control { deployment_id: id.clone(), request_digest: request, issued_at: now(), cancel };
    Envelope::new(Control::TYPE, control.to_payload())
}

/// Sends it, and says how to see what comes of it.
pub(crate) async fn cancel(arguments: &args::Cancel) -> Result<u8, Failure> {
    let found = find(&arguments.whose).await?;
    let signer = found.texts.signer()?;
    let request = match found.tags.request {
        Some(request) => request,
        None => vouched_request(&found).await?.ok_or_else(|| {
            Failure::new(ExitCode::Unknown, format!("the request of {} is not known here: its queue does not name it, and no frame of the runner is there", found.id))
                .hint("try again when it runs; or stop its task in the target account: `relay-admin stop`")
        })?,
    };
    let envelope = signer.sign(statement(&found.id, request, Cancel::Requested)).await?;
    let ways = Ways {
        hints: Hints {
            target: found.target.clone(),
            deployment_id: found.id.clone(),
            ci_account: found.pair.reply.account(),
        },
        topic: Topic::new(&found.sdk),
        topic_arn: found.topic.clone(),
        queues: found.queues.clone(),
        queue: found.pair.control.clone(),
    };
    ways.send(&Message::control_json(&envelope))
        .await
        .map_err(|error| Failure::new(ExitCode::Fault, format!("the cancel could not be sent: {error}")))?;
    line(&format!("relay: asked {} ({}) to stop; whether this key may is its target's policy", found.id, found.target));
    line(&format!("relay: see what comes of it: relay attach {}, or relay status {}", found.id, found.id));
    Ok(0)
}
