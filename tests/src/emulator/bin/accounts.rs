//! Two ministack accounts, installed as infra/README.md describes, and one target: `example/shop`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use relay_tests::emulator::{
    CI, Caller, Outcome, Permissions, REGION, TARGET, World, task_credentials, text, wait_for,
};
use serde_json::{Value, json};

use crate::deviations::{self, File as Template};
use crate::image::Image;

pub(crate) const TOPIC: &str = "arn:aws:sns:eu-west-1:222222222222:relay";
pub(crate) const BUCKET: &str = "relay-222222222222-eu-west-1";
pub(crate) const EVIDENCE: &str = "relay-evidence-222222222222-eu-west-1";
pub(crate) const ARTIFACTS: &str = "relay-artifacts-111111111111-eu-west-1";
pub(crate) const CI_ROLE: &str = "arn:aws:iam::111111111111:role/relay-ci/relay-ci";
pub(crate) const RUNNER_ROLE: &str = "arn:aws:iam::222222222222:role/relay/runner/relay-example-shop";
pub(crate) const DEPLOY_ROLE: &str = "arn:aws:iam::222222222222:role/relay-deploy/shop";
/// The alias of the target key.
pub(crate) const TARGET_KEY: &str = "alias/relay-example-shop";
pub(crate) const BOUNDARY: &str = "arn:aws:iam::222222222222:policy/relay/relay-boundary-eu-west-1";
/// The bucket with the launcher's zip.
const CODE: &str = "example-code";
/// The password that the tool prints. It must be masked in the output.
pub(crate) const PASSWORD: &str = "correct-horse-battery";
/// The timeout for every step. It is generous: nothing waits for it to pass, it only ends a wait
/// that hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(100);

/// The tool. It prints a line, waits for permission to continue if the request says so, and ends
/// with the exit code from the request.
const STEP: &str = "cat source/hello; echo \"the password is $PASSWORD\" >&2; [ \"$2\" = no ] || until [ -e /work/go ]; do sleep 0.1; done; \
                    echo made > made; echo \"made=yes\" >> \"$RELAY_OUTPUT\"; echo done; exit \"$1\"";

/// The permissions of the deploy role.
const DEPLOY_POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"Setting","Effect":"Allow","Action":"ssm:GetParameter","Resource":"arn:aws:ssm:eu-west-1:222222222222:parameter/shop/setting"}]}"#;

