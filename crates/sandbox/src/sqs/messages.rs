//! What goes through the queues: send, receive, delete, change of visibility, with the limits that AWS sets.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::queue::{Message, Received};
use super::{bad, with_queue};
use crate::clock::{now_ms, uuid};
use crate::dispatch::{Answer, Call, Later};
use crate::error::{AwsError, Outcome};
use crate::faults::SplitMix;
use crate::kinds::Kind;
use crate::world::World;

/// One message's, and one batch's, most bytes: body and attributes.
const MAX_BYTES: usize = 1_048_576;

/// SQS takes only the characters of XML 1.0.
fn legal(text: &str) -> bool {
    // Only these bytes can begin a character that is refused: a control, or U+FFFE and U+FFFF.
    text.bytes().all(|b| b >= 0x20 && b != 0xef || matches!(b, b'\t' | b'\n' | b'\r'))
        || text
            .chars()
            .all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..))
}

/// The MD5 of attributes as SQS defines it: sorted by name; each part with its length, big endian.
fn attributes_md5(attributes: &Map<String, Value>) -> String {
    let mut bytes = Vec::new();
    let mut part = |kind: Option<u8>, value: &[u8]| {
        bytes.extend(kind);
        bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(value);
    };
    // Not every build of serde_json keeps its maps sorted.
    let sorted: BTreeMap<_, _> = attributes.iter().collect();
    for (name, attribute) in sorted {
        let field = |f: &str| attribute.get(f).and_then(Value::as_str);
        part(None, name.as_bytes());
        part(None, field("DataType").unwrap_or_default().as_bytes());
        match field("BinaryValue") {
            Some(binary) => part(Some(2), &BASE64.decode(binary.as_bytes()).unwrap_or_default()),
            None => part(Some(1), field("StringValue").unwrap_or_default().as_bytes()),
        }
    }
    HEXLOWER.encode(&Md5::digest(&bytes))
}

/// Checks the attributes of one message and gives their size.
fn check_attributes(attributes: &Map<String, Value>) -> Outcome<usize> {
    if attributes.len() > 10 {
        return Err(bad("Number of message attributes [over 10] exceeds the allowed maximum [10]."));
    }
    let mut size = 0;
    for (name, value) in attributes {
        let field = |f: &str| value.get(f).and_then(Value::as_str);
        let kind = field("DataType").unwrap_or_default();
        let reserved = ["aws.", "amazon."].iter().any(|p| name.to_ascii_lowercase().starts_with(p));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 256 || reserved || !name.bytes().all(plain) {
            return Err(bad(format!("Message (user) attribute name '{name}' is invalid.")));
        }
        let content = match kind.split('.').next() {
            Some("String" | "Number") => field("StringValue").filter(|v| !v.is_empty()).map(str::len),
            Some("Binary") => field("BinaryValue").and_then(|v| BASE64.decode(v.as_bytes()).ok()).map(|v| v.len()),
            _ => None,
        };
        let content = content.filter(|_| field("StringValue").is_none_or(legal)).ok_or_else(|| {
            bad(format!("The message attribute '{name}' must contain a non-empty value of its data type."))
        })?;
        size += name.len() + kind.len() + content;
    }
    Ok(size)
}

/// A checked message, and its size.
fn message(sender: &Arc<str>, source: &mut Value) -> Outcome<(Message, usize)> {
    let body = match source.get_mut("MessageBody").map(Value::take) {
        Some(Value::String(body)) if !body.is_empty() => body,
        _ => return Err(AwsError::client("MissingParameter", "The request must contain the parameter MessageBody.")),
    };
    let attributes = match source.get_mut("MessageAttributes").map(Value::take) {
        Some(Value::Object(attributes)) if !attributes.is_empty() => Some(attributes),
        _ => None,
    };
    let size = body.len() + attributes.as_ref().map_or(Ok(0), check_attributes)?;
    if size > MAX_BYTES {
        return Err(bad(format!(
            "One or more parameters are invalid. Reason: Message must be shorter than {MAX_BYTES} bytes."
        )));
    }
    if !legal(&body) {
        let message = "Invalid binary character was found in the message body, the set of allowed characters is \
                       #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF";
        return Err(AwsError::client("InvalidMessageContents", message));
    }
    let message = Message {
        id: uuid(),
        md5: HEXLOWER.encode(&Md5::digest(body.as_bytes())),
        body: body.into(),
        attributes_md5: attributes.as_ref().map(attributes_md5),
        attributes: attributes.map(Arc::new),
        sender: Arc::clone(sender),
        sent_ms: now_ms(),
    };
    Ok((message, size))
}

