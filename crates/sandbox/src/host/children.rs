//! Starts and ends the sandbox's child processes. Signals go only to processes that were started
//! here, by process id.
//!
//! When a container ends, so do all processes in it. Therefore each child runs in its own session,
//! created with `setsid(1)` if that is installed. The session identifies grandchildren even after
//! their parent has exited. Without `setsid`, the process group has to suffice.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Command;

/// Finds a program in a PATH-like list.
pub(crate) fn on_path(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command in its own session (or process group), with no environment variables and no input.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = match on_path("setsid", std::env::var_os("PATH").as_deref()) {
        // The child is not a process group leader, so `setsid` does not fork: it creates the
        // session and execs the program, and the process id stays the same.
        Some(setsid) => {
            let mut command = Command::new(setsid);
            command.arg(program);
            command
        }
        None => {
            let mut command = Command::new(program);
            command.process_group(0);
            command
        }
    };
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn pid(id: u32) -> Option<Pid> {
    i32::try_from(id).ok().and_then(Pid::from_raw)
}

/// Signals one process, if it is still there.
pub(crate) fn signal(id: u32, signal: Signal) {
    if let Some(pid) = pid(id) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills whatever is left of a child's session and group.
pub(crate) fn end_session(id: u32) {
    if let Some(pid) = pid(id) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let member = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some(member) = member
            && session_of(&entry.path().join("stat")) == Some(id)
        {
            signal(member, Signal::KILL);
        }
    }
}

/// The session id from `/proc/N/stat`: the fourth field after the program's name, which may contain
/// any characters, including `)`.
fn session_of(stat: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(stat).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// The exit code that a container would report: 128 + n if signal n ended the process.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(255)
}
