//! Every operation runs through here: its faults are applied, its effects carried out, and the call
//! is logged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::log::{Entry, unix_us};
use super::shared::{Host, ThirdParty};
use crate::services::fault::Kind;
use crate::services::{Call, Now, Reaction, lock};
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use crate::wire::service::Service;

/// Tells the server to drop the connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("a fault dropped the connection")]
pub(crate) struct HangUp;

/// Runs one operation, with its faults, and logs it.
pub(super) async fn dispatch(host: &Arc<Host>, call: &mut Call) -> Result<Outcome<Answer>, HangUp> {
    let (at_ms, at_unix_us, began) = (host.log.elapsed_ms(), unix_us(), Instant::now());
    let mut runs = 0;
    call.faults = host.faults.decide(call.service, &call.operation, &call.principal.role_arn, || call.subject());
    let result = with_faults(host, call, &mut runs).await;
    let error = match &result {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(format!("{}: {}", error.code, error.message)),
        Err(HangUp) => Some("no answer".to_owned()),
    };
    // As CloudTrail does, log the session's source identity with each call. Not for STS, because
    // AssumeRole logs its parameter of that name.
    if let Some(identity) = &call.principal.source_identity
        && call.service != Service::Sts
    {
        call.note("sourceIdentity", identity.clone());
    }
    host.log.record(Entry {
        n: 0,
        at_ms,
        at_unix_us,
        took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        service: call.service.name(),
        operation: call.operation.clone(),
        account: call.principal.account.clone(),
        principal: call.principal.role_arn.clone(),
        session: call.principal.session.clone(),
        ok: error.is_none(),
        error,
        runs,
        faults: call.faults.list.iter().map(|fault| fault.kind.name()).collect(),
        detail: std::mem::take(&mut call.detail),
    });
    result
}

/// Whether a call sends something that is delivered later. If so, `delay` and `duplicate` faults
/// apply to the delivery. Otherwise the host delays the call itself, or runs it twice.
fn is_delivery(call: &Call) -> bool {
    matches!(
        (call.service, call.operation.as_str()),
        (Service::Sqs, "SendMessage" | "SendMessageBatch") | (Service::Sns, "Publish") | (Service::Lambda, "Invoke")
    )
}

/// Whether an operation has a meaning of its own for `duplicate`: a receive leaves the messages in
/// the queue.
fn duplicates_itself(call: &Call) -> bool {
    is_delivery(call) || (call.service, call.operation.as_str()) == (Service::Sqs, "ReceiveMessage")
}

async fn with_faults(host: &Arc<Host>, call: &mut Call, runs: &mut u32) -> Result<Outcome<Answer>, HangUp> {
    if let Some(delay) = call.faults.delay().filter(|_| !is_delivery(call)) {
        tokio::time::sleep(delay).await;
    }
    if call.faults.has(Kind::HoldBefore) {
        host.faults.holds.wait(call.faults.plan, call.shown()).await;
    }
    if let Some(lost) = call.faults.get(Kind::TimeoutBefore) {
        tokio::time::sleep(lost.time.unwrap_or_default()).await;
        return Err(HangUp);
    }
    if let Some(error) = call.faults.failure(call.service) {
        return Ok(Err(error));
    }
    if call.faults.has(Kind::Duplicate) && !duplicates_itself(call) {
        // As if the first response was lost and the SDK retried: the caller sees the second
        // response.
        *runs += 1;
        let _ = run(host, call).await;
    }
    *runs += 1;
    let result = run(host, call).await;
    if call.faults.has(Kind::HoldAfter) {
        host.faults.holds.wait(call.faults.plan, call.shown()).await;
    }
    if let Some(lost) = call.faults.get(Kind::TimeoutAfter) {
        tokio::time::sleep(lost.time.unwrap_or_default()).await;
        return Err(HangUp);
    }
    match call.faults.get(Kind::Crash).map(|crash| crash.time) {
        None => Ok(result),
        Some(None) => {
            host.kill_caller(&call.principal);
            Err(HangUp)
        }
        Some(Some(after)) => {
            kill_later(host, call, after);
            Ok(result)
        }
    }
}

fn kill_later(host: &Arc<Host>, call: &Call, after: Duration) {
    let (host, caller) = (Arc::clone(host), Arc::clone(&call.principal));
    tokio::spawn(async move {
        tokio::time::sleep(after).await;
        host.kill_caller(&caller);
    });
}

/// Runs an operation until it answers, and waits in between if it has to.
async fn run(host: &Arc<Host>, call: &mut Call) -> Outcome<Answer> {
    let mut rung = None;
    call.began = Instant::now();
    loop {
        call.now = Now::read();
        let (bell, until) = match step(host, call)? {
            Reaction::Answer(answer) => return Ok(answer),
            Reaction::Wait { bell, until } => (bell, until),
        };
        if let Some(rung) = rung.take() {
            let _ = tokio::time::timeout_at(until.into(), rung).await;
        }
        // Subscribe before the next step: that step sees what arrived earlier, and the bell rings
        // for what arrives later.
        rung = Some(Box::pin(bell.notified_owned()));
    }
}

