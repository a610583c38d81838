//! The command line: `up`, `exec`, `demo`.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::demo;
use super::exec::{Signals, exec};
use super::sandbox::{Options, Sandbox};
use super::settings::Settings;
use super::shared::ThirdParty;
use super::targets::Given;

/// Both AWS accounts of a relay set-up on one loopback port.
#[derive(Debug, Parser)]
#[command(name = "relay-sandbox", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until interrupted. Prints the environment to export, then `# ready`.
    Up(Common),
    /// Start the sandbox, run a command with the environment variables that point to it, stop the
    /// sandbox, and exit with the command's exit code.
    Exec {
        #[command(flatten)]
        common: Common,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Run one deployment from end to end, and explain each step.
    Demo(Common),
}

#[derive(Debug, Args)]
struct Common {
    /// Port on 127.0.0.1; 0 picks a free port.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Folder for logs and work directories; by default a temporary folder.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// File with fault rules, in TOML or JSON.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Number of launcher processes.
    #[arg(long, value_name = "N", default_value_t = 2)]
    launchers: usize,
    /// Folder with relay's binaries; by default the folder of this program.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// A target file from your repository; may be repeated. The sandbox uses its own accounts,
    /// buckets and target key, and its own keys for the first signer that is not a person and for
    /// the first that is. The policy, the steps and the rules for values stay as they are.
    #[arg(long = "target", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// File with values for the targets' secrets, one `NAME = "value"` per line. The sandbox makes
    /// up the values of all other secrets.
    #[arg(long, value_name = "FILE", requires = "files")]
    secrets: Option<PathBuf>,
    /// A variable that the tools of these targets get in addition, for example the endpoint of an
    /// emulator of AWS; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", requires = "files", value_parser = variable)]
    tool_variable: Vec<(String, String)>,
    /// For relay's own tests: folder with target templates, whose placeholders such as `${TOPIC}`
    /// are filled in.
    #[arg(long, value_name = "DIR")]
    targets: Option<PathBuf>,
    /// Do not start a launcher.
    #[arg(long)]
    no_launcher: bool,
    /// An advanced setting, such as schedule_ms=1000; may be repeated.
    #[arg(long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Serve only ECS, and use the third-party emulator at this endpoint for everything else.
    #[arg(long, value_name = "URL", requires = "task_credentials")]
    third_party: Option<String>,
    /// File with the JSON credentials that tasks get, or a folder with a file ROLE.json for each
    /// role.
    #[arg(long, value_name = "FILE", requires = "third_party")]
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
            targets: Given {
                folder: self.targets,
                files: self.files,
                secrets: self.secrets,
                variables: self.tool_variable,
            },
            settings,
            third_party: self
                .third_party
                .zip(self.task_credentials)
                .map(|(endpoint, credentials)| ThirdParty { endpoint, credentials }),
        })
    }
}

/// `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "expected NAME=VALUE".to_owned())
}

/// The exit code for a wrong command line, file or setting: that of `relay`.
const USAGE: u8 = 119;

/// The exit code when the sandbox itself fails.
const FAULT: u8 = 125;

/// What went wrong, with the exit code.
struct Failure(u8, String);

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self(FAULT, error)
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&Failure(FAULT, format!("cannot start: {error}"))),
    };
    match runtime.block_on(run(command)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn failed(Failure(code, error): &Failure) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(*code)
}

async fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Up(common) => Ok(up(start(common).await?).await?),
        Command::Exec { common, command } => {
            // From here on, signals are passed on to the command instead of ending this process.
            let signals = Signals::new()?;
            let sandbox = start(common).await?;
            let code = exec(&sandbox, &command, signals).await;
            if !matches!(code, Ok(0)) {
                say_causes(&sandbox);
            }
            sandbox.stop().await;
            Ok(code?)
        }
        Command::Demo(common) => {
            let signals = Signals::new()?;
            let sandbox = start(common).await?;
            let code = demo::run(&sandbox, signals).await;
            sandbox.stop().await;
            Ok(code?)
        }
    }
}

/// Starts a sandbox, and prints its notes about the targets to stderr.
async fn start(common: Common) -> Result<Sandbox, Failure> {
    let usage = |error| Failure(USAGE, error);
    let sandbox = Sandbox::start(common.options().map_err(usage)?).await.map_err(usage)?;
    for note in sandbox.notes() {
        let _ = writeln!(std::io::stderr(), "sandbox: {note}");
    }
    Ok(sandbox)
}

/// Says what the launcher's logs say about requests that it did not verify. A launcher tells CI
/// nothing of that, but here the logs are the user's, and go away with the sandbox.
fn say_causes(sandbox: &Sandbox) {
    let state = sandbox.environment().iter().find(|(name, _)| name.as_str() == "RELAY_SANDBOX_STATE");
    let entries = state.and_then(|(_, folder)| std::fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    for log in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("launcher-")) {
        let text = std::fs::read_to_string(log.path()).unwrap_or_default();
        for cause in text.lines().filter_map(cause) {
            let _ = writeln!(std::io::stderr(), "sandbox: the launcher's log says: {cause}");
        }
    }
}

/// The cause in a line of the launcher's log about a request that was not verified.
fn cause(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    // As JSON, so that no character of a request reaches the terminal as it is.
    (line["message"] == "unverified").then(|| line["cause"].to_string())
}

/// Quotes a value for a POSIX shell, if needed.
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
