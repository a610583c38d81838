//! One step: a program in its own process group, both pipes read at once, stopped by signal, grace, the signal once more, and KILL of the group.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use relay_console::outlet::{Outlet, To};
use relay_policy::CancelRule;
use relay_protocol::frame::Stream;
use rustix::fs::{Gid, Uid, fchown};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::pump::Sink;
use crate::secrets::Secrets;
use crate::stop::{Stop, Stopper};

/// Bytes that are read from a pipe at a time: a pipe's own size.
const READ: usize = 64 * 1_024;

/// How long a pipe that a grandchild holds open is read after the step's program has ended.
const DRAIN: Duration = Duration::from_secs(5);

/// Bytes that are read of it after that: what the program itself had written lies in the pipe, which holds no more.
const LEFT: usize = 1_024 * 1_024;

/// How long what was read may wait, after the program's end, for the queue or the disk to take it; when the container is being stopped, how long
/// after that, as the last frame needs the rest.
const KEEP: (Duration, Duration) = (Duration::from_secs(30 * 60), Duration::from_secs(90));

/// The grace once the container itself is being stopped: Fargate kills it 120 s after SIGTERM, and the last frames need their time.
const TERMINATED_GRACE: Duration = Duration::from_secs(75);

/// Between the second signal and KILL: many tools leave at once on a second one, and still tidy up.
const LAST_CHANCE: Duration = Duration::from_secs(5);

/// What a step needs. It holds secrets, so it is not shown.
pub(crate) struct Running<'a> {
    pub(crate) argv: &'a [String],
    pub(crate) directory: &'a Path,
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) secrets: &'a Secrets,
    /// Another user than the runner's.
    pub(crate) user: Option<u32>,
    pub(crate) cancel: CancelRule,
    pub(crate) sink: &'a Sink,
    pub(crate) mirror: &'a Outlet,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The program's own code; 128+n when signal n ended it; 127 and 126 when it could not be started, as a shell says it.
    pub(crate) code: u8,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Who stopped it, if it did not end by itself.
    pub(crate) stopped: Option<Stop>,
}

impl Ended {
    fn of(status: ExitStatus, stopped: Option<Stop>) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = status.signal();
        let code = status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(255);
        Self { code: u8::try_from(code & 0xff).unwrap_or(255), signal, stopped }
    }
}

