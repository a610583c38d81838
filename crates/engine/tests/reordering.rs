//! Reordering and reassembly against a reference of ten lines. The frames of a real writer arrive
//! in any order, in batches cut anywhere, and any of them more than once. A real reader must make
//! the same of them as a sort does. A failing case shrinks, and is kept beside this file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use relay_engine::{Authenticator, End, Event, Finish, Frame, Inbox, MemorySpool, Outbox, Start, Timeouts};
use relay_protocol::frame::{RunnerFrame, RunnerKind, Stream};
use relay_protocol::outcome::Outcome;
use relay_protocol::{DeploymentId, Digest, Timestamp};

use crate::toy::{Keys, Toy, published};

/// The reference: sort by number, drop duplicates, join.
fn reference(frames: &[Arc<Frame>]) -> Vec<(Stream, u8)> {
    let mut frames: Vec<RunnerFrame> =
        frames.iter().map(|frame| RunnerFrame::parse(&frame.signed.body).unwrap()).collect();
    frames.sort_by_key(|frame| frame.seq);
    frames.dedup_by_key(|frame| frame.seq);
    let output = frames.into_iter().filter_map(|frame| match frame.kind {
        RunnerKind::Output(chunks) => Some(chunks.unfold().unwrap()),
        _ => None,
    });
    output.flatten().flat_map(|chunk| chunk.bytes.into_iter().map(move |byte| (chunk.stream, byte))).collect()
}

/// The writes of the tool, and what happens to them on their way.
#[derive(Clone, Debug)]
struct Case {
    /// Whether to stderr, the bytes, and the milliseconds until the next write.
    writes: Vec<(bool, Vec<u8>, u64)>,
    /// The frames that arrive, by place, each as often as it is listed. The others arrive at the
    /// end, in order.
    order: Vec<prop::sample::Index>,
    /// How many messages each receive returns.
    receives: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let bytes = prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => (1_usize..40_000).prop_map(|length| vec![b'x'; length])];
    let writes = vec((any::<bool>(), bytes, 0_u64..60), 0..40);
    (writes, vec(any::<prop::sample::Index>(), 0..120), vec(1_usize..11, 1..20))
        .prop_map(|(writes, order, receives)| Case { writes, order, receives })
}

/// Everything that a real outbox sends for these writes.
fn frames(id: &DeploymentId, keys: &Keys, writes: &[(bool, Vec<u8>, u64)]) -> Vec<Arc<Frame>> {
    let mut now = Duration::ZERO;
    let mut outbox = Outbox::new(id.clone(), now, keys.clone(), MemorySpool::default());
    let mut sent = Vec::new();
    let mut take = |outbox: &mut Outbox<Keys, MemorySpool>, now| {
        while outbox.poll_frame(now).is_some() {}
        while let Some(batch) = outbox.poll_batch(now) {
            let seqs: Vec<u64> = batch.frames.iter().map(|frame| frame.seq).collect();
            outbox.handle_result(now, batch.number, &seqs);
            sent.extend(batch.frames);
        }
    };
    let deadline = Timestamp::from_unix(86_400);
    outbox.say(now, RunnerKind::Started { task_arn: "task".into(), steps: vec!["only".into()], deadline, grace: 120 });
    for (err, bytes, pause) in writes {
        outbox.push(now, if *err { Stream::Stderr } else { Stream::Stdout }, bytes);
        take(&mut outbox, now);
        now += Duration::from_millis(*pause);
    }
    outbox.finish(now, Finish::of(Outcome::Exited { code: 37, signal: None }));
    while !outbox.is_done() {
        take(&mut outbox, now);
        now += Duration::from_millis(1);
    }
    sent
}

/// The messages in the order in which they arrive: first as the case says, then all that have not
/// arrived yet.
fn arrivals(frames: &[Arc<Frame>], order: &[prop::sample::Index]) -> Vec<Arc<Frame>> {
    let mut places: Vec<usize> = order.iter().map(|index| index.index(frames.len())).collect();
    let there: BTreeSet<usize> = places.iter().copied().collect();
    places.extend((0..frames.len()).filter(|place| !there.contains(place)));
    places.into_iter().map(|place| frames[place].clone()).collect()
}

proptest! {
    // clause: FRM-7, FRM-8, FRM-11, FRM-13
    #[test]
    fn the_reader_makes_of_it_what_a_sort_does(case in case()) {
        let id = DeploymentId::new(0, [3; 10]);
        let request = Digest::of(b"request");
        let keys = Keys::new(&id, request);
        let frames = frames(&id, &keys, &case.writes);
        let arrivals = arrivals(&frames, &case.order);
        let authenticator = Authenticator::new(published(&id, request), keys.pins(), Toy);
        let mut reader = Inbox::new(authenticator, Start::Fresh, Timeouts::default(), Duration::ZERO, Timestamp::from_unix(0));
        let mut printed: Vec<(Stream, u8)> = Vec::new();
        let mut deleted: BTreeSet<u64> = BTreeSet::new();
        let (mut rest, mut token) = (arrivals.as_slice(), 0);
        for receive in case.receives.iter().cycle() {
            let batch;
            (batch, rest) = rest.split_at((*receive).min(rest.len()));
            for frame in batch {
                reader.handle(Duration::ZERO, token, frame.signed.clone());
                token += 1;
            }
            while let Some(event) = reader.poll_event() {
                if let Event::Output(chunks) = event {
                    printed.extend(chunks.into_iter().flat_map(|chunk| chunk.bytes.into_iter().map(move |byte| (chunk.stream, byte))));
                }
            }
            if let Some(mark) = reader.polled() {
                reader.written(mark);
            }
            deleted.extend(reader.take_deletable());
            // Everything before the first hole is printed, and only the messages of those frames
            // may be deleted.
            let came = &arrivals[..arrivals.len() - rest.len()];
            let had: BTreeSet<u64> = came.iter().map(|frame| frame.seq).collect();
            let hole = (0..).find(|seq| !had.contains(seq)).unwrap_or_default();
            let whole: Vec<Arc<Frame>> = came.iter().filter(|frame| frame.seq < hole).cloned().collect();
            prop_assert_eq!(&printed, &reference(&whole));
            let may_go: BTreeSet<u64> = (0..).zip(came).filter(|(_, frame)| frame.seq < hole).map(|(token, _)| token).collect();
            prop_assert_eq!(&deleted, &may_go);
            if rest.is_empty() {
                break;
            }
        }
        let written: Vec<(Stream, u8)> = case.writes.iter().flat_map(|(err, bytes, _)| {
            let stream = if *err { Stream::Stderr } else { Stream::Stdout };
            bytes.iter().map(move |byte| (stream, *byte))
        }).collect();
        // The order between the streams is that of the reads, while one process does them.
        prop_assert_eq!(printed, written);
        let verified = matches!(reader.poll_end(), Some(End::Finished { verified: true, .. }));
        prop_assert!(verified, "{:?}", reader.poll_end());
    }
}
