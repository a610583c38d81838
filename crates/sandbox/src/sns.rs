//! SNS: topics, their policies, and delivery to the launcher (as Lambda events) and to queues.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use crate::clock::{iso_millis, now_ms, uuid};
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::kinds::Kind;
use crate::resource_policy::{Policy, authorise};
use crate::wire::xml_escape;
use crate::world::World;

/// A publication's most bytes: message and attributes. Topics can raise it to 1 MiB; relay's does not.
const MAX_BYTES: usize = 262_144;

pub(crate) const OPERATIONS: &[(&str, Handler)] = &[
    ("Publish", Handler::Now(publish)),
    ("CreateTopic", Handler::Now(create)),
    ("DeleteTopic", Handler::Now(delete)),
    ("GetTopicAttributes", Handler::Now(get_attributes)),
    ("SetTopicAttributes", Handler::Now(set_attributes)),
    ("Subscribe", Handler::Now(subscribe)),
];

#[derive(Debug, Default)]
pub(crate) struct Sns {
    topics: Mutex<BTreeMap<String, Topic>>,
}

#[derive(Debug, Clone, Default)]
struct Topic {
    attributes: BTreeMap<String, String>,
    policy: Option<Policy>,
    /// Protocol, endpoint, ARN of the subscription.
    subscriptions: Vec<(String, String, String)>,
}

impl Sns {
    /// The topic that every relay account has: CI may publish, the launcher is subscribed.
    pub(crate) fn preset(&self, arn: &str, ci_account: &str) -> Result<(), String> {
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ci_account}:root")},
            "Action": "sns:Publish", "Resource": arn,
        }]})
        .to_string();
        let topic = Topic {
            policy: Some(Policy::parse(&policy)?),
            attributes: BTreeMap::from([("Policy".to_owned(), policy)]),
            subscriptions: vec![("lambda".to_owned(), "relay-launcher".to_owned(), format!("{arn}:{}", uuid()))],
        };
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(arn.to_owned(), topic);
        Ok(())
    }
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameter", format!("Invalid parameter: {}", message.into()))
}

fn with_topic<T>(world: &World, call: &Call, f: impl FnOnce(&mut Topic) -> Outcome<T>) -> Outcome<T> {
    let arn = call.text("TopicArn").or_else(|| call.text("TargetArn")).ok_or_else(|| invalid("TopicArn"))?;
    let account = arn.split(':').nth(4).unwrap_or_default();
    if !arn.starts_with("arn:aws:sns:") || account.len() != 12 {
        return Err(invalid("TopicArn Reason: An ARN must have at least 6 elements"));
    }
    let mut topics = world.sns.topics.lock().unwrap_or_else(PoisonError::into_inner);
    let topic = topics.get_mut(arn).ok_or_else(|| AwsError::new(404, "NotFound", "Topic does not exist"))?;
    authorise(account, topic.policy.as_ref(), &call.principal, &format!("SNS:{}", call.operation), arn)?;
    f(topic)
}

/// `Prefix.entry.N.Name` and so on, gathered by N.
fn numbered(params: &Value, prefix: &str) -> BTreeMap<u32, BTreeMap<String, String>> {
    let mut gathered: BTreeMap<u32, BTreeMap<String, String>> = BTreeMap::new();
    for (key, value) in params.as_object().into_iter().flatten() {
        let Some((number, field)) = key.strip_prefix(prefix).and_then(|rest| rest.split_once('.')) else { continue };
        if let (Ok(number), Some(value)) = (number.parse(), value.as_str()) {
            gathered.entry(number).or_default().insert(field.to_owned(), value.to_owned());
        }
    }
    gathered
}

