//! `init`: writes the files of a first target from a few answers. It never overwrites a file, and
//! checks for existing files before it writes the first.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use relay_protocol::encoding::printable;
use relay_protocol::keys::{PrivateKey, VerifyingKey};
use relay_protocol::{AccountId, PublicKey, Region, TargetName};
use serde_json::json;

use crate::cli::{Ci, Init};

/// IAM's limit for the length of a role's name.
const ROLE_NAME_MAX: usize = 64;

/// Path of a new private key, in a folder that git ignores.
const KEY_FILE: &str = "keys/ci.pem";

/// Everything that the files are made from.
#[derive(Debug)]
struct Answers {
    target: TargetName,
    region: Region,
    target_account: AccountId,
    ci_account: AccountId,
    ci: Ci,
    /// The token's subject, or the ARN of CI's role.
    source: String,
    code_bucket: String,
    signer: PublicKey,
    new_key: Option<PrivateKey>,
    target_key: Option<String>,
    target_public_key: Option<PublicKey>,
    answer_public_key: Option<PublicKey>,
    arm64: bool,
}

/// Asks for what the flags leave out, writes the files and prints the next steps. Without a
/// terminal a missing flag is an error.
pub(crate) fn init(
    arguments: Init,
    terminal: Option<&mut dyn BufRead>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<u8, Failure> {
    let dir = arguments.dir.clone();
    let answers = answers(arguments, &mut Questions { terminal, err })?;
    let files = answers.files()?;
    let key = answers.new_key.as_ref().map(|key| (PathBuf::from(KEY_FILE), key.to_pem()));
    let paths: Vec<&Path> =
        files.iter().map(|(path, _)| path.as_path()).chain(key.as_ref().map(|k| k.0.as_path())).collect();
    // A dangling link counts as existing: a write would go through it.
    let there: Vec<String> = paths
        .iter()
        .filter(|path| dir.join(path).symlink_metadata().is_ok())
        .map(|path| dir.join(path).display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::usage(format!("nothing was written, as these files exist: {}", there.join(", "))));
    }
    for (path, text) in &files {
        write_new(&dir.join(path), text, 0o644)?;
    }
    if let Some((path, pem)) = &key {
        write_new(&dir.join(path), pem, 0o600)?;
    }
    for path in paths {
        writeln!(out, "wrote {}", dir.join(path).display())?;
    }
    write!(out, "{}", answers.next())?;
    Ok(0)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::usage(format!("cannot write {}: {error}; the files written before it remain", path.display()))
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// The source of the answers that the flags do not give.
struct Questions<'t, 'e, W> {
    terminal: Option<&'t mut dyn BufRead>,
    err: &'e mut W,
}

impl<W: Write> Questions<'_, '_, W> {
    /// Returns the value of the flag. Without one, asks the person until the answer is usable.
    fn ask<T, E: Display>(
        &mut self,
        flag: &str,
        question: &str,
        given: Option<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let wrong = |error: E| format!("{flag}: {error}");
        if let Some(text) = given {
            return read(&text).map_err(|error| Failure::usage(wrong(error)));
        }
        let missing = || Failure::usage(format!("{flag} is missing: pass it, or run relay-admin at a terminal"));
        let terminal = self.terminal.as_mut().ok_or_else(missing)?;
        loop {
            write!(self.err, "{question}: ")?;
            self.err.flush()?;
            let mut line = String::new();
            if terminal.read_line(&mut line)? == 0 {
                return Err(missing());
            }
            match read(line.trim()) {
                Ok(answer) => return Ok(answer),
                Err(error) => writeln!(self.err, "{}", printable(&wrong(error)))?,
            }
        }
    }
}

fn answers<W: Write>(arguments: Init, questions: &mut Questions<'_, '_, W>) -> Result<Answers, Failure> {
    let question = "Target, as service/environment, such as payments/production";
    let target = questions.ask("--target", question, arguments.target, target_name)?;
    let target_account: AccountId = questions.ask(
        "--target-account",
        "ID of the target account, the one to deploy to",
        arguments.target_account,
        str::parse,
    )?;
    let region: Region = questions.ask("--region", "Target region, such as eu-west-1", arguments.region, str::parse)?;
    let ci_account: AccountId =
        questions.ask("--ci-account", "ID of the account that CI runs in", arguments.ci_account, str::parse)?;
    let ci = questions.ask("--ci", "CI system: github, gitlab or jenkins", arguments.ci, |text| {
        clap::ValueEnum::from_str(text, false)
    })?;
    let question = match ci {
        Ci::Github => "Repository, owner/name",
        Ci::Gitlab => "Project, group/name",
        Ci::Jenkins => "ARN of the role of the Jenkins agents",
    };
    let source = questions.ask("--ci-source", question, arguments.ci_source, |text| {
        source(ci, text, &target, &ci_account, region.partition())
    })?;
    let code_bucket = questions.ask(
        "--code-bucket",
        "Bucket in the target account that will hold relay-launcher.zip",
        arguments.code_bucket,
        bucket,
    )?;
    let (signer, new_key) = match arguments.new_key {
        true => new_key()?,
        false => signer(arguments.signer_key, questions)?,
    };
    let home = format!("arn:{}:kms:{region}:{target_account}:key/", region.partition());
    let target_key = arguments.target_key.map(|arn| key_arn(arn, &home));
    let pin = |flag: &str, text: Option<String>| {
        let key = text.map(|text| public_key(&text)).transpose();
        key.map_err(|error| Failure::usage(format!("{flag}: {error}")))
    };
    Ok(Answers {
        target,
        region,
        target_account,
        ci_account,
        ci,
        source,
        code_bucket,
        signer,
        new_key,
        target_key: target_key.transpose()?,
        target_public_key: pin("--target-public-key", arguments.target_public_key)?,
        answer_public_key: pin("--answer-public-key", arguments.answer_public_key)?,
        arm64: arguments.arm64,
    })
}

fn target_name(text: &str) -> Result<TargetName, String> {
    let target: TargetName = text.parse().map_err(|error: relay_protocol::names::InvalidName| error.to_string())?;
    match runner_role(&target).len() {
        ..=ROLE_NAME_MAX => Ok(target),
        _ => Err("the name of the runner's role would be too long: choose a shorter target name".to_owned()),
    }
}

/// Returns CI's public key as given, or a new key pair.
fn signer<W: Write>(
    given: Option<String>,
    questions: &mut Questions<'_, '_, W>,
) -> Result<(PublicKey, Option<PrivateKey>), Failure> {
    let question = "CI's public signing key, in base64 (leave empty to make a new key pair)";
    let is_open = questions.terminal.is_some();
    let signer = questions.ask("--signer-key (or --new-key)", question, given, |text| match text {
        "" if is_open => Ok(None),
        text => public_key(text).map(Some),
    })?;
    match signer {
        Some(signer) => Ok((signer, None)),
        None => new_key(),
    }
}

/// Accepts only a KMS key of the target's account and region, whose ARN begins with `home`.
fn key_arn(arn: String, home: &str) -> Result<String, Failure> {
    match arn.strip_prefix(home) {
        Some(id) if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Ok(arn),
        _ => Err(Failure::usage(format!("--target-key: write the ARN of a key, which begins with {home}"))),
    }
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    let key: PublicKey = text.parse().map_err(|error: relay_protocol::names::InvalidName| error.to_string())?;
    VerifyingKey::from_spki(&key).map_err(|error| error.to_string())?;
    Ok(key)
}

fn new_key() -> Result<(PublicKey, Option<PrivateKey>), Failure> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Failure::usage(format!("cannot read random bytes from the system: {error}")))?;
    let key = PrivateKey::from_seed(seed);
    Ok((key.public().clone(), Some(key)))
}

