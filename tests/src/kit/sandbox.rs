//! A sandbox as a process of its own, and what it tells about itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use relay_protocol::keys::{PrivateKey, SingleKey};
use relay_protocol::{PublicKey, TopicArn};
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::kit::account::Account;
use crate::kit::wait::{LONG, eventually, within};

/// The account that CI is in.
pub const CI: &str = "111111111111";
/// The account that is deployed to.
pub const TARGET: &str = "222222222222";

/// How to start a sandbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// Launcher processes.
    pub launchers: usize,
    /// `--option` arguments, `key=value`.
    pub settings: Vec<String>,
    /// Configurations, by file name; `${TOPIC}` and the like are filled in by the sandbox.
    pub targets: Vec<(String, String)>,
    /// Where its programs are, when not with the tests'.
    pub bin_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        // Events come when they come: whoever counts what the launcher says has none.
        Self { launchers: 2, settings: vec!["task_events=false".to_owned()], targets: Vec::new(), bin_dir: None }
    }
}

impl Options {
    /// With one more setting.
    #[must_use]
    pub fn set(mut self, option: &str) -> Self {
        self.settings.push(option.to_owned());
        self
    }

    /// With one more target, see [`crate::kit::targets::target`].
    #[must_use]
    pub fn target(mut self, name: &str, configuration: String) -> Self {
        self.targets.push((format!("{}.toml", name.replace('/', "_")), configuration));
        self
    }
}

/// A running sandbox; it ends with the value.
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    folder: TempDir,
    environment: BTreeMap<String, String>,
    operator: OnceLock<Account>,
    ci: OnceLock<Account>,
}

/// One operation, as the sandbox logged it.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Position.
    pub n: u64,
    /// When it began, in microseconds since the Unix epoch.
    pub at_unix_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// Such as `ecs`.
    pub service: String,
    /// Such as `RunTask`.
    pub operation: String,
    /// The caller's account.
    pub account: String,
    /// The caller's role.
    pub principal: String,
    /// The caller's session; a task's id for a task.
    pub session: String,
    /// When it began, in milliseconds since the sandbox started.
    pub at_ms: u64,
    /// How often it had its effect.
    pub runs: u32,
    /// Whether it succeeded.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
    /// Faults that were applied.
    pub faults: Vec<String>,
    /// What it was about.
    pub detail: Map<String, Value>,
}

impl Entry {
    /// A text of the detail.
    pub fn text(&self, name: &str) -> &str {
        self.detail.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is this operation.
    pub fn is(&self, service: &str, operation: &str) -> bool {
        self.service == service && self.operation == operation
    }
}

/// A task, as the sandbox shows it.
#[derive(Clone, Debug)]
pub struct Task(pub Value);

impl Task {
    /// Its ARN.
    pub fn arn(&self) -> &str {
        self.0["taskArn"].as_str().unwrap_or_default()
    }

    /// The last part of its ARN; also the session name of its calls.
    pub fn id(&self) -> &str {
        self.arn().rsplit('/').next().unwrap_or_default()
    }

    /// `RUNNING`, `STOPPED`, …
    pub fn status(&self) -> &str {
        self.0["lastStatus"].as_str().unwrap_or_default()
    }

    /// What the runner exited with.
    pub fn exit_code(&self) -> Option<i64> {
        self.0["containers"][0]["exitCode"].as_i64()
    }

    /// The runner's process.
    pub fn pid(&self) -> Option<Pid> {
        self.0["sandbox"]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }

    /// What the runner logged: CloudWatch's place.
    pub fn log(&self) -> String {
        let read = |name: &str| self.0["sandbox"][name].as_str().and_then(|path| std::fs::read(path).ok());
        let both = [read("stdout"), read("stderr")].map(Option::unwrap_or_default).concat();
        String::from_utf8_lossy(&both).into_owned()
    }
}

/// The folder of the binaries: this test's own profile.
pub fn bin_dir() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folder =
        own.ancestors().find(|folder| folder.join("deps").is_dir()).expect("tests run from target/<profile>/deps");
    for name in ["relay", "relay-runner", "relay-sandbox", "bootstrap"] {
        assert!(
            folder.join(name).is_file(),
            "{} is missing: run `cargo build --workspace --bins` first (`cargo xtask ci` does)",
            folder.join(name).display()
        );
    }
    folder.to_owned()
}

