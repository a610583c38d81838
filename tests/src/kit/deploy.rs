//! `relay deploy` as a process, from its arguments to its exit code and every byte that it printed.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::kit::sandbox::{Sandbox, clean, command};
use crate::kit::wait::{LONG, eventually, happens, within};

/// A call of `relay` that has not started yet.
#[derive(Debug)]
pub struct Deploy {
    command: Command,
    folder: TempDir,
    bound: Duration,
    /// Where stdout and stderr go instead of being read.
    own: [Option<Stdio>; 2],
}

/// A call of `relay` that is running.
#[derive(Debug)]
pub struct Running {
    child: Leash,
    stdout: Pipe,
    stderr: Pipe,
    folder: TempDir,
    began: Instant,
    bound: Duration,
}

/// A call of `relay` that has ended.
#[derive(Debug)]
pub struct Deployed {
    /// The exit code; 128+n if signal n ended the process.
    pub code: i32,
    /// Everything on stdout.
    pub stdout: Vec<u8>,
    /// Everything on stderr: the tool's output and relay's own messages.
    pub stderr: Vec<u8>,
    /// The result file, if there is one.
    pub result: Option<Value>,
}

/// A process that does not outlive the test that started it, even if the test panics.
#[derive(Debug)]
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        // If the process has been waited for, neither call does anything.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pipe whose content a thread reads from the first byte to the last.
#[derive(Debug)]
struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
}

