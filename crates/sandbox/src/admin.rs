//! The sandbox's own paths under `/_sandbox/`: credentials and metadata for tasks, the log, faults, and events by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use crate::TARGET_ACCOUNT;
use crate::dispatch::{Answer, Call, HangUp, Service, dispatch};
use crate::faults::Faults;
use crate::iam::Principal;
use crate::wire::{Reply, plain, plain_json};
use crate::world::World;
use crate::{ecs, sqs};

pub(crate) async fn respond(world: &Arc<World>, method: &Method, path: &str, body: &Bytes) -> Result<Reply, HangUp> {
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["credentials", task]) => task_path(world, Service::Credentials, json!({"task": task})).await,
        ("GET", ["metadata", task]) => {
            task_path(world, Service::Metadata, json!({"task": task, "part": "container"})).await
        }
        ("GET", ["metadata", task, "task"]) => {
            task_path(world, Service::Metadata, json!({"task": task, "part": "task"})).await
        }
        ("GET", ["log"]) => Ok(plain(200, "application/x-ndjson", world.log.json_lines())),
        ("GET", ["held"]) => Ok(plain_json(200, &world.faults.holds.list())),
        ("GET", ["tasks"]) => Ok(plain_json(200, &ecs::overview(world))),
        ("GET", ["queues"]) => Ok(plain_json(200, &sqs::overview(world))),
        ("GET", ["dead-letters"]) => Ok(plain_json(200, &world.lambda.dead_letters())),
        ("GET", ["launchers"]) => Ok(plain_json(200, &json!(world.launchers.pids()))),
        ("GET", ["operations"]) => Ok(plain_json(200, &json!(crate::operations()))),
        ("POST", ["faults"]) => Ok(match Faults::parse(&String::from_utf8_lossy(body)) {
            Ok(plan) => {
                world.faults.replace(plan);
                plain_json(200, &json!({}))
            }
            Err(error) => plain_json(400, &json!({"error": error})),
        }),
        ("POST", ["invoke"]) => Ok(match serde_json::from_slice::<Value>(body) {
            Ok(event) => {
                world.lambda.invoke(world, "admin", event, Duration::ZERO);
                plain_json(202, &json!({}))
            }
            Err(error) => plain_json(400, &json!({"error": error.to_string()})),
        }),
        _ => Ok(plain_json(404, &json!({"error": "no such path"}))),
    }
}

async fn task_path(world: &Arc<World>, service: Service, params: Value) -> Result<Reply, HangUp> {
    let principal = Arc::new(Principal::role(TARGET_ACCOUNT, "sandbox", "task"));
    let mut call = Call::new(service, "Get", principal, params);
    Ok(match dispatch(world, &mut call).await? {
        Ok(Answer::Json(value)) => plain_json(200, &value),
        Ok(_) => plain_json(500, &json!({"code": "InternalFailure"})),
        Err(error) => plain_json(error.status, &json!({"code": error.code, "message": error.message})),
    })
}
