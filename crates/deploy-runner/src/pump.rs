//! The pump drives the outbox. Output and messages enter through a bounded channel and become
//! frames. Every frame goes to the archive and, in a batch, to the reply queue; several batches may
//! be in flight. Frames that the queue does not accept yet wait in the spool on disk. When that is
//! full, the pump stops reading the channel. The pipes are then not read and the tool waits, so
//! nothing is lost for lack of room (clause FRM-15).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use relay_aws::queues::{Entry, Queues};
use relay_aws::{AwsError, Kind};
use relay_engine::{Batch, Finish, Frame, Outbox, Seal};
use relay_protocol::QueueUrl;
use relay_protocol::frame::{FrameSource, RunnerKind, SignedFrame, Stream};
use relay_protocol::keys::PrivateKey;
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::record::StreamDigest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tracing::warn;

use crate::archive::Archive;
use crate::spool::Spool;
use crate::stop::Stopper;

/// Capacity of the channel, in inputs, between the pipes and the outbox.
const CHANNEL: usize = 16;

/// How long the last frame is retried after the container's SIGTERM: Fargate kills the container
/// after 120 s, and the archive needs time to finish too. Without a SIGTERM, how long it is retried
/// on a queue that has not accepted any frame, and how long a message waits for a full pump.
const LAST_FRAME: Duration = Duration::from_secs(100);

/// How long the last frame is retried on a queue that accepted frames before. SQS may be
/// unavailable for a while, and nothing should be lost.
const OUTAGE: Duration = Duration::from_secs(30 * 60);

/// How long a message may take once the container is being stopped.
const HURRY: Duration = Duration::from_secs(2);

/// How long the archive may take after the last frame.
const ARCHIVE: Duration = Duration::from_secs(60);

/// How long to wait for the digests of a full pump. After that the record has none.
const ANSWER: Duration = Duration::from_secs(15);

enum Input {
    Output(Stream, Bytes),
    Say(RunnerKind),
    Digests(oneshot::Sender<(StreamDigest, StreamDigest)>),
    Idle(oneshot::Sender<()>),
    Finish(Box<Finish>),
}

/// The reply queue that receives the frames.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) queue: QueueUrl,
    pub(crate) queues: Queues,
}

/// A handle on the pump's task.
#[derive(Debug)]
pub(crate) struct Pump {
    sender: Sink,
    task: JoinHandle<()>,
    archive: Archive,
    line: Arc<Line>,
}

/// The state of the connection to the reply queue.
#[derive(Debug, Default)]
struct Line {
    /// The queue has accepted a batch.
    reached: AtomicBool,
    /// The queue is not tried any more: the remaining frames go to the archive alone.
    given_up: AtomicBool,
}

/// The sending side of the pump's channel.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    inputs: mpsc::Sender<Input>,
    stopper: Stopper,
}

impl Sink {
    /// Sends output, in the order of the calls. Waits while the pump is full.
    pub(crate) async fn output(&self, stream: Stream, bytes: Bytes) {
        self.put(Input::Output(stream, bytes)).await;
    }

    /// Sends a message, which follows all output so far. If the pump is full and accepts nothing
    /// for [`LAST_FRAME`], the deployment goes on without the message: most likely nobody reads the
    /// queue. Once the container is being stopped, the wait ends after [`HURRY`].
    pub(crate) async fn say(&self, kind: RunnerKind) {
        tokio::select! {
            () = self.put(Input::Say(kind)) => {}
            () = tokio::time::sleep(LAST_FRAME) => {}
            () = async {
                self.stopper.terminated_for(Duration::ZERO).await;
                tokio::time::sleep(HURRY).await;
            } => {}
        }
    }

    /// Sends a note from relay itself, for people to read.
    pub(crate) async fn note(&self, text: impl Into<String>) {
        self.say(RunnerKind::Note { text: text.into() }).await;
    }

    /// Sends to the pump, which lives until its last frame is sent. Later inputs are dropped;
    /// nobody needs them.
    async fn put(&self, input: Input) {
        let _ = self.inputs.send(input).await;
    }
}

