//! The pump: drives the writer. Output and words go in by a bounded channel; batches go out to the reply queue, several at a time, and every frame
//! goes to the archive. When the writer is full, what comes waits in the backlog on disk. Only when that is full too the channel is not read, the
//! pipes are not read, and the tool waits, which is said: nothing is lost for want of room (clause FRM-15).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use relay_aws::queues::{Entry, Queues};
use relay_aws::{AwsError, Kind};
use relay_identity::PrivateKey;
use relay_protocol::encoding::base64;
use relay_protocol::frame::{ATTRIBUTE_FROM, ATTRIBUTE_SIG, ATTRIBUTE_VOUCH, From, RunnerKind, Stream};
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::StreamDigest;
use relay_protocol::time::plain_duration;
use relay_protocol::{ArchivedFrame, DeploymentId, Envelope, QueueUrl};
use relay_stream::{Outgoing, Writer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

use crate::archive::Archive;
use crate::backlog::{Backlog, Waiting};
use crate::spool::Spool;
use crate::stop::Stopper;

/// Chunks between the pipes and the writer.
const CHANNEL: usize = 16;

/// After the container's SIGTERM the last frame is tried this long: Fargate kills after 120 s, and the archive wants its end too.
const LAST_FRAME: Duration = Duration::from_secs(100);

/// A queue that took frames before is tried this long for the last one: SQS may be away for a while, and nothing is to be lost.
const OUTAGE: Duration = Duration::from_secs(30 * 60);

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
pub(crate) struct Sink(mpsc::Sender<Input>);

impl Sink {
    /// Output, in the order of the calls; waits when the pump is full.
    pub(crate) async fn output(&self, stream: Stream, bytes: Vec<u8>) {
        self.put(Input::Output(stream, bytes)).await;
    }

    /// Words, behind all output so far. A pump that takes nothing for so long has no reader: the deployment goes on without these words.
    pub(crate) async fn say(&self, kind: RunnerKind) {
        let _ = tokio::time::timeout(LAST_FRAME, self.put(Input::Say(kind))).await;
    }

    /// Relay's own words, for people.
    pub(crate) async fn note(&self, text: impl Into<String>) {
        self.say(RunnerKind::Note { text: text.into() }).await;
    }

    /// The pump lives until its last frame is sent; whoever speaks after that is not heard, and need not be.
    async fn put(&self, input: Input) {
        let _ = self.0.send(input).await;
    }
}

impl Pump {
    /// Starts the task.
    pub(crate) fn start(address: Address, spool: Spool, archive: Archive) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let line = Arc::new(Line::default());
        let edge = Edge { address, archive: archive.lines(), line: Arc::clone(&line) };
        Self { sender: Sink(sender), task: tokio::spawn(run(edge, spool, receiver)), archive, line }
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
            () = async { tokio::time::sleep_until(stopper.terminated().await + LAST_FRAME).await } => false,
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
    archive: mpsc::Sender<String>,
    line: Arc<Line>,
}

type Sent = (Vec<u64>, Result<Vec<u64>, AwsError>);

async fn run(edge: Edge, spool: Spool, mut inputs: mpsc::Receiver<Input>) {
    let began = Instant::now();
    let edge = Arc::new(edge);
    let mut writer = Writer::new(edge.address.id.clone(), began.elapsed());
    let mut backlog = Backlog::new(spool);
    let mut sends: JoinSet<Sent> = JoinSet::new();
    let mut idle: Vec<oneshot::Sender<()>> = Vec::new();
    let mut gone: Option<Instant> = None;
    let mut full: Option<Instant> = None;
    // Frames below are in the archive, or on their way there.
    let mut archived = 0;
    loop {
        while writer.wants_input() && !backlog.is_empty() {
            match backlog.next() {
                Ok(Some(Waiting::Output(stream, at, bytes))) => writer.push_counted(at, stream, &bytes),
                Ok(Some(Waiting::Word(input))) => take(&mut writer, began.elapsed(), input, &mut idle),
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "the spool cannot be read");
                    let text = format!("output is missing from here on: the runner's disk failed ({error})");
                    writer.say(began.elapsed(), RunnerKind::Note { text });
                }
            }
        }
        if backlog.has_room() {
            if let Some(waited) = full.take().map(|since| since.elapsed()).filter(|waited| *waited >= WAITED) {
                let waited = plain_duration(i64::try_from(waited.as_secs()).unwrap_or(i64::MAX));
                let text = format!(
                    "the tool was made to wait for {waited}: the reply queue took nothing, and the spool on disk was full"
                );
                backlog.put_word(Input::Say(RunnerKind::Note { text }));
            }
        } else {
            full.get_or_insert_with(Instant::now);
        }
        while let Some(batch) = writer.poll_batch(began.elapsed()) {
            let edge = Arc::clone(&edge);
            let fresh = archived;
            archived = batch.iter().map(|frame| frame.seq + 1).fold(archived, u64::max);
            sends.spawn(async move { send(&edge, batch, fresh).await });
        }
        if writer.is_idle() && backlog.is_empty() {
            for waiting in idle.drain(..) {
                // Whoever asked may have given up meanwhile.
                let _ = waiting.send(());
            }
        }
        if writer.is_done() {
            return;
        }
        let due = writer.poll_timeout().map(|at| tokio::time::Instant::from_std(began + at));
        tokio::select! {
            Some(input) = inputs.recv(), if backlog.has_room() => match input {
                // Whoever asked may have given up meanwhile.
                Input::Digests(answer) => drop(answer.send(writer.digests())),
                Input::Output(stream, bytes) if !backlog.is_empty() || !writer.wants_input() => {
                    writer.count(stream, &bytes);
                    backlog.put_output(stream, began.elapsed(), &bytes);
                }
                input if !backlog.is_empty() => backlog.put_word(input),
                input => take(&mut writer, began.elapsed(), input, &mut idle),
            },
            Some(sent) = sends.join_next(), if !sends.is_empty() => {
                // A send that panicked is a bug; its frames stay out of the count and the CLI reports a gap.
                if let Ok((batch, result)) = sent {
                    if result.is_ok() {
                        edge.line.reached.store(true, Ordering::Relaxed);
                    }
                    let arrived = judge(&batch, result, &mut gone);
                    writer.handle_result(began.elapsed(), &batch, &arrived);
                }
            }
            () = sleep_until(due) => {}
        }
    }
}

