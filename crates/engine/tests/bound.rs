//! The whole wait has a bound that follows from the timeouts ([`Timeouts::bound`]). Here everybody
//! does their worst in virtual time: each message arrives one millisecond before the clock that
//! waits for it runs out, and the test tries all orders of the messages that can delay an end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod toy;

use std::time::Duration;

use proptest::prelude::*;
use relay_engine::{Authenticator, Inbox, Seal as _, Start, Timeouts};
use relay_protocol::frame::{Finished, LauncherFrame, LauncherKind, RunnerFrame, RunnerKind};
use relay_protocol::outcome::{Outcome, Reason};
use relay_protocol::record::StreamDigest;
use relay_protocol::{DeploymentId, Digest, SignedFrame, Timestamp};
use toy::{Keys, Toy, published};

const MS: Duration = Duration::from_millis(1);

/// Something that can arrive or happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Admitted,
    /// The runner's first frame.
    Started,
    /// The next frame in order.
    Alive,
    /// A frame after a gap.
    Ahead,
    /// The last frame, behind a gap that never closes.
    Finished,
    /// ECS reports that the task has stopped, after its container ran.
    Stopped,
    /// The last runner frame, repeated.
    Again,
    /// SQS has been unreachable since the last message.
    Unreachable,
}

const WORDS: [Word; 8] = [
    Word::Admitted,
    Word::Started,
    Word::Alive,
    Word::Ahead,
    Word::Finished,
    Word::Stopped,
    Word::Again,
    Word::Unreachable,
];

/// A deployment, seen by the senders of its frames.
struct Stage {
    reader: Inbox<Toy>,
    id: DeploymentId,
    request: Digest,
    keys: Keys,
    run: Duration,
    now: Duration,
    token: u64,
    next: u64,
    ahead: u64,
    last: Option<SignedFrame>,
}

impl Stage {
    fn new(timeouts: Timeouts, run: Duration) -> Self {
        let (id, request) = (DeploymentId::new(1, [3; 10]), Digest::of(b"request"));
        let keys = Keys::new(&id, request);
        let authenticator = Authenticator::new(published(&id, request), keys.pins(), Toy);
        let reader = Inbox::new(authenticator, Start::Fresh, timeouts, Duration::ZERO, Timestamp::from_unix(0));
        let (now, next) = (Duration::ZERO, 0);
        Self { reader, id, request, keys, run, now, token: 0, next, ahead: 1_000, last: None }
    }

    fn handle(&mut self, raw: SignedFrame) {
        self.token += 1;
        self.reader.handle(self.now, self.token, raw);
    }

    fn launcher(&mut self, kind: LauncherKind) {
        let raw = self.keys.launcher(&LauncherFrame { deployment_id: self.id.clone(), kind });
        self.handle(raw);
    }

    fn runner(&mut self, seq: u64, kind: RunnerKind) {
        let body = RunnerFrame { deployment_id: self.id.clone(), seq, kind }.to_body();
        let raw = self.keys.seal(body, true);
        self.last = Some(raw.clone());
        self.handle(raw);
    }

    fn say(&mut self, word: Word, waited: Duration) {
        let wall = |at: Duration| Timestamp::from_unix(i64::try_from(at.as_secs()).unwrap());
        match word {
            Word::Admitted => self.launcher(LauncherKind::Admitted {
                request_digest: self.request,
                task_arn: "task".into(),
                deadline: wall(self.now + self.run),
                policies: Vec::new(),
            }),
            Word::Started if self.next == 0 => {
                let deadline = wall(self.now + self.run);
                self.next = 1;
                self.runner(
                    0,
                    RunnerKind::Started { task_arn: "task".into(), steps: Vec::new(), deadline, grace: 120 },
                );
            }
            Word::Started => {}
            Word::Alive => {
                // Before `started`, this frame arrives early.
                self.next = self.next.max(1) + 1;
                self.runner(self.next - 1, RunnerKind::Heartbeat { elapsed_ms: 1 });
            }
            Word::Ahead => {
                self.ahead += 2;
                self.runner(self.ahead, RunnerKind::Heartbeat { elapsed_ms: 1 });
            }
            Word::Finished => {
                let nothing = StreamDigest { bytes: 0, sha256: Digest::of(b"") };
                let finished = Finished {
                    outcome: Outcome::Exited { code: 0, signal: None },
                    step: None,
                    frames: 1_000_001,
                    stdout: nothing,
                    stderr: nothing,
                    outputs: std::collections::BTreeMap::new(),
                    record_sha256: nothing.sha256,
                    record: None,
                    record_problem: None,
                };
                self.runner(1_000_000, RunnerKind::Finished(Box::new(finished)));
            }
            Word::Stopped => self.launcher(LauncherKind::Task {
                request_digest: self.request,
                task_arn: "task".into(),
                state: "STOPPED".into(),
                reason: Some(Reason::Lost),
                stop_code: None,
                stopped_reason: None,
                exit_code: None,
            }),
            Word::Again => {
                if let Some(raw) = self.last.clone() {
                    self.handle(raw);
                }
            }
            Word::Unreachable => self.reader.handle_unreachable(waited),
        }
    }

