//! The command line of `relay`. The doc comments are the text of `--help`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use relay_console::manual::Shell;

/// Deploy across AWS accounts without giving CI the power to deploy.
///
/// relay publishes one signed request to the target account, prints the tool's output live, and
/// exits with the tool's own exit code.
#[derive(Debug, Parser)]
#[command(
    name = "relay",
    version = relay_console::version(),
    after_help = "Exit codes: the tool's own, or 119 usage, 120 refused, 121 never started, 122 unknown, 123 output incomplete or record missing, 124 timed out, 125 fault, 130/143 cancelled."
)]
pub struct Relay {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands of `relay`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy to a target, and print what happens there.
    Deploy(Box<Deploy>),
    /// Deploy again what a record names: the same target, parameters and artifacts, with a new
    /// signature and a new decision. Artifacts are not uploaded again; they must still be in the
    /// artifact store.
    Redeploy(Box<Redeploy>),
    /// Resume following a deployment whose `relay deploy` detached, or died with its CI agent.
    /// Prints the output that has not been printed yet.
    ///
    /// Ends as `relay deploy` does, with the same exit codes. A signal only stops following; the
    /// deployment continues.
    Attach(Box<Attach>),
    /// Show whether a deployment is still running, its deadline, and how much output is unread.
    /// Changes nothing.
    Status(Box<Status>),
    /// Ask a deployment to stop: the tool gets the recipe's stop signal, and its grace period to
    /// exit. Your key signs the cancel, and the target's policy must allow that key to cancel.
    Cancel(Box<Cancel>),
    /// Approve a request that waits: shows what the target account's launcher has verified about
    /// it, asks for the target's name, and signs with your key.
    ///
    /// The approval lets exactly this request run once, by exactly this configuration.
    Approve(Box<Approve>),
    /// List the requests that wait for approvals, in the requesters' own words.
    Approvals(Box<Approvals>),
    /// Delete queues that finished deployments left behind. Never touches the queues of a live
    /// deployment.
    ///
    /// Needs sqs:ListQueues, sqs:ListQueueTags and sqs:DeleteQueue, which a CI job otherwise does
    /// not need.
    Gc(Gc),
    /// Generate a signing key: the private half goes to a file, the public half to stdout.
    Keygen(Keygen),
    /// Decode a request, an approval, a control statement, a frame or a record for an auditor.
    ///
    /// With --key, exits with 1 unless each envelope has a signature that one of the keys made.
    Inspect(Inspect),
    /// Check a deployment's record, and whatever else of its evidence is there, without a network.
    ///
    /// Exits with 0 only if everything that was given is proved, and with 1 otherwise. What cannot
    /// be proved is said too.
    Verify(Verify),
    /// Make one HTML page of a deployment: its times, its log, who asked and approved, and what is
    /// proved. It needs no network, and loads nothing.
    Report(Report),
    /// List the latest deployments of a target from its evidence, and say what runs now.
    ///
    /// Needs an auditor's rights in the target account: s3:ListBucket and s3:GetObject on the
    /// evidence bucket.
    History(Box<History>),
    /// Explain a reason code or an exit code: what happened, in whose hands it is, and what to do.
    Explain(Explain),
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
    /// Check whether this machine can deploy, and print a remedy for each problem.
    /// Changes nothing, except that `--try` creates two queues and deletes them.
    ///
    /// Exits with 0 if nothing is bad, with 119 if a setting is bad, and else with the code of what
    /// went wrong: 120 if the target refuses, 122 if it does not answer, 125 if a call to AWS
    /// fails.
    Doctor(Box<Doctor>),
}

