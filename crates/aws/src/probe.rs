//! STS, as a check before a first deployment: whose credentials these are, and whether the clocks
//! agree.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::Format;
use relay_protocol::Timestamp;

use crate::error::from_sdk;
use crate::sessions::Identity;
use crate::{AwsError, Sdk, clock};

/// The result of a [`probe`].
#[derive(Clone, Debug)]
pub struct Probe {
    /// The owner of the credentials, or the error of the call.
    pub identity: Result<Identity, AwsError>,
    /// AWS's clock and this machine's at the same moment, in this order. A refusal has both too;
    /// `None` when no answer came.
    pub clocks: Option<(Timestamp, Timestamp)>,
}

/// Calls `sts:GetCallerIdentity` once. A failed call is part of the result.
pub async fn probe(sdk: &Sdk) -> Probe {
    let clocks = Timeouts::default();
    let call = aws_sdk_sts::Client::new(&sdk.config).get_caller_identity().customize().interceptor(clocks.clone());
    let identity = call.send().await.map(Identity::from_output).map_err(from_sdk("sts:GetCallerIdentity"));
    let clocks = *clocks.0.lock().unwrap_or_else(PoisonError::into_inner);
    Probe { identity, clocks }
}

/// Keeps the `Date` of the last answer, and the local time at which it came.
#[derive(Clone, Debug, Default)]
struct Timeouts(Arc<Mutex<Option<(Timestamp, Timestamp)>>>);

#[dyn_dispatch_hint]
impl Intercept for Timeouts {
    fn name(&self) -> &'static str {
        "Timeouts"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|text| DateTime::from_str(text, Format::HttpDate).ok()) {
            let there = Timestamp::from_unix(date.secs());
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((there, clock::now()));
        }
        Ok(())
    }
}
