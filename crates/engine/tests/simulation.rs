//! Outbox and inbox on a virtual clock, with a small spool that refuses pieces, over a queue that
//! duplicates, reorders, delays, fails half a batch and loses answers, and into which strangers
//! write. In half of the schedules the reader dies and another joins late. No message may be
//! deleted before its bytes are written out: a reader that is killed relies on that. Each seed
//! gives one schedule; a failing seed prints the line that replays it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]
#![allow(clippy::disallowed_methods, reason = "the seed comes from the environment")]

mod toy;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use relay_engine::{Authenticator, End, Event, Finish, Inbox, MemorySpool, Outbox, Spool, Start, Timeouts};
use relay_protocol::encoding::base64;
use relay_protocol::frame::{FrameSource, Offsets, RunnerFrame, RunnerKind, Stream};
use relay_protocol::outcome::Outcome;
use relay_protocol::{DeploymentId, Digest, SignedFrame, Timestamp};

use crate::toy::{Keys, Toy, published, toy_sign};

/// How long a receive hides a message.
const VISIBILITY: Duration = Duration::from_secs(30);

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct World {
    rng: Rng,
    /// Whether a frame may be there twice. To a late reader that does not know what another has
    /// written out, a copy of a deleted frame would look like a gap where there is none.
    copies: bool,
    now: Duration,
    /// Messages in the queue: visible from, body. A receive hides a message for a while; only a
    /// delete removes it.
    queue: BTreeMap<u64, (Duration, SignedFrame)>,
    next_message: u64,
    /// Results of batches, on their way back: when, batch, what arrived.
    answers: Vec<(Duration, u64, Vec<u64>)>,
}

impl World {
    fn enqueue(&mut self, raw: SignedFrame) {
        let copies = if self.copies && self.rng.chance(20) { 2 } else { 1 };
        for _ in 0..copies {
            let at = self.now + Duration::from_millis(self.rng.below(400));
            self.queue.insert(self.next_message, (at, raw.clone()));
            self.next_message += 1;
        }
    }

    /// A random visible message, hidden for a while from now on.
    fn receive(&mut self) -> Option<(u64, SignedFrame)> {
        let visible: Vec<u64> = self.queue.iter().filter(|(_, (at, _))| *at <= self.now).map(|(id, _)| *id).collect();
        let id = *visible.get(usize::try_from(self.rng.below(visible.len().max(1) as u64)).unwrap())?;
        let (at, raw) = self.queue.get_mut(&id).unwrap();
        *at = self.now + VISIBILITY;
        Some((id, raw.clone()))
    }
}

/// How long the queue takes nothing, where it does so.
const OUTAGE: Duration = Duration::from_secs(5);

/// How often a schedule wrote to the spool, and how often the spool refused.
#[derive(Clone, Copy, Default)]
struct Used {
    puts: u32,
    refused: u32,
}

/// A spool of twenty pieces that refuses a piece now and then.
struct Disk {
    spool: MemorySpool,
    used: Rc<Cell<Used>>,
    /// The puts that it refuses, as a bit mask over 64 puts.
    refuses: u64,
}

impl Spool for Disk {
    fn has_room(&self) -> bool {
        self.spool.pieces() < 20
    }
    fn put(&mut self, piece: &[u8]) -> io::Result<()> {
        let Used { puts, refused } = self.used.get();
        let refuses = self.refuses >> ((puts + 1) % 64) & 1 == 1;
        self.used.set(Used { puts: puts + 1, refused: refused + u32::from(refuses) });
        if refuses {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.spool.put(piece)
    }
    fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.spool.take()
    }
    fn clear(&mut self) {
        self.spool.clear();
    }
}

#[derive(Default)]
struct Printed {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How many gaps were reported. Only what comes after the last one is kept.
    gaps: u32,
}

/// Returns up to where everything is printed, by this reader or by the one before it.
fn drain(reader: &mut Inbox<Toy>, printed: &mut Printed) -> Offsets {
    while let Some(event) = reader.poll_event() {
        match event {
            Event::Output(chunks) => {
                for chunk in chunks {
                    match chunk.stream {
                        Stream::Stdout => printed.stdout.extend(chunk.bytes),
                        Stream::Stderr => printed.stderr.extend(chunk.bytes),
                    }
                }
            }
            Event::Gap(_) => *printed = Printed { gaps: printed.gaps + 1, ..Printed::default() },
            _ => {}
        }
    }
    if let Some(mark) = reader.polled() {
        reader.written(mark);
    }
    reader.offset()
}