impl Pump {
    /// Starts the pump's task.
    pub(crate) fn start(
        outbox: Outbox<RunnerKey, Spool>,
        address: Address,
        (archive, notes): (Archive, mpsc::Receiver<String>),
        stopper: Stopper,
    ) -> Self {
        let (inputs, receiver) = mpsc::channel(CHANNEL);
        let line = Arc::new(Line::default());
        let pumping = Pumping {
            outbox,
            began: Instant::now(),
            archive: archive.lines(),
            notes,
            address,
            line: Arc::clone(&line),
            sends: JoinSet::new(),
            travelling: HashMap::new(),
            idle: Vec::new(),
            gone: None,
        };
        Self { sender: Sink { inputs, stopper }, task: tokio::spawn(pumping.run(receiver)), archive, line }
    }

    /// Returns the sink, through which output and messages enter the pump.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sender
    }

    /// Length and digest of both streams so far, stdout then stderr. `None` if the pump does not
    /// answer within [`ANSWER`].
    pub(crate) async fn digests(&self) -> Option<(StreamDigest, StreamDigest)> {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.sender.put(Input::Digests(sender)).await;
            receiver.await.ok()
        };
        tokio::time::timeout(ANSWER, asked).await.ok().flatten()
    }

    /// Waits until everything so far has arrived. Returns `false` if that takes longer than
    /// `patience`.
    pub(crate) async fn arrived(&self, patience: Duration) -> bool {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.sender.put(Input::Idle(sender)).await;
            receiver.await.is_ok()
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(false)
    }

    /// Sends the last frame and completes the archive. Returns `false` if the frame could not be
    /// sent in time. A queue that accepted frames before gets more time to accept this one, unless
    /// the container is being stopped.
    pub(crate) async fn finish(self, finish: Finish, stopper: &Stopper) -> bool {
        let Self { sender, task, archive, line } = self;
        let abort = task.abort_handle();
        let patience = if line.reached.load(Ordering::Relaxed) { OUTAGE } else { LAST_FRAME };
        let finished = async {
            sender.put(Input::Finish(Box::new(finish))).await;
            task.await.is_ok()
        };
        tokio::pin!(finished);
        let sent = tokio::select! {
            sent = &mut finished => sent,
            () = tokio::time::sleep(patience) => false,
            () = stopper.terminated_for(LAST_FRAME) => false,
        };
        let rest = async {
            if !sent {
                line.given_up.store(true, Ordering::Relaxed);
                finished.await;
            }
            archive.finish().await;
        };
        if tokio::time::timeout(ARCHIVE, rest).await.is_err() {
            warn!("the archive was not finished in time; it lacks the end of the output");
        }
        abort.abort();
        sent
    }
}

/// Signs frames with the runner key.
#[derive(Debug)]
pub(crate) struct RunnerKey {
    pub(crate) key: PrivateKey,
    /// The target key's vouch for the runner key, as JSON.
    pub(crate) vouch: String,
}

impl Seal for RunnerKey {
    fn seal(&self, body: String, vouch: bool) -> SignedFrame {
        let sig = self.key.sign(&FrameSource::Runner.pae(&body));
        SignedFrame::new(FrameSource::Runner, &sig, vouch.then(|| self.vouch.clone()), body)
    }
}

/// The sequence numbers of a batch's frames that have arrived.
type Sent = Result<Vec<u64>, AwsError>;

/// A batch in flight: its own number, and its frames' sequence numbers.
struct Travelling {
    number: u64,
    seqs: Vec<u64>,
}

/// The task behind a [`Pump`].
struct Pumping {
    outbox: Outbox<RunnerKey, Spool>,
    began: Instant,
    archive: mpsc::Sender<String>,
    /// What the archive wants the reader to know.
    notes: mpsc::Receiver<String>,
    address: Address,
    line: Arc<Line>,
    sends: JoinSet<Sent>,
    travelling: HashMap<Id, Travelling>,
    /// Callers that wait until everything has arrived.
    idle: Vec<oneshot::Sender<()>>,
    /// When the queue was first found to be gone.
    gone: Option<Instant>,
}

