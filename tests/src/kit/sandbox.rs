//! A sandbox in its own process, and the state that it reports.

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

/// The number of the CI account.
pub const CI: &str = "111111111111";
/// The number of the target account.
pub const TARGET: &str = "222222222222";

/// The options that a sandbox starts with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of launcher processes.
    pub launchers: usize,
    /// The `--option` arguments, each `key=value`.
    pub settings: Vec<String>,
    /// Target configurations with their file names. The sandbox fills in `${TOPIC}` and the like.
    pub targets: Vec<(String, String)>,
    /// The folder of the programs that it starts, if they are not beside the tests.
    pub bin_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        // Events arrive at any time, so a test that counts the launcher's messages must not have
        // them.
        Self { launchers: 2, settings: vec!["task_events=false".to_owned()], targets: Vec::new(), bin_dir: None }
    }
}

impl Options {
    /// Adds a setting, `key=value`.
    #[must_use]
    pub fn set(mut self, option: &str) -> Self {
        self.settings.push(option.to_owned());
        self
    }

    /// Adds a target; see [`crate::kit::targets::target`].
    #[must_use]
    pub fn target(mut self, name: &str, configuration: String) -> Self {
        self.targets.push((format!("{}.toml", name.replace('/', "_")), configuration));
        self
    }
}

/// A running sandbox. Dropping it ends the process.
#[derive(Debug)]
pub struct Sandbox {
    child: Child,
    folder: TempDir,
    environment: BTreeMap<String, String>,
    operator: OnceLock<Account>,
    ci: OnceLock<Account>,
}

/// One operation, from the sandbox's log.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Its position in the log.
    pub n: u64,
    /// When it began, in microseconds since the Unix epoch.
    pub at_unix_us: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The service, such as `ecs`.
    pub service: String,
    /// The operation, such as `RunTask`.
    pub operation: String,
    /// The caller's account.
    pub account: String,
    /// The caller's role.
    pub principal: String,
    /// The caller's session. For a task, that is the task's id.
    pub session: String,
    /// When it began, in milliseconds since the sandbox started.
    pub at_ms: u64,
    /// How many times it took effect.
    pub runs: u32,
    /// Whether it succeeded.
    pub ok: bool,
    /// The error, if it failed.
    pub error: Option<String>,
    /// The faults that were applied to it.
    pub faults: Vec<String>,
    /// Details of the call, by name.
    pub detail: Map<String, Value>,
}

impl Entry {
    /// A detail that is a string; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.detail.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is this operation of this service.
    pub fn is(&self, service: &str, operation: &str) -> bool {
        self.service == service && self.operation == operation
    }
}

/// A task, as the sandbox describes it.
#[derive(Clone, Debug)]
pub struct Task(pub Value);

impl Task {
    /// Its ARN.
    pub fn arn(&self) -> &str {
        self.0["taskArn"].as_str().unwrap_or_default()
    }

    /// The last part of its ARN, which is also the session name of its calls.
    pub fn id(&self) -> &str {
        self.arn().rsplit('/').next().unwrap_or_default()
    }

    /// Its last status: `RUNNING`, `STOPPED`, …
    pub fn status(&self) -> &str {
        self.0["lastStatus"].as_str().unwrap_or_default()
    }

    /// The exit code of the runner.
    pub fn exit_code(&self) -> Option<i64> {
        self.0["containers"][0]["exitCode"].as_i64()
    }

