//! Processes that the sandbox starts, and their end. Only what was started here is ever signalled, by its id.
//!
//! A task's container ends with everything in it. To have that here, each child gets a session of its own by `setsid(1)`, where
//! there is one: then grandchildren can be told even after their parent is gone. Without it, the process group must do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Command;

/// Finds a program in a PATH-like list.
pub(crate) fn on_path(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A command in a session (or group) of its own, with no environment and no input.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = match on_path("setsid", std::env::var_os("PATH").as_deref()) {
        // The child is no group leader yet, so setsid makes the session and then becomes the program: the id stays.
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

/// Signals one process. That it is gone already is no fault.
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

/// The session in `/proc/N/stat`: the fourth field after the name, which may itself contain anything.
fn session_of(stat: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(stat).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// An exit code as a container has it: 128 + n for signal n.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(255)
}
