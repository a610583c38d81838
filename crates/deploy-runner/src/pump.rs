//! The pump: drives the outbox. Output and words go in by a bounded channel and become frames; every frame goes to the
//! archive, and out to the reply queue in batches, several at a time. Only when the spool on disk is full too, the channel
//! is not read, the pipes are not read, and the tool waits: nothing is lost for want of room (clause FRM-15).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// Chunks between the pipes and the outbox.
const CHANNEL: usize = 16;

/// After the container's SIGTERM the last frame is tried this long: Fargate kills after 120 s, and the archive wants its end too.
const LAST_FRAME: Duration = Duration::from_secs(100);

/// A queue that took frames before is tried this long for the last one: SQS may be away for a while, and nothing is to be lost.
const OUTAGE: Duration = Duration::from_secs(30 * 60);

/// How long words may take once the container is being stopped.
const HURRY: Duration = Duration::from_secs(2);

/// How long the archive may take after the last frame.
const ARCHIVE: Duration = Duration::from_secs(60);

/// How long a full pump is asked for its digests before the record goes without.
const ANSWER: Duration = Duration::from_secs(15);

enum Input {
    Output(Stream, Vec<u8>),
    Say(RunnerKind),
    Digests(oneshot::Sender<(StreamDigest, StreamDigest)>),
    Idle(oneshot::Sender<()>),
    Finish(Box<Finish>),
}

/// Where frames go.
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

/// What is known of the way to the queue.
#[derive(Debug, Default)]
struct Line {
    /// It has taken something.
    reached: AtomicBool,
    /// It is not tried any more: what is left goes to the archive alone.
    given_up: AtomicBool,
}

/// Where output goes in.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    inputs: mpsc::Sender<Input>,
    stopper: Stopper,
}

impl Sink {
    /// Output, in the order of the calls; waits when the pump is full.
    pub(crate) async fn output(&self, stream: Stream, bytes: Vec<u8>) {
        self.put(Input::Output(stream, bytes)).await;
    }

    /// Words, behind all output so far. A pump that takes nothing for so long has no reader: the deployment goes on without these words; a
    /// container that is being stopped has no time to wait for it.
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

    /// Relay's own words, for people.
    pub(crate) async fn note(&self, text: impl Into<String>) {
        self.say(RunnerKind::Note { text: text.into() }).await;
    }

    /// The pump lives until its last frame is sent; whoever speaks after that is not heard, and need not be.
    async fn put(&self, input: Input) {
        let _ = self.inputs.send(input).await;
    }
}

impl Pump {
    /// Starts the task.
    pub(crate) fn start(
        outbox: Outbox<RunnerKey, Spool>,
        address: Address,
        archive: Archive,
        stopper: Stopper,
    ) -> Self {
        let (inputs, receiver) = mpsc::channel(CHANNEL);
        let line = Arc::new(Line::default());
        let pumping = Pumping {
            outbox,
            began: Instant::now(),
            archive: archive.lines(),
            address,
            line: Arc::clone(&line),
            sends: JoinSet::new(),
            travelling: HashMap::new(),
            idle: Vec::new(),
            gone: None,
        };
        Self { sender: Sink { inputs, stopper }, task: tokio::spawn(pumping.run(receiver)), archive, line }
    }

    /// Where output goes in.
    pub(crate) fn sink(&self) -> &Sink {
        &self.sender
    }

    /// Length and digest of both streams so far: stdout, stderr.
    pub(crate) async fn digests(&self) -> Option<(StreamDigest, StreamDigest)> {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.sender.put(Input::Digests(sender)).await;
            receiver.await.ok()
        };
        tokio::time::timeout(ANSWER, asked).await.ok().flatten()
    }

    /// Waits until everything so far has arrived; `false` when that took longer than `patience`.
    pub(crate) async fn arrived(&self, patience: Duration) -> bool {
        let (sender, receiver) = oneshot::channel();
        let asked = async {
            self.sender.put(Input::Idle(sender)).await;
            receiver.await.is_ok()
        };
        tokio::time::timeout(patience, asked).await.unwrap_or(false)
    }

    /// Sends the last frame, and leaves the archive whole; `false` when the frame could not be sent in time. A queue that took frames before is
    /// given time to take this one too, unless the container is being stopped.
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
            warn!("the archive was not finished in time: the end is missing there");
        }
        abort.abort();
        sent
    }
}

