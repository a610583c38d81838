//! A task's life: the states before it runs, the operating-system process that it is here, how it is stopped, how it ended.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use tokio::process::Child;
use tokio::sync::watch;

use super::ending::Fate;
use super::tasks::{Status, update};
use crate::children;
use crate::clock::now_ms;
use crate::world::World;

/// What a task's process is made of.
struct Plan {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    stop_timeout: Duration,
}

pub(super) fn start(world: &Arc<World>, arn: String, stop: watch::Receiver<bool>, fate: Option<Fate>) {
    let world = Arc::clone(world);
    let alive = world.alive();
    tokio::spawn(async move {
        live(&world, &arn, stop, fate).await;
        drop(alive);
    });
}

async fn live(world: &Arc<World>, arn: &str, mut stop: watch::Receiver<bool>, fate: Option<Fate>) {
    for (wait, next) in [(world.settings.provisioning, Status::Pending), (world.settings.pending, Status::Running)] {
        let stays = match fate {
            Some(Fate::Stays { provisioning }) => provisioning == (next == Status::Pending),
            _ => false,
        };
        tokio::select! {
            () = tokio::time::sleep(wait), if !stays => {}
            () = asked(&mut stop) => return never_started(world, arn),
            () = world.shutting_down() => return never_started(world, arn),
        }
        if next == Status::Pending {
            update(world, arn, |task| task.status = next);
        }
    }
    if let Some(Fate::FailsToStart { after, words }) = fate {
        tokio::time::sleep(after).await;
        return failed_to_start(world, arn, words, None);
    }
    let Some((id, plan)) = plan(world, arn) else { return };
    let work = tempfile::Builder::new().prefix("relay-task-").tempdir();
    let started = work.as_ref().map_err(ToString::to_string).and_then(|dir| spawn(world, &id, &plan, dir.path()));
    let mut child = match started {
        Ok(child) => child,
        Err(reason) => {
            let reason = format!("CannotStartContainerError: {}: {reason}", plan.program.display());
            return failed_to_start(world, arn, "Task failed to start".to_owned(), Some(reason));
        }
    };
    let pid = child.id();
    update(world, arn, |task| {
        task.status = Status::Running;
        task.started_ms = Some(now_ms());
        task.process = pid;
    });
    let code = tokio::select! {
        code = watch_over(world, &mut child, &mut stop, plan.stop_timeout) => code,
        code = meet(world, arn, pid, &fate) => code,
    };
    let why = match fate {
        Some(Fate::Killed { container, .. }) if code == KILLED => container.map(str::to_owned),
        _ => None,
    };
    if let Some(pid) = pid {
        // The container ends with its first process, and everything in it.
        children::end_session(pid);
    }
    let mut detail = Map::new();
    detail.insert("task".to_owned(), json!(arn));
    detail.insert("exitCode".to_owned(), json!(code));
    world.log.note("ecs", "TaskStopped", None, detail);
    update(world, arn, |task| {
        task.status = Status::Stopped;
        task.stopped_ms = Some(now_ms());
        task.exit_code = Some(code);
        task.container_reason = why;
        task.process = None;
        task.stop_code = task.stop_code.or(Some("EssentialContainerExited"));
        task.stopped_reason.get_or_insert_with(|| "Essential container in task exited".to_owned());
    });
}

/// The exit code of what SIGKILL ended.
const KILLED: i32 = 137;

/// What a fault does to a task that runs. It never ends itself: the process does.
async fn meet(world: &Arc<World>, arn: &str, pid: Option<u32>, fate: &Option<Fate>) -> i32 {
    match fate {
        Some(Fate::Killed { after, .. }) => {
            tokio::time::sleep(*after).await;
            pid.into_iter().for_each(children::end_session);
        }
        Some(Fate::Stopped { after, code, words }) => {
            tokio::time::sleep(*after).await;
            update(world, arn, |task| task.ask_to_stop(code, words));
        }
        Some(Fate::Stays { .. } | Fate::FailsToStart { .. }) | None => {}
    }
    std::future::pending().await
}

fn failed_to_start(world: &Arc<World>, arn: &str, stopped: String, container: Option<String>) {
    update(world, arn, |task| {
        task.status = Status::Stopped;
        task.stopped_ms = Some(now_ms());
        task.stop_code = Some("TaskFailedToStart");
        task.stopped_reason = Some(stopped);
        task.container_reason = container;
    });
}

