//! What goes through the queues: send, receive and delete, with the limits that AWS sets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::queue::{Message, Received, Take};
use super::{Grant, Sqs, bad, missing};
use crate::services::call::Call;
use crate::services::contract::{Effect, Reaction};
use crate::services::fault::{Kind, SplitMix};
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use crate::wire::parameters::Parameters;
use crate::wire::times::uuid;

/// Maximum size of a message, and of a whole batch, in bytes: bodies and attributes.
const MAX_BYTES: usize = 1_048_576;

/// Maximum number of a message's attributes.
const ATTRIBUTES_MAX: usize = 10;

/// Maximum number of entries in a batch, and of messages in one receive.
const BATCH_MAX: usize = 10;

impl Sqs {
    pub(super) fn send(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        // Check access first, as AWS does, so that a caller who may not send learns nothing about
        // limits.
        self.queue(call, Grant::ByPolicy)?;
        let delay = seconds(&call.params, "DelaySeconds", 900)?;
        let mut params = std::mem::replace(&mut call.params, Parameters::new(Value::Null));
        let sent = message(call, &mut params);
        call.params = params;
        let (message, size) = sent?;
        call.note("bytes", size);
        let answer = acknowledged(&message);
        self.push(call, [(message, delay)])?;
        Ok(Answer::Json(answer).into())
    }

    pub(super) fn send_batch(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        self.queue(call, Grant::ByPolicy)?;
        let mut entries = entries(call)?;
        let total: usize = entries.iter().map(size).sum();
        call.note("bytes", total);
        if total > MAX_BYTES {
            let message =
                format!("Batch requests cannot be longer than {MAX_BYTES} bytes. You have sent {total} bytes.");
            return Err(AwsError::client("BatchRequestTooLong", message));
        }
        let mut pushed = Vec::new();
        let answer = batch(call, &mut entries, |call, entry| {
            let delay = seconds(entry, "DelaySeconds", 900)?;
            let (message, _) = message(call, entry)?;
            let answer = acknowledged(&message);
            pushed.push((message, delay));
            Ok(answer)
        });
        self.push(call, pushed)?;
        Ok(answer.into())
    }

    /// Puts messages into the call's queue; a fault can delay or duplicate them.
    fn push(&mut self, call: &Call, messages: impl IntoIterator<Item = (Message, Option<Duration>)>) -> Outcome<()> {
        let (late, twice) = (call.faults.delay().unwrap_or_default(), call.faults.has(Kind::Duplicate));
        let queue = self.queue(call, Grant::ByPolicy)?;
        for (message, delay) in messages {
            let delay = delay.unwrap_or_else(|| queue.seconds("DelaySeconds", 0)) + late;
            if twice {
                queue.push(call.now, message.clone(), Duration::ZERO);
            }
            queue.push(call.now, message, delay);
        }
        Ok(())
    }

    pub(super) fn receive(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let max = match call.params.get("MaxNumberOfMessages") {
            None => 1,
            Some(value) => {
                let max = value.as_u64().and_then(|max| usize::try_from(max).ok());
                max.filter(|max| (1..=BATCH_MAX).contains(max)).ok_or_else(|| {
                    bad(format!(
                        "Value {value} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10."
                    ))
                })?
            }
        };
        let wait = seconds(&call.params, "WaitTimeSeconds", 20)?;
        let hide = seconds(&call.params, "VisibilityTimeout", 43_200)?;
        let (began, now) = (call.began, call.now);
        let queue = self.queue(call, Grant::ByPolicy)?;
        let wait = wait.unwrap_or_else(|| queue.seconds("ReceiveMessageWaitTimeSeconds", 0));
        let next = queue.wake(now.instant);
        let take = Take {
            max,
            hide: hide.unwrap_or_else(|| queue.seconds("VisibilityTimeout", 30)),
            shuffle: call.faults.has(Kind::Reorder).then_some(call.faults.salt),
            stay: call.faults.has(Kind::Duplicate),
        };
        let received = queue.take(now, take);
        let deadline = began + wait;
        if received.is_empty() && now.instant < deadline {
            let until = next.map_or(deadline, |next| next.min(deadline));
            return Ok(Reaction::Wait { bell: Arc::clone(&queue.arrived), until });
        }
        if received.is_empty() {
            return Ok(Answer::done().into());
        }
        call.note("messages", received.len());
        render(&received, &Wanted::new(&call.params)).map(Reaction::from)
    }

