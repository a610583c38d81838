//! The signals that ask a program to stop.

use std::io;

#[cfg_attr(unix, path = "signals/unix.rs")]
#[cfg_attr(windows, path = "signals/windows.rs")]
mod system;

pub use system::survive_file_limit;

/// A signal that asks a program to stop, with its name for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A person at the terminal: SIGINT, Ctrl-C.
    Interrupt(&'static str),
    /// Whoever started the program, or the system.
    Terminate(&'static str),
}

/// Listens for signals.
#[derive(Debug)]
pub struct Signals(system::Signals);

impl Signals {
    /// Starts listening, inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn listen() -> io::Result<Self> {
        system::Signals::listen().map(Self)
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        self.0.next().await
    }
}
