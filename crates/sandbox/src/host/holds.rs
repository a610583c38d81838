//! Operations that a fault holds. Each waits until a new plan replaces the one that holds it;
//! `/_sandbox/held` lists them. A test can thus pause a process in the middle of a call for as long
//! as it needs, without guessing when the process gets there.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Holds {
    /// Which plan is in force.
    plan: watch::Sender<u64>,
    /// The held operations, by a number that only this map uses.
    held: Mutex<BTreeMap<u64, Value>>,
}

/// An operation in the list. Dropping this removes it, because the caller may disconnect while it
/// is held.
struct Listed<'a>(&'a Holds, u64);

impl Holds {
    pub(crate) fn new() -> Self {
        Self { plan: watch::Sender::new(0), held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Value>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan in force.
    pub(crate) fn plan(&self) -> u64 {
        *self.plan.borrow()
    }

    /// Puts the next plan in force, which releases everything that the previous one held.
    pub(crate) fn let_go(&self) {
        self.plan.send_modify(|plan| *plan += 1);
    }

    /// Waits for as long as `plan` is in force.
    pub(crate) async fn wait(&self, plan: u64, operation: Value) {
        let mut plans = self.plan.subscribe();
        let listed = {
            let mut held = self.lock();
            let number = held.last_key_value().map_or(0, |(number, _)| number + 1);
            held.insert(number, operation);
            Listed(self, number)
        };
        // The sender lives in `self`, so this cannot fail.
        let _ = plans.wait_for(|now| *now != plan).await;
        drop(listed);
    }

    /// What is held now.
    pub(crate) fn list(&self) -> Value {
        self.lock().values().cloned().collect()
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}