pub(crate) fn named<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Runs a command and returns its stdout.
pub(crate) fn said(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output().map_err(named(command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Runs `docker` with these arguments and returns its stdout.
pub(crate) fn docker(arguments: &[&str]) -> Outcome<String> {
    said(Command::new("docker").args(arguments))
}

/// The two accounts, ready for deployments. Dropping the value removes its containers and images.
pub(crate) struct Accounts {
    pub(crate) world: World,
    /// The ARN of the target key.
    pub(crate) target_key: String,
    /// The ARN of the answer key.
    pub(crate) answer_key: String,
    pub(crate) ledger_key: String,
    /// CI's key in KMS, which signs the requests.
    pub(crate) request_key: String,
    /// CI's session of the role in ci-account.yaml.
    pub(crate) ci: Caller,
    /// The runner's session, the one that the task uses.
    pub(crate) runner: Caller,
    permissions: bool,
    package: PathBuf,
    image: Image,
    /// The environment of the CI job.
    environment: BTreeMap<&'static str, String>,
}

impl Accounts {
    /// Installs the package that `cargo xtask package` made in `package`.
    pub(crate) fn make(name: &str, package: &Path, permissions: bool) -> Outcome<Self> {
        docker(&["version", "--format", "{{.Server.Version}}"]).map_err(named("a Docker engine is needed"))?;
        let mut world = World::empty(name, if permissions { Permissions::Checked } else { Permissions::Unchecked })?;
        let package = package.canonicalize().map_err(named(package.display()))?;
        let served = world.folder.join("served");
        fs::create_dir(&served).map_err(named(served.display()))?;
        let files = world.serve(&served)?;
        let image = Image::make(&world.folder.join("image"), &package, &files)?;
        let mut this = Self {
            target_key: String::new(),
            answer_key: String::new(),
            ledger_key: String::new(),
            request_key: String::new(),
            ci: Caller::root(CI),
            runner: Caller::root(TARGET),
            permissions,
            package,
            image,
            environment: BTreeMap::new(),
            world,
        };
        this.install_ci()?;
        this.install_foundation()?;
        this.install_target()?;
        if permissions {
            this.put_boundaries()?;
        }
        this.ci = this.ci_session("repo:example/shop:environment:production")??;
        this.runner = this.runner_session(&served)?;
        Ok(this)
    }

    fn install_ci(&mut self) -> Outcome<()> {
        let provider =
            json!({"Url": "https://token.actions.githubusercontent.com", "ClientIDList": ["sts.amazonaws.com"]});
        self.world.call(CI, "iam", "CreateOpenIDConnectProvider", provider)?;
        let parameters = [
            "Provider=github",
            "CreateProvider=false",
            "Subjects=repo:example/shop:environment:production",
            &format!("TopicArns={TOPIC}"),
            &format!("QueueRegions={REGION}"),
            &format!("TargetAccountIds={TARGET}"),
            "SigningKey=true",
        ];
        let outputs = self.stack(CI, "relay-ci", (&template("ci-account.yaml")?, Some(Template::Ci)), &parameters)?;
        self.request_key =
            outputs.get("SigningKeyArn").cloned().ok_or("ci-account.yaml has no output SigningKeyArn")?;
        Ok(())
    }

    fn install_foundation(&mut self) -> Outcome<()> {
        let code = json!({"Bucket": CODE, "CreateBucketConfiguration": {"LocationConstraint": REGION}});
        self.world.call(TARGET, "s3", "CreateBucket", code)?;
        let zip = json!({"$file": self.package.join("relay-launcher.zip")});
        let zip = json!({"Bucket": CODE, "Key": "relay-launcher.zip", "Body": zip});
        self.world.call(TARGET, "s3", "PutObject", zip)?;
        let parameters = [
            &format!("CiAccountIds={CI}"),
            &format!("CiRoleArns={CI_ROLE}"),
            &format!("CodeBucket={CODE}"),
            "CodeKey=relay-launcher.zip",
            &format!("Architecture={}", if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" }),
        ];
        self.stack(TARGET, "relay", (&template("foundation.yaml")?, Some(Template::Foundation)), &parameters)?;
        self.answer_key = self.key_of("alias/relay-answer")?;
        self.ledger_key = self.key_of("alias/relay-ledger")?;
        wait_for("the launcher to be active", LIMIT, || {
            let name = json!({"FunctionName": "relay-launcher"});
            let function = self.world.call(TARGET, "lambda", "GetFunctionConfiguration", name)?;
            Ok((text(&function, &["State"])? == "Active").then_some(()))
        })
    }

    #[allow(clippy::too_many_lines, reason = "it contains a configuration")]
    fn install_target(&mut self) -> Outcome<()> {
        let secret = json!({"Name": "shop/password", "SecretString": PASSWORD});
        let secret = text(&self.world.call(TARGET, "secretsmanager", "CreateSecret", secret)?, &["ARN"])?;
        for (name, kind) in [("/shop/token", "SecureString"), ("/shop/setting", "String")] {
            self.world.call(TARGET, "ssm", "PutParameter", json!({"Name": name, "Type": kind, "Value": "any"}))?;
        }
        let folder = self.world.folder.join("target");
        fs::create_dir_all(folder.join("source")).map_err(named(folder.display()))?;
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).map_err(named(name));
        write("source/hello", "hello from the artifact\n")?;
        write("policy.json", DEPLOY_POLICY)?;
        let signer = self.public_key(CI, &self.request_key)?;
        let configuration = format!(
            r#"target = "example/shop"
topic = "{TOPIC}"
bucket = "{BUCKET}"
evidence = "{EVIDENCE}"
target_key = "{TARGET_KEY}"
runner_role = "relay-example-shop"
role = "{DEPLOY_ROLE}"
endpoint = "{endpoint}"
policy = '''permit(principal in Group::"ci", action, resource);'''

[parameters]
code = {{ pattern = "[0-9]{{1,3}}" }}
wait = {{ pattern = "yes|no" }}
source = {{ artifact = "s3://{ARTIFACTS}/example/shop/", max = "1MiB" }}

[environment]
PATH = "/bin"

[secrets]
PASSWORD = "{secret}"
TOKEN = "arn:aws:ssm:{REGION}:{TARGET}:parameter/shop/token"

[[signers]]
name = "ci"
key = "{signer}"
groups = ["ci"]
ci_accounts = ["{CI}"]

[[steps]]
name = "build"
run = ["sh", "-c", {step}, "sh", "{{code}}", "{{wait}}"]
save = ["made"]
"#,
            endpoint = self.world.endpoint,
            step = json!(STEP),
        );
        write("shop.toml", &configuration)?;
        let mut render = Command::new(self.package.join("relay-admin"));
        render.args(["target", "render", "shop.toml", "--deploy-policy", "policy.json", "--image"]);
        let rendered = said(render.arg(self.image.named()).current_dir(&folder))?;
        let network =
            self.stack(TARGET, "relay-network", (&template("network.yaml")?, None), &[&format!("CiAccountIds={CI}")])?;
        let parameters: Vec<String> = ["VpcId", "Subnets"]
            .iter()
            .map(|name| format!("{name}={}", network.get(*name).map(String::as_str).unwrap_or_default()))
            .collect();
        let parameters: Vec<&str> = parameters.iter().map(String::as_str).collect();
        let outputs = self.stack(TARGET, "relay-example-shop", (&rendered, Some(Template::Target)), &parameters)?;
        self.target_key = self.key_of(TARGET_KEY)?;
        let print = outputs.get("RelayToml").ok_or("the target's stack has no output RelayToml")?;
        let pins = said(self.aws_environment(TARGET, Command::new("sh").args(["-c", print])))?;
        fs::write(self.pins(), pins).map_err(named("relay.toml"))?;
        self.environment = BTreeMap::from([
            ("RELAY_SIGNING_KEY", self.request_key.clone()),
            ("RELAY_ARTIFACT_STORE", format!("s3://{ARTIFACTS}/{{target}}/")),
            ("AWS_ENDPOINT_URL", self.world.endpoint.clone()),
            ("AWS_REGION", REGION.to_owned()),
        ]);
        Ok(())
    }

    /// The relay.toml that the target's stack printed: topic and pins.
    pub(crate) fn pins(&self) -> PathBuf {
        self.world.folder.join("relay.toml")
    }

    /// The ARN of the key with this alias.
    fn key_of(&self, alias: &str) -> Outcome<String> {
        text(&self.world.call(TARGET, "kms", "DescribeKey", json!({"KeyId": alias}))?, &["KeyMetadata", "Arn"])
    }

    /// Gives a command the AWS CLI, as the root user of `account`.
    fn aws_environment<'a>(&self, account: &str, command: &'a mut Command) -> &'a mut Command {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = [self.world.venv.join("bin")].into_iter().chain(std::env::split_paths(&inherited));
        command.env_clear().env("PATH", std::env::join_paths(path).unwrap_or_default());
        command.envs(Caller::root(account).variables()).env("AWS_ENDPOINT_URL", &self.world.endpoint);
        command.env("AWS_DEFAULT_REGION", REGION).env("AWS_PAGER", "")
    }

    /// Copies a folder of the evidence bucket to this machine with the AWS CLI, as an auditor does.
    pub(crate) fn copy_evidence(&self, folder: &str) -> Outcome<PathBuf> {
        let to = tempfile::tempdir_in(&self.world.folder).map_err(named("a folder for the evidence"))?.keep();
        let mut aws = Command::new("aws");
        aws.args(["s3", "cp", "--recursive", &format!("s3://{EVIDENCE}/{folder}")]).arg(&to);
        said(self.aws_environment(TARGET, &mut aws))?;
        Ok(to)
    }

    /// Runs `relay verify` on a folder, with the pins and without any credentials. Returns the exit
    /// code and what it printed.
    pub(crate) fn verify(&self, folder: &Path) -> Outcome<(Option<i32>, String)> {
        let mut relay = Command::new(self.package.join("relay"));
        relay.arg("verify").arg(folder).arg("--config").arg(self.pins()).env_clear();
        let output = relay.stdin(Stdio::null()).output().map_err(named("relay"))?;
        let words = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&words).into_owned()))
    }

    fn public_key(&self, account: &str, key: &str) -> Outcome<String> {
        text(&self.world.call(account, "kms", "GetPublicKey", json!({"KeyId": key}))?, &["PublicKey", "$bytes"])
    }

    fn put_boundaries(&self) -> Outcome<()> {
        let roles = self.world.call(TARGET, "iam", "ListRoles", json!({"PathPrefix": "/relay/"}))?;
        roles["Roles"].as_array().into_iter().flatten().try_for_each(|role| {
            let boundary = json!({"RoleName": role["RoleName"], "PermissionsBoundary": BOUNDARY});
            self.world.call(TARGET, "iam", "PutRolePermissionsBoundary", boundary).map(|_| ())
        })
    }

    /// Creates a stack with the AWS CLI, as a person would. Returns its outputs.
    fn stack(
        &self,
        account: &str,
        name: &str,
        (template, kind): (&str, Option<Template>),
        parameters: &[&str],
    ) -> Outcome<BTreeMap<String, String>> {
        let template = match kind {
            Some(kind) => deviations::apply(kind, template, &self.world.endpoint, self.permissions)?,
            None => template.to_owned(),
        };
        let file = self.world.folder.join(format!("{name}.yaml"));
        fs::write(&file, template).map_err(named(file.display()))?;
        let mut aws = Command::new("aws");
        aws.args(["cloudformation", "deploy", "--stack-name", name, "--capabilities", "CAPABILITY_NAMED_IAM"]);
        aws.arg("--template-file").arg(&file).arg("--parameter-overrides").args(parameters);
        if kind == Some(Template::Foundation) {
            // It is too large for a request.
            aws.args(["--s3-bucket", CODE]);
        }
        if let Err(problem) = said(self.aws_environment(account, &mut aws)) {
            let events =
                self.world.call(account, "cloudformation", "DescribeStackEvents", json!({"StackName": name}))?;
            let events = events["StackEvents"].as_array().cloned().unwrap_or_default();
            let failed = events.iter().filter(|event| event["ResourceStatus"].as_str() == Some("CREATE_FAILED"));
            failed.for_each(|event| eprintln!("{event}"));
            return Err(problem);
        }
        println!("stack {name} in {account}");
        let stacks = self.world.call(account, "cloudformation", "DescribeStacks", json!({"StackName": name}))?;
        let outputs = stacks["Stacks"][0]["Outputs"].as_array().cloned().unwrap_or_default();
        outputs.iter().map(|output| Ok((text(output, &["OutputKey"])?, text(output, &["OutputValue"])?))).collect()
    }

    /// The session that a GitHub Actions job with this `sub` gets. The inner error is a refusal by
    /// STS.
    pub(crate) fn ci_session(&self, subject: &str) -> Outcome<Outcome<Caller>> {
        let part = |value: Value| {
            relay_protocol::encoding::base64(value.to_string().as_bytes())
                .replace('+', "-")
                .replace('/', "_")
                .replace('=', "")
        };
        let claims =
            json!({"iss": "https://token.actions.githubusercontent.com", "aud": "sts.amazonaws.com", "sub": subject});
        let token = format!("{}.{}.none", part(json!({"alg": "RS256", "typ": "JWT"})), part(claims));
        let parameters = json!({"RoleArn": CI_ROLE, "RoleSessionName": "job-1", "WebIdentityToken": token});
        let answer = self.world.ask(&Caller::root(CI), "sts", "AssumeRoleWithWebIdentity", parameters)?;
        Ok(answer.map_err(|refused| refused.to_string()).and_then(|answer| Caller::session(&answer)))
    }

    /// Acts for ECS: puts the runner's session into the folder from which the task fetches it.
    fn runner_session(&self, served: &Path) -> Outcome<Caller> {
        let name = RUNNER_ROLE.rsplit('/').next().unwrap_or_default();
        let role = self.world.call(TARGET, "iam", "GetRole", json!({"RoleName": name}))?;
        let trust = |document: &Value| {
            let parameters = json!({"RoleName": name, "PolicyDocument": document.to_string()});
            self.world.call(TARGET, "iam", "UpdateAssumeRolePolicy", parameters)
        };
        let root = json!({"AWS": format!("arn:aws:iam::{TARGET}:root")});
        trust(
            &json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"}]}),
        )?;
        let session =
            self.world.call(TARGET, "sts", "AssumeRole", json!({"RoleArn": RUNNER_ROLE, "RoleSessionName": "task"}))?;
        trust(&role["Role"]["AssumeRolePolicyDocument"])?;
        let credentials = task_credentials(RUNNER_ROLE, &session);
        let served = served.join("example/shop");
        fs::create_dir_all(&served).map_err(named(served.display()))?;
        fs::write(served.join("credentials.json"), credentials.to_string()).map_err(named("credentials.json"))?;
        Caller::session(&session)
    }

    /// Starts `relay deploy example/shop` as the CI job.
    pub(crate) fn deploy(&self, arguments: &[&str]) -> Outcome<Deployment> {
        let folder = tempfile::tempdir_in(&self.world.folder).map_err(named("a folder for the result"))?.keep();
        let file = |name: &str| File::create(folder.join(name)).map_err(named(name));
        let mut relay = Command::new(self.package.join("relay"));
        relay.args(["deploy", "example/shop", "--config"]).arg(self.pins()).args(arguments).current_dir(&folder);
        if !arguments.contains(&"--dry-run") {
            relay.args(["--result-file", "result.json"]);
        }
        if !arguments.contains(&"--artifact") {
            relay.arg("--artifact").arg(format!("source={}", self.world.folder.join("target/source").display()));
        }
        relay.env_clear().envs(&self.environment).envs(self.ci.variables());
        relay.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?);
        Ok(Deployment { child: relay.spawn().map_err(named("relay"))?, folder })
    }

    /// The ids of the running containers.
    pub(crate) fn containers(&self) -> Outcome<Vec<String>> {
        let running = docker(&["ps", "--quiet", "--filter", &format!("ancestor={}", self.image.name)])?;
        Ok(running.lines().map(str::to_owned).collect())
    }

    /// Lets the waiting tool continue.
    pub(crate) fn go(&self) -> Outcome<()> {
        let file = self.world.folder.join("target/source/hello").display().to_string();
        for container in self.containers()? {
            docker(&["cp", &file, &format!("{container}:/work/go")])?;
        }
        Ok(())
    }

    /// An error with the last log lines of the launcher and the tasks.
    pub(crate) fn with_logs(&self, error: &str) -> String {
        let last = |text: String| {
            let lines: Vec<&str> = text.lines().collect();
            lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
        };
        let log = |group| self.log(group).map_or_else(|error| error, last);
        format!("{error}\n--- the launcher\n{}\n--- the tasks\n{}", log("/relay/launcher"), log("/relay/tasks"))
    }

    /// A log group of the target account, as one text.
    pub(crate) fn log(&self, group: &str) -> Outcome<String> {
        // The streams appear with their first line.
        let events = self.world.ask(
            &Caller::root(TARGET),
            "logs",
            "FilterLogEvents",
            json!({"logGroupName": group, "limit": 10_000}),
        )?;
        let events = events.unwrap_or_default()["events"].as_array().cloned().unwrap_or_default();
        Ok(events.iter().filter_map(|event| event["message"].as_str()).collect::<Vec<_>>().join("\n"))
    }
}

