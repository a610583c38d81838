//! Both accounts on ministack, a third-party AWS emulator, so that our own misreading of AWS cannot
//! hide. Only ECS is the sandbox's: ministack ignores both `clientToken` and `entryPoint`.
//!
//! Owns the set-up: the virtual environment, the processes and their end, topic, key, buckets,
//! roles and function. It does not call AWS through relay's own adapters: botocore does it, in its
//! own process (`client.py`).

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kit::sandbox::bin_dir;
use crate::kit::targets::{Head, target};
use crate::kit::venv::virtual_environment;

/// The number of the CI account.
pub const CI: &str = "111111111111";
/// The number of the target account.
pub const TARGET: &str = "222222222222";
/// The only region.
pub const REGION: &str = "eu-west-1";
/// The name of the launcher's Lambda function.
pub const FUNCTION: &str = "relay-launcher";

/// The evidence bucket.
pub const EVIDENCE: &str = "relay-evidence-222222222222-eu-west-1";

const TOPIC: &str = "arn:aws:sns:eu-west-1:222222222222:relay";
const BUCKET: &str = "relay-222222222222-eu-west-1";
/// The artifact bucket, under the name that the sandbox's targets use for it.
const ARTIFACTS: &str = "relay-sandbox-artifacts";
/// The secret that ministack gives an account's root user. Its access key is the account number.
const ROOT_SECRET: &str = "test";
/// How long anything may take to start. Generous: nothing waits that long unless the start has
/// failed.
const START: Duration = Duration::from_secs(60);

/// A result whose error is a message for the reader of the test's output.
pub type Outcome<T> = Result<T, String>;

