//! `aws` as programs under test find it on the PATH: the AWS CLI, with templates and task
//! definitions adapted to ministack by [`deviations`]. So the programs know nothing of ministack.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use relay_tests::emulator::{CI, Outcome, Permissions, REGION, TARGET, World, task_credentials};
use serde_json::{Value, json};

use crate::accounts::{named, said};
use crate::deviations::{self, File};
use crate::image::{Image, REPOSITORY};

/// The variable with the path of the real AWS CLI.
const REAL: &str = "RELAY_EMULATOR_AWS";
/// The variable with the folder from which tasks fetch their sessions.
const SERVED: &str = "RELAY_EMULATOR_SERVED";

/// Two empty ministack accounts, as a person with the AWS CLI sees them.
pub(crate) struct Lab {
    pub(crate) world: World,
    pub(crate) image: Image,
    package: PathBuf,
    /// Profiles `ci` and `target`, ministack's address, and the folder with `aws` in front on the
    /// PATH.
    environment: Vec<(&'static str, String)>,
}

impl Lab {
    /// Starts ministack, for the programs of a package.
    pub(crate) fn make(name: &str, package: &Path) -> Outcome<Self> {
        let mut world = World::empty(name, Permissions::Unchecked)?;
        let package = package.canonicalize().map_err(named(package.display()))?;
        let served = world.folder.join("served");
        fs::create_dir(&served).map_err(named(served.display()))?;
        let files = world.serve(&served)?;
        let image = Image::make(&world.folder.join("image"), &package, &files)?;
        let programs = world.folder.join("programs");
        fs::create_dir_all(&programs).map_err(named(programs.display()))?;
        let this = std::env::current_exe().map_err(named("this program"))?;
        let aws = programs.join("aws");
        fs::write(&aws, format!("#!/bin/sh\nexec '{}' aws \"$@\"\n", this.display())).map_err(named(aws.display()))?;
        fs::set_permissions(&aws, fs::Permissions::from_mode(0o755)).map_err(named(aws.display()))?;
        let profile = |name: &str, account: &str| {
            format!(
                "[profile {name}]\nregion = {REGION}\naws_access_key_id = {account}\naws_secret_access_key = test\n"
            )
        };
        let file = world.folder.join("aws-config");
        fs::write(&file, profile("ci", CI) + &profile("target", TARGET)).map_err(named(file.display()))?;
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&inherited)));
        let environment = vec![
            ("PATH", path.map_err(named("PATH"))?.to_string_lossy().into_owned()),
            ("HOME", world.folder.display().to_string()),
            ("AWS_CONFIG_FILE", file.display().to_string()),
            ("AWS_ENDPOINT_URL", world.endpoint.clone()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            (REAL, world.venv.join("bin/aws").display().to_string()),
            (SERVED, served.display().to_string()),
        ];
        Ok(Self { world, image, package, environment })
    }

    /// One of the package's programs, in a folder and in this environment.
    pub(crate) fn program(&self, name: &str, folder: &Path) -> Command {
        let mut command = Command::new(self.package.join(name));
        command.current_dir(folder).env_clear().envs(self.environment.iter().cloned()).stdin(Stdio::null());
        command
    }
}

/// Runs a person's command in this folder, with the package's programs on the PATH and the name of
/// an image with a shell in IMAGE.
pub(crate) fn accounts(package: &Path, command: &[&str]) -> Outcome<()> {
    let lab = Lab::make("accounts", package)?;
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(lab.environment.iter().filter(|(name, _)| *name != "HOME").cloned());
    let path = lab.environment.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path.as_str());
    let path = format!("{}:{}", path.unwrap_or_default(), lab.package.display());
    command.env("PATH", path).env("IMAGE", lab.image.named());
    let status = command.status().map_err(named(program))?;
    if status.success() { Ok(()) } else { Err(format!("{program} ends with {status}")) }
}

