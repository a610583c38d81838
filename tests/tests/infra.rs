//! The permissions in `infra/` are exactly those that the programs need. Each exception is listed
//! here with its reason.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use relay_tests::infra::{Exception, Infra, Kind, Role, Statement, faults, matches, without};

#[path = "infra/calls.rs"]
mod calls;

/// The permissions of a role: the beginning of the role's path and name, the calls it makes, and
/// what else it needs and why.
struct Rights {
    role: &'static str,
    calls: &'static [&'static str],
    besides: &'static [(&'static str, &'static str)],
    /// The objects that it may write in a bucket.
    writes: &'static [&'static str],
}

const TELL_MISSING: (&str, &str) = ("s3:ListBucket", "without it a missing object is 403, not 404");
const DECRYPT: (&str, &str) = ("kms:Decrypt", "S3 requires it to read with the data key");
const ENCRYPT: (&str, &str) = ("kms:GenerateDataKey", "S3 requires it to write with the data key");
const LOG: [(&str, &str); 2] = [
    ("logs:CreateLogStream", "Lambda and Fargate write the log with this role"),
    ("logs:PutLogEvents", "Lambda and Fargate write the log with this role"),
];
const NETWORK: &str = "Lambda uses the role to create the network interfaces of a function in a VPC";

const RIGHTS: &[Rights] = &[
    Rights {
        role: "/relay/relay-launcher-<region>",
        calls: &[
            "ecs:DescribeTaskDefinition",
            "ecs:DescribeTasks",
            "ecs:ListTasks",
            "ecs:RunTask",
            "ecs:StopTask",
            "events:PutEvents",
            "kms:GetPublicKey",
            "kms:Sign",
            "s3:GetObject",
            "s3:PutObject",
            "sqs:SendMessageBatch",
        ],
        besides: &[
            ("iam:PassRole", "RunTask gives the task its two roles"),
            ("ec2:AssignPrivateIpAddresses", NETWORK),
            ("ec2:CreateNetworkInterface", NETWORK),
            ("ec2:DeleteNetworkInterface", NETWORK),
            ("ec2:DescribeNetworkInterfaces", NETWORK),
            ("ec2:DescribeSubnets", NETWORK),
            ("ec2:UnassignPrivateIpAddresses", NETWORK),
            TELL_MISSING,
            DECRYPT,
            ENCRYPT,
            LOG[0],
            LOG[1],
        ],
        writes: &[
            "cancels/*",
            "events/*",
            "deployments/*/*/*/*/claim",
            "deployments/*/*/*/*/configuration/*",
            "deployments/*/*/*/*/issuer-keys.json",
            "deployments/*/*/*/*/launcher/*",
            "deployments/*/*/*/*/request.json",
        ],
    },
    Rights {
        role: "/relay/relay-jwks-<region>",
        calls: &[],
        besides: &[
            ("s3:GetObject", "the launcher's program, as the function jwks, reads the keys that it knows"),
            ("s3:PutObject", "and writes those that an issuer lists"),
            ("s3:ListBucket", "and finds those that an issuer lists no longer"),
            DECRYPT,
            ENCRYPT,
            LOG[0],
            LOG[1],
        ],
        writes: &["jwks/*"],
    },
    Rights {
        role: "/relay/relay-ledger-<region>",
        calls: &[],
        besides: &[
            ("kms:GetPublicKey", "the launcher's program, as the function ledger, names its key in each entry"),
            ("kms:Sign", "and signs each entry"),
            ("s3:GetObject", "and reads what it lists, and the entries before"),
            ("s3:ListBucket", "and finds what no entry lists"),
            ("s3:PutObject", "and writes the entry, and its copy"),
            DECRYPT,
            ENCRYPT,
            LOG[0],
            LOG[1],
        ],
        writes: &["<EvidenceBucket>/ledger/*", "ledger/*"],
    },
    Rights {
        role: "/governance/relay-repair-<region>",
        calls: &[],
        besides: &[
            ("cloudformation:CreateChangeSet", "docs/recipes/governance prepares the repair"),
            ("cloudformation:DeleteChangeSet", "and removes what it does not carry out"),
            ("cloudformation:DescribeChangeSet", "and shows it"),
            ("cloudformation:DescribeStacks", "and waits for its end"),
            ("cloudformation:ExecuteChangeSet", "and carries it out"),
            ("s3:GetObject", "CloudFormation reads the template with the caller's rights"),
        ],
        writes: &[],
    },
    Rights {
        role: "/relay/relay-execution-<region>",
        calls: &[],
        besides: &[
            ("ecr:GetAuthorizationToken", "Fargate pulls the images with this role"),
            ("ecr:BatchCheckLayerAvailability", "Fargate pulls the images with this role"),
            ("ecr:BatchGetImage", "Fargate pulls the images with this role"),
            ("ecr:GetDownloadUrlForLayer", "Fargate pulls the images with this role"),
            LOG[0],
            LOG[1],
        ],
        writes: &[],
    },
    Rights {
        role: "/relay/runner/",
        calls: &[
            "ecs:DescribeTasks",
            "kms:GetPublicKey",
            "kms:Sign",
            "s3:GetObject",
            "s3:PutObject",
            "secretsmanager:GetSecretValue",
            "sqs:DeleteMessageBatch",
            "sqs:ReceiveMessage",
            "sqs:SendMessageBatch",
            "ssm:GetParameter",
            "sts:AssumeRole",
            "sts:GetCallerIdentity",
        ],
        besides: &[
            ("sts:SetSourceIdentity", "AssumeRole with a source identity"),
            ("sts:TagSession", "AssumeRole with session tags"),
            TELL_MISSING,
            DECRYPT,
            ENCRYPT,
        ],
        writes: &[
            "deployments/<target>/*/claim",
            "deployments/<target>/*/runner/*",
            "deployments/<target>/saved/*",
            "deployments/<target>/tickets/*",
            "locks/<target>/*",
            "saved/<target>/*",
        ],
    },
    Rights {
        role: "/relay-ci/relay-ci",
        calls: &[
            "kms:GetPublicKey",
            "kms:Sign",
            "s3:GetObject",
            "s3:HeadObject",
            "s3:ListObjectsV2",
            "s3:PutObject",
            "sns:Publish",
            "sqs:CreateQueue",
            "sqs:DeleteMessageBatch",
            "sqs:DeleteQueue",
            "sqs:ListQueueTags",
            "sqs:ReceiveMessage",
            "sqs:SendMessageBatch",
            "sqs:TagQueue",
            "sts:GetCallerIdentity",
            "sts:GetWebIdentityToken",
        ],
        besides: &[
            ("kms:Decrypt", "SNS requires it for an encrypted topic"),
            ("kms:GenerateDataKey", "SNS requires it for an encrypted topic"),
        ],
        writes: &["*", "*/pending/*/request", "<Target>/*", "<Target>/pending/*/request"],
    },
    Rights {
        role: "/relay-ci/",
        calls: &[],
        besides: &[
            ("sqs:DeleteQueue", "the sweep is Python, inside its template"),
            ("sqs:GetQueueAttributes", "the sweep is Python, inside its template"),
            ("sqs:ListQueues", "the sweep is Python, inside its template"),
            ("sqs:ListQueueTags", "the sweep is Python, inside its template"),
            LOG[0],
            LOG[1],
        ],
        writes: &[],
    },
];

