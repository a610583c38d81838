//! The launcher: a Lambda that verifies and authorises a signed request, and starts exactly one
//! task for it.
//!
//! It has few permissions: run the task definitions of its targets, sign with the answer key, write
//! claims, requests and its own records, and answer on `relay-*-reply` queues. Nobody trusts it:
//! the runner verifies again (promise P2). However often a request is delivered, the answer is the
//! same, and at most one task starts (promise P3).
//!
//! [`event`] reads what AWS delivers, and [`launch`] verifies it. `admit` makes the calls for a
//! request in the order that [`relay_engine::launch`] decides. [`watch`] follows each task to its
//! end and forwards cancels. `store` keeps the requests, `claims` reads and writes final verdicts,
//! and `record` records what no runner records. [`answer`] signs and sends frames.
//!
//! The same program is a second function with a role of its own, `jwks`, which fetches the keys of
//! token issuers.

#![forbid(unsafe_code)]

mod admit;
pub mod answer;
mod claims;
pub mod event;
mod jwks;
mod launch;
mod launcher;
mod record;
pub mod settings;
mod store;
pub mod watch;

use std::sync::Arc;

use lambda_runtime::{LambdaEvent, service_fn};
use relay_console::telemetry;

use crate::jwks::Collector;
use crate::launcher::Launcher;
use crate::settings::Settings;

/// Serves invocations until Lambda ends the process.
///
/// # Errors
///
/// Returns an error if a setting is missing or malformed, or if the Lambda runtime fails.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    telemetry::json();
    // One zip serves two functions with different roles.
    if std::env::var("_HANDLER").is_ok_and(|handler| handler == "jwks") {
        let collector = Arc::new(Collector::from_environment()?);
        return lambda_runtime::run(service_fn(move |_: LambdaEvent<serde_json::Value>| {
            let collector = Arc::clone(&collector);
            Box::pin(async move { collector.run().await })
        }))
        .await;
    }
    let settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    let launcher = Arc::new(Launcher::new(settings));
    lambda_runtime::run(service_fn(move |event: LambdaEvent<serde_json::Value>| {
        let launcher = Arc::clone(&launcher);
        // Boxed: the SDK's futures nest so deeply that the compiler would give up on their layout.
        Box::pin(async move { launcher.handle(event.payload, event.context.deadline()).await })
    }))
    .await
}