fn never_started(world: &Arc<World>, arn: &str) {
    update(world, arn, |task| {
        task.status = Status::Stopped;
        task.stopped_ms = Some(now_ms());
        task.stop_code = task.stop_code.or(Some("UserInitiated"));
    });
}

async fn asked(stop: &mut watch::Receiver<bool>) {
    // An error means the task is gone, and with it who could ask.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the end; on request SIGTERM, and after the stop timeout SIGKILL for all of it.
async fn watch_over(world: &World, child: &mut Child, stop: &mut watch::Receiver<bool>, grace: Duration) -> i32 {
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = asked(stop) => None,
        () = world.shutting_down() => None,
    };
    if let Some(ended) = ended {
        return ended.map_or(255, children::exit_code);
    }
    let Some(pid) = child.id() else { return 255 };
    children::signal(pid, Signal::TERM);
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = tokio::time::sleep(grace) => None,
        // The sandbox itself does not wait for long.
        () = async { world.shutting_down().await; tokio::time::sleep(Duration::from_secs(2)).await } => None,
    };
    match ended {
        Some(ended) => ended.map_or(255, children::exit_code),
        None => {
            children::end_session(pid);
            let _ = child.start_kill();
            child.wait().await.map_or(255, children::exit_code)
        }
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn pairs(value: Option<&Value>) -> impl Iterator<Item = (String, String)> + '_ {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(|pair| {
        let field = |name: &str| pair.get(name).and_then(Value::as_str).map(str::to_owned);
        Some((field("name")?, field("value")?))
    })
}

/// The first essential container, which is the one that is run here, with its override.
fn plan(world: &World, arn: &str) -> Option<(String, Plan)> {
    let state = world.ecs.lock();
    let task = state.tasks.get(arn)?;
    let containers = task.definition.containers();
    let named = |name: &str| containers.iter().find(|c| c.get("name").and_then(Value::as_str) == Some(name));
    let container = named("runner").or_else(|| containers.first())?;
    let overrides = task.overrides.get("containerOverrides").and_then(Value::as_array).into_iter().flatten();
    let overridden = overrides.into_iter().find(|o| o.get("name") == container.get("name"));
    let overridden = |field: &str| overridden.and_then(|o| o.get(field)).filter(|v| !v.is_null());
    let mut argv = texts(container.get("entryPoint"));
    argv.extend(texts(overridden("command").or_else(|| container.get("command"))));
    if argv.is_empty() {
        argv.push("/relay/relay-runner".to_owned());
    }
    let named = PathBuf::from(argv.remove(0));
    let beside = named.file_name().map(|name| world.bin_dir.join(name)).filter(|path| path.is_file());
    let mut environment: Vec<(String, String)> = pairs(container.get("environment")).collect();
    environment.extend(pairs(overridden("environment")));
    environment.push((
        "AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(),
        format!("{}/_sandbox/credentials/{}", world.endpoint, task.id),
    ));
    environment.push((
        "ECS_CONTAINER_METADATA_URI_V4".to_owned(),
        format!("{}/_sandbox/metadata/{}", world.endpoint, task.id),
    ));
    let seconds = container.get("stopTimeout").and_then(Value::as_u64).unwrap_or(30).min(120);
    let plan = Plan {
        program: beside.unwrap_or(named),
        arguments: argv,
        environment,
        stop_timeout: Duration::from_secs(seconds),
    };
    Some((task.id.clone(), plan))
}

/// Output goes straight into files: nothing here can be slow to read it.
fn spawn(world: &World, id: &str, plan: &Plan, work: &Path) -> Result<Child, String> {
    let folder = world.state_dir.join("tasks");
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    let file = |suffix: &str| std::fs::File::create(folder.join(format!("{id}.{suffix}"))).map_err(|e| e.to_string());
    if !plan.program.is_file() {
        return Err("no such file".to_owned());
    }
    children::command(&plan.program)
        .args(&plan.arguments)
        .envs(plan.environment.iter().cloned())
        .current_dir(work)
        .stdout(Stdio::from(file("stdout")?))
        .stderr(Stdio::from(file("stderr")?))
        .spawn()
        .map_err(|e| e.to_string())
}