    pub(super) fn delete(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        self.delete_one(call, &call.params)?;
        Ok(Answer::done().into())
    }

    pub(super) fn delete_batch(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        self.queue(call, Grant::ByPolicy)?;
        let mut entries = entries(call)?;
        let answer = batch(call, &mut entries, |call, entry| self.delete_one(call, entry).map(|()| json!({})));
        Ok(answer.into())
    }

    fn delete_one(&mut self, call: &Call, source: &Parameters) -> Outcome<()> {
        let receipt = source.text("ReceiptHandle").ok_or_else(|| missing("ReceiptHandle"))?;
        self.queue(call, Grant::ByPolicy)?.delete(receipt).ok_or_else(|| {
            let message = format!("The input receipt handle is invalid: {receipt:?}");
            AwsError::new(404, "ReceiptHandleIsInvalid", message)
        })
    }
}

/// Whether a text has only characters that SQS accepts, those of XML 1.0.
fn legal(text: &str) -> bool {
    // A fast path: only control bytes, and 0xEF as in U+FFFE and U+FFFF, can begin a refused
    // character.
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
        let field = |name: &str| attribute.get(name).and_then(Value::as_str);
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
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(bad("Number of message attributes [over 10] exceeds the allowed maximum [10]."));
    }
    let mut size = 0;
    for (name, value) in attributes {
        let field = |name: &str| value.get(name).and_then(Value::as_str);
        let kind = field("DataType").unwrap_or_default();
        let reserved = ["aws.", "amazon."].iter().any(|prefix| name.to_ascii_lowercase().starts_with(prefix));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > 256 || reserved || !name.bytes().all(plain) {
            return Err(bad(format!("Message (user) attribute name '{name}' is invalid.")));
        }
        let content = match kind.split('.').next() {
            Some("String" | "Number") => field("StringValue").filter(|text| !text.is_empty()).map(str::len),
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

/// The size of an entry in bytes. Malformed parts count as zero.
fn size(entry: &Parameters) -> usize {
    let attributes = entry.object("MessageAttributes").and_then(|attributes| check_attributes(attributes).ok());
    entry.text_or_empty("MessageBody").len() + attributes.unwrap_or(0)
}

/// A checked message, and its size in bytes.
fn message(call: &Call, source: &mut Parameters) -> Outcome<(Message, usize)> {
    let body = source.take_text("MessageBody").ok_or_else(|| missing("MessageBody"))?;
    let attributes = source.take_object("MessageAttributes");
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
        sender: format!("AROASANDBOX:{}", call.principal.session).into(),
        sent_ms: call.now.ms,
    };
    Ok((message, size))
}

/// What the sender of a message gets back.
fn acknowledged(message: &Message) -> Value {
    let mut answer = json!({"MessageId": message.id, "MD5OfMessageBody": message.md5});
    if let Some(md5) = &message.attributes_md5 {
        answer["MD5OfMessageAttributes"] = json!(md5);
    }
    answer
}

fn seconds(params: &Parameters, name: &str, most: u64) -> Outcome<Option<Duration>> {
    let Some(value) = params.get(name) else { return Ok(None) };
    let number = value.as_u64().filter(|number| *number <= most);
    let number = number.ok_or_else(|| {
        bad(format!("Value {value} for parameter {name} is invalid. Reason: Must be between 0 and {most}."))
    })?;
    Ok(Some(Duration::from_secs(number)))
}

/// A batch's entries, checked as a whole.
fn entries(call: &mut Call) -> Outcome<Vec<Parameters>> {
    let entries = call.params.take_entries("Entries");
    if entries.is_empty() {
        return Err(AwsError::client("EmptyBatchRequest", "There should be at least one entry in the request."));
    }
    if entries.len() > BATCH_MAX {
        let message = "Maximum number of entries per request are 10.";
        return Err(AwsError::client("TooManyEntriesInBatchRequest", message));
    }
    let mut ids = HashSet::new();
    for entry in &entries {
        let id = entry.text_or_empty("Id");
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

/// Runs `each` on every entry. A `partial-batch` fault makes at least one of them fail.
fn batch(
    call: &mut Call,
    entries: &mut [Parameters],
    mut each: impl FnMut(&Call, &mut Parameters) -> Outcome<Value>,
) -> Answer {
    let mut random = SplitMix(call.faults.salt);
    let victim = call.faults.has(Kind::PartialBatch).then(|| random.below(entries.len()));
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (position, entry) in entries.iter_mut().enumerate() {
        let id = entry.text_or_empty("Id").to_owned();
        let fails = victim == Some(position) || (victim.is_some() && random.below(2) == 0);
        let result = match fails {
            true => Err(AwsError::new(500, "InternalError", "A fault of the sandbox.")),
            false => each(call, entry),
        };
        match result {
            Ok(mut value) => {
                value["Id"] = json!(id);
                successful.push(value);
            }
            Err(error) => {
                let sender = error.status < 500;
                failed.push(json!({"Id": id, "Code": error.code, "Message": error.message, "SenderFault": sender}));
            }
        }
    }
    if !failed.is_empty() {
        call.note("failed", failed.len());
    }
    Answer::Json(json!({"Successful": successful, "Failed": failed}))
}

/// The attributes that a receive asks for.
#[derive(Debug)]
struct Wanted {
    system: HashSet<String>,
    names: Vec<String>,
}

impl Wanted {
    fn new(params: &Parameters) -> Self {
        let list = |name: &str| params.texts(name).into_iter().map(str::to_owned);
        let system = list("MessageSystemAttributeNames").chain(list("AttributeNames")).collect();
        Self { system, names: list("MessageAttributeNames").collect() }
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

impl<'a> Rendered<'a> {
    fn of(received: &'a Received, wanted: &Wanted) -> Self {
        let Received { message, receipt, receives, first_received_ms } = received;
        let system = [
            ("SenderId", message.sender.to_string()),
            ("SentTimestamp", message.sent_ms.to_string()),
            ("ApproximateReceiveCount", receives.to_string()),
            ("ApproximateFirstReceiveTimestamp", first_received_ms.to_string()),
        ];
        let attributes = system
            .into_iter()
            .filter(|(name, _)| wanted.system.contains("All") || wanted.system.contains(*name))
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        let all = message.attributes.as_deref();
        let chosen = all.map(|all| {
            let chosen = all.iter().filter(|(name, _)| wanted.attribute(name));
            chosen.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
        });
        let chosen = chosen.filter(|chosen| !chosen.is_empty());
        // The digest is of the attributes that are returned.
        let whole = chosen.as_ref().map(Map::len) == all.map(Map::len);
        let md5 = if whole { message.attributes_md5.clone() } else { chosen.as_ref().map(attributes_md5) };
        Self {
            message_id: &message.id,
            receipt_handle: receipt,
            md5_of_body: &message.md5,
            body: &message.body,
            attributes,
            message_attributes: chosen,
            md5_of_message_attributes: md5,
        }
    }
}

fn render(received: &[Received], wanted: &Wanted) -> Outcome<Answer> {
    let bodies: usize = received.iter().map(|received| received.message.body.len() * 9 / 8 + 1024).sum();
    let mut text = Vec::with_capacity(64 + bodies);
    text.extend_from_slice(b"{\"Messages\":[");
    for (position, received) in received.iter().enumerate() {
        if position > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut text, &Rendered::of(received, wanted))
            .map_err(|error| AwsError::new(500, "InternalFailure", error.to_string()))?;
    }
    text.extend_from_slice(b"]}");
    Ok(Answer::JsonText(text))
}
