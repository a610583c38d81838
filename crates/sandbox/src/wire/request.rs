//! From HTTP requests to operations and their parameters, in the protocol of each service.

use bytes::{Bytes, BytesMut};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::error::{AwsError, Outcome};
use super::parameters::Parameters;
use super::service::Service;

/// An AWS request, decoded.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) service: Service,
    pub(crate) operation: String,
    pub(crate) params: Parameters,
    pub(crate) rest: Rest,
    pub(crate) body: Bytes,
}

/// The parts of an S3 request that are not parameters.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) headers: HeaderMap,
}

impl Rest {
    /// A header that is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Request {
    /// A request of the JSON or the query protocol.
    pub(crate) fn new(service: Service, operation: &str, params: Value) -> Self {
        let (params, rest, body) = (Parameters::new(params), Rest::default(), Bytes::new());
        Self { service, operation: operation.to_owned(), params, rest, body }
    }

    /// Decodes a request for `service`.
    pub(crate) fn decode(parts: &Parts, body: Bytes, service: Service) -> Outcome<Self> {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if service == Service::S3 {
            return Self::decode_s3(parts, body);
        }
        if let Some((_, operation)) = header("x-amz-target").rsplit_once('.') {
            let params = match body.is_empty() {
                true => Value::Object(Map::new()),
                false => serde_json::from_slice(&body).map_err(|error| {
                    AwsError::client("SerializationException", format!("The body is not JSON: {error}"))
                })?,
            };
            return Ok(Self::new(service, operation, params));
        }
        let text = std::str::from_utf8(&body)
            .map_err(|_| AwsError::client("MalformedQueryString", "The body is not UTF-8."))?;
        let params = form(text);
        let operation = params.get("Action").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self::new(service, &operation, Value::Object(params)))
    }

    fn decode_s3(parts: &Parts, body: Bytes) -> Outcome<Self> {
        let path = parts.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let decoded = |text: &str| {
            let decoded = percent_decode_str(text).decode_utf8();
            decoded
                .map(|text| text.into_owned())
                .map_err(|_| AwsError::client("InvalidURI", "Couldn't parse the specified URI."))
        };
        let rest = Rest { bucket: decoded(bucket)?, key: decoded(key)?, headers: parts.headers.clone() };
        let operation = s3_operation(&parts.method, &rest);
        let query = form(parts.uri.query().unwrap_or_default());
        let chunked = rest.header("x-amz-content-sha256").is_some_and(|text| text.starts_with("STREAMING-"))
            || rest.header("content-encoding").is_some_and(|text| text.contains("aws-chunked"));
        let body = if chunked { unchunk(&body)? } else { body };
        Ok(Self { rest, body, ..Self::new(Service::S3, operation, Value::Object(query)) })
    }
}

/// The operation that a path-style request selects.
fn s3_operation(method: &Method, rest: &Rest) -> &'static str {
    match (method.as_str(), rest.bucket.is_empty(), rest.key.is_empty()) {
        ("PUT", false, false) => "PutObject",
        ("GET", false, false) => "GetObject",
        ("HEAD", false, false) => "HeadObject",
        ("DELETE", false, false) => "DeleteObject",
        ("GET", false, true) => "ListObjectsV2",
        _ => "Unknown",
    }
}

/// The access key and the service from `AWS4-HMAC-SHA256
/// Credential=KEY/date/region/service/aws4_request, …`. The signature is not checked: all callers
/// are on this machine, and the key alone identifies them.
pub(crate) fn credential(headers: &HeaderMap) -> Option<(&str, Service)> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let scope = value.split_once("Credential=")?.1.split([',', ' ']).next()?;
    let mut parts = scope.split('/');
    let key = parts.next()?;
    let service = parts.nth(2)?;
    Some((key, Service::by_name(service)?))
}

/// Form-encoded parameters, as an object of strings.
fn form(text: &str) -> Map<String, Value> {
    let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), Value::String(decode(v))))
        .collect()
}

/// Removes `aws-chunked` framing: `SIZE[;chunk-signature=…]\r\n DATA \r\n … 0\r\n trailers`.
fn unchunk(body: &Bytes) -> Outcome<Bytes> {
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

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use serde_json::json;

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
