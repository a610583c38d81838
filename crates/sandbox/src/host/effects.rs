//! Carries out the effects that the services request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::dispatch::dispatch;
use super::shared::Host;
use super::tasks;
use crate::services::principal::Principal;
use crate::services::{Call, Effect, TARGET_ACCOUNT};
use crate::wire::request::Request;
use crate::wire::service::Service;

/// Pauses between attempts to deliver an event to the function, about 13 s in total.
const PAUSES_MS: [u64; 8] = [50, 100, 200, 400, 800, 1600, 3200, 6400];

/// Carries out effects in the order in which they were requested, until the sandbox ends.
pub(super) async fn serve(host: Arc<Host>, mut asked: mpsc::UnboundedReceiver<Effect>) {
    while let Some(effect) = asked.recv().await {
        match effect {
            Effect::Invoke { source, event, delay } => invoke(&host, source, event, delay),
            Effect::Later(delay, timer) => {
                let host = Arc::clone(&host);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    host.with_lambda(|lambda, effects| lambda.fire(timer, effects));
                });
            }
            Effect::KillLauncher(slot) => host.launchers.kill(slot),
            Effect::StartTask { arn, fate } => tasks::start(&host, arn, fate),
            Effect::StopTask { arn } => host.tasks.stop(&arn),
            Effect::Note { service, operation, error, detail } => host.log.note(service, operation, error, detail),
        }
    }
}

/// Delivers an event to the function as its source service would: after `delay`, and again if it is
/// refused. Fault rules for `lambda:Invoke` apply.
pub(super) fn invoke(host: &Arc<Host>, source: &str, event: Value, delay: Duration) {
    let host = Arc::clone(host);
    let principal = Arc::new(Principal::role(TARGET_ACCOUNT, "sandbox", source));
    // The state lets a fault rule tell a task's events apart.
    let state = event.pointer("/detail/lastStatus").and_then(Value::as_str).unwrap_or_default();
    let params = json!({"source": source, "state": state});
    let body = Bytes::from(event.to_string());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        for pause in PAUSES_MS {
            let request = Request { body: body.clone(), ..Request::new(Service::Lambda, "Invoke", params.clone()) };
            if let Ok(Ok(_)) = dispatch(&host, &mut Call::new(request, Arc::clone(&principal))).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        host.log.note("lambda", "EventLost", Some("never accepted".to_owned()), Map::new());
    });
}
