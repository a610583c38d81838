//! Output to stdout and stderr, which has one owner. Two threads write, one for each stream, so
//! that a reader who has stopped reading never blocks a program, nor its messages on the other
//! stream.
//!
//! A program that must not lose output uses [`Outlet::put`], and looks at [`Outlet::waiting`]
//! before it makes more. A program for which a log is less important than its work uses
//! [`Outlet::offer`], which drops what finds no room. Both streams keep the order in which their
//! pieces came, until one of them is stuck.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

/// How many bytes may wait before [`Outlet::offer`] drops more.
const OFFERED_MAX: usize = 8 * 1_024 * 1_024;

/// How long a stream waits for the earlier pieces of the other one, if that makes no progress.
const STUCK: Duration = Duration::from_millis(250);

/// Two questions of a caller of [`Outlet::stuck_for`] that are further apart show that this process
/// was suspended.
const SUSPENDED: Duration = Duration::from_secs(2);

/// The stream that a piece of output goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Standard output, file descriptor 1.
    Stdout,
    /// Standard error, file descriptor 2.
    Stderr,
}

impl To {
    fn other(self) -> Self {
        match self {
            Self::Stdout => Self::Stderr,
            Self::Stderr => Self::Stdout,
        }
    }
}

/// Writes all of `bytes` to a standard stream, and blocks until they are written.
///
/// # Errors
///
/// What the operating system reports, such as [`ErrorKind::BrokenPipe`] if the reader has gone.
pub fn write(to: To, bytes: &[u8]) -> io::Result<()> {
    match to {
        To::Stdout => relay_platform::stdout().write_all(bytes),
        To::Stderr => relay_platform::stderr().write_all(bytes),
    }
}

/// Writes all of `bytes`, and reports each part that was written.
fn write_all(stream: &mut impl Write, mut bytes: &[u8], mut moved: impl FnMut()) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or_default();
                moved();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Two threads that write. Clones share them.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many pieces were taken so far; the number of the last one.
    taken: u64,
    waiting: usize,
    dropped: u64,
    streams: [Stream; 2],
    /// When [`Outlet::stuck_for`] was last called.
    watched: Option<Instant>,
}

#[derive(Debug, Default)]
struct Stream {
    pieces: VecDeque<Piece>,
    /// When it last took bytes, or began to wait for that.
    moved: Option<Instant>,
    /// Why it takes no more.
    closed: Option<ErrorKind>,
}

/// A piece that waits. While it is being written it stays in its place, without its bytes.
#[derive(Debug)]
struct Piece {
    number: u64,
    size: usize,
    bytes: Bytes,
}

impl Stream {
    fn first(&self) -> Option<u64> {
        self.pieces.front().map(|piece| piece.number)
    }
}

impl Outlet {
    /// Starts the threads, which end with the process.
    pub fn start() -> Self {
        Self::over(relay_platform::stdout(), relay_platform::stderr())
    }

