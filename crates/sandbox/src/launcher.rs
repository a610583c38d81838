//! The launcher's processes: N of the binary `bootstrap`, each with the environment that Lambda gives, started again when they end.
//!
//! Each has a port of its own for the Runtime API, so that a process that dies is known to have held this invocation and no other.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Map, json};
use tokio::net::TcpListener;
use tokio::process::Child;

use crate::children;
use crate::dispatch::{Call, Service, dispatch};
use crate::lambda::{self, Lambda};
use crate::world::World;
use crate::{CI_ACCOUNT, REGION};

/// What the launcher is told of the account.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) topic: String,
    pub(crate) bucket: String,
    pub(crate) target_key: String,
}

/// Processes by slot.
#[derive(Debug, Default)]
pub(crate) struct Launchers {
    running: Mutex<HashMap<usize, u32>>,
}

impl Launchers {
    pub(crate) fn kill(&self, slot: usize) {
        if let Some(pid) = self.running.lock().unwrap_or_else(PoisonError::into_inner).get(&slot) {
            children::signal(*pid, Signal::KILL);
        }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}

/// Starts `n` launchers. Their first failure to start is an error here; later ones are tried again.
pub(crate) async fn start(world: &Arc<World>, n: usize, facts: &Facts) -> Result<(), String> {
    let program = world.bin_dir.join("bootstrap");
    if !program.is_file() {
        return Err(format!(
            "the launcher is not at {}: build it (cargo build), name its folder with --bin-dir, or use --no-launcher",
            program.display()
        ));
    }
    for slot in 0..n {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| e.to_string())?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        tokio::spawn(crate::server::serve(Arc::clone(world), listener, Some(slot)));
        let (world, facts, program) = (Arc::clone(world), facts.clone(), program.clone());
        let alive = world.alive();
        tokio::spawn(async move {
            keep_running(&world, &program, slot, port, &facts).await;
            drop(alive);
        });
    }
    Ok(())
}

async fn keep_running(world: &Arc<World>, program: &Path, slot: usize, port: u16, facts: &Facts) {
    let mut pause = Duration::from_millis(20);
    while !world.is_shutting_down() {
        let started = Instant::now();
        if let Err(error) = run_once(world, program, slot, port, facts).await {
            world.log.note("lambda", "LauncherFailed", Some(error), Map::new());
        }
        Lambda::process_died(world, slot);
        pause = if started.elapsed() > Duration::from_secs(5) {
            Duration::from_millis(20)
        } else {
            (pause * 2).min(Duration::from_secs(2))
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = world.shutting_down() => {}
        }
    }
}

/// Waits for its end, and brings that about when the sandbox ends.
async fn until_ended(world: &Arc<World>, child: &mut Child, pid: u32) -> io::Result<ExitStatus> {
    tokio::select! {
        ended = child.wait() => return ended,
        () = world.shutting_down() => children::signal(pid, Signal::TERM),
    }
    match tokio::time::timeout(Duration::from_millis(500), child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            let _ = child.start_kill();
            child.wait().await
        }
    }
}

async fn run_once(world: &Arc<World>, program: &Path, slot: usize, port: u16, facts: &Facts) -> Result<(), String> {
    let path = world.state_dir.join(format!("launcher-{slot}.log"));
    let log = File::options().create(true).append(true).open(path).map_err(|e| e.to_string())?;
    let both = log.try_clone().map_err(|e| e.to_string())?;
    // Lambda's credentials outlive the process's use of them; ten hours is what AWS gives at most.
    let role = lambda::launcher(Some(slot));
    let mut init = Call::new(Service::Runtime, "Init", Arc::new(role.clone()), json!({}));
    if dispatch(world, &mut init).await.is_err() {
        Lambda::init_failed(world);
        return Ok(());
    }
    let keys = world.iam.mint(role, Duration::from_secs(36_000));
    let environment = [
        ("AWS_LAMBDA_RUNTIME_API", format!("127.0.0.1:{port}")),
        ("AWS_LAMBDA_FUNCTION_NAME", "relay-launcher".to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256".to_owned()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/relay-launcher".to_owned()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("sandbox/[$LATEST]{slot}")),
        ("AWS_REGION", REGION.to_owned()),
        ("AWS_ENDPOINT_URL", world.endpoint.clone()),
        ("AWS_ACCESS_KEY_ID", keys.access_key),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_key),
        ("AWS_SESSION_TOKEN", keys.token),
        ("RELAY_TOPIC_ARN", facts.topic.clone()),
        ("RELAY_CLUSTER", "relay".to_owned()),
        ("RELAY_BUCKET", facts.bucket.clone()),
        ("RELAY_TARGET_KEY", facts.target_key.clone()),
        ("RELAY_CI_ACCOUNTS", CI_ACCOUNT.to_owned()),
    ];
    world.log.note("lambda", "LauncherStarted", None, Map::new());
    let mut child = children::command(program)
        .envs(environment)
        .current_dir(&world.state_dir)
        .stdout(Stdio::from(log))
        .stderr(Stdio::from(both))
        .spawn()
        .map_err(|e| format!("{}: {e}", program.display()))?;
    let Some(pid) = child.id() else { return Ok(()) };
    world.launchers.running.lock().unwrap_or_else(PoisonError::into_inner).insert(slot, pid);
    let ended = until_ended(world, &mut child, pid).await;
    children::end_session(pid);
    world.launchers.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot);
    if !world.is_shutting_down() {
        let mut detail = Map::new();
        detail.insert("slot".to_owned(), json!(slot));
        detail.insert("exitCode".to_owned(), json!(ended.map_or(255, children::exit_code)));
        world.log.note("lambda", "LauncherEnded", None, detail);
    }
    Ok(())
}