impl Command {
    /// The format in which the caller reads the output.
    pub(crate) fn output(&self) -> Output {
        match self {
            Self::Deploy(deploy) => deploy.asking.following.output,
            Self::Redeploy(deploy) => deploy.asking.following.output,
            Self::History(history) => history.output,
            Self::Attach(attach) => attach.following.output,
            Self::Status(status) => status.output,
            Self::Doctor(doctor) => doctor.output,
            Self::Approve(_) | Self::Approvals(_) | Self::Cancel(_) | Self::Gc(_) => Output::Text,
            Self::Keygen(_) | Self::Inspect(_) | Self::Verify(_) | Self::Report(_) | Self::Explain(_) => Output::Text,
            Self::Completions { .. } | Self::Man { .. } => Output::Text,
        }
    }
}

/// The format that a command line asks for which has a mistake, so that its caller can read of it.
pub(crate) fn output_of(arguments: impl IntoIterator<Item = OsString>) -> Output {
    let arguments: Vec<OsString> = arguments.into_iter().take_while(|argument| argument != "--").collect();
    let apart = arguments.windows(2).any(|pair| matches!(pair, [flag, value] if flag == "--output" && value == "json"));
    if apart || arguments.iter().any(|argument| argument == "--output=json") { Output::Json } else { Output::Text }
}

/// Arguments of `relay deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The target to deploy to, such as payments/production.
    pub target: String,
    /// A parameter of the target's recipe; repeat for more.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// A file or directory for the tool. relay packs it and uploads it under its SHA-256, which is
    /// part of the signed request; repeat for more.
    #[arg(long = "artifact", value_name = "NAME=PATH")]
    pub artifacts: Vec<String>,
    /// How to ask for it.
    #[command(flatten)]
    pub asking: Asking,
}

/// Arguments of `relay redeploy`.
#[derive(Debug, Args)]
pub struct Redeploy {
    /// What to repeat: a record, a folder with a deployment's evidence, or a file of
    /// `--result-file`.
    pub record: PathBuf,
    /// How to ask for it.
    #[command(flatten)]
    pub asking: Asking,
}

/// How to ask for a deployment, and how to follow it.
#[derive(Debug, Args)]
pub struct Asking {
    /// How to reach the target.
    #[command(flatten)]
    pub place: Place,
    /// Retry for this long (90s, 45m, 2h) while another deployment holds the target, each time
    /// under a new id; without it, exit with 120. Several that wait get their turn in no particular
    /// order.
    #[arg(long, value_name = "DURATION", conflicts_with = "detach")]
    pub wait: Option<String>,
    /// If the policy requires approvals, store the request where colleagues find it, and wait for
    /// this long (90s, 45m, 2h) until they have run `relay approve`; without it, exit with 120.
    #[arg(long, value_name = "DURATION", conflicts_with = "dry_run")]
    pub wait_approval: Option<String>,
    /// An approval that `relay approve --out` wrote; repeat for more.
    #[arg(long = "approval", value_name = "FILE", conflicts_with = "wait_approval")]
    pub approvals: Vec<PathBuf>,
    /// Ask the deployment to stop after this time (90s, 45m, 2h), and exit with 124; without it,
    /// only the target's own limit applies.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// How long to wait for the launcher's first answer to the request.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub admission_timeout: String,
    /// What SIGINT and SIGTERM do: ask the deployment to stop, or leave it running, to be followed
    /// later with `relay attach`. A second signal always makes relay exit immediately.
    #[arg(long, value_enum, default_value_t = OnInterrupt::Cancel)]
    pub on_interrupt: OnInterrupt,
    /// Ask what would become of this deployment, and start nothing: the launcher verifies and
    /// authorises it, and answers. Exits with 0 if it would be allowed and the pins fit. Artifacts
    /// are packed but not uploaded. `relay-admin target test` shows the commands that would run.
    #[arg(long, conflicts_with_all = ["detach", "wait", "timeout", "strict_output", "require_record", "result_file", "summary_file"])]
    pub dry_run: bool,
    /// Write the deployment's id to this file before the request is published, so that a later step
    /// of the job can run `relay cancel`, however this call ends. With --wait, each try has an id
    /// of its own, and replaces the one before.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    pub id_file: Option<PathBuf>,
    /// Exit as soon as the task is started, and print the deployment id; `relay attach` can then
    /// follow the deployment.
    #[arg(long, conflicts_with_all = ["timeout", "strict_output", "require_record", "result_file", "summary_file"])]
    pub detach: bool,
    /// What to print, and how long to wait.
    #[command(flatten)]
    pub following: Following,
}

