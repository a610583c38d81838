//! SQS standard queues. This file has the operations on queues, `messages` those on messages, and
//! `queue` the data.

mod messages;
mod queue;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::call::{Call, Now};
use super::contract::{Effect, Reaction, Rules, Table};
use super::fault::Kind;
use super::resource_policy::{Policy, authorise};
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use queue::Queue;

pub(crate) const OPERATIONS: Table<Sqs> = &[
    ("CreateQueue", Sqs::create),
    ("DeleteQueue", Sqs::delete_queue),
    ("ListQueues", Sqs::list),
    ("GetQueueAttributes", Sqs::get_attributes),
    ("TagQueue", Sqs::tag),
    ("ListQueueTags", Sqs::list_tags),
    ("SendMessage", Sqs::send),
    ("SendMessageBatch", Sqs::send_batch),
    ("ReceiveMessage", Sqs::receive),
    ("DeleteMessage", Sqs::delete),
    ("DeleteMessageBatch", Sqs::delete_batch),
];

/// How long a `not-visible` fault hides a new queue, if it has no `delay_ms`.
const HIDDEN: Duration = Duration::from_secs(1);

/// Maximum number of tags of a queue.
const TAGS_MAX: usize = 50;

/// Account and name.
type Address = (String, String);

#[derive(Debug)]
pub(crate) struct Sqs {
    /// A name cannot be used again for this long after DeleteQueue.
    deleted_recently: Duration,
    queues: HashMap<Address, Queue>,
    deleted: HashMap<Address, Instant>,
}

/// Whether a queue policy can grant the operation to another account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    ByPolicy,
    Never,
}

impl Sqs {
    pub(crate) fn new(rules: Rules) -> Self {
        Self { deleted_recently: rules.queue_deleted_recently, queues: HashMap::new(), deleted: HashMap::new() }
    }

    /// Finds the queue that a call names, and checks that the caller may use it for this operation.
    fn queue(&mut self, call: &Call, grant: Grant) -> Outcome<&mut Queue> {
        let queue = self.queues.get_mut(&address(call)?).filter(|queue| queue.visible_at <= call.now.instant);
        let queue =
            queue.ok_or_else(|| AwsError::client("QueueDoesNotExist", "The specified queue does not exist."))?;
        let policy = queue.policy.as_ref().filter(|_| grant == Grant::ByPolicy || is_own(queue, call));
        let action = format!("sqs:{}", call.operation.trim_end_matches("Batch"));
        authorise(&queue.account, policy, &call.principal, &action, &queue.arn())?;
        Ok(queue)
    }

    fn create(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let name = call.params.text_or_empty("QueueName").to_owned();
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 80 || !name.bytes().all(legal) {
            return Err(bad("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"));
        }
        let attributes = call.params.text_map("Attributes");
        let key = (call.principal.account.clone(), name.clone());
        if let Some(existing) = self.queues.get(&key) {
            // Only the attributes that the request names are compared.
            if attributes.iter().any(|(name, value)| existing.attributes.get(name) != Some(value)) {
                let message = "A queue already exists with the same name and a different value for an attribute.";
                return Err(AwsError::client("QueueNameExists", message));
            }
            return Ok(Answer::Json(json!({"QueueUrl": existing.url()})).into());
        }
        let recently = |deleted: &Instant| call.now.instant.duration_since(*deleted) < self.deleted_recently;
        if self.deleted.get(&key).is_some_and(recently) {
            let message =
                "You must wait 60 seconds after deleting a queue before you can create another with the same name.";
            return Err(AwsError::client("QueueDeletedRecently", message));
        }
        let hidden = call.faults.get(Kind::NotVisible).map(|fault| fault.time.unwrap_or(HIDDEN)).unwrap_or_default();
        let mut queue = Queue::new(&key.0, &name, call.now, hidden);
        apply(&mut queue, attributes)?;
        queue.tags = call.params.text_map("tags");
        queue.tags.extend(call.params.text_map("Tags"));
        let url = queue.url();
        self.queues.insert(key, queue);
        Ok(Answer::Json(json!({"QueueUrl": url})).into())
    }

    fn delete_queue(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let bell = Arc::clone(&self.queue(call, Grant::Never)?.arrived);
        let address = address(call)?;
        self.queues.remove(&address);
        self.deleted.insert(address, call.now.instant);
        // Wake waiting receives, so that they notice that the queue is gone.
        bell.notify_waiters();
        Ok(Answer::done().into())
    }

    fn list(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (prefix, after) = (call.params.text_or_empty("QueueNamePrefix"), call.params.text_or_empty("NextToken"));
        let most = call.params.number("MaxResults");
        let limit = usize::try_from(most.unwrap_or(1000).clamp(1, 1000)).unwrap_or(1000);
        let shown = |queue: &&Queue| {
            is_own(queue, call) && queue.name.starts_with(prefix) && queue.visible_at <= call.now.instant
        };
        let mut found: Vec<&Queue> = self.queues.values().filter(shown).collect();
        found.retain(|queue| queue.name.as_str() > after);
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let more = found.len() > limit;
        found.truncate(limit);
        let mut answer = json!({"QueueUrls": found.iter().map(|queue| queue.url()).collect::<Vec<_>>()});
        // AWS pages only when MaxResults was given.
        if more
            && most.is_some()
            && let Some(last) = found.last()
        {
            answer["NextToken"] = json!(last.name);
        }
        Ok(Answer::Json(answer).into())
    }

