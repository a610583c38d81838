//! One call: what is asked, by whom, when, and what is to go wrong with it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::fault::Faults;
use super::principal::Principal;
use crate::wire::parameters::Parameters;
use crate::wire::request::{Request, Rest};
use crate::wire::service::Service;
use crate::wire::times::now_ms;

/// The moment of a call, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// Milliseconds since the Unix epoch.
    pub(crate) ms: u64,
    pub(crate) instant: Instant,
}

impl Now {
    /// This moment.
    pub(crate) fn read() -> Self {
        Self { ms: now_ms(), instant: Instant::now() }
    }
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) service: Service,
    pub(crate) operation: String,
    pub(crate) principal: Arc<Principal>,
    pub(crate) params: Parameters,
    pub(crate) rest: Rest,
    pub(crate) body: Bytes,
    /// When the call was first run. A call that waits is run again, with a new `now`.
    pub(crate) began: Instant,
    pub(crate) now: Now,
    pub(crate) faults: Faults,
    /// The details that the log shows.
    pub(crate) detail: Map<String, Value>,
}

/// Parameters that the log shows, and under which name.
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

impl Call {
    /// A call of `principal` with the contents of `request`.
    pub(crate) fn new(request: Request, principal: Arc<Principal>) -> Self {
        let Request { service, operation, params, rest, body } = request;
        let now = Now::read();
        let mut call = Self {
            service,
            operation,
            principal,
            params,
            rest,
            body,
            began: now.instant,
            now,
            faults: Faults::default(),
            detail: Map::new(),
        };
        call.describe();
        call
    }

    /// A text parameter that is not empty.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.params.text(name)
    }

    /// Adds a detail to the log entry.
    pub(crate) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.detail.insert(name.to_owned(), value.into());
    }

    /// Adds the parameters that the log shows, and that a fault rule's `match` is compared with.
    fn describe(&mut self) {
        for (parameter, shown) in SHOWN {
            let value = match self.params.get(parameter) {
                Some(Value::String(text)) if shown == "queue" => json!(text.rsplit('/').next().unwrap_or(text)),
                Some(value @ (Value::String(_) | Value::Array(_))) => value.clone(),
                _ => continue,
            };
            self.detail.insert(shown.to_owned(), value);
        }
        if self.params.get("Entries").is_some() {
            self.note("entries", self.params.list("Entries").len());
        }
        if !self.rest.bucket.is_empty() {
            self.note("bucket", self.rest.bucket.clone());
            self.note("key", self.rest.key.clone());
        }
    }

    /// The entry for this call in `/_sandbox/held`.
    pub(crate) fn shown(&self) -> Value {
        json!({
            "service": self.service.name(), "operation": self.operation, "principal": self.principal.role_arn,
            "session": self.principal.session, "detail": self.detail,
        })
    }

    /// The text in which a fault rule's `match` is searched.
    pub(crate) fn subject(&self) -> String {
        let details = self.detail.values().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        details.chain([self.principal.role_arn.clone()]).collect::<Vec<_>>().join(" ")
    }
}