fn template(name: &str) -> Outcome<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra").join(name);
    fs::read_to_string(&file).map_err(named(file.display()))
}

/// A running `relay deploy`. Dropping the value kills it.
pub(crate) struct Deployment {
    child: Child,
    folder: PathBuf,
}

/// The result of a `relay deploy` that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) result: Value,
}

impl Deployment {
    pub(crate) fn stdout(&self) -> String {
        self.read("stdout")
    }

    pub(crate) fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join(name)).unwrap_or_default()).into_owned()
    }

    pub(crate) fn interrupt(&self) -> Outcome<()> {
        said(Command::new("kill").args(["-INT", &self.child.id().to_string()])).map(|_| ())
    }

    pub(crate) fn has_ended(&mut self) -> Outcome<Option<i32>> {
        Ok(self.child.try_wait().map_err(named("relay"))?.map(|status| status.code().unwrap_or(-1)))
    }

    pub(crate) fn end(mut self) -> Outcome<Ended> {
        let code = wait_for("relay deploy to end", LIMIT, || self.has_ended());
        let code = code.map_err(|error| format!("{error}; it printed:\n{}", self.stderr()))?;
        let result = serde_json::from_str(&self.read("result.json")).unwrap_or_default();
        Ok(Ended { code: Some(code), stdout: self.stdout(), stderr: self.stderr(), result })
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // In most cases it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
