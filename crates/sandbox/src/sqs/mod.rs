//! SQS, standard queues: this file owns the queues themselves; `messages` what goes through them; `queue` the data.

mod messages;
mod queue;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::clock::now_ms;
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::kinds::Kind;
use crate::resource_policy::{Policy, authorise};
use crate::world::World;
pub(crate) use messages::deliver;
use queue::Queue;

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[
    ("CreateQueue", Handler::Now(create)),
    ("DeleteQueue", Handler::Now(delete)),
    ("GetQueueUrl", Handler::Now(get_url)),
    ("ListQueues", Handler::Now(list)),
    ("GetQueueAttributes", Handler::Now(get_attributes)),
    ("SetQueueAttributes", Handler::Now(set_attributes)),
    ("TagQueue", Handler::Now(tag)),
    ("UntagQueue", Handler::Now(untag)),
    ("ListQueueTags", Handler::Now(list_tags)),
    ("PurgeQueue", Handler::Now(purge)),
    ("SendMessage", Handler::Now(messages::send)),
    ("SendMessageBatch", Handler::Now(messages::send_batch)),
    ("ReceiveMessage", Handler::Wait(messages::receive)),
    ("DeleteMessage", Handler::Now(messages::delete)),
    ("DeleteMessageBatch", Handler::Now(messages::delete_batch)),
    ("ChangeMessageVisibility", Handler::Now(messages::change_visibility)),
    ("ChangeMessageVisibilityBatch", Handler::Now(messages::change_visibility_batch)),
];

/// How long a new queue is not there, when a fault does not say it.
const HIDDEN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Sqs {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By account and name.
    queues: HashMap<(String, String), Queue>,
    deleted: HashMap<(String, String), Instant>,
}

fn no_queue() -> AwsError {
    AwsError::client("QueueDoesNotExist", "The specified queue does not exist.")
}

fn bad(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameterValue", message)
}

