//! The output path in one process, without AWS: from the bytes that a tool wrote to signed frames,
//! lines of the archive and entries of SQS, and from received messages back to the bytes. What each
//! half allocates for a byte of output, and how fast it is on one core.
//!
//! Allocated bytes are an upper bound of copied bytes: whoever copies must have somewhere to copy
//! to.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use relay_aws::queues::Entry;
use relay_engine::{Authenticator, Batch, Event, Finish, Inbox, Masker, MemorySpool, Outbox, Seal, Start, Timeouts};
use relay_protocol::frame::{FrameSource, RunnerKind, Stream};
use relay_protocol::keys::{Cached, PrivateKey};
use relay_protocol::outcome::Outcome as Ended;
use relay_protocol::{DeploymentId, Digest, Envelope, SignedFrame, Statement as _, Timestamp, Vouch};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::tool::{self, Kind};
use crate::{Form, Outcome};

/// Bytes of a GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// Bytes of a piece, as the runner reads them from a pipe.
const PIECE: usize = 64 << 10;

/// Secrets in the row of the masker that has some.
const SECRETS: usize = 100;

/// Measures both halves with text and with random bytes, and the masker.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let size = form.pick(16, 64, 256) << 20;
    let halves = [Kind::Text, Kind::Random].into_iter().map(|kind| halves(kind, size));
    let result = json!({ "halves": halves.collect::<Outcome<Vec<Value>>>()?, "masker": masker(size)? });
    println!("{result}");
    Ok(result)
}

/// The runner key, with the vouch for it.
struct Key(PrivateKey, String);

impl Seal for Key {
    fn seal(&self, body: String, vouch: bool) -> SignedFrame {
        let sig = self.0.sign(&FrameSource::Runner.pae(&body));
        SignedFrame::new(FrameSource::Runner, &sig, vouch.then(|| self.1.clone()), body)
    }
}

/// A message as SQS delivers it: the string attributes and the body.
type Message = (BTreeMap<String, String>, String);

#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn halves(kind: Kind, size: u64) -> Outcome<Value> {
    let pieces = pieces(kind, size)?;
    let id = DeploymentId::new(1, [3; 10]);
    let runner = PrivateKey::from_seed([1; 32]);
    let vouch = Vouch {
        deployment_id: id.clone(),
        request_digest: Digest::of(b"request"),
        task_arn: "task".to_owned(),
        runner_key: runner.public().clone(),
    };
    let vouch = PrivateKey::from_seed([2; 32]).sign_envelope(Envelope::new(Vouch::TYPE, vouch.to_payload())).to_json();
    let outbox = Outbox::new(id.clone(), Duration::ZERO, Key(runner, vouch), MemorySpool::default());
    let (messages, writing) = counted(size, || write(outbox, &pieces));
    let floor = floor(&pieces, messages.len());
    let (bytes, reading) = counted(size, || read(&id, messages));
    if bytes != size {
        return Err(format!("{} bytes of {}: {bytes} came out", size, kind.name()).into());
    }
    Ok(
        json!({ "what": kind.name(), "bytes": size, "writing": writing, "reading": reading, "floor_s_gib": floor * GIB / size as f64 }),
    )
}

/// Seconds that the protocol's own primitives take for this output in so many frames.
#[allow(clippy::expect_used, reason = "the message states the invariant")]
fn floor(pieces: &[Vec<u8>], frames: usize) -> f64 {
    let whole = pieces.concat();
    let mut took = Duration::ZERO;
    for part in whole.chunks(whole.len().div_ceil(frames)) {
        let began = Instant::now();
        let packed = zstd::bulk::compress(part, 1).expect("a slice fits into memory");
        let text = BASE64.encode(&packed);
        for _ in 0..2 {
            std::hint::black_box(Sha256::digest(part));
        }
        for _ in 0..3 {
            std::hint::black_box(Sha512::digest(text.as_bytes()));
        }
        let packed = BASE64.decode(text.as_bytes()).expect("it was encoded here");
        let back = zstd::bulk::decompress(&packed, part.len()).expect("it was compressed here");
        took += began.elapsed();
        assert_eq!(back.len(), part.len(), "what goes in comes out");
    }
    took.as_secs_f64()
}