/// What a signal does to the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// Ask the deployment to stop: the tool gets its recipe's stop signal and grace period.
    Cancel,
    /// Leave the deployment running.
    Detach,
}

/// Arguments of `relay attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// The deployment to follow.
    #[command(flatten)]
    pub whose: DeploymentRef,
    /// What to print, and how long to wait.
    #[command(flatten)]
    pub following: Following,
}

/// Arguments of `relay status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The deployment to report on.
    #[command(flatten)]
    pub whose: DeploymentRef,
    /// Whether to print text for people, or one JSON object on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Arguments of `relay cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The deployment to stop.
    #[command(flatten)]
    pub whose: DeploymentRef,
}

/// Arguments of `relay approve`.
#[derive(Debug, Args)]
pub struct Approve {
    /// The ticket of the request, as `relay deploy` printed it.
    pub ticket: String,
    /// The target, if relay.toml does not name it.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// How long the approval lasts, at most 24h.
    #[arg(long = "for", value_name = "DURATION", default_value = "8h")]
    pub lifetime: String,
    /// Write the approval to this file instead of the approvals bucket, for `relay deploy
    /// --approval`.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A copy of a saved artifact that the request names, to read its text from; may be repeated.
    /// Without it, the artifact is read from the target account's bucket.
    #[arg(long, value_name = "FILE")]
    pub saved: Vec<PathBuf>,
    /// The AWS profile with which that bucket may be read, if it is another than the one for the
    /// approvals bucket.
    #[arg(long, value_name = "NAME")]
    pub saved_profile: Option<String>,
    /// Your key and your pins.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `relay approvals`.
#[derive(Debug, Args)]
pub struct Approvals {
    /// Where requests wait.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `relay gc`.
#[derive(Debug, Args)]
pub struct Gc {
    /// A region to search; repeat for more. The default is AWS_REGION (or the profile's region) and
    /// the regions of the topics in relay.toml.
    #[arg(long = "region", value_name = "REGION")]
    pub regions: Vec<String>,
    /// How long to keep a deployment's queues, and any unread output, after its deadline (90s, 45m,
    /// 24h).
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub keep: String,
    /// Print what would be deleted, without deleting it.
    #[arg(long)]
    pub dry_run: bool,
    /// The file that names the topics; the default is the nearest relay.toml, here or in a parent
    /// directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A deployment that another call started.
#[derive(Debug, Args)]
pub struct DeploymentRef {
    /// The id of the deployment.
    #[arg(value_name = "ID")]
    pub id: String,
    /// The deployment's target; needed where the queue does not name it, as with a pre-made reply
    /// queue.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// How to reach the target.
    #[command(flatten)]
    pub place: Place,
}

/// What to print, and how long to wait.
#[derive(Debug, Args)]
pub struct Following {
    /// How long to wait for the runner to start once the launcher has accepted the request; this
    /// includes the wait for capacity and the image pull. For `relay attach`: how long to wait for
    /// the first message.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub start_timeout: String,
    /// How long a started runner may be silent; it sends a message at least every 15 seconds.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    pub silence_timeout: String,
    /// How long to wait for missing output once the end is known.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub drain_timeout: String,
    /// How long SQS may be unreachable in total; the other timeouts are paused meanwhile.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub outage_timeout: String,
    /// How long nothing may be printed before relay prints a line that says what is running, since
    /// CI systems end jobs that print nothing; 0s turns this off. A terminal shows a live line
    /// instead.
    #[arg(long, value_name = "DURATION", default_value = "4m")]
    pub heartbeat: String,
    /// Exit with 123 if any output was lost; without it, relay only prints a warning.
    #[arg(long)]
    pub strict_output: bool,
    /// Exit with 123 unless the deployment's signed record arrived and proves how it ended; without
    /// it, relay only prints a warning.
    #[arg(long)]
    pub require_record: bool,
    /// Write the result to this file as JSON, with the tool's outputs, the times and the signed
    /// record.
    #[arg(long, value_name = "FILE")]
    pub result_file: Option<PathBuf>,
    /// Write a summary to this file as Markdown, for the page of the CI run or a comment on a
    /// change: how it ended, its phases, the tool's outputs, and the last of what it printed. At
    /// most 60,000 characters.
    #[arg(long, value_name = "FILE")]
    pub summary_file: Option<PathBuf>,
    /// Whether to print text for people, or one JSON object per line on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Make each step a foldable section of the CI system's log. auto knows the system by its
    /// variables, and folds only if stdout and stderr are one stream (2>&1). On GitHub, this also
    /// keeps what the tool prints from being taken for workflow commands.
    #[arg(long, value_enum, default_value_t = Fold::Auto)]
    pub fold: Fold,
    /// Begin each line with the time at which it is printed, in UTC.
    #[arg(long, conflicts_with = "quiet")]
    pub timestamps: bool,
    /// Print none of relay's own messages except warnings and errors; stdout and stderr are
    /// otherwise the tool's, byte for byte.
    #[arg(long, short)]
    pub quiet: bool,
}

/// How to reach a target. Flags beat the environment, and the environment beats relay.toml.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// The ARN of the target account's SNS topic.
    #[arg(long, value_name = "ARN", env = "RELAY_TOPIC_ARN")]
    pub topic: Option<String>,
    /// The signing key: oidc (the job's own identity token, so that CI needs no key), a file with a
    /// PKCS#8 PEM, the PEM itself, or the ARN of a KMS key (P-256).
    #[arg(
        long,
        value_name = "oidc|FILE|ARN",
        env = "RELAY_SIGNING_KEY",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub key: Option<String>,
    /// A program that prints an identity token to sign with, for issuers that relay cannot ask by
    /// itself. Its only argument is the audience.
    #[arg(long, value_name = "PROGRAM", env = "RELAY_TOKEN_COMMAND")]
    pub token_command: Option<String>,
    /// The target's public key, in base64. relay believes only output that is signed by a runner
    /// key that this key vouches for, and only records that this key signed. While the key is
    /// replaced: both, with a comma.
    #[arg(long, value_name = "BASE64", env = "RELAY_TARGET_PUBLIC_KEY")]
    pub target_key: Option<String>,
    /// The public key of the target account's launcher, in base64. relay believes only answers of
    /// the launcher that this key signed. While the key is replaced: both, with a comma.
    #[arg(long, value_name = "BASE64", env = "RELAY_ANSWER_PUBLIC_KEY")]
    pub answer_key: Option<String>,
    /// Deploy without pinned keys, and trust the first runner and any launcher that answers.
    /// Whoever may write to the reply queue can then forge the whole deployment, and its exit code.
    #[arg(long)]
    pub trust_first_answer: bool,
    /// Where `relay deploy` uploads artifacts, as s3://bucket/prefix/; {target} stands for the
    /// target's name.
    #[arg(long, value_name = "S3URL", env = "RELAY_ARTIFACT_STORE")]
    pub artifact_store: Option<String>,
    /// Where requests wait for approvals, as s3://bucket/prefix/; {target} stands for the target's
    /// name.
    #[arg(long, value_name = "S3URL", env = "RELAY_APPROVALS")]
    pub approval_store: Option<String>,
    /// The URL of a pre-made reply queue, for a CI account that may not create queues.
    #[arg(long, value_name = "URL", env = "RELAY_REPLY_QUEUE_URL")]
    pub reply_queue_url: Option<String>,
    /// The file that maps targets to topics and keys; the default is the nearest relay.toml, here
    /// or in a parent directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people. What the tool printed keeps its stream. While relay follows a deployment,
    /// relay's messages go to stderr.
    Text,
    /// For programs: JSON on stdout.
    Json,
}

/// The syntax of foldable sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fold {
    /// What the CI system's variables say.
    Auto,
    /// No sections.
    None,
    /// GitHub Actions.
    #[value(name = "github")]
    GitHub,
    /// GitLab.
    #[value(name = "gitlab")]
    GitLab,
    /// Buildkite.
    Buildkite,
}

/// Arguments of `relay keygen`.
#[derive(Debug, Args)]
pub struct Keygen {
    /// Where to write the private key; an existing file is never overwritten.
    #[arg(long, value_name = "FILE", default_value = "relay-signing-key.pem")]
    pub out: PathBuf,
}

/// Arguments of `relay inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file to decode; - means standard input.
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// A public key, in base64, to verify the signatures with; repeat for more.
    #[arg(long = "key", value_name = "BASE64")]
    pub keys: Vec<String>,
}

