//! From answers to HTTP responses, in the protocol of each service.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::error::{AwsError, Outcome};
use super::service::Service;

pub(crate) type Reply = Response<Full<Bytes>>;

/// An operation's answer, before it is rendered in its service's protocol.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(Value),
    /// JSON that is already serialised; used for received messages, the hot path.
    JsonText(Vec<u8>),
    /// The inside of `<OperationResult>`.
    Xml(String),
    Rest {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
}

impl Answer {
    /// An empty success answer.
    pub(crate) fn done() -> Self {
        Self::Json(json!({}))
    }
}

pub(crate) fn xml_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\r' => out.push_str("&#xD;"),
            c => out.push(c),
        }
    }
    out
}

fn respond(status: u16, headers: Vec<(&'static str, String)>, body: Bytes) -> Reply {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A plain JSON answer, for the sandbox's own paths.
pub(crate) fn plain_json(status: u16, value: &Value) -> Reply {
    respond(status, vec![("content-type", "application/json".to_owned())], Bytes::from(value.to_string()))
}

/// Any other plain answer.
pub(crate) fn plain(status: u16, content_type: &str, body: impl Into<Bytes>) -> Reply {
    respond(status, vec![("content-type", content_type.to_owned())], body.into())
}

/// An answer with headers, for the Runtime API.
pub(crate) fn with_headers(status: u16, headers: Vec<(&'static str, String)>, body: Bytes) -> Reply {
    respond(status, headers, body)
}

/// Renders a result in the protocol of the service. The answer to a HEAD request (`head`) has no
/// body.
pub(crate) fn render(service: Service, operation: &str, head: bool, outcome: Outcome<Answer>) -> Reply {
    let request_id = super::times::uuid();
    let mut reply = match outcome {
        Ok(Answer::Json(value)) => json_reply(service, 200, Bytes::from(value.to_string())),
        Ok(Answer::JsonText(text)) => json_reply(service, 200, Bytes::from(text)),
        Ok(Answer::Xml(inner)) => {
            let namespace = match service {
                Service::Sts => "https://sts.amazonaws.com/doc/2011-06-15/",
                _ => "http://sns.amazonaws.com/doc/2010-03-31/",
            };
            let text = format!(
                "<{operation}Response xmlns=\"{namespace}\"><{operation}Result>{inner}</{operation}Result>\
                 <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation}Response>"
            );
            plain(200, "text/xml", text)
        }
        Ok(Answer::Rest { status, headers, body }) => respond(status, headers, if head { Bytes::new() } else { body }),
        Err(error) => render_error(service, head, &error, &request_id),
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        reply.headers_mut().insert("x-amzn-requestid", value.clone());
        if service == Service::S3 {
            reply.headers_mut().insert("x-amz-request-id", value);
        }
    }
    reply
}

fn json_reply(service: Service, status: u16, body: Bytes) -> Reply {
    let version = if service == Service::Sqs { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(version));
    response
}

fn render_error(service: Service, head: bool, error: &AwsError, request_id: &str) -> Reply {
    let (code, message) = (&error.code, &error.message);
    match service {
        Service::Sns | Service::Sts => {
            let (kind, code) = (if error.status >= 500 { "Receiver" } else { "Sender" }, query_code(service, code));
            let text = format!(
                "<ErrorResponse><Error><Type>{kind}</Type><Code>{}</Code><Message>{}</Message></Error>\
                 <RequestId>{request_id}</RequestId></ErrorResponse>",
                xml_escape(code),
                xml_escape(message)
            );
            plain(error.status, "text/xml", text)
        }
        Service::S3 => {
            let text = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message>\
                 <RequestId>{request_id}</RequestId></Error>",
                xml_escape(code),
                xml_escape(message)
            );
            plain(error.status, "application/xml", if head { String::new() } else { text })
        }
        Service::Sqs => {
            let namespace = if code == "AccessDenied" { "com.amazon.coral.service" } else { "com.amazonaws.sqs" };
            let typed = if code == "AccessDenied" { "AccessDeniedException" } else { code };
            let body = json!({"__type": format!("{namespace}#{typed}"), "message": message});
            let mut reply = json_reply(service, error.status, Bytes::from(body.to_string()));
            let kind = if error.status >= 500 { "Receiver" } else { "Sender" };
            if let Ok(value) = HeaderValue::from_str(&format!("{};{kind}", query_code(service, code))) {
                reply.headers_mut().insert("x-amzn-query-error", value);
            }
            reply
        }
        _ => {
            let typed = if code == "AccessDenied" { "AccessDeniedException" } else { code };
            let mut body = json!({"__type": typed, "message": message});
            if let (Some((name, value)), Some(object)) = (error.extra.as_deref(), body.as_object_mut()) {
                object.insert((*name).to_owned(), value.clone());
            }
            json_reply(service, error.status, Bytes::from(body.to_string()))
        }
    }
}

/// Translates to the error codes of the older query protocol. SQS still sends them in a header,
/// from which the SDK reads them.
fn query_code(service: Service, code: &str) -> &str {
    match (service, code) {
        (Service::Sns, "AccessDenied") => "AuthorizationError",
        (Service::Sqs, "QueueDoesNotExist") => "AWS.SimpleQueueService.NonExistentQueue",
        (Service::Sqs, "QueueNameExists") => "QueueAlreadyExists",
        (Service::Sqs, "QueueDeletedRecently") => "AWS.SimpleQueueService.QueueDeletedRecently",
        (Service::Sqs, "BatchRequestTooLong") => "AWS.SimpleQueueService.BatchRequestTooLong",
        (Service::Sqs, "EmptyBatchRequest") => "AWS.SimpleQueueService.EmptyBatchRequest",
        (Service::Sqs, "TooManyEntriesInBatchRequest") => "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        (Service::Sqs, "BatchEntryIdsNotDistinct") => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        (Service::Sqs, "InvalidBatchEntryId") => "AWS.SimpleQueueService.InvalidBatchEntryId",
        (Service::Sqs, "MessageNotInflight") => "AWS.SimpleQueueService.MessageNotInflight",
        (_, code) => code,
    }
}
