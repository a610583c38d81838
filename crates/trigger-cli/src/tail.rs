//! The tail: passes what the reply queue delivers through the inbox to the terminal, and turns
//! signals and timeouts into a cancel.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use relay_engine::{End, Event, Inbox, Mark, Unfit};
use relay_protocol::frame::LauncherKind;
use relay_protocol::keys::Cached;
use relay_protocol::outcome::ExitCode;
use serde_json::json;

use crate::args::OnInterrupt;
use crate::cancel::Canceller;
use crate::clock::Clock;
use crate::follower::Follower;
use crate::progress::Progress;
use crate::settings::PIN_HINT;
use crate::show::Show;
use crate::signals::{Asked, Signals};
use crate::tags::TagWriter;

/// A signal that comes this soon after the first is the same one: `timeout` and some CI systems
/// signal both the process and its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// How long the last write of the tags may take, because a second signal means hurry.
const LAST_TAGS: Duration = Duration::from_secs(1);

/// The longest wait of the tail.
const TICK: Duration = Duration::from_secs(1);

/// Two looks at the clock that are further apart show that this process was suspended.
const SUSPENDED: Duration = TICK.saturating_mul(2);

/// How long to tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until the deployment ends.
    End,
    /// Until there is a task. Its output is left in the queue.
    Admitted,
}

/// When this command asks the deployment to stop, and what it does on a signal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The time after which it asks, measured from the start of the tail.
    pub(crate) timeout: Option<Duration>,
    /// What a signal does.
    pub(crate) on_interrupt: OnInterrupt,
    /// How long nothing may be printed before a line says that the deployment is alive. Zero means
    /// forever.
    pub(crate) heartbeat: Duration,
    /// How long a stream of this command may take nothing before it counts as closed: in general,
    /// and once the deployment was asked to stop or has ended.
    pub(crate) stuck: (Duration, Duration),
}

/// One deployment that this command follows.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) inbox: Inbox<Cached>,
    pub(crate) follower: Follower,
    pub(crate) tags: TagWriter,
    pub(crate) canceller: Canceller,
    pub(crate) progress: Progress,
    pub(crate) clock: Clock,
    /// What was handed to the terminal or pipe, and is not known to be written: the number of its
    /// last piece, and what the inbox may forget then.
    pub(crate) printing: VecDeque<(u64, Mark)>,
    /// The key that the user was told a pin does not fit.
    pub(crate) unfit: Option<Unfit>,
}

/// Why the deployment was asked to stop, and when.
#[derive(Clone, Copy, Debug)]
struct Stopping {
    asked: Asked,
    at: Instant,
}

impl Stopping {
    /// Whether a second signal is only the first one, sent twice.
    fn is_repeated(self) -> bool {
        self.asked.is_signal() && self.at.elapsed() < SAME_SIGNAL
    }
}

