//! The differences between ministack and AWS, and the changes to the templates that they need. AWS
//! needs none of these. Everything else is installed as it is.

use relay_tests::emulator::Outcome;

/// A file that a deviation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Ci,
    Foundation,
    Target,
    /// The policy that `relay` gives the queues it creates; not a template.
    Queue,
}

/// One difference between ministack and AWS.
pub(crate) struct Deviation {
    /// What ministack does, and what these runs therefore do not show.
    pub(crate) why: &'static str,
    /// Whether it matters only where permissions are checked.
    pub(crate) checked: bool,
    /// The replacements in each file: the old text and the new text. `{endpoint}` is ministack's
    /// address.
    changes: &'static [(File, &'static str, &'static str)],
}

const fn always(why: &'static str, changes: &'static [(File, &'static str, &'static str)]) -> Deviation {
    Deviation { why, checked: false, changes }
}

const fn checked(why: &'static str, changes: &'static [(File, &'static str, &'static str)]) -> Deviation {
    Deviation { why, checked: true, changes }
}

/// All known deviations.
pub(crate) const DEVIATIONS: &[Deviation] = &[
    always(
        "HTTP only, at one address: the configuration has an `endpoint`. The run does not show that everything requires TLS.",
        &[],
    ),
    always(
        "Lambda passes no endpoint to a function.",
        &[(
            File::Foundation,
            "          RELAY_FROZEN: !Ref Frozen\n",
            "          RELAY_FROZEN: !Ref Frozen\n          AWS_ENDPOINT_URL: {endpoint}\n",
        )],
    ),
    always(
        "CloudWatch has no metric math: the alarm of the ledger counts invocations alone.",
        &[(
            File::Foundation,
            "      Metrics:\n        - Id: done\n          Expression: FILL(runs, 0) - FILL(errors, 0)\n        - Id: runs\n          ReturnData: false\n          MetricStat:\n            Metric: { Namespace: AWS/Lambda, MetricName: Invocations, Dimensions: [{ Name: FunctionName, Value: !Ref Ledger }] }\n            Period: 3600\n            Stat: Sum\n        - Id: errors\n          ReturnData: false\n          MetricStat:\n            Metric: { Namespace: AWS/Lambda, MetricName: Errors, Dimensions: [{ Name: FunctionName, Value: !Ref Ledger }] }\n            Period: 3600\n            Stat: Sum\n",
            "      Namespace: AWS/Lambda\n      MetricName: Invocations\n      Period: 3600\n      Statistic: Sum\n",
        )],
    ),
    always("SNS invokes a function once: no retries, no dead letters.", &[]),
    always("ECS ignores clientToken, so RunTask does not show \"at most once\", and it sends no task events.", &[]),
    always(
        "ECS ignores entryPoint, dependsOn, volumes, user, linuxParameters and a read-only root. The task is one container of an image with the runner and a shell, and the pinned entry point is its command.",
        &[],
    ),
    always(
        "There is no registry: the image is named by its id, which is also a digest.",
        &[(File::Target, "\"none/shop@sha256:", "\"sha256:")],
    ),
    always(
        "A task has no network of its own. The SDK accepts http credentials only from loopback, so the container is on this machine's network.",
        &[(File::Target, "NetworkMode: awsvpc", "NetworkMode: host")],
    ),
    always(
        "ECS gives a task no usable credentials. Here the account's root assumes the runner's role, whose trust policy is opened briefly for this, and Python's file server serves the session; the image's own entry point sets its address.",
        &[],
    ),
    always(
        "CloudFormation creates no OIDC provider (CreateProvider=true), so a call to IAM does. STS does not check a token's signature, so CI's token is not signed.",
        &[],
    ),
    always(
        "S3 treats callers of another account as that account's root, without tags, does not resolve variables in a policy's resource, and denies these callers requests without TLS.",
        &[
            (File::Ci, "aws:SecureTransport: \"false\"", "aws:SecureTransport: \"unknown\""),
            (File::Ci, "/${!aws:PrincipalTag/relay-target}/*", "/*"),
            (
                File::Ci,
                "{ aws:PrincipalArn: !Sub \"arn:${AWS::Partition}:iam::*:role/relay/runner/*\" }",
                "{ aws:PrincipalArn: [\"arn:aws:iam::*:root\", \"arn:aws:sts::*:assumed-role/relay-*\"] }",
            ),
        ],
    ),
    checked(
        "IAM does not know events:source; the tests of the templates read this condition as data.",
        &[
            (File::Foundation, "            Condition:\n              StringEquals: { events:source: relay }\n", ""),
            (
                File::Foundation,
                "                Condition:\n                  StringEquals: { events:source: relay }\n",
                "",
            ),
        ],
    ),
    checked(
        "aws:PrincipalArn is the ARN of the session, which has no path, instead of the role's ARN.",
        &[
            (
                File::Foundation,
                "aws:PrincipalArn:\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/relay-launcher-${AWS::Region}\"\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/relay-ledger-${AWS::Region}\"\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/runner/*\"",
                "aws:PrincipalArn:\n                  - !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-launcher-${AWS::Region}*\"\n                  - !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-ledger-${AWS::Region}*\"\n                  - !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-example-*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn: !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/relay-launcher-${AWS::Region}\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-launcher-${AWS::Region}*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn: !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/relay-ledger-${AWS::Region}\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-ledger-${AWS::Region}*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn: !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/runner/*\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-example-*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn: !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/*\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn:\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/*\"\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay-platform\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn:\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay/relay-jwks-${AWS::Region}\"\n                  - !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay-platform\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-jwks-${AWS::Region}/*\"",
            ),
            (
                File::Foundation,
                "aws:PrincipalArn: !Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay-deploy/*\"",
                "aws:PrincipalArn: !Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/shop*\"",
            ),
            (
                File::Ci,
                "[!Sub \"arn:${AWS::Partition}:iam::${AWS::AccountId}:role/relay-ci/relay-ci\"]",
                "[!Sub \"arn:aws:sts::${AWS::AccountId}:assumed-role/relay-ci/*\"]",
            ),
            (
                File::Target,
                "\"aws:PrincipalArn\": \"arn:aws:iam::222222222222:role/relay/runner/relay-example-shop\"",
                "\"aws:PrincipalArn\": \"arn:aws:sts::222222222222:assumed-role/relay-example-shop/*\"",
            ),
            (
                File::Target,
                "\"aws:PrincipalArn\": \"arn:aws:iam::222222222222:role/relay-deploy/*\"",
                "\"aws:PrincipalArn\": \"arn:aws:sts::222222222222:assumed-role/shop*\"",
            ),
            (File::Queue, "arn:aws:iam::222222222222:role/relay/*", "arn:aws:sts::222222222222:assumed-role/relay-*"),
        ],
    ),
    checked(
        "Batch calls are separate actions; on AWS, SendMessage and DeleteMessage cover them.",
        &[
            (File::Ci, "sqs:SendMessage", "sqs:SendMessage*"),
            (File::Ci, "sqs:DeleteMessage", "sqs:DeleteMessage*"),
            (File::Foundation, "sqs:SendMessage", "sqs:SendMessage*"),
            (File::Foundation, "sqs:DeleteMessage", "sqs:DeleteMessage*"),
            (File::Target, "\"sqs:SendMessage\"", "\"sqs:SendMessage*\""),
            (File::Target, "\"sqs:DeleteMessage\"", "\"sqs:DeleteMessage*\""),
            (File::Queue, "sqs:SendMessage", "sqs:SendMessage*"),
            (File::Queue, "sqs:DeleteMessage", "sqs:DeleteMessage*"),
        ],
    ),
    checked(
        "Each ECS call is checked against the cluster, whatever its resource is on AWS, and there is no ecs:cluster.",
        &[
            (File::Foundation, ":container-instance/relay/*\"", ":cluster/relay\""),
            (File::Foundation, ":task-definition/relay_*:*\"", ":cluster/relay\""),
            (File::Foundation, ":task/relay/*\"", ":cluster/relay\""),
            (File::Foundation, "ArnEquals: { ecs:cluster:", "ArnEqualsIfExists: { ecs:cluster:"),
            (File::Target, ":task/relay/*\"", ":cluster/relay\""),
        ],
    ),
    checked(
        "A trust policy is evaluated without sts:SourceIdentity, so its condition is switched off.",
        &[(
            File::Target,
            "\"Null\": { \"sts:SourceIdentity\": \"false\" }",
            "\"Null\": { \"sts:SourceIdentity\": \"true\" }",
        )],
    ),
    checked(
        "Requests have no TLS and would be denied, so the denial is switched off.",
        &[(File::Foundation, "aws:SecureTransport: \"false\"", "aws:SecureTransport: \"unknown\"")],
    ),
    checked(
        "S3 has no condition keys for conditional writes, so these denials would deny all writes and are switched off.",
        &[
            (File::Ci, "\"Null\": { s3:if-none-match: \"true\" }", "\"Null\": { s3:if-none-match: \"false\" }"),
            (File::Foundation, "\"Null\": { s3:if-none-match: \"true\" }", "\"Null\": { s3:if-none-match: \"false\" }"),
            (
                File::Foundation,
                "\"Null\": { s3:if-match: \"true\", s3:if-none-match: \"true\" }",
                "\"Null\": { s3:if-match: \"false\", s3:if-none-match: \"false\" }",
            ),
        ],
    ),
    checked(
        "A bucket is assumed to belong to the caller's account.",
        &[(
            File::Foundation,
            "Resource: !Sub \"arn:${AWS::Partition}:s3:::*/*\"\n            Condition:\n              StringEquals: { aws:ResourceAccount: !Ref CiAccountIds }",
            "Resource: !Sub \"arn:${AWS::Partition}:s3:::relay-artifacts-*/*\"",
        )],
    ),
    checked(
        "If a call names a key by its alias, the checked ARN is the alias's, and there is no kms:ResourceAliases.",
        &[
            (
                File::Foundation,
                "Resource: !Sub \"arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/*\"\n            Condition:\n              ForAnyValue:StringLike: { kms:ResourceAliases: alias/relay-* }",
                "Resource: [!GetAtt AnswerKey.Arn, !GetAtt LedgerKey.Arn, !Sub \"arn:aws:kms:${AWS::Region}:${AWS::AccountId}:alias/relay-*\"]",
            ),
            (
                File::Foundation,
                "Resource: !Sub \"arn:${AWS::Partition}:kms:${AWS::Region}:${AWS::AccountId}:key/*\"\n                Condition:\n                  ForAnyValue:StringLike: { kms:ResourceAliases: alias/relay-* }",
                "Resource: !Sub \"arn:aws:kms:${AWS::Region}:${AWS::AccountId}:alias/relay-*\"",
            ),
            (
                File::Target,
                "Resource: !GetAtt TargetKey.Arn",
                "Resource: \"arn:aws:kms:eu-west-1:222222222222:alias/relay-example-shop\"",
            ),
        ],
    ),
    checked(
        "If a call names a parameter by its ARN, the checked ARN contains that ARN.",
        &[(
            File::Target,
            "[\"arn:aws:ssm:eu-west-1:222222222222:parameter/shop/token\"]",
            "[\"arn:aws:ssm:eu-west-1:222222222222:parameter/arn:aws:ssm:eu-west-1:222222222222:parameter/shop/token\"]",
        )],
    ),
    checked(
        "CloudFormation sets no permissions boundary on a role, so a call to IAM sets it afterwards on every role under /relay/.",
        &[],
    ),
    checked(
        "No permission is required for the key that S3 encrypts with, for the roles that RunTask passes, or for the logs of the container engine and Lambda.",
        &[],
    ),
];

