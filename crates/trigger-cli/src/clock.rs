//! The command's clock: time since it began.

use std::time::{Duration, Instant};

/// Starts when the command does; a copy tells the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    /// Begins now.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Time since then.
    pub(crate) fn elapsed(self) -> Duration {
        self.began.elapsed()
    }
}