    /// The process id of the runner.
    pub fn pid(&self) -> Option<Pid> {
        self.0["sandbox"]["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
    }

    /// The runner's log, which in AWS would be in CloudWatch.
    pub fn log(&self) -> String {
        let read = |name: &str| self.0["sandbox"][name].as_str().and_then(|path| std::fs::read(path).ok());
        let both = [read("stdout"), read("stderr")].map(Option::unwrap_or_default).concat();
        String::from_utf8_lossy(&both).into_owned()
    }
}

/// The folder of the binaries, built with the same profile as the test.
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

/// A command for one of the binaries, without any AWS, relay or CI variables of this process.
pub fn command(binary: &str) -> Command {
    clean(Command::new(bin_dir().join(binary)))
}

/// The command without any AWS, relay or CI variables of this process.
pub fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["AWS_", "RELAY_", "GITHUB_", "GITLAB_", "JENKINS_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}

impl Sandbox {
    /// Runs `relay-admin` as the target account's operator. Returns exit code, stdout and stderr.
    pub fn admin(&self, arguments: &[&str]) -> (i32, String, String) {
        self.admin_with(arguments, &[])
    }

    /// The same, with these variables too.
    pub fn admin_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
        let mut command = command("relay-admin");
        command.args(arguments).envs(self.environment()).env("AWS_ACCESS_KEY_ID", TARGET).stdin(Stdio::null());
        command.envs(environment.iter().copied());
        let output = command.output().expect("relay-admin starts");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
    }

    /// Starts a sandbox and waits until it is ready, which takes about 30 ms. Each test can
    /// therefore have its own, and leave anything behind in it.
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
            // The receiver may have given up.
            let _ = ready.send(found);
        });
        // Made before the wait, so that a sandbox that never becomes ready is ended as well.
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

    /// A folder that is deleted with the sandbox.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The environment for the commands that use this sandbox.
    pub fn environment(&self) -> &BTreeMap<String, String> {
        &self.environment
    }

    /// A variable of that environment; empty if it is not set.
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

    /// The evidence bucket.
    pub fn evidence_bucket(&self) -> String {
        format!("relay-evidence-{TARGET}-eu-west-1")
    }

    /// The object `name` of a deployment's evidence, such as `claim`; `None` if it is not there.
    pub fn evidence(&self, id: &str, name: &str) -> Option<Vec<u8>> {
        let (bucket, end) = (self.evidence_bucket(), format!("/{id}/{name}"));
        let key = self.operator().keys(&bucket, "deployments/").into_iter().find(|key| key.ends_with(&end))?;
        self.operator().get_object(&bucket, &key)
    }

    /// A copy of a deployment's evidence.
    pub fn evidence_folder(&self, id: &str) -> TempDir {
        let copy = tempfile::tempdir().expect("a temporary folder");
        let bucket = self.evidence_bucket();
        for key in self.operator().keys(&bucket, "deployments/") {
            if let Some((_, name)) = key.split_once(&format!("{id}/")) {
                let path = copy.path().join(name);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
                std::fs::write(path, self.operator().get_object(&bucket, &key).expect("the object")).expect("written");
            }
        }
        copy
    }

    /// A relay.toml that pins the keys of `target`.
    pub fn pins(&self, target: &str) -> String {
        format!(
            "[targets.\"{target}\"]\ntarget_key = \"{}\"\nanswer_key = \"{}\"\n",
            self.variable("RELAY_TARGET_PUBLIC_KEY"),
            self.variable("RELAY_ANSWER_PUBLIC_KEY")
        )
    }

    /// The claim of a deployment.
    pub fn claim(&self, id: &str) -> Option<Value> {
        serde_json::from_slice(&self.evidence(id, "claim")?).ok()
    }

    /// CI's signing key.
    pub fn signing_key(&self) -> PrivateKey {
        PrivateKey::from_pem(self.variable("RELAY_SIGNING_KEY")).expect("the signing key")
    }

    /// The answer key as the only trust root.
    pub fn answer_key(&self) -> SingleKey {
        let key = self.variable("RELAY_ANSWER_PUBLIC_KEY").parse().expect("the answer key");
        SingleKey::new(&key).expect("the answer key")
    }

    /// The public half of the target key.
    pub fn target_public_key(&self) -> PublicKey {
        self.variable("RELAY_TARGET_PUBLIC_KEY").parse().expect("the target key")
    }

    /// The target key as the only trust root.
    pub fn target_key(&self) -> SingleKey {
        SingleKey::new(&self.target_public_key()).expect("the target key")
    }

    /// Clients with the rights of the target account's operator.
    pub fn operator(&self) -> &Account {
        self.operator.get_or_init(|| Account::new(TARGET, self.variable("AWS_ENDPOINT_URL")))
    }

    /// Clients with the rights of the CI account's role.
    pub fn ci(&self) -> &Account {
        self.ci.get_or_init(|| Account::new(CI, self.variable("AWS_ENDPOINT_URL")))
    }

    /// Every operation so far.
    pub fn log(&self) -> Vec<Entry> {
        let text = self.get("log");
        text.lines().map(|line| serde_json::from_str(line).expect("a log line")).collect()
    }

    /// The calls of this operation of this service.
    pub fn calls(&self, service: &str, operation: &str) -> Vec<Entry> {
        self.log().into_iter().filter(|entry| entry.is(service, operation)).collect()
    }

    /// The RunTask calls for a deployment.
    pub fn run_tasks(&self, id: &str) -> Vec<Entry> {
        self.calls("ecs", "RunTask").into_iter().filter(|entry| entry.text("startedBy") == id).collect()
    }

    /// Every operation of one task.
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

    /// Waits until the task has this status.
    #[track_caller]
    pub fn task_when(&self, arn: &str, status: &str) -> Task {
        eventually(&format!("{arn} is {status}"), || {
            self.tasks().into_iter().find(|task| task.arn() == arn && task.status() == status)
        })
    }

    /// Replaces the fault plan, which consists of `[[rule]]` tables.
    pub fn set_faults(&self, plan: &str) {
        let (status, answer) = self.http("POST", "faults", plan.as_bytes());
        assert_eq!(status, 200, "{answer}");
    }

    /// Whether the fault plan is holding this operation: its caller is in the middle of the call.
    pub fn holds(&self, service: &str, operation: &str) -> bool {
        self.held().iter().any(|held| held["service"] == service && held["operation"] == operation)
    }

    /// The operations that the fault plan is holding now.
    pub fn held(&self) -> Vec<Value> {
        serde_json::from_str(&self.get("held")).expect("held operations")
    }

    /// The process ids of the launchers.
    pub fn launchers(&self) -> Vec<Pid> {
        let pids: Vec<i32> = serde_json::from_str(&self.get("launchers")).expect("process ids");
        pids.into_iter().filter_map(Pid::from_raw).collect()
    }

    /// The process id of the sandbox, which stands for AWS.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Invokes the launcher with an event, asynchronously.
    pub fn invoke(&self, event: &Value) {
        let (status, answer) = self.http("POST", "invoke", event.to_string().as_bytes());
        assert_eq!(status, 202, "{answer}");
    }

    /// Everything that the launchers logged.
    pub fn launcher_log(&self) -> String {
        let entries = std::fs::read_dir(self.folder.path().join("state")).into_iter().flatten().flatten();
        let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("launcher-"));
        logs.filter_map(|entry| std::fs::read(entry.path()).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Waits until every invocation of the launcher so far has ended, successfully or not.
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

    /// Makes one request to the sandbox's own paths. Returns status and body.
    pub fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        self.raw(method, &format!("/_sandbox/{path}"), "", body).expect("an answer")
    }

    /// Makes one raw request with further header lines, each with its line end. Returns `None` if
    /// the sandbox closes the connection without an answer.
    pub fn raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<(u16, String)> {
        let address = self.variable("RELAY_SANDBOX_ENDPOINT").trim_start_matches("http://");
        // The port is open. Connecting fails only if the machine is short of a resource for a
        // moment.
        let mut stream = within(Duration::from_secs(10), "a connection", || TcpStream::connect(address).ok());
        stream.set_read_timeout(Some(LONG)).expect("a time-out");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the request is sent");
        let mut answer = Vec::new();
        // An error means that the connection was dropped.
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
            // It may end between the check and the signal. It has not been reaped yet, so its id is
            // still its own.
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
