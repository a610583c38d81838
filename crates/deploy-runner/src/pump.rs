//! The pump: drives writer and sender. Output and words go in by a bounded channel and become frames at once; every frame is signed, goes to the
//! archive, and out to the reply queue in batches, several at a time. What the sender has no room for waits in the backlog on disk. Only when that
//! is full too the channel is not read, the pipes are not read, and the tool waits, which is said: nothing is lost for want of room (clause
//! FRM-15).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_aws::queues::{Entry, Queues};
use relay_aws::{AwsError, Kind};
use relay_engine::{Link, Outgoing, Sender, Writer};
use relay_identity::PrivateKey;
use relay_protocol::encoding::base64;
use relay_protocol::frame::{ATTRIBUTE_FROM, ATTRIBUTE_SIG, ATTRIBUTE_VOUCH, From, RunnerKind, Stream};
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::StreamDigest;
use relay_protocol::time::plain_duration;
use relay_protocol::{ArchivedFrame, DeploymentId, Envelope, QueueUrl};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tracing::warn;

use crate::archive::Archive;
use crate::backlog::{Backlog, Signed};
use crate::spool::Spool;
use crate::stop::Stopper;

/// Chunks between the pipes and the writer.
const CHANNEL: usize = 16;

/// After the container's SIGTERM the last frame is tried this long: Fargate kills after 120 s, and the archive wants its end too.
const LAST_FRAME: Duration = Duration::from_secs(100);

/// A queue that took frames before is tried this long for the last one: SQS may be away for a while, and nothing is to be lost.
const OUTAGE: Duration = Duration::from_secs(30 * 60);

/// How long words may take once the container is being stopped.
const HURRY: Duration = Duration::from_secs(2);

/// How long the archive may take after the last frame.
const ARCHIVE: Duration = Duration::from_secs(60);

/// How long the tool must have waited before it is told.
const WAITED: Duration = Duration::from_secs(1);

/// How long a full pump is asked for its digests before the record goes without.
const ANSWER: Duration = Duration::from_secs(15);

enum Input {
    Output(Stream, Vec<u8>),
    Say(RunnerKind),
    Digests(oneshot::Sender<(StreamDigest, StreamDigest)>),
    Idle(oneshot::Sender<()>),
    Finish(Box<Finish>),
}

/// What the last frame says.
#[derive(Debug)]
pub(crate) struct Finish {
    pub(crate) outcome: Outcome,
    pub(crate) step: Option<String>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) record: Option<Envelope>,
}