/// Whether all output of a genuine output frame has been printed. Any other message may always be
/// deleted.
fn is_written(raw: &SignedFrame, keys: &Keys, written: Offsets) -> bool {
    let true_sig = base64(&toy_sign(&keys.runner, &FrameSource::Runner.pae(&raw.body)));
    let Ok(RunnerFrame { kind: RunnerKind::Output(chunks), .. }) = RunnerFrame::parse(&raw.body) else { return true };
    let mut end = chunks.offset;
    for chunk in chunks.unfold().unwrap_or_default() {
        *end.of(chunk.stream) += chunk.bytes.len() as u64;
    }
    raw.sig != true_sig || (written.stdout >= end.stdout && written.stderr >= end.stderr)
}

/// Runs one schedule. An error says what went wrong.
#[allow(clippy::too_many_lines, reason = "one schedule reads best from top to bottom")]
fn run(seed: u64) -> Result<Used, String> {
    let id = DeploymentId::new(seed, [3; 10]);
    let request = Digest::of(b"request");
    let keys = Keys::new(&id, request);
    let mut world = World {
        rng: Rng(seed),
        copies: true,
        now: Duration::ZERO,
        queue: BTreeMap::new(),
        next_message: 0,
        answers: Vec::new(),
    };
    let used = Rc::new(Cell::new(Used::default()));
    let disk = Disk {
        used: Rc::clone(&used),
        spool: MemorySpool::default(),
        refuses: if seed.is_multiple_of(2) { 0 } else { seed },
    };
    let mut outbox = Outbox::new(id.clone(), world.now, keys.clone(), disk);
    let authenticator = Authenticator::new(published(&id, request), keys.pins(), Toy);
    let mut reader = Inbox::new(authenticator, Start::Fresh, Timeouts::default(), world.now, Timestamp::from_unix(0));
    let mut printed = Printed::default();
    let mut written = Offsets::default();
    // The output that the first reader had printed when it died.
    let mut before: Option<Printed> = None;
    let dies = world.rng.chance(50).then(|| Duration::from_millis(world.rng.below(2_000)));
    let tagged = world.rng.chance(50);
    world.copies = dies.is_none() || tagged;
    let mut truth = Printed::default();
    let deadline = Timestamp::from_unix(86_400);
    outbox.say(
        world.now,
        RunnerKind::Started { task_arn: "task".into(), steps: vec!["only".into()], deadline, grace: 120 },
    );
    // In a few schedules much is printed while the queue takes nothing, so the spool is needed.
    let is_long = matches!(seed % 40, 7 | 8);
    let outage = is_long.then(|| Duration::from_millis(world.rng.below(200)));
    let takes_nothing = |now: Duration| outage.is_some_and(|from| now >= from && now < from + OUTAGE);
    let writes = world.rng.below(60);
    let mut left = writes;
    let mut finished = false;
    for _ in 0..200_000 {
        // The tool writes now and then, from one byte to 300 KB, on either stream.
        if left > 0 && outbox.has_room() && world.rng.chance(30) {
            left -= 1;
            let size = usize::try_from(match world.rng.below(10) {
                _ if is_long => 100_000 + world.rng.below(200_000),
                0 => world.rng.below(300_000),
                1..=3 => world.rng.below(5_000),
                _ => world.rng.below(80),
            })
            .unwrap();
            let noisy = is_long || world.rng.chance(50);
            let bytes: Vec<u8> = (0..size)
                .map(|i| if noisy { world.rng.next().to_le_bytes()[0] } else { b"line of a log\n"[i % 14] })
                .collect();
            let stream = if world.rng.chance(60) { Stream::Stdout } else { Stream::Stderr };
            if stream == Stream::Stdout {
                truth.stdout.extend(&bytes)
            } else {
                truth.stderr.extend(&bytes)
            }
            outbox.push(world.now, stream, &bytes);
        }
        if left == 0 && !finished {
            finished = true;
            outbox.finish(world.now, Finish::of(Outcome::Exited { code: 37, signal: None }));
        }
        while outbox.poll_frame(world.now).is_some() {}
        while let Some(batch) = outbox.poll_batch(world.now) {
            // Each entry may fail. An entry that arrived may be reported as failed, because the
            // answer was lost, and is then sent twice.
            let mut arrived = Vec::new();
            for frame in &batch.frames {
                let effect = !world.rng.chance(15) && !takes_nothing(world.now);
                if effect {
                    world.enqueue(frame.signed.clone());
                }
                if effect && !(world.copies && world.rng.chance(10)) {
                    arrived.push(frame.seq);
                }
            }
            let back = world.now + Duration::from_millis(world.rng.below(100));
            world.answers.push((back, batch.number, arrived));
            while outbox.poll_frame(world.now).is_some() {}
        }
        // A stranger writes rubbish, replays an old frame, or alters a copy.
        if world.rng.chance(3) {
            let forged = world
                .queue
                .values()
                .next()
                .map(|(_, raw)| SignedFrame { body: raw.body.replace('l', "L"), ..raw.clone() });
            world.enqueue(forged.unwrap_or(SignedFrame {
                from: "runner".into(),
                sig: String::new(),
                vouch: None,
                body: "rubbish".into(),
            }));
        }
        let due: Vec<_> = world.answers.extract_if(.., |(at, ..)| *at <= world.now).collect();
        for (_, batch, arrived) in due {
            outbox.handle_result(world.now, batch, &arrived);
        }
        if before.is_none() && dies.is_some_and(|at| world.now >= at) {
            before = Some(std::mem::take(&mut printed));
            let authenticator = Authenticator::attaching(id.clone(), keys.pins(), Toy);
            let (now, today) = (world.now, Timestamp::from_unix(0));
            // A message may be on its way for half a second.
            let settle = VISIBILITY + Duration::from_secs(1);
            let (timeouts, acknowledged) = (Timeouts::default(), if tagged { reader.acknowledged() } else { 0 });
            let start = if tagged && world.rng.chance(50) {
                Start::Resume { acknowledged }
            } else {
                Start::Join { acknowledged, settle }
            };
            reader = Inbox::new(authenticator, start, timeouts, now, today);
        }
        for _ in 0..world.rng.below(4) {
            if let Some((message, raw)) = world.receive() {
                reader.handle(world.now, message, raw);
            }
        }
        if world.rng.chance(70) {
            let now = drain(&mut reader, &mut printed);
            written = Offsets { stdout: written.stdout.max(now.stdout), stderr: written.stderr.max(now.stderr) };
        }
        for message in reader.take_deletable() {
            if let Some((_, raw)) = world.queue.get(&message)
                && !is_written(raw, &keys, written)
            {
                return Err("a message was ready for deletion before its bytes were written".into());
            }
            if !world.rng.chance(10) {
                world.queue.remove(&message);
            }
        }
        reader.handle_timeout(world.now);
        if before.is_none() && !(truth.stdout.starts_with(&printed.stdout) && truth.stderr.starts_with(&printed.stderr))
        {
            return Err("the output is not a prefix of what the tool printed".into());
        }
        if let Some(end) = reader.poll_end() {
            // A late reader that knows nothing may take for a gap what the first reader printed and
            // deleted. It must then report the gap.
            let excused = before.is_some() && !tagged && printed.gaps > 0;
            let End::Finished { finished, verified, .. } = end else { return Err(format!("ended as {end:?}")) };
            if !verified && !excused {
                return Err(format!("not verified: {end:?}"));
            }
            if finished.outcome != (Outcome::Exited { code: 37, signal: None }) {
                return Err("the outcome is not the tool's own".into());
            }
            let before = before.unwrap_or_default();
            // From the beginning, or from no later than where the first reader ended; also after a
            // gap.
            let whole = |truth: &[u8], before: &[u8], printed: &[u8]| {
                truth.starts_with(before) && truth.ends_with(printed) && before.len() + printed.len() >= truth.len()
            };
            if !whole(&truth.stdout, &before.stdout, &printed.stdout)
                || !whole(&truth.stderr, &before.stderr, &printed.stderr)
            {
                return Err("the output differs".into());
            }
            return Ok(used.get());
        }
        world.now += Duration::from_millis(1 + world.rng.below(30));
    }
    Err("the reader did not end".into())
}

// clause: FRM-7, FRM-8, FRM-11, FRM-13, FRM-19
#[test]
fn a_thousand_schedules_are_byte_identical() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("RELAY_SEED");
    let count = number("RELAY_SEEDS").unwrap_or(if first.is_some() { 1 } else { 1_000 });
    let mut all = Used::default();
    for seed in first.unwrap_or(0)..first.unwrap_or(0) + count {
        match run(seed) {
            Ok(used) => all = Used { puts: all.puts + used.puts, refused: all.refused + used.refused },
            Err(wrong) => panic!("{wrong}; replay: RELAY_SEED={seed} cargo test -p relay-engine --test simulation"),
        }
    }
    let kept = all.puts - all.refused;
    assert!(first.is_some() || (kept > 100 && all.refused > 10), "the spool was used {kept} times");
}
