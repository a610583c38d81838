//! Lambda: asynchronous invocations with their retries, and the Runtime API that the launcher's processes poll.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::clock::{now_ms, uuid};
use crate::dispatch::{Answer, Call, Handler, Service, dispatch};
use crate::error::Outcome;
use crate::iam::Principal;
use crate::wire::{Reply, plain_json, with_headers};
use crate::world::World;
use crate::{REGION, TARGET_ACCOUNT};

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[("Invoke", Handler::Now(enqueue))];

/// A try and two more, as AWS does by default.
const TRIES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct Lambda {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Invocation>,
    running: HashMap<String, (Invocation, Option<usize>)>,
    dead: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Invocation {
    /// The same for each retry, as AWS has it.
    id: String,
    source: String,
    event: Bytes,
    tries: u32,
}

impl Lambda {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts an event, at once or later; its faults are those of the operation `lambda:Invoke`.
    pub(crate) fn invoke(&self, world: &Arc<World>, source: &str, event: Value, delay: Duration) {
        let world = Arc::clone(world);
        let principal = Arc::new(Principal::role(TARGET_ACCOUNT, "sandbox", source));
        let mut call = Call::new(Service::Lambda, "Invoke", principal, json!({"source": source}));
        call.body = Bytes::from(event.to_string());
        tokio::spawn(async move {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            // A throttled or failed invocation is tried again by the service that has the event.
            for pause in [50, 100, 200, 400, 800, 1600, 3200, 6400] {
                let accepted = matches!(dispatch(&world, &mut call).await, Ok(Ok(_)));
                if accepted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            world.log.note("lambda", "EventLost", Some("never accepted".to_owned()), Map::new());
        });
    }

    fn add(&self, invocation: Invocation) {
        self.lock().waiting.push_back(invocation);
        self.arrived.notify_one();
    }

    /// What never succeeded, for tests.
    pub(crate) fn dead_letters(&self) -> Value {
        Value::Array(self.lock().dead.clone())
    }

    /// Ends an invocation; a failed one is tried again later, or becomes a dead letter.
    fn end(world: &Arc<World>, id: &str, failure: Option<String>) -> bool {
        let Some((invocation, _)) = world.lambda.lock().running.remove(id) else { return false };
        let mut detail = Map::new();
        detail.insert("requestId".to_owned(), json!(id));
        detail.insert("source".to_owned(), json!(invocation.source));
        detail.insert("tries".to_owned(), json!(invocation.tries));
        world.log.note("lambda", "InvocationEnded", failure.clone(), detail.clone());
        let Some(failure) = failure else { return true };
        if invocation.tries >= TRIES {
            world.log.note("lambda", "DeadLetter", Some(failure.clone()), detail);
            let event = String::from_utf8_lossy(&invocation.event).into_owned();
            world.lambda.lock().dead.push(json!({"requestId": id, "error": failure, "event": event}));
            return true;
        }
        let wait = if invocation.tries == 1 { world.settings.lambda_retry[0] } else { world.settings.lambda_retry[1] };
        let world = Arc::clone(world);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            world.lambda.add(invocation);
        });
        true
    }

    /// The launcher's process of this slot is gone: what it had in hand has failed.
    pub(crate) fn process_died(world: &Arc<World>, slot: usize) {
        let held: Vec<String> = {
            let state = world.lambda.lock();
            state.running.iter().filter(|(_, (_, s))| *s == Some(slot)).map(|(id, _)| id.clone()).collect()
        };
        for id in held {
            Self::end(world, &id, Some("Runtime exited without providing a reason".to_owned()));
        }
    }

    async fn next(&self, slot: Option<usize>) -> Invocation {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.lock();
                if let Some(mut invocation) = state.waiting.pop_front() {
                    invocation.tries += 1;
                    state.running.insert(invocation.id.clone(), (invocation.clone(), slot));
                    if !state.waiting.is_empty() {
                        // One notification wakes one poller; there is work for another.
                        self.arrived.notify_one();
                    }
                    return invocation;
                }
            }
            arrived.await;
        }
    }
}

/// The operation behind `invoke`, reached through `dispatch` like any other.
fn enqueue(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let source = call.text("source").unwrap_or_default().to_owned();
    let copies = if call.effects.duplicate { 2 } else { 1 };
    for _ in 0..copies {
        let invocation = Invocation { id: uuid(), source: source.clone(), event: call.body.clone(), tries: 0 };
        call.note("requestId", invocation.id.as_str());
        match call.effects.delay {
            None => world.lambda.add(invocation),
            Some(delay) => {
                let world = Arc::clone(world);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    world.lambda.add(invocation);
                });
            }
        }
    }
    Ok(Answer::Json(json!({})))
}

/// The Runtime API, `/2018-06-01/runtime/…`. `slot` is the launcher's process that asks, if it is one of the sandbox's own.
pub(crate) async fn runtime_api(
    world: &Arc<World>,
    slot: Option<usize>,
    method: &hyper::Method,
    path: &str,
    body: &Bytes,
) -> Reply {
    let parts: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["invocation", "next"]) => {
            let invocation = world.lambda.next(slot).await;
            let timeout = world.settings.function_timeout;
            let deadline = now_ms().saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            watch_deadline(world, &invocation, slot);
            let arn = format!("arn:aws:lambda:{REGION}:{TARGET_ACCOUNT}:function:relay-launcher");
            let headers = vec![
                ("content-type", "application/json".to_owned()),
                ("lambda-runtime-aws-request-id", invocation.id),
                ("lambda-runtime-deadline-ms", deadline.to_string()),
                ("lambda-runtime-invoked-function-arn", arn),
                ("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0".to_owned()),
            ];
            with_headers(200, headers, invocation.event)
        }
        ("POST", ["invocation", id, "response"]) => accepted(Lambda::end(world, id, None)),
        ("POST", ["invocation", id, "error"]) => {
            let text = String::from_utf8_lossy(body).into_owned();
            accepted(Lambda::end(world, id, Some(text)))
        }
        ("POST", ["init", "error"]) => {
            world.log.note("lambda", "InitError", Some(String::from_utf8_lossy(body).into_owned()), Map::new());
            accepted(true)
        }
        _ => plain_json(404, &json!({"errorMessage": "no such path", "errorType": "NotFound"})),
    }
}

fn accepted(known: bool) -> Reply {
    if known {
        plain_json(202, &json!({"status": "OK"}))
    } else {
        plain_json(400, &json!({"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}))
    }
}

/// Ends the invocation at the function's time-out; the process is then killed and started anew, as AWS does.
fn watch_deadline(world: &Arc<World>, invocation: &Invocation, slot: Option<usize>) {
    let (world, id, tries) = (Arc::clone(world), invocation.id.clone(), invocation.tries);
    tokio::spawn(async move {
        tokio::time::sleep(world.settings.function_timeout).await;
        let same = world.lambda.lock().running.get(&id).is_some_and(|(i, _)| i.tries == tries);
        if same {
            Lambda::end(&world, &id, Some("Task timed out".to_owned()));
            if let Some(slot) = slot {
                world.launchers.kill(slot);
            }
        }
    });
}