/// Signs frames with the runner key.
#[derive(Debug)]
pub(crate) struct RunnerKey {
    pub(crate) key: PrivateKey,
    /// The target key's word for it.
    pub(crate) vouch: String,
}

impl Seal for RunnerKey {
    fn seal(&self, body: String, vouch: bool) -> SignedFrame {
        let sig = self.key.sign(&FrameSource::Runner.pae(&body));
        SignedFrame::new(FrameSource::Runner, &sig, vouch.then(|| self.vouch.clone()), body)
    }
}

/// Which frames of a batch have arrived.
type Sent = Result<Vec<u64>, AwsError>;

/// A batch on its way: its number, and its frames'.
struct Travelling {
    number: u64,
    seqs: Vec<u64>,
}

/// The task behind a [`Pump`].
struct Pumping {
    outbox: Outbox<RunnerKey, Spool>,
    began: Instant,
    archive: mpsc::Sender<String>,
    address: Address,
    line: Arc<Line>,
    sends: JoinSet<Sent>,
    travelling: HashMap<Id, Travelling>,
    /// Callers that wait for everything to have arrived.
    idle: Vec<oneshot::Sender<()>>,
    /// Since when the queue is gone.
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
                    // The caller may have given up meanwhile.
                    let _ = waiting.send(());
                }
            }
            if self.outbox.is_done() {
                return;
            }
            let pause = self.outbox.poll_timeout().map_or(Duration::MAX, |at| at.saturating_sub(self.began.elapsed()));
            tokio::select! {
                Some(input) = inputs.recv(), if self.outbox.has_room() => self.take(input),
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
            // The caller may have given up meanwhile.
            Input::Digests(answer) => drop(answer.send(self.outbox.digests())),
            Input::Idle(answer) => self.idle.push(answer),
            Input::Finish(finish) => self.outbox.finish(now, *finish),
        }
    }

    /// Every frame that is due goes to the archive before it is sent.
    async fn make_frames(&mut self) {
        while let Some(frame) = self.outbox.poll_frame(self.began.elapsed()) {
            // Once the archive has ended, nothing is to be kept any more.
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
            // A bug; what it had goes out again.
            Err(error) => {
                warn!(%error, "a send was not finished");
                Vec::new()
            }
        };
        self.outbox.handle_result(self.began.elapsed(), number, &arrived);
    }
}

/// Which frames of a batch are off the outbox's hands. When the queue has been gone for a minute, all are: nobody reads
/// them, and a half-applied deployment would be worse than a silent one (clause FRM-16).
fn judge(batch: &[u64], result: Sent, gone: &mut Option<Instant>) -> Vec<u64> {
    match result {
        Ok(arrived) => {
            *gone = None;
            arrived
        }
        Err(error) => {
            if !matches!(error.kind, Kind::NotFound | Kind::Denied) {
                warn!(%error, "a batch of frames could not be sent; it is sent again");
                return Vec::new();
            }
            let since = *gone.get_or_insert_with(Instant::now);
            if since.elapsed() < Duration::from_secs(QUEUE_WAIT_SECONDS) {
                return Vec::new();
            }
            warn!(%error, "the reply queue is gone: frames are dropped, the deployment goes on");
            batch.to_vec()
        }
    }
}

/// Sends a batch.
async fn send(Address { queue, queues }: Address, line: Arc<Line>, frames: Vec<Arc<Frame>>) -> Sent {
    let seqs = frames.iter().map(|frame| frame.seq);
    if line.given_up.load(Ordering::Relaxed) {
        return Ok(seqs.collect());
    }
    let results = queues.send(&queue, frames.iter().map(|frame| Entry::from(&frame.signed)).collect()).await?;
    Ok(seqs.zip(results).filter(|(_, result)| result.is_ok()).map(|(seq, _)| seq).collect())
}
