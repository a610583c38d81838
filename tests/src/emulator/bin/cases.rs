//! Every permission of the templates, by policy, statement and action: the attempt that must fail
//! without it, or the reason why ministack cannot judge it. Also the calls that no role may make.

/// The principal that makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ci,
    Launcher,
    Jwks,
    Ledger,
    Runner,
    /// The tool, with the deploy role.
    Deploy,
    /// A role that may do anything.
    Admin,
    /// A role under relay's path that may do anything.
    RelayAdmin,
    /// The launcher's role, as far as conditions can tell, which may do anything.
    LauncherAdmin,
    /// The ledger's role, likewise.
    LedgerAdmin,
    /// Another target's runner role, which may do anything.
    RunnerAdmin,
    /// A deploy role that may do anything.
    ToolAdmin,
}

/// The shortest attempt that needs a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A deployment that succeeds.
    Deploy,
    /// A deployment with files that were never uploaded.
    Upload,
    /// A deployment that is refused.
    Refused,
    /// A dry run.
    DryRun,
    /// A deployment that is interrupted.
    Cancel,
    /// A deployment after another one that died while it held the lock.
    Takeover,
    /// A single call: principal, service, operation and parameters.
    Call(Who, &'static str, &'static str, &'static str),
}

/// A permission to take away.
pub(crate) struct Case {
    pub(crate) of: &'static str,
    pub(crate) sid: &'static str,
    pub(crate) action: &'static str,
    pub(crate) way: Way,
    /// Text that the CLI, the launcher or the runner then prints. It is empty for a single call,
    /// whose own error is enough.
    pub(crate) says: &'static str,
}

const fn case(of: &'static str, sid: &'static str, action: &'static str, way: Way, says: &'static str) -> Case {
    Case { of, sid, action, way, says }
}

/// What the CLI prints when it gets no answer.
const NO_LAUNCHER: &str = "waiting for the launcher's answer";
const NO_RUNNER: &str = "waiting for the runner's start";

const SEND: &str =
    r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-trial-control", "MessageBody": "x"}"#;
