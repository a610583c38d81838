//! HTTPS without AWS: an issuer's keys, and CI's identity tokens. It uses the SDK's client, so
//! proxies and `AWS_CA_BUNDLE` apply as for every other call. It follows no redirect.

use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;

use crate::sdk;

/// How long one request may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The most bytes of an answer that nobody reads.
const ANSWER_MAX: usize = 64 * 1024;

/// An HTTP client for other servers than AWS's.
#[derive(Debug)]
pub struct Fetch {
    connector: Connector,
}

/// Why there is no answer. `url` is without its query, which may hold secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The environment names certificates that cannot be used.
    #[error("{0}")]
    Environment(String),
    /// The text is not a URL that may be asked.
    #[error("`{0}` is not a URL that relay may ask")]
    Url(String),
    /// Nobody answered in time, or the connection failed.
    #[error("{url}: {problem}")]
    Unreachable {
        /// The URL.
        url: String,
        /// What failed.
        problem: String,
    },
    /// The answer has another status than 200.
    #[error("{url} answers with the HTTP status {status}{}", if (300..400).contains(.status) { ", and redirects are not followed" } else { "" })]
    Status {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
    },
    /// The answer is too large.
    #[error("{url} answers with more than {max} bytes")]
    TooLarge {
        /// The URL.
        url: String,
        /// The limit in bytes.
        max: usize,
    },
}

impl Fetch {
    /// A client with the proxies and certificates that the environment names.
    ///
    /// # Errors
    ///
    /// [`FetchError::Environment`].
    pub fn from_environment() -> Result<Self, FetchError> {
        Ok(Self { connector: sdk::connector_from_environment().map_err(FetchError::Environment)? })
    }

    /// The body of at most `max` bytes that a GET of `url` is answered with. The URL must use
    /// `https`, or `http` on a loopback address.
    ///
    /// # Errors
    ///
    /// If the answer's status is not 200, or there is no answer of that size within ten seconds.
    pub async fn get(&self, url: &str, headers: &[(&'static str, String)], max: usize) -> Result<Vec<u8>, FetchError> {
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        if !is_safe(&shown) {
            return Err(FetchError::Url(shown));
        }
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let request = to(url, &shown, headers, SdkBody::empty())?;
        self.answer(request, shown, max).await
    }

    /// Sends a document to a server that the caller chose, and ignores what it answers. The URL may
    /// use plain `http`: what is sent is no secret.
    ///
    /// # Errors
    ///
    /// If the answer's status is not 200, or there is none within ten seconds.
    pub async fn post_json(&self, url: &str, headers: &[(String, String)], body: String) -> Result<(), FetchError> {
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        let json = ("content-type".to_owned(), "application/json".to_owned());
        let mut request = to(url, &shown, headers.iter().cloned().chain([json]), SdkBody::from(body))?;
        request.set_method("POST").map_err(|_| FetchError::Url(shown.clone()))?;
        self.answer(request, shown, ANSWER_MAX).await.map(drop)
    }

    /// The body of at most `max` bytes of an answer with the status 200.
    async fn answer(&self, request: HttpRequest, shown: String, max: usize) -> Result<Vec<u8>, FetchError> {
        let unreachable = |problem: String| FetchError::Unreachable { url: shown.clone(), problem };
        let asking = async {
            let answer =
                self.connector.call(request).await.map_err(|error| unreachable(crate::error::chain(&error)))?;
            let status = answer.status().as_u16();
            if status != 200 {
                return Err(FetchError::Status { url: shown.clone(), status });
            }
            let (mut body, mut bytes) = (ByteStream::new(answer.into_body()), Vec::new());
            while let Some(part) = body.next().await {
                bytes.extend_from_slice(&part.map_err(|error| unreachable(error.to_string()))?);
                if bytes.len() > max {
                    return Err(FetchError::TooLarge { url: shown.clone(), max });
                }
            }
            Ok(bytes)
        };
        let seconds = WITHIN.as_secs();
        tokio::time::timeout(WITHIN, asking)
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("there was no whole answer within {seconds} s"))))
    }
}

/// A GET of `url` with these headers and this body. Errors name the URL as `shown`.
fn to(
    url: &str,
    shown: &str,
    headers: impl Iterator<Item = (String, String)>,
    body: SdkBody,
) -> Result<HttpRequest, FetchError> {
    let mut request = HttpRequest::new(body);
    request.set_uri(url).map_err(|_| FetchError::Url(shown.to_owned()))?;
    for (name, value) in headers {
        let added = request.headers_mut().try_insert(name.clone(), value);
        added.map_err(|_| FetchError::Url(format!("{shown} with the header {name}")))?;
    }
    Ok(request)
}

/// Whether nobody on the way can read or change what is sent.
fn is_safe(url: &str) -> bool {
    let on_loopback = |rest: &str| {
        let host = rest.split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        ["127.0.0.1", "localhost", "[::1]"].contains(&name)
    };
    url.starts_with("https://") || url.strip_prefix("http://").is_some_and(on_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_alone() {
        for safe in ["https://issuer.example/x", "http://127.0.0.1:1/x", "http://localhost/", "http://[::1]:80"] {
            assert!(is_safe(safe), "{safe}");
        }
        for odd in
            ["http://issuer.example", "http://localhost@evil.example/", "http://127.0.0.1.evil.example", "ftp://x", ""]
        {
            assert!(!is_safe(odd), "{odd}");
        }
    }
}