/// A command of one of the binaries, with nothing of this process's AWS or relay set-up.
pub fn command(binary: &str) -> Command {
    let mut command = Command::new(bin_dir().join(binary));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["AWS_", "RELAY_", "GITHUB_", "GITLAB_", "JENKINS_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

impl Sandbox {
    /// Starts one, and waits until it is ready: some 30 ms. So each test has its own, and what it left behind is in nobody's way.
    pub fn start(options: Options) -> Arc<Self> {
        let folder = tempfile::Builder::new().prefix("relay-tests-").tempdir().expect("a temporary folder");
        let targets = folder.path().join("targets");
        std::fs::create_dir(&targets).expect("a folder for targets");
        for (name, text) in &options.targets {
            std::fs::write(targets.join(name), text).expect("a target's file");
        }
        let state = folder.path().join("state");
        let complaints = std::fs::File::create(folder.path().join("sandbox.stderr")).expect("a file");
        let mut command = command("relay-sandbox");
        command.arg("up").arg("--state").arg(&state).arg("--targets").arg(&targets);
        command.args(["--launchers", &options.launchers.to_string()]);
        for option in &options.settings {
            command.args(["--option", option]);
        }
        if let Some(folder) = &options.bin_dir {
            command.arg("--bin-dir").arg(folder);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints).spawn().expect("the sandbox starts");
        let out = child.stdout.take().expect("a pipe");
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            let found = BufReader::new(out).lines().map_while(Result::ok).any(|line| line == "# ready");
            // Whoever waited may have given up.
            let _ = ready.send(found);
        });
        // Made before the wait, so that a sandbox that is never ready is ended all the same.
        let mut sandbox =
            Self { child, folder, environment: BTreeMap::new(), operator: OnceLock::new(), ci: OnceLock::new() };
        if is_ready.recv_timeout(Duration::from_secs(60)) != Ok(true) {
            let words = std::fs::read_to_string(sandbox.folder.path().join("sandbox.stderr")).unwrap_or_default();
            panic!("the sandbox did not become ready: {words}");
        }
        let text = std::fs::read_to_string(state.join("environment.json")).expect("environment.json");
        sandbox.environment = serde_json::from_str(&text).expect("environment.json is a map of strings");
        Arc::new(sandbox)
    }

    /// A folder that ends with the sandbox.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The environment for a command.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// One variable of it.
    pub fn variable(&self, name: &str) -> &str {
        self.environment.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The topic.
    pub fn topic(&self) -> TopicArn {
        self.variable("RELAY_TOPIC_ARN").parse().expect("the topic")
    }

    /// The relay bucket.
    pub fn bucket(&self) -> String {
        format!("relay-{TARGET}-eu-west-1")
    }

    /// CI's signing key.
    pub fn signing_key(&self) -> PrivateKey {
        PrivateKey::from_pem(self.variable("RELAY_SIGNING_KEY")).expect("the signing key")
    }

    /// The target account's public key, base64.
    pub fn target_public_key(&self) -> PublicKey {
        self.variable("RELAY_TARGET_PUBLIC_KEY").parse().expect("the target key")
    }

    /// The target account's key as the only trust root.
    pub fn target_key(&self) -> SingleKey {
        SingleKey::new(&self.target_public_key()).expect("the target key")
    }

    /// The target account's operator.
    pub fn operator(&self) -> &Account {
        self.operator.get_or_init(|| Account::new(TARGET, self.variable("AWS_ENDPOINT_URL")))
    }

    /// The CI account's role.
    pub fn ci(&self) -> &Account {
        self.ci.get_or_init(|| Account::new(CI, self.variable("AWS_ENDPOINT_URL")))
    }

    /// Everything that happened so far.
    pub fn log(&self) -> Vec<Entry> {
        let text = self.get("log");
        text.lines().map(|line| serde_json::from_str(line).expect("a log line")).collect()
    }

    /// What happened with this service and operation.
    pub fn calls(&self, service: &str, operation: &str) -> Vec<Entry> {
        self.log().into_iter().filter(|entry| entry.is(service, operation)).collect()
    }

    /// RunTask calls for a deployment.
    pub fn run_tasks(&self, id: &str) -> Vec<Entry> {
        self.calls("ecs", "RunTask").into_iter().filter(|entry| entry.text("startedBy") == id).collect()
    }

    /// Everything that one task did.
    pub fn done_by(&self, task: &Task) -> Vec<Entry> {
        self.log().into_iter().filter(|entry| entry.session == task.id()).collect()
    }

    /// All tasks.
    pub fn tasks(&self) -> Vec<Task> {
        let tasks: Vec<Value> = serde_json::from_str(&self.get("tasks")).expect("tasks");
        tasks.into_iter().map(Task).collect()
    }

    /// The tasks of a deployment.
    pub fn tasks_of(&self, id: &str) -> Vec<Task> {
        self.tasks().into_iter().filter(|task| task.0["startedBy"] == id).collect()
    }

    /// The task, as soon as it is `status`.
    #[track_caller]
    pub fn task_when(&self, arn: &str, status: &str) -> Task {
        eventually(&format!("{arn} is {status}"), || {
            self.tasks().into_iter().find(|task| task.arn() == arn && task.status() == status)
        })
    }

    /// Replaces the fault plan: `[[rule]]` tables.
    pub fn set_faults(&self, plan: &str) {
        let (status, answer) = self.http("POST", "faults", plan.as_bytes());
        assert_eq!(status, 200, "{answer}");
    }

    /// Whether the fault plan holds this operation: its caller stands in the middle of the call.
    pub fn holds(&self, service: &str, operation: &str) -> bool {
        self.held().iter().any(|held| held["service"] == service && held["operation"] == operation)
    }

    /// The operations that the fault plan holds now.
    pub fn held(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("held")).expect("held operations")
    }

    /// The launcher's processes.
    pub fn launchers(&self) -> Vec<Pid> {
        let pids: Vec<i32> = serde_json::from_str(&self.get("launchers")).expect("process ids");
        pids.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// The process that is AWS.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Invokes the launcher with an event, asynchronously.
    pub fn invoke(&self, event: &Value) {
        let (status, answer) = self.http("POST", "invoke", event.to_string().as_bytes());
        assert_eq!(status, 202, "{answer}");
    }

    /// What the launchers logged.
    pub fn launcher_log(&self) -> String {
        let entries = std::fs::read_dir(self.folder.path().join("state")).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("launcher-"));
        logs.filter_map(|entry| std::fs::read(entry.path()).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Waits until every invocation of the launcher so far has ended, however it ended.
    #[track_caller]
    pub fn launcher_idle(&self) {
        eventually("the launcher is idle", || {
            let log = self.log();
            let begun = log.iter().filter(|e| e.is("lambda", "Invoke") && e.ok).count();
            let copies =
                log.iter().filter(|e| e.is("lambda", "Invoke") && e.ok && e.faults.iter().any(|f| f == "duplicate"));
            let doubled = begun + copies.count();
            let settled = |e: &&Entry| e.is("lambda", "DeadLetter") || (e.is("lambda", "InvocationEnded") && e.ok);
            (log.iter().filter(settled).count() >= doubled).then_some(())
        });
    }

    fn get(&self, path: &str) -> String {
        let (status, body) = self.http("GET", path, b"");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// One request to the sandbox's own paths.
    pub fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.raw(method, &format!("/_sandbox/{path}"), "", body).expect("an answer")
    }

    /// One request as it is, with further header lines, each with its end; no answer when the sandbox hangs up.
    pub fn raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<(u16, String)> {
        let address = self.variable("RELAY_SANDBOX_ENDPOINT").trim_start_matches("http://");
        // The port is there; connecting fails only when the machine is out of something for a moment.
        let mut stream = within(Duration::from_secs(10), "a connection", || TcpStream::connect(address).ok());
        stream.set_read_timeout(Some(LONG)).expect("a time-out");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the request is sent");
        let mut answer = Vec::new();
        // An error is a connection that was dropped.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        Some((status, body.to_owned()))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may end by itself between the question and the signal; it is reaped below, so the id is still its own.
            let _ = rustix::process::kill_process(pid, Signal::TERM);
            for _ in 0..1_000 {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