    fn get_attributes(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let queue = self.queue(call, Grant::ByPolicy)?;
        let (ready, in_flight, delayed) = queue.counts(call.now);
        let mut all: BTreeMap<&str, String> = BTreeMap::from([
            ("DelaySeconds", "0".to_owned()),
            ("MaximumMessageSize", "1048576".to_owned()),
            ("MessageRetentionPeriod", "345600".to_owned()),
            ("ReceiveMessageWaitTimeSeconds", "0".to_owned()),
            ("VisibilityTimeout", "30".to_owned()),
            ("SqsManagedSseEnabled", "true".to_owned()),
        ]);
        all.extend(queue.attributes.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let created = (queue.created_ms / 1000).to_string();
        all.extend([
            ("QueueArn", queue.arn()),
            ("CreatedTimestamp", created.clone()),
            ("LastModifiedTimestamp", created),
            ("ApproximateNumberOfMessages", ready.to_string()),
            ("ApproximateNumberOfMessagesNotVisible", in_flight.to_string()),
            ("ApproximateNumberOfMessagesDelayed", delayed.to_string()),
        ]);
        let wanted = call.params.texts("AttributeNames");
        let known = |name: &str| name == "All" || all.contains_key(name) || is_attribute(name);
        if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
            return Err(AwsError::client("InvalidAttributeName", format!("Unknown Attribute {unknown}.")));
        }
        all.retain(|name, _| wanted.contains(&"All") || wanted.contains(name));
        Ok(Answer::Json(json!({"Attributes": all})).into())
    }

    fn tag(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let tags = call.params.text_map("Tags");
        call.note("tags", json!(tags));
        let queue = self.queue(call, Grant::Never)?;
        queue.tags.extend(tags);
        if queue.tags.len() > TAGS_MAX {
            return Err(bad("Too many tags added for queue."));
        }
        Ok(Answer::done().into())
    }

    fn list_tags(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let queue = self.queue(call, Grant::Never)?;
        Ok(Answer::Json(json!({"Tags": queue.tags})).into())
    }

    /// All queues with their message counts, for tests that ask what is left over.
    pub(crate) fn overview(&mut self, now: Now) -> Value {
        let show = |queue: &mut Queue| {
            let (ready, in_flight, delayed) = queue.counts(now);
            json!({
                "url": queue.url(), "ready": ready, "inFlight": in_flight, "delayed": delayed,
                "ageMs": now.ms.saturating_sub(queue.created_ms), "tags": queue.tags,
            })
        };
        self.queues.values_mut().map(show).collect()
    }
}

fn is_own(queue: &Queue, call: &Call) -> bool {
    queue.account == call.principal.account
}

fn bad(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterValue", message)
}

fn missing(name: &str) -> AwsError {
    AwsError::client("MissingParameter", format!("The request must contain the parameter {name}."))
}

/// Account and name out of a queue URL, whatever its host.
fn address(call: &Call) -> Outcome<Address> {
    let url = call.text("QueueUrl").ok_or_else(|| missing("QueueUrl"))?;
    let path = url.split_once("://").map_or(url, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let mut parts = path.trim_matches('/').rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(name), Some(account)) if account.len() == 12 && !name.is_empty() => {
            Ok((account.to_owned(), name.to_owned()))
        }
        _ => Err(AwsError::client("InvalidAddress", format!("The address {url} is not valid for this endpoint."))),
    }
}

/// Sets known attributes within their bounds; anything else is InvalidAttributeName.
fn apply(queue: &mut Queue, attributes: BTreeMap<String, String>) -> Outcome<()> {
    let invalid = |message: String| AwsError::client("InvalidAttributeValue", message);
    for (name, value) in attributes {
        let bounds = match name.as_str() {
            "DelaySeconds" => Some(0..=900),
            "MaximumMessageSize" => Some(1_024..=1_048_576),
            "MessageRetentionPeriod" => Some(60..=1_209_600),
            "ReceiveMessageWaitTimeSeconds" => Some(0..=20),
            "VisibilityTimeout" => Some(0..=43_200),
            "KmsDataKeyReusePeriodSeconds" => Some(60..=86_400),
            "Policy" | "RedrivePolicy" | "RedriveAllowPolicy" | "KmsMasterKeyId" | "SqsManagedSseEnabled" => None,
            _ => return Err(AwsError::client("InvalidAttributeName", format!("Unknown Attribute {name}."))),
        };
        if let Some(bounds) = bounds
            && !value.parse::<u64>().is_ok_and(|number| bounds.contains(&number))
        {
            return Err(invalid(format!("Invalid value for the parameter {name}.")));
        }
        if name == "Policy" {
            let policy = (!value.is_empty()).then(|| Policy::parse(&value)).transpose();
            queue.policy =
                policy.map_err(|error| invalid(format!("Invalid value for the parameter Policy: {error}")))?;
        }
        queue.attributes.insert(name, value);
    }
    Ok(())
}

/// Attributes that are known, but have no value until one is set.
fn is_attribute(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "Policy",
        "RedrivePolicy",
        "RedriveAllowPolicy",
        "KmsMasterKeyId",
        "KmsDataKeyReusePeriodSeconds",
        "FifoQueue",
    ];
    NAMES.contains(&name)
}