/// Calls of `relay-admin` and `relay gc`. They use the rights of their users, for which there is no
/// role here.
const OPERATOR: &[&str] = &["ecs:DescribeTasks", "ecs:ListTasks", "ecs:StopTask", "sqs:ListQueues"];

const MANAGED: &str = "ECS starts, joins and ends the hosts; AWS keeps this policy in step with what ECS calls";
const LAMBDA: &str =
    "Lambda sends no source when it assumes a function's role; giving a function a role requires iam:PassRole";
const NO_LEVEL: &str = "AWS has no resource level for this action";
const INTERFACES: &str = "Lambda requires it on every resource; the function itself is denied it, except for the reads";
const MAKES_INTERFACES: &str = "ec2:AssignPrivateIpAddresses ec2:CreateNetworkInterface ec2:DeleteNetworkInterface ec2:DescribeNetworkInterfaces ec2:DescribeSubnets ec2:UnassignPrivateIpAddresses on *";
const ARTIFACTS: &str =
    "CI deploys to every target; what it uploads is named by its digest, which the signed request binds";

const APPROVALS: &str =
    "CI deploys to every target, and people may approve for every target; the signatures decide, not the bucket";

const TOOLS: &str = "it bounds tools of every kind, and gives nothing: a deploy role's own policies say what it may do";

