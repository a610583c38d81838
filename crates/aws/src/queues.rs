//! SQS: the reply and control queues.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry,
};
use aws_smithy_types::retry::RetryConfig;
use relay_protocol::{QueueUrl, SignedFrame};

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// The visibility timeout in seconds, after which SQS delivers a received message again unless it
/// was deleted. It is a sixth of the drain timeout, so that several lost answers to a receive do
/// not look like a gap. Each call states it, because a queue made by somebody else may have another
/// default.
pub const VISIBILITY: u32 = 10;

/// A client of SQS.
#[derive(Clone, Debug)]
pub struct Queues {
    client: aws_sdk_sqs::Client,
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The body.
    pub body: String,
    /// The string attributes.
    pub attributes: Vec<(&'static str, String)>,
}

impl From<&SignedFrame> for Entry {
    fn from(frame: &SignedFrame) -> Self {
        let attributes = frame.attributes().map(|(name, value)| (name, value.to_owned())).collect();
        Self { body: frame.body.clone(), attributes }
    }
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Received {
    /// The body.
    pub body: String,
    /// The string attributes.
    pub attributes: BTreeMap<String, String>,
    /// The receipt handle, which a deletion needs.
    pub receipt: String,
}

impl Queues {
    /// Creates the client from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_sqs::Client::new(&sdk.config) }
    }

    /// Creates a queue and returns its URL as SQS gives it. If a queue with the same name and
    /// attributes exists, returns that one.
    ///
    /// # Errors
    ///
    /// The error of the call, or [`Kind::Unreachable`] when the answer has no URL.
    pub async fn create(
        &self,
        name: &str,
        attributes: &[(&str, String)],
        tags: &[(&str, String)],
    ) -> Result<String, AwsError> {
        let attributes: HashMap<_, _> =
            attributes.iter().map(|(name, value)| (QueueAttributeName::from(*name), value.clone())).collect();
        let tags: HashMap<_, _> = tags.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let call = self.client.create_queue().queue_name(name).set_attributes(Some(attributes)).set_tags(Some(tags));
        let output = call.send().await.map_err(from_sdk("sqs:CreateQueue"))?;
        output
            .queue_url
            .ok_or_else(|| AwsError::new("sqs:CreateQueue", Kind::Unreachable, "the response has no queue URL"))
    }

    /// Sets tags of a queue. Its other tags stay.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn tag(&self, queue: &QueueUrl, tags: &[(&str, String)]) -> Result<(), AwsError> {
        let tags: HashMap<_, _> = tags.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let call = self.client.tag_queue().queue_url(queue.as_str()).set_tags(Some(tags));
        call.send().await.map(|_| ()).map_err(from_sdk("sqs:TagQueue"))
    }

