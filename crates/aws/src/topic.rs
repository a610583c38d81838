//! SNS: publishes messages to a topic.

use aws_sdk_sns::types::MessageAttributeValue;
use relay_protocol::TopicArn;
use relay_protocol::request::Hints;

use crate::error::from_sdk;
use crate::{AwsError, Sdk};

/// A client of SNS that publishes.
#[derive(Clone, Debug)]
pub struct Topic {
    client: aws_sdk_sns::Client,
}

impl Topic {
    /// Creates the client from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_sns::Client::new(&sdk.config) }
    }

    /// Publishes `body` with its hints as attributes. Returns SNS's message id.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn publish(&self, topic: &TopicArn, body: &str, hints: &Hints) -> Result<String, AwsError> {
        let mut call = self.client.publish().topic_arn(topic.as_str()).message(body);
        for (name, value) in [
            ("target", hints.target.as_str()),
            ("deployment_id", hints.deployment_id.as_str()),
            ("ci_account", hints.ci_account.as_str()),
        ] {
            let value = MessageAttributeValue::builder()
                .data_type("String")
                .string_value(value)
                .build()
                .map_err(|error| AwsError::new("sns:Publish", crate::Kind::Invalid, error.to_string()))?;
            call = call.message_attributes(name, value);
        }
        let output = call.send().await.map_err(from_sdk("sns:Publish"))?;
        Ok(output.message_id.unwrap_or_default())
    }
}