/// Returns the one subject or role that ci-account.yaml will trust. A wildcard is an error.
fn source(ci: Ci, text: &str, target: &TargetName, account: &AccountId, partition: &str) -> Result<String, String> {
    let name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@-".contains(&b));
    let parts = text.split('/').count();
    let path = text.split('/').all(name);
    match ci {
        Ci::Github if parts == 2 && path => Ok(format!("repo:{text}:environment:{}", environment(target))),
        Ci::Gitlab if parts >= 2 && path => Ok(format!("project_path:{text}:ref_type:branch:ref:main")),
        Ci::Jenkins => {
            let home = format!("arn:{partition}:iam::{account}:role/");
            let role = text.strip_prefix(&home).unwrap_or_default();
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&b);
            match !role.is_empty() && !role.ends_with('/') && role.bytes().all(legal) {
                true => Ok(text.to_owned()),
                false => Err(format!("write the ARN of one role, which begins with {home}")),
            }
        }
        Ci::Github => Err("write it as owner/name".to_owned()),
        Ci::Gitlab => Err("write it as group/name".to_owned()),
    }
}

fn bucket(text: &str) -> Result<String, &'static str> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    match (3..=63).contains(&text.len()) && text.bytes().all(legal) {
        true => Ok(text.to_owned()),
        false => Err("not a bucket name"),
    }
}

