//! What may be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Deploy across AWS accounts without giving CI the power to.
///
/// relay publishes one signed request to the target account, prints the tool's output live, and exits with the tool's own exit code.
#[derive(Debug, Parser)]
#[command(
    name = "relay",
    version,
    after_help = "Exit codes: the tool's own, or 119 usage, 120 refused, 121 never started, 122 unknown, 123 output incomplete, 124 timed out, 125 fault, 130/143 cancelled."
)]
pub struct Relay {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy to a target, and print what happens there.
    Deploy(Box<Deploy>),
    /// Follow a deployment that another call has left: detached, or ended with its CI agent. Prints what was not printed yet.
    ///
    /// Ends as `relay deploy` does, with the same exit codes. A signal only ends the following; the deployment goes on.
    Attach(Box<Attach>),
    /// Say what is known of a deployment: whether it runs, until when at most, what of its output waits to be read. Changes nothing.
    Status(Box<Status>),
    /// Ask a deployment to stop: its tool gets its recipe's signal and its grace. Signed with this caller's own key.
    Cancel(Box<Cancel>),
    /// Delete the queues of deployments that are over, and that nobody has deleted. Never those of a living one.
    ///
    /// Needs sqs:ListQueues, sqs:ListQueueTags and sqs:DeleteQueue, which a CI job need not have.
    Gc(Gc),
    /// Make a signing key: the private half into a file, the public half to stdout.
    Keygen(Keygen),
    /// Decode a request, an approval, a control statement, a frame or a record, for an auditor's eyes.
    Inspect(Inspect),
    /// Say what is wrong between here and a deployment, each finding with its remedy. Changes nothing.
    ///
    /// Exits with 0 when nothing is bad, 119 when a setting is, 125 when AWS says no.
    Doctor(Box<Doctor>),
}

/// Arguments of `relay deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The target, such as payments/production.
    pub target: String,
    /// A parameter of the target's recipe; repeat for more.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub parameters: Vec<String>,
    /// Files for the tool: packed, uploaded under their digest, and bound into the request; repeat for more.
    #[arg(long = "artifact", value_name = "NAME=PATH")]
    pub artifacts: Vec<String>,
    /// How the target is reached.
    #[command(flatten)]
    pub place: Place,
    /// While the target is busy with another deployment, ask again and again for this long, each time under a new id.
    #[arg(long, value_name = "DURATION", conflicts_with = "detach")]
    pub wait: Option<String>,
    /// Ask the deployment to stop after this time (90s, 45m, 2h), and exit with 124. The target has a limit of its own.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// How long to wait for the launcher's first word.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub admission_timeout: String,
    /// What SIGINT and SIGTERM do: ask the deployment to stop, or leave it to `relay attach`. A second one leaves in any case.
    #[arg(long, value_enum, default_value_t = OnInterrupt::Cancel)]
    pub on_interrupt: OnInterrupt,
    /// Leave as soon as the task is started, and print the deployment id; `relay attach` follows it then.
    #[arg(long, conflicts_with_all = ["timeout", "strict_output", "result_file"])]
    pub detach: bool,
    /// What is shown, and how long it is waited for.
    #[command(flatten)]
    pub following: Following,
}

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// The tool gets its recipe's signal and its grace.
    Cancel,
    /// The deployment goes on.
    Detach,
}

/// Arguments of `relay attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Which deployment.
    #[command(flatten)]
    pub whose: DeploymentRef,
    /// What is shown, and how long it is waited for.
    #[command(flatten)]
    pub following: Following,
}

/// Arguments of `relay status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Which deployment.
    #[command(flatten)]
    pub whose: DeploymentRef,
    /// Text for people, or one JSON object on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Arguments of `relay cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// Which deployment.
    #[command(flatten)]
    pub whose: DeploymentRef,
}

