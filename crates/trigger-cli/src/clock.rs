//! The command's clock: the time since the command began.

use std::time::{Duration, Instant};

/// A clock that starts with the command. Copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    /// Starts the clock.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Returns the time since the start.
    pub(crate) fn elapsed(self) -> Duration {
        self.began.elapsed()
    }
}
