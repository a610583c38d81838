//! The issuers' HTTP side: GitHub's token endpoint, and the discovery documents and keys of both
//! issuers. And the function `jwks`, which is run once before the first token is needed.
//!
//! On GitHub, the job's bearer token decides what its identity tokens claim. So does the
//! sandbox's: `sandbox` stands for a push to the main branch; `sandbox.` and a JSON object in
//! base64url changes claims, and leaves out those that are `null`.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::children;
use super::shared::Host;
use crate::services::principal::Principal;
use crate::services::{Now, REGION, TARGET_ACCOUNT, lock};
use crate::wire::answer::{Reply, plain_json, with_headers};

/// The bearer token of a job on GitHub.
pub(super) const BEARER: &str = "sandbox";

/// How long the function `jwks` may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The life of GitHub's tokens, in seconds.
const LIFE: u64 = 300;

/// Answers a path below `/issuers/`.
pub(super) async fn respond(host: &Arc<Host>, parts: &Parts, path: &str) -> Reply {
    match (&parts.method, path) {
        (&Method::GET, "github/token") => match token(host, parts).await {
            Ok(token) => plain_json(200, &json!({ "value": token })),
            Err((status, problem)) => plain_json(status, &json!({ "message": problem })),
        },
        (&Method::GET, "github/.well-known/openid-configuration") => {
            plain_json(200, &lock(&host.services.github).discovery())
        }
        (&Method::GET, "github/.well-known/jwks") => plain_json(200, &lock(&host.services.github).jwks()),
        (&Method::GET, "sts/.well-known/openid-configuration") => {
            plain_json(200, &lock(&host.services.sts).issuer.discovery())
        }
        (&Method::GET, "sts/.well-known/jwks") => plain_json(200, &lock(&host.services.sts).issuer.jwks()),
        _ => plain_json(404, &json!({"message": "no such path"})),
    }
}

/// A token for the job whose bearer token the caller shows.
async fn token(host: &Arc<Host>, parts: &Parts) -> Result<String, (u16, String)> {
    let forbidden = || (403, "the bearer token is not a job's".to_owned());
    let bearer = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("bearer ")).ok_or_else(forbidden)?;
    let mut claims = github_claims();
    if bearer != BEARER {
        let changes = bearer.strip_prefix(BEARER).and_then(|rest| rest.strip_prefix('.')).ok_or_else(forbidden)?;
        let changes = BASE64URL_NOPAD.decode(changes.as_bytes()).map_err(|_| forbidden())?;
        let changes: Map<String, Value> = serde_json::from_slice(&changes).map_err(|_| forbidden())?;
        claims.extend(changes);
    }
    let query = parts.uri.query().unwrap_or_default();
    let audience = query.split('&').find_map(|pair| pair.strip_prefix("audience="));
    let audience = audience.ok_or((400, "no audience".to_owned()))?;
    let audience = percent_decode_str(audience).decode_utf8_lossy().into_owned();
    ensure_keys(host).await;
    let issuer = lock(&host.services.github);
    issuer.token(Now::read(), &audience, LIFE, Value::Object(claims)).map_err(|problem| (500, problem))
}

/// The bearer token of a job whose tokens differ in these claims.
pub(super) fn bearer(changes: &Map<String, Value>) -> String {
    format!("{BEARER}.{}", BASE64URL_NOPAD.encode(Value::Object(changes.clone()).to_string().as_bytes()))
}

/// What a push to the main branch claims (GitHub's reference of OpenID Connect).
fn github_claims() -> Map<String, Value> {
    let repository = "octo-org/payments";
    let workflow = format!("{repository}/.github/workflows/deploy.yml@refs/heads/main");
    let claims = json!({
        "sub": format!("repo:{repository}:environment:production"), "environment": "production",
        "repository": repository, "repository_id": "74", "repository_owner": "octo-org", "repository_owner_id": "65",
        "repository_visibility": "private", "actor": "octocat", "actor_id": "12", "event_name": "push",
        "ref": "refs/heads/main", "ref_type": "branch", "sha": "0123456789abcdef0123456789abcdef01234567",
        "workflow": "deploy", "workflow_ref": workflow, "job_workflow_ref": workflow, "run_id": "19",
        "run_number": "10", "run_attempt": "1", "runner_environment": "github-hosted",
    });
    claims.as_object().cloned().unwrap_or_default()
}

/// Makes sure that the function `jwks` has run, as its schedule sees to on AWS.
pub(super) async fn ensure_keys(host: &Arc<Host>) {
    host.keys_fetched.get_or_init(|| fetch_keys(host)).await;
}

/// Runs the function `jwks` once: the launcher's program with another handler and another role.
pub(super) async fn fetch_keys(host: &Arc<Host>) {
    let ended = tokio::time::timeout(PATIENCE, run(host)).await;
    let problem = ended.unwrap_or_else(|_| Err("it took too long".to_owned())).err();
    host.log.note("lambda", "FetchKeys", problem, Map::new());
}

async fn run(host: &Arc<Host>) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let role = Principal::role(TARGET_ACCOUNT, "relay/relay-jwks", "jwks");
    let keys = lock(&host.services.sts).mint(Now::read(), role, None);
    let issuers = [lock(&host.services.github).url.clone(), lock(&host.services.sts).issuer.url.clone()].join(",");
    let log = std::fs::File::options().create(true).append(true).open(host.places.state_dir.join("jwks.log"));
    let log = log.map_err(|error| error.to_string())?;
    let program = host.places.bin_dir.join("bootstrap");
    let mut child = children::command(&program)
        .envs([
            ("_HANDLER", "jwks".to_owned()),
            ("AWS_LAMBDA_RUNTIME_API", address.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", "relay-jwks".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/relay-jwks".to_owned()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "sandbox".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", host.aws().to_owned()),
            ("AWS_CA_BUNDLE", host.places.authority.to_string_lossy().into_owned()),
            ("AWS_ACCESS_KEY_ID", keys.access_key),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_key),
            ("AWS_SESSION_TOKEN", keys.token),
            ("RELAY_BUCKET", host.bucket()),
            ("RELAY_ISSUERS", issuers),
        ])
        .stdout(Stdio::from(log.try_clone().map_err(|error| error.to_string())?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let (sender, mut ended) = mpsc::channel(1);
    let serving = tokio::spawn(serve(listener, sender));
    let result = tokio::select! {
        result = ended.recv() => result.unwrap_or_else(|| Err("the Runtime API ended".to_owned())),
        status = child.wait() => Err(format!("it ended: {status:?}")),
    };
    serving.abort();
    let _ = child.kill().await;
    result
}

/// A Runtime API with one event, which reports how the function ended.
async fn serve(listener: TcpListener, ended: mpsc::Sender<Result<(), String>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let ended = ended.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let ended = ended.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let path = parts.uri.path();
                if path.ends_with("/next") {
                    let deadline = Now::read().ms + 30_000;
                    let headers = vec![
                        ("lambda-runtime-aws-request-id", "1".to_owned()),
                        ("lambda-runtime-deadline-ms", deadline.to_string()),
                        (
                            "lambda-runtime-invoked-function-arn",
                            format!("arn:aws:lambda:{REGION}:{TARGET_ACCOUNT}:function:relay-jwks"),
                        ),
                    ];
                    return Ok::<_, std::convert::Infallible>(with_headers(200, headers, "{}".into()));
                }
                let result = match path.ends_with("/response") {
                    true => Ok(()),
                    false => Err(String::from_utf8_lossy(&body).into_owned()),
                };
                let _ = ended.send(result).await;
                Ok(plain_json(202, &json!({})))
            }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
