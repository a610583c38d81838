//! The request of a deployment or of a dry run, with its id and its session key.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use relay_aws::clock::now;
use relay_console::Failure;
use relay_protocol::keys::PrivateKey;
use relay_protocol::limits::REQUEST_LIFETIME_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{DeploymentId, ParameterName, Request, TargetName, Ticket, Timestamp, TopicArn};

use crate::origin;
use crate::queues::Pair;

/// Makes the request of a deployment, or of a dry run.
pub(crate) fn request_for(
    (topic, target): (&TopicArn, &TargetName),
    parameters: &BTreeMap<ParameterName, String>,
    (id, now): (&DeploymentId, Timestamp),
    session: &PrivateKey,
    pair: &Pair,
) -> Request {
    Request {
        deployment_id: id.clone(),
        audience: topic.clone(),
        target: target.clone(),
        parameters: parameters.clone(),
        reply_queue: pair.reply.clone(),
        control_queue: pair.control.clone(),
        session_key: session.public().clone(),
        ticket: None,
        issued_at: now,
        expires_at: now.plus(REQUEST_LIFETIME_MAX),
        origin: origin::origin(|name| std::env::var(name).ok()),
        traceparent: None,
    }
}

fn no_random(error: getrandom::Error) -> Failure {
    Failure::new(ExitCode::Fault, format!("cannot read random bytes from the system: {error}"))
}

/// Generates a key for one deployment.
pub(crate) fn new_key() -> Result<PrivateKey, Failure> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(no_random)?;
    Ok(PrivateKey::from_seed(seed))
}

/// Returns a new ticket.
pub(crate) fn new_ticket() -> Result<Ticket, Failure> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).map_err(no_random)?;
    Ok(Ticket::new(random))
}

/// Returns a new deployment id and the current time.
pub(crate) fn new_id() -> Result<(DeploymentId, Timestamp), Failure> {
    let mut random = [0_u8; 10];
    getrandom::fill(&mut random).map_err(no_random)?;
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok((DeploymentId::new(u64::try_from(millis).unwrap_or_default(), random), now()))
}
