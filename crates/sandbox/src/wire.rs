//! Bytes: from HTTP requests to calls, and from answers to HTTP responses, in each service's protocol.

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use crate::clock::uuid;
use crate::dispatch::{Answer, Service};
use crate::error::{AwsError, Outcome};

pub(crate) type Reply = Response<Full<Bytes>>;

/// Access key and service from `AWS4-HMAC-SHA256 Credential=KEY/date/region/service/aws4_request, …`. The signature is not
/// checked: everything here is one machine, and the key decides who calls.
pub(crate) fn credential(headers: &HeaderMap) -> Option<(&str, Service)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let scope = value.split_once("Credential=")?.1.split([',', ' ']).next()?;
    let mut parts = scope.split('/');
    let key = parts.next()?;
    let service = parts.nth(2)?;
    Some((key, Service::by_name(service)?))
}

/// Form-encoded parameters, as an object of strings.
pub(crate) fn form(text: &str) -> Map<String, Value> {
    let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), Value::String(decode(v))))
        .collect()
}

/// Takes `aws-chunked` framing off: `SIZE[;chunk-signature=…]\r\n DATA \r\n … 0\r\n trailers`.
pub(crate) fn unchunk(body: &Bytes) -> Outcome<Bytes> {
    let broken = || AwsError::client("IncompleteBody", "The aws-chunked body is malformed.");
    let mut out = BytesMut::with_capacity(body.len());
    let mut rest: &[u8] = body;
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").ok_or_else(broken)?;
        let (line, after) = rest.split_at(end);
        let size = line.split(|b| *b == b';').next().unwrap_or_default();
        let size =
            std::str::from_utf8(size).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok()).ok_or_else(broken)?;
        let after = after.get(2..).ok_or_else(broken)?;
        if size == 0 {
            return Ok(out.freeze());
        }
        out.extend_from_slice(after.get(..size).ok_or_else(broken)?);
        rest = after.get(size..).and_then(|r| r.strip_prefix(b"\r\n")).ok_or_else(broken)?;
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

/// Renders a result in the protocol of the service.
pub(crate) fn render(service: Service, operation: &str, head: bool, outcome: Outcome<Answer>) -> Reply {
    let request_id = uuid();
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

/// Names that the query protocol had before: SQS still sends them in a header, and the SDK reads them from there.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_tells_key_and_service() {
        let mut headers = HeaderMap::new();
        let text = "AWS4-HMAC-SHA256 Credential=111111111111/20260101/eu-west-1/sqs/aws4_request, SignedHeaders=host, Signature=0";
        headers.insert(AUTHORIZATION, HeaderValue::from_static(text));
        assert_eq!(credential(&headers), Some(("111111111111", Service::Sqs)));
    }

    #[test]
    fn chunks_come_off() {
        let body =
            Bytes::from_static(b"5;chunk-signature=ab\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n");
        assert_eq!(unchunk(&body), Ok(Bytes::from_static(b"hello!")));
        assert!(unchunk(&Bytes::from_static(b"9\r\nhello\r\n0\r\n")).is_err());
        assert!(unchunk(&Bytes::new()).is_err());
    }

    #[test]
    fn forms_decode() {
        assert_eq!(form("a=1+2&b=%7B%7D&c").get("a"), Some(&json!("1 2")));
        assert_eq!(form("b=%7B%7D").get("b"), Some(&json!("{}")));
    }
}