/// What signs and addresses frames.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) id: DeploymentId,
    pub(crate) queue: QueueUrl,
    pub(crate) queues: Queues,
    pub(crate) key: PrivateKey,
    pub(crate) vouch: String,
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
    pub(crate) fn start(address: Address, spool: Spool, archive: Archive, stopper: Stopper) -> Self {
        let (inputs, receiver) = mpsc::channel(CHANNEL);
        let line = Arc::new(Line::default());
        let edge = Arc::new(Edge { address, line: Arc::clone(&line) });
        let pumping = Pumping::new(edge, Backlog::new(spool), archive.lines());
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

/// What sends need.
struct Edge {
    address: Address,
    line: Arc<Line>,
}

/// Which frames of a batch have arrived.
type Sent = Result<Vec<u64>, AwsError>;

/// The task behind a [`Pump`].
struct Pumping {
    edge: Arc<Edge>,
    archive: mpsc::Sender<String>,
    began: Instant,
    writer: Writer,
    sender: Sender<Arc<Signed>>,
    backlog: Backlog,
    sends: JoinSet<Sent>,
    /// The frames of each batch that is on its way.
    travelling: HashMap<Id, Vec<u64>>,
    /// Who waits for everything to have arrived.
    idle: Vec<oneshot::Sender<()>>,
    /// Since when the queue is gone, and since when the tool is made to wait.
    gone: Option<Instant>,
    full: Option<Instant>,
}

impl Pumping {
    fn new(edge: Arc<Edge>, backlog: Backlog, archive: mpsc::Sender<String>) -> Self {
        let writer = Writer::new(edge.address.id.clone(), Duration::ZERO);
        let (sender, sends) = (Sender::new(), JoinSet::new());
        Self {
            edge,
            archive,
            began: Instant::now(),
            writer,
            sender,
            backlog,
            sends,
            travelling: HashMap::new(),
            idle: Vec::new(),
            gone: None,
            full: None,
        }
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        loop {
            self.make_frames().await;
            self.refill();
            while let Some(batch) = self.sender.poll_batch(self.began.elapsed()) {
                let seqs = batch.iter().map(|(seq, _)| *seq).collect();
                let sending = self.sends.spawn(send(Arc::clone(&self.edge), batch));
                self.travelling.insert(sending.id(), seqs);
                // What set out has made room.
                self.refill();
            }
            self.note_waiting();
            if self.is_idle() {
                for waiting in self.idle.drain(..) {
                    // Whoever asked may have given up meanwhile.
                    let _ = waiting.send(());
                }
            }
            if self.sender.is_done() {
                return;
            }
            let due = [self.writer.poll_timeout(self.link()), self.sender.poll_timeout()].into_iter().flatten().min();
            let pause = due.map_or(Duration::MAX, |at| at.saturating_sub(self.began.elapsed()));
            tokio::select! {
                Some(input) = inputs.recv(), if self.backlog.has_room() => self.take(input),
                Some(sent) = self.sends.join_next_with_id(), if !self.sends.is_empty() => self.handle_sent(sent),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn handle_sent(&mut self, sent: Result<(Id, Sent), JoinError>) {
        let id = sent.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let batch = self.travelling.remove(&id).unwrap_or_default();
        let arrived = match sent {
            Ok((_, result)) => {
                if result.is_ok() {
                    self.edge.line.reached.store(true, Ordering::Relaxed);
                }
                judge(&batch, result, &mut self.gone)
            }
            // A bug; what it had goes out again.
            Err(error) => {
                warn!(%error, "a send was not finished");
                Vec::new()
            }
        };
        self.sender.handle_result(self.began.elapsed(), &batch, &arrived);
    }

    fn take(&mut self, input: Input) {
        let now = self.began.elapsed();
        match input {
            Input::Output(stream, bytes) => self.writer.push(now, stream, &bytes),
            Input::Say(kind) => self.writer.say(now, kind),
            // Whoever asked may have given up meanwhile.
            Input::Digests(answer) => drop(answer.send(self.writer.digests())),
            Input::Idle(answer) => self.idle.push(answer),
            Input::Finish(finish) => {
                self.writer.finish(now, finish.outcome, finish.step, finish.outputs, finish.record)
            }
        }
    }

    /// What waited longest goes first.
    fn refill(&mut self) {
        while self.sender.has_room() && !self.backlog.is_empty() {
            match self.backlog.next() {
                Ok(Some(frame)) => self.queue(frame),
                Ok(None) => {}
                Err(lost) => {
                    warn!(error = %lost.problem, frames = lost.seqs.len(), "the spool cannot be read");
                    let text = format!(
                        "output is missing here: the runner's disk failed ({}); the archive should have it: relay-admin log",
                        lost.problem
                    );
                    let mut text = Some(text);
                    for seq in lost.seqs {
                        let frame = self.writer.in_place_of(seq, text.take());
                        let frame = self.sign(frame);
                        self.queue(frame);
                    }
                }
            }
        }
    }

    /// Every frame that is due is signed and archived, and then sent, or kept until it can be.
    async fn make_frames(&mut self) {
        while let Some(frame) = self.writer.poll_frame(self.began.elapsed(), self.link()) {
            let frame = self.sign(frame);
            // Once the archive has ended, nothing is to be kept any more.
            let _ = self.archive.send(frame.frame.to_line()).await;
            if self.backlog.is_empty() && self.sender.has_room() {
                self.queue(frame);
            } else {
                self.backlog.put(frame);
            }
        }
    }

    fn queue(&mut self, frame: Arc<Signed>) {
        self.sender.queue(frame.seq, frame.frame.body.len(), frame.last, frame);
    }

    fn sign(&self, frame: Outgoing) -> Arc<Signed> {
        let Outgoing { seq, body, vouch, output, last } = frame;
        let Address { key, vouch: vouched, .. } = &self.edge.address;
        let (from, sig) = (From::Runner.as_str().to_owned(), base64(&key.sign(&From::Runner.pae(&body))));
        let frame = ArchivedFrame { from, sig, vouch: vouch.then(|| vouched.clone()), body };
        Arc::new(Signed { seq, output, last, frame })
    }

    /// The tool is made to wait while the backlog has no room; afterwards that is said.
    fn note_waiting(&mut self) {
        if !self.backlog.has_room() {
            self.full.get_or_insert_with(Instant::now);
        } else if let Some(waited) = self.full.take().map(|since| since.elapsed()).filter(|waited| *waited >= WAITED) {
            let waited = plain_duration(i64::try_from(waited.as_secs()).unwrap_or(i64::MAX));
            let text = format!(
                "the tool was made to wait for {waited}: the reply queue took nothing, and the spool on disk was full"
            );
            self.writer.say(self.began.elapsed(), RunnerKind::Note { text });
        }
    }

    fn link(&self) -> Link {
        if self.backlog.is_empty() { self.sender.link() } else { Link::Blocked }
    }

    fn is_idle(&self) -> bool {
        self.writer.is_idle() && self.backlog.is_empty() && self.sender.is_idle()
    }
}

/// Which frames of a batch are off the sender's hands. When the queue has been gone for a minute, all are: nobody reads them, and a half-applied
/// deployment would be worse than a silent one (clause FRM-16).
fn judge(batch: &[u64], result: Result<Vec<u64>, AwsError>, gone: &mut Option<Instant>) -> Vec<u64> {
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
async fn send(edge: Arc<Edge>, batch: Vec<(u64, Arc<Signed>)>) -> Sent {
    let Address { queue, queues, .. } = &edge.address;
    let seqs: Vec<u64> = batch.iter().map(|(seq, _)| *seq).collect();
    if edge.line.given_up.load(Ordering::Relaxed) {
        return Ok(seqs);
    }
    let entries = batch.iter().map(|(_, signed)| entry(&signed.frame)).collect();
    let results = queues.send(queue, entries).await?;
    let arrived = seqs.into_iter().zip(results).filter(|(_, result)| result.is_ok());
    Ok(arrived.map(|(seq, _)| seq).collect())
}

fn entry(frame: &ArchivedFrame) -> Entry {
    let mut attributes = vec![(ATTRIBUTE_FROM, frame.from.clone()), (ATTRIBUTE_SIG, frame.sig.clone())];
    attributes.extend(frame.vouch.clone().map(|vouch| (ATTRIBUTE_VOUCH, vouch)));
    Entry { body: frame.body.clone(), attributes }
}
