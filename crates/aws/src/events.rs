//! EventBridge: puts events on the account's default bus.

use aws_sdk_eventbridge::types::PutEventsRequestEntry;

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// A client of EventBridge that puts events.
#[derive(Clone, Debug)]
pub struct Events {
    client: aws_sdk_eventbridge::Client,
}

impl Events {
    /// Creates the client from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_eventbridge::Client::new(&sdk.config) }
    }

    /// Puts one event. `detail` is a JSON object.
    ///
    /// # Errors
    ///
    /// The error of the call, or of the entry: EventBridge reports the latter in a successful
    /// answer.
    pub async fn put(&self, source: &str, detail_type: &str, detail: String) -> Result<(), AwsError> {
        let entry = PutEventsRequestEntry::builder().source(source).detail_type(detail_type).detail(detail).build();
        let output = self.client.put_events().entries(entry).send().await.map_err(from_sdk("events:PutEvents"))?;
        match output.entries().iter().find_map(|entry| entry.error_message()) {
            Some(message) => Err(AwsError::new("events:PutEvents", Kind::Invalid, message.to_owned())),
            None => Ok(()),
        }
    }
}