/// Arguments of `relay gc`.
#[derive(Debug, Args)]
pub struct Gc {
    /// A region; repeat for more. By default AWS_REGION, or the profile's, and those of the topics in relay.toml.
    #[arg(long = "region", value_name = "REGION")]
    pub regions: Vec<String>,
    /// How long output that nobody has read is kept after the deployment's last moment.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    pub keep: String,
    /// Only say what would be deleted.
    #[arg(long)]
    pub dry_run: bool,
    /// The file that names topics; by default relay.toml here or in a folder above.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// A deployment that another call has started.
#[derive(Debug, Args)]
pub struct DeploymentRef {
    /// The deployment id.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Its target, where its queue does not tell: a pre-made one.
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// How the target is reached.
    #[command(flatten)]
    pub place: Place,
}

/// What is shown, and how long it is waited for.
#[derive(Debug, Args)]
pub struct Following {
    /// How long to wait from the admission to the runner's start: capacity, image pull. For who attaches, to the first frame.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub start_timeout: String,
    /// How long a runner that has started may be silent; it says something every 15 seconds.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    pub silence_timeout: String,
    /// How long to wait for output that is missing when the end is known.
    #[arg(long, value_name = "DURATION", default_value = "1m")]
    pub drain_timeout: String,
    /// For how long in all SQS may be out of reach: the other clocks stand still meanwhile.
    #[arg(long, value_name = "DURATION", default_value = "15m")]
    pub outage_timeout: String,
    /// Exit with 123 if any output was lost, instead of a warning.
    #[arg(long)]
    pub strict_output: bool,
    /// Write how it ended, with outputs, times and the signed record, as JSON.
    #[arg(long, value_name = "FILE")]
    pub result_file: Option<PathBuf>,
    /// Text for people, or one JSON object a line on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Say nothing but errors: stdout and stderr are then the tool's, byte for byte.
    #[arg(long, short)]
    pub quiet: bool,
}

/// How a target is reached: flags beat the environment, the environment beats relay.toml.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// The topic of the target account.
    #[arg(long, value_name = "ARN", env = "RELAY_TOPIC_ARN")]
    pub topic: Option<String>,
    /// The signing key: a file with a PKCS#8 PEM, the PEM itself, or the ARN of a KMS key (P-256).
    #[arg(long, value_name = "FILE|ARN", env = "RELAY_SIGNING_KEY", hide_env_values = true)]
    pub key: Option<String>,
    /// The target account's public key, base64: only what it vouches for is believed.
    #[arg(long, value_name = "BASE64", env = "RELAY_TARGET_PUBLIC_KEY")]
    pub target_key: Option<String>,
    /// Where artifacts are uploaded: s3://bucket/prefix/; {target} stands for the target.
    #[arg(long, value_name = "S3URL", env = "RELAY_ARTIFACTS")]
    pub artifact_store: Option<String>,
    /// A pre-made reply queue, where CI may not create queues.
    #[arg(long, value_name = "URL", env = "RELAY_REPLY_QUEUE_URL")]
    pub reply_queue_url: Option<String>,
    /// The file that maps targets to topics and keys; by default relay.toml here or in a folder above.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How a deployment is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// The tool's bytes to stdout and stderr, relay's words to stderr.
    Text,
    /// Everything as JSON lines on stdout.
    Json,
}

/// Arguments of `relay keygen`.
#[derive(Debug, Args)]
pub struct Keygen {
    /// Where the private key goes; a file that exists is not overwritten.
    #[arg(long, value_name = "FILE", default_value = "relay-signing-key.pem")]
    pub out: PathBuf,
}

/// Arguments of `relay inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file; standard input when it is - or left out.
    #[arg(default_value = "-")]
    pub file: PathBuf,
    /// Public keys, base64, to verify the signatures with; repeat for more.
    #[arg(long = "key", value_name = "BASE64")]
    pub keys: Vec<String>,
}

/// Arguments of `relay doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The target; by default each that relay.toml names.
    pub target: Option<String>,
    /// How the target is reached.
    #[command(flatten)]
    pub place: Place,
    /// Create a deployment's two queues as a deployment would, read from one, and delete them: nothing else tells whether that is allowed.
    #[arg(long = "try")]
    pub try_queues: bool,
    /// Text for people, or one JSON object a line on stdout.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}
