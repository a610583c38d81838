//! Lambda: asynchronous invocations with their retries, and the Runtime API that the launcher's processes poll.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::clock::{now_ms, uuid};
use crate::dispatch::{Answer, Call, Handler, HangUp, Service, dispatch};
use crate::error::{AwsError, Outcome};
use crate::iam::Principal;
use crate::kinds::Kind;
use crate::wire::{Reply, plain_json, with_headers};
use crate::world::World;
use crate::{REGION, TARGET_ACCOUNT};

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[("Invoke", Handler::Now(enqueue))];

/// The Runtime API, and `Init`: that a process is started. So a process can be made to die, or to be slow, at each of them.
pub(crate) const RUNTIME: &[(&str, Handler)] = &[
    ("Init", Handler::Now(|_, _| Ok(Answer::Json(json!({}))))),
    ("Next", Handler::Now(next)),
    ("Response", Handler::Now(|world, call| accepted(Lambda::end(world, call.text("requestId"), None)))),
    ("Error", Handler::Now(|world, call| accepted(Lambda::end(world, call.text("requestId"), Some(words(call)))))),
    ("InitError", Handler::Now(init_error)),
];

/// How long an event waits for the next one that is to overtake it, when a fault does not say it.
const OVERTAKEN: Duration = Duration::from_secs(1);

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
    /// To be overtaken by the next one.
    held: Option<Invocation>,
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
    /// A process of this slot is started for it, and no other may have it.
    cold: Option<usize>,
}

impl Invocation {
    fn is_for(&self, slot: Option<usize>) -> bool {
        self.cold.is_none() || self.cold == slot
    }
}

impl Lambda {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts an event, at once or later; its faults are those of the operation `lambda:Invoke`.
    pub(crate) fn invoke(&self, world: &Arc<World>, source: &str, event: Value, delay: Duration) {
        let world = Arc::clone(world);
        let principal = Arc::new(Principal::role(TARGET_ACCOUNT, "sandbox", source));
        // What a rule can tell one event of a task from another by.
        let state = event.pointer("/detail/lastStatus").and_then(Value::as_str).unwrap_or_default();
        let mut call = Call::new(Service::Lambda, "Invoke", principal, json!({"source": source, "state": state}));
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
        let mut state = self.lock();
        state.waiting.push_back(invocation);
        let overtaken = state.held.take();
        state.waiting.extend(overtaken);
        self.arrived.notify_one();
    }

    /// Holds an invocation back until the next one was added, at most for so long.
    fn hold(world: &Arc<World>, invocation: Invocation, most: Duration) {
        let id = invocation.id.clone();
        let before = world.lambda.lock().held.replace(invocation);
        if let Some(before) = before {
            world.lambda.lock().waiting.push_back(before);
            world.lambda.arrived.notify_one();
        }
        let world = Arc::clone(world);
        tokio::spawn(async move {
            tokio::time::sleep(most).await;
            let mut state = world.lambda.lock();
            if let Some(held) = state.held.take_if(|held| held.id == id) {
                state.waiting.push_back(held);
                world.lambda.arrived.notify_one();
            }
        });
    }

    /// What never succeeded, for tests.
    pub(crate) fn dead_letters(&self) -> Value {
        Value::Array(self.lock().dead.clone())
    }

    /// Ends an invocation; a failed one is tried again later, or becomes a dead letter.
    fn end(world: &Arc<World>, id: Option<&str>, failure: Option<String>) -> bool {
        let Some((invocation, _)) = id.and_then(|id| world.lambda.lock().running.remove(id)) else { return false };
        let id = invocation.id.as_str();
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
            Self::end(world, Some(&id), Some(EXITED.to_owned()));
        }
    }

    /// A process died before it asked for its first event: the invocation that it was started for has failed.
    pub(crate) fn init_failed(world: &Arc<World>) {
        let taken = {
            let mut state = world.lambda.lock();
            state.waiting.pop_front().map(|mut invocation| {
                invocation.tries += 1;
                let id = invocation.id.clone();
                state.running.insert(id.clone(), (invocation, None));
                id
            })
        };
        Self::end(world, taken.as_deref(), Some(EXITED.to_owned()));
    }

    /// Waits for the first event for a slot; it stays first until `next` hands it out.
    async fn waiting(&self, slot: Option<usize>) -> Value {
        loop {
            let arrived = self.arrived.notified();
            if let Some(first) = self.lock().waiting.iter().find(|waiting| waiting.is_for(slot)) {
                return json!({"requestId": first.id, "source": first.source});
            }
            arrived.await;
        }
    }
}

/// The sandbox's own code: what was there when a process was woken has gone to another.
const FASTER: &str = "Faster";

/// Lambda's words for a process that is gone.
const EXITED: &str = "RequestId Error: Runtime exited without providing a reason";

