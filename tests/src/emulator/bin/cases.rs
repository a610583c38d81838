//! Every permission of the templates, by policy, statement and action: the attempt that must fail
//! without it, or the reason why ministack cannot judge it. Also the calls that no role may make.

/// The principal that makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Ci,
    Launcher,
    Jwks,
    Runner,
    /// The tool, with the deploy role.
    Deploy,
    /// A role that may do anything.
    Admin,
    /// A role under relay's path that may do anything.
    RelayAdmin,
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
/// Only `relay doctor` makes this call; a deployment does not.
const SEE_KEY: Way = Way::Call(Who::Ci, "kms", "GetPublicKey", r#"{"KeyId": "{request key}"}"#);
/// A cancel that does not arrive leaves no trace in the output.
const LISTEN: Way = Way::Call(Who::Runner, "sqs", "ReceiveMessage", RECEIVE);
const DELETE_CANCEL: Way = Way::Call(Who::Runner, "sqs", "DeleteMessageBatch", DELETE);
/// The calls for a cancel that comes through the topic, and for the watchdog.
const PASS_ON: Way = Way::Call(Who::Launcher, "sqs", "SendMessage", SEND);
const NOTE: Way = Way::Call(Who::Launcher, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "cancels/trial"}"#);
const READ_NOTE: Way = Way::Call(Who::Launcher, "s3", "GetObject", r#"{"Bucket": "{bucket}", "Key": "cancels/trial"}"#);
const STOP: Way = Way::Call(Who::Launcher, "ecs", "StopTask", r#"{"cluster": "relay", "task": "{task}"}"#);
const SETTING: Way = Way::Call(Who::Deploy, "ssm", "GetParameter", r#"{"Name": "/shop/setting"}"#);
const WRITE_JWKS: Way = Way::Call(Who::Jwks, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "jwks/trial"}"#);
/// A transcript that cannot be archived changes nothing for CI.
const ARCHIVE: Way =
    Way::Call(Who::Runner, "s3", "PutObject", r#"{"Bucket": "{bucket}", "Key": "archive/example/shop/trial"}"#);
/// The runner reads a claim only when it is contested, which takes two tasks of one deployment.
const READ_CLAIM: Way = Way::Call(Who::Runner, "s3", "ListObjectsV2", r#"{"Bucket": "{bucket}"}"#);

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
    case("CI signs", "Sign", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("CI signs", "Sign", "kms:GetPublicKey", SEE_KEY, ""),
    case("request key", "CiSigns", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("request key", "AccountAdministers", "kms:GetPublicKey", SEE_KEY, ""),
    case("artifact bucket", "RunnersReadTheirTarget", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("topic", "CiPublishes", "sns:Publish", Way::Deploy, "sns:Publish"),
    case("launcher", "FindTarget", "ecs:DescribeTaskDefinition", Way::Deploy, "ecs:DescribeTaskDefinition"),
    case("launcher", "StartTask", "ecs:RunTask", Way::Deploy, "ecs:RunTask"),
    case("launcher", "FindTask", "ecs:ListTasks", Way::Deploy, "ecs:ListTasks"),
    case("launcher", "SeeTask", "ecs:DescribeTasks", Way::Takeover, "ecs:DescribeTasks"),
    case("launcher", "StopTask", "ecs:StopTask", STOP, ""),
    case("launcher", "NoteCancel", "s3:PutObject", NOTE, ""),
    case("launcher", "ReadCancel", "s3:GetObject", READ_NOTE, ""),
    case("launcher", "PassCancelOn", "sqs:SendMessage", PASS_ON, ""),
    case("launcher", "ReadClaim", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("launcher", "ReadLock", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("launcher", "WriteVerdict", "s3:PutObject", Way::Refused, "s3:PutObject"),
    case("launcher", "SignAnswer", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("launcher", "Answer", "sqs:SendMessage", Way::Refused, NO_LAUNCHER),
    case("jwks", "WriteKeySet", "s3:PutObject", WRITE_JWKS, ""),
    case("runner", "Answer", "sqs:SendMessage", Way::Deploy, NO_RUNNER),
    case("runner", "Control", "sqs:ReceiveMessage", LISTEN, ""),
    case("runner", "Control", "sqs:DeleteMessage", DELETE_CANCEL, ""),
    case("runner", "Claim", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("runner", "Archive", "s3:PutObject", ARCHIVE, ""),
    case("runner", "Lock", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("runner", "Lock", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("runner", "Missing", "s3:ListBucket", READ_CLAIM, ""),
    case("runner", "HolderOfTheLock", "ecs:DescribeTasks", Way::Takeover, "ecs:DescribeTasks"),
    case("runner", "Vouch", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("runner", "Vouch", "kms:GetPublicKey", Way::Deploy, "kms:GetPublicKey"),
    case("runner", "Save", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("runner", "ArtifactSource", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("runner", "Secrets", "secretsmanager:GetSecretValue", Way::Deploy, "secretsmanager:GetSecretValue"),
    case("runner", "SecretParameters", "ssm:GetParameter", Way::Deploy, "ssm:GetParameter"),
    case("runner", "BecomeTheTool", "sts:AssumeRole", Way::Deploy, "sts:AssumeRole"),
    case("deploy", "Setting", "ssm:GetParameter", SETTING, ""),
    case("boundary", "Describe", "ecs:DescribeTaskDefinition", Way::Deploy, "ecs:DescribeTaskDefinition"),
    case("boundary", "Tasks", "ecs:DescribeTasks", Way::Takeover, "ecs:DescribeTasks"),
    case("boundary", "Tasks", "ecs:ListTasks", Way::Deploy, "ecs:ListTasks"),
    case("boundary", "Tasks", "ecs:RunTask", Way::Deploy, "ecs:RunTask"),
    case("boundary", "Tasks", "ecs:StopTask", STOP, ""),
    case("boundary", "DeployRoles", "sts:AssumeRole", Way::Deploy, "sts:AssumeRole"),
    case("boundary", "RelayBucket", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("boundary", "RelayBucket", "s3:ListBucket", READ_CLAIM, ""),
    case("boundary", "RelayBucket", "s3:PutObject", Way::Deploy, "s3:PutObject"),
    case("boundary", "Artifacts", "s3:GetObject", Way::Deploy, "s3:GetObject"),
    case("boundary", "TargetKey", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("boundary", "TargetKey", "kms:GetPublicKey", Way::Deploy, "kms:GetPublicKey"),
    case("boundary", "Queues", "sqs:SendMessage", Way::Deploy, NO_LAUNCHER),
    case("boundary", "Queues", "sqs:ReceiveMessage", LISTEN, ""),
    case("boundary", "Queues", "sqs:DeleteMessage", DELETE_CANCEL, ""),
    case("boundary", "Secrets", "secretsmanager:GetSecretValue", Way::Deploy, "secretsmanager:GetSecretValue"),
    case("boundary", "Secrets", "ssm:GetParameter", Way::Deploy, "ssm:GetParameter"),
    case("target key", "LauncherAndRunnersSign", "kms:Sign", Way::Deploy, "kms:Sign"),
    case("target key", "AccountReadsThePublicHalf", "kms:GetPublicKey", Way::Deploy, "kms:GetPublicKey"),
    case("topic", "OnlyTheLauncherListens", DENIES, TAP, ""),
    case("relay bucket", "OnlyRelayRolesWrite", DENIES, WRITE, ""),
    case("relay bucket", "OnlyTheJwksRoleWritesJwks", DENIES, WRITE_JWKS_TOO, ""),
    case("relay bucket", "NobodyDeletes", DENIES, DELETE_OBJECT, ""),
    case("relay bucket", "NoOtherEncryption", DENIES, WRITE_PLAIN, ""),
    case("relay bucket", "NoDeployRoleAdministers", DENIES, ADMINISTER, ""),
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
    ("jwks", "Encrypt", "*", BY_S3),
    ("jwks", "Log", "*", LOGS),
    ("execution", "LogInToRegistry", "*", FARGATE),
    ("execution", "PullImages", "*", FARGATE),
    ("execution", "Log", "*", FARGATE),
    ("runner", "Claim", "s3:GetObject", "only a contested claim is read, which takes two tasks of one deployment"),
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
    ("target key", "NobodyElseSigns", "*", TWICE),
    (
        "target key",
        "NoDeployRoleAdministers",
        "*",
        "a call that shows it would make the key unusable for all later calls",
    ),
    ("relay bucket", "TlsOnly", "*", TLS),
    ("relay bucket", "WrittenOnce", "*", NO_KEY),
    ("relay bucket", "LocksOnlyConditionally", "*", NO_KEY),
    ("relay bucket", "NoOtherKey", "*", NO_KEY),
    ("relay bucket", "NoCustomerKey", "*", NO_KEY),
    ("target key", "AccountAdministers", "*", ADMIN),
    ("target key", "AccountReadsThePublicHalf", "kms:Verify", ADMIN),
];

const RUN_TASK: &str = r#"{"cluster": "relay", "taskDefinition": "relay_example_shop"}"#;
const REGISTER: &str =
    r#"{"family": "relay_example_shop", "containerDefinitions": [{"name": "runner", "image": "x"}]}"#;
const SIGN: &str = r#"{"KeyId": "{key}", "Message": {"$bytes": "eA=="}, "SigningAlgorithm": "ECDSA_SHA_256"}"#;
const PUBLISH: &str = r#"{"TopicArn": "{topic}", "Message": "x"}"#;
const BE_LAUNCHER: &str =
    r#"{"RoleArn": "arn:aws:iam::222222222222:role/relay/relay-launcher-eu-west-1", "RoleSessionName": "thief"}"#;
const BE_RUNNER: &str =
    r#"{"RoleArn": "arn:aws:iam::222222222222:role/relay/runner/relay-example-shop", "RoleSessionName": "thief"}"#;
const BE_TOOL: &str = r#"{"RoleArn": "arn:aws:iam::222222222222:role/relay-deploy/shop", "RoleSessionName": "thief"}"#;
const CLAIM: &str = r#"{"Bucket": "{bucket}", "Key": "claims/x"}"#;
const OWN_LOCK: &str = r#"{"Bucket": "{bucket}", "Key": "locks/example/shop/0"}"#;
const OTHER_LOCK: &str = r#"{"Bucket": "{bucket}", "Key": "locks/other/target/0"}"#;
const OWN_SAVED: &str = r#"{"Bucket": "{bucket}", "Key": "saved/example/shop/x"}"#;
const OTHER_SAVED: &str = r#"{"Bucket": "{bucket}", "Key": "saved/other/target/x"}"#;
const OWN_ARCHIVE: &str = r#"{"Bucket": "{bucket}", "Key": "archive/example/shop/x"}"#;
const OTHER_ARCHIVE: &str = r#"{"Bucket": "{bucket}", "Key": "archive/other/target/x"}"#;
const JWKS: &str = r#"{"Bucket": "{bucket}", "Key": "jwks/x"}"#;
const ARTIFACT: &str = r#"{"Bucket": "{artifacts}", "Key": "example/shop/x"}"#;
const FUNCTION: &str = r#"{"FunctionName": "arn:aws:lambda:eu-west-1:222222222222:function:relay-launcher"}"#;
const DEAD: &str = r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/222222222222/relay-dead-letters"}"#;
const FORGE: &str =
    r#"{"QueueUrl": "https://sqs.eu-west-1.amazonaws.com/222222222222/relay-dead-letters", "MessageBody": "x"}"#;
const SECRET: &str = r#"{"SecretId": "shop/password"}"#;
const ROLE: &str = r#"{"RoleName": "relay-launcher-eu-west-1"}"#;
const SCHEDULE: &str = r#"{"KeyId": "{key}", "PendingWindowInDays": 7}"#;
const OPEN_KEY: &str = r#"{"KeyId": "{key}", "PolicyName": "default", "Policy": "{}"}"#;
const OPEN_BUCKET: &str = r#"{"Bucket": "{bucket}", "Policy": "{}"}"#;

/// The calls that a principal may not make.
pub(crate) const DENIED: &[(Who, &str, &str, &str)] = &[
    // CI may send requests, and no more.
    (Who::Ci, "ecs", "RunTask", RUN_TASK),
    (Who::Ci, "ecs", "RegisterTaskDefinition", REGISTER),
    (Who::Ci, "lambda", "Invoke", FUNCTION),
    (Who::Ci, "kms", "Sign", SIGN),
    (Who::Ci, "s3", "GetObject", CLAIM),
    (Who::Ci, "s3", "PutObject", CLAIM),
    (Who::Ci, "s3", "GetObject", OWN_SAVED),
    (Who::Ci, "s3", "GetObject", OWN_ARCHIVE),
    (Who::Ci, "sqs", "ReceiveMessage", DEAD),
    (Who::Ci, "secretsmanager", "GetSecretValue", SECRET),
    (Who::Ci, "iam", "GetRole", ROLE),
    (Who::Ci, "sts", "AssumeRole", BE_LAUNCHER),
    (Who::Ci, "sts", "AssumeRole", BE_RUNNER),
    (Who::Ci, "sts", "AssumeRole", BE_TOOL),
    // The launcher starts tasks and must not act as one.
    (Who::Launcher, "ecs", "RegisterTaskDefinition", REGISTER),
    (Who::Launcher, "sts", "AssumeRole", BE_RUNNER),
    (Who::Launcher, "sts", "AssumeRole", BE_TOOL),
    (Who::Launcher, "s3", "DeleteObject", CLAIM),
    (Who::Launcher, "s3", "PutObject", OWN_LOCK),
    (Who::Launcher, "s3", "DeleteObject", OWN_LOCK),
    (Who::Launcher, "s3", "PutObject", JWKS),
    (Who::Launcher, "s3", "GetObject", OWN_SAVED),
    (Who::Launcher, "secretsmanager", "GetSecretValue", SECRET),
    (Who::Launcher, "sns", "Publish", PUBLISH),
    (Who::Launcher, "sqs", "ReceiveMessage", DEAD),
    // The role that writes key sets may do nothing else.
    (Who::Jwks, "s3", "PutObject", CLAIM),
    (Who::Jwks, "kms", "Sign", SIGN),
    (Who::Jwks, "ecs", "RunTask", RUN_TASK),
    // A runner serves one target only.
    (Who::Runner, "ecs", "RunTask", RUN_TASK),
    (Who::Runner, "ecs", "RegisterTaskDefinition", REGISTER),
    (Who::Runner, "sns", "Publish", PUBLISH),
    (Who::Runner, "s3", "DeleteObject", CLAIM),
    (Who::Runner, "s3", "DeleteObject", OWN_LOCK),
    (Who::Runner, "s3", "PutObject", OTHER_LOCK),
    (Who::Runner, "s3", "GetObject", OWN_ARCHIVE),
    (Who::Runner, "s3", "PutObject", OTHER_ARCHIVE),
    (Who::Runner, "s3", "PutObject", OTHER_SAVED),
    (Who::Runner, "s3", "GetObject", OTHER_SAVED),
    (Who::Runner, "s3", "PutObject", JWKS),
    (Who::Runner, "s3", "PutObject", ARTIFACT),
    (Who::Runner, "sts", "AssumeRole", BE_LAUNCHER),
    (Who::Runner, "sqs", "SendMessage", FORGE),
    // The tool has its own permissions and none of relay's.
    (Who::Deploy, "kms", "Sign", SIGN),
    (Who::Deploy, "kms", "PutKeyPolicy", OPEN_KEY),
    (Who::Deploy, "kms", "ScheduleKeyDeletion", SCHEDULE),
    (Who::Deploy, "s3", "PutObject", CLAIM),
    (Who::Deploy, "s3", "GetObject", OWN_LOCK),
    (Who::Deploy, "s3", "PutObject", OWN_LOCK),
    (Who::Deploy, "s3", "PutObject", OWN_ARCHIVE),
    (Who::Deploy, "s3", "PutBucketPolicy", OPEN_BUCKET),
    (Who::Deploy, "ecs", "RunTask", RUN_TASK),
    (Who::Deploy, "sns", "Publish", PUBLISH),
    (Who::Deploy, "secretsmanager", "GetSecretValue", SECRET),
    (Who::Deploy, "sts", "AssumeRole", BE_RUNNER),
];
