//! The tool's credentials: those of the configuration's `role`, handed out on loopback as ECS itself hands out a task's (clause RUN-10).
//!
//! Role chaining ends a session after an hour, and a deployment may last longer. So the tool gets an address in place of a key; every AWS SDK
//! asks there again in time, and the runner assumes the role anew. Session name, source identity and tags are the deployment's, so that
//! CloudTrail shows its id on each call that the tool makes.

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
use relay_aws::sessions::Sessions;
use relay_protocol::{DeploymentId, Digest, TargetName, Timestamp};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::secrets::Secrets;

/// Life of a session whose end STS does not tell: what role chaining allows at most.
const LIFE: Duration = Duration::from_secs(3_600);

/// With less left than this the tool waits for the renewal; with more it goes on with what is held, however slow STS is.
const URGENT: Duration = Duration::from_secs(60);

/// How long after a renewal that failed there is no other, but for an urgent one.
const AGAIN: Duration = Duration::from_secs(30);

/// How long a connection may take to say what it wants.
const HEADER_WAIT: Duration = Duration::from_secs(5);

/// In whose name the role is assumed.
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
    #[error("the local credentials endpoint: {0}")]
    Endpoint(#[from] std::io::Error),
    #[error("no randomness: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// The endpoint, as long as this lives.
pub(crate) struct Endpoint {
    /// What tells an AWS SDK in the tool where to ask, and by which token.
    pub(crate) variables: [(&'static str, String); 2],
    server: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Endpoint {
    /// Assumes the role, so that one that cannot be assumed ends the deployment before its tool starts, and begins to serve. Whatever is handed
    /// out is put into `secrets` first.
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

/// One session, and when it began.
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
        self.credentials.expiry().unwrap_or(self.taken + LIFE)
    }
}

/// Whether a session is to be replaced: past half its life. SDKs ask again from fifteen minutes to one before the end, and what they get must
/// last them until they ask next.
fn stale(now: SystemTime, taken: SystemTime, ends: SystemTime) -> bool {
    let life = ends.duration_since(taken).unwrap_or_default();
    now.duration_since(taken).unwrap_or_default() >= life / 2
}

/// Whom the connections talk to.
struct CredentialServer {
    role: Role,
    secrets: Secrets,
    /// The token's digest: comparing digests tells nothing of the token by the time it takes.
    token: Digest,
    held: Mutex<Held>,
    /// Held by the one renewal that goes on beside the answers.
    renewing: Arc<Mutex<()>>,
}

impl CredentialServer {
    /// Renews beside the answers, unless that goes on already.
    fn renew(self: &Arc<Self>) {
        let Ok(renewing) = Arc::clone(&self.renewing).try_lock_owned() else { return };
        let server = Arc::clone(self);
        tokio::spawn(Box::pin(async move {
            match Held::take(&server.role, &server.secrets).await {
                Ok(fresh) => {
                    info!(role = server.role.arn, "the tool's credentials were renewed");
                    *server.held.lock().await = fresh;
                }
                Err(error) => {
                    warn!(%error, role = server.role.arn, "the tool's credentials could not be renewed yet");
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
                    info!(role = self.role.arn, "the tool's credentials were renewed");
                    *held = fresh;
                }
                // What is held still serves for a while; the tool asks again.
                Err(error) if now < held.ends() => {
                    warn!(%error, role = self.role.arn, "the tool's credentials could not be renewed yet");
                }
                Err(error) => {
                    warn!(%error, role = self.role.arn, "the tool's credentials could not be renewed");
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

/// Serves until it is aborted, and its connections with it.
async fn serve(listener: TcpListener, server: Arc<CredentialServer>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&server)))),
                // Out of file descriptors, for a moment: the tool asks again.
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
        // Boxed: the SDK's futures nest so deep that the compiler would give up on their layout.
        Box::pin(async move { Ok::<_, Infallible>(server.answer(&request).await) })
    });
    // A client that leaves early is its own affair.
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
        assert!(!stale(at(1_000), at(1_000), at(4_600)));
        assert!(!stale(at(2_799), at(1_000), at(4_600)));
        assert!(stale(at(2_800), at(1_000), at(4_600)));
        assert!(stale(at(9_000), at(1_000), at(4_600)));
        // One that ended before it began, by whatever clock.
        assert!(stale(at(1_000), at(1_000), at(900)));
    }
}
