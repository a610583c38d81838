//! The mirror: what the tool prints, once more to the container's own stdout and stderr (CloudWatch). It must never block the deployment: what
//! does not fit into its buffer is dropped and counted; the frames are the truth.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

use relay_protocol::frame::Stream;

/// Chunks that wait for a slow log driver.
const BUFFER: usize = 64;

/// A thread that writes, and a buffer before it.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    sender: SyncSender<(Stream, Vec<u8>)>,
    dropped: Arc<AtomicU64>,
}

impl Mirror {
    /// Starts the thread; it ends with the process.
    pub(crate) fn start() -> Self {
        let (sender, receiver) = sync_channel::<(Stream, Vec<u8>)>(BUFFER);
        std::thread::spawn(move || {
            for (stream, bytes) in receiver {
                // A log driver that is gone is no reason to end a deployment.
                let _ = match stream {
                    Stream::Stdout => std::io::stdout().lock().write_all(&bytes),
                    Stream::Stderr => std::io::stderr().lock().write_all(&bytes),
                };
            }
        });
        Self { sender, dropped: Arc::default() }
    }

    /// Shows `bytes`, if there is room.
    pub(crate) fn show(&self, stream: Stream, bytes: &[u8]) {
        if let Err(TrySendError::Full((_, bytes))) = self.sender.try_send((stream, bytes.to_vec())) {
            self.dropped.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    /// Bytes that were not shown.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
