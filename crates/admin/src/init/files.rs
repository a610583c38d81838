//! The texts of the files that `init` writes, and of the next steps.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use relay_protocol::PublicKey;
use serde_json::json;

use super::answers::{Answers, environment, runner_role};
use crate::cli::Ci;
use crate::install::{self, flat};

/// Path of a new private key, in a folder that git ignores.
pub(super) const KEY_FILE: &str = "keys/ci.pem";

/// Writes a new file, with its folders.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::usage(format!("cannot write {}: {error}; the files written before it remain", path.display()))
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// The parameters of a stack, by name.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// Formats parameters as `aws cloudformation deploy --parameter-overrides file://…` reads them.
fn parameters(pairs: &Parameters) -> String {
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| json!({ "ParameterKey": name, "ParameterValue": value })).collect();
    format!("{:#}\n", json!(pairs))
}

/// How relay.toml begins.
pub(super) const HEAD: &str =
    "# What `relay deploy` needs to know about each target. Flags and environment variables take precedence.\n";

impl Answers {
    fn partition(&self) -> &'static str {
        self.region.partition()
    }

    pub(super) fn topic(&self) -> String {
        install::topic(&self.region, &self.target_account)
    }

    /// The ARN of the role that CI publishes with.
    pub(super) fn ci_role(&self) -> String {
        match self.ci {
            Ci::Github | Ci::Gitlab => {
                format!("arn:{}:iam::{}:role/relay-ci/relay-ci", self.partition(), self.ci_account)
            }
            Ci::Jenkins => self.source.clone(),
        }
    }

    pub(super) fn code_key(&self) -> String {
        let architecture = if self.arm64 { "arm64" } else { "x86_64" };
        format!("relay-launcher-{}-{architecture}.zip", env!("CARGO_PKG_VERSION"))
    }

    pub(super) fn files(&self) -> Result<Vec<(PathBuf, String)>, Failure> {
        let name = flat(&self.target);
        let (ci_file, ci) = match self.ci {
            Ci::Github => ("ci/github.yml", self.github()),
            Ci::Gitlab => ("ci/gitlab.yml", self.gitlab()),
            Ci::Jenkins => ("ci/Jenkinsfile", self.jenkins()),
        };
        let mut files = vec![
            ("relay.toml".into(), self.relay_toml()),
            (format!("targets/{name}.toml").into(), self.target_toml()?),
            (format!("targets/{name}.policy.json").into(), deploy_policy()),
            ("parameters/ci-account.json".into(), parameters(&self.ci_account_parameters())),
            ("parameters/foundation.json".into(), parameters(&self.foundation_parameters())),
            (ci_file.into(), ci),
        ];
        if self.new_key.is_some() {
            files.push(("keys/.gitignore".into(), "*\n".to_owned()));
        }
        Ok(files)
    }

    fn relay_toml(&self) -> String {
        format!("{HEAD}{}", self.section())
    }

    /// The target's section of relay.toml.
    pub(super) fn section(&self) -> String {
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
        let key = match (&self.kms_key, &self.new_key) {
            (Some(arn), _) => format!("# In KMS; CI's role may sign with it.\nkey = \"{arn}\"\n"),
            (None, Some(_)) => format!(
                "# For use on a workstation. In CI the secret RELAY_SIGNING_KEY takes precedence.\nkey = \"{KEY_FILE}\"\n"
            ),
            (None, None) => String::new(),
        };
        format!(
            r#"[targets."{target}"]
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

    fn target_toml(&self) -> Result<String, Failure> {
        let signer = self.signer.as_ref().ok_or_else(|| Failure::usage("CI has no public key yet"))?;
        let (partition, region, account) = (self.partition(), &self.region, &self.target_account);
        let target_key = self.target_key.clone().unwrap_or_else(|| self.target.key_alias());
        Ok(format!(
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
{endpoint}policy = '''@id("ci-deploys") permit(principal in Group::"ci", action in [Action::"deploy", Action::"cancel"], resource);'''

{images}
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
            images = self.images(),
            endpoint = self.endpoint.as_ref().map(|url| format!("endpoint = {}\n", json!(url))).unwrap_or_default(),
            ci_account = self.ci_account,
        ))
    }

    /// The table of images, or how to write it.
    fn images(&self) -> String {
        if self.endpoint.is_some() && self.image.is_some() {
            return "# The emulator reports no digests of images, so the images are in the template alone.\n"
                .to_owned();
        }
        match (&self.image, &self.runner_image) {
            (Some(tool), Some(runner)) => {
                format!("[images]\ntool = \"{}\"\nrunner = \"{}\"\n", tool.name(), runner.name())
            }
            (Some(tool), None) => format!("[images]\ntool = \"{}\"\n", tool.name()),
            (None, _) => "# Name your images here before you render the template: by the digests of the manifests, for the\n\
                          # architecture that runs.\n# [images]\n# tool = \"REPOSITORY@sha256:…\"\n# runner = \"REPOSITORY@sha256:…\"\n"
                .to_owned(),
        }
    }

    /// The parameters of ci-account.yaml.
    pub(super) fn ci_account_parameters(&self) -> Parameters {
        let (provider, subjects, role) = match self.ci {
            Ci::Github => ("github", self.source.as_str(), ""),
            Ci::Gitlab => ("gitlab", self.source.as_str(), ""),
            Ci::Jenkins => ("none", "", self.source.rsplit('/').next().unwrap_or_default()),
        };
        vec![
            ("Provider", provider.to_owned()),
            ("CreateProvider", "false".to_owned()),
            ("Subjects", subjects.to_owned()),
            ("ExistingRoleName", role.to_owned()),
            ("TopicArns", self.topic()),
            ("QueueRegions", self.region.to_string()),
            ("TargetAccountIds", self.target_account.to_string()),
        ]
    }

    /// The parameters of foundation.yaml.
    pub(super) fn foundation_parameters(&self) -> Parameters {
        vec![
            ("CiAccountIds", self.ci_account.to_string()),
            ("CiRoleArns", self.ci_role()),
            ("CodeBucket", self.code_bucket.clone()),
            ("CodeKey", self.code_key()),
            ("Architecture", if self.arm64 { "arm64" } else { "x86_64" }.to_owned()),
        ]
    }

    fn github(&self) -> String {
        let (whose, secret) = match &self.kms_key {
            Some(_) => ("CI's role belongs to the environment", ""),
            None => (
                "The secret RELAY_SIGNING_KEY belongs to the environment",
                "        env:\n          RELAY_SIGNING_KEY: ${{ secrets.RELAY_SIGNING_KEY }}\n",
            ),
        };
        format!(
            r#"# For .github/workflows/deploy.yml. `relay` must be on the runner's PATH. {whose}
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
{secret}"#,
            environment = environment(&self.target),
            target = self.target,
            role = self.ci_role(),
            region = self.region,
        )
    }

    fn gitlab(&self) -> String {
        let secret = match &self.kms_key {
            Some(_) => "",
            None => " RELAY_SIGNING_KEY is a protected variable of type File.",
        };
        format!(
            r#"# For .gitlab-ci.yml. `relay` must be in the job's image.{secret}
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
        let deploy = format!("sh 'exec relay deploy {} --param \"version=$GIT_COMMIT\"'", self.target);
        let with = "withCredentials([file(credentialsId: 'relay-signing-key', variable: 'RELAY_SIGNING_KEY')])";
        let step = match &self.kms_key {
            Some(_) => format!("                {deploy}\n"),
            None => format!("                {with} {{\n                    {deploy}\n                }}\n"),
        };
        format!(
            r#"// `relay` must be on the agents' PATH, and the agents must have the role {role}.
pipeline {{
    agent any
    options {{ disableConcurrentBuilds() }}
    environment {{ AWS_REGION = '{region}' }}
    stages {{
        stage('deploy {target}') {{
            steps {{
{step}            }}
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
    pub(super) fn next(&self) -> String {
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
