//! `relay cancel`: asks another call's deployment to stop, with a cancel that this caller's own key
//! signs. The target's policy decides whether that key may (clause CTL-2).

use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_aws::queues::{Entry, Queues};
use relay_aws::topic::Topic;
use relay_console::Failure;
use relay_protocol::keys::PrivateKey;
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::Hints;
use relay_protocol::{Cancel, Control, DeploymentId, Digest, Envelope, Message, QueueUrl, Statement as _, TopicArn};
use tokio::task::JoinSet;

use crate::args;
use crate::found::find;
use crate::show::line;
use crate::signals::Asked;
use crate::status::vouched_request;

/// How often the cancel is sent again until the deployment has ended. A statement that overtakes
/// its request finds neither a claim nor a task, and the launcher drops it (clause CTL-4).
const AGAIN: Duration = Duration::from_secs(15);

/// Asks this command's own deployment to stop. It sends in the background: AWS may be slow, and a
/// second signal must still be noticed.
#[derive(Debug, Default)]
pub(crate) struct Canceller {
    /// `None` in `relay attach`, because another process holds the session key.
    session: Option<Session>,
    /// The statement, and when it was last sent.
    sent: Option<(String, Instant)>,
    sending: JoinSet<Vec<String>>,
}

/// What a cancel signed by the request's own session key needs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: PrivateKey,
    pub(crate) request: Digest,
    pub(crate) routes: CancelRoutes,
}

impl Canceller {
    /// Creates a canceller for a deployment that this command started.
    pub(crate) fn new(session: Session) -> Self {
        Self { session: Some(session), ..Self::default() }
    }

    /// Whether the deployment was asked to stop.
    pub(crate) fn has_asked(&self) -> bool {
        self.sent.is_some()
    }

    /// Sends the cancel in the background; [`Canceller::next`] returns the lines to print. `after`
    /// says what will happen then.
    pub(crate) fn cancel(&mut self, asked: Asked, after: String) {
        let Some(Session { key, request, routes }) = &self.session else { return };
        let id = routes.hints.deployment_id.clone();
        let body = Message::control_json(&key.sign_envelope(statement(&id, *request, asked.cancel)));
        self.sent = Some((body.clone(), Instant::now()));
        let (routes, began) = (routes.clone(), Instant::now());
        let Asked { why, .. } = asked;
        // After a timeout, the user has sent no first one.
        let signal = if asked.is_signal() { "a second signal" } else { "a signal" };
        self.sending.spawn(async move {
            let sent = routes.send(&body).await;
            let took = began.elapsed().as_secs_f64();
            match sent {
                Ok(()) => vec![
                    format!("{why}: sent the cancel in {took:.1}s; {after}"),
                    format!("{signal} makes relay exit immediately. If CI ends this step first, follow the deployment with: relay attach {id}"),
                ],
                Err(error) => vec![
                    format!("{why}, but relay could not send the cancel ({error}): the deployment continues"),
                    format!("{signal} makes relay exit immediately. To stop the deployment from elsewhere: relay cancel {id}"),
                ],
            }
        });
    }

    /// Sends the cancel again if it is time, and says nothing about it.
    pub(crate) fn repeat(&mut self) {
        let (Some(session), Some((body, at))) = (&self.session, &mut self.sent) else { return };
        if at.elapsed() < AGAIN || !self.sending.is_empty() {
            return;
        }
        *at = Instant::now();
        let (routes, body) = (session.routes.clone(), body.clone());
        self.sending.spawn(async move {
            if let Err(error) = routes.send(&body).await {
                tracing::debug!(%error, "repeating the cancel");
            }
            Vec::new()
        });
    }

    /// Waits until a cancel is sent, and returns the lines to print. Waits forever if none is on
    /// its way.
    pub(crate) async fn next(&mut self) -> Vec<String> {
        match self.sending.join_next().await {
            Some(said) => said.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }
}

/// The routes that a control statement takes.
#[derive(Clone, Debug)]
pub(crate) struct CancelRoutes {
    pub(crate) hints: Hints,
    pub(crate) topic: Topic,
    pub(crate) topic_arn: TopicArn,
    pub(crate) queues: Queues,
    pub(crate) queue: Option<QueueUrl>,
}

impl CancelRoutes {
    /// Sends `body` by both routes at the same time, and succeeds if one of them accepts it. The
    /// control queue is the fast route to a running task. The topic also reaches a task that does
    /// not run yet, or whose runner does not listen.
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

/// Builds the control statement, unsigned.
pub(crate) fn statement(id: &DeploymentId, request: Digest, cancel: Cancel) -> Envelope {
    let control = Control { deployment_id: id.clone(), request_digest: request, issued_at: now(), cancel };
    Envelope::new(Control::TYPE, control.to_payload())
}

/// Signs and sends the cancel, and says how to see the result.
pub(crate) async fn cancel(arguments: &args::Cancel) -> Result<u8, Failure> {
    let found = find(&arguments.whose).await?;
    let signer = found.texts.signer(Some(found.topic.region()))?;
    let request = match found.tags.request {
        Some(request) => request,
        None => vouched_request(&found).await?.ok_or_else(|| {
            Failure::new(ExitCode::Unknown, format!("cannot find the request of {}: the tags of its queue do not name it, and the queue has no frame from the runner", found.id))
                .hint("try again when the deployment runs, or stop its task in the target account with `relay-admin stop`")
        })?,
    };
    let envelope = signer.sign(statement(&found.id, request, Cancel::Requested)).await?;
    let routes = CancelRoutes {
        hints: Hints {
            target: found.target.clone(),
            deployment_id: found.id.clone(),
            ci_account: found.pair.reply.account().clone(),
        },
        topic: Topic::new(&found.sdk),
        topic_arn: found.topic.clone(),
        queues: found.queues.clone(),
        queue: found.pair.control.clone(),
    };
    routes
        .send(&Message::control_json(&envelope))
        .await
        .map_err(|error| Failure::new(ExitCode::Fault, format!("cannot send the cancel: {error}")))?;
    line(&format!(
        "relay: asked {} ({}) to stop; the target's policy decides whether this key may cancel it",
        found.id, found.target
    ));
    line(&format!("relay: to see the result: relay attach {}, or relay status {}", found.id, found.id));
    Ok(0)
}