/// The last part of the target's name.
fn environment(target: &TargetName) -> &str {
    target.as_str().split_once('/').map_or("", |(_, environment)| environment)
}

/// The target's name in a form that files, stacks and roles can carry.
fn flat(target: &TargetName) -> String {
    target.as_str().replace('/', "-")
}

fn runner_role(target: &TargetName) -> String {
    format!("relay-{}", flat(target))
}

/// Formats parameters as `aws cloudformation deploy --parameter-overrides file://…` reads them.
fn parameters(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| json!({ "ParameterKey": name, "ParameterValue": value })).collect();
    format!("{:#}\n", json!(pairs))
}

impl Answers {
    fn partition(&self) -> &'static str {
        self.region.partition()
    }

    fn topic(&self) -> String {
        format!("arn:{}:sns:{}:{}:relay", self.partition(), self.region, self.target_account)
    }

    /// The ARN of the role that CI publishes with.
    fn ci_role(&self) -> String {
        match self.ci {
            Ci::Github | Ci::Gitlab => {
                format!("arn:{}:iam::{}:role/relay-ci/relay-ci", self.partition(), self.ci_account)
            }
            Ci::Jenkins => self.source.clone(),
        }
    }

    fn code_key(&self) -> String {
        let architecture = if self.arm64 { "arm64" } else { "x86_64" };
        format!("relay-launcher-{}-{architecture}.zip", env!("CARGO_PKG_VERSION"))
    }

    fn files(&self) -> Result<Vec<(PathBuf, String)>, Failure> {
        let name = flat(&self.target);
        let (ci_file, ci) = match self.ci {
            Ci::Github => ("ci/github.yml", self.github()),
            Ci::Gitlab => ("ci/gitlab.yml", self.gitlab()),
            Ci::Jenkins => ("ci/Jenkinsfile", self.jenkins()),
        };
        let mut files = vec![
            ("relay.toml".into(), self.relay_toml()),
            (format!("targets/{name}.toml").into(), self.target_toml()),
            (format!("targets/{name}.policy.json").into(), deploy_policy()),
            ("parameters/ci-account.json".into(), self.ci_account_parameters()),
            ("parameters/foundation.json".into(), self.foundation_parameters()),
            (ci_file.into(), ci),
        ];
        if self.new_key.is_some() {
            files.push(("keys/.gitignore".into(), "*\n".to_owned()));
        }
        Ok(files)
    }

    fn relay_toml(&self) -> String {
        let pin = |name: &str, key: &Option<PublicKey>| match key {
            Some(key) => format!("{name} = \"{key}\""),
            None => format!("# {name} = \"MFkw…\""),
        };
        let from = match (&self.target_public_key, &self.answer_public_key) {
            (Some(_), Some(_)) => "",
            _ => {
                "# Both keys come from the target's stack, by its output RelayToml. Until they are set, relay deploys nothing.\n"
            }
        };
        let pins = format!(
            "{from}{}\n{}",
            pin("target_key", &self.target_public_key),
            pin("answer_key", &self.answer_public_key)
        );
        let key = match &self.new_key {
            Some(_) => format!(
                "# For use on a workstation. In CI the secret RELAY_SIGNING_KEY takes precedence.\nkey = \"{KEY_FILE}\"\n"
            ),
            None => String::new(),
        };
        format!(
            r#"# What `relay deploy` needs to know about each target. Flags and environment variables take precedence.
[targets."{target}"]
topic = "{topic}"
artifact_store = "s3://relay-artifacts-{ci}-{region}/{{target}}/"
{pins}
{key}"#,
            target = self.target,
            topic = self.topic(),
            ci = self.ci_account,
            region = self.region,
        )
    }

    fn target_toml(&self) -> String {
        let (partition, region, account) = (self.partition(), &self.region, &self.target_account);
        let target_key = self.target_key.clone().unwrap_or_else(|| self.target.key_alias());
        format!(
            r#"# What may run in this target, and who may request it.
target = "{target}"
topic = "{topic}"
bucket = "relay-{account}-{region}"
evidence = "relay-evidence-{account}-{region}"
target_key = "{target_key}"
runner_role = "{runner_role}"
# The tool's role. Its permissions are in {name}.policy.json.
role = "arn:{partition}:iam::{account}:role/relay-deploy/{name}"
timeout = "45m"
cancel = {{ signal = "INT", grace = "90s" }}
policy = '''permit(principal in Group::"ci", action in [Action::"deploy", Action::"cancel"], resource);'''

# Name your images here before you render the template: by the digests of the manifests, for the
# architecture that runs.
# [images]
# tool = "REPOSITORY@sha256:…"
# runner = "REPOSITORY@sha256:…"

[parameters]
version = {{ pattern = "[A-Za-z0-9._-]{{1,64}}" }}

[[signers]]
name = "ci"
key = "{signer}"
groups = ["ci"]
ci_accounts = ["{ci_account}"]

# This step shows that the set-up works. Replace it with the steps that deploy, such as
# run = ["terraform", "apply", "-input=false", "-auto-approve", "-var", "version={{version}}"]
[[steps]]
name = "hello"
run = ["echo", "deploying {{version}}"]
"#,
            target = self.target,
            topic = self.topic(),
            runner_role = runner_role(&self.target),
            name = flat(&self.target),
            signer = self.signer,
            ci_account = self.ci_account,
        )
    }

    fn ci_account_parameters(&self) -> String {
        let (provider, subjects, role) = match self.ci {
            Ci::Github => ("github", self.source.as_str(), ""),
            Ci::Gitlab => ("gitlab", self.source.as_str(), ""),
            Ci::Jenkins => ("none", "", self.source.rsplit('/').next().unwrap_or_default()),
        };
        parameters(&[
            ("Provider", provider),
            ("CreateProvider", "false"),
            ("Subjects", subjects),
            ("ExistingRoleName", role),
            ("TopicArns", &self.topic()),
            ("QueueRegions", self.region.as_str()),
            ("TargetAccountIds", self.target_account.as_str()),
        ])
    }

    fn foundation_parameters(&self) -> String {
        parameters(&[
            ("CiAccountIds", self.ci_account.as_str()),
            ("CiRoleArns", &self.ci_role()),
            ("CodeBucket", &self.code_bucket),
            ("CodeKey", &self.code_key()),
            ("Architecture", if self.arm64 { "arm64" } else { "x86_64" }),
        ])
    }

    fn github(&self) -> String {
        format!(
            r#"# For .github/workflows/deploy.yml. `relay` must be on the runner's PATH. The secret RELAY_SIGNING_KEY belongs to the environment
# `{environment}`, whose branches and reviewers you choose. Pin the actions to a commit.
name: deploy {target}
on:
  push: {{ branches: [main] }}
permissions:
  contents: read
  id-token: write
jobs:
  deploy:
    runs-on: ubuntu-latest
    environment: {environment}
    concurrency: relay {target}
    steps:
      - uses: actions/checkout@v5
      - uses: aws-actions/configure-aws-credentials@v5
        with:
          role-to-assume: {role}
          aws-region: {region}
      - run: exec relay deploy {target} --param "version=$GITHUB_SHA"
        env:
          RELAY_SIGNING_KEY: ${{{{ secrets.RELAY_SIGNING_KEY }}}}
"#,
            environment = environment(&self.target),
            target = self.target,
            role = self.ci_role(),
            region = self.region,
        )
    }

    fn gitlab(&self) -> String {
        format!(
            r#"# For .gitlab-ci.yml. `relay` must be in the job's image. RELAY_SIGNING_KEY is a protected variable of type File.
deploy {target}:
  stage: deploy
  environment: {environment}
  resource_group: {target}
  rules:
    - if: $CI_COMMIT_BRANCH == "main"
  id_tokens:
    AWS_TOKEN: {{ aud: sts.amazonaws.com }}
  variables:
    AWS_REGION: {region}
    AWS_ROLE_ARN: {role}
  script:
    - export AWS_WEB_IDENTITY_TOKEN_FILE="$(mktemp)"
    - printf %s "$AWS_TOKEN" > "$AWS_WEB_IDENTITY_TOKEN_FILE"
    - exec relay deploy {target} --param "version=$CI_COMMIT_SHA"
"#,
            environment = environment(&self.target),
            target = self.target,
            role = self.ci_role(),
            region = self.region,
        )
    }

    fn jenkins(&self) -> String {
        format!(
            r#"// `relay` must be on the agents' PATH, and the agents must have the role {role}.
pipeline {{
    agent any
    options {{ disableConcurrentBuilds() }}
    environment {{ AWS_REGION = '{region}' }}
    stages {{
        stage('deploy {target}') {{
            steps {{
                withCredentials([file(credentialsId: 'relay-signing-key', variable: 'RELAY_SIGNING_KEY')]) {{
                    sh 'exec relay deploy {target} --param "version=$GIT_COMMIT"'
                }}
            }}
        }}
    }}
}}
"#,
            role = self.source,
            region = self.region,
            target = self.target,
        )
    }

    /// The next steps. Their paths under infra/ are those of relay's own repository.
    fn next(&self) -> String {
        let (region, name) = (&self.region, flat(&self.target));
        let deploy = |stack: &str, template: &str| {
            format!(
                "aws cloudformation deploy --region {region} --stack-name {stack} --template-file {template} --capabilities CAPABILITY_NAMED_IAM"
            )
        };
        // This template is too large to be passed inline.
        let foundation = format!("{} --s3-bucket {}", deploy("relay", "infra/foundation.yaml"), self.code_bucket);
        let provider = match self.ci {
            Ci::Github | Ci::Gitlab => {
                "\n   (set CreateProvider to true in that file if the account has no OpenID Connect provider for this CI system yet)"
            }
            Ci::Jenkins => "",
        };
        let secret = match &self.new_key {
            Some(_) => format!("\nGive {KEY_FILE} to CI as the secret RELAY_SIGNING_KEY.\n"),
            None => String::new(),
        };
        let outputs = match (&self.target_public_key, &self.answer_public_key) {
            (Some(_), Some(_)) => String::new(),
            _ => format!(
                "\n   then print both pins, and put them into relay.toml:\n   eval \"$(aws cloudformation describe-stacks --region {region} --stack-name relay-{name} --query \"Stacks[0].Outputs[?OutputKey=='RelayToml'].OutputValue\" --output text)\""
            ),
        };
        format!(
            "\nNext steps (infra/ is in relay's repository):\n\n\
             1. in the CI account {ci_account}:\n   {ci} --parameter-overrides file://parameters/ci-account.json{provider}\n\n\
             2. in the target account {target_account}, once relay-launcher.zip is at s3://{bucket}/{code_key}:\n   {foundation} --parameter-overrides file://parameters/foundation.json\n\n\
             3. name your images in targets/{name}.toml; then, in the target account as well:\n   relay-admin target render targets/{name}.toml --deploy-policy targets/{name}.policy.json{arm64} --out {name}.yaml\n   {target} --parameter-overrides VpcId=vpc-… Subnets=subnet-…,subnet-…{outputs}\n\
             {secret}\nThen, in a CI job: relay doctor --try {target_name}\n",
            ci_account = self.ci_account,
            target_account = self.target_account,
            bucket = self.code_bucket,
            code_key = self.code_key(),
            arm64 = if self.arm64 { " --arm64" } else { "" },
            ci = deploy("relay-ci", "infra/ci-account.yaml"),
            target = deploy(&format!("relay-{name}"), &format!("{name}.yaml")),
            target_name = self.target,
        )
    }
}