/// Faults that the general rules find and that are accepted, with the reason. An exception that
/// matches no fault is itself a finding.
const EXCEPTIONS: &[Exception] = &[
    ("confused-deputy", "ci-account.yaml SweepRole Lambda", "lambda.amazonaws.com", LAMBDA),
    ("confused-deputy", "foundation.yaml JwksRole Lambda", "lambda.amazonaws.com", LAMBDA),
    ("confused-deputy", "foundation.yaml LauncherRole Lambda", "lambda.amazonaws.com", LAMBDA),
    ("confused-deputy", "foundation.yaml LedgerRole Lambda", "lambda.amazonaws.com", LAMBDA),
    (
        "resource",
        "ci-pipeline.yaml CiSignsByToken SignByToken",
        "sts:GetWebIdentityToken on *",
        "AWS has no resource for it; its conditions allow relay's audiences alone",
    ),
    (
        "confused-deputy",
        "foundation.yaml DataKey LogsOfRelay",
        "logs.<region>.<AWS::URLSuffix>",
        "CloudWatch Logs names the log group in the encryption context, which is the condition there",
    ),
    (
        "principal",
        "foundation.yaml DataKey AccountReadsByS3",
        "arn:<partition>:iam::<account>:root",
        "principals that the account lets read the bucket, such as an auditor; through S3 only, and read-only",
    ),
    (
        "principal",
        "network.yaml S3Endpoint LayersOfEcr",
        "*",
        "ECR issues URLs that its own principal has signed; the bucket belongs to AWS, and is read-only",
    ),
    (
        "resource",
        "network.yaml S3Endpoint LayersOfEcr",
        "s3:GetObject on arn:<partition>:s3:::prod-<region>-starport-layer-bucket/*",
        "layers are named by their digests, in a bucket that belongs to AWS",
    ),
    (
        "resource",
        "approver-policy.json Decrypt",
        "kms:Decrypt on arn:*:kms:*:*:key/*",
        "the relay bucket is encrypted; through S3 only, with relay's keys",
    ),
    (
        "reader",
        "auditor-policy.json Decrypt",
        "kms:Decrypt",
        "the relay bucket is encrypted; through S3 only, with relay's keys",
    ),
    (
        "resource",
        "auditor-policy.json NoResourceLevel",
        "cloudtrail:DescribeTrails cloudtrail:LookupEvents cloudwatch:DescribeAlarms cloudwatch:GetMetricData ecs:DescribeTaskDefinition ecs:ListTaskDefinitions kms:ListAliases logs:DescribeLogGroups logs:GetQueryResults on *",
        NO_LEVEL,
    ),
    (
        "foreign",
        "managed-instances.yaml InfrastructureRole",
        "arn:<partition>:iam::aws:policy/AmazonECSInfrastructureRolePolicyForManagedInstances",
        MANAGED,
    ),
    (
        "foreign",
        "managed-instances.yaml InstanceRole",
        "arn:<partition>:iam::aws:policy/AmazonECSInstanceRolePolicyForManagedInstances",
        MANAGED,
    ),
    (
        "confused-deputy",
        "managed-instances.yaml InstanceRole Hosts",
        "ec2.<AWS::URLSuffix>",
        "EC2 gives no source in this call; iam:PassRole decides which instances get the role",
    ),
    (
        "attached",
        "ci-account.yaml ApproverPolicy",
        "no role has this policy",
        "it is for the roles of the people who approve, which are not relay's",
    ),
    (
        "resource",
        "ci-account.yaml ApproverPolicy HandIn",
        "s3:PutObject on <ApprovalBucket.Arn>/*/pending/*",
        APPROVALS,
    ),
    (
        "resource",
        "ci-account.yaml ApproverPolicy ReadRequests",
        "s3:GetObject on <ApprovalBucket.Arn>/*/pending/*",
        APPROVALS,
    ),
    (
        "resource",
        "ci-account.yaml CiPolicy AskForApproval",
        "s3:PutObject on <ApprovalBucket.Arn>/*/pending/*/request",
        APPROVALS,
    ),
    (
        "resource",
        "ci-account.yaml CiPolicy ReadApprovals",
        "s3:GetObject on <ApprovalBucket.Arn>/*/pending/*",
        APPROVALS,
    ),
    ("resource", "ci-account.yaml CiPolicy SeeArtifacts", "s3:GetObject on <ArtifactBucket.Arn>/*", ARTIFACTS),
    ("resource", "ci-account.yaml CiPolicy UploadArtifacts", "s3:PutObject on <ArtifactBucket.Arn>/*", ARTIFACTS),
    ("action", "foundation.yaml DeployBoundary WhatItsPoliciesAllow", "*", TOOLS),
    ("resource", "foundation.yaml DeployBoundary WhatItsPoliciesAllow", "* on *", TOOLS),
    ("resource", "ci-account.yaml SweepRole List", "sqs:ListQueues on *", NO_LEVEL),
    (
        "resource",
        "foundation.yaml Boundary Describe",
        "ecr:GetAuthorizationToken ecs:DescribeTaskDefinition on *",
        NO_LEVEL,
    ),
    ("resource", "foundation.yaml Boundary Interfaces", MAKES_INTERFACES, INTERFACES),
    ("resource", "foundation.yaml ExecutionRole LogInToRegistry", "ecr:GetAuthorizationToken on *", NO_LEVEL),
    ("resource", "foundation.yaml LauncherRole FindTarget", "ecs:DescribeTaskDefinition on *", NO_LEVEL),
    ("resource", "foundation.yaml LauncherRole LambdaMakesInterfaces", MAKES_INTERFACES, INTERFACES),
];

