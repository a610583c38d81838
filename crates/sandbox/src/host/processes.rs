//! The processes that the host started and that have not ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use tokio::sync::watch;

use super::children;

/// Processes by slot.
#[derive(Debug, Default)]
pub(super) struct Launchers {
    running: Mutex<HashMap<usize, u32>>,
}

impl Launchers {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<usize, u32>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn kill(&self, slot: usize) {
        if let Some(pid) = self.lock().get(&slot) {
            children::signal(*pid, Signal::KILL);
        }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.lock().values().copied().collect()
    }
}

/// The tasks that have not ended, by the last part of their ARN.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: Mutex<HashMap<String, Running>>,
}

#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) stop: watch::Sender<bool>,
    pub(super) pid: Option<u32>,
}

pub(super) fn id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

impl Tasks {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks a task to stop. If the task has not started yet, the request is kept for it.
    pub(super) fn stop(&self, arn: &str) {
        self.lock().entry(id(arn).to_owned()).or_default().stop.send_replace(true);
    }

    /// Kills a task's process, with everything in it.
    pub(super) fn kill(&self, id: &str) {
        let pid = self.pid(id);
        pid.into_iter().for_each(children::end_session);
    }

    pub(super) fn pid(&self, id: &str) -> Option<u32> {
        self.lock().get(id).and_then(|running| running.pid)
    }
}