const RECEIVE: &str = r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-trial-control"}"#;
const DELETE: &str = r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-trial-control", "Entries": [{"Id": "1", "ReceiptHandle": "x"}]}"#;
const DELETE_REPLY: &str = r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-trial-reply", "Entries": [{"Id": "1", "ReceiptHandle": "x"}]}"#;
/// A message that is not deleted arrives again and is dropped as a duplicate, so a short deployment
/// does not need the deletion.
const DELETE_FRAME: Way = Way::Call(Who::Ci, "sqs", "DeleteMessageBatch", DELETE_REPLY);
/// Only a late joiner reads the tags, and it works with less information without them.
const TAG: Way = Way::Call(
    Who::Ci,
    "sqs",
    "TagQueue",
    r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-trial-reply", "Tags": {"relay-acknowledged": "1"}}"#,
);
const TAGS: Way = Way::Call(
    Who::Ci,
    "sqs",
    "ListQueueTags",
    r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-trial-reply"}"#,
);
/// A cancel also goes through the topic, so a deployment does not need this message either.
const SEND_CANCEL: Way = Way::Call(Who::Ci, "sqs", "SendMessage", SEND);
/// The policy of the target here asks for no approvals.
const ASK_FOR_APPROVAL: Way = Way::Call(Who::Ci, "s3", "PutObject", PENDING);
const READ_APPROVALS: Way = Way::Call(Who::Ci, "s3", "GetObject", PENDING);
/// The launcher remembers a revision for five seconds.
const FIND: Way =
    Way::Call(Who::Launcher, "ecs", "DescribeTaskDefinition", r#"{"taskDefinition": "relay_example_shop"}"#);
/// Only `relay doctor` makes this call; a deployment does not.
const SEE_KEY: Way = Way::Call(Who::Ci, "kms", "GetPublicKey", r#"{"KeyId": "{request key}"}"#);
/// A function that stays warm makes this call only once, for its first record.
const SEE_ANSWER_KEY: Way = Way::Call(Who::Launcher, "kms", "GetPublicKey", r#"{"KeyId": "{answer key}"}"#);
/// A cancel that does not arrive leaves no trace in the output.
const LISTEN: Way = Way::Call(Who::Runner, "sqs", "ReceiveMessage", RECEIVE);
const DELETE_CANCEL: Way = Way::Call(Who::Runner, "sqs", "DeleteMessageBatch", DELETE);
/// The calls for a cancel that comes through the topic, and for the watchdog.
const PASS_ON: Way = Way::Call(Who::Launcher, "sqs", "SendMessage", SEND);
const NOTE: Way = Way::Call(Who::Launcher, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "cancels/trial"}"#);
const READ_NOTE: Way = Way::Call(Who::Launcher, "s3", "GetObject", r#"{"Bucket": "{bucket}", "Key": "cancels/trial"}"#);
/// A deployment succeeds without it.
const TELL: Way = Way::Call(
    Who::Launcher,
    "events",
    "PutEvents",
    r#"{"Entries": [{"Source": "relay", "DetailType": "trial", "Detail": "{}"}]}"#,
);
const STOP: Way = Way::Call(Who::Launcher, "ecs", "StopTask", r#"{"cluster": "relay", "task": "{task}"}"#);
const SETTING: Way = Way::Call(Who::Deploy, "ssm", "GetParameter", r#"{"Name": "/shop/setting"}"#);
/// The function has no issuer here, because ministack has no HTTPS to fetch keys from.
const WRITE_JWKS: Way = Way::Call(Who::Jwks, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "jwks/trial"}"#);
const READ_JWKS: Way = Way::Call(Who::Jwks, "s3", "GetObject", r#"{"Bucket": "{bucket}", "Key": "jwks/trial"}"#);
const LIST_JWKS: Way = Way::Call(Who::Jwks, "s3", "ListObjectsV2", r#"{"Bucket": "{bucket}", "Prefix": "jwks/"}"#);
/// The function is not run here, because its schedule is not.
const READ_LISTED: Way = Way::Call(Who::Ledger, "s3", "GetObject", CLAIM);
const WRITE_ENTRY: Way = Way::Call(Who::Ledger, "s3", "PutObject", ENTRY);
const LIST_LISTED: Way = Way::Call(Who::Ledger, "s3", "ListObjectsV2", LIST_EVIDENCE);
const SIGN_ENTRY: Way = Way::Call(Who::Ledger, "kms", "Sign", SIGN_LEDGER);
const SEE_LEDGER_KEY: Way = Way::Call(Who::Ledger, "kms", "GetPublicKey", r#"{"KeyId": "{ledger key}"}"#);
const WRITE_ENTRY_TOO: Way = Way::Call(Who::LauncherAdmin, "s3", "PutObject", ENTRY);
const WRITE_CLAIM_BY_LEDGER: Way = Way::Call(Who::LedgerAdmin, "s3", "PutObject", CLAIM);
const ADMINISTER_LEDGER_KEY: Way = Way::Call(Who::ToolAdmin, "kms", "PutKeyPolicy", OPEN_LEDGER_KEY);
/// The target here has no signer by tokens.
const READ_ISSUER_KEYS: Way =
    Way::Call(Who::Launcher, "s3", "GetObject", r#"{"Bucket": "{bucket}", "Key": "jwks/trial"}"#);
/// The runner reads a claim only when it is contested, which takes two tasks of one deployment.
const READ_CLAIM: Way = Way::Call(Who::Runner, "s3", "GetObject", CLAIM);
const LIST: Way = Way::Call(Who::Runner, "s3", "ListObjectsV2", r#"{"Bucket": "{evidence}"}"#);

/// Used instead of an action for a statement that denies. The call is denied with the statement,
/// and allowed without it.
pub(crate) const DENIES: &str = "(denies)";

const TAP: Way = Way::Call(
    Who::Admin,
    "sns",
    "Subscribe",
    r#"{"TopicArn": "{topic}", "Protocol": "sqs", "Endpoint": "arn:aws:sqs:eu-west-1:222222222222:relay-dead-letters"}"#,
);
const WRITE: Way = Way::Call(Who::Admin, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "saved/trial"}"#);
const WRITE_JWKS_TOO: Way =
    Way::Call(Who::RelayAdmin, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "jwks/trial"}"#);
const DELETE_OBJECT: Way =
    Way::Call(Who::Admin, "s3", "DeleteObject", r#"{"Bucket": "{bucket}", "Key": "saved/trial"}"#);
const WRITE_PLAIN: Way = Way::Call(
    Who::RelayAdmin,
    "s3",
    "PutObject",
    r#"{"Bucket": "{bucket}", "Key": "saved/trial", "ServerSideEncryption": "AES256"}"#,
);
const ADMINISTER: Way = Way::Call(
    Who::ToolAdmin,
    "s3",
    "PutBucketVersioning",
    r#"{"Bucket": "{bucket}", "VersioningConfiguration": {"Status": "Enabled"}}"#,
);
const WRITE_CLAIM: Way = Way::Call(Who::Admin, "s3", "PutObject", CLAIM);
const WRITE_THE_LAUNCHERS: Way = Way::Call(Who::RunnerAdmin, "s3", "PutObject", LAUNCHER_RECORD);
const WRITE_A_RUNNERS: Way = Way::Call(Who::LauncherAdmin, "s3", "PutObject", RECORD);
/// Nothing reads this object.
const DELETE_EVIDENCE: Way = Way::Call(Who::Admin, "s3", "DeleteObject", TRANSCRIPT);
const WRITE_CLAIM_PLAIN: Way = Way::Call(
    Who::RunnerAdmin,
    "s3",
    "PutObject",
    r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/claim", "ServerSideEncryption": "AES256"}"#,
);
const ADMINISTER_EVIDENCE: Way = Way::Call(
    Who::ToolAdmin,
    "s3",
    "PutBucketVersioning",
    r#"{"Bucket": "{evidence}", "VersioningConfiguration": {"Status": "Enabled"}}"#,
);
/// Without the denial, this replaces the whole policy. It is put back immediately afterwards.
const ADMINISTER_ANSWER_KEY: Way = Way::Call(Who::ToolAdmin, "kms", "PutKeyPolicy", OPEN_ANSWER_KEY);
const ADMINISTER_TARGET_KEY: Way = Way::Call(Who::ToolAdmin, "kms", "PutKeyPolicy", OPEN_TARGET_KEY);
const ADMINISTER_DATA_KEY: Way = Way::Call(Who::ToolAdmin, "kms", "PutKeyPolicy", OPEN_DATA_KEY);

/// The cases, in the order of the templates.
pub(crate) const CASES: &[Case] = &[
    case("CI", "Ask", "sns:Publish", Way::Deploy, "sns:Publish"),
    case("CI", "MakeAndDeleteQueues", "sqs:CreateQueue", Way::Deploy, "creating this deployment's queues"),
    case("CI", "MakeAndDeleteQueues", "sqs:DeleteQueue", Way::Deploy, "deleting this deployment's queues"),
    case("CI", "MakeAndDeleteQueues", "sqs:TagQueue", TAG, ""),
    case("CI", "ReadReplies", "sqs:ListQueueTags", TAGS, ""),
    case("CI", "ReadReplies", "sqs:ReceiveMessage", Way::Deploy, NO_LAUNCHER),
    case("CI", "ReadReplies", "sqs:DeleteMessage", DELETE_FRAME, ""),
    case("CI", "Cancel", "sqs:SendMessage", SEND_CANCEL, ""),
    case("CI", "UploadArtifacts", "s3:PutObject", Way::Upload, "s3:PutObject"),
    case("CI", "SeeArtifacts", "s3:GetObject", Way::Deploy, "s3:HeadObject"),
    case("CI", "AskForApproval", "s3:PutObject", ASK_FOR_APPROVAL, ""),
    case("CI", "ReadApprovals", "s3:GetObject", READ_APPROVALS, ""),
    case("CI signs", "Sign", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("CI signs", "Sign", "kms:GetPublicKey", SEE_KEY, ""),
    case("request key", "CiSigns", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("request key", "AccountAdministers", "kms:GetPublicKey", SEE_KEY, ""),
    case("artifact bucket", "RunnersReadTheirTarget", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("topic", "CiPublishes", "sns:Publish", Way::Deploy, "sns:Publish"),
    case("launcher", "FindTarget", "ecs:DescribeTaskDefinition", FIND, ""),
    case("launcher", "StartTask", "ecs:RunTask", Way::Deploy, "ecs:RunTask"),
    case("launcher", "FindTask", "ecs:ListTasks", Way::Deploy, "ecs:ListTasks"),
    case("launcher", "SeeTask", "ecs:DescribeTasks", Way::Takeover, "ecs:DescribeTasks"),
    case("launcher", "StopTask", "ecs:StopTask", STOP, ""),
    case("launcher", "Note", "s3:PutObject", NOTE, ""),
    case("launcher", "ReadNotes", "s3:GetObject", READ_NOTE, ""),
    case("launcher", "TellEverybody", "events:PutEvents", TELL, ""),
    case("launcher", "PassCancelOn", "sqs:SendMessage", PASS_ON, ""),
    case("launcher", "ReadEvidence", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("launcher", "ReadLock", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("launcher", "WriteVerdict", "s3:PutObject", Way::Refused, "s3:PutObject"),
    case("launcher", "WriteEvidence", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("launcher", "SignAnswer", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("launcher", "SignAnswer", "kms:GetPublicKey", SEE_ANSWER_KEY, ""),
    case("launcher", "NameTargetKey", "kms:GetPublicKey", Way::DryRun, "kms:GetPublicKey"),
    case("launcher", "Answer", "sqs:SendMessage", Way::Refused, NO_LAUNCHER),
    case("jwks", "KeepKeys", "s3:PutObject", WRITE_JWKS, ""),
    case("jwks", "KeepKeys", "s3:GetObject", READ_JWKS, ""),
    case("jwks", "ListKeys", "s3:ListBucket", LIST_JWKS, ""),
    case("ledger", "ReadWhatItLists", "s3:GetObject", READ_LISTED, ""),
    case("ledger", "Find", "s3:ListBucket", LIST_LISTED, ""),
    case("ledger", "Write", "s3:PutObject", WRITE_ENTRY, ""),
    case("ledger", "Sign", "kms:Sign", SIGN_ENTRY, ""),
    case("ledger", "Sign", "kms:GetPublicKey", SEE_LEDGER_KEY, ""),
    // The function has left the object that the launcher reads.
    case("launcher", "ReadIssuerKeys", "s3:GetObject", READ_ISSUER_KEYS, ""),
    case("runner", "Answer", "sqs:SendMessage", Way::Deploy, NO_RUNNER),
    case("runner", "Control", "sqs:ReceiveMessage", LISTEN, ""),
    case("runner", "Control", "sqs:DeleteMessage", DELETE_CANCEL, ""),
    case("runner", "Request", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("runner", "Claim", "s3:GetObject", READ_CLAIM, ""),
    case("runner", "Claim", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("runner", "Evidence", "s3:PutObject", Way::Deploy, "the record is not in the evidence bucket"),
    case("runner", "Lock", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("runner", "Lock", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("runner", "Missing", "s3:ListBucket", LIST, ""),
    case("runner", "SeeTasks", "ecs:DescribeTasks", Way::Takeover, "ecs:DescribeTasks"),
    case("runner", "Sign", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("runner", "Sign", "kms:GetPublicKey", Way::Deploy, "kms:GetPublicKey"),
    case("runner", "Save", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("runner", "ArtifactSource", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("runner", "Secrets", "secretsmanager:GetSecretValue", Way::Deploy, "secretsmanager:GetSecretValue"),
    case("runner", "SecretParameters", "ssm:GetParameter", Way::Deploy, "ssm:GetParameter"),
    case("runner", "BecomeTheTool", "sts:AssumeRole", Way::Deploy, "sts:AssumeRole"),
    case("deploy", "Setting", "ssm:GetParameter", SETTING, ""),
    case("boundary", "Describe", "ecs:DescribeTaskDefinition", FIND, ""),
    case("boundary", "Tasks", "ecs:DescribeTasks", Way::Takeover, "ecs:DescribeTasks"),
    case("boundary", "Tasks", "ecs:ListTasks", Way::Deploy, "ecs:ListTasks"),
    case("boundary", "Tasks", "ecs:RunTask", Way::Deploy, "ecs:RunTask"),
    case("boundary", "Tasks", "ecs:StopTask", STOP, ""),
    case("boundary", "Events", "events:PutEvents", TELL, ""),
    case("boundary", "DeployRoles", "sts:AssumeRole", Way::Deploy, "sts:AssumeRole"),
    case("boundary", "RelayBuckets", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("boundary", "RelayBuckets", "s3:ListBucket", LIST, ""),
    case("boundary", "RelayBuckets", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("boundary", "Artifacts", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("boundary", "SigningKeys", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("boundary", "SigningKeys", "kms:GetPublicKey", Way::Deploy, "kms:GetPublicKey"),
    case("boundary", "Queues", "sqs:SendMessage", Way::Deploy, NO_LAUNCHER),
    case("boundary", "Queues", "sqs:ReceiveMessage", LISTEN, ""),
    case("boundary", "Queues", "sqs:DeleteMessage", DELETE_CANCEL, ""),
    case("boundary", "Secrets", "secretsmanager:GetSecretValue", Way::Deploy, "secretsmanager:GetSecretValue"),
    case("boundary", "Secrets", "ssm:GetParameter", Way::Deploy, "ssm:GetParameter"),
    case("answer key", "AccountReadsThePublicHalf", "kms:GetPublicKey", SEE_ANSWER_KEY, ""),
    case("answer key", "TheLauncherSigns", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("answer key", "NoDeployRoleAdministers", DENIES, ADMINISTER_ANSWER_KEY, ""),
    case("ledger key", "AccountReadsThePublicHalf", "kms:GetPublicKey", SEE_LEDGER_KEY, ""),
    case("ledger key", "TheLedgerSigns", "kms:Sign", SIGN_ENTRY, ""),
    case("ledger key", "NoDeployRoleAdministers", DENIES, ADMINISTER_LEDGER_KEY, ""),
    case("target key", "AccountReadsThePublicHalf", "kms:GetPublicKey", Way::Deploy, "kms:GetPublicKey"),
    case("target key", "TheRunnerOfThisTargetSigns", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("target key", "NoDeployRoleAdministers", DENIES, ADMINISTER_TARGET_KEY, ""),
    case("data key", "NoDeployRoleAdministers", DENIES, ADMINISTER_DATA_KEY, ""),
    case("topic", "OnlyTheLauncherListens", DENIES, TAP, ""),
    case("relay bucket", "OnlyRelayRolesWrite", DENIES, WRITE, ""),
    case("relay bucket", "NoLauncherOrRunnerWritesKeys", DENIES, WRITE_JWKS_TOO, ""),
    case("relay bucket", "NobodyDeletes", DENIES, DELETE_OBJECT, ""),
    case("relay bucket", "NoOtherEncryption", DENIES, WRITE_PLAIN, ""),
    case("relay bucket", "NoDeployRoleAdministers", DENIES, ADMINISTER, ""),
    case("evidence bucket", "OnlyRelayWrites", DENIES, WRITE_CLAIM, ""),
    case("evidence bucket", "OnlyTheLauncherWritesItsOwn", DENIES, WRITE_THE_LAUNCHERS, ""),
    case("evidence bucket", "OnlyRunnersWriteTheirs", DENIES, WRITE_A_RUNNERS, ""),
    case("evidence bucket", "OnlyTheLedgerWritesTheLedger", DENIES, WRITE_ENTRY_TOO, ""),
    case("evidence bucket", "TheLedgerWritesNothingElse", DENIES, WRITE_CLAIM_BY_LEDGER, ""),
    case("evidence bucket", "NobodyDeletes", DENIES, DELETE_EVIDENCE, ""),
    case("evidence bucket", "NoOtherEncryption", DENIES, WRITE_CLAIM_PLAIN, ""),
    case("evidence bucket", "NoDeployRoleAdministers", DENIES, ADMINISTER_EVIDENCE, ""),
];

const BY_S3: &str = "S3 requires no permission on the key that it encrypts with";
const PASS: &str = "RunTask requires no permission to pass a role";
const LOGS: &str = "the container engine and Lambda write logs without a permission";
const FARGATE: &str = "only Fargate uses it, and ministack has no Fargate";
const VPC: &str = "only a function in a VPC uses it, and ministack runs none there";
const SOURCE: &str = "AssumeRole requires no further permission";
const SWEEP: &str = "ministack has no boto3, which the function gets from Lambda";
const ADMIN: &str = "people use it, not a program";
const TLS: &str = "ministack has no TLS, so the denial is switched off";
const TWICE: &str = "no other statement allows what it denies: see the denied calls";
const NO_KEY: &str = "S3 has no condition key for it, so the denial is switched off or never applies";
const MISSING: &str = "a missing object is 404, with or without this permission";

/// Policy, statement, action (or `*` for every action without a case), and reason.
pub(crate) const NOT_JUDGED: &[(&str, &str, &str, &str)] = &[
    ("CI", "TellMissing", "s3:ListBucket", MISSING),
    ("request key", "AccountAdministers", "*", ADMIN),
    ("sweep", "List", "*", SWEEP),
    ("sweep", "LookAndDelete", "*", SWEEP),
    ("sweep", "Log", "*", LOGS),
    ("launcher", "PassRunnerRole", "*", PASS),
    ("launcher", "PassExecutionRole", "*", PASS),
    ("launcher", "TellMissing", "s3:ListBucket", MISSING),
    ("launcher", "Decrypt", "*", BY_S3),
    ("launcher", "Encrypt", "*", BY_S3),
    ("launcher", "ReportFailure", "*", "ministack's Lambda has no on-failure queue"),
    ("launcher", "Log", "*", LOGS),
    ("jwks", "Decrypt", "*", BY_S3),
    ("jwks", "Encrypt", "*", BY_S3),
    ("jwks", "Log", "*", LOGS),
    ("ledger", "Decrypt", "*", BY_S3),
    ("ledger", "Encrypt", "*", BY_S3),
    ("ledger", "Log", "*", LOGS),
    ("execution", "LogInToRegistry", "*", FARGATE),
    ("execution", "PullImages", "*", FARGATE),
    ("execution", "Log", "*", FARGATE),
    ("runner", "BecomeTheTool", "sts:SetSourceIdentity", SOURCE),
    ("runner", "BecomeTheTool", "sts:TagSession", SOURCE),
    ("runner", "DataKey", "*", BY_S3),
    ("boundary", "Describe", "ecr:GetAuthorizationToken", FARGATE),
    ("boundary", "PassRoles", "*", PASS),
    ("boundary", "DeployRoles", "sts:SetSourceIdentity", SOURCE),
    ("boundary", "DeployRoles", "sts:TagSession", SOURCE),
    ("boundary", "Keys", "*", BY_S3),
    ("boundary", "Logs", "*", LOGS),
    ("boundary", "Images", "*", FARGATE),
    ("boundary", "Interfaces", "*", VPC),
    ("artifact bucket", "TlsOnly", "*", TLS),
    ("topic", "TlsOnly", "*", TLS),
    ("launcher", "NeverWithAShell", "*", "ECS has no condition key for it"),
    ("boundary", "NeverAShell", "*", TWICE),
    ("boundary", "NeverAShellLater", "*", "ECS has no condition key for it"),
    ("boundary", "NeverIam", "*", TWICE),
    ("boundary", "NeverDefineOrDelete", "*", TWICE),
    ("answer key", "AccountAdministers", "*", ADMIN),
    ("answer key", "AccountReadsThePublicHalf", "kms:Verify", ADMIN),
    ("answer key", "NobodyElseSigns", "*", TWICE),
    ("ledger key", "AccountAdministers", "*", ADMIN),
    ("ledger key", "AccountReadsThePublicHalf", "kms:Verify", ADMIN),
    ("ledger key", "NobodyElseSigns", "*", TWICE),
    ("target key", "AccountAdministers", "*", ADMIN),
    ("target key", "AccountReadsThePublicHalf", "kms:Verify", ADMIN),
    ("target key", "NobodyElseSigns", "*", TWICE),
    ("data key", "AccountAdministers", "*", ADMIN),
    ("data key", "AccountReadsByS3", "*", BY_S3),
    ("data key", "RelayRolesWriteByS3", "*", BY_S3),
    ("data key", "LogsOfRelay", "*", "CloudWatch Logs encrypts nothing"),
    ("relay bucket", "TlsOnly", "*", TLS),
    ("relay bucket", "LocksOnlyConditionally", "*", NO_KEY),
    (
        "relay bucket",
        "ThePlatformRoleWritesLocksAndKeys",
        "*",
        "there is no platform role here: see tests/infra/calls.rs",
    ),
    ("relay bucket", "NoOtherKey", "*", NO_KEY),
    ("relay bucket", "NoCustomerKey", "*", NO_KEY),
    ("evidence bucket", "TlsOnly", "*", TLS),
    ("evidence bucket", "WrittenOnce", "*", NO_KEY),
    ("evidence bucket", "NoOtherKey", "*", NO_KEY),
    ("evidence bucket", "NoCustomerKey", "*", NO_KEY),
];

const RUN_TASK: &str = r#"{"cluster": "relay", "taskDefinition": "relay_example_shop"}"#;
const REGISTER: &str =
    r#"{"family": "relay_example_shop", "containerDefinitions": [{"name": "runner", "image": "x"}]}"#;
const SIGN_ANSWER: &str =
    r#"{"KeyId": "{answer key}", "Message": {"$bytes": "eA=="}, "SigningAlgorithm": "ECDSA_SHA_256"}"#;
const SIGN_LEDGER: &str =
    r#"{"KeyId": "{ledger key}", "Message": {"$bytes": "eA=="}, "SigningAlgorithm": "ECDSA_SHA_256"}"#;
const ENTRY: &str = r#"{"Bucket": "{evidence}", "Key": "ledger/0000000000.json"}"#;
const SIGN_RECORD: &str =
    r#"{"KeyId": "{target key}", "Message": {"$bytes": "eA=="}, "SigningAlgorithm": "ECDSA_SHA_256"}"#;
const SIGN_BY_ALIAS: &str =
    r#"{"KeyId": "alias/relay-example-shop", "Message": {"$bytes": "eA=="}, "SigningAlgorithm": "ECDSA_SHA_256"}"#;
const GRANT_ANSWER: &str =
    r#"{"KeyId": "{answer key}", "GranteePrincipal": "arn:aws:iam::222222222222:role/admin", "Operations": ["Sign"]}"#;
const GRANT_RECORD: &str =
    r#"{"KeyId": "{target key}", "GranteePrincipal": "arn:aws:iam::222222222222:role/admin", "Operations": ["Sign"]}"#;
const PUBLISH: &str = r#"{"TopicArn": "{topic}", "Message": "x"}"#;
const BE_LAUNCHER: &str =
    r#"{"RoleArn": "arn:aws:iam::222222222222:role/relay/relay-launcher-eu-west-1", "RoleSessionName": "thief"}"#;
const BE_RUNNER: &str =
    r#"{"RoleArn": "arn:aws:iam::222222222222:role/relay/runner/relay-example-shop", "RoleSessionName": "thief"}"#;
const BE_TOOL: &str = r#"{"RoleArn": "arn:aws:iam::222222222222:role/relay-deploy/shop", "RoleSessionName": "thief"}"#;
const PENDING: &str =
    r#"{"Bucket": "relay-approvals-111111111111-eu-west-1", "Key": "example/shop/pending/trial/request"}"#;
const CLAIM: &str = r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/claim"}"#;
const REQUEST: &str = r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/request.json"}"#;
const CONFIGURATION: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/configuration/x.toml"}"#;
const TRANSCRIPT: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/runner/000000.jsonl"}"#;
const RECORD: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/runner/record.json"}"#;
const LAUNCHER_RECORD: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/example/shop/2026-01-01/trial/launcher/record.json"}"#;
const OTHER_CLAIM: &str = r#"{"Bucket": "{evidence}", "Key": "deployments/other/target/2026-01-01/trial/claim"}"#;
const OTHER_REQUEST: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/other/target/2026-01-01/trial/request.json"}"#;
const OTHER_RECORD: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/other/target/2026-01-01/trial/runner/record.json"}"#;
const OTHER_TRANSCRIPT: &str =
    r#"{"Bucket": "{evidence}", "Key": "deployments/other/target/2026-01-01/trial/runner/000000.jsonl"}"#;
const LIST_EVIDENCE: &str = r#"{"Bucket": "{evidence}"}"#;
const OWN_LOCK: &str = r#"{"Bucket": "{bucket}", "Key": "locks/example/shop/0"}"#;
const OTHER_LOCK: &str = r#"{"Bucket": "{bucket}", "Key": "locks/other/target/0"}"#;
const OWN_SAVED: &str = r#"{"Bucket": "{bucket}", "Key": "saved/example/shop/x"}"#;
const OTHER_SAVED: &str = r#"{"Bucket": "{bucket}", "Key": "saved/other/target/x"}"#;
const JWKS: &str = r#"{"Bucket": "{bucket}", "Key": "jwks/x"}"#;
const ARTIFACT: &str = r#"{"Bucket": "{artifacts}", "Key": "example/shop/x"}"#;
const FUNCTION: &str = r#"{"FunctionName": "arn:aws:lambda:eu-west-1:222222222222:function:relay-launcher"}"#;
const DEAD: &str = r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/222222222222/relay-dead-letters"}"#;
const FORGE: &str =
    r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/222222222222/relay-dead-letters", "MessageBody": "x"}"#;
const SECRET: &str = r#"{"SecretId": "shop/password"}"#;
const ROLE: &str = r#"{"RoleName": "relay-launcher-eu-west-1"}"#;
const SCHEDULE_ANSWER_KEY: &str = r#"{"KeyId": "{answer key}", "PendingWindowInDays": 7}"#;
const SCHEDULE_TARGET_KEY: &str = r#"{"KeyId": "{target key}", "PendingWindowInDays": 7}"#;
const OPEN_ANSWER_KEY: &str = r#"{"KeyId": "{answer key}", "PolicyName": "default", "Policy": "{}"}"#;
const OPEN_LEDGER_KEY: &str = r#"{"KeyId": "{ledger key}", "PolicyName": "default", "Policy": "{}"}"#;
const OPEN_TARGET_KEY: &str = r#"{"KeyId": "{target key}", "PolicyName": "default", "Policy": "{}"}"#;
const OPEN_DATA_KEY: &str = r#"{"KeyId": "alias/relay-data", "PolicyName": "default", "Policy": "{}"}"#;
const OPEN_BUCKET: &str = r#"{"Bucket": "{bucket}", "Policy": "{}"}"#;
const OPEN_EVIDENCE: &str = r#"{"Bucket": "{evidence}", "Policy": "{}"}"#;

/// The calls that a principal may not make.
pub(crate) const DENIED: &[(Who, &str, &str, &str)] = &[
    // CI may send requests, and no more. It reads and writes no evidence.
    (Who::Ci, "ecs", "RunTask", RUN_TASK),
    (Who::Ci, "ecs", "RegisterTaskDefinition", REGISTER),
    (Who::Ci, "lambda", "Invoke", FUNCTION),
    (Who::Ci, "kms", "Sign", SIGN_ANSWER),
    (Who::Ci, "kms", "Sign", SIGN_RECORD),
    (Who::Ci, "s3", "ListObjectsV2", LIST_EVIDENCE),
    (Who::Ci, "s3", "GetObject", CLAIM),
    (Who::Ci, "s3", "GetObject", REQUEST),
    (Who::Ci, "s3", "GetObject", CONFIGURATION),
    (Who::Ci, "s3", "GetObject", TRANSCRIPT),
    (Who::Ci, "s3", "GetObject", RECORD),
    (Who::Ci, "s3", "GetObject", LAUNCHER_RECORD),
    (Who::Ci, "s3", "PutObject", CLAIM),
    (Who::Ci, "s3", "PutObject", REQUEST),
    (Who::Ci, "s3", "DeleteObject", CLAIM),
    (Who::Ci, "s3", "GetObject", OWN_SAVED),
    (Who::Ci, "sqs", "ReceiveMessage", DEAD),
    (Who::Ci, "secretsmanager", "GetSecretValue", SECRET),
    (Who::Ci, "iam", "GetRole", ROLE),
    (Who::Ci, "sts", "AssumeRole", BE_LAUNCHER),
    (Who::Ci, "sts", "AssumeRole", BE_RUNNER),
    (Who::Ci, "sts", "AssumeRole", BE_TOOL),
    // The launcher starts tasks and must not act as one.
    (Who::Launcher, "ecs", "RegisterTaskDefinition", REGISTER),
    (Who::Launcher, "kms", "Sign", SIGN_RECORD),
    (Who::Launcher, "kms", "Sign", SIGN_BY_ALIAS),
    (Who::Launcher, "sts", "AssumeRole", BE_RUNNER),
    (Who::Launcher, "sts", "AssumeRole", BE_TOOL),
    (Who::Launcher, "s3", "PutObject", RECORD),
    (Who::Launcher, "s3", "PutObject", TRANSCRIPT),
    (Who::Launcher, "s3", "GetObject", TRANSCRIPT),
    (Who::Launcher, "s3", "DeleteObject", CLAIM),
    (Who::Launcher, "s3", "DeleteObject", REQUEST),
    (Who::Launcher, "s3", "DeleteObject", LAUNCHER_RECORD),
    (Who::Launcher, "s3", "PutObject", OWN_LOCK),
    (Who::Launcher, "s3", "DeleteObject", OWN_LOCK),
    (Who::Launcher, "s3", "PutObject", JWKS),
    (Who::Launcher, "s3", "GetObject", OWN_SAVED),
    (Who::Launcher, "secretsmanager", "GetSecretValue", SECRET),
    (Who::Launcher, "sns", "Publish", PUBLISH),
    (Who::Launcher, "sqs", "ReceiveMessage", DEAD),
    (Who::LauncherAdmin, "kms", "Sign", SIGN_RECORD),
    (Who::LauncherAdmin, "s3", "DeleteObject", CLAIM),
    // The role that writes key sets may do nothing else.
    (Who::Jwks, "s3", "PutObject", CLAIM),
    (Who::Jwks, "kms", "Sign", SIGN_ANSWER),
    (Who::Jwks, "kms", "Sign", SIGN_RECORD),
    (Who::Jwks, "ecs", "RunTask", RUN_TASK),
    // The role that lists evidence may do nothing else.
    (Who::Ledger, "s3", "PutObject", CLAIM),
    (Who::Ledger, "s3", "GetObject", REQUEST),
    (Who::Ledger, "s3", "GetObject", TRANSCRIPT),
    (Who::Ledger, "s3", "DeleteObject", ENTRY),
    (Who::Ledger, "kms", "Sign", SIGN_ANSWER),
    (Who::Ledger, "kms", "Sign", SIGN_RECORD),
    (Who::Ledger, "ecs", "RunTask", RUN_TASK),
    (Who::Launcher, "kms", "Sign", SIGN_LEDGER),
    (Who::Launcher, "s3", "PutObject", ENTRY),
    (Who::Jwks, "kms", "Sign", SIGN_LEDGER),
    // A runner serves one target only, and does not speak for the launcher.
    (Who::Runner, "ecs", "RunTask", RUN_TASK),
    (Who::Runner, "ecs", "RegisterTaskDefinition", REGISTER),
    (Who::Runner, "sns", "Publish", PUBLISH),
    (Who::Runner, "kms", "Sign", SIGN_ANSWER),
    (Who::Runner, "kms", "Sign", SIGN_LEDGER),
    (Who::Runner, "s3", "PutObject", ENTRY),
    (Who::Runner, "s3", "PutObject", REQUEST),
    (Who::Runner, "s3", "PutObject", CONFIGURATION),
    (Who::Runner, "s3", "PutObject", LAUNCHER_RECORD),
    (Who::Runner, "s3", "GetObject", LAUNCHER_RECORD),
    (Who::Runner, "s3", "GetObject", TRANSCRIPT),
    (Who::Runner, "s3", "GetObject", OTHER_REQUEST),
    (Who::Runner, "s3", "GetObject", OTHER_CLAIM),
    (Who::Runner, "s3", "PutObject", OTHER_CLAIM),
    (Who::Runner, "s3", "PutObject", OTHER_RECORD),
    (Who::Runner, "s3", "PutObject", OTHER_TRANSCRIPT),
    (Who::Runner, "s3", "DeleteObject", CLAIM),
    (Who::Runner, "s3", "DeleteObject", RECORD),
    (Who::Runner, "s3", "DeleteObject", TRANSCRIPT),
    (Who::Runner, "s3", "DeleteObject", OWN_LOCK),
    (Who::Runner, "s3", "PutObject", OTHER_LOCK),
    (Who::Runner, "s3", "PutObject", OTHER_SAVED),
    (Who::Runner, "s3", "GetObject", OTHER_SAVED),
    (Who::Runner, "s3", "PutObject", JWKS),
    (Who::Runner, "s3", "PutObject", ARTIFACT),
    (Who::Runner, "sts", "AssumeRole", BE_LAUNCHER),
    (Who::Runner, "sqs", "SendMessage", FORGE),
    // Even a runner's role that may do anything signs nothing for another target, or for the
    // launcher, and writes nothing of the launcher's.
    (Who::RunnerAdmin, "kms", "Sign", SIGN_ANSWER),
    (Who::RunnerAdmin, "kms", "Sign", SIGN_RECORD),
    (Who::RunnerAdmin, "s3", "PutObject", REQUEST),
    (Who::RunnerAdmin, "s3", "PutObject", CONFIGURATION),
    (Who::RunnerAdmin, "s3", "DeleteObject", CLAIM),
    // An administrator signs, writes and deletes nothing, unless a policy is changed first.
    (Who::Admin, "kms", "Sign", SIGN_ANSWER),
    (Who::Admin, "kms", "Sign", SIGN_RECORD),
    (Who::Admin, "kms", "CreateGrant", GRANT_ANSWER),
    (Who::Admin, "kms", "CreateGrant", GRANT_RECORD),
    (Who::Admin, "s3", "PutObject", REQUEST),
    (Who::Admin, "s3", "PutObject", RECORD),
    (Who::Admin, "s3", "PutObject", LAUNCHER_RECORD),
    (Who::Admin, "s3", "DeleteObject", RECORD),
    (Who::Admin, "s3", "DeleteObject", OWN_LOCK),
    (Who::RelayAdmin, "kms", "Sign", SIGN_ANSWER),
    (Who::RelayAdmin, "kms", "Sign", SIGN_RECORD),
    (Who::RelayAdmin, "s3", "PutObject", CLAIM),
    // The tool has its own permissions and none of relay's.
    (Who::Deploy, "kms", "Sign", SIGN_ANSWER),
    (Who::Deploy, "kms", "Sign", SIGN_RECORD),
    (Who::Deploy, "kms", "PutKeyPolicy", OPEN_TARGET_KEY),
    (Who::Deploy, "kms", "ScheduleKeyDeletion", SCHEDULE_TARGET_KEY),
    (Who::Deploy, "s3", "GetObject", REQUEST),
    (Who::Deploy, "s3", "PutObject", CLAIM),
    (Who::Deploy, "s3", "PutObject", RECORD),
    (Who::Deploy, "s3", "GetObject", OWN_LOCK),
    (Who::Deploy, "s3", "PutObject", OWN_LOCK),
    (Who::Deploy, "s3", "PutBucketPolicy", OPEN_BUCKET),
    (Who::Deploy, "s3", "PutBucketPolicy", OPEN_EVIDENCE),
    (Who::Deploy, "ecs", "RunTask", RUN_TASK),
    (Who::Deploy, "sns", "Publish", PUBLISH),
    (Who::Deploy, "secretsmanager", "GetSecretValue", SECRET),
    (Who::Deploy, "sts", "AssumeRole", BE_RUNNER),
    // Nor does a tool with an administrator's rights get them.
    (Who::ToolAdmin, "kms", "Sign", SIGN_ANSWER),
    (Who::ToolAdmin, "kms", "Sign", SIGN_RECORD),
    (Who::ToolAdmin, "kms", "ScheduleKeyDeletion", SCHEDULE_ANSWER_KEY),
    (Who::ToolAdmin, "kms", "ScheduleKeyDeletion", SCHEDULE_TARGET_KEY),
    (Who::ToolAdmin, "s3", "PutObject", CLAIM),
    (Who::ToolAdmin, "s3", "PutObject", RECORD),
    (Who::ToolAdmin, "s3", "DeleteObject", CLAIM),
    (Who::ToolAdmin, "s3", "PutBucketPolicy", OPEN_EVIDENCE),
];