    fn over(stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Self {
        let outlet = Self(Arc::default());
        outlet.0.clone().serve(To::Stdout, stdout);
        outlet.0.clone().serve(To::Stderr, stderr);
        outlet
    }

    /// Takes `bytes` to be written, however many wait, and never blocks.
    pub fn put(&self, to: To, bytes: impl Into<Bytes>) {
        let mut state = self.0.lock();
        state.put(to, bytes.into());
        self.0.changed.notify_all();
    }

    /// Returns how many pieces were taken. This is also the number of the last one.
    pub fn taken(&self) -> u64 {
        self.0.lock().taken
    }

    /// Takes `bytes` to be written if there is room for them. Drops and counts them otherwise.
    pub fn offer(&self, to: To, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        let mut state = self.0.lock();
        if state.waiting.saturating_add(bytes.len()) > OFFERED_MAX {
            state.dropped = state.dropped.saturating_add(bytes.len() as u64);
            return;
        }
        state.put(to, bytes);
        self.0.changed.notify_all();
    }

    /// Returns how many bytes wait to be written.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// Returns the number of the last piece before which everything is written, or cannot be.
    pub fn written(&self) -> u64 {
        let state = self.0.lock();
        let first = state.streams.iter().filter_map(Stream::first).min();
        first.map_or(state.taken, |first| first.saturating_sub(1))
    }

    /// Waits until a piece is written, or a stream has closed.
    pub async fn progress(&self) {
        self.0.progress.notified().await;
    }

    /// Returns for how long a stream has taken nothing that waits for it. A caller asks at least
    /// once a second: after a longer pause this process was suspended, perhaps with its reader, and
    /// the count begins anew.
    pub fn stuck_for(&self) -> Duration {
        let mut state = self.0.lock();
        let now = Instant::now();
        let pause = state.watched.replace(now).map(|last| now - last);
        let stuck = state.streams.iter_mut().filter(|stream| !stream.pieces.is_empty());
        let since = stuck.filter_map(|stream| stream.moved.as_mut()).map(|moved| {
            if pause.is_none_or(|pause| pause > SUSPENDED) {
                *moved = now;
            }
            now.saturating_duration_since(*moved)
        });
        since.max().unwrap_or_default()
    }

    /// Returns why the stream takes no more, if it does not.
    pub fn closed(&self, to: To) -> Option<ErrorKind> {
        self.0.lock().streams[to as usize].closed
    }

    /// Gives up each stream that has pieces waiting: drops them, and all that come. A thread that
    /// hangs in a write stays there until the process ends.
    pub fn abandon(&self) {
        let mut state = self.0.lock();
        for to in [To::Stdout, To::Stderr] {
            if !state.streams[to as usize].pieces.is_empty() {
                state.close(to, ErrorKind::TimedOut);
            }
        }
        self.0.changed.notify_all();
        self.0.progress.notify_one();
    }

    /// Blocks until everything is written, or cannot be, for at most `limit`.
    pub fn settle(&self, limit: Duration) {
        let state = self.0.lock();
        // Either result is fine: after the limit, the process ends.
        drop(self.0.changed.wait_timeout_while(state, limit, |state| state.waiting > 0));
    }

    /// Returns how many bytes were dropped for lack of room.
    pub fn dropped(&self) -> u64 {
        self.0.lock().dropped
    }
}

impl State {
    fn put(&mut self, to: To, bytes: Bytes) {
        self.taken = self.taken.saturating_add(1);
        let number = self.taken;
        let stream = &mut self.streams[to as usize];
        if stream.closed.is_some() || bytes.is_empty() {
            return;
        }
        if stream.pieces.is_empty() {
            stream.moved = Some(Instant::now());
        }
        self.waiting += bytes.len();
        stream.pieces.push_back(Piece { number, size: bytes.len(), bytes });
    }

    fn close(&mut self, to: To, why: ErrorKind) {
        let stream = &mut self.streams[to as usize];
        stream.closed.get_or_insert(why);
        let lost: usize = stream.pieces.drain(..).map(|piece| piece.size).sum();
        self.waiting -= lost;
    }

    /// The piece to write next, or how long to wait before asking again.
    fn next(&mut self, to: To) -> Result<(u64, Bytes), Option<Duration>> {
        let other = &self.streams[to.other() as usize];
        let (earlier, moved) = (other.first(), other.moved);
        let piece = self.streams[to as usize].pieces.front_mut().ok_or(None)?;
        let left = STUCK.saturating_sub(moved.map(|at| at.elapsed()).unwrap_or_default());
        match earlier {
            Some(earlier) if earlier < piece.number && !left.is_zero() => Err(Some(left)),
            _ => Ok((piece.number, std::mem::take(&mut piece.bytes))),
        }
    }
}

impl Shared {
    /// A thread that panicked while it held the lock would be a bug; its state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the thread of a stream.
    fn serve(self: Arc<Self>, to: To, stream: impl Write + Send + 'static) {
        std::thread::spawn(move || self.write(to, stream));
    }

