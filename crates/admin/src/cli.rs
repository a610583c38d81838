//! The command line of `relay-admin`. Its doc comments are the `--help` that platform teams read.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use relay_console::manual::Shell;
use relay_protocol::{DeploymentId, ParameterName, Region, TargetName, Timestamp};

use relay_policy::Image;

/// Set up relay for a platform team: write and check targets, list and stop deployments, read their
/// output.
///
/// Exit codes: 0 success; 1 the check failed, or there was nothing to do; 119 the command line or
/// the configuration is wrong; 125 AWS refused a call or did not answer.
#[derive(Debug, Parser)]
#[command(name = "relay-admin", version = relay_console::version(), propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Work on a target's configuration: check it, try it out, render it, pin it.
    #[command(subcommand)]
    Target(Target),
    /// Write the files of a first target: relay.toml, the target's configuration, template
    /// parameters and a CI job. With --apply, install relay and the target in both accounts.
    ///
    /// At a terminal it asks for what the flags leave out. It never overwrites a file: if one of
    /// the files exists, it writes none; with --apply it keeps those that exist, and adds the
    /// target to relay.toml.
    #[command(after_help = "Example:
  relay-admin init --target payments/production --target-account 222222222222 \\
      --region eu-west-1 --ci-account 111111111111 --ci github --ci-source example/payments \\
      --code-bucket example-code --new-key")]
    Init(Box<Init>),
    /// Compare the files of targets with what is deployed, over many accounts: that relay is
    /// installed, with the launcher of this version, and that exactly this file is pinned.
    ///
    /// It only reads. Needs the AWS CLI. Exits with 1 when a target needs somebody.
    #[command(after_help = "Example:
  relay-admin doctor --all --profile 'audit-{account}'")]
    Doctor(Doctor),
    /// Remove targets, or relay itself, from an account. Shows the plan, and does nothing without
    /// --apply.
    ///
    /// Buckets with evidence and artifacts, and KMS keys, stay. Needs the AWS CLI. Exits with 1
    /// when there is nothing to remove.
    #[command(after_help = "Example:
  relay-admin remove payments/staging --profile target
  relay-admin remove payments/staging --foundation --profile target --apply")]
    Remove(Remove),
    /// Try out, in two AWS accounts, everything that relay assumes about AWS, and run deployments.
    ///
    /// It installs relay, makes what the checks need, writes a signed report without account
    /// numbers, and takes everything down again, also after Ctrl-C. Use accounts that have no relay
    /// and nothing of value, with profiles that may administer them. Needs the AWS CLI. KMS keys
    /// stay pending deletion for seven days, and inactive task definitions stay listed.
    ///
    /// Exits with 0 when every check ends as on AWS, or differs as --known-differences says, and
    /// with 1 otherwise.
    #[command(after_help = "Example:
  relay-admin selftest --ci-profile ci --target-profile target --region eu-west-1 \\
      --image 222222222222.dkr.ecr.eu-west-1.amazonaws.com/shell@sha256:… \\
      --runner-image 222222222222.dkr.ecr.eu-west-1.amazonaws.com/relay-runner@sha256:… --dry-run")]
    Selftest(Box<Selftest>),
    /// List the deployments that are alive. Needs ecs:ListTasks and ecs:DescribeTasks in the target
    /// account.
    Ps(Ps),
    /// Stop a deployment's task directly in ECS, in an emergency. Otherwise cancel it in CI, or
    /// with `relay cancel`.
    ///
    /// Needs ecs:ListTasks, ecs:DescribeTasks and ecs:StopTask in the target account. Exits with 1
    /// when there is nothing to stop.
    Stop(Stop),
    /// Show or clear the locks of a target, which keep its deployments from running side by side.
    #[command(subcommand)]
    Lock(Lock),
    /// List or revoke the keys of token issuers, by which tokens are judged.
    #[command(subcommand)]
    Issuer(Issuer),
    /// Verify the ledger of the evidence: that no claim and no record was removed or changed.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Verify a deployment's archived output, and print it.
    ///
    /// Needs s3:GetObject and s3:ListBucket on the evidence bucket, kms:Decrypt on the key that
    /// encrypts the bucket, and kms:GetPublicKey on the target key. Exits with 0 when the output is
    /// complete, and with 1 when it is not, or when the archive does not have the deployment's last
    /// message.
    Log(Log),
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the manual pages, for whoever packages relay.
    #[command(hide = true)]
    Man {
        /// The folder to write to.
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Issuer {
    /// List the keys that the function relay-jwks has fetched.
    ///
    /// Needs s3:GetObject and s3:ListBucket on the relay bucket.
    List {
        /// The configuration of a target in this account and region.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Revoke a key: nothing that it signed is accepted any longer, also if the issuer still lists
    /// it. Running deployments go on.
    ///
    /// Needs s3:GetObject, s3:ListBucket and s3:PutObject on the relay bucket. Exits with 1 when
    /// there is no such key.
    Revoke {
        /// The configuration of a target in this account and region.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The issuer, as `list` prints it.
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// The name of the key, as `list` prints it.
        #[arg(long, value_name = "KID")]
        kid: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Compare every entry with its predecessor, and every claim and record with the ledger.
    ///
    /// Not covered are deployments that were never claimed, and objects that were removed before an
    /// entry listed them; for these, compare with CloudTrail. Needs s3:GetObject and s3:ListBucket
    /// on the evidence bucket. Exits with 0 if everything is there and unchanged, and with 1 if
    /// not.
    Verify(VerifyLedger),
}

#[derive(Debug, Args)]
pub(crate) struct VerifyLedger {
    /// The configuration of a target in this account and region.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The ledger's public key in base64, from a safe place. After a rotation, each of them,
    /// the newest first.
    #[arg(long = "key", value_name = "BASE64", required = true)]
    pub(crate) keys: Vec<String>,
    /// Days for which the foundation keeps the evidence (its parameter EvidenceRetentionDays).
    #[arg(long, value_name = "DAYS", default_value_t = 400)]
    pub(crate) retention_days: u16,
    /// Compare the entries with their copies in this bucket too (the foundation's parameter
    /// LedgerArchiveBucket).
    #[arg(long, value_name = "BUCKET")]
    pub(crate) archive: Option<String>,
    /// A file of CloudTrail with RunTask events, in JSON: each that started a task of relay's must
    /// have a claim of its target. May be repeated.
    #[arg(long = "cloudtrail", value_name = "FILE")]
    pub(crate) trails: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lock {
    /// Show who holds each slot of a target, and whether ECS knows its task.
    ///
    /// Needs s3:GetObject on the relay bucket and ecs:DescribeTasks in the target account.
    Show {
        /// The target's configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Free a slot whose holder is gone. relay does so by itself once ECS says that the holder's
    /// task has stopped, or has not known it for ten minutes.
    ///
    /// Refuses while ECS knows a task of the holder that has not stopped. Needs s3:GetObject and
    /// s3:PutObject on the relay bucket, and ecs:DescribeTasks. Exits with 1 when nothing was
    /// freed.
    Clear {
        /// The target's configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The number of the slot, as `show` prints it.
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        slot: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Target {
    /// Check configurations for errors, and for what is legal but probably a mistake.
    ///
    /// Exits with 0 when it finds nothing, 1 when it finds a problem, and 119 when it cannot read a
    /// file. Use it in a commit hook and in CI.
    Check {
        /// The configurations to check.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show whether a request would be allowed, by which policy, and what would run.
    ///
    /// Nothing is sent, and no key is needed. The launcher and the runner use the code that decides
    /// here.
    ///
    /// Exits with 0 when the request is allowed, 1 when it is denied, and 119 when it cannot be
    /// evaluated.
    #[command(after_help = "Examples:
  relay-admin target test payments.toml --signer ci --param image=sha256:00ff
  relay-admin target test payments.toml --signer ci --param image=sha256:00ff --approved-by anna
  relay-admin target test payments.toml --signer ci --request request.json --at 2026-11-21T12:00:00Z
  relay-admin target test payments.toml --request bundle.json    (signed; prints who signed it)")]
    Test(Test),
    /// Prove properties of a target's policies for every request that there could be, or show a
    /// request that breaks one. Needs relay-prove and the solver cvc5.
    ///
    /// A property is a condition that every permitted request fulfils, such as
    /// `context.approvals >= 1`. Exits with 0 when all hold, and with 1 when one does not.
    Prove {
        /// The target's configuration.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The properties [default: FILE with the ending .properties.toml]
        #[arg(long, value_name = "FILE")]
        properties: Option<PathBuf>,
    },
    /// Prove that a new version of a target's policies permits nothing that the old one did not, or
    /// show a request that only the new one permits. Needs relay-prove and the solver cvc5.
    ///
    /// Exits with 0 when nothing new is permitted, and with 1 otherwise. `target render --diff`
    /// compares with the deployed stack instead.
    Diff {
        /// The old configuration.
        #[arg(value_name = "OLD")]
        old: PathBuf,
        /// The new configuration.
        #[arg(value_name = "NEW")]
        new: PathBuf,
    },
    /// Write the CloudFormation template of a target: its task definition, runner role, deploy role
    /// and security group.
    ///
    /// The template imports values from the stack of foundation.yaml. Its policy statements grant
    /// exactly what this configuration needs.
    #[command(after_help = "Example:
  relay-admin target render payments.toml --deploy-policy payments-role.json --out payments.yaml
  aws cloudformation deploy --stack-name relay-payments --template-file payments.yaml \\
      --capabilities CAPABILITY_NAMED_IAM \\
      --parameter-overrides VpcId=vpc-… Subnets=subnet-…,subnet-…")]
    Render(Render),
    /// Print, as JSON, the family and the entry point of a target's task definition. The entry
    /// point contains the configuration's SHA-256, so that relay rejects any other configuration.
    Pin {
        /// The target's configuration. Its exact bytes are the value of RELAY_CONFIGURATION.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Path of the runner in the container.
        #[arg(long, value_name = "PATH", default_value = "/relay/relay-runner")]
        runner: String,
    },
}

/// CPU units and MiB of a target, unless flags say otherwise.
const CPU: u32 = 1_024;
const MEMORY: u32 = 2_048;

fn image(name: &str) -> Result<Image, &'static str> {
    Image::try_from(name.to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Render {
    /// The target's configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The image that holds the tool, named by its digest, if the configuration names no `images`.
    /// Approvals do not cover it then, and the runner does not compare it.
    #[arg(long, value_name = "NAME@sha256:…", value_parser = image)]
    pub(crate) image: Option<Image>,
    /// The runner's image, likewise. The runner is copied from it into a volume beside the tool.
    /// Leave it out when the tool's image has the runner at /relay/relay-runner.
    #[arg(long, value_name = "NAME@sha256:…", value_parser = image, requires = "image")]
    pub(crate) runner_image: Option<Image>,
    /// CPU units, from 256 to 16384 (1024 units are one vCPU).
    #[arg(long, value_name = "UNITS", default_value_t = CPU, value_parser = clap::value_parser!(u32).range(256..=16_384))]
    pub(crate) cpu: u32,
    /// Memory in MiB, from 512 to 122880. Fargate allows only certain pairs of CPU units and
    /// memory.
    #[arg(long, value_name = "MIB", default_value_t = MEMORY, value_parser = clap::value_parser!(u32).range(512..=122_880))]
    pub(crate) memory: u32,
    /// Run on arm64. The images must be built for it.
    #[arg(long)]
    pub(crate) arm64: bool,
    /// What the tool may do: a file with an IAM policy in JSON, which becomes part of the deploy
    /// role.
    #[arg(long, value_name = "FILE")]
    pub(crate) deploy_policy: Option<PathBuf>,
    /// ARN of a managed policy for the deploy role; may be repeated.
    #[arg(long = "managed-policy", value_name = "ARN")]
    pub(crate) managed_policies: Vec<String>,
    /// Leave the deploy role out of the template. It must exist elsewhere, and trust the runner's
    /// role with sts:AssumeRole, sts:SetSourceIdentity and sts:TagSession.
    #[arg(long)]
    pub(crate) no_deploy_role: bool,
    /// ARN of a KMS key of your own that encrypts a secret; may be repeated.
    #[arg(long = "secrets-key", value_name = "ARN")]
    pub(crate) secrets_keys: Vec<String>,
    /// File to write the template to [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with = "diff")]
    pub(crate) out: Option<PathBuf>,
    /// Print, instead of the template, how it differs from the deployed stack's. Needs the AWS CLI
    /// and a profile for the target account. Exits with 1 if it differs.
    #[arg(long, requires = "profile")]
    pub(crate) diff: bool,
    /// Profile of the AWS CLI for --diff.
    #[arg(long, value_name = "NAME", requires = "diff")]
    pub(crate) profile: Option<String>,
}

impl Render {
    /// The command with nothing but a file.
    pub(crate) fn of(file: PathBuf) -> Self {
        Self {
            file,
            image: None,
            runner_image: None,
            cpu: CPU,
            memory: MEMORY,
            arm64: false,
            deploy_policy: None,
            managed_policies: Vec::new(),
            no_deploy_role: false,
            secrets_keys: Vec::new(),
            out: None,
            diff: false,
            profile: None,
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Init {
    /// The folder to write the files to.
    #[arg(default_value = ".", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// The target's name, such as payments/production.
    #[arg(long, value_name = "SERVICE/ENVIRONMENT")]
    pub(crate) target: Option<String>,
    /// Id of the target account, the account to deploy to.
    #[arg(long, value_name = "ID")]
    pub(crate) target_account: Option<String>,
    /// The target account's region.
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// Id of the account that CI runs in.
    #[arg(long, value_name = "ID")]
    pub(crate) ci_account: Option<String>,
    /// The CI system: github, gitlab or jenkins.
    #[arg(long, value_name = "SYSTEM")]
    pub(crate) ci: Option<String>,
    /// The source that may request deployments. github: owner/repository, or owner@id/repository@id
    /// if the token's subject contains ids. gitlab: group/project; only its branch main may request
    /// them. jenkins: the ARN of the agents' role.
    #[arg(long, value_name = "NAME|ARN")]
    pub(crate) ci_source: Option<String>,
    /// Name of the bucket that holds relay-launcher.zip, in the target account and region.
    #[arg(long, value_name = "NAME")]
    pub(crate) code_bucket: Option<String>,
    /// CI's public key in base64, as `relay keygen` or KMS prints it.
    #[arg(long, value_name = "BASE64")]
    pub(crate) signer_key: Option<String>,
    /// Make a key pair for CI. The private key goes to keys/ci.pem, which a .gitignore keeps out of
    /// git.
    #[arg(long, conflicts_with = "signer_key")]
    pub(crate) new_key: bool,
    /// ARN of a target key that this target is to share with another. Without it, the target's
    /// stack makes a key.
    #[arg(long, value_name = "ARN")]
    pub(crate) target_key: Option<String>,
    /// The public half of the target key in base64, if it exists already.
    #[arg(long, value_name = "BASE64")]
    pub(crate) target_public_key: Option<String>,
    /// The public half of the foundation's answer key in base64, if it exists already.
    #[arg(long, value_name = "BASE64")]
    pub(crate) answer_public_key: Option<String>,
    /// Use arm64. The launcher and the images must be built for it.
    #[arg(long)]
    pub(crate) arm64: bool,
    /// The image that holds the tool, named by its digest, for a new configuration. For one that
    /// exists without `images`, it goes into the template.
    #[arg(long, value_name = "NAME@sha256:…", value_parser = image)]
    pub(crate) image: Option<Image>,
    /// The runner's image, likewise. Leave it out when --image has the runner at
    /// /relay/relay-runner.
    #[arg(long, value_name = "NAME@sha256:…", value_parser = image, requires = "image")]
    pub(crate) runner_image: Option<Image>,
    /// Install everything in both accounts. At a terminal it asks after it has shown the plan;
    /// without one it goes ahead.
    ///
    /// Run it again for a second target, after a failure, or to roll out a change of the target's
    /// file. The signing key of CI is made in KMS, unless --new-key or --signer-key is given.
    #[arg(long, requires_all = ["ci_profile", "target_profile"])]
    pub(crate) apply: bool,
    /// With --apply: show the plan, and make nothing.
    #[arg(long, requires = "apply")]
    pub(crate) dry_run: bool,
    /// Profile of the AWS CLI for the CI account. With both profiles, the accounts, the region and
    /// the code bucket need no flags, and the repository comes from the git remote.
    #[arg(long, value_name = "NAME", requires = "target_profile")]
    pub(crate) ci_profile: Option<String>,
    /// Profile of the AWS CLI for the target account.
    #[arg(long, value_name = "NAME", requires = "ci_profile")]
    pub(crate) target_profile: Option<String>,
    /// Region of the CI account's stack [default: the target's region]
    #[arg(long, value_name = "REGION")]
    pub(crate) ci_region: Option<Region>,
    /// Private subnets for the tasks, separated by commas, from which AWS's endpoints are reached.
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with = "new_network")]
    pub(crate) subnets: Vec<String>,
    /// Make a network for the tasks, with the stack of network.yaml. Its endpoints cost about 102
    /// US dollars a month.
    #[arg(long)]
    pub(crate) new_network: bool,
    /// The launcher [default: relay-launcher.zip beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) launcher_zip: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The configurations.
    #[arg(value_name = "FILE", required_unless_present = "all")]
    pub(crate) files: Vec<PathBuf>,
    /// Every .toml in the folder `targets`.
    #[arg(long, conflicts_with = "files")]
    pub(crate) all: bool,
    /// Profile of the AWS CLI; `{account}` becomes the number of each target's account.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: String,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The targets to remove.
    #[arg(value_name = "TARGET", required_unless_present_any = ["foundation", "ci"])]
    pub(crate) targets: Vec<TargetName>,
    /// Also the network and the foundation, after the account's last target.
    #[arg(long)]
    pub(crate) foundation: bool,
    /// The stack of the CI account, if the profile is for that account.
    #[arg(long, conflicts_with_all = ["targets", "foundation"])]
    pub(crate) ci: bool,
    /// Profile of the AWS CLI for the account.
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: String,
    /// The region [default: that of the profile]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<Region>,
    /// Carry out the plan.
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Selftest {
    /// Profile of the AWS CLI for the account that plays CI.
    #[arg(long, value_name = "NAME")]
    pub(crate) ci_profile: String,
    /// Profile of the AWS CLI for the target account, which must be another.
    #[arg(long, value_name = "NAME")]
    pub(crate) target_profile: String,
    /// The region [default: that of the target's profile]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<Region>,
    /// An image with sh, head and sleep, in a registry that the tasks reach.
    #[arg(long, value_name = "NAME@sha256:…", value_parser = image)]
    pub(crate) image: Image,
    /// The runner's image. Leave it out when --image has the runner at /relay/relay-runner.
    #[arg(long, value_name = "NAME@sha256:…", value_parser = image)]
    pub(crate) runner_image: Option<Image>,
    /// Private subnets of the target account, separated by commas, from which AWS's endpoints are
    /// reached. Without them, the stack of network.yaml is installed for the test.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) subnets: Vec<String>,
    /// The launcher [default: relay-launcher.zip beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) launcher_zip: Option<PathBuf>,
    /// Use arm64. The launcher and the images must be built for it.
    #[arg(long)]
    pub(crate) arm64: bool,
    /// Only this check; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Say what would be made and what it costs, and make nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// File for the signed report.
    #[arg(long, value_name = "FILE", default_value = "relay-selftest.json")]
    pub(crate) report: PathBuf,
    /// Private key that signs the report, as `relay keygen` writes it [default: a new one]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// File with the checks that are known not to end as on AWS, a line each: NAME: WHY. A check
    /// that is not listed, or listed and as on AWS, fails.
    #[arg(long, value_name = "FILE")]
    pub(crate) known_differences: Option<PathBuf>,
}

/// The CI systems that `init` can write a job for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ci {
    Github,
    Gitlab,
    Jenkins,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Name of the ECS cluster.
    #[arg(long, default_value = "relay")]
    pub(crate) cluster: String,
    /// The evidence bucket, to show where each request says that it comes from. Needs s3:GetObject
    /// there.
    #[arg(long, value_name = "NAME")]
    pub(crate) evidence: Option<String>,
    /// Print a table, or one JSON object per line.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,
}

/// The output format: a table for people, or JSON for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Id of the deployment, as `relay-admin ps` and the CI log show it.
    #[arg(value_name = "ID")]
    pub(crate) id: DeploymentId,
    /// Name of the ECS cluster.
    #[arg(long, default_value = "relay")]
    pub(crate) cluster: String,
    /// Why it is stopped. ECS shows this text, beside the caller's ARN.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Log {
    /// The target's configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Id of the deployment, as the CI log shows it.
    #[arg(value_name = "ID")]
    pub(crate) id: DeploymentId,
    /// Print the tool's bytes as they are, also on a terminal. Otherwise a terminal gets no escape
    /// sequences, because a tool could use them to change what you see.
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Test {
    /// The target's configuration.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// File with a request as JSON, or with a signed bundle (an SNS body, or the value of
    /// RELAY_ENVELOPE). The signatures of a bundle are verified.
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// The requester: the name, public key or key id of one of the target's signers.
    #[arg(long, value_name = "NAME|KEY", required_unless_present_any = ["request", "claims"])]
    pub(crate) signer: Option<String>,
    /// File with the claims of a job's identity token as JSON, or with a token: the requester is
    /// whoever fits them. Its times and its audience are replaced.
    #[arg(long, value_name = "FILE", conflicts_with = "signer")]
    pub(crate) claims: Option<PathBuf>,
    /// A parameter of the request; may be repeated. The value of an artifact is its SHA-256.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter, conflicts_with = "request")]
    pub(crate) parameters: Vec<(ParameterName, String)>,
    /// Assume that this many people, who are not named, have approved the request: 0 to 8.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=8))]
    pub(crate) approvals: u8,
    /// A signer who has approved the request; may be repeated. The requester's own approval does
    /// not count, whichever key it is made with.
    #[arg(long, value_name = "NAME|KEY", conflicts_with = "approvals")]
    pub(crate) approved_by: Vec<String>,
    /// When the decision is made; without --request, also when the request is made:
    /// YYYY-MM-DDTHH:MM:SSZ [default: the request's own time, or now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<Timestamp>,
}

fn parameter(text: &str) -> Result<(ParameterName, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.parse().map_err(|error: relay_protocol::names::InvalidName| error.to_string())?, value.to_owned()))
}
