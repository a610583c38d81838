//! Runs one step: a program in its own process group, with both pipes read concurrently. A stop
//! sends the signal, waits for the grace, sends the signal once more, and then sends KILL. When the
//! program has ended, everything that it left behind is ended too.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, PipeWriter};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use relay_console::outlet::{Outlet, To};
use relay_policy::{CancelRule, CancelSignal, CancelTo, OutputRule};
use relay_protocol::frame::Stream;
use relay_protocol::limits::SAVED_TEXT_MAX;
use rustix::fs::{Gid, Uid, fchown};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::leftovers;
use crate::pump::Sink;
use crate::secrets::Secrets;
use crate::stop::{Stop, Stopper};
use crate::unstarted;

/// Bytes read from a pipe at a time: the capacity of a pipe.
const READ: usize = 64 * 1_024;

/// How long to go on reading after the step's program has ended, if another process still holds the
/// pipe open.
const DRAIN: Duration = Duration::from_secs(5);

/// Bytes still read from such a pipe after that. The pipe holds no more, so this covers everything
/// that the program itself had written.
const LEFT: usize = 1_024 * 1_024;

/// How long output may wait for the queue or the disk after the program's end. The second value
/// applies while the container is being stopped and counts from its SIGTERM; the last frame needs
/// the remaining time.
const KEEP: (Duration, Duration) = (Duration::from_secs(30 * 60), Duration::from_secs(90));

/// The longest grace once the container itself is being stopped. Fargate kills it 120 s after
/// SIGTERM, and the last frames need their time.
const TERMINATED_GRACE: Duration = Duration::from_secs(75);

/// How often adopted processes that have ended are reaped.
const REAP: Duration = Duration::from_secs(30);

/// Pause between the second signal and KILL. Many tools exit immediately on a second signal, but
/// still clean up.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// The inputs of a step. They contain secrets, so the type has no `Debug`.
pub(crate) struct Running<'a> {
    pub(crate) argv: &'a [String],
    pub(crate) directory: &'a Path,
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) secrets: &'a Secrets,
    /// The tool's user id, if it is not the runner's.
    pub(crate) user: Option<u32>,
    pub(crate) cancel: CancelRule,
    pub(crate) output: OutputRule,
    pub(crate) sink: &'a Sink,
    pub(crate) mirror: &'a Outlet,
    /// Takes the stdout of the step too, if it is to be saved.
    pub(crate) text: Option<&'a Text>,
}

/// The stdout of a step, masked, for approvers to read.
/// `None` once it is not whole.
#[derive(Clone, Debug)]
pub(crate) struct Text(Arc<Mutex<Option<Vec<u8>>>>);

impl Text {
    /// Nothing was read yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    /// Takes what was read, unless it is more than may be saved.
    fn push(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match kept.as_mut() {
            Some(kept) if kept.len() + bytes.len() <= SAVED_TEXT_MAX => kept.extend_from_slice(bytes),
            _ => *kept = None,
        }
    }

    /// The whole text; `None` if it is longer than may be saved, or was not read to its end.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The program's exit code; 128+n if signal n ended it. As in a shell, 127 if the program was
    /// not found, and 126 if it could not be started for another reason.
    pub(crate) code: u8,
    /// The signal that ended the program.
    pub(crate) signal: Option<i32>,
    /// Why the step was stopped, if it did not end by itself.
    pub(crate) stopped: Option<Stop>,
    /// Whether something of the step is still running, although all was done to end it.
    pub(crate) remains: bool,
}

impl Ended {
    /// A step that ended with this code by itself.
    pub(crate) fn with(code: u8) -> Self {
        Self { code, signal: None, stopped: None, remains: false }
    }

    fn of(status: ExitStatus, stopped: Option<Stop>) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = status.signal();
        let code = status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(255);
        Self { signal, stopped, ..Self::with(u8::try_from(code & 0xff).unwrap_or(255)) }
    }
}