fn seconds(value: &Value, name: &str, most: u64) -> Outcome<Option<Duration>> {
    match value.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(number) => match number.as_u64() {
            Some(number) if number <= most => Ok(Some(Duration::from_secs(number))),
            _ => Err(bad(format!(
                "Value {number} for parameter {name} is invalid. Reason: Must be between 0 and {most}."
            ))),
        },
    }
}

fn sender(call: &Call) -> Arc<str> {
    format!("AROASANDBOX:{}", call.principal.session).into()
}

pub(crate) fn send(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let delay = seconds(&call.params, "DelaySeconds", 900)?;
    let sender = sender(call);
    // The queue first, as AWS does: who may not send learns nothing about limits.
    with_queue(world, call, true, |_| Ok(()))?;
    let (message, size) = message(&sender, &mut call.params)?;
    call.note("bytes", size);
    let mut answer = json!({"MessageId": message.id, "MD5OfMessageBody": message.md5});
    if let Some(md5) = &message.attributes_md5 {
        answer["MD5OfMessageAttributes"] = json!(md5);
    }
    let (late, twice) = (call.effects.delay(), call.effects.has(Kind::Duplicate));
    with_queue(world, call, true, |queue| {
        let delay = delay.unwrap_or_else(|| queue.seconds("DelaySeconds", 0)) + late.unwrap_or_default();
        if twice {
            queue.push(message.clone(), Duration::ZERO);
        }
        queue.push(message, delay);
        Ok(Answer::Json(answer))
    })
}

/// Checks a batch's entries as a whole.
fn entries(call: &mut Call) -> Outcome<Vec<Value>> {
    let entries = match call.params.get_mut("Entries").map(Value::take) {
        Some(Value::Array(entries)) if !entries.is_empty() => entries,
        _ => return Err(AwsError::client("EmptyBatchRequest", "There should be at least one entry in the request.")),
    };
    if entries.len() > 10 {
        let message = "Maximum number of entries per request are 10.";
        return Err(AwsError::client("TooManyEntriesInBatchRequest", message));
    }
    let mut ids = HashSet::new();
    for entry in &entries {
        let id = entry.get("Id").and_then(Value::as_str).unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if id.is_empty() || id.len() > 80 || !id.bytes().all(plain) {
            let message = "A batch entry id can only contain alphanumeric characters, hyphens and underscores.";
            return Err(AwsError::client("InvalidBatchEntryId", message));
        }
        if !ids.insert(id) {
            return Err(AwsError::client("BatchEntryIdsNotDistinct", format!("Id {id} repeated.")));
        }
    }
    Ok(entries)
}

/// Runs `f` on each entry; a fault fails some of them, at least one.
fn batch(call: &mut Call, mut f: impl FnMut(&Call, &mut Value) -> Outcome<Value>) -> Outcome<Answer> {
    let mut entries = entries(call)?;
    let mut random = SplitMix(call.effects.salt);
    let victim = call.effects.has(Kind::PartialBatch).then(|| random.below(entries.len()));
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (position, entry) in entries.iter_mut().enumerate() {
        let id = entry.get("Id").cloned().unwrap_or_default();
        let result = if victim == Some(position) || (victim.is_some() && random.below(2) == 0) {
            Err(AwsError::new(500, "InternalError", "A fault of the sandbox."))
        } else {
            f(call, entry)
        };
        match result {
            Ok(mut value) => {
                value["Id"] = id;
                successful.push(value);
            }
            Err(e) => {
                let sender = e.status < 500;
                failed.push(json!({"Id": id, "Code": e.code, "Message": e.message, "SenderFault": sender}));
            }
        }
    }
    if !failed.is_empty() {
        call.note("failed", failed.len());
    }
    Ok(Answer::Json(json!({"Successful": successful, "Failed": failed})))
}

