//! The one way from a request to an operation: the table of operations, the fault layer around each, the log after each.
//!
//! A handler can only be reached through the table, so an operation without faults and log cannot be written.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::error::{AwsError, Outcome};
use crate::faults::Effects;
use crate::iam::Principal;
use crate::kinds::Kind;
use crate::log::{Entry, unix_us};
use crate::world::World;
use crate::{ecs, kms, lambda, s3, secrets, sns, sqs, sts, world};

/// The services, real and the sandbox's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Service {
    Credentials,
    Ecs,
    Kms,
    Lambda,
    Metadata,
    /// The Lambda Runtime API, and the start of a process that will poll it.
    Runtime,
    S3,
    SecretsManager,
    Sns,
    Sqs,
    Ssm,
    Sts,
}

impl Service {
    pub(crate) const ALL: [Service; 12] = [
        Service::Credentials,
        Service::Ecs,
        Service::Kms,
        Service::Lambda,
        Service::Metadata,
        Service::Runtime,
        Service::S3,
        Service::SecretsManager,
        Service::Sns,
        Service::Sqs,
        Service::Ssm,
        Service::Sts,
    ];

    /// As in the scope of a SigV4 credential.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Service::Credentials => "credentials",
            Service::Ecs => "ecs",
            Service::Kms => "kms",
            Service::Lambda => "lambda",
            Service::Metadata => "metadata",
            Service::Runtime => "runtime",
            Service::S3 => "s3",
            Service::SecretsManager => "secretsmanager",
            Service::Sns => "sns",
            Service::Sqs => "sqs",
            Service::Ssm => "ssm",
            Service::Sts => "sts",
        }
    }

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    pub(crate) fn internal_error(self) -> &'static str {
        match self {
            Service::Ecs => "ServerException",
            Service::Kms => "KMSInternalException",
            Service::S3 | Service::Sns => "InternalError",
            Service::SecretsManager => "InternalServiceError",
            Service::Ssm => "InternalServerError",
            _ => "InternalFailure",
        }
    }

    pub(crate) fn throttle_error(self) -> &'static str {
        match self {
            Service::S3 => "SlowDown",
            Service::Sqs => "RequestThrottled",
            Service::Sns | Service::Sts => "Throttling",
            _ => "ThrottlingException",
        }
    }

    fn operations(self) -> &'static [(&'static str, Handler)] {
        match self {
            Service::Credentials => world::CREDENTIALS,
            Service::Ecs => ecs::OPERATIONS,
            Service::Kms => kms::OPERATIONS,
            Service::Lambda => lambda::OPERATIONS,
            Service::Metadata => ecs::METADATA,
            Service::Runtime => lambda::RUNTIME,
            Service::S3 => s3::OPERATIONS,
            Service::SecretsManager => secrets::SECRETS_MANAGER,
            Service::Sns => sns::OPERATIONS,
            Service::Sqs => sqs::OPERATIONS,
            Service::Ssm => secrets::SSM,
            Service::Sts => sts::OPERATIONS,
        }
    }

    pub(crate) fn operation_names(self) -> impl Iterator<Item = &'static str> {
        self.operations().iter().map(|(name, _)| *name)
    }

    /// These treat `delay` and `duplicate` as their own effect; for all others `dispatch` sleeps first, or runs twice.
    fn own_effects(self, operation: &str) -> bool {
        matches!(
            (self, operation),
            (Service::Sqs, "SendMessage" | "SendMessageBatch" | "ReceiveMessage")
                | (Service::Sns, "Publish")
                | (Service::Lambda, "Invoke")
        )
    }
}

/// Every operation that there is, as (service, operation): for a test of all faults against all operations.
pub fn operations() -> Vec<(&'static str, &'static str)> {
    Service::ALL.into_iter().flat_map(|s| s.operation_names().map(move |name| (s.name(), name))).collect()
}

pub(crate) type Later<'a> = Pin<Box<dyn Future<Output = Outcome<Answer>> + Send + 'a>>;

/// How an operation is run.
#[derive(Clone, Copy)]
pub(crate) enum Handler {
    Now(fn(&Arc<World>, &mut Call) -> Outcome<Answer>),
    Wait(for<'a> fn(&'a Arc<World>, &'a mut Call) -> Later<'a>),
}

/// An S3 or other plain HTTP request.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) query: Map<String, Value>,
    pub(crate) headers: hyper::HeaderMap,
}

