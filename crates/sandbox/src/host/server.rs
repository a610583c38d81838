//! The HTTP server: it accepts connections, tells AWS requests from the sandbox's own, and answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::dispatch::{HangUp, dispatch};
use super::shared::Host;
use super::{admin, issuers, portal, runtime};
use crate::services::{Call, Now, lock};
use crate::wire::answer::{Reply, render};
use crate::wire::error::AwsError;
use crate::wire::request::{self, credential};
use crate::wire::service::Service;

/// Maximum size of a request, in bytes. Artifacts are the largest.
const REQUEST_MAX: usize = 512 * 1024 * 1024;

/// Accepts connections forever. `slot` is the launcher that this listener serves, if it serves one.
pub(super) async fn serve(host: Arc<Host>, listener: TcpListener, slot: Option<usize>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Responses are small, and must not wait for more data to send (Nagle's algorithm).
                let _ = stream.set_nodelay(true);
                tokio::spawn(connection(Arc::clone(&host), stream, slot));
            }
            // Most likely, the process is out of file descriptors; some will be freed.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Answers the requests of one connection, until it ends.
pub(super) async fn connection<S>(host: Arc<Host>, stream: S, slot: Option<usize>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let host = Arc::clone(&host);
        async move { respond(&host, slot, request).await }
    });
    // An error means that the peer disconnected, or that a fault dropped the connection.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(host: &Arc<Host>, slot: Option<usize>, request: Request<Incoming>) -> Result<Reply, HangUp> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, REQUEST_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        // Too large, or the peer went away in the middle.
        Err(_) => return Err(HangUp),
    };
    let path = parts.uri.path();
    if path.starts_with("/2018-06-01/runtime/") {
        return runtime::respond(host, slot, &parts.method, path, body).await;
    }
    if let Some(rest) = path.strip_prefix("/_sandbox/") {
        return admin::respond(host, &parts.method, rest, &body).await;
    }
    if let Some(rest) = path.strip_prefix("/issuers/") {
        return Ok(issuers::respond(host, &parts, rest).await);
    }
    if path == portal::PATH {
        return Ok(portal::respond(&parts));
    }
    aws(host, &parts, body).await
}

/// Decodes an AWS request, runs it, renders the answer.
async fn aws(host: &Arc<Host>, parts: &Parts, body: Bytes) -> Result<Reply, HangUp> {
    let Some((key, service)) = credential(&parts.headers) else {
        let message = "The request has no credential for a known service.";
        let error = AwsError::new(403, "MissingAuthenticationToken", message);
        return Ok(render(Service::Sts, "", false, Err(error)));
    };
    let head = parts.method == Method::HEAD;
    let mut call = match call(host, parts, body, key, service) {
        Ok(call) => call,
        Err(error) => return Ok(render(service, "", head, Err(error))),
    };
    if call.operation == "GetWebIdentityToken" {
        issuers::ensure_keys(host).await;
    }
    let outcome = dispatch(host, &mut call).await?;
    Ok(render(service, &call.operation, head, outcome))
}

/// Decodes the call, and identifies the caller by the access key.
fn call(host: &Host, parts: &Parts, body: Bytes, key: &str, service: Service) -> Result<Call, AwsError> {
    if host.third_party.is_some() && service != Service::Ecs {
        let message = "The sandbox serves only ECS here; use the third-party emulator for everything else.";
        return Err(AwsError::new(501, "NotImplemented", message));
    }
    let principal = lock(&host.services.sts).resolve(Now::read(), key)?;
    Ok(Call::new(request::Request::decode(parts, body, service)?, principal))
}