impl Pipe {
    /// Without `from`, nothing is read.
    fn read(from: Option<impl Read + Send + 'static>) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            let Some(mut from) = from else { return };
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
            }
        });
        Self { bytes, thread }
    }

    fn has(&self, text: &str) -> bool {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    fn end(self) -> Vec<u8> {
        self.thread.join().expect("the reader does not panic");
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sandbox {
    /// A deployment of `target`, with the sandbox's environment and a result file.
    pub fn deploy(&self, target: &str) -> Deploy {
        let mut deploy = self.relay(&["deploy", target]);
        let result = deploy.folder.path().join("result.json");
        deploy.command.arg("--result-file").arg(result);
        deploy
    }

    /// A call of `relay` with any arguments, with the sandbox's environment.
    pub fn relay(&self, arguments: &[&str]) -> Deploy {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = command("relay");
        command.args(arguments).envs(self.environment()).current_dir(folder.path());
        Deploy { command, folder, bound: LONG, own: [None, None] }
    }

    /// A deployment of `demo/shell` with this script.
    pub fn shell(&self, script: &str) -> Deploy {
        self.deploy("demo/shell").param("script", script)
    }
}

impl Deploy {
    /// Adds `--param name=value`.
    #[must_use]
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.command.arg("--param").arg(format!("{name}={value}"));
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes an environment variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets how long it may run; the default is [`LONG`].
    #[must_use]
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Starts it through another program, whose last arguments it becomes.
    #[must_use]
    pub fn through(mut self, program: &[&str]) -> Self {
        let mut outer = clean(Command::new(program[0]));
        outer.args(&program[1..]).arg(self.command.get_program()).args(self.command.get_args());
        outer.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer.current_dir(self.folder.path());
        self.command = outer;
        self
    }

    /// Sends stdout elsewhere; the result then has none.
    #[must_use]
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.own[0] = Some(to.into());
        self
    }

    /// Sends stderr elsewhere; the result then has none.
    #[must_use]
    pub fn stderr(mut self, to: impl Into<Stdio>) -> Self {
        self.own[1] = Some(to.into());
        self
    }

    /// The working directory of the call.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Starts the process.
    pub fn start(mut self) -> Running {
        let [stdout, stderr] = std::mem::take(&mut self.own).map(|own| own.unwrap_or_else(Stdio::piped));
        self.command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut child = self.command.spawn().expect("relay starts");
        // Its copies of the writing ends would keep the pipes open.
        drop(self.command);
        let stdout = Pipe::read(child.stdout.take());
        let stderr = Pipe::read(child.stderr.take());
        Running { child: Leash(child), stdout, stderr, folder: self.folder, began: Instant::now(), bound: self.bound }
    }

    /// Starts the process and waits for its end.
    #[track_caller]
    pub fn run(self) -> Deployed {
        self.start().wait()
    }
}

impl Running {
    /// Waits until stdout contains `text`.
    #[track_caller]
    pub fn until_stdout(&self, text: &str) {
        assert!(happens(|| self.stdout.has(text)), "stdout has no `{text}`; stderr: {}", self.stderr_so_far());
    }

    /// Waits until stdout contains `text` or is closed, for as long as the call may run. Returns
    /// whether it contains `text`.
    #[track_caller]
    pub fn prints(&self, text: &str) -> bool {
        within(self.bound, &format!("stdout has `{text}`, or it ends"), || {
            let ended = self.has_ended();
            if self.stdout.has(text) { Some(true) } else { ended.then_some(false) }
        })
    }

    /// Whether it has closed stdout, as it does when it ends.
    pub fn has_ended(&self) -> bool {
        self.stdout.thread.is_finished()
    }

    /// Waits until stderr contains `text`.
    #[track_caller]
    pub fn until_stderr(&self, text: &str) {
        assert!(happens(|| self.stderr.has(text)), "stderr has no `{text}`: {}", self.stderr_so_far());
    }

    /// What stderr has so far.
    pub fn stderr_so_far(&self) -> String {
        let bytes = self.stderr.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for the deployment id, which is known once the request is published.
    #[track_caller]
    pub fn id(&self) -> String {
        eventually("the request is published", || id_in(&self.stderr_so_far()))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("relay is there");
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.0)
    }

    /// Waits for its end. Panics if that takes longer than its bound.
    #[track_caller]
    pub fn wait(mut self) -> Deployed {
        use std::os::unix::process::ExitStatusExt as _;
        let status = loop {
            if let Some(status) = self.child.0.try_wait().expect("relay can be waited for") {
                break status;
            }
            if self.began.elapsed() > self.bound {
                panic!("relay did not end within {:?}; it printed: {}", self.bound, self.stderr_so_far());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = std::fs::read_to_string(self.folder.path().join("result.json")).ok();
        Deployed {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
            stdout: self.stdout.end(),
            stderr: self.stderr.end(),
            // A call that was killed leaves an empty file.
            result: text
                .filter(|text| !text.is_empty())
                .map(|text| serde_json::from_str(&text).expect("the result file is JSON")),
        }
    }
}

/// Finds the id in relay's message `relay published 0.1s demo/shell as 0190…`.
fn id_in(stderr: &str) -> Option<String> {
    let line = stderr.lines().find(|line| line.starts_with("relay published "))?;
    line.rsplit_once(" as ").map(|(_, id)| id.to_owned()).filter(|id| id.len() == 36)
}

impl Deployed {
    /// stdout as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The tool's stderr: everything except relay's own lines.
    pub fn tool_err(&self) -> Vec<u8> {
        let lines = self.stderr.split_inclusive(|b| *b == b'\n');
        let own = |line: &&[u8]| !line.starts_with(b"relay ") && !line.starts_with(b"relay: ");
        lines.filter(own).flatten().copied().collect()
    }

    /// The deployment id.
    #[track_caller]
    pub fn id(&self) -> String {
        id_in(&self.err()).unwrap_or_else(|| panic!("nothing was published: {}", self.err()))
    }

    /// A part of the result file, by JSON pointer; null if it is not there.
    #[track_caller]
    pub fn result(&self, pointer: &str) -> &Value {
        let result = self.result.as_ref().unwrap_or_else(|| panic!("relay wrote no result file: {}", self.err()));
        result.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out(), self.err());
        self
    }

    /// Asserts that stderr contains `words`.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.err().contains(words), "`{words}` is not in: {}", self.err());
        self
    }
}

/// Runs `relay` with any arguments in `folder`, without a sandbox. Returns exit code, stdout and
/// stderr.
pub fn relay(folder: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        command("relay").args(arguments).current_dir(folder).stdin(Stdio::null()).output().expect("relay starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