pub(crate) fn send_batch(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_queue(world, call, true, |_| Ok(()))?;
    let total: usize = call
        .params
        .get("Entries")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|entry| {
            let body = entry.get("MessageBody").and_then(Value::as_str).map_or(0, str::len);
            let attributes = entry.get("MessageAttributes").and_then(Value::as_object);
            body + attributes.and_then(|a| check_attributes(a).ok()).unwrap_or(0)
        })
        .sum();
    call.note("bytes", total);
    if total > MAX_BYTES {
        let message = format!("Batch requests cannot be longer than {MAX_BYTES} bytes. You have sent {total} bytes.");
        return Err(AwsError::client("BatchRequestTooLong", message));
    }
    let sender = sender(call);
    let (late, twice) = (call.effects.delay(), call.effects.has(Kind::Duplicate));
    let mut pushed = Vec::new();
    let answer = batch(call, |_, entry| {
        let delay = seconds(entry, "DelaySeconds", 900)?;
        let (message, _) = message(&sender, entry)?;
        let mut answer = json!({"MessageId": message.id, "MD5OfMessageBody": message.md5});
        if let Some(md5) = &message.attributes_md5 {
            answer["MD5OfMessageAttributes"] = json!(md5);
        }
        pushed.push((message, delay));
        Ok(answer)
    })?;
    with_queue(world, call, true, |queue| {
        for (message, delay) in pushed {
            let delay = delay.unwrap_or_else(|| queue.seconds("DelaySeconds", 0)) + late.unwrap_or_default();
            if twice {
                queue.push(message.clone(), Duration::ZERO);
            }
            queue.push(message, delay);
        }
        Ok(())
    })?;
    Ok(answer)
}

/// The sandbox itself sends, for a subscription of a topic to a queue. The queue's policy is not asked.
pub(crate) fn deliver(world: &World, arn: &str, body: &str) {
    let mut parts = arn.rsplit(':');
    let (Some(name), Some(account)) = (parts.next(), parts.next()) else { return };
    let sender: Arc<str> = "AIDASNS".into();
    if let Ok((message, _)) = message(&sender, &mut json!({"MessageBody": body})) {
        let mut state = world.sqs.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = state.queues.get_mut(&(account.to_owned(), name.to_owned())) {
            queue.push(message, Duration::ZERO);
        }
    }
}

/// What a receive wants to know.
#[derive(Debug)]
struct Wanted {
    system: HashSet<String>,
    names: Vec<String>,
}