/// The output of `kind` in pieces.
fn pieces(kind: Kind, size: u64) -> Outcome<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    tool::output(kind, size, |block| {
        pieces.extend(block.chunks(PIECE).map(<[u8]>::to_vec));
        Ok(())
    })?;
    Ok(pieces)
}

/// What `work` allocates for each of `size` bytes, and its speed.
#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn counted<T>(size: u64, work: impl FnOnce() -> T) -> (T, Value) {
    let (mut result, began) = (None, Instant::now());
    let allocated = allocation_counter::measure(|| result = Some(work()));
    let seconds = began.elapsed().as_secs_f64();
    let value = json!({
        "allocated_per_byte": allocated.bytes_total as f64 / size as f64,
        "allocations_per_mib": allocated.count_total as f64 / (size as f64 / f64::from(1 << 20)),
        "mb_s": size as f64 / 1e6 / seconds,
    });
    #[allow(clippy::expect_used, reason = "the message states the invariant")]
    let result = result.expect("the closure ran");
    (result, value)
}

/// Makes frames, lines of the archive and entries of SQS. Returns the messages.
fn write(mut outbox: Outbox<Key, MemorySpool>, pieces: &[Vec<u8>]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut now = Duration::ZERO;
    let deadline = Timestamp::from_unix(1 << 31);
    outbox.say(now, RunnerKind::Started { task_arn: "task".to_owned(), steps: Vec::new(), deadline, grace: 1 });
    drive(&mut outbox, now, &mut messages);
    for piece in pieces {
        now += Duration::from_millis(3);
        outbox.push(now, Stream::Stdout, piece);
        drive(&mut outbox, now, &mut messages);
    }
    outbox.finish(now, Finish::of(Ended::Exited { code: 0, signal: None }));
    drive(&mut outbox, now, &mut messages);
    messages
}

fn drive(outbox: &mut Outbox<Key, MemorySpool>, now: Duration, messages: &mut Vec<Message>) {
    loop {
        while let Some(frame) = outbox.poll_frame(now) {
            drop(frame.signed.to_line());
        }
        let Some(Batch { number, frames }) = outbox.poll_batch(now) else { return };
        for entry in frames.iter().map(|frame| Entry::from(&frame.signed)) {
            let attributes = entry.attributes.into_iter().map(|(name, value)| (name.to_owned(), value));
            messages.push((attributes.collect(), entry.body));
        }
        outbox.handle_result(now, number, &frames.iter().map(|frame| frame.seq).collect::<Vec<_>>());
    }
}

/// Reads the messages, and returns how many bytes of output they had.
fn read(id: &DeploymentId, messages: Vec<Message>) -> u64 {
    let authenticator = Authenticator::attaching(id.clone(), None, Cached::default());
    let (zero, today) = (Duration::ZERO, Timestamp::from_unix(0));
    let mut inbox = Inbox::new(authenticator, Start::Fresh, Timeouts::default(), zero, today);
    let mut bytes = 0;
    for (token, (attributes, body)) in (0..).zip(messages) {
        inbox.handle(zero, token, SignedFrame::from_message(attributes, body));
        while let Some(event) = inbox.poll_event() {
            if let Event::Output(chunks) = event {
                bytes += chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
            }
        }
    }
    bytes
}

/// The speed of the masker on text, without secrets and with some.
fn masker(size: u64) -> Outcome<Value> {
    let pieces = pieces(Kind::Text, size)?;
    let secrets: Vec<String> =
        (0..SECRETS).map(|n| Digest::of(&n.to_le_bytes()).to_string()[..32].to_owned()).collect();
    let run = |secrets: &[String]| {
        let mut masker = Masker::new(secrets);
        let mut bytes = 0;
        let (_, value) = counted(size, || {
            for piece in &pieces {
                // As the runner does it: what needs no mask is passed on as it is.
                bytes += if masker.is_idle() { piece.len() } else { masker.push(piece).len() };
            }
            bytes += masker.finish().len();
        });
        (bytes as u64 == size).then_some(value).ok_or("the masker changed text without a secret")
    };
    Ok(json!({ "secrets": SECRETS, "without": run(&[])?, "with": run(&secrets)? }))
}
