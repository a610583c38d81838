//! The signals that ask a command to stop, as events that it waits for beside its work.

use relay_console::Failure;
use relay_protocol::Cancel;
use relay_protocol::outcome::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGXFSZ, which tokio has no name for. Linux and macOS agree on its number.
const FILE_TOO_LARGE: i32 = 25;

/// Why a command is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The exit code of a command that stops for it.
    pub(crate) code: ExitCode,
    /// The reason that the cancel gives.
    pub(crate) cancel: Cancel,
    /// The reason in words.
    pub(crate) why: &'static str,
}

impl Asked {
    /// `--timeout` has passed.
    pub(crate) const TIMEOUT: Self =
        Self { code: ExitCode::TimedOut, cancel: Cancel::Requested, why: "the --timeout has passed" };

    const fn interrupt(why: &'static str) -> Self {
        Self { code: ExitCode::Interrupted, cancel: Cancel::Interrupted, why }
    }

    const fn terminate(why: &'static str) -> Self {
        Self { code: ExitCode::Terminated, cancel: Cancel::Terminated, why }
    }

    /// Whether a signal asks.
    pub(crate) fn is_signal(self) -> bool {
        self != Self::TIMEOUT
    }
}

/// Listens for signals. `relay deploy` starts before it does anything else, because a signal must
/// become a cancel, or at least a tidy end.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupts: Signal,
    terminations: Signal,
    /// `None` if whoever started this process had the signal ignored, as `nohup` does.
    hangups: Option<Signal>,
    quits: Option<Signal>,
}

impl Signals {
    /// Starts listening.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(ExitCode::Fault, format!("cannot listen for signals: {error}")))
        };
        let ignored = ignored_signals();
        let unless_ignored = |kind: SignalKind| match ignored >> (kind.as_raw_value() - 1) & 1 {
            1 => Ok(None),
            _ => listen(kind).map(Some),
        };
        Ok(Self {
            interrupts: listen(SignalKind::interrupt())?,
            terminations: listen(SignalKind::terminate())?,
            hangups: unless_ignored(SignalKind::hangup())?,
            quits: unless_ignored(SignalKind::quit())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupts.recv() => Asked::interrupt("SIGINT"),
            _ = self.terminations.recv() => Asked::terminate("SIGTERM"),
            () = received(&mut self.hangups) => Asked::terminate("SIGHUP"),
            () = received(&mut self.quits) => Asked::terminate("SIGQUIT"),
        }
    }

    /// Returns a signal that has already come, without waiting.
    pub(crate) async fn pending(&mut self) -> Option<Asked> {
        tokio::select! {
            biased;
            asked = self.next() => Some(asked),
            () = std::future::ready(()) => None,
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Makes a file that has reached the size limit of the process a failed write (EFBIG), which is
/// reported, instead of a sudden death by SIGXFSZ.
pub(crate) fn survive_file_limit() {
    // Without this, only the report is worse.
    drop(signal(SignalKind::from_raw(FILE_TOO_LARGE)));
}

/// The signals that this process ignored when it started, as a mask whose bit 0 is signal 1. None,
/// where the kernel does not say.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
