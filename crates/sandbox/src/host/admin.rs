//! The sandbox's own paths under `/_sandbox/`: credentials and metadata for tasks, the log, the
//! fault rules, and manual invocation of the launcher.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::dispatch::{HangUp, dispatch};
use super::effects::invoke;
use super::faults::{FaultRules, kinds_of_faults};
use super::shared::Host;
use super::{functions, issuers, tasks};
use crate::services::principal::Principal;
use crate::services::{Call, Now, TARGET_ACCOUNT, lock, operations};
use crate::wire::answer::{Answer, Reply, plain, plain_json};
use crate::wire::request::Request;
use crate::wire::service::Service;

pub(super) async fn respond(host: &Arc<Host>, method: &Method, path: &str, body: &Bytes) -> Result<Reply, HangUp> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["credentials", task]) => task_path(host, Service::Credentials, json!({"task": task})).await,
        ("GET", ["metadata", task]) => {
            task_path(host, Service::Metadata, json!({"task": task, "part": "container"})).await
        }
        ("GET", ["metadata", task, "task"]) => {
            task_path(host, Service::Metadata, json!({"task": task, "part": "task"})).await
        }
        ("GET", ["log"]) => Ok(plain(200, "application/x-ndjson", host.log.json_lines())),
        ("GET", ["held"]) => Ok(plain_json(200, &host.faults.holds.list())),
        ("GET", ["tasks"]) => Ok(plain_json(200, &tasks::overview(host))),
        ("GET", ["queues"]) => Ok(plain_json(200, &lock(&host.services.sqs).overview(Now::read()))),
        ("GET", ["dead-letters"]) => Ok(plain_json(200, &lock(&host.services.lambda).dead_letters())),
        ("GET", ["launchers"]) => Ok(plain_json(200, &json!(host.launchers.pids()))),
        ("GET", ["operations"]) => Ok(plain_json(200, &json!(operations()))),
        ("GET", ["faults"]) => Ok(plain_json(200, &json!(kinds_of_faults()))),
        ("POST", ["faults"]) => Ok(match FaultRules::parse(&String::from_utf8_lossy(body)) {
            Ok(plan) => {
                host.faults.replace(plan);
                plain_json(200, &json!({}))
            }
            Err(error) => plain_json(400, &json!({"error": error})),
        }),
        ("POST", ["keys", "rotate"]) => {
            lock(&host.services.github).rotate();
            Ok(plain_json(200, &json!({})))
        }
        ("POST", ["keys", "fetch"]) => {
            issuers::fetch_keys(host).await;
            Ok(plain_json(200, &json!({})))
        }
        ("POST", ["ledger"]) => {
            let key = host.ledger_key.get().cloned().unwrap_or_default();
            let environment = vec![
                ("RELAY_EVIDENCE_BUCKET", host.evidence()),
                ("RELAY_LEDGER_KEY", key),
                // An entry a second, so that nobody has to wait for an hour.
                ("RELAY_LEDGER_PERIOD", "1".to_owned()),
            ];
            Ok(match functions::run(host, "ledger", environment).await {
                Ok(()) => plain_json(200, &json!({})),
                Err(problem) => plain_json(500, &json!({"error": problem})),
            })
        }
        ("POST", ["invoke"]) => Ok(match serde_json::from_slice::<Value>(body) {
            Ok(event) => {
                invoke(host, "admin", event, Duration::ZERO);
                plain_json(202, &json!({}))
            }
            Err(error) => plain_json(400, &json!({"error": error.to_string()})),
        }),
        _ => Ok(plain_json(404, &json!({"error": "no such path"}))),
    }
}

async fn task_path(host: &Arc<Host>, service: Service, params: Value) -> Result<Reply, HangUp> {
    // The session is named after the task, so that a `crash` fault finds the process to kill.
    let task = params.get("task").and_then(Value::as_str).unwrap_or_default();
    let principal = Arc::new(Principal::role(TARGET_ACCOUNT, "sandbox", task));
    let mut call = Call::new(Request::new(service, "Get", params), principal);
    Ok(match dispatch(host, &mut call).await? {
        Ok(Answer::Json(value)) => plain_json(200, &value),
        Ok(_) => plain_json(500, &json!({"code": "InternalFailure"})),
        Err(error) => plain_json(error.status, &json!({"code": error.code, "message": error.message})),
    })
}
