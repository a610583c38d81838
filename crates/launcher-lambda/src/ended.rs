//! The event on the account's default bus that says how a deployment ended, for chats, dashboards
//! and the steps that follow a deployment. `docs/schema/event.json` is its schema.
//!
//! An event informs, and decides nothing: whoever may put events in the account can forge one. The
//! record that it names is signed. There is one event for each deployment; if the launcher is
//! stopped at the wrong moment there are two with the same id, and if EventBridge does not answer
//! while the watchdog looks after the task, there is none.

use std::time::Duration;

use relay_aws::AwsError;
use relay_policy::Asked;
use relay_protocol::evidence::Writer;
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::{About, Deployment, Record, RecordSigner, Unfinished};
use relay_protocol::request::Origin;
use relay_protocol::task::Task;
use relay_protocol::{Envelope, Statement as _};
use serde_json::{Value, json};
use tracing::{info, warn};

use crate::launcher::Launcher;

/// The `source` and the `detail-type` of the event.
const SOURCE: &str = "relay";
const DETAIL_TYPE: &str = "Relay Deployment Ended";

/// How long the calls for an event may take. A launcher in a VPC without an endpoint of EventBridge
/// gets no answer.
const WITHIN: Duration = Duration::from_secs(3);

impl Launcher {
    /// Puts the event of a deployment that has ended, unless it was put before. `task` is the task
    /// that ran it. A failure is only logged: the deployment has ended, whoever is told.
    pub(crate) async fn tell_everybody(&self, asked: &Asked, task: Option<&Task>) {
        match tokio::time::timeout(WITHIN, self.put_event(asked, task)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "no event says how the deployment ended"),
            Err(_) => warn!("no event says how the deployment ended: EventBridge does not answer"),
        }
    }

    async fn put_event(&self, asked: &Asked, task: Option<&Task>) -> Result<(), AwsError> {
        let (bucket, evidence) = (&self.settings.bucket, asked.evidence());
        let note = format!("events/{}", asked.request().deployment_id);
        if self.objects.exists(bucket, &note).await? {
            return Ok(());
        }
        let mut end = None;
        for writer in [Writer::Runner, Writer::Launcher] {
            let key = evidence.record(writer);
            let object = self.objects.get(&self.settings.evidence, &key, 2 * RECORD_MAX as u64).await?;
            end = object.and_then(|object| detail(&object.bytes));
            if end.is_some() {
                break;
            }
        }
        let Some(mut end) = end else { return Ok(()) };
        end["evidence"] = json!(format!("s3://{}/{}/", self.settings.evidence, evidence.folder()));
        let start_seconds = task.and_then(|task| Some(task.started_at?.since(task.created_at?)));
        end["start_seconds"] = json!(start_seconds);
        self.events.put(SOURCE, DETAIL_TYPE, end.to_string()).await?;
        // The field names are those of the metric filters in infra/foundation.yaml.
        info!(outcome = end["outcome"].as_str(), start_seconds, run_seconds = end["run_seconds"].as_i64(), "ended");
        self.objects.put_once(bucket, &note, end.to_string().into_bytes()).await.map(|_| ())
    }
}

/// The event that a record leads to. Whether the record is signed is not judged here.
fn detail(record: &[u8]) -> Option<Value> {
    let envelope = Envelope::parse(record, 2 * RECORD_MAX).ok()?;
    let payload = envelope.unverified_payload();
    if let Ok(record) = Record::<Deployment>::parse(payload) {
        let it = &record.predicate;
        return Some(event(it.about(), (&it.signers, &it.approvers), &it.origin, of_runner(it)));
    }
    let record = Record::<Unfinished>::parse(payload).ok()?;
    let it = &record.predicate;
    let end = json!({
        "outcome": it.outcome,
        "exit_code": null,
        "reason": it.reason,
        "message": it.message,
        "ended_at": it.recorded_at,
        "run_seconds": null,
    });
    Some(event(it.about(), (&it.signers, &it.approvers), &it.origin, end))
}

/// The end of a deployment that a runner ran.
fn of_runner(it: &Deployment) -> Value {
    let (outcome, exit_code, reason, message) = match &it.outcome {
        Outcome::Exited { code: 0, .. } => ("succeeded", Some(0), None, None),
        Outcome::Exited { code, .. } => ("failed", Some(*code), None, None),
        Outcome::Ended { reason, message } => ("stopped", None, Some(*reason), Some(message)),
    };
    json!({
        "outcome": outcome,
        "exit_code": exit_code,
        "reason": reason,
        "message": message,
        "ended_at": it.finished_at,
        "run_seconds": it.finished_at.since(it.started_at),
    })
}

/// An end with what every event says of its deployment.
fn event(
    about: About<'_>,
    (requesters, approvers): (&[RecordSigner], &[RecordSigner]),
    origin: &Origin,
    mut end: Value,
) -> Value {
    end["version"] = json!(1);
    end["deployment_id"] = json!(about.deployment_id);
    end["target"] = json!(about.target);
    end["requesters"] = json!(names(requesters));
    end["approvers"] = json!(names(approvers));
    end["origin"] = json!(origin);
    end["requested_at"] = json!(about.deployment_id.time());
    end
}

fn names(signers: &[RecordSigner]) -> Vec<&str> {
    signers.iter().map(|signer| signer.name.as_str()).collect()
}