/// Adapts a template to ministack. A change whose text does not occur is a mistake, here or in the
/// template.
pub(crate) fn apply(file: File, text: &str, endpoint: &str, permissions: bool) -> Outcome<String> {
    let mut text = text.to_owned();
    for deviation in DEVIATIONS.iter().filter(|deviation| permissions || !deviation.checked) {
        for (_, from, to) in deviation.changes.iter().filter(|(of, _, _)| *of == file) {
            // A queue's policy contains only what that queue needs.
            if file != File::Queue && !text.contains(from) {
                return Err(format!(
                    "the template {file:?} has no {from:?}, which this deviation replaces: {}",
                    deviation.why
                ));
            }
            text = text.replace(from, &to.replace("{endpoint}", endpoint));
        }
    }
    Ok(if file == File::Target { with_command(&text) } else { text })
}

/// Repeats each entry point as the command, because ECS ignores entry points here.
fn with_command(template: &str) -> String {
    let repeated = |line: &str| match line.split_once("EntryPoint: ") {
        Some((indent, value)) => format!("{line}\n{indent}Command: {value}\n"),
        None => format!("{line}\n"),
    };
    template.lines().map(repeated).collect()
}

/// Prints the deviations.
pub(crate) fn tell(permissions: bool) {
    println!("\nWhere ministack differs from AWS:");
    for deviation in DEVIATIONS.iter().filter(|deviation| permissions || !deviation.checked) {
        let changed = if deviation.changes.is_empty() { "" } else { " (changed in the templates)" };
        println!("  - {}{changed}", deviation.why);
    }
}