fn take(writer: &mut Writer, now: Duration, input: Input, idle: &mut Vec<oneshot::Sender<()>>) {
    match input {
        Input::Output(stream, bytes) => writer.push(now, stream, &bytes),
        Input::Say(kind) => writer.say(now, kind),
        // Whoever asked may have given up meanwhile.
        Input::Digests(answer) => drop(answer.send(writer.digests())),
        Input::Idle(answer) => idle.push(answer),
        Input::Finish(finish) => writer.finish(now, finish.outcome, finish.step, finish.outputs, finish.record),
    }
}

/// Which frames of a batch are off the writer's hands. When the queue has been gone for a minute, all are: nobody reads them, and a half-applied
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

/// Signs and sends a batch. Frames from `fresh` on were never sent before, and go to the archive first.
async fn send(edge: &Edge, batch: Vec<Outgoing>, fresh: u64) -> Sent {
    let Address { queue, queues, key, vouch, .. } = &edge.address;
    let seqs: Vec<u64> = batch.iter().map(|frame| frame.seq).collect();
    let mut entries = Vec::with_capacity(batch.len());
    for Outgoing { seq, body, vouch: vouched } in batch {
        let (from, sig) = (From::Runner.as_str().to_owned(), base64(&key.sign(&From::Runner.pae(&body))));
        let vouch = vouched.then(|| vouch.clone());
        let frame = ArchivedFrame { from, sig, vouch, body };
        if seq >= fresh {
            // Once the archive has ended, nothing is to be kept any more.
            let _ = edge.archive.send(frame.to_line()).await;
        }
        let ArchivedFrame { from, sig, vouch, body } = frame;
        let mut attributes = vec![(ATTRIBUTE_FROM, from), (ATTRIBUTE_SIG, sig)];
        attributes.extend(vouch.map(|vouch| (ATTRIBUTE_VOUCH, vouch)));
        entries.push(Entry { body, attributes });
    }
    if edge.line.given_up.load(Ordering::Relaxed) {
        return (seqs.clone(), Ok(seqs));
    }
    let result = queues.send(queue, entries).await.map(|results| {
        let arrived = seqs.iter().zip(results).filter(|(_, result)| result.is_ok());
        arrived.map(|(seq, _)| *seq).collect()
    });
    (seqs, result)
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