impl Tail {
    /// Tails until the end, or until `until` is reached. Returns why this command itself asked for
    /// an end: a signal or its timeout.
    pub(crate) async fn run(
        &mut self,
        show: &mut Show,
        signals: &mut Signals,
        patience: Patience,
        until: Until,
    ) -> Option<ExitCode> {
        let mut stopping: Option<Stopping> = None;
        let began = Instant::now();
        let mut looked = self.clock.elapsed();
        loop {
            let left = patience.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(began.elapsed()));
            let left = if stopping.is_some() { Duration::MAX } else { left };
            let has_room = show.has_room();
            let asked = self.wait(show, signals, left, has_room).await;
            let passed = self.clock.elapsed().saturating_sub(looked);
            looked += passed;
            // Either this command's own reader did not keep up, or this process was suspended
            // somewhere in this loop, perhaps with its CI agent. The silence is not the runner's.
            if !has_room || passed > SUSPENDED {
                self.inbox.handle_stalled(passed);
            }
            match (asked, stopping) {
                (None, _) => {}
                (Some(_), Some(stopping)) if stopping.is_repeated() => {}
                (Some(asked), _) if self.leaves_at(asked, stopping.is_some(), patience) => {
                    self.leave().await;
                    return Some(stopping.map_or(asked, |stopping| stopping.asked).code);
                }
                (Some(asked), _) => {
                    stopping = Some(Stopping { asked, at: Instant::now() });
                    self.canceller.cancel(asked, self.progress.after_cancel());
                }
            }
            if until == Until::Admitted && stopping.is_none() && self.inbox.task_arn().is_some() {
                // No output of the runner was written out, so none is deleted: it is left for
                // `relay attach`.
                self.leave().await;
                return None;
            }
            self.write_out(show);
            // Not a later time: a suspension since then shows at the next look.
            self.inbox.handle_timeout(looked);
            self.write_out(show);
            self.look_after(show, patience, stopping.is_some());
            if self.inbox.poll_end().is_some() && self.is_printed(show) {
                break;
            }
        }
        self.follower.stop();
        // The queue is deleted next, or kept because the outcome is unknown. If it is kept, printed
        // output must not come again.
        self.follower.delete(&mut self.inbox, true);
        self.follower.deleted().await;
        self.leave().await;
        stopping.map(|stopping| stopping.asked.code)
    }

    /// Whether this command ends now because it is asked to stop: at a second signal, if a signal
    /// shall not stop the deployment, or if the deployment has ended and only its output is left.
    fn leaves_at(&self, asked: Asked, again: bool, patience: Patience) -> bool {
        let detaches = asked.is_signal() && patience.on_interrupt == OnInterrupt::Detach;
        again || detaches || (asked.is_signal() && self.inbox.poll_end().is_some())
    }

    /// Does what is due beside the output.
    fn look_after(&mut self, show: &mut Show, patience: Patience, stopping: bool) {
        if !patience.heartbeat.is_zero() && show.silent_for() >= patience.heartbeat {
            show.alive(&self.progress.at_work(self.clock.elapsed()));
        }
        let over = stopping || self.inbox.poll_end().is_some();
        if show.stuck_for() > if over { patience.stuck.1 } else { patience.stuck.0 } {
            show.abandon();
        }
        show.handle_timeout();
        self.warn_unfit(show);
        if self.inbox.poll_end().is_none() {
            self.canceller.repeat();
        }
        self.follower.delete(&mut self.inbox, false);
        self.tags.write(&self.inbox, false);
    }

    /// Waits until something happens, for at most a tick. Returns a wish to stop if a signal comes
    /// or `left` has passed.
    async fn wait(&mut self, show: &mut Show, signals: &mut Signals, left: Duration, has_room: bool) -> Option<Asked> {
        let before = self.clock.elapsed();
        let due = [self.inbox.poll_timeout(), show.poll_timeout()].into_iter().flatten();
        let due = due.map(|at| at.saturating_sub(before)).fold(TICK, Duration::min);
        tokio::select! {
            // A reader that does not keep up is not given more.
            answer = self.follower.next(), if has_room => {
                if let Some(answer) = answer {
                    self.follower.take(answer, &mut self.inbox);
                }
                None
            }
            said = self.canceller.next() => {
                said.iter().for_each(|line| show.warn(line));
                None
            }
            () = show.progress() => None,
            () = tokio::time::sleep(due) => None,
            asked = signals.next() => Some(asked),
            () = tokio::time::sleep(left) => Some(Asked::TIMEOUT),
        }
    }

    /// Warns once if an answer came that a pin does not fit. Reading goes on: a stranger could have
    /// made that answer.
    fn warn_unfit(&mut self, show: &mut Show) {
        if let Some(unfit) = self.inbox.unfit().filter(|unfit| self.unfit != Some(*unfit)) {
            self.unfit = Some(unfit);
            let (who, key) = match unfit {
                Unfit::Target => ("a runner", "target key"),
                Unfit::Answer => ("the launcher", "answer key"),
            };
            show.warn(&format!("{who} has answered, but the pinned {key} does not fit the answer: if the pin is wrong, the deployment may be running, and relay cannot show it"));
            show.hint(PIN_HINT);
        }
    }

    /// Stops receiving, and leaves a position in the tags from which the next reader can continue.
    async fn leave(&mut self) {
        self.follower.stop();
        if matches!(self.inbox.poll_end(), None | Some(End::Silent { .. } | End::Stopped { .. })) {
            self.tags.write(&self.inbox, true);
            self.follower.delete(&mut self.inbox, true);
            let last = async {
                self.tags.written().await;
                self.follower.deleted().await;
            };
            let _ = tokio::time::timeout(LAST_TAGS, last).await;
        }
    }

    /// Hands out what has come, as far as there is room, and notes what is written.
    fn write_out(&mut self, show: &mut Show) {
        while show.has_room()
            && let Some(event) = self.inbox.poll_event()
        {
            if self.progress.fold(&event, self.clock.elapsed()) {
                self.show(event, show);
            }
        }
        if let (Some(mark), Some(piece)) = (self.inbox.polled(), show.handed_out())
            && self.printing.back().is_none_or(|(_, last)| *last != mark)
        {
            self.printing.push_back((piece, mark));
        }
        let written = show.written();
        while let Some((_, mark)) = self.printing.pop_front_if(|(piece, _)| *piece <= written) {
            self.inbox.written(mark);
        }
    }

    /// Whether everything that the deployment printed is written.
    fn is_printed(&mut self, show: &mut Show) -> bool {
        show.finish();
        self.write_out(show);
        self.printing.is_empty() && self.inbox.polled().is_some()
    }

    /// Whether something that the deployment printed was not written before this command left.
    pub(crate) fn is_cut_off(&self) -> bool {
        !self.printing.is_empty() || self.inbox.polled().is_none()
    }

    fn show(&self, event: Event, show: &mut Show) {
        match event {
            Event::Output(chunks) => show.output(chunks),
            Event::Launcher(LauncherKind::Admitted { task_arn, policies, .. }) => {
                let by = if policies.is_empty() { String::new() } else { format!("by {}", policies.join(", ")) };
                show.event("admitted", &by, json!({ "task_arn": task_arn, "policies": policies }));
            }
            Event::Launcher(LauncherKind::Task { state, .. }) => {
                show.event("task", &state.to_lowercase(), json!({}));
            }
            // These end the deployment, and are reported there.
            Event::Launcher(_) => {}
            Event::Started { steps, task_arn, .. } => {
                show.event("running", "", json!({ "task_arn": task_arn, "steps": steps }));
            }
            Event::Step { index, name, rollback } => {
                // A rollback does not announce how many steps it has.
                let number = index.saturating_add(1);
                let (kind, of) = if rollback { ("rollback", None) } else { ("step", self.progress.steps()) };
                show.step(kind, number, of, &name);
            }
            Event::Note(text) => show.say(&text),
            Event::Gap(missing) => {
                let or = if self.inbox.came_late() { ", or an earlier call has shown them" } else { "" };
                show.warn(&format!("GAP in the output: {} frames never arrived or were damaged{or}", missing.frames));
            }
        }
    }
}
