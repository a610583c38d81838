//! The command line, and the help that a platform team reads.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use relay_protocol::{DeploymentId, ParameterName, Timestamp};

use crate::image::Image;

/// For platform teams: set relay up, check and try out its targets, see and stop what runs, read what ran. Only `ps`, `stop` and `log` call AWS.
///
/// Exit codes: 0 yes, 1 no, 119 usage or configuration, 125 AWS said no or nothing.
#[derive(Debug, Parser)]
#[command(name = "relay-admin", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A target's configuration: check it, ask it, pin it.
    #[command(subcommand)]
    Target(Target),
    /// Write the files of a first target: relay.toml, its configuration, template parameters, a CI job.
    ///
    /// At a terminal it asks for what the flags do not say. It overwrites nothing: if one of the files exists, none is written.
    #[command(after_help = "Example:
  relay-admin init --target payments/production --target-account 222222222222 --region eu-west-1 --ci-account 111111111111 \\
      --ci github --ci-source example/payments --code-bucket example-code --new-key")]
    Init(Box<Init>),
    /// List the deployments that are alive. Needs ecs:ListTasks and ecs:DescribeTasks in the target account.
    Ps(Ps),
    /// Stop a deployment by its task: break glass, as who started it can cancel it in CI.
    ///
    /// Needs ecs:ListTasks, ecs:DescribeTasks and ecs:StopTask in the target account. Exits with 1 when there is nothing to stop.
    Stop(Stop),
    /// Print what a deployment printed, from the archive, verified.
    ///
    /// Needs s3:GetObject and s3:ListBucket on the relay bucket, and kms:GetPublicKey on the target key. Exits with 0 when all of it is there, else with 1.
    Log(Log),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// Say what is wrong with configurations, and what is legal but probably a mistake.
    ///
    /// Exits with 0 when there is nothing to say, 1 when there is, 119 when a file could not be read. For a commit hook and for CI.
    Check {
        /// Configurations.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say whether a request would be allowed, by which policy, and what would run.
    ///
    /// Decides with the same code as the launcher and the runner. Nothing is sent, and no key is needed.
    ///
    /// Exits with 0 when it is allowed, 1 when it is denied, 119 when the question could not be put.
    #[command(after_help = "Examples:
  relay-admin target test payments.toml --signer ci --param image=sha256:00ff
  relay-admin target test payments.toml --signer ci --param image=sha256:00ff --approved-by anna
  relay-admin target test payments.toml --signer ci --request request.json --at 2026-11-21T12:00:00Z
  relay-admin target test payments.toml --request bundle.json    (signed: says who signed it)")]
    Test(Test),
    /// Write the CloudFormation template of a target: task definition, the runner's role, the tool's role, security group.
    ///
    /// The template imports from the stack of foundation.yaml. Its policy statements are exactly what this configuration needs.
    #[command(after_help = "Example:
  relay-admin target render payments.toml --image terraform@sha256:… --runner-image relay-runner@sha256:… \\
      --deploy-policy payments-role.json --out payments.yaml
  aws cloudformation deploy --stack-name relay-payments --template-file payments.yaml --capabilities CAPABILITY_NAMED_IAM \\
      --parameter-overrides VpcId=vpc-… Subnets=subnet-…,subnet-…")]
    Render(Render),
    /// Print what the task definition of a target must have: its family, and the entry point that pins the configuration, as JSON.
    Pin {
        /// A configuration. Its bytes, as they are, are the value of RELAY_CONFIGURATION.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where the runner lies in the container.
        #[arg(long, value_name = "PATH", default_value = "/relay/relay-runner")]
        runner: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Render {
    /// The target's configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The image with the tool, by its digest.
    #[arg(long, value_name = "NAME@sha256:…")]
    pub(crate) image: Image,
    /// The runner's image, whose runner is copied beside the tool. Leave it out when the tool's image has it at /relay/relay-runner.
    #[arg(long, value_name = "NAME@sha256:…")]
    pub(crate) runner_image: Option<Image>,
    /// CPU units: 256 to 16384 [1024 is one vCPU].
    #[arg(long, value_name = "UNITS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..=16_384))]
    pub(crate) cpu: u32,
    /// Memory in MiB; Fargate allows certain pairs with the CPU units.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(512..=122_880))]
    pub(crate) memory: u32,
    /// The images are for arm64.
    #[arg(long)]
    pub(crate) arm64: bool,
    /// What the tool may do: an IAM policy in JSON, which becomes part of the deploy role.
    #[arg(long, value_name = "FILE")]
    pub(crate) deploy_policy: Option<PathBuf>,
    /// A managed policy for the deploy role; may be repeated.
    #[arg(long = "managed-policy", value_name = "ARN")]
    pub(crate) managed_policies: Vec<String>,
    /// The deploy role is made elsewhere, and trusts the runner's role with sts:AssumeRole, sts:SetSourceIdentity and sts:TagSession.
    #[arg(long)]
    pub(crate) no_deploy_role: bool,
    /// A KMS key of your own that a secret is encrypted with; may be repeated.
    #[arg(long = "secrets-key", value_name = "ARN")]
    pub(crate) secrets_keys: Vec<String>,
    /// Where the template goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder in which the files are made.
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// What is deployed to, such as payments/production.
    #[arg(long, value_name = "SERVICE/ENVIRONMENT")]
    pub(crate) target: Option<String>,
    /// The account that is deployed to.
    #[arg(long, value_name = "ID")]
    pub(crate) target_account: Option<String>,
    /// Its region.
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The account that CI is in.
    #[arg(long, value_name = "ID")]
    pub(crate) ci_account: Option<String>,
    /// The CI system: github, gitlab or jenkins.
    #[arg(long, value_name = "SYSTEM")]
    pub(crate) ci: Option<String>,
    /// What may ask: owner/repository (github; owner@id/repository@id where the token's subject has ids), group/project (gitlab, its
    /// branch main), or the ARN of the role that the agents have (jenkins).
    #[arg(long, value_name = "NAME|ARN")]
    pub(crate) ci_source: Option<String>,
    /// Bucket in the target account and region that holds relay-launcher.zip.
    #[arg(long, value_name = "NAME")]
    pub(crate) code_bucket: Option<String>,
    /// CI's public key, as `relay keygen` or KMS prints it.
    #[arg(long, value_name = "BASE64")]
    pub(crate) signer_key: Option<String>,
    /// Make CI's key pair here: keys/ci.pem, which git is told to ignore.
    #[arg(long, conflicts_with = "signer_key")]
    pub(crate) new_key: bool,
    /// The target key, where the foundation is there already: its output TargetKeyArn.
    #[arg(long, value_name = "ARN")]
    pub(crate) target_key: Option<String>,
    /// The public half of the target key: what the foundation's output TargetPublicKey prints.
    #[arg(long, value_name = "BASE64")]
    pub(crate) target_public_key: Option<String>,
    /// The launcher and the images are for arm64.
    #[arg(long)]
    pub(crate) arm64: bool,
}

/// CI systems that there is a job to write for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ci {
    Github,
    Gitlab,
    Jenkins,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The cluster.
    #[arg(long, default_value = "relay")]
    pub(crate) cluster: String,
    /// A table, or one JSON object a line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// For people, or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The deployment, as `relay-admin ps` and the CI log show it.
    #[arg(value_name = "ID")]
    pub(crate) id: DeploymentId,
    /// The cluster.
    #[arg(long, default_value = "relay")]
    pub(crate) cluster: String,
    /// Why; it shows in ECS, beside who did it.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The target's configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The deployment, as the CI log shows it.
    #[arg(value_name = "ID")]
    pub(crate) id: DeploymentId,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The target's configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A request as JSON, or a signed bundle (an SNS body, or the value of RELAY_ENVELOPE), which is then verified.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// Who asks: the name, the public key or the key id of one of the target's signers.
    #[arg(long, value_name = "NAME|KEY", required_unless_present = "request")]
    pub(crate) signer: Option<String>,
    /// A parameter; may be repeated. An artifact's value is its SHA-256.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter, conflicts_with = "request")]
    pub(crate) parameters: Vec<(ParameterName, String)>,
    /// So many persons have approved, whoever they are.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) approvals: u8,
    /// This signer has approved; may be repeated. Who asks does not count, by whichever key.
    #[arg(long, value_name = "NAME|KEY", conflicts_with = "approvals")]
    pub(crate) approved_by: Vec<String>,
    /// When it is decided, and, with --param, when it is asked: YYYY-MM-DDTHH:MM:SSZ [default: the request's own time, or now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
}

fn parameter(text: &str) -> Result<(ParameterName, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.parse().map_err(|error: relay_protocol::names::InvalidName| error.to_string())?, value.to_owned()))
}