    fn write(&self, to: To, mut stream: impl Write) {
        let mut state = self.lock();
        loop {
            let (number, bytes) = match state.next(to) {
                Ok(next) => next,
                Err(pause) => {
                    let pause = pause.unwrap_or(Duration::MAX);
                    let waited = self.changed.wait_timeout(state, pause);
                    (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            drop(state);
            let moved = || self.lock().streams[to as usize].moved = Some(Instant::now());
            let result = write_all(&mut stream, &bytes, moved);
            state = self.lock();
            let stream = &mut state.streams[to as usize];
            if stream.first() == Some(number) {
                stream.pieces.pop_front();
                stream.moved = Some(Instant::now());
                state.waiting -= bytes.len();
            }
            if let Err(error) = result {
                state.close(to, error.kind());
            }
            self.changed.notify_all();
            self.progress.notify_one();
        }
    }
}

/// Writes log lines to stderr, as far as there is room.
impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.offer(To::Stderr, line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A standard stream for a program that may block on it, such as one that only prints a result. It
/// writes as [`write()`] does.
#[derive(Clone, Copy, Debug)]
pub struct Blocking(pub To);

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(self.0, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, pipe};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// More than a pipe holds.
    fn much() -> Vec<u8> {
        (0..400_000_u32).flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn who_stops_reading_one_stream_still_reads_the_other() {
        let ((_unread, stdout), (mut reader, stderr)) = (pipe().unwrap(), pipe().unwrap());
        let outlet = Outlet::over(stdout, stderr);
        outlet.put(To::Stdout, much());
        outlet.put(To::Stderr, b"a warning".to_vec());
        let mut found = [0; 9];
        reader.read_exact(&mut found).unwrap();
        assert_eq!(&found, b"a warning");
        assert!(outlet.written() < outlet.taken(), "what is stuck is not written");
        std::thread::sleep(STUCK);
        assert_eq!(outlet.stuck_for(), Duration::ZERO, "nobody has watched until now");
        while outlet.stuck_for() < STUCK {
            std::thread::yield_now();
        }
        std::thread::sleep(SUSPENDED + STUCK);
        assert_eq!(outlet.stuck_for(), Duration::ZERO, "a process that was suspended has not watched");
        outlet.abandon();
        outlet.settle(LIMIT);
        assert_eq!((outlet.waiting(), outlet.closed(To::Stdout)), (0, Some(ErrorKind::TimedOut)));
    }

    #[test]
    fn pieces_of_both_streams_keep_their_order() {
        let (mut reader, writer) = pipe().unwrap();
        let outlet = Outlet::over(writer.try_clone().unwrap(), writer);
        let lines: Vec<String> = (0..500).map(|line| format!("{line}\n")).collect();
        for (at, line) in lines.iter().enumerate() {
            outlet.put(if at % 3 == 0 { To::Stdout } else { To::Stderr }, line.clone().into_bytes());
        }
        let mut found = vec![0; lines.concat().len()];
        reader.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), lines.concat());
    }

    #[test]
    fn a_reader_that_has_gone_and_a_full_disk_close_a_stream() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let outlet = Outlet::over(writer, full);
        outlet.put(To::Stdout, b"x".to_vec());
        outlet.put(To::Stderr, b"x".to_vec());
        outlet.settle(LIMIT);
        assert_eq!(outlet.closed(To::Stdout), Some(ErrorKind::BrokenPipe));
        assert_eq!(outlet.closed(To::Stderr), Some(ErrorKind::StorageFull));
    }

    #[test]
    fn an_offer_that_finds_no_room_is_dropped_and_counted() {
        let (_unread, writer) = pipe().unwrap();
        let outlet = Outlet::over(writer.try_clone().unwrap(), writer);
        outlet.offer(To::Stdout, vec![0; OFFERED_MAX]);
        outlet.offer(To::Stdout, b"no room".to_vec());
        assert_eq!(outlet.dropped(), 7);
    }
}
