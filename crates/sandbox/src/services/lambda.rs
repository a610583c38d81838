//! Lambda: asynchronous invocations with their retries, and the Runtime API that the launcher's
//! processes poll.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::call::{Call, Now};
use super::contract::{Effect, Reaction, Rules, Table};
use super::fault::Kind;
use super::invocation::{Invocation, Timer};
use super::principal::{Principal, REGION, TARGET_ACCOUNT};
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::uuid;

pub(crate) const OPERATIONS: Table<Lambda> = &[("Invoke", Lambda::invoke)];

/// The Runtime API, and `Init` for the start of a process. Faults can kill or delay a process at
/// each of these operations.
pub(crate) const RUNTIME: Table<Lambda> = &[
    ("Init", |_, _, _| Ok(Answer::done().into())),
    ("Next", Lambda::next),
    ("Response", Lambda::response),
    ("Error", Lambda::error),
    ("InitError", Lambda::init_error),
];

/// How long a reordered event waits for another to overtake it, if the fault has no `delay_ms`.
const OVERTAKEN: Duration = Duration::from_secs(1);

/// One attempt and two retries, AWS's default.
const TRIES: u32 = 3;

/// The error of `Next` when another process took the invocation first. The name is the sandbox's
/// own.
pub(crate) const TAKEN: &str = "Taken";

/// Lambda's words for a process that is gone.
const EXITED: &str = "RequestId Error: Runtime exited without providing a reason";

#[derive(Debug)]
pub(crate) struct Lambda {
    retry: [Duration; 2],
    timeout: Duration,
    waiting: VecDeque<Invocation>,
    /// An event that the next one is to overtake.
    held: Option<Invocation>,
    /// By id, with the slot of the process.
    running: HashMap<String, (Invocation, Option<usize>)>,
    dead: Vec<Value>,
    /// Rings when an invocation waits.
    bell: Arc<Notify>,
}

