//! The HTTP server: accepts connections, tells AWS requests from the sandbox's own, and answers. Also start and stop of it all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::dispatch::{Call, HangUp, Rest, Service, dispatch};
use crate::environment::{self, Environment};
use crate::error::AwsError;
use crate::faults::{Faults, Plan};
use crate::settings::Settings;
use crate::world::World;
use crate::{admin, lambda, launcher, s3, wire};

/// Largest request: an artifact.
const MAX_REQUEST: usize = 512 * 1024 * 1024;

/// How to start a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// 0 takes any free port.
    pub port: u16,
    /// State folder; a temporary one if not named.
    pub state: Option<PathBuf>,
    /// Fault file.
    pub faults: Option<PathBuf>,
    /// Launcher processes; none for 0.
    pub launchers: usize,
    /// Where `bootstrap`, `relay-runner` and `relay` are; beside the sandbox if not named.
    pub bin_dir: Option<PathBuf>,
    /// Folder with further targets.
    pub targets: Option<PathBuf>,
    /// Settings.
    pub settings: Settings,
    /// Endpoint of an emulator that serves all but ECS.
    pub third_party: Option<String>,
    /// File with the credentials of tasks, or folder with one for each role, for use with `third_party`.
    pub task_credentials: Option<PathBuf>,
}

/// A running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) world: Arc<World>,
    pub(crate) environment: Environment,
    address: SocketAddr,
    ended: mpsc::Receiver<()>,
    /// Holds a temporary state folder until the end.
    _temporary: Option<tempfile::TempDir>,
}

impl Sandbox {
    /// Binds, fills the accounts, starts the launchers, serves.
    pub async fn start(options: Options) -> Result<Self, String> {
        let plan = match &options.faults {
            None => Plan::default(),
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
                Faults::parse(&text).map_err(|e| format!("{}: {e}", file.display()))?
            }
        };
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await.map_err(|e| format!("cannot bind: {e}"))?;
        let address = listener.local_addr().map_err(|e| e.to_string())?;
        let (state, temporary) = state_folder(options.state.as_deref())?;
        let (mut world, ended) = World::new(options.settings, format!("http://{address}"), plan);
        world.state_dir = state;
        world.bin_dir = match options.bin_dir {
            Some(dir) => dir.canonicalize().map_err(|e| format!("{}: {e}", dir.display()))?,
            None => std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default(),
        };
        world.iam.any_key = options.third_party.is_some();
        world.third_party = options.third_party;
        world.task_credentials = options.task_credentials;
        let world = Arc::new(world);
        let (environment, facts) = environment::prepare(&world, options.targets.as_deref())?;
        tokio::spawn(serve(Arc::clone(&world), listener, None));
        if options.launchers > 0 && world.third_party.is_none() {
            launcher::start(&world, options.launchers, &facts).await?;
        }
        if !world.settings.schedule.is_zero() {
            tokio::spawn(environment::schedule(Arc::clone(&world)));
        }
        Ok(Self { world, environment, address, ended, _temporary: temporary })
    }

    /// `http://127.0.0.1:PORT`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The environment for a command, as pairs.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment.pairs
    }

    /// Ends all children that were started here, and waits for them, for some seconds.
    pub async fn stop(mut self) {
        self.world.shut_down();
        let _ = tokio::time::timeout(Duration::from_secs(6), self.ended.recv()).await;
    }
}

fn state_folder(named: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), String> {
    match named {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            Ok((dir.canonicalize().map_err(|e| e.to_string())?, None))
        }
        None => {
            let dir = tempfile::Builder::new().prefix("relay-sandbox-").tempdir().map_err(|e| e.to_string())?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}

/// Accepts connections for ever. `slot` is the launcher that this listener is for.
pub(crate) async fn serve(world: Arc<World>, listener: TcpListener, slot: Option<usize>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(Arc::clone(&world), stream, slot));
            }
            // Out of descriptors, most likely: some will come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn connection(world: Arc<World>, stream: TcpStream, slot: Option<usize>) {
    // Answers are small and must not wait for more.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let world = Arc::clone(&world);
        async move { respond(&world, slot, request).await }
    });
    // An error is a peer that went away, or a fault that hangs up.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(world: &Arc<World>, slot: Option<usize>, request: Request<Incoming>) -> Result<wire::Reply, HangUp> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(body) => body.to_bytes(),
        // Too large, or the peer went away in the middle.
        Err(_) => return Err(HangUp),
    };
    let path = parts.uri.path();
    if path.starts_with("/2018-06-01/runtime/") {
        return lambda::runtime_api(world, slot, &parts.method, path, body).await;
    }
    if let Some(rest) = path.strip_prefix("/_sandbox/") {
        return admin::respond(world, &parts.method, rest, &body).await;
    }
    aws(world, &parts, body).await
}

/// Decodes an AWS request, runs it, renders the answer.
async fn aws(world: &Arc<World>, parts: &hyper::http::request::Parts, body: Bytes) -> Result<wire::Reply, HangUp> {
    let Some((key, service)) = wire::credential(&parts.headers) else {
        let error =
            AwsError::new(403, "MissingAuthenticationToken", "The request has no credential for a known service.");
        return Ok(wire::render(Service::Sts, "", false, Err(error)));
    };
    let head = parts.method == Method::HEAD;
    if world.third_party.is_some() && service != Service::Ecs {
        let error = AwsError::new(501, "NotImplemented", "Only ECS is served here, beside a third-party emulator.");
        return Ok(wire::render(service, "", head, Err(error)));
    }
    let mut call = match world.iam.resolve(key).and_then(|principal| decode(parts, body, service, principal)) {
        Ok(call) => call,
        Err(error) => return Ok(wire::render(service, "", head, Err(error))),
    };
    let outcome = dispatch(world, &mut call).await?;
    Ok(wire::render(service, &call.operation, head, outcome))
}

fn decode(
    parts: &hyper::http::request::Parts,
    body: Bytes,
    service: Service,
    principal: Arc<crate::iam::Principal>,
) -> Result<Call, AwsError> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if service == Service::S3 {
        let path = parts.uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let decoded = |s: &str| percent_decode_str(s).decode_utf8().map(|s| s.into_owned());
        let (bucket, key) = decoded(bucket)
            .and_then(|bucket| Ok((bucket, decoded(key)?)))
            .map_err(|_| AwsError::client("InvalidURI", "Couldn't parse the specified URI."))?;
        let mut call = Call::new(service, s3::operation(&parts.method, &bucket, &key), principal, Value::Null);
        let chunked = header("x-amz-content-sha256").starts_with("STREAMING-")
            || header("content-encoding").contains("aws-chunked");
        call.body = if chunked { wire::unchunk(&body)? } else { body };
        let query = wire::form(parts.uri.query().unwrap_or_default());
        call.rest = Rest { bucket, key, query, headers: parts.headers.clone() };
        return Ok(call);
    }
    let target = header("x-amz-target");
    if let Some((_, operation)) = target.rsplit_once('.') {
        let params = match body.is_empty() {
            true => Value::Object(Map::new()),
            false => serde_json::from_slice(&body)
                .map_err(|e| AwsError::client("SerializationException", format!("The body is not JSON: {e}")))?,
        };
        return Ok(Call::new(service, operation, principal, params));
    }
    let text =
        std::str::from_utf8(&body).map_err(|_| AwsError::client("MalformedQueryString", "The body is not UTF-8."))?;
    let params = Value::Object(wire::form(text));
    let operation = params.get("Action").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Call::new(service, &operation, principal, params))
}
