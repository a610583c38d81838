//! The launcher's processes: N instances of the binary `bootstrap`, each with the environment that
//! Lambda provides. A process that ends is restarted.
//!
//! Each has its own Runtime API port, which shows which invocation a process held when it died.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tokio::process::Child;

use super::dispatch::dispatch;
use super::environment::Facts;
use super::shared::Host;
use super::{children, server};
use crate::services::lambda::launcher;
use crate::services::sts::Credentials;
use crate::services::{CI_ACCOUNT, Call, Now, REGION, lock};
use crate::wire::request::Request;
use crate::wire::service::Service;

/// The lifetime of a launcher's credentials: ten hours, longer than a process ever needs them.
const LIFE: Duration = Duration::from_secs(36_000);

/// Starts `n` launchers. A missing program is an error here. A process that fails to start is only
/// logged, and is started again.
pub(super) async fn start(host: &Arc<Host>, n: usize, facts: &Facts) -> Result<(), String> {
    let program = host.places.bin_dir.join("bootstrap");
    if !program.is_file() {
        return Err(format!(
            "the launcher is not at {}: build it (cargo build), name its folder with --bin-dir, or use --no-launcher",
            program.display()
        ));
    }
    for slot in 0..n {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        tokio::spawn(server::serve(Arc::clone(host), listener, Some(slot)));
        let (host, facts, program) = (Arc::clone(host), facts.clone(), program.clone());
        let alive = host.alive();
        tokio::spawn(async move {
            keep_running(&host, &program, slot, port, &facts).await;
            drop(alive);
        });
    }
    Ok(())
}

async fn keep_running(host: &Arc<Host>, program: &Path, slot: usize, port: u16, facts: &Facts) {
    let mut pause = Duration::from_millis(20);
    while !host.is_shutting_down() {
        let started = Instant::now();
        if let Err(error) = run_once(host, program, slot, port, facts).await {
            host.log.note("lambda", "LauncherFailed", Some(error), Map::new());
        }
        host.with_lambda(|lambda, effects| lambda.process_ended(slot, effects));
        pause = if started.elapsed() > Duration::from_secs(5) {
            Duration::from_millis(20)
        } else {
            (pause * 2).min(Duration::from_secs(2))
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = host.shutting_down() => {}
        }
    }
}

/// Waits for a process to end, and ends it when the sandbox ends.
async fn until_ended(host: &Arc<Host>, child: &mut Child, pid: u32) -> io::Result<ExitStatus> {
    tokio::select! {
        ended = child.wait() => return ended,
        () = host.shutting_down() => children::signal(pid, Signal::TERM),
    }
    match tokio::time::timeout(Duration::from_millis(500), child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await
        }
    }
}

async fn run_once(host: &Arc<Host>, program: &Path, slot: usize, port: u16, facts: &Facts) -> Result<(), String> {
    let path = host.places.state_dir.join(format!("launcher-{slot}.log"));
    let log = File::options().create(true).append(true).open(path).map_err(|e| e.to_string())?;
    let both = log.try_clone().map_err(|e| e.to_string())?;
    let role = launcher(Some(slot));
    let init = Request::new(Service::Runtime, "Init", json!({}));
    if dispatch(host, &mut Call::new(init, Arc::new(role.clone()))).await.is_err() {
        host.with_lambda(|lambda, effects| lambda.init_failed(effects));
        return Ok(());
    }
    let keys = lock(&host.services.sts).mint(Now::read(), role, Some(LIFE));
    host.log.note("lambda", "LauncherStarted", None, Map::new());
    let mut child = children::command(program)
        .envs(environment(host, slot, port, keys, facts))
        .current_dir(&host.places.state_dir)
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(both))
        .spawn()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let Some(pid) = child.id() else { return Ok(()) };
    host.launchers.lock().insert(slot, pid);
    let ended = until_ended(host, &mut child, pid).await;
    children::end_session(pid);
    host.launchers.lock().remove(&slot);
    if !host.is_shutting_down() {
        let mut detail = Map::new();
        detail.insert("slot".to_owned(), json!(slot));
        detail.insert("exitCode".to_owned(), json!(ended.map_or(255, children::exit_code)));
        host.log.note("lambda", "LauncherEnded", None, detail);
    }
    Ok(())
}

/// The environment that Lambda gives a process, and the variables of relay's template.
fn environment(host: &Host, slot: usize, port: u16, keys: Credentials, facts: &Facts) -> Vec<(&'static str, String)> {
    let places = &host.places;
    let endpoint = if host.settings.launcher_https { &places.secure } else { &places.endpoint };
    let authority = places.authority.to_string_lossy().into_owned();
    let mut variables = vec![
        ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{port}")),
        ("AWS_LAMBDA_FUNCTION_NAME", "relay-launcher".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/relay-launcher".to_owned()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("sandbox/[$LATEST]{slot}")),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ENDPOINT_URL", endpoint.clone()),
        ("AWS_ACCESS_KEY_ID", keys.access_key),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_key),
        ("AWS_SESSION_TOKEN", keys.token),
        ("RELAY_TOPIC_ARN", facts.topic.clone()),
        ("RELAY_CLUSTER", "relay".to_owned()),
        ("RELAY_BUCKET", facts.bucket.clone()),
        ("RELAY_EVIDENCE_BUCKET", facts.evidence.clone()),
        ("RELAY_ANSWER_KEY", facts.answer_key.clone()),
        ("RELAY_CI_ACCOUNTS", CI_ACCOUNT.to_owned()),
    ];
    if host.settings.launcher_https {
        // On Lambda the image's own authorities apply; this variable stands in for them.
        variables.push(("SSL_CERT_FILE", authority));
    }
    variables
}
