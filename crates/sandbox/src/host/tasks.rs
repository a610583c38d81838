//! The life of a task: its states before it runs, its process, and how it is stopped and ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value, json};
use tokio::process::Child;
use tokio::sync::watch;

use super::children;
use super::folder::Folder;
use super::processes::id;
use super::shared::Host;
use crate::services::ecs::{Change, Container};
use crate::services::fate::Fate;
use crate::services::{Now, lock};

/// The exit code of a process that SIGKILL ended.
const KILLED: i32 = 137;

/// Starts the life of a task.
pub(super) fn start(host: &Arc<Host>, arn: String, fate: Option<Fate>) {
    let stop = host.tasks.lock().entry(id(&arn).to_owned()).or_default().stop.subscribe();
    let (host, alive) = (Arc::clone(host), host.alive());
    tokio::spawn(async move {
        let mut life = Life { host: &host, arn: &arn, fate, stop };
        let end = life.live().await;
        host.tasks.lock().remove(id(&arn));
        life.change(end);
        drop(alive);
    });
}

/// All tasks, for tests.
pub(super) fn overview(host: &Host) -> Value {
    let folder = host.places.state_dir.join("tasks");
    let tasks = lock(&host.services.ecs).overview();
    let render = |(id, mut task): (String, Value)| {
        let file = |suffix: &str| folder.join(format!("{id}.{suffix}"));
        task["sandbox"] = json!({"pid": host.tasks.pid(&id), "stdout": file("stdout"), "stderr": file("stderr")});
        task
    };
    tasks.into_iter().map(render).collect()
}

/// One task, from RunTask to its end.
struct Life<'a> {
    host: &'a Arc<Host>,
    arn: &'a str,
    fate: Option<Fate>,
    stop: watch::Receiver<bool>,
}

impl Life<'_> {
    fn change(&self, change: Change) {
        let mut effects = Vec::new();
        lock(&self.host.services.ecs).change(Now::read(), self.arn, change, &mut effects);
        self.host.ask(effects);
    }

    /// Runs the task through its states, and returns how it ended.
    async fn live(&mut self) -> Change {
        let settings = &self.host.settings;
        for (wait, is_provisioning) in [(settings.provisioning, true), (settings.pending, false)] {
            let stays = matches!(self.fate, Some(Fate::Stays { provisioning }) if provisioning == is_provisioning);
            tokio::select! {
                () = tokio::time::sleep(wait), if !stays => {}
                () = asked(&mut self.stop) => return Change::NeverRan,
                () = self.host.shutting_down() => return Change::NeverRan,
            }
            if is_provisioning {
                self.change(Change::Pending);
            }
        }
        if let Some(Fate::FailsToStart { after, words }) = &self.fate {
            tokio::time::sleep(*after).await;
            return Change::FailedToStart { words: words.clone(), container: None };
        }
        let Some(container) = lock(&self.host.services.ecs).container(self.arn) else { return Change::NeverRan };
        self.run(container).await
    }

    /// Runs the container to its end.
    async fn run(&mut self, container: Container) -> Change {
        let program = program(self.host, &container);
        // Dropping this deletes the folder when the container has ended.
        let work = Folder::new("relay-task-");
        let started = work.as_ref().map_err(ToString::to_string);
        let started = started.and_then(|work| spawn(self.host, &program, &container, work.path()));
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                let reason = format!("CannotStartContainerError: {}: {error}", program.display());
                return Change::FailedToStart { words: "Task failed to start".to_owned(), container: Some(reason) };
            }
        };
        let pid = child.id();
        if let Some(running) = self.host.tasks.lock().get_mut(id(self.arn)) {
            running.pid = pid;
        }
        self.change(Change::Running);
        let mut stop = self.stop.clone();
        let exit_code = tokio::select! {
            code = watch_over(self.host, &mut child, &mut stop, container.stop_timeout) => code,
            code = self.meet_fate(pid) => code,
        };
        // The container ends with its first process, and everything in it.
        pid.into_iter().for_each(children::end_session);
        let mut detail = Map::new();
        detail.insert("task".to_owned(), json!(self.arn));
        detail.insert("exitCode".to_owned(), json!(exit_code));
        self.host.log.note("ecs", "TaskStopped", None, detail);
        let container = match self.fate {
            Some(Fate::Killed { container, .. }) if exit_code == KILLED => container,
            _ => None,
        };
        Change::Ended { exit_code, container }
    }

    /// Applies the fault's effect to a running task. This future never completes; the caller waits
    /// for the process to end instead.
    async fn meet_fate(&self, pid: Option<u32>) -> i32 {
        match &self.fate {
            Some(Fate::Killed { after, .. }) => {
                tokio::time::sleep(*after).await;
                pid.into_iter().for_each(children::end_session);
            }
            Some(Fate::Stopped { after, code, words }) => {
                tokio::time::sleep(*after).await;
                self.change(Change::Asked { code, words: words.clone() });
            }
            Some(Fate::Stays { .. } | Fate::FailsToStart { .. }) | None => {}
        }
        std::future::pending().await
    }
}

async fn asked(stop: &mut watch::Receiver<bool>) {
    // An error means that the task is gone, so no one can ask it to stop any more.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the process to end. When asked to stop, sends SIGTERM to the process and, after the
/// stop timeout, SIGKILL to everything in its session.
async fn watch_over(host: &Host, child: &mut Child, stop: &mut watch::Receiver<bool>, grace: Duration) -> i32 {
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = asked(stop) => None,
        () = host.shutting_down() => None,
    };
    if let Some(ended) = ended {
        return ended.map_or(255, children::exit_code);
    }
    let Some(pid) = child.id() else { return 255 };
    children::signal(pid, Signal::TERM);
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = tokio::time::sleep(grace) => None,
        // When the sandbox shuts down, it does not wait for long.
        () = async { host.shutting_down().await; tokio::time::sleep(Duration::from_secs(2)).await } => None,
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

/// The program of a container: relay's own binary of that name if there is one, otherwise the path
/// as given.
fn program(host: &Host, container: &Container) -> PathBuf {
    let named = PathBuf::from(container.argv.first().map(String::as_str).unwrap_or_default());
    let own = named.file_name().map(|name| host.places.bin_dir.join(name)).filter(|path| path.is_file());
    own.unwrap_or(named)
}

/// Output goes straight into files: nothing here can be slow to read it.
fn spawn(host: &Host, program: &Path, container: &Container, work: &Path) -> Result<Child, String> {
    let (folder, id) = (host.places.state_dir.join("tasks"), &container.task_id);
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let file =
        |suffix: &str| std::fs::File::create(folder.join(format!("{id}.{suffix}"))).map_err(|error| error.to_string());
    if !program.is_file() {
        return Err("no such file".to_owned());
    }
    let own = |path: &str| format!("{}/_sandbox/{path}/{id}", host.places.endpoint);
    children::command(program)
        .args(container.argv.iter().skip(1))
        .envs(container.environment.iter().cloned())
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", own("credentials"))
        .env("ECS_CONTAINER_METADATA_URI_V4", own("metadata"))
        .current_dir(work)
        .stdout(Stdio::from(file("stdout")?))
        .stderr(Stdio::from(file("stderr")?))
        .spawn()
        .map_err(|error| error.to_string())
}