fn infra() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra")
}

fn read() -> Infra {
    Infra::read(&infra()).unwrap()
}

fn rights_of(role: &Role) -> Option<&'static Rights> {
    RIGHTS.iter().find(|rights| role.name.starts_with(rights.role))
}

/// The permission that an operation of the SDK requires; `None` if it requires none.
fn permission(operation: &str) -> Option<&str> {
    match operation {
        // Every caller may.
        "sts:GetCallerIdentity" => None,
        "s3:HeadObject" => Some("s3:GetObject"),
        "s3:ListObjectsV2" => Some("s3:ListBucket"),
        other => Some(other.strip_suffix("Batch").unwrap_or(other)),
    }
}

fn none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn every_statement_is_as_narrow_as_it_can_be() {
    none(&without(faults(&read()), EXCEPTIONS));
}

#[test]
fn every_role_may_do_what_its_program_calls_and_nothing_else() {
    let infra = read();
    let mut findings = Vec::new();
    for rights in RIGHTS {
        let roles = || infra.roles.iter().filter(|role| rights_of(role).is_some_and(|own| own.role == rights.role));
        let needed: BTreeSet<&str> = rights.calls.iter().filter_map(|call| permission(call)).collect();
        let besides: BTreeSet<&str> = rights.besides.iter().map(|(action, _)| *action).collect();
        let allowed: BTreeSet<String> =
            roles().flat_map(|role| role.allowed().into_keys().map(str::to_owned)).collect();
        for action in needed.union(&besides).filter(|action| !allowed.contains(**action)) {
            findings.push(format!("{}: may not {action}", rights.role));
        }
        findings.extend(needed.intersection(&besides).map(|action| format!("{}: {action} is called", rights.role)));
        for role in roles() {
            let excess =
                role.allowed().into_iter().filter(|(action, _)| !needed.contains(action) && !besides.contains(action));
            findings.extend(excess.map(|(action, _)| format!("{}: no program calls {action}", role.place)));
            let written = role.allowed().remove("s3:PutObject").unwrap_or_default();
            for object in written {
                let key = object.split_once('/').map_or("", |(_, key)| key);
                let target = role.target.as_deref().unwrap_or("no target");
                if !rights.writes.iter().any(|own| own.replace("<target>", target) == key) {
                    findings.push(format!("{}: writes {object}", role.place));
                }
            }
        }
    }
    for role in &infra.roles {
        // No program of relay has the roles of tools and of hosts.
        let is_foreign = ["/relay-deploy/", "/relay-hosts/"].iter().any(|path| role.name.starts_with(path));
        if rights_of(role).is_none() && !is_foreign {
            findings.push(format!("{}: the role {} is unknown", role.place, role.name));
        }
    }
    none(&findings);
}