/// One request, decoded.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) service: Service,
    pub(crate) operation: String,
    pub(crate) principal: Arc<Principal>,
    /// Parameters of the JSON and of the query protocol, as an object.
    pub(crate) params: Value,
    pub(crate) rest: Rest,
    pub(crate) body: Bytes,
    pub(crate) effects: Effects,
    /// How often the handler ran.
    pub(crate) runs: u32,
    pub(crate) detail: Map<String, Value>,
}

impl Call {
    pub(crate) fn new(service: Service, operation: &str, principal: Arc<Principal>, params: Value) -> Self {
        Self {
            service,
            operation: operation.to_owned(),
            principal,
            params,
            rest: Rest::default(),
            body: Bytes::new(),
            effects: Effects::default(),
            runs: 0,
            detail: Map::new(),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str).filter(|s| !s.is_empty())
    }

    pub(crate) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.detail.insert(name.to_owned(), value.into());
    }

    /// What the log shows of the parameters, and what `match` of a fault rule looks at.
    fn describe(&mut self) {
        const SHOWN: [(&str, &str); 18] = [
            ("QueueUrl", "queue"),
            ("QueueName", "queue"),
            ("TopicArn", "topic"),
            ("KeyId", "key"),
            ("SecretId", "secret"),
            ("Name", "name"),
            ("RoleArn", "role"),
            ("RoleSessionName", "session"),
            ("SourceIdentity", "sourceIdentity"),
            ("task", "task"),
            ("tasks", "task"),
            ("taskDefinition", "taskDefinition"),
            ("clientToken", "clientToken"),
            ("startedBy", "startedBy"),
            ("family", "family"),
            ("source", "source"),
            ("state", "state"),
            ("requestId", "requestId"),
        ];
        for (parameter, shown) in SHOWN {
            let value = match self.params.get(parameter) {
                Some(Value::String(s)) if shown == "queue" => json!(s.rsplit('/').next().unwrap_or(s)),
                Some(value @ (Value::String(_) | Value::Array(_))) => value.clone(),
                _ => continue,
            };
            self.detail.insert(shown.to_owned(), value);
        }
        if let Some(entries) = self.params.get("Entries").and_then(Value::as_array) {
            self.detail.insert("entries".to_owned(), json!(entries.len()));
        }
        if !self.rest.bucket.is_empty() {
            self.detail.insert("bucket".to_owned(), json!(self.rest.bucket));
            self.detail.insert("key".to_owned(), json!(self.rest.key));
        }
    }

    /// What is shown of a call that is held.
    fn shown(&self) -> Value {
        json!({
            "service": self.service.name(), "operation": self.operation, "principal": self.principal.role_arn,
            "session": self.principal.session, "detail": self.detail,
        })
    }

    fn subject(&self) -> String {
        let details = self.detail.values().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        details.chain([self.principal.role_arn.clone()]).collect::<Vec<_>>().join(" ")
    }
}

/// What an operation answers, before `wire` gives it the service's form.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(Value),
    /// JSON, already serialised: the hot path.
    JsonText(Vec<u8>),
    /// The inside of `<OperationResult>`.
    Xml(String),
    Rest {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
}

/// The connection is to be dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up, as a fault")]
pub(crate) struct HangUp;

/// Runs one operation, with its faults, and logs it.
pub(crate) async fn dispatch(world: &Arc<World>, call: &mut Call) -> Result<Outcome<Answer>, HangUp> {
    let (at_ms, at_unix_us, began) = (world.log.elapsed_ms(), unix_us(), Instant::now());
    call.describe();
    let service = call.service;
    let found = service.operations().iter().find(|(name, _)| *name == call.operation);
    let result = match found {
        None => {
            let message = format!("{} is not an operation of {} here", call.operation, service.name());
            Ok(Err(AwsError::client("UnknownOperationException", message)))
        }
        Some((_, handler)) => {
            call.effects = world.faults.decide(service, &call.operation, &call.principal.role_arn, || call.subject());
            with_faults(world, *handler, call).await
        }
    };
    let error = match &result {
        Ok(Ok(_)) => None,
        Ok(Err(e)) => Some(format!("{}: {}", e.code, e.message)),
        Err(HangUp) => Some("no answer".to_owned()),
    };
    // As CloudTrail shows it on each call of a session that has one.
    if let Some(identity) = &call.principal.source_identity
        && call.service != Service::Sts
    {
        call.note("sourceIdentity", identity.clone());
    }
    world.log.record(Entry {
        n: 0,
        at_ms,
        at_unix_us,
        took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        service: service.name(),
        operation: call.operation.clone(),
        account: call.principal.account.clone(),
        principal: call.principal.role_arn.clone(),
        session: call.principal.session.clone(),
        ok: error.is_none(),
        error,
        runs: std::mem::take(&mut call.runs),
        faults: std::mem::take(&mut call.effects.list).iter().map(|effect| effect.kind.name()).collect(),
        detail: std::mem::take(&mut call.detail),
    });
    result
}