impl Wanted {
    fn new(params: &Value) -> Self {
        let list = |name: &str| {
            let values = params.get(name).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let mut system: HashSet<String> = list("MessageSystemAttributeNames").into_iter().collect();
        system.extend(list("AttributeNames"));
        Self { system, names: list("MessageAttributeNames") }
    }

    fn attribute(&self, name: &str) -> bool {
        self.names.iter().any(|wanted| match wanted.as_str() {
            "All" | ".*" => true,
            wanted => wanted == name || wanted.strip_suffix(".*").is_some_and(|prefix| name.starts_with(prefix)),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rendered<'a> {
    message_id: &'a str,
    receipt_handle: &'a str,
    #[serde(rename = "MD5OfBody")]
    md5_of_body: &'a str,
    body: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    attributes: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_attributes: Option<Map<String, Value>>,
    #[serde(rename = "MD5OfMessageAttributes", skip_serializing_if = "Option::is_none")]
    md5_of_message_attributes: Option<String>,
}

fn render(received: &[Received], wanted: &Wanted) -> Outcome<Answer> {
    let mut text = Vec::with_capacity(64 + received.iter().map(|r| r.message.body.len() * 9 / 8 + 1024).sum::<usize>());
    text.extend_from_slice(b"{\"Messages\":[");
    for (position, r) in received.iter().enumerate() {
        if position > 0 {
            text.push(b',');
        }
        let system = [
            ("SenderId", r.message.sender.to_string()),
            ("SentTimestamp", r.message.sent_ms.to_string()),
            ("ApproximateReceiveCount", r.receives.to_string()),
            ("ApproximateFirstReceiveTimestamp", r.first_received_ms.to_string()),
        ];
        let attributes = system
            .into_iter()
            .filter(|(name, _)| wanted.system.contains("All") || wanted.system.contains(*name))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let chosen: Option<Map<String, Value>> = r.message.attributes.as_ref().map(|all| {
            all.iter().filter(|(name, _)| wanted.attribute(name)).map(|(k, v)| (k.clone(), v.clone())).collect()
        });
        let chosen = chosen.filter(|c| !c.is_empty());
        // The digest is of the attributes that are returned.
        let whole = chosen.as_ref().map(Map::len) == r.message.attributes.as_ref().map(|a| a.len());
        let md5 = if whole { r.message.attributes_md5.clone() } else { chosen.as_ref().map(attributes_md5) };
        let rendered = Rendered {
            message_id: &r.message.id,
            receipt_handle: &r.receipt,
            md5_of_body: &r.message.md5,
            body: &r.message.body,
            attributes,
            message_attributes: chosen,
            md5_of_message_attributes: md5,
        };
        serde_json::to_writer(&mut text, &rendered)
            .map_err(|e| AwsError::new(500, "InternalFailure", e.to_string()))?;
    }
    text.extend_from_slice(b"]}");
    Ok(Answer::JsonText(text))
}

pub(crate) fn receive<'a>(world: &'a Arc<World>, call: &'a mut Call) -> Later<'a> {
    Box::pin(async move {
        let max = match call.params.get("MaxNumberOfMessages").filter(|v| !v.is_null()) {
            None => 1,
            Some(value) => value
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .filter(|n| (1..=10).contains(n))
                .ok_or_else(|| {
                    bad(format!(
                        "Value {value} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10."
                    ))
                })?,
        };
        let wait = seconds(&call.params, "WaitTimeSeconds", 20)?;
        let hide = seconds(&call.params, "VisibilityTimeout", 43_200)?;
        let wanted = Wanted::new(&call.params);
        let shuffle = call.effects.has(Kind::Reorder).then_some(call.effects.salt);
        let stay = call.effects.has(Kind::Duplicate);
        if let Some(delay) = call.effects.delay() {
            tokio::time::sleep(delay).await;
        }
        let (wait, arrived) = with_queue(world, call, true, |queue| {
            let wait = wait.unwrap_or_else(|| queue.seconds("ReceiveMessageWaitTimeSeconds", 0));
            Ok((wait, Arc::clone(&queue.arrived)))
        })?;
        let deadline = Instant::now() + wait;
        loop {
            // Registered before the look, so that what arrives in between still wakes.
            let notified = arrived.notified();
            let (received, next) = with_queue(world, call, true, |queue| {
                let next = queue.wake(Instant::now());
                let hide = hide.unwrap_or_else(|| queue.seconds("VisibilityTimeout", 30));
                Ok((queue.take(max, hide, shuffle, stay), next))
            })?;
            let now = Instant::now();
            if !received.is_empty() {
                call.note("messages", received.len());
                return render(&received, &wanted);
            }
            if now >= deadline {
                return Ok(Answer::Json(json!({})));
            }
            let until = next.map_or(deadline, |n| n.min(deadline));
            // Either way: look again.
            let _ = tokio::time::timeout_at(until.into(), notified).await;
        }
    })
}

fn bad_receipt(receipt: &str) -> AwsError {
    AwsError::new(404, "ReceiptHandleIsInvalid", format!("The input receipt handle is invalid: {receipt:?}"))
}

fn receipt(source: &Value) -> Outcome<&str> {
    source
        .get("ReceiptHandle")
        .and_then(Value::as_str)
        .ok_or_else(|| AwsError::client("MissingParameter", "The request must contain the parameter ReceiptHandle."))
}

fn delete_one(world: &World, call: &Call, source: &Value) -> Outcome<()> {
    let receipt = receipt(source)?;
    with_queue(world, call, true, |queue| queue.delete(receipt).ok_or_else(|| bad_receipt(receipt)))
}

pub(crate) fn delete(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    delete_one(world, call, &call.params)?;
    Ok(Answer::Json(json!({})))
}

pub(crate) fn delete_batch(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_queue(world, call, true, |_| Ok(()))?;
    batch(call, |call, entry| {
        delete_one(world, call, entry)?;
        Ok(json!({}))
    })
}

fn change_one(world: &World, call: &Call, source: &Value) -> Outcome<()> {
    let receipt = receipt(source)?;
    let hide = seconds(source, "VisibilityTimeout", 43_200)?.ok_or_else(|| {
        AwsError::client("MissingParameter", "The request must contain the parameter VisibilityTimeout.")
    })?;
    with_queue(world, call, true, |queue| {
        queue.wake(Instant::now());
        queue.hide(receipt, hide).map_err(|known| {
            if known {
                AwsError::client("MessageNotInflight", "The specified message isn't in flight.")
            } else {
                bad_receipt(receipt)
            }
        })
    })
}

pub(crate) fn change_visibility(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    change_one(world, call, &call.params)?;
    Ok(Answer::Json(json!({})))
}

pub(crate) fn change_visibility_batch(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_queue(world, call, true, |_| Ok(()))?;
    batch(call, |call, entry| {
        change_one(world, call, entry)?;
        Ok(json!({}))
    })
}
