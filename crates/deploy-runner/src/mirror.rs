//! The mirror: what the tool prints, once more to the container's own stdout and stderr (CloudWatch). It must never block the deployment: what
//! does not fit into its buffer is dropped and counted; the frames are the truth.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use relay_protocol::frame::Stream;

/// Chunks that wait for a slow log driver.
const BUFFER: usize = 64;

/// How often, and how long at a time, the end waits for it: a second in all.
const SETTLE_TRIES: u32 = 100;
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

/// A thread that writes, and a buffer before it.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    sender: SyncSender<(Stream, Vec<u8>)>,
    dropped: Arc<AtomicU64>,
    waiting: Arc<AtomicU64>,
}

impl Mirror {
    /// Starts the thread; it ends with the process.
    pub(crate) fn start() -> Self {
        let (sender, receiver) = sync_channel::<(Stream, Vec<u8>)>(BUFFER);
        let waiting = Arc::new(AtomicU64::new(0));
        let written = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for (stream, bytes) in receiver {
                // A log driver that is gone is no reason to end a deployment.
                let _ = match stream {
                    Stream::Stdout => std::io::stdout().lock().write_all(&bytes),
                    Stream::Stderr => std::io::stderr().lock().write_all(&bytes),
                };
                written.fetch_sub(1, Ordering::Release);
            }
        });
        Self { sender, dropped: Arc::default(), waiting }
    }

    /// Shows `bytes`, if there is room.
    pub(crate) fn show(&self, stream: Stream, bytes: &[u8]) {
        self.waiting.fetch_add(1, Ordering::Acquire);
        if let Err(TrySendError::Full((_, bytes)) | TrySendError::Disconnected((_, bytes))) =
            self.sender.try_send((stream, bytes.to_vec()))
        {
            self.waiting.fetch_sub(1, Ordering::Release);
            self.dropped.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    /// Gives a log driver a moment to take the rest, before the process ends.
    pub(crate) async fn settle(&self) {
        for _ in 0..SETTLE_TRIES {
            if self.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Bytes that were not shown.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
