//! Linux and macOS.

use std::io;

use tokio::signal::unix::{Signal as Source, SignalKind, signal};

use super::Signal;

/// SIGXFSZ, which tokio has no name for. Linux and macOS agree on its number.
const FILE_TOO_LARGE: i32 = 25;

#[derive(Debug)]
pub(crate) struct Signals {
    interrupts: Source,
    terminations: Source,
    /// `None` if whoever started this process had the signal ignored, as `nohup` does.
    hangups: Option<Source>,
    quits: Option<Source>,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored_signals();
        let unless_ignored = |kind: SignalKind| match ignored >> (kind.as_raw_value() - 1) & 1 {
            1 => Ok(None),
            _ => signal(kind).map(Some),
        };
        Ok(Self {
            interrupts: signal(SignalKind::interrupt())?,
            terminations: signal(SignalKind::terminate())?,
            hangups: unless_ignored(SignalKind::hangup())?,
            quits: unless_ignored(SignalKind::quit())?,
        })
    }

    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupts.recv() => Signal::Interrupt("SIGINT"),
            _ = self.terminations.recv() => Signal::Terminate("SIGTERM"),
            () = received(&mut self.hangups) => Signal::Terminate("SIGHUP"),
            () = received(&mut self.quits) => Signal::Terminate("SIGQUIT"),
        }
    }
}

async fn received(signal: &mut Option<Source>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Makes a file that has reached the size limit of the process a failed write (EFBIG), which is
/// reported, instead of a sudden death by SIGXFSZ. Windows has no such limit.
pub fn survive_file_limit() {
    // Without this, only the report is worse.
    drop(signal(SignalKind::from_raw(FILE_TOO_LARGE)));
}

/// The signals that this process ignored when it started, as a mask whose bit 0 is signal 1. None,
/// where the kernel does not say, as on macOS.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