fn publish(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let subscriptions = with_topic(world, call, |topic| Ok(topic.subscriptions.clone()))?;
    let message = call.text("Message").ok_or_else(|| invalid("Empty message"))?.to_owned();
    let mut attributes = Map::new();
    let mut size = message.len();
    for fields in numbered(&call.params, "MessageAttributes.entry.").into_values() {
        let field = |f: &str| fields.get(f).map(String::as_str).unwrap_or_default();
        let (name, kind) = (field("Name"), field("Value.DataType"));
        let value = if kind.starts_with("Binary") { field("Value.BinaryValue") } else { field("Value.StringValue") };
        if name.is_empty() || kind.is_empty() || value.is_empty() {
            return Err(AwsError::client(
                "ParameterValueInvalid",
                format!("The message attribute '{name}' must contain non-empty message attribute value."),
            ));
        }
        size += name.len() + kind.len() + value.len();
        attributes.insert(name.to_owned(), json!({"Type": kind, "Value": value}));
    }
    call.note("bytes", size);
    if size > MAX_BYTES {
        return Err(invalid("Message too long"));
    }
    for (name, value) in &attributes {
        if let Some(value) = value.get("Value") {
            call.detail.insert(format!("attribute.{name}"), value.clone());
        }
    }
    let id = uuid();
    call.note("messageId", id.as_str());
    let topic = call.text("TopicArn").unwrap_or_default();
    let subject = call.text("Subject");
    let timestamp = iso_millis(now_ms());
    for (protocol, endpoint, subscription) in subscriptions {
        let notification = json!({
            "Type": "Notification", "MessageId": id, "TopicArn": topic, "Subject": subject, "Message": message,
            "Timestamp": timestamp, "SignatureVersion": "1", "Signature": "", "SigningCertUrl": "", "UnsubscribeUrl": "",
            "MessageAttributes": attributes,
        });
        let copies = if call.effects.has(Kind::Duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            match protocol.as_str() {
                "lambda" => {
                    let event = json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0",
                        "EventSubscriptionArn": subscription, "Sns": notification}]});
                    world.lambda.invoke(world, "sns", event, call.effects.delay().unwrap_or_default());
                }
                "sqs" => crate::sqs::deliver(world, &endpoint, &notification.to_string()),
                _ => {}
            }
        }
    }
    Ok(Answer::Xml(format!("<MessageId>{id}</MessageId>")))
}

fn create(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("Name").ok_or_else(|| invalid("Topic Name"))?;
    let arn = format!("arn:aws:sns:{}:{}:{name}", crate::REGION, call.principal.account);
    world.sns.topics.lock().unwrap_or_else(PoisonError::into_inner).entry(arn.clone()).or_default();
    Ok(Answer::Xml(format!("<TopicArn>{}</TopicArn>", xml_escape(&arn))))
}

fn delete(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    with_topic(world, call, |_| Ok(()))?;
    if let Some(arn) = call.text("TopicArn") {
        world.sns.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(arn);
    }
    Ok(Answer::Xml(String::new()))
}

fn get_attributes(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let arn = call.text("TopicArn").unwrap_or_default().to_owned();
    with_topic(world, call, |topic| {
        let mut all = topic.attributes.clone();
        all.insert("TopicArn".to_owned(), arn);
        let entries = all
            .iter()
            .map(|(k, v)| format!("<entry><key>{}</key><value>{}</value></entry>", xml_escape(k), xml_escape(v)));
        Ok(Answer::Xml(format!("<Attributes>{}</Attributes>", entries.collect::<String>())))
    })
}

fn set_attributes(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("AttributeName").ok_or_else(|| invalid("AttributeName"))?.to_owned();
    let value = call.text("AttributeValue").unwrap_or_default().to_owned();
    let policy = match name.as_str() {
        "Policy" => Some(Policy::parse(&value).map_err(|e| invalid(format!("Policy Error: {e}")))?),
        _ => None,
    };
    with_topic(world, call, |topic| {
        if policy.is_some() {
            topic.policy = policy;
        }
        topic.attributes.insert(name, value);
        Ok(Answer::Xml(String::new()))
    })
}

fn subscribe(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let protocol = call.text("Protocol").unwrap_or_default().to_owned();
    let endpoint = call.text("Endpoint").unwrap_or_default().to_owned();
    if !matches!(protocol.as_str(), "lambda" | "sqs") || endpoint.is_empty() {
        return Err(invalid("Protocol must be lambda or sqs here, with an Endpoint"));
    }
    let arn = format!("{}:{}", call.text("TopicArn").unwrap_or_default(), uuid());
    with_topic(world, call, |topic| {
        topic.subscriptions.push((protocol, endpoint, arn.clone()));
        Ok(Answer::Xml(format!("<SubscriptionArn>{}</SubscriptionArn>", xml_escape(&arn))))
    })
}