/// Runs the AWS CLI with adapted arguments, and passes its exit code on.
pub(crate) fn run(arguments: &[&str]) -> ExitCode {
    match adapted(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn adapted(arguments: &[&str]) -> Outcome<u8> {
    let mut arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let after = |arguments: &[String], name: &str| arguments.iter().position(|one| one == name).map(|at| at + 1);
    let (mut target, mut adapted_file) = (None, None);
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["cloudformation", "deploy", ..] => {
            let at = after(&arguments, "--template-file").ok_or("no --template-file")?;
            let text = fs::read_to_string(&arguments[at]).map_err(named(&arguments[at]))?;
            let kind = kind(&text);
            let endpoint = std::env::var("AWS_ENDPOINT_URL").map_err(named("AWS_ENDPOINT_URL"))?;
            let new = match kind {
                Some(kind) => deviations::apply(kind, &text, &endpoint, false)?,
                None => text,
            };
            let file = tempfile::NamedTempFile::new().map_err(named("a file for the template"))?;
            fs::write(file.path(), &new).map_err(named(file.path().display()))?;
            arguments[at] = file.path().display().to_string();
            adapted_file = Some(file);
            if kind == Some(File::Ci) {
                make_provider(&mut arguments)?;
            }
            target = (kind == Some(File::Target)).then_some(new);
        }
        ["ecs", "register-task-definition", ..] => {
            let at = after(&arguments, "--cli-input-json").ok_or("no --cli-input-json")?;
            arguments[at] = arguments[at]
                .replace(&format!("\"{REPOSITORY}@sha256:"), "\"sha256:")
                .replace("\"awsvpc\"", "\"host\"");
        }
        _ => {}
    }
    let status = real().args(&arguments).status().map_err(named("the AWS CLI"))?;
    drop(adapted_file);
    if let (Some(template), true) = (target, status.success()) {
        serve_session(&template, &who(&arguments))?;
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The AWS CLI. Its version 1 does not take SQS's address from AWS_ENDPOINT_URL.
fn real() -> Command {
    let mut aws = Command::new(std::env::var_os(REAL).unwrap_or_default());
    aws.arg("--endpoint-url").arg(std::env::var_os("AWS_ENDPOINT_URL").unwrap_or_default());
    aws
}

/// The options of a call that say whose it is, and where.
fn who(arguments: &[String]) -> Vec<String> {
    let pairs = arguments.windows(2).filter(|pair| pair[0] == "--profile" || pair[0] == "--region");
    pairs.flat_map(<[String]>::to_vec).collect()
}

/// Which of relay's templates a text is; `None` for network.yaml and foreign ones, which ministack
/// takes as they are.
fn kind(text: &str) -> Option<File> {
    let is = |words: &str| text.contains(words);
    match () {
        () if is("Written by `relay-admin target render`") => Some(File::Target),
        () if is("relay in the CI account:") => Some(File::Ci),
        () if is("RELAY_FROZEN: !Ref Frozen") => Some(File::Foundation),
        () => None,
    }
}

/// CloudFormation makes no OpenID Connect provider, so a call to IAM does.
fn make_provider(arguments: &mut [String]) -> Outcome<()> {
    if let Some(at) = arguments.iter().position(|one| one == "CreateProvider=true") {
        arguments[at] = "CreateProvider=false".to_owned();
        let issuer = match arguments.iter().any(|one| one == "Provider=gitlab") {
            true => "https://gitlab.com",
            false => "https://token.actions.githubusercontent.com",
        };
        said(real().args(["iam", "create-open-id-connect-provider", "--url", issuer]).args(who(arguments)))?;
    }
    Ok(())
}

/// Acts for ECS: puts a session of the runner's role where the target's tasks fetch it.
fn serve_session(template: &str, who: &[String]) -> Outcome<()> {
    let quoted = |after: &str| {
        let (_, rest) = template.split_once(after).ok_or_else(|| format!("the template has no {after}"))?;
        rest.split('"').nth(1).map(str::to_owned).ok_or_else(|| format!("no text after {after}"))
    };
    let (target, role) = (quoted("Key: relay-target, Value: ")?, quoted("RoleName: ")?);
    let call = |arguments: &[&str]| -> Outcome<Value> {
        let answer = said(real().args(arguments).args(who).args(["--output", "json"]))?;
        if answer.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&answer).map_err(named("the answer")) }
    };
    let of = call(&["iam", "get-role", "--role-name", &role])?;
    let trust = |document: &Value| {
        call(&["iam", "update-assume-role-policy", "--role-name", &role, "--policy-document", &document.to_string()])
    };
    let root = json!({"AWS": format!("arn:aws:iam::{TARGET}:root")});
    trust(
        &json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": root, "Action": "sts:AssumeRole"}]}),
    )?;
    let arn = of["Role"]["Arn"].as_str().unwrap_or_default();
    let session = call(&["sts", "assume-role", "--role-arn", arn, "--role-session-name", "task"])?;
    trust(&of["Role"]["AssumeRolePolicyDocument"])?;
    let folder = PathBuf::from(std::env::var_os(SERVED).unwrap_or_default()).join(target);
    fs::create_dir_all(&folder).map_err(named(folder.display()))?;
    let file = folder.join("credentials.json");
    fs::write(&file, task_credentials(arn, &session).to_string()).map_err(named(file.display()))
}