impl Lambda {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            retry: rules.lambda_retry,
            timeout: rules.function_timeout,
            waiting: VecDeque::new(),
            held: None,
            running: HashMap::new(),
            dead: Vec::new(),
            bell: Arc::default(),
        }
    }

    /// Rings when an invocation waits.
    pub(crate) fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// The parameters of `Next` for the first event that `slot` may take. The event stays in the
    /// queue until `Next` hands it out.
    pub(crate) fn peek(&self, slot: Option<usize>) -> Option<Value> {
        let first = self.waiting.iter().find(|waiting| waiting.is_for(slot))?;
        Some(json!({"requestId": first.id, "source": first.source}))
    }

    /// The events whose attempts all failed, for tests.
    pub(crate) fn dead_letters(&self) -> Value {
        Value::Array(self.dead.clone())
    }

    /// A timer is due.
    pub(crate) fn fire(&mut self, timer: Timer, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Add(invocation) => self.add(invocation),
            Timer::Release { id } => {
                if let Some(held) = self.held.take_if(|held| held.id == id) {
                    self.wait(held);
                }
            }
            Timer::Deadline { id, tries, slot } => {
                if self.running.get(&id).is_some_and(|(running, _)| running.tries == tries) {
                    self.end(Some(&id), Some("Task timed out".to_owned()), effects);
                    // AWS ends the process and starts another.
                    effects.extend(slot.map(Effect::KillLauncher));
                }
            }
        }
    }

    /// Ends an invocation. A failed one is retried later, or becomes a dead letter. Returns `false`
    /// if it was not running.
    pub(crate) fn end(&mut self, id: Option<&str>, failure: Option<String>, effects: &mut Vec<Effect>) -> bool {
        let Some((invocation, _)) = id.and_then(|id| self.running.remove(id)) else { return false };
        let mut detail = Map::new();
        detail.insert("requestId".to_owned(), json!(invocation.id));
        detail.insert("source".to_owned(), json!(invocation.source));
        detail.insert("tries".to_owned(), json!(invocation.tries));
        let mut note = |operation| {
            let (error, detail) = (failure.clone(), detail.clone());
            effects.push(Effect::Note { service: "lambda", operation, error, detail });
        };
        note("InvocationEnded");
        let Some(error) = &failure else { return true };
        if invocation.tries >= TRIES {
            note("DeadLetter");
            let event = String::from_utf8_lossy(&invocation.event).into_owned();
            self.dead.push(json!({"requestId": invocation.id, "error": error, "event": event}));
        } else {
            let [first, second] = self.retry;
            let wait = if invocation.tries == 1 { first } else { second };
            effects.push(Effect::Later(wait, Timer::Add(invocation)));
        }
        true
    }

    /// A process of the function has ended, so its invocations have failed.
    pub(crate) fn process_ended(&mut self, slot: usize, effects: &mut Vec<Effect>) {
        let held = self.running.iter().filter(|(_, (_, holder))| *holder == Some(slot));
        let held: Vec<String> = held.map(|(id, _)| id.clone()).collect();
        for id in held {
            self.exited(Some(&id), effects);
        }
    }

    /// The process that was running this invocation is gone.
    pub(crate) fn exited(&mut self, id: Option<&str>, effects: &mut Vec<Effect>) {
        self.end(id, Some(EXITED.to_owned()), effects);
    }

    /// A process ended before it asked for its first event: the invocation that it was started for
    /// has failed.
    pub(crate) fn init_failed(&mut self, effects: &mut Vec<Effect>) {
        if let Some(mut invocation) = self.waiting.pop_front() {
            invocation.tries += 1;
            let id = invocation.id.clone();
            self.running.insert(id.clone(), (invocation, None));
            self.exited(Some(&id), effects);
        }
    }

    fn wait(&mut self, invocation: Invocation) {
        self.waiting.push_back(invocation);
        self.bell.notify_one();
    }

    fn add(&mut self, invocation: Invocation) {
        self.wait(invocation);
        self.waiting.extend(self.held.take());
    }

    /// Accepts an event.
    fn invoke(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        if call.faults.has(Kind::Lost) {
            return Ok(Answer::done().into());
        }
        let source = call.params.text_or_empty("source").to_owned();
        let copies = if call.faults.has(Kind::Duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let id = uuid();
            call.note("requestId", id.as_str());
            let event = call.body.clone();
            let invocation = Invocation { id: id.clone(), source: source.clone(), event, tries: 0, cold: None };
            match (call.faults.delay(), call.faults.get(Kind::Reorder)) {
                (Some(delay), _) => effects.push(Effect::Later(delay, Timer::Add(invocation))),
                (None, None) => self.add(invocation),
                (None, Some(reorder)) => {
                    if let Some(before) = self.held.replace(invocation) {
                        self.wait(before);
                    }
                    effects.push(Effect::Later(reorder.time.unwrap_or(OVERTAKEN), Timer::Release { id }));
                }
            }
        }
        Ok(Answer::done().into())
    }

    /// Hands an invocation out, to the slot that asks.
    fn next(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        let slot = call.principal.slot;
        let taken = || AwsError::new(500, TAKEN, "another process was faster");
        let at = self.waiting.iter().position(|waiting| Some(waiting.id.as_str()) == call.text("requestId"));
        let at = at.ok_or_else(taken)?;
        if call.faults.has(Kind::ColdStart)
            && let (Some(slot), Some(waiting)) = (slot, self.waiting.get_mut(at))
            && waiting.cold.is_none()
        {
            waiting.cold = Some(slot);
            effects.push(Effect::KillLauncher(slot));
            return Err(AwsError::new(500, "InternalFailure", "this process will be restarted for a cold start"));
        }
        let mut invocation = self.waiting.remove(at).ok_or_else(taken)?;
        invocation.tries += 1;
        let (id, tries) = (invocation.id.clone(), invocation.tries);
        self.running.insert(id.clone(), (invocation.clone(), slot));
        if !self.waiting.is_empty() {
            // One notification wakes one poller; there is work for another.
            self.bell.notify_one();
        }
        effects.push(Effect::Later(self.timeout, Timer::Deadline { id, tries, slot }));
        let headers = self.headers(call.now, invocation.id);
        Ok(Answer::Rest { status: 200, headers, body: invocation.event }.into())
    }

    fn headers(&self, now: Now, id: String) -> Vec<(&'static str, String)> {
        let deadline = now.ms.saturating_add(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX));
        let function = format!("arn:aws:lambda:{REGION}:{TARGET_ACCOUNT}:function:relay-launcher");
        vec![
            ("content-type", "application/json".to_owned()),
            ("lambda-runtime-aws-request-id", id),
            ("lambda-runtime-deadline-ms", deadline.to_string()),
            ("lambda-runtime-invoked-function-arn", function),
            ("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0".to_owned()),
        ]
    }

    fn response(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        accepted(self.end(call.text("requestId"), None, effects))
    }

    fn error(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        accepted(self.end(call.text("requestId"), Some(words(call)), effects))
    }

    fn init_error(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (error, detail) = (Some(words(call)), Map::new());
        effects.push(Effect::Note { service: "lambda", operation: "InitError", error, detail });
        accepted(true)
    }
}

fn words(call: &Call) -> String {
    String::from_utf8_lossy(&call.body).into_owned()
}

fn accepted(known: bool) -> Outcome<Reaction> {
    match known {
        true => {
            let body = Bytes::from_static(br#"{"status":"OK"}"#);
            Ok(Answer::Rest { status: 202, headers: Vec::new(), body }.into())
        }
        false => Err(AwsError::client("InvalidRequestID", "Invalid request ID")),
    }
}

/// The launcher as a caller. `slot` is its process, if that is one of the sandbox's own.
pub(crate) fn launcher(slot: Option<usize>) -> Principal {
    Principal { slot, ..Principal::role(TARGET_ACCOUNT, "relay/relay-launcher", "relay-launcher") }
}