/// Account and name out of a queue URL, whatever its host.
fn address(call: &Call) -> Outcome<(String, String)> {
    let url = call
        .text("QueueUrl")
        .ok_or_else(|| AwsError::client("MissingParameter", "The request must contain the parameter QueueUrl."))?;
    let path = url.split_once("://").map_or(url, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let mut parts = path.trim_matches('/').rsplit('/');
    match (parts.next(), parts.next()) {
        (Some(name), Some(account)) if account.len() == 12 && !name.is_empty() => {
            Ok((account.to_owned(), name.to_owned()))
        }
        _ => Err(AwsError::client("InvalidAddress", format!("The address {url} is not valid for this endpoint."))),
    }
}

/// Runs `f` on the queue of the call, if the caller may do this there. `foreign`: whether a queue policy can grant it at all.
fn with_queue<T>(world: &World, call: &Call, foreign: bool, f: impl FnOnce(&mut Queue) -> Outcome<T>) -> Outcome<T> {
    let address = address(call)?;
    let mut state = world.sqs.state.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = state.queues.get_mut(&address).ok_or_else(no_queue)?;
    if queue.visible_at > Instant::now() {
        return Err(no_queue());
    }
    let policy = queue.policy.as_ref();
    let name =
        if call.operation.ends_with("Batch") { call.operation.trim_end_matches("Batch") } else { &call.operation };
    if !foreign && queue.account != call.principal.account {
        authorise(&queue.account, None, &call.principal, &format!("sqs:{name}"), &queue.arn())?;
    }
    authorise(&queue.account, policy, &call.principal, &format!("sqs:{name}"), &queue.arn())?;
    f(queue)
}

fn text_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = value.and_then(Value::as_object).into_iter().flatten();
    pairs.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Known attributes with their bounds; anything else is InvalidAttributeName.
fn apply(queue: &mut Queue, attributes: BTreeMap<String, String>) -> Outcome<()> {
    for (name, value) in attributes {
        let (low, high) = match name.as_str() {
            "DelaySeconds" => (0, 900),
            "MaximumMessageSize" => (1024, 1_048_576),
            "MessageRetentionPeriod" => (60, 1_209_600),
            "ReceiveMessageWaitTimeSeconds" => (0, 20),
            "VisibilityTimeout" => (0, 43_200),
            "KmsDataKeyReusePeriodSeconds" => (60, 86_400),
            "Policy" => {
                queue.policy = match value.as_str() {
                    "" => None,
                    text => Some(Policy::parse(text).map_err(|e| {
                        AwsError::client(
                            "InvalidAttributeValue",
                            format!("Invalid value for the parameter Policy: {e}"),
                        )
                    })?),
                };
                queue.attributes.insert(name, value);
                continue;
            }
            "RedrivePolicy" | "RedriveAllowPolicy" | "KmsMasterKeyId" | "SqsManagedSseEnabled" => {
                queue.attributes.insert(name, value);
                continue;
            }
            _ => return Err(AwsError::client("InvalidAttributeName", format!("Unknown Attribute {name}."))),
        };
        match value.parse::<u64>() {
            Ok(number) if (low..=high).contains(&number) => queue.attributes.insert(name, value),
            _ => {
                let message = format!("Invalid value for the parameter {name}.");
                return Err(AwsError::client("InvalidAttributeValue", message));
            }
        };
    }
    Ok(())
}

fn create(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("QueueName").unwrap_or_default().to_owned();
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 80 || !name.bytes().all(legal) {
        let message = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length";
        return Err(bad(message));
    }
    let attributes = text_map(call.params.get("Attributes"));
    let tags = text_map(call.params.get("tags").or_else(|| call.params.get("Tags")));
    let key = (call.principal.account.clone(), name.clone());
    let mut state = world.sqs.state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(existing) = state.queues.get(&key) {
        // Only the attributes that the request names are compared.
        let same = attributes.iter().all(|(k, v)| existing.attributes.get(k).is_some_and(|held| held == v));
        if !same {
            let message = "A queue already exists with the same name and a different value for an attribute.";
            return Err(AwsError::client("QueueNameExists", message));
        }
        return Ok(Answer::Json(json!({"QueueUrl": existing.url()})));
    }
    if let Some(deleted) = state.deleted.get(&key)
        && deleted.elapsed() < world.settings.queue_deleted_recently
    {
        let message =
            "You must wait 60 seconds after deleting a queue before you can create another with the same name.";
        return Err(AwsError::client("QueueDeletedRecently", message));
    }
    let hidden = call.effects.get(Kind::NotVisible).map(|effect| effect.time.unwrap_or(HIDDEN)).unwrap_or_default();
    let mut queue = Queue::new(&key.0, &name, Instant::now() + hidden);
    apply(&mut queue, attributes)?;
    queue.tags = tags;
    let url = queue.url();
    state.queues.insert(key, queue);
    Ok(Answer::Json(json!({"QueueUrl": url})))
}

fn delete(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let arrived = with_queue(world, call, false, |queue| Ok(Arc::clone(&queue.arrived)))?;
    let key = address(call)?;
    let mut state = world.sqs.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.queues.remove(&key);
    state.deleted.insert(key, Instant::now());
    drop(state);
    arrived.notify_waiters();
    Ok(Answer::Json(json!({})))
}

fn get_url(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("QueueName").unwrap_or_default();
    let account = call.text("QueueOwnerAWSAccountId").unwrap_or(&call.principal.account);
    let url = format!("https://sqs.{}.amazonaws.com/{account}/{name}", crate::REGION);
    let mut inner = Call::new(call.service, "GetQueueUrl", Arc::clone(&call.principal), json!({"QueueUrl": url}));
    inner.effects = call.effects.clone();
    with_queue(world, &inner, true, |queue| Ok(Answer::Json(json!({"QueueUrl": queue.url()}))))
}

fn list(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let prefix = call.text("QueueNamePrefix").unwrap_or_default();
    let most = call.params.get("MaxResults").and_then(Value::as_u64);
    let limit = usize::try_from(most.unwrap_or(1000).clamp(1, 1000)).unwrap_or(1000);
    let after = call.text("NextToken").unwrap_or_default();
    let state = world.sqs.state.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let mut found: Vec<&Queue> = state
        .queues
        .values()
        .filter(|q| q.account == call.principal.account && q.name.starts_with(prefix) && q.visible_at <= now)
        .filter(|q| q.name.as_str() > after)
        .collect();
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let more = found.len() > limit;
    found.truncate(limit);
    let mut answer = json!({"QueueUrls": found.iter().map(|q| q.url()).collect::<Vec<_>>()});
    // AWS pages only when MaxResults was given.
    if more
        && most.is_some()
        && let Some(last) = found.last()
    {
        answer["NextToken"] = json!(last.name);
    }
    Ok(Answer::Json(answer))
}

fn get_attributes(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let wanted: Vec<&str> = call
        .params
        .get("AttributeNames")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    with_queue(world, call, true, |queue| {
        let (ready, in_flight, delayed) = queue.counts();
        let mut all: BTreeMap<&str, String> = BTreeMap::from([
            ("DelaySeconds", "0".to_owned()),
            ("MaximumMessageSize", "1048576".to_owned()),
            ("MessageRetentionPeriod", "345600".to_owned()),
            ("ReceiveMessageWaitTimeSeconds", "0".to_owned()),
            ("VisibilityTimeout", "30".to_owned()),
            ("SqsManagedSseEnabled", "true".to_owned()),
        ]);
        for (name, value) in &queue.attributes {
            all.insert(name, value.clone());
        }
        all.insert("QueueArn", queue.arn());
        all.insert("CreatedTimestamp", (queue.created_ms / 1000).to_string());
        all.insert("LastModifiedTimestamp", (queue.created_ms / 1000).to_string());
        all.insert("ApproximateNumberOfMessages", ready.to_string());
        all.insert("ApproximateNumberOfMessagesNotVisible", in_flight.to_string());
        all.insert("ApproximateNumberOfMessagesDelayed", delayed.to_string());
        let everything = wanted.contains(&"All");
        all.retain(|name, _| everything || wanted.contains(name));
        if let Some(unknown) = wanted.iter().find(|w| **w != "All" && !all.contains_key(*w) && !is_attribute(w)) {
            return Err(AwsError::client("InvalidAttributeName", format!("Unknown Attribute {unknown}.")));
        }
        Ok(Answer::Json(json!({"Attributes": all})))
    })
}

/// Attributes that exist but have no value until somebody sets one.
fn is_attribute(name: &str) -> bool {
    matches!(
        name,
        "Policy"
            | "RedrivePolicy"
            | "RedriveAllowPolicy"
            | "KmsMasterKeyId"
            | "KmsDataKeyReusePeriodSeconds"
            | "FifoQueue"
    )
}

fn set_attributes(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let attributes = text_map(call.params.get("Attributes"));
    with_queue(world, call, false, |queue| apply(queue, attributes))?;
    Ok(Answer::Json(json!({})))
}

fn tag(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let tags = text_map(call.params.get("Tags"));
    call.note("tags", json!(tags));
    with_queue(world, call, false, |queue| {
        queue.tags.extend(tags);
        if queue.tags.len() > 50 {
            return Err(bad("Too many tags added for queue."));
        }
        Ok(Answer::Json(json!({})))
    })
}

fn untag(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let keys: Vec<&str> =
        call.params.get("TagKeys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    with_queue(world, call, false, |queue| {
        queue.tags.retain(|key, _| !keys.contains(&key.as_str()));
        Ok(Answer::Json(json!({})))
    })
}

fn list_tags(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_queue(world, call, false, |queue| Ok(Answer::Json(json!({"Tags": queue.tags}))))
}

fn purge(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_queue(world, call, true, |queue| {
        queue.purge();
        Ok(Answer::Json(json!({})))
    })
}

/// All queues with their message counts, for tests that ask what is left over.
pub(crate) fn overview(world: &World) -> Value {
    let mut state = world.sqs.state.lock().unwrap_or_else(PoisonError::into_inner);
    let list = state.queues.values_mut().map(|queue| {
        let (ready, in_flight, delayed) = queue.counts();
        let mut entry = Map::new();
        entry.insert("url".to_owned(), json!(queue.url()));
        entry.insert("ready".to_owned(), json!(ready));
        entry.insert("inFlight".to_owned(), json!(in_flight));
        entry.insert("delayed".to_owned(), json!(delayed));
        entry.insert("ageMs".to_owned(), json!(now_ms().saturating_sub(queue.created_ms)));
        entry.insert("tags".to_owned(), json!(queue.tags));
        Value::Object(entry)
    });
    Value::Array(list.collect())
}
