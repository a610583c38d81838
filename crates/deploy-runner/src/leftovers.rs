//! Ends everything that a step leaves behind, whatever it forked and however it detached itself
//! (clause CTL-5). A process group is not enough: `setsid` leaves it.
//!
//! The runner adopts orphans, so all that comes from a step is its descendant. In a container the
//! runner is also PID 1, and the tool has a user id of its own: a child that takes this id signals
//! all of its processes with one call, which no fork can outrun.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper, waitpid};
use tokio::process::Command;
use tokio::time::Instant;

/// The argument of a child of the runner that signals every process of its user.
pub(crate) const KILL_ALL: &str = "kill-all";

/// How long processes may take to end after SIGKILL. Only the kernel can delay it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Makes this process the parent of what its descendants orphan. PID 1 is that anyway.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(Pid::INIT))?)
}

/// Ends all descendants of this process. `user` is the tool's user id, if it is not the runner's.
///
/// # Errors
///
/// Says what remains after [`PATIENCE`], or why it is unknown.
pub(crate) async fn end_all(user: Option<u32>) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let alive = look(None).map_err(|error| format!("cannot read /proc: {error}"))?;
        if alive.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let pids: Vec<String> = alive.iter().map(|pid| pid.as_raw_nonzero().to_string()).collect();
            return Err(format!("these processes do not end: {}", pids.join(", ")));
        }
        if let Some(user) = user.filter(|_| owns_container()) {
            let child = Command::new("/proc/self/exe").arg(KILL_ALL).env_clear().uid(user).gid(user).status().await;
            if let Err(error) = child {
                tracing::warn!(%error, "cannot signal all processes of the tool's user");
            }
        }
        for pid in alive {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether this process is the first one of a container, or was started by an init that is.
/// Elsewhere, processes that are not the tool's may have the same user.
fn owns_container() -> bool {
    std::process::id() == 1 || ancestors().first() == Some(&1)
}

/// What the child does: signals every process that its user may signal, except itself.
pub(crate) fn kill_all() {
    // It fails if there is none.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
}

/// Takes the exit codes of adopted processes that have ended, so that they do not pile up. `except`
/// is the child that somebody waits for.
pub(crate) fn reap(except: Option<Pid>) {
    // What cannot be read now is read the next time.
    drop(look(except));
}

/// The processes that started this one, the nearest first.
pub(crate) fn ancestors() -> Vec<i32> {
    let mut all: Vec<i32> = Vec::new();
    let mut of = "self".to_owned();
    while let Some((_, parent @ 1..)) =
        fs::read_to_string(format!("/proc/{of}/stat")).ok().and_then(|text| parse(&text))
        && !all.contains(&parent)
    {
        all.push(parent);
        of = parent.to_string();
    }
    all
}

/// Returns the living descendants of this process, and reaps the dead ones that are its children.
fn look(except: Option<Pid>) -> io::Result<Vec<Pid>> {
    let mut children: BTreeMap<i32, Vec<(i32, char)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        // Everything but a process has another name, and a process may end at any time.
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some((state, parent)) = parse(&text) {
            children.entry(parent).or_default().push((pid, state));
        }
    }
    let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or_default());
    let mut to_visit: Vec<i32> = own.map(|pid| pid.as_raw_nonzero().get()).into_iter().collect();
    let mut alive = Vec::new();
    while let Some(parent) = to_visit.pop() {
        for (pid, state) in children.remove(&parent).unwrap_or_default() {
            to_visit.push(pid);
            let Some(pid) = Pid::from_raw(pid) else { continue };
            match state {
                'Z' if Some(pid) != except => drop(waitpid(Some(pid), WaitOptions::NOHANG)),
                'Z' | 'X' => {}
                _ => alive.push(pid),
            }
        }
    }
    Ok(alive)
}

/// The state and the parent in `/proc/PID/stat`. The program's name may contain anything, so what
/// counts stands after its last parenthesis (proc(5)).
fn parse(stat: &str) -> Option<(char, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_name_may_contain_anything() {
        assert_eq!(parse("17 (a) R 1 (b) S 4 17 17 0"), Some(('S', 4)));
        assert_eq!(parse("17 (sh"), None);
    }
}
