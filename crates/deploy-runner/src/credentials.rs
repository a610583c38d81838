//! Serves the tool's credentials, those of the configuration's `role`, on loopback as ECS does for
//! a task (clause RUN-10). A session lasts 15 minutes, so that it is soon over when its deployment
//! is, and a deployment may last longer. So the tool gets an address, not a key: AWS SDKs ask there
//! again in time, and the runner renews the session. Session name, source identity and tags are the
//! deployment's, so CloudTrail shows its id on each call of the tool.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay_aws::AwsError;
use relay_aws::sessions::{SESSION, Sessions};
use relay_protocol::{DeploymentId, Digest, TargetName, Timestamp};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::secrets::Secrets;

/// Remaining lifetime below which the tool waits for the renewal. Above it the tool gets the
/// current credentials, however slow STS is.
const URGENT: Duration = Duration::from_secs(60);

/// Pause after a failed renewal. Urgent renewals do not wait for it.
const AGAIN: Duration = Duration::from_secs(30);

/// How long a connection may take to send its request headers.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// The role to assume, and the deployment in whose name the runner assumes it.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) sessions: Sessions,
    pub(crate) arn: String,
    pub(crate) deployment_id: DeploymentId,
    pub(crate) target: TargetName,
}

/// Why the tool gets no credentials.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error("{0}")]
    Assume(#[from] AwsError),
    #[error("cannot start the local credentials endpoint: {0}")]
    Endpoint(#[from] std::io::Error),
    #[error("cannot read random bytes from the system: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// The credentials endpoint. Dropping it stops the server.
pub(crate) struct Endpoint {
    /// The variables that tell an AWS SDK in the tool where to ask, and with which token.
    pub(crate) variables: [(&'static str, String); 2],
    server: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    /// Assumes the role and starts to serve. A role that cannot be assumed ends the deployment
    /// before its tool starts. All credentials are added to `secrets` before they are handed out.
    pub(crate) async fn start(role: Role, secrets: Secrets) -> Result<Self, CredentialsError> {
        let mut random = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut *random)?;
        let token = data_encoding::HEXLOWER.encode(&*random);
        secrets.add(token.clone().into_bytes());
        let held = Held::take(&role, &secrets).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = Arc::new(CredentialServer {
            role,
            secrets,
            token: Digest::of(token.as_bytes()),
            held: Mutex::new(held),
            renewing: Arc::default(),
        });
        Ok(Self {
            variables: [
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{address}/credentials")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token),
            ],
            server: tokio::spawn(serve(listener, server)),
        })
    }
}

/// One role session, and when it was taken.
struct Held {
    credentials: Credentials,
    taken: SystemTime,
}

impl Held {
    async fn take(role: &Role, secrets: &Secrets) -> Result<Self, AwsError> {
        let assumed = role.sessions.assume(&role.arn, role.deployment_id.as_str(), role.target.as_str()).await?;
        let credentials = assumed.credentials;
        secrets.add(credentials.secret_access_key().as_bytes().to_vec());
        secrets.add(credentials.session_token().unwrap_or_default().as_bytes().to_vec());
        Ok(Self { credentials, taken: SystemTime::now() })
    }

    fn ends(&self) -> SystemTime {
        self.credentials.expiry().unwrap_or(self.taken + SESSION)
    }
}

/// Whether a session is past half its life and should be replaced. SDKs ask again between fifteen
/// minutes and a few seconds before the expiry, most of them at five minutes. So a tool that has
/// just asked is given at least seven and a half minutes.
fn stale(now: SystemTime, taken: SystemTime, ends: SystemTime) -> bool {
    let life = ends.duration_since(taken).unwrap_or_default();
    now.duration_since(taken).unwrap_or_default() >= life / 2
}

/// The state that all connections share.
struct CredentialServer {
    role: Role,
    secrets: Secrets,
    /// The token's digest. Comparing digests does not leak the token through timing.
    token: Digest,
    held: Mutex<Held>,
    /// Locked while a renewal runs in the background, so that there is at most one.
    renewing: Arc<Mutex<()>>,
}

impl CredentialServer {
    /// Starts a renewal in the background, unless one is already running.
    fn renew(self: &Arc<Self>) {
        let Ok(renewing) = Arc::clone(&self.renewing).try_lock_owned() else { return };
        let server = Arc::clone(self);
        tokio::spawn(Box::pin(async move {
            match Held::take(&server.role, &server.secrets).await {
                Ok(fresh) => {
                    info!(role = server.role.arn, "renewed the tool's credentials");
                    *server.held.lock().await = fresh;
                }
                Err(error) => {
                    warn!(%error, role = server.role.arn, "cannot renew the tool's credentials yet");
                    tokio::time::sleep(AGAIN).await;
                }
            }
            drop(renewing);
        }));
    }

    async fn answer(self: &Arc<Self>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let given = request.headers().get(AUTHORIZATION).map(|value| Digest::of(value.as_bytes()));
        if given != Some(self.token) {
            return say(StatusCode::FORBIDDEN, &problem("AccessDenied", "the authorization token is missing or wrong"));
        }
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        if stale(now, held.taken, held.ends()) && held.ends() > now + URGENT {
            self.renew();
        } else if stale(now, held.taken, held.ends()) {
            match Held::take(&self.role, &self.secrets).await {
                Ok(fresh) => {
                    info!(role = self.role.arn, "renewed the tool's credentials");
                    *held = fresh;
                }
                // The current credentials are still valid, and the tool asks again later.
                Err(error) if now < held.ends() => {
                    warn!(%error, role = self.role.arn, "cannot renew the tool's credentials yet");
                }
                Err(error) => {
                    warn!(%error, role = self.role.arn, "cannot renew the tool's credentials");
                    return say(StatusCode::SERVICE_UNAVAILABLE, &problem("RenewalFailed", &error.to_string()));
                }
            }
        }
        let ends = held.ends().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let credentials = serde_json::json!({
            "RoleArn": self.role.arn,
            "AccessKeyId": held.credentials.access_key_id(),
            "SecretAccessKey": held.credentials.secret_access_key(),
            "Token": held.credentials.session_token(),
            "Expiration": Timestamp::from_unix(i64::try_from(ends).unwrap_or(i64::MAX)).to_string(),
        });
        say(StatusCode::OK, &credentials)
    }
}

fn problem(code: &str, message: &str) -> serde_json::Value {
    serde_json::json!({ "code": code, "message": message })
}

fn say(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// Serves until the task is aborted, which also closes its connections.
async fn serve(listener: TcpListener, server: Arc<CredentialServer>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&server)))),
                // File descriptors may have run out for a moment; the tool asks again.
                Err(error) => {
                    warn!(%error, "the local credentials endpoint");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<CredentialServer>) {
    let service = hyper::service::service_fn(|request| {
        let server = Arc::clone(&server);
        // Boxed: the SDK's futures nest so deeply that the compiler would give up on their layout.
        Box::pin(async move { Ok::<_, Infallible>(server.answer(&request).await) })
    });
    // A client that disconnects early does not affect the runner.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_renewed_past_half_its_life() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!stale(at(1_000), at(1_000), at(1_900)));
        assert!(!stale(at(1_449), at(1_000), at(1_900)));
        assert!(stale(at(1_450), at(1_000), at(1_900)));
        assert!(stale(at(9_000), at(1_000), at(1_900)));
        // A session that ended before it began, as clocks that differ may report.
        assert!(stale(at(1_000), at(1_000), at(900)));
    }
}