/// A minimal policy that IAM accepts. `sts:GetCallerIdentity` needs no permission anyway.
fn deploy_policy() -> String {
    let statement = json!({
        "Sid": "ReplaceWithWhatTheToolNeeds", "Effect": "Allow", "Action": "sts:GetCallerIdentity", "Resource": "*",
    });
    format!("{:#}\n", json!({ "Version": "2012-10-17", "Statement": [statement] }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    /// Returns the exit code, standard output and the questions that were asked.
    fn at_a_terminal(dir: &Path, flags: &[&str], typed: &str) -> (Result<u8, Failure>, String, String) {
        let arguments = [&["relay-admin", "init", dir.to_str().unwrap()], flags].concat();
        let Command::Init(arguments) = Cli::try_parse_from(arguments).unwrap().command else { panic!("not init") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = init(*arguments, Some(&mut typed.as_bytes()), &mut out, &mut err);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn it_asks_for_what_the_flags_do_not_say_until_it_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let typed = "payments\npayments/production\n22\n222222222222\n111111111111\nteamcity\njenkins\n\
                     arn:aws:iam::999999999999:role/agents\narn:aws:iam::111111111111:role/ci/agents\ncode-bucket\n\n";
        let (result, out, err) = at_a_terminal(dir.path(), &["--region", "eu-west-1"], typed);
        assert_eq!(result.unwrap(), 0, "{err}");
        assert!(!err.contains("region"), "{err}");
        for asked_again in [
            "not a target such as",
            "not an AWS account id",
            "invalid variant",
            "begins with arn:aws:iam::111111111111:role/",
        ] {
            assert!(err.contains(asked_again), "{asked_again}: {err}");
        }
        assert!(out.contains("ci/Jenkinsfile") && out.contains("keys/ci.pem"), "{out}");
        let parameters = std::fs::read_to_string(dir.path().join("parameters/ci-account.json")).unwrap();
        assert!(parameters.contains("\"agents\"") && parameters.contains("\"none\""), "{parameters}");
    }

    #[test]
    fn a_person_who_leaves_has_written_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (result, _, _) = at_a_terminal(dir.path(), &[], "payments/production\n");
        assert!(result.unwrap_err().to_string().contains("--target-account is missing"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn no_source_has_a_wildcard_or_is_of_another_account() {
        let target: TargetName = "a/b".parse().unwrap();
        let account: AccountId = "111111111111".parse().unwrap();
        let source = |ci, text| source(ci, text, &target, &account, "aws");
        assert_eq!(source(Ci::Github, "octo@1/shop@2").unwrap(), "repo:octo@1/shop@2:environment:b");
        assert_eq!(source(Ci::Gitlab, "a/b/c").unwrap(), "project_path:a/b/c:ref_type:branch:ref:main");
        for (ci, odd) in [
            (Ci::Github, "octo"),
            (Ci::Github, "octo/*"),
            (Ci::Github, "octo/"),
            (Ci::Github, "octo/a:environment:x"),
            (Ci::Gitlab, "a"),
            (Ci::Gitlab, "a/*"),
            (Ci::Jenkins, "agents"),
            (Ci::Jenkins, "arn:aws:iam::222222222222:role/agents"),
            (Ci::Jenkins, "arn:aws:iam::111111111111:role/*"),
        ] {
            assert!(source(ci, odd).is_err(), "{odd}");
        }
    }
}
