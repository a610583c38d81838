//! SQS, SNS and the clock: requests, output and control messages travel through them.

use std::time::{Duration, Instant};

use relay_aws::clock::now;
use relay_protocol::limits;
use serde_json::{Value, json};

use super::trial::{Outcome, Problem, Trial, Verdict, text};
use crate::account::Account;

const PATIENCE: Duration = Duration::from_secs(90);

/// SQS accepts bodies of at most 1 MiB.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
const BODY_MAX: usize = 1 << 20;

fn send(account: &Account, url: &str, body: &str) -> Result<Value, crate::account::Refused> {
    account.call("sqs", "send-message", &json!({"QueueUrl": url, "MessageBody": body}))
}

/// Receives one message.
fn receive(trial: &Trial<'_>, account: &Account, url: &str) -> Result<Option<Value>, Problem> {
    let parameters = json!({"QueueUrl": url, "WaitTimeSeconds": 2, "AttributeNames": ["All"]});
    trial.until(PATIENCE, || Ok(account.call("sqs", "receive-message", &parameters)?["Messages"].get(0).cloned()))
}

pub(crate) fn clock_agrees(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.target.clone();
    let url = trial.queue(&account)?;
    let before = now().unix();
    send(&account, &url, "clock")?;
    let after = now().unix();
    let Some(message) = receive(trial, &account, &url)? else { return Verdict::no("the message did not arrive") };
    let sent = message["Attributes"]["SentTimestamp"].as_str().and_then(|millis| millis.parse::<i64>().ok());
    let Some(sent) = sent.map(|millis| millis / 1_000) else { return Verdict::no("there is no SentTimestamp") };
    let off = (before - sent).max(sent - after).max(0);
    Verdict::of(off <= limits::CLOCK_SKEW, format!("this machine's clock is {off} s off AWS's"))
}

pub(crate) fn takes_the_largest_message(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    send(&account, &url, &"x".repeat(BODY_MAX))?;
    let larger = send(&account, &url, &"x".repeat(BODY_MAX + 1));
    Verdict::refused_with(larger, &["InvalidParameterValue", "InvalidMessageContents", "MessageTooLong"])
}

pub(crate) fn keeps_every_character(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    let body = "\t\n \u{7e}\u{7f}\u{a0}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}";
    send(&account, &url, body)?;
    let Some(message) = receive(trial, &account, &url)? else { return Verdict::no("the message did not arrive") };
    Verdict::of(message["Body"] == body, format!("arrived unchanged: {}", message["Body"] == body))
}

pub(crate) fn refuses_control_characters(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    Verdict::refused_with(send(&account, &url, "a\u{1b}b"), &["InvalidMessageContents"])
}

pub(crate) fn batch_fails_in_parts(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    let entries = json!([{"Id": "good", "MessageBody": "good"}, {"Id": "bad", "MessageBody": "b\u{1b}d"}]);
    let answer = account.call("sqs", "send-message-batch", &json!({"QueueUrl": url, "Entries": entries}));
    match answer {
        Ok(answer) => {
            let names = |kind: &str| answer[kind].get(0).map(|entry| entry["Id"].clone());
            let holds = names("Successful") == Some(json!("good")) && names("Failed") == Some(json!("bad"));
            Verdict::of(holds, format!("the good entry is sent and the bad one reported: {holds}"))
        }
        Err(refused) => Verdict::no(format!("the whole batch is refused: {refused}")),
    }
}

pub(crate) fn batch_shares_one_limit(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    let body = "x".repeat(BODY_MAX / 2 + 1);
    let entries = json!([{"Id": "a", "MessageBody": body}, {"Id": "b", "MessageBody": body}]);
    let answer = account.call("sqs", "send-message-batch", &json!({"QueueUrl": url, "Entries": entries}));
    Verdict::refused_with(answer, &["BatchRequestTooLong"])
}

pub(crate) fn new_queue_is_soon_there(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    let began = Instant::now();
    let sent = trial.until(PATIENCE, || Ok(send(&account, &url, "first").ok()))?;
    Verdict::of(sent.is_some(), format!("usable after {} s", began.elapsed().as_secs()))
}

pub(crate) fn deleted_name_rests(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let url = trial.queue(&account)?;
    let name = url.rsplit('/').next().unwrap_or_default().to_owned();
    account.call("sqs", "delete-queue", &json!({ "QueueUrl": url }))?;
    let again = account.call("sqs", "create-queue", &json!({ "QueueName": name }));
    Verdict::refused_with(again, &["QueueDeletedRecently"])
}

/// The policy with which an account lets another one's identities send.
fn admit(queue: &Account, url: &str, other: &Account) -> Result<(), Problem> {
    let partition = queue.region.partition();
    let name = url.rsplit('/').next().unwrap_or_default();
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Action": "sqs:SendMessage",
        "Principal": {"AWS": format!("arn:{partition}:iam::{}:root", other.id)},
        "Resource": format!("arn:{partition}:sqs:{}:{}:{name}", queue.region, queue.id),
    }]});
    let attributes = json!({"QueueUrl": url, "Attributes": {"Policy": policy.to_string()}});
    queue.call("sqs", "set-queue-attributes", &attributes)?;
    Ok(())
}

pub(crate) fn other_account_needs_the_policy(trial: &mut Trial<'_>) -> Outcome {
    let (ci, target) = (trial.ci.clone(), trial.target.clone());
    let url = trial.queue(&ci)?;
    if send(&target, &url, "too early").is_ok() {
        return Verdict::no("another account may send without a policy");
    }
    admit(&ci, &url, &target)?;
    let sent = trial.until(PATIENCE, || Ok(send(&target, &url, "admitted").ok()))?;
    Verdict::of(sent.is_some(), format!("refused without a policy; accepted with it: {}", sent.is_some()))
}

pub(crate) fn topic_has_a_limit(trial: &mut Trial<'_>) -> Outcome {
    let topic = trial.target.call("sns", "create-topic", &json!({ "Name": trial.name }))?;
    let topic = text(&topic, "TopicArn")?;
    trial.later_call(&trial.target, "sns", "delete-topic", json!({ "TopicArn": topic }));
    let publish =
        |size: usize| trial.target.call("sns", "publish", &json!({"TopicArn": topic, "Message": "x".repeat(size)}));
    publish(256 << 10)?;
    Verdict::refused_with(publish((256 << 10) + 1), &["InvalidParameter"])
}