/// Runs a step to its end.
pub(crate) async fn run(step: &Running<'_>, stopper: &Stopper) -> Ended {
    let (mut child, pipes) = match spawn(step) {
        Ok(started) => started,
        Err(error) => {
            let program = step.argv.first().map(String::as_str).unwrap_or_default();
            let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
            step.sink.note(format!("cannot start `{program}`: {error}; it must be in the image, on the PATH of the target's configuration, and executable")).await;
            return Ended { code, signal: None, stopped: None };
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let closing = watch::Sender::new(None);
    let [stdout, stderr] = pipes;
    let readers = [
        tokio::spawn(read(stdout, Stream::Stdout, step, closing.subscribe(), stopper.clone())),
        tokio::spawn(read(stderr, Stream::Stderr, step, closing.subscribe(), stopper.clone())),
    ];
    let (status, stopped) = wait(&mut child, group, step.cancel, stopper).await;
    let ended = drain(readers, &closing).await;
    // Whatever the step left behind in its group ends with it.
    signal(group, Signal::KILL);
    match ended {
        Read::Whole => {}
        Read::LeftOpen => {
            let text = "a process that the step left behind kept its output open; relay stopped reading it after";
            step.sink.note(format!("{text} {} s", DRAIN.as_secs())).await;
        }
        Read::Dropped => {
            step.sink
                .note("the end of this step's output is missing: neither the reply queue nor the disk took it")
                .await;
        }
    }
    match status {
        Ok(status) => Ended::of(status, stopped),
        Err(_) => Ended { code: 255, signal: None, stopped },
    }
}

fn spawn(step: &Running<'_>) -> io::Result<(Child, [Receiver; 2])> {
    let (program, arguments) = step.argv.split_first().ok_or(ErrorKind::InvalidInput)?;
    let (stdout, stdout_end) = pipe(step.user)?;
    let (stderr, stderr_end) = pipe(step.user)?;
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
        // Its supplementary groups go as well: the standard library sees to that whenever root becomes somebody else.
        command.uid(user).gid(user);
    }
    // The command is dropped here, and with it our copies of the pipes' ends: else there would never be an end of output.
    Ok((command.spawn()?, [stdout, stderr]))
}

/// A pipe whose writing end is the tool's own, so that it can also open it anew, by `/dev/stderr`.
fn pipe(user: Option<u32>) -> io::Result<(Receiver, Stdio)> {
    let (reader, writer) = io::pipe()?;
    if let Some(id) = user {
        fchown(&writer, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    }
    Ok((Receiver::from_owned_fd(reader.into())?, writer.into()))
}

/// Waits for the end, and brings it about when somebody asks: the recipe's signal, its grace, the signal once more, and soon after that KILL,
/// always to the whole group (clause CTL-5). The container's own end shortens a grace that runs already.
async fn wait(
    child: &mut Child,
    group: Option<Pid>,
    cancel: CancelRule,
    stopper: &Stopper,
) -> (io::Result<ExitStatus>, Option<Stop>) {
    let why = tokio::select! {
        status = child.wait() => return (status, None),
        why = stopper.wait() => why,
    };
    let polite = match cancel.signal {
        relay_policy::CancelSignal::Int => Signal::INT,
        relay_policy::CancelSignal::Term => Signal::TERM,
    };
    signal(group, polite);
    tokio::select! {
        status = child.wait() => return (status, Some(why)),
        () = tokio::time::sleep(cancel.grace) => {}
        () = stopper.terminated_for(TERMINATED_GRACE) => {}
    }
    signal(group, polite);
    if let Ok(status) = tokio::time::timeout(LAST_CHANCE, child.wait()).await {
        return (status, Some(why));
    }
    signal(group, Signal::KILL);
    (child.wait().await, Some(why))
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // A group that is gone already is what was wanted.
        let _ = kill_process_group(group, signal);
    }
}

/// How the reading of a pipe ended; the worst comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    /// At its end.
    Whole,
    /// Somebody else held it open.
    LeftOpen,
    /// What was read found no room.
    Dropped,
}

type Reader = tokio::task::JoinHandle<Read>;

/// Waits for both ends of output; after a while whoever still holds a pipe is not waited for any more, but what was written is read.
async fn drain(mut readers: [Reader; 2], closing: &watch::Sender<Option<Instant>>) -> Read {
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

/// Returns when what was read is given up: the step's program is long over, and nobody takes it.
async fn given_up(mut closing: watch::Receiver<Option<Instant>>, stopper: &Stopper) {
    // The sender lives as long as anybody reads.
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
    let mut masker = step.secrets.masker();
    async move {
        let mut buffer = vec![0; READ];
        let (mut ended, mut left) = (Read::Whole, LEFT);
        loop {
            let read = tokio::select! {
                biased;
                // What is in the pipe already comes first.
                read = pipe.read(&mut buffer) => read,
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
            let shown = masker.push(buffer.get(..count).unwrap_or_default());
            // The pump may be full for as long as SQS takes nothing: then the tool waits, and its end too.
            tokio::select! {
                () = show(&sink, &mirror, stream, shown) => {}
                () = given_up(closing.clone(), &stopper) => return Read::Dropped,
            }
        }
        tokio::select! {
            () = show(&sink, &mirror, stream, masker.finish()) => ended,
            () = given_up(closing.clone(), &stopper) => Read::Dropped,
        }
    }
}

async fn show(sink: &Sink, mirror: &Outlet, stream: Stream, bytes: Vec<u8>) {
    if !bytes.is_empty() {
        let copy = bytes.clone();
        sink.output(stream, bytes).await;
        // Somebody waits for the frame, and nobody for the log: that comes when the frame is on its way.
        tokio::task::yield_now().await;
        mirror.put(if stream == Stream::Stdout { To::Stdout } else { To::Stderr }, copy);
    }
}