impl Pumping {
    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            self.make_frames().await;
            self.send_batches();
            while let Some(problem) = self.outbox.poll_problem() {
                warn!(problem);
            }
            if self.outbox.is_idle() {
                for waiting in self.idle.drain(..) {
                    // The caller may have stopped waiting.
                    let _ = waiting.send(());
                }
            }
            if self.outbox.is_done() {
                return;
            }
            let pause = self.outbox.poll_timeout().map_or(Duration::MAX, |at| at.saturating_sub(self.began.elapsed()));
            tokio::select! {
                Some(input) = inputs.recv(), if self.outbox.has_room() => self.take(input),
                Some(text) = self.notes.recv() => {
                    self.outbox.say(self.began.elapsed(), RunnerKind::Note { text });
                }
                Some(sent) = self.sends.join_next_with_id(), if !self.sends.is_empty() => self.handle_sent(sent),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.began.elapsed();
        match input {
            Input::Output(stream, bytes) => self.outbox.push(now, stream, &bytes),
            Input::Say(kind) => self.outbox.say(now, kind),
            // The caller may have stopped waiting.
            Input::Digests(answer) => drop(answer.send(self.outbox.digests())),
            Input::Idle(answer) => self.idle.push(answer),
            Input::Finish(finish) => self.outbox.finish(now, *finish),
        }
    }

    /// Hands each due frame to the archive, before it goes to the queue.
    async fn make_frames(&mut self) {
        while let Some(frame) = self.outbox.poll_frame(self.began.elapsed()) {
            // Once the archive has ended, it keeps no more frames.
            let _ = self.archive.send(frame.signed.to_line()).await;
        }
    }

    fn send_batches(&mut self) {
        while let Some(Batch { number, frames }) = self.outbox.poll_batch(self.began.elapsed()) {
            let seqs = frames.iter().map(|frame| frame.seq).collect();
            let (address, line) = (self.address.clone(), Arc::clone(&self.line));
            let sending = self.sends.spawn(send(address, line, frames));
            self.travelling.insert(sending.id(), Travelling { number, seqs });
        }
    }

    fn handle_sent(&mut self, sent: Result<(Id, Sent), JoinError>) {
        let id = sent.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(Travelling { number, seqs }) = self.travelling.remove(&id) else { return };
        let arrived = match sent {
            Ok((_, result)) => {
                if result.is_ok() {
                    self.line.reached.store(true, Ordering::Relaxed);
                }
                judge(&seqs, result, &mut self.gone)
            }
            // The task panicked, which is a bug; its frames are sent again.
            Err(error) => {
                warn!(%error, "a send was aborted; its frames are sent again");
                Vec::new()
            }
        };
        self.outbox.handle_result(self.began.elapsed(), number, &arrived);
    }
}

/// Returns the frames of a batch that the outbox need not send again. When the queue has been gone
/// for a minute, these are all of them: nobody reads them, and a half-applied deployment would be
/// worse than a silent one (clause FRM-16).
fn judge(batch: &[u64], result: Sent, gone: &mut Option<Instant>) -> Vec<u64> {
    match result {
        Ok(arrived) => {
            *gone = None;
            arrived
        }
        Err(error) => {
            if !matches!(error.kind, Kind::NotFound | Kind::Denied) {
                warn!(%error, "cannot send a batch of frames; sending it again");
                return Vec::new();
            }
            let since = *gone.get_or_insert_with(Instant::now);
            if since.elapsed() < Duration::from_secs(QUEUE_WAIT_SECONDS) {
                return Vec::new();
            }
            warn!(%error, "the reply queue is gone; frames are dropped and the deployment continues");
            batch.to_vec()
        }
    }
}

/// Sends a batch to the reply queue, and returns which of its frames have arrived. Once the queue
/// is given up, all of them count as arrived.
async fn send(Address { queue, queues }: Address, line: Arc<Line>, frames: Vec<Arc<Frame>>) -> Sent {
    let seqs = frames.iter().map(|frame| frame.seq);
    if line.given_up.load(Ordering::Relaxed) {
        return Ok(seqs.collect());
    }
    let results = queues.send(&queue, frames.iter().map(|frame| Entry::from(&frame.signed)).collect()).await?;
    Ok(seqs.zip(results).filter(|(_, result)| result.is_ok()).map(|(seq, _)| seq).collect())
}
