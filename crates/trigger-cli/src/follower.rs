//! Follows the reply queue: receives messages, with several calls in parallel under load, and
//! deletes the messages whose contents are written out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use relay_aws::queues::{Queues, Received};
use relay_aws::{AwsError, Kind};
use relay_engine::{Inbox, Token};
use relay_protocol::keys::Cached;
use relay_protocol::limits::BATCH_ENTRIES_MAX;
use relay_protocol::{QueueUrl, SignedFrame};
use tokio::task::JoinSet;

use crate::clock::Clock;

/// The maximum number of parallel receives, reached under load. One is enough for a tool that
/// prints occasionally, and costs least.
const RECEIVERS: usize = 4;

/// Seconds that SQS may wait for a message before it returns none.
const WAIT: i32 = 20;

/// The pause after a failed receive.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the queue may be missing or deny access before contact counts as lost. A new queue
/// needs a moment, and credentials may be renewed.
const QUEUE_GONE: Duration = Duration::from_secs(60);

/// When a receive was called, and its result.
pub(crate) type Answer = (Duration, Result<Vec<Received>, AwsError>);

/// Receives from one reply queue, and deletes from it.
#[derive(Debug)]
pub(crate) struct Follower {
    queues: Queues,
    queue: QueueUrl,
    clock: Clock,
    receiving: JoinSet<Answer>,
    /// How many receives to keep in flight.
    wanted: usize,
    lost: Lost,
    /// The receipt of each message, which a deletion needs.
    receipts: HashMap<Token, String>,
    next_token: Token,
    /// Receipts of messages that are written out but not deleted yet.
    deletable: Vec<String>,
    deleting: JoinSet<()>,
}

/// What is known about a queue that cannot be read.
#[derive(Debug, Default)]
struct Lost {
    /// The first failed receive since the last successful one.
    since: Option<Instant>,
    /// The start of the part of the outage that the inbox's timeouts do not account for yet.
    deaf_from: Option<Duration>,
    /// The last error, until a receive succeeds.
    error: Option<AwsError>,
}

impl Follower {
    /// Creates a follower; the first [`Follower::next`] starts to receive.
    pub(crate) fn new(queues: Queues, queue: QueueUrl, clock: Clock) -> Self {
        Self {
            queues,
            queue,
            clock,
            receiving: JoinSet::new(),
            wanted: 1,
            lost: Lost::default(),
            receipts: HashMap::new(),
            next_token: 0,
            deletable: Vec::new(),
            deleting: JoinSet::new(),
        }
    }

    /// Returns why the queue cannot be read, while it cannot.
    pub(crate) fn trouble(&self) -> Option<&AwsError> {
        self.lost.error.as_ref()
    }

    /// Waits for the next answer. Returns `None` when a deletion has ended, so that the next one
    /// can begin.
    pub(crate) async fn next(&mut self) -> Option<Answer> {
        let pause = if self.lost.error.is_some() { PAUSE } else { Duration::ZERO };
        while self.receiving.len() < self.wanted {
            let (queues, queue, clock) = (self.queues.clone(), self.queue.clone(), self.clock);
            self.receiving.spawn(async move {
                tokio::time::sleep(pause).await;
                (clock.elapsed(), queues.receive(&queue, WAIT).await)
            });
        }
        tokio::select! {
            Some(answer) = self.receiving.join_next() => answer.ok(),
            Some(_) = self.deleting.join_next(), if !self.deleting.is_empty() => None,
        }
    }

    /// Passes an answer to the inbox.
    pub(crate) fn take(&mut self, (since, result): Answer, inbox: &mut Inbox<Cached>) {
        match result {
            Ok(messages) => {
                let lost = std::mem::take(&mut self.lost);
                if let Some(from) = lost.deaf_from {
                    inbox.handle_unreachable(since.saturating_sub(from));
                }
                let full = messages.len() == BATCH_ENTRIES_MAX;
                self.wanted = if full { self.wanted + 1 } else { self.wanted - 1 }.clamp(1, RECEIVERS);
                for message in messages {
                    let frame = SignedFrame::from_message(message.attributes, message.body);
                    if inbox.is_anothers(&frame) {
                        continue;
                    }
                    let token = self.next_token;
                    self.next_token += 1;
                    self.receipts.insert(token, message.receipt);
                    inbox.handle(self.clock.elapsed(), token, frame);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "receiving");
                // While SQS is unreachable, the silence is not the runner's, so the timeouts stand
                // still. They run again once the queue has been missing, or has denied access, for
                // too long.
                let first = *self.lost.since.get_or_insert_with(Instant::now);
                if error.is_transient() || first.elapsed() < QUEUE_GONE {
                    // The pauses between the retries count too.
                    let now = self.clock.elapsed();
                    let from = self.lost.deaf_from.replace(now).unwrap_or(since);
                    inbox.handle_unreachable(now.saturating_sub(from));
                } else if matches!(error.kind, Kind::Denied | Kind::NotFound | Kind::Credentials) {
                    self.wanted = 1;
                }
                self.lost.error = Some(error);
            }
        }
    }

    /// Deletes the messages that the inbox releases. While a deletion is in flight, receipts
    /// collect into a batch, so that a busy tool costs fewer calls. With `all`, every receipt is
    /// sent immediately.
    pub(crate) fn delete(&mut self, inbox: &mut Inbox<Cached>, all: bool) {
        let written = inbox.take_deletable();
        self.deletable.extend(written.into_iter().filter_map(|token| self.receipts.remove(&token)));
        while !self.deletable.is_empty()
            && (all || self.deleting.is_empty() || self.deletable.len() >= BATCH_ENTRIES_MAX)
        {
            let batch: Vec<String> = self.deletable.drain(..self.deletable.len().min(BATCH_ENTRIES_MAX)).collect();
            let (queues, queue) = (self.queues.clone(), self.queue.clone());
            // A message that is not deleted comes again, and is dropped as a duplicate.
            self.deleting.spawn(async move { drop(queues.delete(&queue, &batch).await) });
        }
    }

    /// Stops receiving.
    pub(crate) fn stop(&mut self) {
        self.receiving.abort_all();
    }

    /// Waits until all deletions have ended.
    pub(crate) async fn deleted(&mut self) {
        while self.deleting.join_next().await.is_some() {}
    }
}
