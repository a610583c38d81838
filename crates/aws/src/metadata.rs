//! The ECS task metadata endpoint, version 4: tells which task this process runs in.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;

use crate::{AwsError, Kind};

const OPERATION: &str = "metadata:GetTask";

/// Maximum number of bytes read from an answer.
const ANSWER_MAX: usize = 256 * 1_024;

/// Reads the ARN of the task that this process runs in. `endpoint` is the value of
/// `ECS_CONTAINER_METADATA_URI_V4`.
///
/// # Errors
///
/// [`Kind::Invalid`] when `endpoint` is not a URI, and [`Kind::Unreachable`] when the endpoint does
/// not answer or its answer has no ARN.
pub async fn task_arn(endpoint: &str) -> Result<String, AwsError> {
    let unreachable = |error: &dyn std::fmt::Display| AwsError::new(OPERATION, Kind::Unreachable, error.to_string());
    let uri: hyper::Uri = format!("{endpoint}/task")
        .parse()
        .map_err(|error| AwsError::new(OPERATION, Kind::Invalid, format!("{endpoint}: {error}")))?;
    let host = uri.host().unwrap_or_default().to_owned();
    let stream = tokio::net::TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| unreachable(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(uri.path()).header("host", host).body(Empty::<hyper::body::Bytes>::new());
    let request = request.map_err(|error| unreachable(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
    let body =
        Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|error| unreachable(&error))?.to_bytes();
    connection.abort();
    let json: serde_json::Value = serde_json::from_slice(&body).map_err(|error| unreachable(&error))?;
    let arn = json.get("TaskARN").and_then(|arn| arn.as_str());
    arn.map(str::to_owned).ok_or_else(|| AwsError::new(OPERATION, Kind::Unreachable, "the response has no TaskARN"))
}