    /// Reads the tags of a queue.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn tags(&self, queue: &QueueUrl) -> Result<BTreeMap<String, String>, AwsError> {
        let output = self.client.list_queue_tags().queue_url(queue.as_str()).send().await;
        Ok(output.map_err(from_sdk("sqs:ListQueueTags"))?.tags.unwrap_or_default().into_iter().collect())
    }

    /// Lists the URLs, as SQS gives them, of all queues whose names begin with `prefix`.
    ///
    /// # Errors
    ///
    /// The error of the first call that fails.
    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let (mut urls, mut next) = (Vec::new(), None);
        loop {
            let call = self.client.list_queues().queue_name_prefix(prefix).max_results(1_000).set_next_token(next);
            let output = call.send().await.map_err(from_sdk("sqs:ListQueues"))?;
            urls.extend(output.queue_urls.unwrap_or_default());
            next = output.next_token;
            if next.is_none() {
                return Ok(urls);
            }
        }
    }

    /// Deletes a queue.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn delete_queue(&self, queue: &QueueUrl) -> Result<(), AwsError> {
        self.client
            .delete_queue()
            .queue_url(queue.as_str())
            .send()
            .await
            .map(|_| ())
            .map_err(from_sdk("sqs:DeleteQueue"))
    }

    /// Sends up to ten messages. Returns for each, in order, whether SQS accepted it: HTTP 200
    /// alone does not tell.
    ///
    /// # Errors
    ///
    /// The error of the whole call, or [`Kind::Invalid`] when an entry cannot be built.
    pub async fn send(&self, queue: &QueueUrl, entries: Vec<Entry>) -> Result<Vec<Result<(), String>>, AwsError> {
        let mut results: Vec<Result<(), String>> =
            entries.iter().map(|_| Err("the response does not mention this entry".to_owned())).collect();
        let mut call = self.client.send_message_batch().queue_url(queue.as_str());
        for (at, entry) in entries.into_iter().enumerate() {
            let mut request = SendMessageBatchRequestEntry::builder().id(at.to_string()).message_body(entry.body);
            for (name, value) in entry.attributes {
                request = request.message_attributes(name, string("sqs:SendMessageBatch", value)?);
            }
            let request = request
                .build()
                .map_err(|error| AwsError::new("sqs:SendMessageBatch", Kind::Invalid, error.to_string()))?;
            call = call.entries(request);
        }
        let output = call.send().await.map_err(from_sdk("sqs:SendMessageBatch"))?;
        for sent in output.successful() {
            if let Some(result) = sent.id().parse::<usize>().ok().and_then(|at| results.get_mut(at)) {
                *result = Ok(());
            }
        }
        for failed in output.failed() {
            if let Some(result) = failed.id().parse::<usize>().ok().and_then(|at| results.get_mut(at)) {
                *result = Err(format!("{}: {}", failed.code(), failed.message().unwrap_or_default()));
            }
        }
        Ok(results)
    }

    /// Receives up to ten messages, and waits for up to `wait_seconds` seconds (at most 20).
    ///
    /// # Errors
    ///
    /// The error of the call. With a wait, the call is not retried.
    pub async fn receive(&self, queue: &QueueUrl, wait_seconds: i32) -> Result<Vec<Received>, AwsError> {
        self.read(queue, wait_seconds, VISIBILITY).await
    }

    /// Reads up to ten messages and leaves them visible to every other reader.
    ///
    /// # Errors
    ///
    /// The error of the call. It is not retried.
    pub async fn peek(&self, queue: &QueueUrl) -> Result<Vec<Received>, AwsError> {
        self.read(queue, 1, 0).await
    }

    async fn read(&self, queue: &QueueUrl, wait_seconds: i32, visibility: u32) -> Result<Vec<Received>, AwsError> {
        let call = self
            .client
            .receive_message()
            .queue_url(queue.as_str())
            .max_number_of_messages(10)
            .wait_time_seconds(wait_seconds)
            .visibility_timeout(visibility.cast_signed())
            .message_attribute_names("All");
        // A caller that waits in a loop retries by itself, and must learn immediately that SQS does
        // not answer.
        let tries = if wait_seconds > 0 { RetryConfig::disabled() } else { RetryConfig::standard() };
        let call = call.customize().config_override(aws_sdk_sqs::config::Builder::new().retry_config(tries));
        let output = call.send().await.map_err(from_sdk("sqs:ReceiveMessage"))?;
        let received = output.messages.unwrap_or_default().into_iter().map(|message| Received {
            body: message.body.unwrap_or_default(),
            attributes: message
                .message_attributes
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, value)| value.string_value.map(|value| (name, value)))
                .collect(),
            receipt: message.receipt_handle.unwrap_or_default(),
        });
        Ok(received.collect())
    }

    /// Deletes up to ten messages. SQS delivers a message again if its deletion fails, and the
    /// reader then drops it as a duplicate.
    ///
    /// # Errors
    ///
    /// The error of the whole call.
    pub async fn delete(&self, queue: &QueueUrl, receipts: &[String]) -> Result<(), AwsError> {
        let mut call = self.client.delete_message_batch().queue_url(queue.as_str());
        for (at, receipt) in receipts.iter().enumerate() {
            let entry = DeleteMessageBatchRequestEntry::builder().id(at.to_string()).receipt_handle(receipt);
            call = call.entries(
                entry
                    .build()
                    .map_err(|error| AwsError::new("sqs:DeleteMessageBatch", Kind::Invalid, error.to_string()))?,
            );
        }
        call.send().await.map(|_| ()).map_err(from_sdk("sqs:DeleteMessageBatch"))
    }
}

fn string(operation: &'static str, value: String) -> Result<MessageAttributeValue, AwsError> {
    MessageAttributeValue::builder()
        .data_type("String")
        .string_value(value)
        .build()
        .map_err(|error| AwsError::new(operation, Kind::Invalid, error.to_string()))
}