#[test]
fn the_table_of_calls_is_that_of_the_code() {
    let mut made = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/aws/src")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        made.extend(text.split("from_sdk(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    let told: BTreeSet<String> =
        RIGHTS.iter().flat_map(|rights| rights.calls).chain(OPERATOR).map(|call| (*call).to_owned()).collect();
    assert_eq!(made, told);
}

#[test]
fn the_boundary_ends_where_the_roles_do() {
    let infra = read();
    let of_relay = infra.roles.iter().filter(|role| role.name.starts_with("/relay/"));
    let roles: BTreeSet<&str> = of_relay.flat_map(|role| role.allowed().into_keys()).collect();
    let boundaries =
        infra.policies.iter().filter(|policy| policy.kind == Kind::Boundary && policy.resource == "Boundary");
    let allowing = boundaries.flat_map(|policy| &policy.statements).filter(|statement| statement.allows);
    let boundary: BTreeSet<&str> = allowing.flat_map(|statement| &statement.actions).map(String::as_str).collect();
    let mut findings: Vec<String> =
        roles.difference(&boundary).map(|action| format!("the boundary stops {action}")).collect();
    findings.extend(boundary.difference(&roles).map(|action| format!("no role has {action}")));
    none(&findings);
}

#[test]
fn no_role_of_relay_may_what_would_undo_it() {
    for role in read().roles.iter().filter(|role| role.name.starts_with("/relay/")) {
        for action in role.allowed().keys() {
            let verb = action.split_once(':').map_or("", |(_, verb)| verb);
            let undoes = ["RegisterTaskDefinition", "ExecuteCommand", "CreateGrant"].contains(&verb)
                || (action.starts_with("s3:") && (verb.starts_with("Delete") || verb.starts_with("PutBucket")))
                || (action.starts_with("iam:") && verb != "PassRole")
                || (action.starts_with("sts:") && !role.name.starts_with("/relay/runner/"));
            assert!(!undoes, "{}: {action}", role.place);
        }
    }
}

#[test]
fn a_deploy_role_trusts_its_runner_and_nobody_else() {
    let infra = read();
    let mut deploy_roles = infra.roles.iter().filter(|role| role.name.starts_with("/relay-deploy/")).peekable();
    assert!(deploy_roles.peek().is_some(), "an example has a deploy role");
    for role in deploy_roles {
        let file = role.place.split(' ').next().unwrap();
        let runner =
            infra.roles.iter().find(|other| other.place.starts_with(file) && other.name.starts_with("/relay/runner/"));
        let runner = runner.unwrap().place.split(' ').nth(1).unwrap();
        assert_eq!(role.boundary.as_deref(), Some("<import <Foundation>-DeployBoundaryArn>"), "{}", role.place);
        let statements: Vec<_> = role.trust.iter().flat_map(|policy| &policy.statements).filter(|s| s.allows).collect();
        let who: BTreeSet<_> = statements.iter().flat_map(|s| &s.principals).collect();
        assert_eq!(who, BTreeSet::from([&("AWS".to_owned(), format!("<{runner}.Arn>"))]), "{}", role.place);
        let what: BTreeSet<_> = statements.iter().flat_map(|s| &s.actions).map(String::as_str).collect();
        assert_eq!(
            what,
            BTreeSet::from(["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]),
            "{}",
            role.place
        );
    }
}

// P1: across accounts, CI may publish and use the topic's key. A resource that names no account
// belongs to the template itself.
#[test]
fn across_accounts_ci_may_only_ask() {
    let infra = read();
    let roles: Vec<_> = infra.roles.iter().filter(|role| role.name.starts_with("/relay-ci/relay-ci")).collect();
    assert_eq!(roles.len(), 2, "one role of CI, or one for each pipeline");
    for ci in roles {
        let mut across = BTreeSet::new();
        for statement in ci.statements().filter(|statement| statement.allows) {
            // Another stack of the same account exports the ARN of the artifact bucket.
            let own = |resource: &String| {
                [":<account>:", ".Arn>", "<import <CiAccount>-"].iter().any(|of_it| resource.contains(of_it))
            };
            for resource in statement.resources.iter().filter(|resource| !own(resource)) {
                across.extend(statement.actions.iter().map(|action| (action.as_str(), resource.as_str())));
            }
        }
        let asked = [
            ("kms:Decrypt", "<TopicKeyArns>"),
            ("kms:GenerateDataKey", "<TopicKeyArns>"),
            ("sns:Publish", "<TopicArns>"),
        ];
        // A token of the role's own identity, for relay's audiences alone, is no right elsewhere.
        across.remove(&("sts:GetWebIdentityToken", "*"));
        assert_eq!(across, BTreeSet::from(asked), "{}", ci.place);
    }
}

/// The largest template, in bytes, that `aws cloudformation deploy` accepts without a bucket to
/// upload it to.
const TEMPLATE_MAX: u64 = 51_200;

/// The one template that every command uploads, to the bucket that holds the launcher's zip anyway.
const UPLOADED: &str = "foundation.yaml";

/// Who may write an object of the evidence bucket, by the bucket's policy alone.
#[test]
fn evidence_has_one_writer_for_each_object() {
    let infra = read();
    let policies = infra.policies.iter().filter(|policy| policy.place.contains("EvidenceBucketPolicy"));
    let denies: Vec<&Statement> = policies
        .flat_map(|policy| &policy.statements)
        .filter(|statement| !statement.allows && statement.actions.iter().any(|action| action == "s3:PutObject"))
        .collect();
    let launcher = "arn:<partition>:iam::<account>:role/relay/relay-launcher-<region>";
    let runner = "arn:<partition>:iam::<account>:role/relay/runner/relay-a";
    let other = "arn:<partition>:iam::<account>:role/administrator";
    let may = |who: &str, key: &str| {
        let object = format!("<EvidenceBucket.Arn>/deployments/{key}");
        denies.iter().filter(|deny| deny.resources.iter().any(|pattern| matches(pattern, &object))).all(|deny| {
            let except = deny.condition(&["ArnNotLike", "ArnNotEquals"], "aws:PrincipalArn");
            // The statements without this condition are about how an object is written.
            except.is_none_or(|except| except.iter().any(|pattern| matches(pattern, who)))
        })
    };
    // Also for targets whose names are those of folders.
    for target in ["payments/production", "runner/launcher", "launcher/runner", "configuration/claim", "a/request"] {
        let place = format!("{target}/2026-11-27/id");
        for (name, by_launcher, by_runner) in [
            ("claim", true, true),
            ("request.json", true, false),
            ("configuration/digest.toml", true, false),
            ("launcher/record.json", true, false),
            ("launcher/record.sigstore.json", true, false),
            ("runner/000000.jsonl", false, true),
            ("runner/record.json", false, true),
        ] {
            let key = format!("{place}/{name}");
            assert_eq!((may(launcher, &key), may(runner, &key)), (by_launcher, by_runner), "{key}");
            assert!(!may(other, &key), "{key}");
        }
        let ticket = format!("{target}/tickets/0123456789abcdef0123456789abcdef");
        assert_eq!((may(launcher, &ticket), may(runner, &ticket), may(other, &ticket)), (false, true, false));
    }
    assert!(
        denies.iter().any(|deny| deny.condition(&["Null"], "s3:if-none-match").is_some()),
        "every object is written once"
    );
}

#[test]
fn each_template_can_be_deployed_as_the_documents_say() {
    let file = |path: &str| std::fs::read_to_string(infra().join(path)).unwrap();
    for document in ["README.md", "../docs/operations.md"] {
        for line in file(document).lines().filter(|line| line.contains("--template-file infra/foundation.yaml")) {
            assert!(line.contains("--s3-bucket"), "{document}: {line}");
        }
    }
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../infra")).unwrap().flatten() {
        if file.path().extension().is_some_and(|kind| kind == "yaml") && file.file_name() != UPLOADED {
            assert!(file.metadata().unwrap().len() <= TEMPLATE_MAX, "{} is too large", file.path().display());
        }
    }
}

/// A launcher's role without a fault, which the tests below then break.
const ROLE: &str = "
Resources:
  LauncherRole:
    Type: AWS::IAM::Role
    Properties:
      RoleName: relay-launcher
      Path: /relay/
      PermissionsBoundary: !Ref Boundary
      AssumeRolePolicyDocument:
        Statement:
          - Sid: Tasks
            Effect: Allow
            Principal: { Service: ecs-tasks.amazonaws.com }
            Action: sts:AssumeRole
            Condition: { StringEquals: { aws:SourceAccount: !Ref AWS::AccountId } }
      Policies:
        - PolicyName: launcher
          PolicyDocument:
            Statement:
              - Sid: Start
                Effect: Allow
                Action: ecs:RunTask
                Resource: !Sub arn:aws:ecs:${AWS::Region}:${AWS::AccountId}:task-definition/relay_*:*
                Condition: { ArnEquals: { ecs:cluster: !GetAtt Cluster.Arn } }
              - Sid: NoShell
                Effect: Deny
                Action: ecs:RunTask
                Resource: '*'
                Condition: { StringEquals: { ecs:enable-execute-command: 'true' } }
              - Sid: Pass
                Effect: Allow
                Action: iam:PassRole
                Resource: !Sub arn:aws:iam::${AWS::AccountId}:role/relay/runner/*
                Condition: { StringEquals: { iam:PassedToService: ecs-tasks.amazonaws.com } }
              - Sid: Read
                Effect: Allow
                Action: s3:GetObject
                Resource: !Sub ${Bucket.Arn}/saved/*
  Boundary:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      PolicyDocument:
        Statement: { Sid: Most, Effect: Allow, Action: s3:GetObject, Resource: !Sub '${Bucket.Arn}/*' }
  QueuePolicy:
    Type: AWS::SQS::QueuePolicy
    Properties:
      PolicyDocument:
        Statement:
          - { Sid: Tls, Effect: Deny, Principal: '*', Action: sqs:*, Resource: '*', Condition: { Bool: { aws:SecureTransport: 'false' } } }
          - Sid: Topic
            Effect: Allow
            Principal: { Service: sns.amazonaws.com }
            Action: sqs:SendMessage
            Resource: !GetAtt Queue.Arn
            Condition: { ArnEquals: { aws:SourceArn: !Ref Topic } }
  Key:
    Type: AWS::KMS::Key
    Properties:
      KeyPolicy:
        Statement:
          - Sid: Administer
            Effect: Allow
            Principal: { AWS: !Sub 'arn:aws:iam::${AWS::AccountId}:root' }
            Action: kms:PutKeyPolicy
            Resource: '*'
          - Sid: Use
            Effect: Allow
            Principal: { AWS: !Sub 'arn:aws:iam::${AWS::AccountId}:root' }
            Action: kms:Sign
            Resource: '*'
            Condition: { ArnLike: { aws:PrincipalArn: 'arn:aws:iam::*:role/relay/*' } }
";

fn found(text: &str) -> Vec<String> {
    faults(&Infra::of([("t.yaml", text)]).unwrap())
        .iter()
        .map(|fault| format!("{} {}", fault.rule, fault.what))
        .collect()
}

#[test]
fn the_rules_find_each_fault() {
    none(&found(ROLE));
    let read = "Action: s3:GetObject\n                Resource: !Sub ${Bucket.Arn}/saved/*";
    let on =
        |resource: &str| ROLE.replace(read, &format!("Action: s3:GetObject\n                Resource: {resource}"));
    for (spoilt, rule) in [
        (ROLE.replace("- Sid: Read\n                Effect", "- Effect"), "sid each"),
        (ROLE.replace("Sid: Read", "Sid: Pass"), "sid each"),
        (ROLE.replace("s3:GetObject\n", "s3:Get*\n"), "action s3:Get*"),
        (ROLE.replace("s3:GetObject\n", "!If [C, s3:GetObject, s3:*]\n"), "action s3:*"),
        (ROLE.replace(read, &read.replace("Action:", "NotAction:")), "unknown NotAction"),
        (on("'*'"), "resource s3:GetObject on *"),
        (on("!If [C, a, '*']"), "resource s3:GetObject on *"),
        (on("!Sub '${Bucket.Arn}/*'"), "resource s3:GetObject on <Bucket.Arn>/*"),
        (on("arn:aws:s3:::*/saved/*"), "resource s3:GetObject on arn:aws:s3:::*/saved/*"),
        (on("arn:aws:sqs:eu-west-1:*:relay-a"), "resource s3:GetObject on arn:aws:sqs:eu-west-1:*:relay-a"),
        (on("arn:aws:kms:*:222222222222:key/a"), "resource s3:GetObject on arn:aws:kms:*:222222222222:key/a"),
        (
            on("arn:aws:kms:eu-west-1:222222222222:key/*"),
            "resource s3:GetObject on arn:aws:kms:eu-west-1:222222222222:key/*",
        ),
        (ROLE.replace("                Resource: !Sub ${Bucket.Arn}/saved/*\n", ""), "resource none"),
        (
            ROLE.replace(
                "                Condition: { StringEquals: { iam:PassedToService: ecs-tasks.amazonaws.com } }\n",
                "",
            ),
            "pass-role to",
        ),
        (ROLE.replace("Action: iam:PassRole", "Action: [iam:PassRole, iam:GetRole]"), "pass-role in"),
        (ROLE.replace("ecs:enable-execute-command: 'true'", "ecs:enable-execute-command: 'false'"), "run-task a shell"),
        (ROLE.replace("ArnEquals: { ecs:cluster", "ArnLike: { aws:x"), "run-task in"),
        (ROLE.replace("      PermissionsBoundary: !Ref Boundary\n", ""), "boundary a role"),
        (
            ROLE.replace("      PermissionsBoundary: !Ref Boundary\n", "")
                .replace("Path: /relay/", "Path: /relay-deploy/"),
            "boundary a role",
        ),
        (ROLE.replace("aws:SourceAccount: !Ref AWS::AccountId", "aws:SourceAccount: '*'"), "confused-deputy ecs-tasks"),
        (ROLE.replace("aws:SourceArn", "aws:Other"), "confused-deputy sns"),
        (ROLE.replace("{ Service: sns.amazonaws.com }", "'*'").replace("aws:SourceArn", "aws:Other"), "principal *"),
        (ROLE.replace("Service: sns.amazonaws.com", "AWS: '111111111111'"), "principal 111111111111"),
        (ROLE.replace("kms:PutKeyPolicy", "[kms:PutKeyPolicy, kms:Sign]"), "principal arn:aws:iam::<account>:root"),
        (ROLE.replace("{ AWS: !Sub 'arn:aws:iam::${AWS::AccountId}:root' }", "'*'"), "principal *"),
        (ROLE.replace("aws:SecureTransport: 'false'", "aws:SecureTransport: 'true'"), "tls nothing"),
        (ROLE.replace("AWS::SQS::QueuePolicy", "AWS::X::Policy"), "unknown t.yaml QueuePolicy"),
        (ROLE.replace("PermissionsBoundary: !Ref Boundary", "PermissionsBoundary: x"), "attached no role"),
        (
            ROLE.replace("Path: /relay/", "ManagedPolicyArns: ['arn:aws:iam::aws:policy/AdministratorAccess']"),
            "foreign arn:aws:iam::aws:policy",
        ),
        (
            ROLE.replace("Service: ecs-tasks.amazonaws.com", "Federated: x")
                .replace("aws:SourceAccount: !Ref AWS::AccountId", "'idp:aud': a, 'idp:sub': '*'"),
            "federated a token",
        ),
    ] {
        assert_ne!(spoilt, ROLE, "{rule}: the template was not changed");
        let found = found(&spoilt);
        assert!(found.iter().any(|fault| fault.starts_with(rule)), "{rule}: found {found:?}");
    }
}

#[test]
fn an_exception_is_for_one_fault_and_has_a_reason() {
    let spoilt = faults(&Infra::of([("t.yaml", ROLE.replace("s3:GetObject\n", "s3:*\n").as_str())]).unwrap());
    let at = "t.yaml LauncherRole Read";
    none(&without(spoilt.clone(), &[("action", at, "s3:*", "it is only a trial")]));
    let findings =
        without(spoilt, &[("action", at, "s3:*", "because"), ("action", at, "s3:Get*", "it is only a trial")]);
    assert_eq!(
        findings,
        [
            "t.yaml LauncherRole Read: action: s3:*: the exception has no reason",
            "t.yaml LauncherRole Read: action: s3:Get*: the exception is not needed"
        ]
    );
}