fn named<E: Display>(what: impl Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Polls `ask` every 25 ms until it returns an answer.
///
/// # Errors
///
/// The error of `ask`, or, if there is no answer within `limit`, a message that names `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= until {
            return Err(format!("waited {} s for {what}", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// The credentials that a call is made with.
#[derive(Clone, Debug)]
pub struct Caller {
    key: String,
    secret: String,
    token: Option<String>,
}

impl Caller {
    /// The root user of an account.
    pub fn root(account: &str) -> Self {
        Self { key: account.to_owned(), secret: ROOT_SECRET.to_owned(), token: None }
    }

    /// The credentials in an answer of STS.
    ///
    /// # Errors
    ///
    /// A message that names the first credential that the answer lacks.
    pub fn session(answer: &Value) -> Outcome<Self> {
        let credentials = |name: &str| text(answer, &["Credentials", name]);
        Ok(Self {
            key: credentials("AccessKeyId")?,
            secret: credentials("SecretAccessKey")?,
            token: Some(credentials("SessionToken")?),
        })
    }

    /// The credentials as the environment variables that every AWS tool reads.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables =
            vec![("AWS_ACCESS_KEY_ID", self.key.clone()), ("AWS_SECRET_ACCESS_KEY", self.secret.clone())];
        variables.extend(self.token.clone().map(|token| ("AWS_SESSION_TOKEN", token)));
        variables
    }
}

/// A session of STS in the form in which a task fetches it.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
pub fn task_credentials(role_arn: &str, session: &Value) -> Value {
    let given = &session["Credentials"];
    json!({
        "RoleArn": role_arn, "AccessKeyId": given["AccessKeyId"], "SecretAccessKey": given["SecretAccessKey"],
        "Token": given["SessionToken"], "Expiration": given["Expiration"],
    })
}

/// The string at `path` inside an answer.
///
/// # Errors
///
/// A message with the path and the answer, if there is no string at that path.
pub fn text(value: &Value, path: &[&str]) -> Outcome<String> {
    let found = path.iter().try_fold(value, |value, name| value.get(name)).and_then(Value::as_str);
    found.map(str::to_owned).ok_or_else(|| format!("no {} in {value}", path.join(".")))
}

/// A refusal by AWS, as botocore reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// AWS's error code, such as `AccessDenied`.
    pub code: String,
    /// AWS's message.
    pub message: String,
}

impl Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// botocore, in a process that ends with this one.
#[derive(Debug)]
struct Client {
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Client {
    fn start(python: &Path, script: &Path, folder: &Path) -> Outcome<Self> {
        let mut command = Command::new(python);
        command.arg(script).env_clear().env("HOME", folder);
        let mut child = piped(command, &folder.join("client.log"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the client has no pipes".to_owned());
        };
        Ok(Self { pipes: Mutex::new((input, BufReader::new(output))) })
    }

    fn ask(&self, request: &Value) -> Outcome<Result<Value, Refused>> {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let (input, output) = &mut *pipes;
        writeln!(input, "{request}").map_err(named("cannot write to the client"))?;
        let mut line = String::new();
        output.read_line(&mut line).map_err(named("cannot read from the client"))?;
        let mut answer: Value = serde_json::from_str(&line).map_err(named("cannot parse the client's answer"))?;
        if let Some(ok) = answer.get_mut("ok") {
            return Ok(Ok(ok.take()));
        }
        Ok(Err(Refused { code: text(&answer, &["error", "code"])?, message: text(&answer, &["error", "message"])? }))
    }
}

/// Starts a child with pipes for stdin and stdout, and a file for stderr.
fn piped(mut command: Command, log: &Path) -> Outcome<Child> {
    let file = File::create(log).map_err(named(log.display()))?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
    command.spawn().map_err(named(command.get_program().display()))
}

/// Both accounts, ready to deploy to.
#[derive(Debug)]
pub struct World {
    /// Logs and state. The folder stays until the next run, so that a failure can be examined.
    pub folder: PathBuf,
    /// The folder of the virtual environment.
    pub venv: PathBuf,
    /// The URL of ministack.
    pub endpoint: String,
    /// The URL of the sandbox, which serves ECS; empty if ministack serves it.
    pub sandbox: String,
    /// The ARN of the target key.
    pub target_key: String,
    /// The public half of the target key, in base64.
    pub target_public_key: String,
    /// The ARN of the answer key.
    pub answer_key: String,
    /// The public half of the answer key, in base64.
    pub answer_public_key: String,
    environment: Vec<(String, String)>,
    client: Client,
    /// Child processes. Their stdin stays open while this process lives. They end when it ends,
    /// however it ends.
    alive: Vec<Child>,
}

/// Whether ministack checks policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permissions {
    /// ministack checks no policy: every caller may do everything.
    Unchecked,
    /// ministack checks signatures, the policies of roles, and those of topic, queues and keys.
    Checked,
}

/// Paths that are known before anything runs.
struct Places {
    scripts: PathBuf,
    folder: PathBuf,
    venv: PathBuf,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/emulator")
}

impl Places {
    fn find(name: &str) -> Outcome<Self> {
        let scripts = scripts();
        let venv = virtual_environment("src/emulator/ministack.txt")?;
        let runs = bin_dir().with_file_name("ministack-run");
        sweep(&runs);
        let folder = runs.join(format!("{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).map_err(named(folder.display()))?;
        Ok(Self { scripts, folder, venv })
    }

    fn python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    /// Starts a child that is ended together with the rest of its process group when this process
    /// ends.
    fn keep(&self, log: &str, build: impl FnOnce(&mut Command)) -> Outcome<Child> {
        let mut command = Command::new(self.python());
        command.arg(self.scripts.join("keep.py"));
        build(&mut command);
        piped(command, &self.folder.join(log))
    }
}

/// Removes the folders of processes that have ended.
fn sweep(runs: &Path) {
    for entry in fs::read_dir(runs).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.split('-').next()).unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            // A folder that stays does no harm.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

impl World {
    /// Starts everything and fills both accounts. `name` distinguishes the worlds of one process.
    ///
    /// # Errors
    ///
    /// A message that says which part of the set-up failed.
    pub fn start(name: &str, permissions: Permissions) -> Outcome<Self> {
        let places = Places::find(name)?;
        let mut world = Self::with(&places, permissions)?;
        let binaries = bin_dir();
        world.make_target_account()?;
        world.make_ci_account()?;
        world.make_roles()?;
        let sandbox = world.start_sandbox(&places, &binaries)?;
        world.alive.push(sandbox);
        world.make_function(&places, &binaries)?;
        Ok(world)
    }

    /// Starts two empty accounts whose services are all ministack's.
    ///
    /// # Errors
    ///
    /// A message that says which part of the set-up failed.
    pub fn empty(name: &str, permissions: Permissions) -> Outcome<Self> {
        Self::with(&Places::find(name)?, permissions)
    }

    fn with(places: &Places, permissions: Permissions) -> Outcome<Self> {
        let (ministack, endpoint) = start_ministack(places, permissions)?;
        let client = Client::start(&places.python(), &places.scripts.join("client.py"), &places.folder)?;
        Ok(Self {
            folder: places.folder.clone(),
            venv: places.venv.clone(),
            endpoint,
            sandbox: String::new(),
            target_key: String::new(),
            target_public_key: String::new(),
            answer_key: String::new(),
            answer_public_key: String::new(),
            environment: Vec::new(),
            client,
            alive: vec![ministack],
        })
    }

    /// Serves `folder` with Python's file server on loopback until this process ends. Returns its
    /// address, `host:port`.
    ///
    /// # Errors
    ///
    /// A message, if the server does not start within a minute.
    pub fn serve(&mut self, folder: &Path) -> Outcome<String> {
        let port = free_port()?.to_string();
        let places = Places { scripts: scripts(), folder: self.folder.clone(), venv: self.venv.clone() };
        let server = places.keep("files.log", |command| {
            command.arg(places.python()).args(["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory"]);
            command.arg(folder);
        })?;
        self.alive.push(server);
        let address = format!("127.0.0.1:{port}");
        wait_for("the file server", START, || Ok(TcpStream::connect(&address).ok()))?;
        Ok(address)
    }

    /// Makes one call as `caller`. The inner error is AWS's refusal.
    ///
    /// # Errors
    ///
    /// A message, if botocore could not be asked or its answer is malformed.
    pub fn ask(
        &self,
        caller: &Caller,
        service: &str,
        operation: &str,
        parameters: Value,
    ) -> Outcome<Result<Value, Refused>> {
        let endpoint = if service == "ecs" && !self.sandbox.is_empty() { &self.sandbox } else { &self.endpoint };
        self.client.ask(&json!({
            "endpoint": endpoint, "region": REGION, "service": service, "operation": operation, "parameters": parameters,
            "key": caller.key, "secret": caller.secret, "token": caller.token,
        }))
    }

    /// Makes one call, which must succeed, as the root user of an account.
    ///
    /// # Errors
    ///
    /// A message with AWS's refusal, or with what prevented the call.
    pub fn call(&self, account: &str, service: &str, operation: &str, parameters: Value) -> Outcome<Value> {
        let answer = self.ask(&Caller::root(account), service, operation, parameters)?;
        answer.map_err(named(format!("{service}:{operation}")))
    }

    /// Assumes a role, as the root user of the role's account.
    ///
    /// # Errors
    ///
    /// A message with AWS's refusal, or with what prevented the call.
    pub fn session(&self, role_arn: &str, name: &str) -> Outcome<Caller> {
        let account = role_arn.split(':').nth(4).unwrap_or_default();
        let parameters = json!({"RoleArn": role_arn, "RoleSessionName": name});
        Caller::session(&self.call(account, "sts", "AssumeRole", parameters)?)
    }

    fn make_target_account(&mut self) -> Outcome<()> {
        self.call(TARGET, "sns", "CreateTopic", json!({"Name": "relay"}))?;
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{CI}:root")}, "Action": "sns:Publish", "Resource": TOPIC,
        }]});
        let attribute = json!({"TopicArn": TOPIC, "AttributeName": "Policy", "AttributeValue": policy.to_string()});
        self.call(TARGET, "sns", "SetTopicAttributes", attribute)?;
        (self.target_key, self.target_public_key) = self.make_key("relay's target key")?;
        (self.answer_key, self.answer_public_key) = self.make_key("relay's answer key")?;
        self.make_bucket(TARGET, BUCKET)?;
        self.make_bucket(TARGET, EVIDENCE)
    }

    /// Makes a key that signs. Returns its ARN and its public half.
    fn make_key(&self, description: &str) -> Outcome<(String, String)> {
        let parameters = json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Description": description});
        let key = text(&self.call(TARGET, "kms", "CreateKey", parameters)?, &["KeyMetadata", "Arn"])?;
        let public = self.call(TARGET, "kms", "GetPublicKey", json!({"KeyId": key}))?;
        Ok((key, text(&public, &["PublicKey", "$bytes"])?))
    }

    fn make_ci_account(&self) -> Outcome<()> {
        self.make_bucket(CI, ARTIFACTS)?;
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{TARGET}:root")}, "Action": "s3:GetObject",
            "Resource": format!("arn:aws:s3:::{ARTIFACTS}/*"),
        }]});
        self.call(CI, "s3", "PutBucketPolicy", json!({"Bucket": ARTIFACTS, "Policy": policy.to_string()})).map(|_| ())
    }

    fn make_bucket(&self, account: &str, name: &str) -> Outcome<()> {
        let parameters = json!({"Bucket": name, "CreateBucketConfiguration": {"LocationConstraint": REGION}});
        self.call(account, "s3", "CreateBucket", parameters).map(|_| ())
    }

    /// Makes the role `role`, a path and a name, with one policy. Returns its ARN.
    ///
    /// # Errors
    ///
    /// A message with AWS's refusal, or with what prevented a call.
    pub fn make_role(&self, account: &str, role: &str, trusted: &Value, may: &Value) -> Outcome<String> {
        let (path, name) = role.split_at(role.rfind('/').map_or(0, |at| at + 1));
        let trust = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": trusted, "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"],
        }]});
        let role = json!({"Path": path, "RoleName": name, "AssumeRolePolicyDocument": trust.to_string()});
        let arn = text(&self.call(account, "iam", "CreateRole", role)?, &["Role", "Arn"])?;
        let policy = json!({"Version": "2012-10-17", "Statement": may});
        let inline = json!({"RoleName": name, "PolicyName": "may", "PolicyDocument": policy.to_string()});
        self.call(account, "iam", "PutRolePolicy", inline)?;
        Ok(arn)
    }

    /// Makes the roles: one runner role for each target, with the permissions that the design gives
    /// a runner; the launcher's; and one for a tool.
    fn make_roles(&self) -> Outcome<()> {
        let credentials = self.folder.join("task-credentials");
        fs::create_dir_all(&credentials).map_err(named(credentials.display()))?;
        let ecs = json!({"AWS": format!("arn:aws:iam::{TARGET}:root"), "Service": "ecs-tasks.amazonaws.com"});
        for target in ["hello", "shell", "source", "cloudformation", "role", "fixed"] {
            let (name, may) = (format!("relay-demo-{target}"), self.runner_may(&format!("demo/{target}")));
            let arn = self.make_role(TARGET, &format!("/relay/{name}"), &ecs, &may)?;
            let session = self.call(TARGET, "sts", "AssumeRole", json!({"RoleArn": arn, "RoleSessionName": "task"}))?;
            let file = credentials.join(format!("{name}.json"));
            fs::write(&file, task_credentials(&arn, &session).to_string()).map_err(named(file.display()))?;
        }
        let lambda = json!({"Service": "lambda.amazonaws.com"});
        self.make_role(TARGET, &format!("/relay/{FUNCTION}"), &lambda, &self.launcher_may())?;
        let runner = json!({"AWS": format!("arn:aws:iam::{TARGET}:role/relay/relay-demo-role")});
        let may = json!([{"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "*"}]);
        self.make_role(TARGET, "/relay-deploy/demo", &runner, &may).map(|_| ())
    }

    /// What the launcher may do: answer with the answer key, and write its part of the evidence.
    fn launcher_may(&self) -> Value {
        let evidence = |names: &[&str]| objects(EVIDENCE, "deployments/*/*/*/*", names);
        let mut may = both_may();
        may.extend([
            json!({"Effect": "Allow", "Action": ["kms:Sign", "kms:GetPublicKey"], "Resource": self.answer_key}),
            json!({"Effect": "Allow", "Action": "kms:GetPublicKey", "Resource": self.target_key}),
            json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": evidence(&["claim", "record.json", "request.json"])}),
            json!({"Effect": "Allow", "Action": "s3:PutObject", "Resource": evidence(&["claim", "configuration/*", "launcher/*", "request.json"])}),
            json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{BUCKET}/locks/*")}),
            json!({"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": format!("arn:aws:s3:::{BUCKET}/events/*")}),
            json!({"Effect": "Allow", "Action": "events:PutEvents", "Resource": "*"}),
        ]);
        json!(may)
    }

    /// What a target's runner may do: vouch and sign with the target key, and write its part of its
    /// target's evidence.
    fn runner_may(&self, target: &str) -> Value {
        let evidence = |names: &[&str]| objects(EVIDENCE, &format!("deployments/{target}/*"), names);
        let own = [format!("locks/{target}/*"), format!("saved/{target}/*")]
            .map(|own| format!("arn:aws:s3:::{BUCKET}/{own}"));
        let control = format!("arn:aws:sqs:{REGION}:{CI}:relay-*-control");
        let mut may = both_may();
        may.extend([
            json!({"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], "Resource": control}),
            json!({"Effect": "Allow", "Action": ["kms:Sign", "kms:GetPublicKey"], "Resource": self.target_key}),
            json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": evidence(&["claim", "request.json"])}),
            json!({"Effect": "Allow", "Action": "s3:PutObject", "Resource": evidence(&["claim", "runner/*"])}),
            json!({"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": own}),
            json!({"Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{ARTIFACTS}/*")}),
            json!({"Effect": "Allow", "Action": ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"], "Resource": format!("arn:aws:iam::{TARGET}:role/relay-deploy/*")}),
        ]);
        json!(may)
    }

    /// Writes targets beside those of the sandbox. One is for a CI that may not create queues: its
    /// queue was made in advance, with a policy that the emulator can evaluate. The other has a
    /// tool with its own role.
    fn write_targets(&self) -> Outcome<PathBuf> {
        let folder = self.folder.join("targets");
        fs::create_dir_all(&folder).map_err(named(folder.display()))?;
        let greet = "\n[[steps]]\nname = \"greet\"\nrun = [\"echo\", \"hello, strictly\"]\n";
        let queue = format!("https://sqs.{REGION}.amazonaws.com/{CI}/relay-made-before-reply");
        let fixed = target("demo/fixed", &Head::default(), greet)
            .replace("\ntimeout", &format!("\nfixed_queues = [\"{queue}\"]\ntimeout"));
        let who = "AWS_ENDPOINT_URL = \"${ENDPOINT}\"\nAWS_DEFAULT_REGION = \"eu-west-1\"\nAWS_PAGER = \"\"\n\n[[steps]]\n\
                   name = \"who\"\nrun = [\"${AWS}\", \"sts\", \"get-caller-identity\", \"--output\", \"json\"]\n";
        let role = target("demo/role", &Head::default(), who)
            .replace("\ntimeout", &format!("\nrole = \"arn:aws:iam::{TARGET}:role/relay-deploy/demo\"\ntimeout"));
        for (name, text) in [("fixed.toml", fixed), ("role.toml", role)] {
            fs::write(folder.join(name), text).map_err(named(name))?;
        }
        Ok(folder)
    }

    fn start_sandbox(&mut self, places: &Places, binaries: &Path) -> Outcome<Child> {
        let state = self.folder.join("sandbox");
        let targets = self.write_targets()?;
        let options = [
            ("topic", TOPIC.to_owned()),
            ("bucket", BUCKET.to_owned()),
            ("evidence", EVIDENCE.to_owned()),
            ("target_key", self.target_key.clone()),
            ("aws", self.venv.join("bin/aws").display().to_string()),
            ("cloudformation_endpoint", self.endpoint.clone()),
            ("cloudformation_access_key", TARGET.to_owned()),
            ("cloudformation_secret_key", ROOT_SECRET.to_owned()),
        ];
        let mut child = places.keep("sandbox.log", |command| {
            command.arg(binaries.join("relay-sandbox")).args(["up", "--third-party", &self.endpoint]);
            command.arg("--task-credentials").arg(self.folder.join("task-credentials"));
            command.arg("--state").arg(&state).arg("--targets").arg(&targets);
            command.args(options.iter().flat_map(|(key, value)| ["--option".to_owned(), format!("{key}={value}")]));
        })?;
        let output = child.stdout.take().ok_or("the sandbox has no output")?;
        let ready = BufReader::new(output).lines().map_while(Result::ok).any(|line| line == "# ready");
        if !ready {
            return Err(with_log("the sandbox did not start", &self.folder.join("sandbox.log")));
        }
        let file = state.join("environment.json");
        let bytes = fs::read(&file).map_err(named(file.display()))?;
        let read: std::collections::BTreeMap<String, String> =
            serde_json::from_slice(&bytes).map_err(named(file.display()))?;
        self.environment = read.into_iter().collect();
        self.environment.push(("RELAY_TARGET_PUBLIC_KEY".to_owned(), self.target_public_key.clone()));
        self.environment.push(("RELAY_ANSWER_PUBLIC_KEY".to_owned(), self.answer_public_key.clone()));
        self.sandbox = self.variable("RELAY_SANDBOX_ENDPOINT")?;
        Ok(child)
    }

    /// A variable of the environment that `relay` receives.
    ///
    /// # Errors
    ///
    /// A message, if the sandbox does not set that variable.
    pub fn variable(&self, name: &str) -> Outcome<String> {
        let found = self.environment.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).ok_or_else(|| format!("the sandbox does not print {name}"))
    }

    fn make_function(&self, places: &Places, binaries: &Path) -> Outcome<()> {
        let code = pack_function(places, binaries)?;
        let variables = json!({
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT_URL_ECS": self.sandbox, "RELAY_TOPIC_ARN": TOPIC,
            "RELAY_CLUSTER": "relay", "RELAY_BUCKET": BUCKET, "RELAY_EVIDENCE_BUCKET": EVIDENCE,
            "RELAY_ANSWER_KEY": self.answer_key, "RELAY_CI_ACCOUNTS": CI,
        });
        let function = self.call(
            TARGET,
            "lambda",
            "CreateFunction",
            json!({
                "FunctionName": FUNCTION, "Runtime": "provided.al2023", "Handler": "bootstrap", "Timeout": 60, "MemorySize": 256,
                "Role": format!("arn:aws:iam::{TARGET}:role/relay/{FUNCTION}"), "Code": {"ZipFile": {"$file": code}},
                "Environment": {"Variables": variables},
            }),
        )?;
        let arn = text(&function, &["FunctionArn"])?;
        wait_for("the function to become active", START, || {
            let answer = self.call(TARGET, "lambda", "GetFunctionConfiguration", json!({"FunctionName": FUNCTION}))?;
            Ok((text(&answer, &["State"])? == "Active").then_some(()))
        })?;
        self.call(
            TARGET,
            "lambda",
            "AddPermission",
            json!({
                "FunctionName": FUNCTION, "StatementId": "topic", "Action": "lambda:InvokeFunction",
                "Principal": "sns.amazonaws.com", "SourceArn": TOPIC,
            }),
        )?;
        let subscription = json!({"TopicArn": TOPIC, "Protocol": "lambda", "Endpoint": arn});
        self.call(TARGET, "sns", "Subscribe", subscription).map(|_| ())
    }

    /// Starts `relay deploy` in the CI account.
    ///
    /// # Errors
    ///
    /// A message, if the process cannot be started.
    pub fn deploy(&self, arguments: &[&str]) -> Outcome<Deploying> {
        self.deploy_as(None, arguments)
    }

    /// Starts `relay deploy` as `caller`, or as the root user of the CI account if that is `None`.
    ///
    /// # Errors
    ///
    /// A message, if the process cannot be started.
    pub fn deploy_as(&self, caller: Option<&Caller>, arguments: &[&str]) -> Outcome<Deploying> {
        let folder = tempfile::tempdir_in(&self.folder).map_err(named("a folder for the result"))?.keep();
        let mut command = Command::new(bin_dir().join("relay"));
        command.arg("deploy").args(arguments).args(["--result-file", "result.json"]).current_dir(&folder);
        command.env_clear().envs(self.environment.iter().cloned());
        if let Some(caller) = caller {
            command.envs(caller.variables());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(named("relay"))?;
        let reader = |pipe: Option<Box<dyn std::io::Read + Send>>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
                bytes
            })
        };
        let stdout = reader(child.stdout.take().map(|pipe| Box::new(pipe) as _));
        let stderr = reader(child.stderr.take().map(|pipe| Box::new(pipe) as _));
        Ok(Deploying { child, stdout, stderr, result: folder.join("result.json") })
    }

    /// The sandbox's tasks that a deployment started.
    ///
    /// # Errors
    ///
    /// A message, if the sandbox does not answer or its answer is malformed.
    pub fn tasks(&self, deployment_id: &str) -> Outcome<Vec<Value>> {
        let text = get(&format!("{}/_sandbox/tasks", self.sandbox))?;
        let all: Vec<Value> = serde_json::from_str(&text).map_err(named("the sandbox's tasks"))?;
        Ok(all.into_iter().filter(|task| task["startedBy"] == deployment_id).collect())
    }

    /// The names of a deployment's objects in the evidence bucket, inside its folder, and the name
    /// of that folder. Without evidence, both are empty.
    ///
    /// # Errors
    ///
    /// A message with AWS's refusal, or with what prevented the call.
    pub fn evidence(&self, target: &str, deployment_id: &str) -> Outcome<(String, Vec<String>)> {
        let prefix = json!({"Bucket": EVIDENCE, "Prefix": format!("deployments/{target}/")});
        let listed = self.call(TARGET, "s3", "ListObjectsV2", prefix)?;
        let keys = listed["Contents"].as_array().into_iter().flatten().filter_map(|object| object["Key"].as_str());
        let of = format!("/{deployment_id}/");
        let found = keys.filter_map(|key| key.split_once(&of)).collect::<Vec<_>>();
        let folder = found.first().map(|(day, _)| format!("{day}{of}")).unwrap_or_default();
        Ok((folder, found.iter().map(|(_, name)| (*name).to_owned()).collect()))
    }

    /// The lines that the launcher logged about a deployment, read from CloudWatch Logs.
    ///
    /// # Errors
    ///
    /// A message, if botocore could not be asked. A log group that is missing is no error.
    pub fn launcher_log(&self, deployment_id: &str) -> Outcome<Vec<String>> {
        let group = json!({"logGroupName": format!("/aws/lambda/{FUNCTION}"), "limit": 10_000});
        // The log group appears with its first line.
        let Ok(answer) = self.ask(&Caller::root(TARGET), "logs", "FilterLogEvents", group)? else {
            return Ok(Vec::new());
        };
        let events = answer["events"].as_array().cloned().unwrap_or_default();
        let lines = events.iter().filter_map(|event| event["message"].as_str()).flat_map(str::lines);
        Ok(lines.filter(|line| line.contains(deployment_id)).map(str::to_owned).collect())
    }
}

/// What launcher and runner both may do.
fn both_may() -> Vec<Value> {
    let replies = format!("arn:aws:sqs:{REGION}:{CI}:relay-*-reply");
    let buckets = [BUCKET, EVIDENCE].map(|bucket| format!("arn:aws:s3:::{bucket}"));
    vec![
        json!({"Effect": "Allow", "Action": ["sqs:SendMessage", "sqs:SendMessageBatch"], "Resource": replies}),
        json!({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": buckets}),
    ]
}

/// The ARNs of objects in one folder of a bucket.
fn objects(bucket: &str, folder: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("arn:aws:s3:::{bucket}/{folder}/{name}")).collect()
}

fn start_ministack(places: &Places, permissions: Permissions) -> Outcome<(Child, String)> {
    let folder = places.folder.join("ministack");
    fs::create_dir_all(&folder).map_err(named(folder.display()))?;
    let port = free_port()?;
    let mut child = places.keep("ministack.log", |command| {
        command.arg(places.venv.join("bin/ministack")).current_dir(&folder).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &folder).env("TMPDIR", &folder);
        command.env("BIND_HOST", "127.0.0.1").env("GATEWAY_PORT", port.to_string()).env("MINISTACK_REGION", REGION);
        // ministack's MQTT listener has a fixed port and no test here needs it. Without it, several
        // instances can run side by side.
        command.env("IOT_MTLS_ENABLED", "0").env("AUTH", (permissions == Permissions::Checked).to_string());
    })?;
    let log = places.folder.join("ministack.out");
    let (mut output, mut file) = (child.stdout.take(), File::create(&log).map_err(named(log.display()))?);
    // A full pipe would block ministack.
    std::thread::spawn(move || output.as_mut().map(|output| std::io::copy(output, &mut file)));
    let endpoint = format!("http://127.0.0.1:{port}");
    wait_for("ministack to be ready", START, || {
        if let Some(status) = child.try_wait().map_err(named("ministack"))? {
            return Err(with_log(&format!("ministack ended with {status}"), &places.folder.join("ministack.log")));
        }
        Ok(get(&format!("{endpoint}/_ministack/ready")).ok().filter(|answer| answer.contains("\"completed\"")))
    })?;
    Ok((child, endpoint))
}

fn free_port() -> Outcome<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(named("a free port"))?;
    Ok(listener.local_addr().map_err(named("a free port"))?.port())
}

/// Makes a zip of the launcher without its symbols: ministack, like Lambda, rejects 250 MB.
fn pack_function(places: &Places, binaries: &Path) -> Outcome<PathBuf> {
    let (program, code) = (places.folder.join("bootstrap"), places.folder.join("function.zip"));
    let built = binaries.join("bootstrap");
    let stripped = Command::new("strip").arg("-o").arg(&program).arg(&built).status();
    if !stripped.is_ok_and(|status| status.success()) {
        fs::copy(&built, &program).map_err(named(built.display()))?;
    }
    let packed = Command::new(places.python()).args(["-m", "zipfile", "-c"]).arg(&code).arg(&program).status();
    fs::remove_file(&program).map_err(named(program.display()))?;
    if packed.map_err(named("python -m zipfile"))?.success() {
        Ok(code)
    } else {
        Err("python created no zip".to_owned())
    }
}

fn with_log(what: &str, log: &Path) -> String {
    format!("{what}; the log {}:\n{}", log.display(), fs::read_to_string(log).unwrap_or_default())
}

/// Fetches the body of a plain HTTP GET.
fn get(url: &str) -> Outcome<String> {
    let (host, path) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or("not a URL")?;
    let mut stream = TcpStream::connect(host).map_err(named(url))?;
    stream.set_read_timeout(Some(START)).map_err(named(url))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").map_err(named(url))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(named(url))?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or_else(|| format!("{url}: no answer"))
}

/// A running `relay deploy`.
#[derive(Debug)]
pub struct Deploying {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    result: PathBuf,
}

/// How a `relay deploy` ended.
#[derive(Debug)]
pub struct Deployed {
    /// The exit code; `None` if a signal ended the process.
    pub code: Option<i32>,
    /// Everything on stdout.
    pub stdout: Vec<u8>,
    /// Everything on stderr: relay's messages among the tool's output.
    pub stderr: Vec<u8>,
    /// The result file; null if there is none.
    pub result: Value,
}

impl Deploying {
    /// Sends SIGINT, as a CI system does to abort a job.
    ///
    /// # Errors
    ///
    /// A message, if `kill` fails.
    pub fn interrupt(&self) -> Outcome<()> {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().map_err(named("kill"))?;
        if sent.success() { Ok(()) } else { Err("cannot send SIGINT to relay".to_owned()) }
    }

    /// Waits up to three minutes for its end, and kills it after that.
    ///
    /// # Errors
    ///
    /// A message with its stderr, if it did not end in time.
    pub fn end(mut self) -> Outcome<Deployed> {
        let ended =
            wait_for("relay deploy to end", Duration::from_secs(180), || self.child.try_wait().map_err(named("relay")));
        if ended.is_err() {
            // It may have ended in the meantime.
            let _ = self.child.kill();
        }
        let status = self.child.wait().map_err(named("relay"))?;
        let join = |thread: JoinHandle<Vec<u8>>| thread.join().map_err(|_| "a reader panicked".to_owned());
        let (stdout, stderr) = (join(self.stdout)?, join(self.stderr)?);
        ended.map_err(|error| format!("{error}; it printed:\n{}", String::from_utf8_lossy(&stderr)))?;
        let result = fs::read(&self.result).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Deployed { code: status.code(), stdout, stderr, result: result.unwrap_or_default() })
    }
}

impl Deployed {
    /// Its stderr as text.
    pub fn words(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}