async fn with_faults(world: &Arc<World>, handler: Handler, call: &mut Call) -> Result<Outcome<Answer>, HangUp> {
    let own = call.service.own_effects(&call.operation);
    if let Some(delay) = call.effects.delay().filter(|_| !own) {
        tokio::time::sleep(delay).await;
    }
    if call.effects.has(Kind::HoldBefore) {
        world.faults.holds.wait(call.effects.plan, call.shown()).await;
    }
    if let Some(lost) = call.effects.get(Kind::TimeoutBefore) {
        tokio::time::sleep(lost.time.unwrap_or_default()).await;
        return Err(HangUp);
    }
    if let Some(error) = call.effects.failure(call.service) {
        return Ok(Err(error));
    }
    if call.effects.has(Kind::Duplicate) && !own {
        // As when the SDK's first answer was lost and it tried again: the caller sees the second answer.
        let _ = run(world, handler, call).await;
    }
    let result = run(world, handler, call).await;
    if call.effects.has(Kind::HoldAfter) {
        world.faults.holds.wait(call.effects.plan, call.shown()).await;
    }
    if let Some(lost) = call.effects.get(Kind::TimeoutAfter) {
        tokio::time::sleep(lost.time.unwrap_or_default()).await;
        return Err(HangUp);
    }
    match call.effects.get(Kind::Crash) {
        None => Ok(result),
        Some(crash) => match crash.time {
            None => {
                world.kill_caller(&call.principal);
                Err(HangUp)
            }
            Some(after) => {
                let (world, caller) = (Arc::clone(world), Arc::clone(&call.principal));
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    world.kill_caller(&caller);
                });
                Ok(result)
            }
        },
    }
}

async fn run(world: &Arc<World>, handler: Handler, call: &mut Call) -> Outcome<Answer> {
    call.runs += 1;
    match handler {
        Handler::Now(f) => f(world, call),
        Handler::Wait(f) => f(world, call).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_duplicates() {
        let all = operations();
        let mut unique = all.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
        assert!(all.contains(&("sqs", "ReceiveMessage")) && all.contains(&("lambda", "Invoke")));
    }

    /// Held before its effect: it has none until the plan is replaced, and then has it. Held after: the effect is there, the answer is not.
    #[tokio::test]
    async fn what_is_held_goes_on_when_the_plan_is_replaced() {
        for (kind, made) in [("hold-before", 0), ("hold-after", 1)] {
            let plan = format!(
                r#"{{"rule":[{{"kind":"{kind}","service":"sqs","operation":"CreateQueue","by":"operator"}}]}}"#
            );
            let plan = crate::faults::Faults::parse(&plan).unwrap();
            let (world, _ended) = World::new(crate::settings::Settings::default(), String::new(), plan);
            let world = Arc::new(world);
            let principal = Arc::new(Principal::role("222222222222", "operator", "test"));
            let mut call = Call::new(Service::Sqs, "CreateQueue", principal, json!({"QueueName": "q"}));
            let queues = || sqs::overview(&world).as_array().map(Vec::len);
            let result = {
                let mut held = std::pin::pin!(dispatch(&world, &mut call));
                assert!(tokio::time::timeout(std::time::Duration::from_millis(20), &mut held).await.is_err(), "{kind}");
                assert_eq!(world.faults.holds.list()[0]["operation"], "CreateQueue");
                assert_eq!(queues(), Some(made), "{kind}");
                world.faults.replace(crate::faults::Plan::default());
                held.await
            };
            assert!(matches!(result, Ok(Ok(_))), "{kind}");
            assert_eq!((queues(), world.faults.holds.list()), (Some(1), json!([])));
        }
    }
}
