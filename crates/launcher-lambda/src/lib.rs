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
//! `summary` and `record` leave what the launcher decided and what no runner records. [`answer`]
//! signs and sends frames.
//!
//! The same program is two more functions, each with a role of its own: `jwks` fetches the keys of
//! token issuers, and `ledger` lists claims and records, so that a removed one is missed.

#![forbid(unsafe_code)]

mod admit;
pub mod answer;
mod claims;
mod ended;
pub mod event;
mod jwks;
mod launch;
mod launcher;
mod ledger;
mod record;
pub mod settings;
mod store;
mod summary;
pub mod watch;

use std::sync::Arc;

use lambda_runtime::{LambdaEvent, service_fn};
use relay_console::telemetry;

use crate::jwks::Collector;
use crate::launcher::Launcher;
use crate::ledger::Clerk;
use crate::settings::Settings;

/// Serves invocations until Lambda ends the process.
///
/// # Errors
///
/// Returns an error if a setting is missing or malformed, or if the Lambda runtime fails.
pub async fn run() -> Result<(), lambda_runtime::Error> {
    telemetry::json();
    // One zip serves three functions with different roles.
    match std::env::var("_HANDLER").as_deref() {
        Ok("jwks") => {
            let collector = Arc::new(Collector::from_environment()?);
            return on_schedule(move || Arc::clone(&collector).run()).await;
        }
        Ok("ledger") => {
            let clerk = Arc::new(Clerk::from_environment()?);
            return on_schedule(move || Arc::clone(&clerk).run()).await;
        }
        _ => {}
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

/// Serves a function that needs nothing of its event but that it came.
async fn on_schedule<F>(work: impl Fn() -> F) -> Result<(), lambda_runtime::Error>
where
    F: Future<Output = Result<(), lambda_runtime::Error>> + Send + 'static,
{
    lambda_runtime::run(service_fn(|_: LambdaEvent<serde_json::Value>| Box::pin(work()))).await
}
