//! The pump: drives the writer. Output and words go in by a bounded channel; batches go out to the reply queue, several at a time. When the
//! writer is full the channel is not read, the channel fills, the pipes are not read, and the tool waits: nothing is lost for want of memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use relay_aws::queues::{Entry, Queues};
use relay_aws::{AwsError, Kind};
use relay_identity::PrivateKey;
use relay_protocol::encoding::base64;
use relay_protocol::frame::{ATTRIBUTE_FROM, ATTRIBUTE_SIG, ATTRIBUTE_VOUCH, From, RunnerKind, Stream};
use relay_protocol::limits::QUEUE_WAIT_SECONDS;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::StreamDigest;
use relay_protocol::{DeploymentId, Envelope, QueueUrl};
use relay_stream::{Outgoing, Writer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::warn;

/// Chunks between the pipes and the writer.
const CHANNEL: usize = 16;

/// The last frame is tried this long: as long as Fargate leaves a container after SIGTERM, less what the end itself needs.
const LAST_FRAME: Duration = Duration::from_secs(100);

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
    pub(crate) fn start(address: Address) -> Self {
        let (sender, receiver) = mpsc::channel(CHANNEL);
        Self { sender: Sink(sender), task: tokio::spawn(run(address, receiver)) }
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

    /// Sends the last frame; `false` when it could not be sent in time.
    pub(crate) async fn finish(self, finish: Finish) -> bool {
        let abort = self.task.abort_handle();
        let finished = async {
            self.sender.put(Input::Finish(Box::new(finish))).await;
            self.task.await.is_ok()
        };
        let sent = tokio::time::timeout(LAST_FRAME, finished).await.unwrap_or(false);
        abort.abort();
        sent
    }
}

type Sent = (Vec<u64>, Result<Vec<u64>, AwsError>);

async fn run(address: Address, mut inputs: mpsc::Receiver<Input>) {
    let began = Instant::now();
    let address = std::sync::Arc::new(address);
    let mut writer = Writer::new(address.id.clone(), began.elapsed());
    let mut sends: JoinSet<Sent> = JoinSet::new();
    let mut idle: Vec<oneshot::Sender<()>> = Vec::new();
    let mut gone: Option<Instant> = None;
    loop {
        while let Some(batch) = writer.poll_batch(began.elapsed()) {
            let address = std::sync::Arc::clone(&address);
            sends.spawn(async move { send(&address, batch).await });
        }
        if writer.is_idle() {
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
            Some(input) = inputs.recv(), if writer.wants_input() => take(&mut writer, began.elapsed(), input, &mut idle),
            Some(sent) = sends.join_next(), if !sends.is_empty() => {
                // A send that panicked is a bug; its frames stay out of the count and the CLI reports a gap.
                if let Ok((batch, result)) = sent {
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

async fn send(address: &Address, batch: Vec<Outgoing>) -> Sent {
    let seqs: Vec<u64> = batch.iter().map(|frame| frame.seq).collect();
    let entries = batch.into_iter().map(|frame| {
        let sig = address.key.sign(&From::Runner.pae(&frame.body));
        let mut attributes = vec![(ATTRIBUTE_FROM, From::Runner.as_str().to_owned()), (ATTRIBUTE_SIG, base64(&sig))];
        if frame.vouch {
            attributes.push((ATTRIBUTE_VOUCH, address.vouch.clone()));
        }
        Entry { body: frame.body, attributes }
    });
    let result = address.queues.send(&address.queue, entries.collect()).await.map(|results| {
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
