//! The baseline: SQS calls through relay's own SDK set-up, without frames, signatures, ordering or
//! masking.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use relay_aws::Sdk;
use relay_aws::queues::{Entry, Queues};
use relay_protocol::QueueUrl;
use relay_tests::Sandbox;
use relay_tests::kit::sandbox::CI;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::latency::Stamps;

/// Concurrent calls of each kind, as many as relay makes under load.
const PARALLEL: usize = 4;

/// Bytes per read of the tool's output, as in the runner.
const READ: usize = 64 << 10;

/// A runtime with a queue of its own.
#[derive(Debug)]
pub(crate) struct Bare {
    runtime: Runtime,
    queues: Queues,
    queue: QueueUrl,
}

impl Bare {
    /// Creates the queue `name`.
    pub(crate) fn new(sandbox: &Sandbox, name: &str) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let credentials = Credentials::new(CI, "sandbox", None, None, "bench");
        let region = sandbox.topic().region().clone();
        let sdk = Sdk::pinned(&region, Some(sandbox.variable("AWS_ENDPOINT_URL")), None).with_credentials(credentials);
        let queues = Queues::new(&sdk);
        runtime.block_on(Box::pin(queues.create(name, &[], &[])))?;
        Ok(Self { runtime, queues, queue: QueueUrl::of(&region, &CI.parse()?, name)? })
    }

    /// Sends the program's output as soon as it is available and the send before it has been
    /// answered. Stamps each line when it is received.
    pub(crate) fn stream(&self, program: &std::path::Path, arguments: &[String], stamps: Arc<Stamps>) -> Outcome {
        let mut child = {
            let _inside = self.runtime.enter();
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()?
        };
        let mut out = child.stdout.take().ok_or("no pipe")?;
        let (queues, queue) = (self.queues.clone(), self.queue.clone());
        self.runtime.spawn(async move {
            let mut buffer = vec![0; READ];
            while let Ok(count @ 1..) = out.read(&mut buffer).await {
                let body = String::from_utf8_lossy(&buffer[..count]).into_owned();
                // A failed send leaves lines uncounted, which `Stamps::finish` detects.
                let _ = queues.send(&queue, vec![Entry { body, attributes: Vec::new() }]).await;
            }
            let _ = child.wait().await;
        });
        let (queues, queue) = (self.queues.clone(), self.queue.clone());
        self.runtime.spawn(async move {
            let mut deletes = JoinSet::new();
            while let Ok(messages) = queues.receive(&queue, 20).await {
                let mut receipts = Vec::new();
                for message in messages {
                    stamps.take(message.body.as_bytes());
                    receipts.push(message.receipt);
                }
                let (queues, queue) = (queues.clone(), queue.clone());
                deletes.spawn(async move { queues.delete(&queue, &receipts).await });
                while deletes.try_join_next().is_some() {}
            }
        });
        Ok(())
    }

    /// Moves batches of these sizes through the queue and returns the time until the last byte was
    /// received. A size is a number of messages and their bytes together.
    pub(crate) fn replay(&self, batches: &[(usize, usize)]) -> Outcome<Duration> {
        let total: u64 = batches.iter().map(|(count, bytes)| (bytes / count * count) as u64).sum();
        let todo: Todo = Arc::new(Mutex::new(batches.iter().copied().collect()));
        let received = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        self.runtime.block_on(Box::pin(async {
            let mut senders: JoinSet<Outcome> = JoinSet::new();
            let mut receivers: JoinSet<Outcome> = JoinSet::new();
            for _ in 0..PARALLEL {
                senders.spawn(Box::pin(send(self.queues.clone(), self.queue.clone(), Arc::clone(&todo))));
                receivers.spawn(Box::pin(receive(
                    self.queues.clone(),
                    self.queue.clone(),
                    Arc::clone(&received),
                    total,
                )));
            }
            while let Some(done) = senders.join_next().await {
                done??;
            }
            // The other receivers are still in a long poll that will return nothing.
            receivers.join_next().await.ok_or("no receiver ran")??
        }))?;
        Ok(began.elapsed())
    }
}

type Todo = Arc<Mutex<VecDeque<(usize, usize)>>>;

async fn send(queues: Queues, queue: QueueUrl, todo: Todo) -> Outcome {
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((count, bytes)) = next else { return Ok(()) };
        // Like a packed frame: base64, which needs no escapes.
        let body = "relayBENCH0123+/".repeat(bytes / count / 16 + 1)[..bytes / count].to_owned();
        let entries = (0..count).map(|_| Entry { body: body.clone(), attributes: Vec::new() }).collect();
        for result in queues.send(&queue, entries).await? {
            result?;
        }
    }
}

/// Receives and deletes until the receivers together have received `total` bytes.
async fn receive(queues: Queues, queue: QueueUrl, received: Arc<AtomicU64>, total: u64) -> Outcome {
    let mut deletes = JoinSet::new();
    loop {
        let messages = queues.receive(&queue, 20).await?;
        let receipts: Vec<String> = messages.iter().map(|message| message.receipt.clone()).collect();
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        if received.fetch_add(bytes as u64, Ordering::AcqRel) + bytes as u64 == total {
            return Ok(());
        }
        let (queues, queue) = (queues.clone(), queue.clone());
        deletes.spawn(async move { queues.delete(&queue, &receipts).await });
        while deletes.try_join_next().is_some() {}
    }
}
