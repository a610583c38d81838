//! SNS: topics, their policies, and delivery to the launcher as Lambda events.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::call::Call;
use super::contract::{Effect, Reaction, Table};
use super::fault::Kind;
use super::principal::REGION;
use super::resource_policy::{Policy, authorise};
use crate::wire::answer::{Answer, xml_escape};
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::{iso_millis, uuid};

/// Maximum size of a published message, in bytes: body and attributes. A topic can raise this to 1
/// MiB; relay's does not.
const MAX_BYTES: usize = 262_144;

pub(crate) const OPERATIONS: Table<Sns> = &[("Publish", Sns::publish), ("CreateTopic", Sns::create)];

#[derive(Debug, Default)]
pub(crate) struct Sns {
    /// By ARN.
    topics: BTreeMap<String, Topic>,
}

#[derive(Debug, Default)]
struct Topic {
    policy: Option<Policy>,
    /// The ARN of the launcher's subscription, where there is one.
    subscription: Option<String>,
}

impl Sns {
    /// Creates the topic that every relay account has, to which CI may publish and the launcher is
    /// subscribed.
    pub(crate) fn preset(&mut self, arn: &str, ci_account: &str) -> Result<(), String> {
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ci_account}:root")},
            "Action": "sns:Publish", "Resource": arn,
        }]});
        let policy = Some(Policy::parse(&policy.to_string())?);
        let subscription = Some(format!("{arn}:{}", uuid()));
        self.topics.insert(arn.to_owned(), Topic { policy, subscription });
        Ok(())
    }

    /// Finds the topic that a call names, and checks that the caller may use it for this operation.
    fn topic(&self, call: &Call) -> Outcome<(&str, &Topic)> {
        let arn = call.text("TopicArn").or_else(|| call.text("TargetArn")).ok_or_else(|| invalid("TopicArn"))?;
        let account = arn.split(':').nth(4).unwrap_or_default();
        if !arn.starts_with("arn:aws:sns:") || account.len() != 12 {
            return Err(invalid("TopicArn Reason: An ARN must have at least 6 elements"));
        }
        let found = self.topics.get_key_value(arn);
        let (arn, topic) = found.ok_or_else(|| AwsError::new(404, "NotFound", "Topic does not exist"))?;
        authorise(account, topic.policy.as_ref(), &call.principal, &format!("SNS:{}", call.operation), arn)?;
        Ok((arn, topic))
    }

    fn publish(&mut self, call: &mut Call, effects: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (topic, Topic { subscription, .. }) = self.topic(call)?;
        let message = call.text("Message").ok_or_else(|| invalid("Empty message"))?.to_owned();
        let (attributes, size) = attributes(call)?;
        let size = size + message.len();
        call.note("bytes", size);
        if size > MAX_BYTES {
            return Err(invalid("Message too long"));
        }
        for (name, value) in &attributes {
            call.note(&format!("attribute.{name}"), value["Value"].clone());
        }
        let id = uuid();
        call.note("messageId", id.as_str());
        if let Some(subscription) = subscription {
            let notification = json!({
                "Type": "Notification", "MessageId": id, "TopicArn": topic, "Subject": call.text("Subject"),
                "Message": message, "Timestamp": iso_millis(call.now.ms), "SignatureVersion": "1", "Signature": "",
                "SigningCertUrl": "", "UnsubscribeUrl": "", "MessageAttributes": attributes,
            });
            let event = json!({"Records": [{
                "EventSource": "aws:sns", "EventVersion": "1.0", "EventSubscriptionArn": subscription,
                "Sns": notification,
            }]});
            let delay = call.faults.delay().unwrap_or_default();
            let copies = if call.faults.has(Kind::Duplicate) { 2 } else { 1 };
            let invoke = || Effect::Invoke { source: "sns", event: event.clone(), delay };
            effects.extend(std::iter::repeat_with(invoke).take(copies));
        }
        Ok(Answer::Xml(format!("<MessageId>{id}</MessageId>")).into())
    }

    fn create(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let name = call.text("Name").ok_or_else(|| invalid("Topic Name"))?;
        let arn = format!("arn:aws:sns:{REGION}:{}:{name}", call.principal.account);
        self.topics.entry(arn.clone()).or_default();
        Ok(Answer::Xml(format!("<TopicArn>{}</TopicArn>", xml_escape(&arn))).into())
    }
}

/// The attributes of a publication, and their size in bytes.
fn attributes(call: &Call) -> Outcome<(Map<String, Value>, usize)> {
    let (mut attributes, mut size) = (Map::new(), 0);
    for fields in call.params.numbered("MessageAttributes.entry").into_values() {
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        let (name, kind) = (field("Name"), field("Value.DataType"));
        let value = if kind.starts_with("Binary") { field("Value.BinaryValue") } else { field("Value.StringValue") };
        if name.is_empty() || kind.is_empty() || value.is_empty() {
            let message = format!("The message attribute '{name}' must contain non-empty message attribute value.");
            return Err(AwsError::client("ParameterValueInvalid", message));
        }
        size += name.len() + kind.len() + value.len();
        attributes.insert(name.to_owned(), json!({"Type": kind, "Value": value}));
    }
    Ok((attributes, size))
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::client("InvalidParameter", format!("Invalid parameter: {}", message.into()))
}