/// Runs a step to its end.
pub(crate) async fn run(step: &Running<'_>, stopper: &Stopper) -> Ended {
    let (mut child, pipes) = match spawn(step) {
        Ok(started) => started,
        Err(error) => {
            let program = step.argv.first().map(String::as_str).unwrap_or_default();
            let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
            let path = step.environment.get("PATH").map(String::as_str).unwrap_or_default();
            let why = unstarted::why(program, path, step.directory, step.user, &error);
            step.sink.note(format!("cannot start `{program}`: {why}")).await;
            return Ended::with(code);
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let closing = watch::Sender::new(None);
    let readers =
        pipes.into_iter().map(|(stream, pipe)| read(pipe, stream, step, closing.subscribe(), stopper.clone()));
    let readers = readers.map(tokio::spawn).collect();
    let (status, stopped) = wait(&mut child, group, step.cancel, stopper).await;
    let ended = drain(readers, &closing).await;
    let left = leftovers::end_all(step.user).await;
    if let Err(problem) = &left {
        step.sink.note(format!("cannot end everything that the step has left behind: {problem}")).await;
    }
    if ended != Read::Whole {
        // An approver must not take a part for the whole.
        step.text.and_then(Text::take);
    }
    match ended {
        Read::Whole => {}
        Read::LeftOpen => {
            let text = "a process that the step left behind kept its output open; relay stopped reading it after";
            step.sink.note(format!("{text} {} s", DRAIN.as_secs())).await;
        }
        Read::Dropped => {
            step.sink
                .note("the end of this step's output is missing: neither the reply queue nor the disk accepted it")
                .await;
        }
    }
    let ended = status.map_or(Ended { stopped, ..Ended::with(255) }, |status| Ended::of(status, stopped));
    Ended { remains: left.is_err(), ..ended }
}

/// The reading ends of a step's output: one, or one for each stream.
type Pipes = Vec<(Stream, Receiver)>;

fn spawn(step: &Running<'_>) -> io::Result<(Child, Pipes)> {
    let (program, arguments) = step.argv.split_first().ok_or(ErrorKind::InvalidInput)?;
    let (stdout, stdout_end) = pipe(step.user)?;
    let mut pipes = vec![(Stream::Stdout, stdout)];
    let stderr_end = match step.output {
        OutputRule::Merged => stdout_end.try_clone()?,
        OutputRule::Separate => {
            let (stderr, stderr_end) = pipe(step.user)?;
            pipes.push((Stream::Stderr, stderr));
            stderr_end
        }
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(step.environment)
        .current_dir(step.directory)
        .stdin(Stdio::null())
        .stdout(stdout_end)
        .stderr(stderr_end)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(user) = step.user {
        // The standard library also drops the supplementary groups when root becomes another user.
        command.uid(user).gid(user);
    }
    // Dropping the command closes our copies of the writing ends. Otherwise the output would never
    // end.
    Ok((command.spawn()?, pipes))
}

/// A pipe whose writing end belongs to the tool's user, so that the tool can reopen it through
/// `/dev/stderr`.
fn pipe(user: Option<u32>) -> io::Result<(Receiver, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    if let Some(id) = user {
        fchown(&writer, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    }
    Ok((Receiver::from_owned_fd(reader.into())?, writer))
}

/// Waits for the program's end, and causes it when a stop is requested. The program, or its whole
/// group as the recipe says, gets the recipe's signal, its grace, the signal once more, and soon
/// after that KILL (clause CTL-5). The container's own end shortens a grace that is already
/// running.
async fn wait(
    child: &mut Child,
    group: Option<Pid>,
    cancel: CancelRule,
    stopper: &Stopper,
) -> (io::Result<ExitStatus>, Option<Stop>) {
    let mut reaping = tokio::time::interval(REAP);
    let why = loop {
        tokio::select! {
            status = child.wait() => return (status, None),
            why = stopper.wait() => break why,
            _ = reaping.tick() => leftovers::reap(group),
        }
    };
    let polite = |group: Option<Pid>| {
        let signal = match cancel.signal {
            CancelSignal::Int => Signal::INT,
            CancelSignal::Term => Signal::TERM,
        };
        // Either may already be gone, which is the goal.
        let _ = match (group, cancel.to) {
            (Some(group), CancelTo::Group) => kill_process_group(group, signal),
            (Some(process), CancelTo::Process) => kill_process(process, signal),
            (None, _) => Ok(()),
        };
    };
    polite(group);
    tokio::select! {
        status = child.wait() => return (status, Some(why)),
        () = tokio::time::sleep(cancel.grace) => {}
        () = stopper.terminated_for(TERMINATED_GRACE) => {}
    }
    polite(group);
    if let Ok(status) = tokio::time::timeout(LAST_CHANCE, child.wait()).await {
        return (status, Some(why));
    }
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    (child.wait().await, Some(why))
}

/// How the reading of a pipe ended, from the best case to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    /// The pipe was read to its end.
    Whole,
    /// Another process held the pipe open.
    LeftOpen,
    /// Output that was read found no room, and was dropped.
    Dropped,
}

type Reader = tokio::task::JoinHandle<Read>;

/// Waits for the end of the pipes. After [`DRAIN`] it does not wait for other processes that still
/// hold a pipe, but everything already written is read.
async fn drain(mut readers: Vec<Reader>, closing: &watch::Sender<Option<Instant>>) -> Read {
    let deadline = Instant::now() + DRAIN;
    let mut worst = Read::Whole;
    for reader in &mut readers {
        let ended = match tokio::time::timeout_at(deadline, &mut *reader).await {
            Ok(ended) => ended,
            Err(_) => {
                closing.send_replace(Some(Instant::now()));
                reader.await
            }
        };
        worst = worst.max(ended.unwrap_or(Read::Dropped));
    }
    worst
}

/// Returns when waiting output should be dropped: the program ended long ago, and neither the queue
/// nor the disk accepts the output.
async fn given_up(mut closing: watch::Receiver<Option<Instant>>, stopper: &Stopper) {
    // The sender lives while any reader runs.
    let closed = closing.wait_for(Option::is_some).await.ok().and_then(|at| *at).unwrap_or_else(Instant::now);
    let (patience, stopping) = KEEP;
    tokio::select! {
        () = tokio::time::sleep_until(closed + patience) => {}
        () = stopper.terminated_for(stopping) => {}
    }
}

fn read(
    mut pipe: Receiver,
    stream: Stream,
    step: &Running<'_>,
    mut closing: watch::Receiver<Option<Instant>>,
    stopper: Stopper,
) -> impl Future<Output = Read> + Send + 'static {
    let (sink, mirror) = (step.sink.clone(), step.mirror.clone());
    let text = step.text.filter(|_| stream == Stream::Stdout).cloned();
    let keep = move |shown: Bytes| {
        text.iter().for_each(|text| text.push(&shown));
        shown
    };
    let mut masker = step.secrets.masker();
    async move {
        let mut buffer = BytesMut::new();
        let (mut ended, mut left) = (Read::Whole, LEFT);
        loop {
            // Queue and log share what was read; the room for the next read is new.
            buffer.reserve(READ);
            let read = tokio::select! {
                biased;
                // Data already in the pipe comes first.
                read = pipe.read_buf(&mut buffer) => read,
                _ = closing.wait_for(Option::is_some) => {
                    ended = Read::LeftOpen;
                    break;
                }
            };
            let Ok(count @ 1..) = read else { break };
            if closing.borrow().is_some() {
                left = left.saturating_sub(count);
                if left == 0 {
                    ended = Read::LeftOpen;
                    break;
                }
            }
            // A small piece must not keep the room of a large one from being used again.
            let piece = if count < READ / 2 { Bytes::copy_from_slice(&buffer) } else { buffer.split().freeze() };
            buffer.clear();
            let shown = keep(masker.push(piece));
            // The pump may be full while SQS accepts nothing. The tool then waits; if it has
            // already ended, the report of its end waits.
            tokio::select! {
                () = show(&sink, &mirror, stream, shown) => {}
                () = given_up(closing.clone(), &stopper) => return Read::Dropped,
            }
        }
        tokio::select! {
            () = show(&sink, &mirror, stream, keep(masker.finish())) => ended,
            () = given_up(closing.clone(), &stopper) => Read::Dropped,
        }
    }
}

async fn show(sink: &Sink, mirror: &Outlet, stream: Stream, bytes: Bytes) {
    if !bytes.is_empty() {
        let copy = bytes.clone();
        sink.output(stream, bytes).await;
        // The requester waits for the frame, but nobody waits for the log: let the frame go first.
        tokio::task::yield_now().await;
        mirror.offer(if stream == Stream::Stdout { To::Stdout } else { To::Stderr }, copy);
    }
}