/// Runs an operation once, and carries out what it asks for.
fn step(host: &Arc<Host>, call: &mut Call) -> Outcome<Reaction> {
    if let (Service::Credentials, Some(third_party)) = (call.service, &host.third_party) {
        return given_credentials(host, third_party, call);
    }
    let mut effects = Vec::new();
    let outcome = host.services.handle(call, &mut effects);
    host.ask(effects);
    outcome.unwrap_or_else(|| {
        let message = format!("{} is not an operation of {} here", call.operation, call.service.name());
        Err(AwsError::client("UnknownOperationException", message))
    })
}

/// A task's credentials when a third-party emulator is used. A folder has one file per role, named
/// after the role, because a runner refuses to run under another role.
fn given_credentials(host: &Host, given: &ThirdParty, call: &Call) -> Outcome<Reaction> {
    let (_, principal) = lock(&host.services.ecs).role_of(call.params.text_or_empty("task"))?;
    let named = &given.credentials;
    let file = if named.is_dir() { named.join(format!("{}.json", principal.role_name())) } else { named.clone() };
    let failed = |error: String| AwsError::new(500, "InternalFailure", format!("{}: {error}", file.display()));
    let text = std::fs::read(&file).map_err(|error| failed(error.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok(Answer::Json(value).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::faults::{FaultRules, Plan};
    use crate::host::settings::Settings;
    use crate::host::shared::Places;
    use crate::services::principal::Principal;
    use crate::wire::request::Request;

    /// A call that is held before its effect has none until the plan is replaced. A call that is
    /// held after it lacks only its response.
    #[tokio::test]
    async fn what_is_held_goes_on_when_the_plan_is_replaced() {
        for (kind, made) in [("hold-before", 0), ("hold-after", 1)] {
            let plan = format!(
                r#"{{"rule":[{{"kind":"{kind}","service":"sqs","operation":"CreateQueue","by":"operator"}}]}}"#
            );
            let plan = FaultRules::parse(&plan).unwrap();
            let (host, _ended) = Host::new(Settings::default(), Places::default(), None, plan);
            let host = Arc::new(host);
            let principal = Arc::new(Principal::role("222222222222", "operator", "test"));
            let request = Request::new(Service::Sqs, "CreateQueue", json!({"QueueName": "q"}));
            let mut call = Call::new(request, principal);
            let queues = || lock(&host.services.sqs).overview(Now::read()).as_array().map(Vec::len);
            let result = {
                let mut held = std::pin::pin!(dispatch(&host, &mut call));
                assert!(tokio::time::timeout(Duration::from_millis(20), &mut held).await.is_err(), "{kind}");
                assert_eq!(host.faults.holds.list()[0]["operation"], "CreateQueue");
                assert_eq!(queues(), Some(made), "{kind}");
                host.faults.replace(Plan::default());
                held.await
            };
            assert!(matches!(result, Ok(Ok(_))), "{kind}");
            assert_eq!((queues(), host.faults.holds.list()), (Some(1), json!([])));
        }
    }

    /// A waiting receive returns when a message arrives, or when its wait time is over.
    #[tokio::test]
    async fn a_receive_waits_for_a_message() {
        let (host, _ended) = Host::new(Settings::default(), Places::default(), None, Plan::default());
        let host = Arc::new(host);
        let call = |operation: &str, params| {
            let principal = Arc::new(Principal::role("222222222222", "operator", "test"));
            Call::new(Request::new(Service::Sqs, operation, params), principal)
        };
        let answer = |result: Result<Outcome<Answer>, HangUp>| format!("{:?}", result.unwrap().unwrap());
        answer(dispatch(&host, &mut call("CreateQueue", json!({"QueueName": "q"}))).await);
        let url = "http://localhost/222222222222/q";
        let mut receive = call("ReceiveMessage", json!({"QueueUrl": url, "WaitTimeSeconds": 20}));
        let mut received = std::pin::pin!(dispatch(&host, &mut receive));
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut received).await.is_err());
        answer(dispatch(&host, &mut call("SendMessage", json!({"QueueUrl": url, "MessageBody": "hello"}))).await);
        assert!(!answer(received.await).is_empty());
        let mut receive = call("ReceiveMessage", json!({"QueueUrl": url, "WaitTimeSeconds": 1}));
        assert_eq!(answer(dispatch(&host, &mut receive).await), answer(Ok(Ok(Answer::done()))));
    }
}
