//! An invocation of the function, and the timers that act on it.

use bytes::Bytes;

/// One event on its way through the function.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    /// The same for each retry, as AWS has it.
    pub(super) id: String,
    pub(super) source: String,
    pub(super) event: Bytes,
    pub(super) tries: u32,
    /// The slot whose process is restarted for a `cold-start` fault; no other slot may take the
    /// invocation.
    pub(super) cold: Option<usize>,
}

impl Invocation {
    pub(super) fn is_for(&self, slot: Option<usize>) -> bool {
        self.cold.is_none() || self.cold == slot
    }
}

/// What happens to an invocation when a timer is due.
#[derive(Debug)]
pub(crate) enum Timer {
    /// Put the invocation into the queue for a process.
    Add(Invocation),
    /// The held invocation waited long enough for another to overtake it.
    Release { id: String },
    /// This try of an invocation ran into the function's time-out.
    Deadline { id: String, tries: u32, slot: Option<usize> },
}
