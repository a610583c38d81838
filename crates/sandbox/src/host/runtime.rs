//! The Lambda Runtime API, `/2018-06-01/runtime/…`.

use std::sync::Arc;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::dispatch::{HangUp, dispatch};
use super::shared::Host;
use crate::services::lambda::{TAKEN, launcher};
use crate::services::{Call, lock};
use crate::wire::answer::{Answer, Reply, plain_json, with_headers};
use crate::wire::request::Request;
use crate::wire::service::Service;

/// Answers one request. `slot` is the launcher's process that asks, if it is one of the sandbox's
/// own.
pub(super) async fn respond(
    host: &Arc<Host>,
    slot: Option<usize>,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<Reply, HangUp> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
    let (operation, id) = match (method.as_str(), parts.as_slice()) {
        ("GET", ["invocation", "next"]) => ("Next", None),
        ("POST", ["invocation", id, "response"]) => ("Response", Some(*id)),
        ("POST", ["invocation", id, "error"]) => ("Error", Some(*id)),
        ("POST", ["init", "error"]) => ("InitError", None),
        _ => return Ok(failed(404, "NotFound", "no such path")),
    };
    loop {
        let params = if operation == "Next" { first(host, slot).await } else { json!({"requestId": id}) };
        let request = Request { body: body.clone(), ..Request::new(Service::Runtime, operation, params) };
        let mut call = Call::new(request, Arc::new(launcher(slot)));
        return match dispatch(host, &mut call).await {
            Ok(Ok(Answer::Rest { status, headers, body })) => Ok(with_headers(status, headers, body)),
            Ok(Ok(_)) => Ok(failed(500, "InternalFailure", "an answer of another form")),
            Ok(Err(error)) if error.code == TAKEN => continue,
            Ok(Err(error)) => Ok(failed(error.status, &error.code, &error.message)),
            Err(HangUp) => {
                // A process that the sandbox did not start cannot be killed, but its invocation has
                // failed.
                if slot.is_none() {
                    host.with_lambda(|lambda, effects| lambda.exited(call.text("requestId"), effects));
                }
                Err(HangUp)
            }
        };
    }
}

fn failed(status: u16, kind: &str, words: &str) -> Reply {
    plain_json(status, &json!({"errorMessage": words, "errorType": kind}))
}

/// Waits for the first event that a slot may have.
async fn first(host: &Host, slot: Option<usize>) -> Value {
    let bell = lock(&host.services.lambda).bell();
    loop {
        let rung = bell.notified();
        if let Some(params) = lock(&host.services.lambda).peek(slot) {
            return params;
        }
        rung.await;
    }
}
