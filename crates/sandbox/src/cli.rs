//! The command line: `up`, `exec`, `demo`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::demo;
use crate::exec::{Signals, exec};
use crate::server::{Options, Sandbox};
use crate::settings::Settings;

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
