//! The functions beside the launcher, `jwks` and `ledger`: each is the launcher's program with
//! another handler and another role. Their schedules are not run; each is run when it is needed.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::children;
use super::shared::Host;
use crate::services::principal::Principal;
use crate::services::{Now, REGION, TARGET_ACCOUNT, lock};
use crate::wire::answer::{plain_json, with_headers};

/// How long a function may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the function with this handler once.
pub(super) async fn run(
    host: &Arc<Host>,
    handler: &'static str,
    environment: Vec<(&'static str, String)>,
) -> Result<(), String> {
    let ended = tokio::time::timeout(PATIENCE, invoke(host, handler, environment)).await;
    let result = ended.unwrap_or_else(|_| Err("it took too long".to_owned()));
    host.log.note("lambda", handler, result.clone().err(), Map::new());
    result
}

async fn invoke(
    host: &Arc<Host>,
    handler: &'static str,
    environment: Vec<(&'static str, String)>,
) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let name = format!("relay-{handler}");
    let log = host.places.state_dir.join(format!("{handler}.log"));
    let log = std::fs::File::options().create(true).append(true).open(log).map_err(|error| error.to_string())?;
    let program = host.places.bin_dir.join("bootstrap");
    let mut child = children::command(&program)
        .envs([
            ("_HANDLER", handler.to_owned()),
            ("AWS_LAMBDA_RUNTIME_API", address.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", name.clone()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "sandbox".to_owned()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ENDPOINT_URL", host.aws().to_owned()),
            ("AWS_CA_BUNDLE", host.places.authority.to_string_lossy().into_owned()),
        ])
        .envs(credentials(host, &name))
        .envs(environment)
        .stdout(Stdio::from(log.try_clone().map_err(|error| error.to_string())?))
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let (sender, mut ended) = mpsc::channel(1);
    let serving = tokio::spawn(serve(listener, name, sender));
    let result = tokio::select! {
        result = ended.recv() => result.unwrap_or_else(|| Err("the Runtime API ended".to_owned())),
        status = child.wait() => Err(format!("it ended: {status:?}")),
    };
    serving.abort();
    let _ = child.kill().await;
    result
}

/// The credentials of the function's role. A third-party emulator does not know the sandbox's
/// sessions, and gets those of its own administrator.
fn credentials(host: &Host, name: &str) -> Vec<(&'static str, String)> {
    if host.third_party.is_some() {
        let settings = &host.settings;
        return vec![
            ("AWS_ACCESS_KEY_ID", settings.cloudformation_access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", settings.cloudformation_secret_key.clone()),
        ];
    }
    let role = Principal::role(TARGET_ACCOUNT, &format!("relay/{name}"), name);
    let keys = lock(&host.services.sts).mint(Now::read(), role, None);
    vec![
        ("AWS_ACCESS_KEY_ID", keys.access_key),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_key),
        ("AWS_SESSION_TOKEN", keys.token),
    ]
}

/// A Runtime API with one event, which reports how the function ended.
async fn serve(listener: TcpListener, name: String, ended: mpsc::Sender<Result<(), String>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (ended, name) = (ended.clone(), name.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (ended, name) = (ended.clone(), name.clone());
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
                            format!("arn:aws:lambda:{REGION}:{TARGET_ACCOUNT}:function:{name}"),
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