    fn settle(&mut self) -> bool {
        while self.reader.poll_event().is_some() {}
        self.reader.poll_end().is_some()
    }

    /// Plays all `words`, each `early` before the clock that then runs would end the wait, and then
    /// nothing more. Returns when the wait ended.
    fn play(mut self, words: impl IntoIterator<Item = (Word, Duration)>) -> Duration {
        for (word, early) in words {
            let Some(due) = self.reader.poll_timeout() else { return self.now };
            let before = self.now;
            self.now = due.saturating_sub(early).max(self.now);
            self.reader.handle_timeout(self.now);
            self.say(word, self.now - before);
            if self.settle() {
                return self.now;
            }
        }
        // Nothing more arrives: the timeouts alone must end the wait.
        while !self.settle() {
            self.now = self.reader.poll_timeout().expect("a timeout is pending while there is no end").max(self.now);
            self.reader.handle_timeout(self.now);
        }
        self.now
    }
}

fn timeouts(minutes: [u64; 5]) -> Timeouts {
    let [admission, start, silence, drain, outage] = minutes.map(|minutes| Duration::from_secs(60 * minutes));
    Timeouts { admission, start, silence, drain, outage }
}

/// Every order of up to five messages, after nothing, after the admission and after the start.
#[test]
fn no_order_of_words_passes_the_bound() {
    // The silence timeout is longer than the run, because five messages would otherwise not reach
    // the run's end. With a drain timeout that is long compared to the limit on all draining, three
    // frames that trickle in would exceed the bound if that limit failed.
    let run = Duration::from_secs(3_600);
    for timeouts in [timeouts([5, 15, 600, 1, 15]), timeouts([5, 15, 600, 40, 15])] {
        let bound = timeouts.bound(run);
        let mut longest = Duration::ZERO;
        for before in [&[][..], &[Word::Admitted], &[Word::Admitted, Word::Started]] {
            for number in 0..8_usize.pow(5) {
                let words = (0..5).map(|place| WORDS[number / 8_usize.pow(place) % 8]);
                let words: Vec<Word> = before.iter().copied().chain(words).collect();
                let ended = Stage::new(timeouts, run).play(words.iter().map(|word| (*word, MS)));
                assert!(ended <= bound, "{words:?} took {ended:?}, the bound is {bound:?}");
                longest = longest.max(ended);
            }
        }
        // The bound is close to what can happen: a figure that is only safe would be of no use for
        // planning.
        assert!(longest * 2 > bound, "the longest is {longest:?}, the bound {bound:?}");
    }
}

proptest! {
    /// Long sequences of messages, any timeouts, any moments.
    #[test]
    fn no_deployment_passes_the_bound(
        minutes in proptest::array::uniform5(1_u64..90),
        run in 0_u64..100_000,
        words in proptest::collection::vec((proptest::sample::select(WORDS.to_vec()), 1_u64..120_000), 0..120),
    ) {
        let (timeouts, run) = (timeouts(minutes), Duration::from_secs(run));
        let ended = Stage::new(timeouts, run).play(words.iter().map(|(word, early)| (*word, Duration::from_millis(*early))));
        prop_assert!(ended <= timeouts.bound(run), "{ended:?} > {:?}", timeouts.bound(run));
    }
}

/// Time in which nobody listened does not count against the runner: its last frame may wait in the
/// queue.
#[test]
fn a_reader_whose_output_was_blocked_past_the_deadline_still_reads_the_end() {
    let run = Duration::from_secs(600);
    let mut stage = Stage::new(Timeouts::default(), run);
    stage.say(Word::Admitted, Duration::ZERO);
    stage.say(Word::Started, Duration::ZERO);
    assert!(!stage.settle());
    // A terminal that was stopped for an hour.
    let blocked = Duration::from_secs(3_600);
    stage.now += blocked;
    stage.reader.handle_stalled(blocked);
    stage.reader.handle_timeout(stage.now);
    assert!(!stage.settle(), "the reader made up an end: {:?}", stage.reader.poll_end());
}

#[test]
fn the_bound_is_the_sum_of_its_parts() {
    let all = timeouts([1, 2, 99, 4, 5]);
    // The silence timeout is not part of it: it only ends what would otherwise last until the
    // runner's own deadline.
    assert_eq!(all.bound(Duration::from_secs(600)), Duration::from_secs(60 * (1 + 2 + 10 + 5 + 60 + 4 + 5)));
    assert_eq!(all.bound(Duration::MAX), Duration::MAX);
}
