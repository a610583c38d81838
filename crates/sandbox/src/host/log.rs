//! The log of all operations, for tests and for `demo`. It is bounded: the oldest entries are
//! dropped first.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::services::TARGET_ACCOUNT;

/// One operation.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Entry {
    /// Position, from 0, over the life of the sandbox.
    pub(crate) n: u64,
    /// When it began, since the sandbox started.
    pub(crate) at_ms: u64,
    /// The same moment in microseconds since the Unix epoch, so that other processes can compare it
    /// with their own measurements.
    pub(crate) at_unix_us: u64,
    /// How long it took.
    pub(crate) took_us: u64,
    pub(crate) service: &'static str,
    pub(crate) operation: String,
    pub(crate) account: String,
    pub(crate) principal: String,
    pub(crate) session: String,
    pub(crate) ok: bool,
    pub(crate) error: Option<String>,
    /// How many times the operation ran; 0 if a fault prevented it.
    pub(crate) runs: u32,
    /// Faults that were applied.
    pub(crate) faults: Vec<&'static str>,
    pub(crate) detail: Map<String, Value>,
}

/// Microseconds since the Unix epoch.
pub(crate) fn unix_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[derive(Debug)]
pub(crate) struct Log {
    started: Instant,
    limit: usize,
    entries: Mutex<(u64, VecDeque<Entry>)>,
}

impl Log {
    pub(crate) fn new(limit: usize) -> Self {
        Self { started: Instant::now(), limit, entries: Mutex::default() }
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn record(&self, mut entry: Entry) {
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, entries) = &mut *guard;
        entry.n = *next;
        *next += 1;
        if entries.len() >= self.limit {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Logs an event that is not a call, such as a dead letter or a task's end.
    pub(crate) fn note(
        &self,
        service: &'static str,
        operation: &str,
        error: Option<String>,
        detail: Map<String, Value>,
    ) {
        self.record(Entry {
            n: 0,
            at_ms: self.elapsed_ms(),
            at_unix_us: unix_us(),
            took_us: 0,
            service,
            operation: operation.to_owned(),
            account: TARGET_ACCOUNT.to_owned(),
            principal: "sandbox".to_owned(),
            session: String::new(),
            ok: error.is_none(),
            error,
            runs: 1,
            faults: Vec::new(),
            detail,
        });
    }

    pub(crate) fn snapshot(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).1.iter().cloned().collect()
    }

    pub(crate) fn json_lines(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in self.snapshot() {
            // Serialising plain fields into memory cannot fail. If it did, only this line would be
            // missing.
            if serde_json::to_writer(&mut out, &entry).is_ok() {
                out.push(b'\n');
            }
        }
        out
    }
}