/// Hands an invocation out, to the slot that asks.
fn next(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let slot = call.principal.slot;
    let mut state = world.lambda.lock();
    let at = state.waiting.iter().position(|waiting| Some(waiting.id.as_str()) == call.text("requestId"));
    if call.effects.has(Kind::ColdStart)
        && let (Some(slot), Some(waiting)) = (slot, at.and_then(|at| state.waiting.get_mut(at)))
        && waiting.cold.is_none()
    {
        waiting.cold = Some(slot);
        world.launchers.kill(slot);
        return Err(AwsError::new(500, "InternalFailure", "this process is to be started anew"));
    }
    let taken = at.and_then(|at| state.waiting.remove(at));
    let mut invocation = taken.ok_or_else(|| AwsError::new(500, FASTER, "another process was faster"))?;
    invocation.tries += 1;
    state.running.insert(invocation.id.clone(), (invocation.clone(), slot));
    if !state.waiting.is_empty() {
        // One notification wakes one poller; there is work for another.
        world.lambda.arrived.notify_one();
    }
    drop(state);
    watch_deadline(world, &invocation, slot);
    let timeout = world.settings.function_timeout;
    let deadline = now_ms().saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    let arn = format!("arn:aws:lambda:{REGION}:{TARGET_ACCOUNT}:function:relay-launcher");
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("lambda-runtime-aws-request-id", invocation.id),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", arn),
        ("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0".to_owned()),
    ];
    Ok(Answer::Rest { status: 200, headers, body: invocation.event })
}

fn words(call: &Call) -> String {
    String::from_utf8_lossy(&call.body).into_owned()
}

fn accepted(known: bool) -> Outcome<Answer> {
    match known {
        true => Ok(Answer::Rest { status: 202, headers: Vec::new(), body: Bytes::from_static(br#"{"status":"OK"}"#) }),
        false => Err(AwsError::client("InvalidRequestID", "Invalid request ID")),
    }
}

fn init_error(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    world.log.note("lambda", "InitError", Some(words(call)), Map::new());
    accepted(true)
}

/// The operation behind `invoke`, reached through `dispatch` like any other.
fn enqueue(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let source = call.text("source").unwrap_or_default().to_owned();
    if call.effects.has(Kind::Lost) {
        return Ok(Answer::Json(json!({})));
    }
    let copies = if call.effects.has(Kind::Duplicate) { 2 } else { 1 };
    for _ in 0..copies {
        let id = uuid();
        call.note("requestId", id.as_str());
        let invocation = Invocation { id, source: source.clone(), event: call.body.clone(), tries: 0, cold: None };
        match (call.effects.delay(), call.effects.get(Kind::Reorder)) {
            (None, None) => world.lambda.add(invocation),
            (None, Some(reorder)) => Lambda::hold(world, invocation, reorder.time.unwrap_or(OVERTAKEN)),
            (Some(delay), _) => {
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
    body: Bytes,
) -> Result<Reply, HangUp> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
    let (operation, id) = match (method.as_str(), parts.as_slice()) {
        ("GET", ["invocation", "next"]) => ("Next", None),
        ("POST", ["invocation", id, "response"]) => ("Response", Some(*id)),
        ("POST", ["invocation", id, "error"]) => ("Error", Some(*id)),
        ("POST", ["init", "error"]) => ("InitError", None),
        _ => return Ok(plain_json(404, &json!({"errorMessage": "no such path", "errorType": "NotFound"}))),
    };
    loop {
        let params = if operation == "Next" { world.lambda.waiting(slot).await } else { json!({"requestId": id}) };
        let mut call = Call::new(Service::Runtime, operation, Arc::new(launcher(slot)), params);
        call.body = body.clone();
        let id = call.text("requestId").map(str::to_owned);
        let failed = |status, kind: &str, words: &str| {
            Ok(plain_json(status, &json!({"errorMessage": words, "errorType": kind})))
        };
        return match dispatch(world, &mut call).await {
            Ok(Ok(Answer::Rest { status, headers, body })) => Ok(with_headers(status, headers, body)),
            Ok(Ok(_)) => failed(500, "InternalFailure", "an answer of another form"),
            Ok(Err(error)) if error.code == FASTER => continue,
            Ok(Err(error)) => failed(error.status, &error.code, &error.message),
            Err(HangUp) => {
                // A process that is not the sandbox's own cannot be killed, but what it had in hand has failed.
                if slot.is_none() {
                    Lambda::end(world, id.as_deref(), Some(EXITED.to_owned()));
                }
                Err(HangUp)
            }
        };
    }
}

/// The launcher as a caller.
pub(crate) fn launcher(slot: Option<usize>) -> Principal {
    Principal { slot, ..Principal::role(TARGET_ACCOUNT, "relay/relay-launcher", "relay-launcher") }
}

/// Ends the invocation at the function's time-out; the process is then killed and started anew, as AWS does.
fn watch_deadline(world: &Arc<World>, invocation: &Invocation, slot: Option<usize>) {
    let (world, id, tries) = (Arc::clone(world), invocation.id.clone(), invocation.tries);
    tokio::spawn(async move {
        tokio::time::sleep(world.settings.function_timeout).await;
        let same = world.lambda.lock().running.get(&id).is_some_and(|(i, _)| i.tries == tries);
        if same {
            Lambda::end(&world, Some(&id), Some("Task timed out".to_owned()));
            if let Some(slot) = slot {
                world.launchers.kill(slot);
            }
        }
    });
}
