//! Follows the reply queue: receives what comes, several calls at a time under load, and deletes what was written out.

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

/// Receives at a time under load. One is enough for a tool that prints now and then, and costs least.
const RECEIVERS: usize = 4;

/// Seconds that SQS may wait for a message before it answers with none.
const WAIT: i32 = 20;

/// The pause after a receive that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the queue may deny or be missing before contact counts as lost: a new queue needs a moment, and credentials
/// may be renewed.
const QUEUE_GONE: Duration = Duration::from_secs(60);

/// What a receive gave, and when it was called.
pub(crate) type Answer = (Duration, Result<Vec<Received>, AwsError>);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Follower {
    queues: Queues,
    queue: QueueUrl,
    clock: Clock,
    receiving: JoinSet<Answer>,
    /// Receives to have on their way.
    wanted: usize,
    lost: Lost,
    /// What a deletion needs, by the message.
    receipts: HashMap<Token, String>,
    next_token: Token,
    /// Receipts of what is written out and not deleted yet.
    deletable: Vec<String>,
    deleting: JoinSet<()>,
}

/// What is known of a queue that cannot be read.
#[derive(Debug, Default)]
struct Lost {
    since: Option<Instant>,
    /// Since when nothing could be heard that the inbox's clocks do not know of yet.
    deaf_from: Option<Duration>,
    /// The last error, as long as no receive has succeeded since.
    error: Option<AwsError>,
}

impl Follower {
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

    /// Why the queue cannot be read, as long as it cannot.
    pub(crate) fn trouble(&self) -> Option<&AwsError> {
        self.lost.error.as_ref()
    }

    /// Waits for the next answer; `None` when a deletion has ended meanwhile, so that the next may begin.
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

    /// Gives an answer to the inbox.
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
                    let token = self.next_token;
                    self.next_token += 1;
                    self.receipts.insert(token, message.receipt);
                    let frame = SignedFrame::from_message(message.attributes, message.body);
                    inbox.handle(self.clock.elapsed(), token, frame);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "receiving");
                // It is not the runner that is silent while SQS cannot be asked; but a queue that denies or is gone ends
                // the patience.
                let first = *self.lost.since.get_or_insert_with(Instant::now);
                if error.is_transient() || first.elapsed() < QUEUE_GONE {
                    // The pauses between the tries count too.
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

    /// Deletes what the inbox lets go, unless a deletion is on its way: then receipts gather, so that a busy tool costs
    /// fewer calls. With `all`, nothing is left to gather.
    pub(crate) fn delete(&mut self, inbox: &mut Inbox<Cached>, all: bool) {
        let written = inbox.take_deletable();
        self.deletable.extend(written.into_iter().filter_map(|token| self.receipts.remove(&token)));
        while !self.deletable.is_empty()
            && (all || self.deleting.is_empty() || self.deletable.len() >= BATCH_ENTRIES_MAX)
        {
            let batch: Vec<String> = self.deletable.drain(..self.deletable.len().min(BATCH_ENTRIES_MAX)).collect();
            let (queues, queue) = (self.queues.clone(), self.queue.clone());
            // A message that is not deleted comes again, and is dropped as a copy.
            self.deleting.spawn(async move { drop(queues.delete(&queue, &batch).await) });
        }
    }

    /// Receives no more.
    pub(crate) fn stop(&mut self) {
        self.receiving.abort_all();
    }

    /// Waits until all deletions have ended.
    pub(crate) async fn deleted(&mut self) {
        while self.deleting.join_next().await.is_some() {}
    }
}
