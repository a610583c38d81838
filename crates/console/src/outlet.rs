//! Output to stdout and stderr that never blocks. A slow or stuck log driver must not stop a
//! deployment, nor the frames that report it. Output that does not fit into the buffer is dropped
//! and counted.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// How many pieces may wait for the log driver.
const BUFFER: usize = 128;

/// How many times [`Outlet::settle`] checks whether everything is written, and its pause between
/// checks: one second in total.
const SETTLE: (u32, Duration) = (100, Duration::from_millis(10));

/// The stream that a piece of output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Standard output, file descriptor 1.
    Stdout,
    /// Standard error, file descriptor 2.
    Stderr,
}

/// A thread that writes, behind a bounded buffer. Clones share both.
#[derive(Clone, Debug)]
pub struct Outlet {
    sender: SyncSender<(To, Vec<u8>)>,
    waiting: Arc<AtomicU64>,
    dropped: Arc<AtomicU64>,
}

impl Outlet {
    /// Starts the thread, which ends with the process.
    pub fn start() -> Self {
        let (sender, receiver) = sync_channel::<(To, Vec<u8>)>(BUFFER);
        let waiting = Arc::new(AtomicU64::new(0));
        let written = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for (to, bytes) in receiver {
                // The loss of the log driver is no reason to end a deployment.
                let _ = match to {
                    To::Stdout => {
                        let mut out = io::stdout().lock();
                        out.write_all(&bytes).and_then(|()| out.flush())
                    }
                    To::Stderr => io::stderr().lock().write_all(&bytes),
                };
                written.fetch_sub(1, Ordering::Release);
            }
        });
        Self { sender, waiting, dropped: Arc::default() }
    }

    /// Queues `bytes` to be written. If the buffer is full, they are dropped and counted.
    pub fn put(&self, to: To, bytes: Vec<u8>) {
        self.waiting.fetch_add(1, Ordering::Acquire);
        if let Err(TrySendError::Full((_, bytes)) | TrySendError::Disconnected((_, bytes))) =
            self.sender.try_send((to, bytes))
        {
            self.waiting.fetch_sub(1, Ordering::Release);
            self.dropped.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    /// Gives the log driver time to take the rest before the process ends. Blocks for at most one
    /// second.
    pub fn settle(&self) {
        let (tries, pause) = SETTLE;
        for _ in 0..tries {
            if self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(pause);
        }
    }

    /// Returns how many bytes were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Writes log lines to stderr.
impl io::Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(To::Stderr, line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
