//! The command line: `up`, `exec`, `demo`.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use clap::{Args, Parser, Subcommand};
use rustix::process::Signal;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use crate::server::{Options, Sandbox};
use crate::settings::Settings;
use crate::{children, demo};

/// Both AWS accounts of a relay set-up on one loopback port.
#[derive(Debug, Parser)]
#[command(name = "relay-sandbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until interrupted; prints the environment to export, then `# ready`.
    Up(Common),
    /// Start, run a command with the environment set, stop, exit with the command's code.
    Exec {
        #[command(flatten)]
        common: Common,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Take one deployment through the whole path, and explain each hop.
    Demo(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder for logs and work; a temporary one by default.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Fault rules, TOML or JSON.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Launcher processes.
    #[arg(long, value_name = "N", default_value_t = 2)]
    launchers: usize,
    /// Folder of the relay binaries; this program's own by default.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Folder with further targets, one TOML file each.
    #[arg(long, value_name = "DIR")]
    targets: Option<PathBuf>,
    /// Start no launcher.
    #[arg(long)]
    no_launcher: bool,
    /// A setting; may be repeated.
    #[arg(long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Serve only ECS; everything else is at this endpoint.
    #[arg(long, value_name = "URL", requires = "task_credentials")]
    third_party: Option<String>,
    /// Credentials that tasks are given, as the container credentials endpoint answers them; of a folder, the file ROLE.json.
    #[arg(long, value_name = "FILE")]
    task_credentials: Option<PathBuf>,
}

impl Common {
    fn options(self) -> Result<Options, String> {
        let mut settings = Settings::default();
        for option in &self.options {
            settings.set(option)?;
        }
        Ok(Options {
            port: self.port,
            state: self.state,
            faults: self.faults,
            launchers: if self.no_launcher { 0 } else { self.launchers },
            bin_dir: self.bin_dir,
            targets: self.targets,
            settings,
            third_party: self.third_party,
            task_credentials: self.task_credentials,
        })
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    match runtime.block_on(run(command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(125)
}

async fn run(command: Command) -> Result<u8, String> {
    match command {
        Command::Up(common) => up(Sandbox::start(common.options()?).await?).await,
        Command::Exec { common, command } => {
            // Only once the signals are caught here can the command be sure to be told of them.
            let signals = Signals::new()?;
            let sandbox = Sandbox::start(common.options()?).await?;
            let code = exec(&sandbox, &command, signals).await;
            sandbox.stop().await;
            code
        }
        Command::Demo(common) => {
            let signals = Signals::new()?;
            let sandbox = Sandbox::start(common.options()?).await?;
            let code = demo::run(&sandbox, signals).await;
            sandbox.stop().await;
            code
        }
    }
}

/// Quoted for a POSIX shell.
fn quoted(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:,@%+=".contains(&b);
    if !value.is_empty() && value.bytes().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    }
}

async fn up(sandbox: Sandbox) -> Result<u8, String> {
    let mut signals = Signals::new()?;
    let mut text = String::new();
    for (name, value) in sandbox.environment() {
        text.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    text.push_str("# ready\n");
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| format!("stdout: {e}"))?;
    signals.next().await;
    sandbox.stop().await;
    Ok(0)
}

/// SIGINT and SIGTERM, as they come.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("signals: {e}"));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}

/// Runs a command with the environment set, and passes signals on to it.
pub(crate) async fn exec(sandbox: &Sandbox, command: &[OsString], signals: Signals) -> Result<u8, String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let path = sandbox.environment().iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsString::from(value));
    let found = match program.to_str() {
        // The search must see the binaries of relay first.
        Some(name) if !name.contains('/') => children::on_path(name, path.as_deref()).map(PathBuf::into_os_string),
        _ => None,
    };
    let mut command = tokio::process::Command::new(found.as_ref().unwrap_or(program));
    // Nothing of another AWS set-up may shine through: a profile, a token, an endpoint of one service.
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
                // A terminal has told the whole foreground already, and a second interrupt may mean something else.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_for_a_shell() {
        assert_eq!(quoted("arn:aws:sns:eu-west-1:1:x"), "arn:aws:sns:eu-west-1:1:x");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
