//! A command with the sandbox's environment, and the signals that reach it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::Signal;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::children;
use super::sandbox::Sandbox;

/// Receives SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// Runs a command with the environment set, and passes signals on to it.
pub(super) async fn exec(sandbox: &Sandbox, command: &[OsString], signals: Signals) -> Result<u8, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let path = sandbox.environment().iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsString::from(value));
    let found = match program.to_str() {
        // Search the sandbox's own PATH, in which relay's binaries come first.
        Some(name) if !name.contains('/') => children::on_path(name, path.as_deref()).map(PathBuf::into_os_string),
        _ => None,
    };
    let mut command = tokio::process::Command::new(found.as_ref().unwrap_or(program));
    // No setting of the caller's own AWS environment may take effect, such as a profile, a token or
    // the endpoint of one service.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(sandbox.environment().iter().cloned());
    let child = command.spawn().map_err(|e| format!("{}: {e}", program.to_string_lossy()))?;
    wait(child, signals).await
}

async fn wait(mut child: Child, mut signals: Signals) -> Result<u8, String> {
    loop {
        tokio::select! {
            ended = child.wait() => return ended.map(code).map_err(|e| e.to_string()),
            signal = signals.next() => {
                // A terminal sends SIGINT to the whole foreground process group. Do not send it
                // again, because the command may treat a second interrupt differently.
                let told = signal == Signal::INT && std::io::stdin().is_terminal();
                if let Some(pid) = child.id().filter(|_| !told) {
                    children::signal(pid, signal);
                }
            }
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|n| 128 + n)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}