/// Arguments of `relay verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A record, or a folder with a deployment's evidence as it lies in the bucket.
    pub path: PathBuf,
    /// The request's object, `request.json`, that the record must be about.
    #[arg(long, value_name = "FILE")]
    pub request: Option<PathBuf>,
    /// The configuration that the record must be about.
    #[arg(long, value_name = "FILE")]
    pub configuration: Option<PathBuf>,
    /// Archived frames, whose output the record must describe; repeat for more, in order.
    #[arg(long, value_name = "FILE")]
    pub transcript: Vec<PathBuf>,
    /// A public key, in base64, that must have signed the record. The default are the pins in
    /// relay.toml of the target that the record names; a bare key does not prove the target.
    #[arg(long = "key", value_name = "BASE64")]
    pub key: Option<String>,
    /// The file with the pins; the default is the nearest relay.toml, here or in a parent
    /// directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `relay report`.
#[derive(Debug, Args)]
pub struct Report {
    /// A folder with a deployment's evidence as it lies in the bucket, a record, or a file of
    /// `--result-file`. Only the folder has the log.
    pub path: PathBuf,
    /// Where to write the page; - means standard output. The default is relay-report-ID.html, here.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// A public key, in base64, that must have signed the record. The default are the pins in
    /// relay.toml of the target that the record names.
    #[arg(long = "key", value_name = "BASE64")]
    pub key: Option<String>,
    /// The file with the pins; the default is the nearest relay.toml, here or in a parent
    /// directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `relay history`.
#[derive(Debug, Args)]
pub struct History {
    /// The target.
    pub target: String,
    /// The target account's evidence bucket; the default is `evidence` in relay.toml.
    #[arg(long, value_name = "BUCKET")]
    pub evidence: Option<String>,
    /// How many deployments to list, the latest first.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// Whether to print text for people, or one JSON object per line on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// The target's topic and pins.
    #[command(flatten)]
    pub place: Place,
}

/// Arguments of `relay explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// A reason code such as `busy`, or an exit code such as 120; without it, all of them.
    pub code: Option<String>,
}

/// Arguments of `relay doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The target to check; the default is every target in relay.toml.
    pub target: Option<String>,
    /// How to reach the target.
    #[command(flatten)]
    pub place: Place,
    /// Make a dry run: create the two queues of a deployment, ask the launcher what would become of
    /// it, and delete both. Nothing else shows whether keys, pins, topic, target and policy agree.
    #[arg(long = "try")]
    pub dry_run: bool,
    /// A parameter for the dry run; repeat for more.
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "dry_run")]
    pub parameters: Vec<String>,
    /// Whether to print text for people, or one JSON object per line on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}
