//! Concrete calls, and what denies each of them: the policies of `infra/` and of a rendered target,
//! evaluated as IAM does. A call that nothing denies stands here too, so that nobody believes that
//! more is denied than is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use relay_tests::infra::{Call, Infra, Kind, Policy, Statement, load};

const ADMINISTRATOR: &str = "arn:aws:iam::222222222222:role/administrator";
const PLATFORM: &str = "arn:aws:iam::222222222222:role/relay-platform";
const TOOL: &str = "arn:aws:iam::222222222222:role/relay-deploy/payments";
/// A role that the tool created, with the boundary, as it must.
const MADE: &str = "arn:aws:iam::222222222222:role/deployed/orders-function";
const LAUNCHER: &str = "arn:aws:iam::222222222222:role/relay/relay-launcher-eu-west-1";
const RUNNER: &str = "arn:aws:iam::222222222222:role/relay/runner/relay-payments-production";

const DEPLOY_BOUNDARY: &str = "arn:aws:iam::222222222222:policy/relay/relay-deploy-boundary-eu-west-1";
const BUCKET: &str = "arn:aws:s3:::relay-222222222222-eu-west-1";
const EVIDENCE: &str = "arn:aws:s3:::relay-evidence-222222222222-eu-west-1";
const ANSWER_KEY: &str = "arn:aws:kms:eu-west-1:222222222222:key/answer";
const LEDGER_KEY: &str = "arn:aws:kms:eu-west-1:222222222222:key/ledger";
const DATA_KEY: &str = "arn:aws:kms:eu-west-1:222222222222:key/data";
const TARGET_KEY: &str = "arn:aws:kms:eu-west-1:222222222222:key/payments";
/// The target key of another target, orders/production.
const OTHER_KEY: &str = "arn:aws:kms:eu-west-1:222222222222:key/orders";
const TOPIC: &str = "arn:aws:sns:eu-west-1:222222222222:relay";
const CLUSTER: &str = "arn:aws:ecs:eu-west-1:222222222222:cluster/relay";
const DEFINITION: &str = "arn:aws:ecs:eu-west-1:222222222222:task-definition/relay_payments_production:7";
const FUNCTION: &str = "arn:aws:lambda:eu-west-1:222222222222:function:relay-launcher";
const RULE: &str = "arn:aws:events:eu-west-1:222222222222:rule/relay-watchdog";
const STACK: &str = "arn:aws:cloudformation:eu-west-1:222222222222:stack/relay/0c1d";
const GROUP: &str = "arn:aws:ec2:eu-west-1:222222222222:security-group/sg-0";

const BOUNDED: (&str, &str) = ("iam:PermissionsBoundary", DEPLOY_BOUNDARY);
const ALIAS: (&str, &str) = ("kms:ResourceAliases", "alias/relay-payments-production");
const OF_RELAY: (&str, &str) = ("aws:ResourceTag/aws:cloudformation:stack-name", "relay-payments-production");
const TO_LAMBDA: (&str, &str) = ("iam:PassedToService", "lambda.amazonaws.com");
const TO_ECS: (&str, &str) = ("iam:PassedToService", "ecs-tasks.amazonaws.com");
const IN_CLUSTER: (&str, &str) = ("ecs:cluster", CLUSTER);
const ONCE: (&str, &str) = ("s3:if-none-match", "*");
const NAMED: (&str, &str) = ("sts:SourceIdentity", "01935a3e-0000-7000-8000-000000000000");

/// A role that a call is made with.
#[derive(Clone, Copy)]
struct Caller {
    arn: &'static str,
    /// The role in the templates, by its path's and name's beginning; `None` if its own policies
    /// allow everything.
    role: Option<&'static str>,
    /// The logical name of its boundary.
    boundary: Option<&'static str>,
}

const fn free(arn: &'static str) -> Caller {
    Caller { arn, role: None, boundary: None }
}

const fn tool(arn: &'static str) -> Caller {
    Caller { arn, role: None, boundary: Some("DeployBoundary") }
}

const THE_LAUNCHER: Caller =
    Caller { arn: LAUNCHER, role: Some("/relay/relay-launcher-<region>"), boundary: Some("Boundary") };
const THE_RUNNER: Caller =
    Caller { arn: RUNNER, role: Some("/relay/runner/relay-payments-production"), boundary: Some("Boundary") };

/// Action, resource, condition keys, the resource in the templates whose policy counts (or none),
/// and what denies the call: the layers, each with the Sid of the first statement that denies. A
/// layer without a Sid does not allow it.
type Row = (&'static str, &'static str, Keys, &'static str, &'static str);

/// Condition keys with their values.
type Keys = &'static [(&'static str, &'static str)];

/// The policies that decide.
struct Account {
    infra: Infra,
}

impl Account {
    /// The templates, with a second target like the one in the examples.
    fn read() -> Self {
        let mut files = BTreeMap::new();
        for name in ["foundation.yaml", "examples/payments-production.yaml", "scp/protect-relay.json"] {
            files.insert(name, fs::read_to_string(super::infra().join(name)).unwrap());
        }
        for name in ["scp/protect-evidence.json", "scp/no-shell.json"] {
            files.insert(name, fs::read_to_string(super::infra().join(name)).unwrap());
        }
        let other = files["examples/payments-production.yaml"].replace("payments", "orders");
        files.insert("examples/orders-production.yaml", other);
        Self { infra: Infra::of(files.iter().map(|(name, text)| (*name, text.as_str()))).unwrap() }
    }

    fn of(&self, is_meant: impl Fn(&&Policy) -> bool) -> impl Iterator<Item = &Statement> {
        self.infra.policies.iter().filter(is_meant).flat_map(|policy| &policy.statements)
    }

    /// What denies a call of `caller`.
    fn denials(&self, caller: Caller, (action, resource, context, on, _): &Row) -> String {
        let mut call = Call::new(caller.arn, action, resource);
        call.context.extend(context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        call.values = values(on);
        let mut found = Vec::new();
        if let Some(role) = caller.role {
            let role = self.infra.roles.iter().find(|known| known.name == role).expect("a role of the templates");
            found.extend(refusal(&call, "identity", true, || role.statements()));
        }
        if let Some(boundary) = caller.boundary {
            let own = || self.of(|policy| policy.kind == Kind::Boundary && policy.resource == boundary);
            found.extend(refusal(&call, "boundary", true, own));
        }
        found.extend(refusal(&call, "SCP", false, || self.of(|policy| policy.kind == Kind::Control)));
        if !on.is_empty() {
            let (file, name) = on.split_once(' ').unwrap_or(("foundation.yaml", on));
            let own =
                || self.of(|policy| policy.place.contains(file) && policy.resource == name && is_of_resource(policy));
            let kind = self.infra.policies.iter().find(|policy| policy.resource == name && is_of_resource(policy));
            let (layer, must_allow) = match kind.expect("a policy of a resource").kind {
                Kind::Trust => ("trust", true),
                Kind::Key => ("key", true),
                _ => ("resource", false),
            };
            let for_caller = |statement: &&Statement| layer != "trust" || trusts(statement, caller.arn, &call);
            found.extend(refusal(&call, layer, must_allow, || own().filter(for_caller)));
        }
        found.join(", ")
    }

    fn check(&self, caller: Caller, rows: &[Row]) {
        let wrong: Vec<String> = rows
            .iter()
            .map(|row| (row, self.denials(caller, row)))
            .filter(|(row, found)| found != row.4)
            .map(|((action, resource, ..), found)| format!("{action} on {resource}: denied by [{found}]"))
            .collect();
        super::none(&wrong);
    }
}

fn is_of_resource(policy: &Policy) -> bool {
    matches!(policy.kind, Kind::Trust | Kind::Key | Kind::Resource)
}

fn trusts(statement: &Statement, caller: &str, call: &Call) -> bool {
    statement.principals.iter().any(|(_, who)| call.values.get(who).is_some_and(|arn| arn == caller))
}

/// How a layer refuses a call: the Sid of a denial, or that it lacks an `Allow`.
fn refusal<'a, I>(call: &Call, layer: &str, must_allow: bool, statements: impl Fn() -> I) -> Option<String>
where
    I: Iterator<Item = &'a Statement>,
{
    let denial = call.denied_by(statements()).map(|sid| format!("{layer} {sid}"));
    denial.or_else(|| (must_allow && !call.is_allowed_by(statements())).then(|| layer.to_owned()))
}

/// What the templates' references stand for. `on` tells whose target key and runner are meant.
fn values(on: &str) -> BTreeMap<String, String> {
    let other = on.contains("orders");
    let parameters = load(&fs::read_to_string(super::infra().join("foundation.yaml")).unwrap()).unwrap();
    let path = parameters["Parameters"]["DeployedRolePath"]["Default"].as_str().unwrap().to_owned();
    [
        ("<AnswerKey.Arn>", ANSWER_KEY),
        ("<LedgerKey.Arn>", LEDGER_KEY),
        ("<AWS::StackName>", "relay"),
        ("<Bucket.Arn>", BUCKET),
        ("<CiAccountIds>", "111111111111"),
        ("<Cluster.Arn>", CLUSTER),
        ("<CodeBucket>/<CodeKey>", "example-code/relay/1.0.0/relay-launcher.zip"),
        ("<DataKey.Arn>", DATA_KEY),
        ("<DeployedRolePath>", path.as_str()),
        ("<EvidenceBucket.Arn>", EVIDENCE),
        ("<ExecutionRole.Arn>", "arn:aws:iam::222222222222:role/relay/relay-execution-eu-west-1"),
        ("<import <Foundation>-DataKeyArn>", DATA_KEY),
        (
            "<RunnerRole.Arn>",
            if other { "arn:aws:iam::222222222222:role/relay/runner/relay-orders-production" } else { RUNNER },
        ),
        ("<TargetKey.Arn>", TARGET_KEY),
        ("<Topic>", TOPIC),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[rustfmt::skip]
const BY_AN_ADMINISTRATOR: &[Row] = &[
    // The names that the SCP exempts cannot be taken, not even as a path.
    ("iam:CreateRole", PLATFORM, &[], "", "SCP Roles"),
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/stacksets-exec-mine", &[], "", "SCP Roles"),
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/stacksets-exec-a/mine", &[], "", "SCP Roles"),
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/relay/runner/mine", &[], "", "SCP Roles"),
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/relay/relay-launcher-mine", &[], "", "SCP Roles"),
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/anything", &[], "", ""),
    ("iam:UpdateAssumeRolePolicy", PLATFORM, &[], "", "SCP Roles"),
    ("iam:AttachRolePolicy", PLATFORM, &[], "", "SCP Roles"),
    ("iam:UpdateAssumeRolePolicy", TOOL, &[BOUNDED], "", "SCP Roles"),
    ("iam:DeleteRolePermissionsBoundary", TOOL, &[BOUNDED], "", "SCP Roles"),
    ("iam:CreatePolicyVersion", DEPLOY_BOUNDARY, &[], "", "SCP Roles"),
    ("iam:PassRole", PLATFORM, &[("iam:PassedToService", "cloudformation.amazonaws.com")], "", "SCP PassRoles"),
    ("iam:PassRole", RUNNER, &[TO_ECS], "", "SCP PassRoles"),
    ("sts:AssumeRole", TOOL, &[NAMED], "payments-production.yaml DeployRole", "SCP AssumeDeployRoles, trust"),
    ("organizations:LeaveOrganization", "*", &[], "", "SCP Stay"),
    ("cloudformation:UpdateStack", STACK, &[], "", "SCP Stacks"),
    ("lambda:UpdateFunctionCode", FUNCTION, &[], "", "SCP Functions"),
    ("lambda:CreateEventSourceMapping", "*", &[("lambda:FunctionArn", FUNCTION)], "", "SCP EventSources"),
    ("events:DisableRule", RULE, &[], "", "SCP Rules"),
    ("events:DeleteRule", RULE, &[], "", "SCP Rules"),
    ("events:RemoveTargets", RULE, &[], "", "SCP Rules"),
    ("events:PutTargets", RULE, &[], "", "SCP Rules"),
    ("ecs:RegisterTaskDefinition", DEFINITION, &[], "", "SCP Definitions"),
    ("ecs:DeregisterTaskDefinition", "*", &[], "", "SCP Deregister"),
    ("ecs:RunTask", DEFINITION, &[IN_CLUSTER], "", "SCP Tasks"),
    ("ecs:RunTask", "arn:aws:ecs:eu-west-1:222222222222:task-definition/mine:1", &[IN_CLUSTER], "", "SCP TasksInTheCluster"),
    ("ecs:StopTask", "arn:aws:ecs:eu-west-1:222222222222:task/relay/0", &[IN_CLUSTER], "", "SCP StopTasks"),
    ("ecs:ExecuteCommand", "arn:aws:ecs:eu-west-1:222222222222:task/relay/0", &[IN_CLUSTER], "", "SCP NoShell"),
    ("s3:PutBucketPolicy", EVIDENCE, &[], "EvidenceBucketPolicy", "SCP Buckets"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a/b/2026-11-27/0/claim", &[ONCE],
        "EvidenceBucketPolicy", "SCP Objects, resource OnlyRelayWrites"),
    ("s3:DeleteObject", "arn:aws:s3:::relay-222222222222-eu-west-1/locks/a/b/0", &[], "BucketPolicy",
        "SCP Objects, resource NobodyDeletes"),
    // Only the SCP: the key's policy lets the account administer the key.
    ("kms:PutKeyPolicy", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "SCP Keys"),
    ("kms:PutKeyPolicy", ANSWER_KEY, &[("kms:ResourceAliases", "alias/relay-answer")], "AnswerKey", "SCP Keys"),
    ("kms:Sign", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "key NobodyElseSigns"),
    ("kms:UpdateAlias", "arn:aws:kms:eu-west-1:222222222222:alias/relay-answer", &[], "", "SCP Aliases"),
    ("sns:Subscribe", TOPIC, &[("sns:Endpoint", "https://example.com")], "TopicPolicy", "SCP Topic, resource OnlyTheLauncherListens"),
    ("logs:DeleteLogGroup", "arn:aws:logs:eu-west-1:222222222222:log-group:/relay/tasks", &[], "", "SCP Logs"),
    ("cloudtrail:StopLogging", "arn:aws:cloudtrail:eu-west-1:222222222222:trail/relay-data", &[], "", "SCP Trail"),
    ("ec2:AuthorizeSecurityGroupEgress", GROUP, &[OF_RELAY], "", "SCP Network"),
    // AWS has no resource for these: they stop requests from arriving, and are not denied.
    ("sns:Unsubscribe", "*", &[], "", ""),
    ("sns:SetSubscriptionAttributes", "*", &[], "", ""),
    // Reads are the business of the account's own policies.
    ("s3:GetObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a/b/2026-11-27/0/claim", &[],
        "EvidenceBucketPolicy", ""),
];

/// An administrator of the account: denied by the SCP, or by the resource itself.
#[test]
fn an_administrator_is_kept_from_relay_by_the_scp() {
    Account::read().check(free(ADMINISTRATOR), BY_AN_ADMINISTRATOR);
}

#[rustfmt::skip]
const BY_THE_PLATFORM_ROLE: &[Row] = &[
    ("iam:CreateRole", RUNNER, &[], "", ""),
    ("iam:PassRole", RUNNER, &[TO_ECS], "", ""),
    ("iam:UpdateAssumeRolePolicy", PLATFORM, &[], "", ""),
    ("cloudformation:UpdateStack", STACK, &[], "", ""),
    ("lambda:UpdateFunctionCode", FUNCTION, &[], "", ""),
    ("ecs:RegisterTaskDefinition", DEFINITION, &[], "", ""),
    ("ecs:StopTask", "arn:aws:ecs:eu-west-1:222222222222:task/relay/0", &[IN_CLUSTER], "", ""),
    ("kms:PutKeyPolicy", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", ""),
    ("s3:PutBucketPolicy", EVIDENCE, &[], "EvidenceBucketPolicy", ""),
    ("s3:DeleteObject", "arn:aws:s3:::relay-222222222222-eu-west-1/locks/a/b/0", &[], "BucketPolicy", "resource NobodyDeletes"),
    ("kms:Sign", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "key NobodyElseSigns"),
    ("ecs:RunTask", DEFINITION, &[IN_CLUSTER], "", "SCP Tasks"),
    ("sts:AssumeRole", TOOL, &[NAMED], "payments-production.yaml DeployRole", "SCP AssumeDeployRoles, trust"),
];

/// The role that deploys the stacks may do what the SCP keeps from the others, and no more.
#[test]
fn the_platform_role_may_change_relay_and_neither_sign_nor_deploy() {
    Account::read().check(free(PLATFORM), BY_THE_PLATFORM_ROLE);
}

#[rustfmt::skip]
const BY_A_TOOL: &[Row] = &[
    // A role without the boundary, or with another one.
    ("iam:CreateRole", MADE, &[], "", "boundary OnlyRolesWithThisBoundary"),
    ("iam:CreateRole", MADE, &[("iam:PermissionsBoundary", "arn:aws:iam::222222222222:policy/mine")], "", "boundary OnlyRolesWithThisBoundary"),
    ("iam:PutRolePermissionsBoundary", MADE, &[("iam:PermissionsBoundary", "arn:aws:iam::222222222222:policy/mine")], "", "boundary OnlyRolesWithThisBoundary"),
    ("iam:DeleteRolePermissionsBoundary", MADE, &[BOUNDED], "", "boundary TheBoundaryStays"),
    // An administrator that exists.
    ("sts:AssumeRole", ADMINISTRATOR, &[], "", "boundary OnlyRolesOfThePath"),
    ("iam:PassRole", ADMINISTRATOR, &[TO_LAMBDA], "", "boundary OnlyRolesOfThePath"),
    ("iam:UpdateAssumeRolePolicy", ADMINISTRATOR, &[], "", "boundary OnlyRolesWithThisBoundary"),
    ("iam:AttachRolePolicy", ADMINISTRATOR, &[], "", "boundary OnlyRolesWithThisBoundary"),
    ("iam:PutRolePermissionsBoundary", ADMINISTRATOR, &[BOUNDED], "", "boundary OnlyRolesOfThePath"),
    ("iam:UpdateAssumeRolePolicy", ADMINISTRATOR, &[BOUNDED], "", "boundary OnlyRolesOfThePath"),
    // Its own role, and the boundary itself.
    ("iam:PutRolePolicy", TOOL, &[BOUNDED], "", "boundary NoRoleOfRelay, SCP Roles"),
    ("iam:DeleteRolePermissionsBoundary", TOOL, &[BOUNDED], "", "boundary NoRoleOfRelay, SCP Roles"),
    ("iam:CreatePolicyVersion", DEPLOY_BOUNDARY, &[], "", "boundary NoRoleOfRelay, SCP Roles"),
    ("iam:SetDefaultPolicyVersion", DEPLOY_BOUNDARY, &[], "", "boundary NoRoleOfRelay, SCP Roles"),
    ("iam:DeletePolicy", DEPLOY_BOUNDARY, &[], "", "boundary NoRoleOfRelay, SCP Roles"),
    // Names that others trust.
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/relay/runner/mine", &[BOUNDED], "", "boundary NoRoleOfRelay, SCP Roles"),
    ("iam:CreateRole", PLATFORM, &[BOUNDED], "", "boundary NoRoleOfRelay, SCP Roles"),
    // What outlives the deployment.
    ("iam:CreateUser", "arn:aws:iam::222222222222:user/mine", &[BOUNDED], "", "boundary NoOtherIdentity"),
    ("iam:CreateAccessKey", "arn:aws:iam::222222222222:user/somebody", &[], "", "boundary NoOtherIdentity"),
    ("iam:UpdateLoginProfile", "arn:aws:iam::222222222222:user/somebody", &[], "", "boundary NoOtherIdentity"),
    ("iam:PutUserPolicy", "arn:aws:iam::222222222222:user/somebody", &[BOUNDED], "", "boundary NoOtherIdentity"),
    ("iam:UpdateSAMLProvider", "arn:aws:iam::222222222222:saml-provider/people", &[], "", "boundary NoOtherIdentity"),
    // relay itself.
    ("kms:Sign", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "boundary NoKeyOfRelay, key NobodyElseSigns"),
    ("kms:PutKeyPolicy", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "boundary NoKeyOfRelay, SCP Keys, key NoDeployRoleAdministers"),
    ("s3:PutBucketPolicy", EVIDENCE, &[], "EvidenceBucketPolicy", "boundary NothingOfRelay, SCP Buckets, resource NoDeployRoleAdministers"),
    ("s3:GetObject", "arn:aws:s3:::relay-222222222222-eu-west-1/saved/orders/production/plan", &[], "BucketPolicy", "boundary NothingOfRelay"),
    ("s3:PutObject", "arn:aws:s3:::example-code/relay/1.0.0/relay-launcher.zip", &[], "", "boundary NothingOfRelay"),
    ("lambda:UpdateFunctionCode", FUNCTION, &[], "", "boundary NothingOfRelay, SCP Functions"),
    ("events:DisableRule", RULE, &[], "", "boundary NothingOfRelay, SCP Rules"),
    ("cloudformation:UpdateStack", STACK, &[], "", "boundary NothingOfRelay, SCP Stacks"),
    ("ecs:RunTask", "arn:aws:ecs:eu-west-1:222222222222:task-definition/mine:1", &[IN_CLUSTER], "", "boundary NoTaskInTheCluster, SCP TasksInTheCluster"),
    ("sqs:DeleteQueue", "arn:aws:sqs:eu-west-1:222222222222:relay-dead-letters", &[], "", "boundary NothingOfRelay, SCP DeadLetters"),
    ("ec2:AuthorizeSecurityGroupEgress", GROUP, &[OF_RELAY], "", "boundary NoNetworkOfRelay, SCP Network"),
];

/// A tool whose deploy role allows everything, `iam:*` included.
#[test]
fn a_tool_with_all_of_iam_stays_inside_its_boundary() {
    Account::read().check(tool(TOOL), BY_A_TOOL);
}

#[rustfmt::skip]
const BY_A_ROLE_OF_THE_TOOL: &[Row] = &[
    ("kms:PutKeyPolicy", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "boundary NoKeyOfRelay, SCP Keys"),
    ("s3:PutBucketPolicy", EVIDENCE, &[], "EvidenceBucketPolicy", "boundary NothingOfRelay, SCP Buckets"),
    ("iam:DeleteRolePermissionsBoundary", MADE, &[BOUNDED], "", "boundary TheBoundaryStays"),
    ("sts:AssumeRole", ADMINISTRATOR, &[], "", "boundary OnlyRolesOfThePath"),
];

/// A role that the tool created is bound as the tool is. The denials of the key and of the bucket
/// that name deploy roles do not reach it; boundary and SCP do.
#[test]
fn a_role_that_the_tool_created_is_bound_as_the_tool_is() {
    Account::read().check(tool(MADE), BY_A_ROLE_OF_THE_TOOL);
}

#[rustfmt::skip]
const OF_AN_ORDINARY_DEPLOYMENT: &[Row] = &[
    ("iam:CreateRole", MADE, &[BOUNDED], "", ""),
    ("iam:TagRole", MADE, &[], "", ""),
    ("iam:AttachRolePolicy", MADE, &[BOUNDED, ("iam:PolicyARN", "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole")], "", ""),
    ("iam:PutRolePolicy", MADE, &[BOUNDED], "", ""),
    ("iam:UpdateAssumeRolePolicy", MADE, &[BOUNDED], "", ""),
    ("iam:DeleteRole", MADE, &[BOUNDED], "", ""),
    ("iam:PassRole", MADE, &[TO_LAMBDA], "", ""),
    ("iam:GetRole", TOOL, &[], "", ""),
    ("iam:GetPolicy", DEPLOY_BOUNDARY, &[], "", ""),
    ("iam:CreatePolicy", "arn:aws:iam::222222222222:policy/orders", &[], "", ""),
    ("iam:CreateServiceLinkedRole", "arn:aws:iam::222222222222:role/aws-service-role/ecs.amazonaws.com/AWSServiceRoleForECS", &[], "", ""),
    ("lambda:CreateFunction", "arn:aws:lambda:eu-west-1:222222222222:function:orders", &[], "", ""),
    ("lambda:CreateEventSourceMapping", "*", &[("lambda:FunctionArn", "arn:aws:lambda:eu-west-1:222222222222:function:orders")], "", ""),
    ("ecs:RegisterTaskDefinition", "arn:aws:ecs:eu-west-1:222222222222:task-definition/orders:1", &[], "", ""),
    ("ecs:DeregisterTaskDefinition", "*", &[], "", ""),
    ("ecs:UpdateService", "arn:aws:ecs:eu-west-1:222222222222:service/shop/orders", &[("ecs:cluster", "arn:aws:ecs:eu-west-1:222222222222:cluster/shop")], "", ""),
    ("kms:PutKeyPolicy", "arn:aws:kms:eu-west-1:222222222222:key/mine", &[("kms:ResourceAliases", "alias/orders")], "", ""),
    ("kms:CreateKey", "*", &[], "", ""),
    ("ec2:AuthorizeSecurityGroupIngress", GROUP, &[("aws:ResourceTag/aws:cloudformation:stack-name", "orders")], "", ""),
    ("ec2:DescribeSecurityGroups", "*", &[], "", ""),
    ("s3:PutObject", "arn:aws:s3:::example-terraform-state/orders", &[], "", ""),
    ("sns:Subscribe", "arn:aws:sns:eu-west-1:222222222222:orders", &[], "", ""),
];

/// What terraform does for a function with a role of its own, and for a service on ECS.
#[test]
fn an_ordinary_deployment_is_not_denied() {
    Account::read().check(tool(TOOL), OF_AN_ORDINARY_DEPLOYMENT);
}

#[rustfmt::skip]
const BY_A_ROLE_THAT_EXISTS: &[Row] = &[
    ("kms:PutKeyPolicy", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "SCP Keys"),
    ("s3:PutBucketPolicy", EVIDENCE, &[], "EvidenceBucketPolicy", "SCP Buckets"),
    ("iam:CreateRole", "arn:aws:iam::222222222222:role/relay/runner/mine", &[], "", "SCP Roles"),
    ("lambda:UpdateFunctionCode", FUNCTION, &[], "", "SCP Functions"),
    ("iam:PutRolePolicy", TOOL, &[BOUNDED], "", "SCP Roles"),
    ("ecs:RunTask", DEFINITION, &[IN_CLUSTER], "", "SCP Tasks"),
];

/// The boundary does not follow a tool into what exists without it. There, only the SCP is left.
#[test]
fn of_a_role_that_exists_only_the_scp_is_left() {
    let account = Account::read();
    // A function whose role is an administrator: its code is the tool's to change.
    let batch = "arn:aws:lambda:eu-west-1:222222222222:function:batch";
    account.check(tool(TOOL), &[("lambda:UpdateFunctionCode", batch, &[], "", "")]);
    // As that role, the tool meets neither the boundary nor the denials that name deploy roles.
    account.check(free(ADMINISTRATOR), BY_A_ROLE_THAT_EXISTS);
}

const BUS: &str = "arn:aws:events:eu-west-1:222222222222:event-bus/default";

#[rustfmt::skip]
const BY_A_STOLEN_LAUNCHER: &[Row] = &[
    // What it yields.
    ("kms:Sign", ANSWER_KEY, &[("kms:ResourceAliases", "alias/relay-answer")], "AnswerKey", ""),
    ("ecs:RunTask", DEFINITION, &[IN_CLUSTER], "", ""),
    ("ecs:StopTask", "arn:aws:ecs:eu-west-1:222222222222:task/relay/0", &[IN_CLUSTER], "", ""),
    ("iam:PassRole", RUNNER, &[TO_ECS], "", ""),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a/b/2026-11-27/0/launcher/record.json", &[ONCE], "EvidenceBucketPolicy", ""),
    ("events:PutEvents", BUS, &[("events:source", "relay")], "", ""),
    // What it does not.
    ("events:PutEvents", BUS, &[("events:source", "deployments.example")], "", "identity, boundary"),
    ("kms:Sign", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", "identity, key NobodyElseSigns"),
    ("kms:PutKeyPolicy", ANSWER_KEY, &[("kms:ResourceAliases", "alias/relay-answer")], "AnswerKey", "identity, boundary NeverDefineOrDelete, SCP Keys"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a/b/2026-11-27/0/runner/record.json", &[ONCE], "EvidenceBucketPolicy", "identity, resource OnlyRunnersWriteTheirs"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a/b/tickets/0", &[ONCE], "EvidenceBucketPolicy", "identity, resource OnlyRunnersWriteTheirs"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a/b/2026-11-27/0/claim", &[], "EvidenceBucketPolicy", "resource WrittenOnce"),
    ("s3:PutObject", "arn:aws:s3:::relay-222222222222-eu-west-1/jwks/a/b", &[], "BucketPolicy", "identity, resource NoLauncherOrRunnerWritesKeys"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/ledger/0000000000.json", &[ONCE], "EvidenceBucketPolicy", "identity, resource OnlyTheLedgerWritesTheLedger"),
    ("kms:Sign", LEDGER_KEY, &[("kms:ResourceAliases", "alias/relay-ledger")], "LedgerKey", "identity, key NobodyElseSigns"),
    ("sts:AssumeRole", TOOL, &[NAMED], "payments-production.yaml DeployRole", "identity, SCP AssumeDeployRoles, trust"),
    ("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:eu-west-1:222222222222:secret:payments/database-AbCdEf", &[], "", "identity"),
    ("ecs:RegisterTaskDefinition", DEFINITION, &[], "", "identity, boundary NeverDefineOrDelete, SCP Definitions"),
    ("ecs:RunTask", DEFINITION, &[("ecs:cluster", "arn:aws:ecs:eu-west-1:222222222222:cluster/mine")], "", "identity, boundary"),
    ("ecs:RunTask", DEFINITION, &[IN_CLUSTER, ("ecs:enable-execute-command", "true")], "", "identity NeverWithAShell, boundary NeverAShellLater, SCP NoShellLater"),
    ("iam:PassRole", ADMINISTRATOR, &[TO_ECS], "", "identity, boundary"),
    ("iam:PassRole", RUNNER, &[TO_LAMBDA], "", "identity, boundary"),
    ("iam:CreateRole", MADE, &[BOUNDED], "", "identity, boundary NeverIam"),
    ("lambda:UpdateFunctionCode", FUNCTION, &[], "", "identity, boundary, SCP Functions"),
];

#[test]
fn a_stolen_launcher_role_deploys_nothing_that_a_runner_would_not_check() {
    Account::read().check(THE_LAUNCHER, BY_A_STOLEN_LAUNCHER);
}

#[rustfmt::skip]
const BY_ANOTHER_RUNNER: &[Row] = &[
    // Its own.
    ("kms:Sign", TARGET_KEY, &[ALIAS], "payments-production.yaml TargetKey", ""),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/payments/production/2026-11-27/0/claim", &[ONCE], "EvidenceBucketPolicy", ""),
    ("sts:AssumeRole", TOOL, &[NAMED], "payments-production.yaml DeployRole", ""),
    ("sts:TagSession", TOOL, &[], "payments-production.yaml DeployRole", ""),
    // Without the deployment's id in each call of the tool, there is no session.
    ("sts:AssumeRole", TOOL, &[], "payments-production.yaml DeployRole", "trust"),
    // The other target's.
    ("kms:Sign", OTHER_KEY, &[("kms:ResourceAliases", "alias/relay-orders-production")], "orders-production.yaml TargetKey", "identity, key NobodyElseSigns"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/orders/production/2026-11-27/0/claim", &[ONCE], "EvidenceBucketPolicy", "identity"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/orders/production/tickets/0", &[ONCE], "EvidenceBucketPolicy", "identity"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/orders/production/2026-11-27/0/runner/record.json", &[ONCE], "EvidenceBucketPolicy", "identity"),
    ("s3:GetObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/orders/production/2026-11-27/0/request.json", &[], "EvidenceBucketPolicy", "identity"),
    ("s3:PutObject", "arn:aws:s3:::relay-222222222222-eu-west-1/locks/orders/production/0", &[ONCE], "BucketPolicy", "identity"),
    ("s3:GetObject", "arn:aws:s3:::relay-222222222222-eu-west-1/saved/orders/production/plan", &[], "BucketPolicy", "identity"),
    ("sts:AssumeRole", "arn:aws:iam::222222222222:role/relay-deploy/orders", &[NAMED], "orders-production.yaml DeployRole", "identity, trust"),
    ("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:eu-west-1:222222222222:secret:orders/database-AbCdEf", &[], "", "identity"),
    // Nobody's: what the launcher does, and what nobody does.
    ("ecs:RunTask", DEFINITION, &[IN_CLUSTER], "", "identity, SCP Tasks"),
    ("kms:Sign", ANSWER_KEY, &[("kms:ResourceAliases", "alias/relay-answer")], "AnswerKey", "identity, key NobodyElseSigns"),
    ("s3:PutObject", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/payments/production/2026-11-27/0/launcher/record.json", &[ONCE], "EvidenceBucketPolicy", "identity, resource OnlyTheLauncherWritesItsOwn"),
    ("s3:DeleteObject", "arn:aws:s3:::relay-222222222222-eu-west-1/locks/payments/production/0", &[], "BucketPolicy", "identity, boundary NeverDefineOrDelete, resource NobodyDeletes"),
    ("sts:AssumeRole", ADMINISTRATOR, &[NAMED], "", "identity, boundary"),
    // The queues of all deployments of one CI account: what it sends there, it cannot sign.
    ("sqs:SendMessage", "arn:aws:sqs:eu-west-1:111111111111:relay-01935a3e-0000-7000-8000-000000000000-reply",
        &[("aws:ResourceAccount", "111111111111")], "", ""),
];

/// The runner of payments/production, and what belongs to orders/production.
#[test]
fn another_targets_runner_reaches_its_own_target_only() {
    Account::read().check(THE_RUNNER, BY_ANOTHER_RUNNER);
}

const QUEUE: &str = "arn:aws:sqs:eu-west-1:222222222222:relay-01935a3e-0000-7000-8000-000000000000-reply";
const OWN: (&str, &str) = ("aws:ResourceTag/relay-target", "payments/production");
const OTHER: (&str, &str) = ("aws:ResourceTag/relay-target", "orders/production");
const SETS: (&str, &str) = ("aws:RequestTag/relay-target", "payments/production");
const IN: (&str, &str) = ("aws:RequestedRegion", "eu-west-1");

#[rustfmt::skip]
const BY_A_PIPELINE: &[(&str, &str, Keys, bool)] = &[
    ("sns:Publish", TOPIC, &[], true),
    ("sns:Publish", "arn:aws:sns:eu-west-1:333333333333:relay", &[], false),
    ("sqs:CreateQueue", QUEUE, &[IN, SETS], true),
    ("sqs:TagQueue", QUEUE, &[IN, SETS], true),
    ("sqs:TagQueue", QUEUE, &[IN, SETS, OWN], true),
    ("sqs:ReceiveMessage", QUEUE, &[IN, OWN], true),
    ("sqs:DeleteQueue", QUEUE, &[IN, OWN], true),
    ("sqs:CreateQueue", QUEUE, &[IN, ("aws:RequestTag/relay-target", "orders/production")], false),
    ("sqs:CreateQueue", QUEUE, &[IN], false),
    ("sqs:TagQueue", QUEUE, &[IN, SETS, OTHER], false),
    ("sqs:ReceiveMessage", QUEUE, &[IN, OTHER], false),
    ("sqs:ReceiveMessage", QUEUE, &[IN], false),
    ("sqs:DeleteQueue", QUEUE, &[IN, OTHER], false),
    ("sqs:ReceiveMessage", "arn:aws:sqs:eu-west-1:333333333333:relay-x-reply", &[IN, OWN], false),
    ("s3:PutObject", "arn:aws:s3:::relay-artifacts-222222222222-eu-west-1/payments/production/a.tar.zst", &[], true),
    ("s3:PutObject", "arn:aws:s3:::relay-artifacts-222222222222-eu-west-1/orders/production/a.tar.zst", &[], false),
    ("kms:Sign", "arn:aws:kms:eu-west-1:222222222222:key/requests-of-payments", &[], true),
    ("kms:Sign", "arn:aws:kms:eu-west-1:222222222222:key/requests-of-orders", &[], false),
];

/// One pipeline's role in the CI account, for `payments/*`.
#[test]
fn a_pipeline_reaches_the_queues_artifacts_and_key_of_its_own_targets() {
    let text = fs::read_to_string(super::infra().join("ci-pipeline.yaml")).unwrap();
    let infra = Infra::of([("ci-pipeline.yaml", text.as_str())]).unwrap();
    let values = [
        ("<Target>", "payments/*"),
        ("<TopicArns>", TOPIC),
        ("<QueueRegions>", "eu-west-1"),
        ("<RequestKey.Arn>", "arn:aws:kms:eu-west-1:222222222222:key/requests-of-payments"),
        ("<import <CiAccount>-ArtifactBucketArn>", "arn:aws:s3:::relay-artifacts-222222222222-eu-west-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let role = infra.roles.first().expect("the pipeline's role");
    for (action, resource, context, allowed) in BY_A_PIPELINE {
        let mut call = Call::new("arn:aws:iam::222222222222:role/relay-ci/relay-ci-payments", action, resource);
        call.context.extend(context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        call.values = values.clone().into();
        assert_eq!(call.is_allowed_by(role.statements()), *allowed, "{action} on {resource} with {context:?}");
    }
}

/// For each kind of resource in the templates, calls that change one of relay's.
#[rustfmt::skip]
const CHANGES: &[(&str, &[(&str, &str)])] = &[
    ("AWS::CloudTrail::Trail", &[
        ("cloudtrail:DeleteTrail", "arn:aws:cloudtrail:eu-west-1:222222222222:trail/relay-data"),
        ("cloudtrail:PutEventSelectors", "arn:aws:cloudtrail:eu-west-1:222222222222:trail/relay-data"),
        ("cloudtrail:UpdateTrail", "arn:aws:cloudtrail:eu-west-1:222222222222:trail/relay-data"),
    ]),
    ("AWS::CloudWatch::Alarm", &[
        ("cloudwatch:DeleteAlarms", "arn:aws:cloudwatch:eu-west-1:222222222222:alarm:relay-ErrorsAlarm-1A"),
        ("cloudwatch:PutMetricAlarm", "arn:aws:cloudwatch:eu-west-1:222222222222:alarm:relay-ErrorsAlarm-1A"),
        ("cloudwatch:DisableAlarmActions", "arn:aws:cloudwatch:eu-west-1:222222222222:alarm:relay-ErrorsAlarm-1A"),
    ]),
    ("AWS::EC2::FlowLog", &[("ec2:DeleteFlowLogs", "arn:aws:ec2:eu-west-1:222222222222:vpc-flow-log/fl-0")]),
    ("AWS::EC2::RouteTable", &[
        ("ec2:CreateRoute", "arn:aws:ec2:eu-west-1:222222222222:route-table/rtb-0"),
        ("ec2:ReplaceRoute", "arn:aws:ec2:eu-west-1:222222222222:route-table/rtb-0"),
        ("ec2:DeleteRouteTable", "arn:aws:ec2:eu-west-1:222222222222:route-table/rtb-0"),
    ]),
    ("AWS::EC2::SecurityGroup", &[
        ("ec2:AuthorizeSecurityGroupIngress", GROUP),
        ("ec2:RevokeSecurityGroupEgress", GROUP),
        ("ec2:ModifySecurityGroupRules", GROUP),
        ("ec2:DeleteSecurityGroup", GROUP),
    ]),
    ("AWS::EC2::Subnet", &[
        ("ec2:ModifySubnetAttribute", "arn:aws:ec2:eu-west-1:222222222222:subnet/subnet-0"),
        ("ec2:DeleteSubnet", "arn:aws:ec2:eu-west-1:222222222222:subnet/subnet-0"),
    ]),
    ("AWS::EC2::SubnetRouteTableAssociation", &[
        ("ec2:ReplaceRouteTableAssociation", "arn:aws:ec2:eu-west-1:222222222222:route-table/rtb-0"),
        ("ec2:DisassociateRouteTable", "arn:aws:ec2:eu-west-1:222222222222:route-table/rtb-0"),
        ("ec2:AssociateRouteTable", "arn:aws:ec2:eu-west-1:222222222222:route-table/rtb-0"),
    ]),
    ("AWS::EC2::VPC", &[
        ("ec2:ModifyVpcAttribute", "arn:aws:ec2:eu-west-1:222222222222:vpc/vpc-0"),
        ("ec2:DeleteVpc", "arn:aws:ec2:eu-west-1:222222222222:vpc/vpc-0"),
    ]),
    ("AWS::EC2::VPCEndpoint", &[
        ("ec2:ModifyVpcEndpoint", "arn:aws:ec2:eu-west-1:222222222222:vpc-endpoint/vpce-0"),
        ("ec2:DeleteVpcEndpoints", "arn:aws:ec2:eu-west-1:222222222222:vpc-endpoint/vpce-0"),
    ]),
    ("AWS::ECS::Cluster", &[
        ("ecs:DeleteCluster", CLUSTER),
        ("ecs:UpdateCluster", CLUSTER),
        ("ecs:UpdateClusterSettings", CLUSTER),
        ("ecs:PutClusterCapacityProviders", CLUSTER),
        ("ecs:RegisterContainerInstance", CLUSTER),
        ("ecs:SubmitTaskStateChange", CLUSTER),
        ("ecs:CreateService", "arn:aws:ecs:eu-west-1:222222222222:service/relay/mine"),
        ("ecs:UpdateTaskProtection", "arn:aws:ecs:eu-west-1:222222222222:task/relay/0"),
    ]),
    ("AWS::ECS::TaskDefinition", &[
        ("ecs:RegisterTaskDefinition", DEFINITION),
        ("ecs:DeleteTaskDefinitions", DEFINITION),
        ("ecs:TagResource", DEFINITION),
    ]),
    ("AWS::Events::Rule", &[
        ("events:DeleteRule", RULE), ("events:DisableRule", RULE), ("events:EnableRule", RULE), ("events:PutRule", RULE),
        ("events:PutTargets", RULE), ("events:RemoveTargets", RULE), ("events:UntagResource", RULE),
    ]),
    ("AWS::IAM::ManagedPolicy", &[
        ("iam:CreatePolicy", DEPLOY_BOUNDARY), ("iam:CreatePolicyVersion", DEPLOY_BOUNDARY), ("iam:DeletePolicy", DEPLOY_BOUNDARY),
        ("iam:DeletePolicyVersion", DEPLOY_BOUNDARY), ("iam:SetDefaultPolicyVersion", DEPLOY_BOUNDARY), ("iam:TagPolicy", DEPLOY_BOUNDARY),
    ]),
    ("AWS::IAM::Role", &[
        ("iam:AttachRolePolicy", RUNNER), ("iam:CreateRole", RUNNER), ("iam:DeleteRole", RUNNER),
        ("iam:DeleteRolePermissionsBoundary", RUNNER), ("iam:DeleteRolePolicy", RUNNER), ("iam:DetachRolePolicy", RUNNER),
        ("iam:PutRolePermissionsBoundary", RUNNER), ("iam:PutRolePolicy", RUNNER), ("iam:TagRole", RUNNER), ("iam:UntagRole", RUNNER),
        ("iam:UpdateAssumeRolePolicy", RUNNER), ("iam:UpdateRole", RUNNER), ("iam:UpdateRoleDescription", RUNNER), ("iam:PassRole", RUNNER),
    ]),
    ("AWS::KMS::Alias", &[
        ("kms:CreateAlias", "arn:aws:kms:eu-west-1:222222222222:alias/relay-mine"),
        ("kms:DeleteAlias", "arn:aws:kms:eu-west-1:222222222222:alias/relay-answer"),
        ("kms:UpdateAlias", "arn:aws:kms:eu-west-1:222222222222:alias/relay-answer"),
    ]),
    ("AWS::KMS::Key", &[
        ("kms:CancelKeyDeletion", TARGET_KEY), ("kms:CreateGrant", TARGET_KEY), ("kms:DisableKey", TARGET_KEY), ("kms:DisableKeyRotation", TARGET_KEY),
        ("kms:EnableKey", TARGET_KEY), ("kms:PutKeyPolicy", TARGET_KEY), ("kms:RevokeGrant", TARGET_KEY), ("kms:ScheduleKeyDeletion", TARGET_KEY),
        ("kms:TagResource", TARGET_KEY), ("kms:UpdateKeyDescription", TARGET_KEY),
    ]),
    ("AWS::Lambda::EventInvokeConfig", &[
        ("lambda:DeleteFunctionEventInvokeConfig", FUNCTION), ("lambda:PutFunctionEventInvokeConfig", FUNCTION),
        ("lambda:UpdateFunctionEventInvokeConfig", FUNCTION),
    ]),
    ("AWS::Lambda::Function", &[
        ("lambda:CreateAlias", FUNCTION), ("lambda:CreateFunctionUrlConfig", FUNCTION), ("lambda:DeleteFunction", FUNCTION),
        ("lambda:DeleteFunctionConcurrency", FUNCTION), ("lambda:InvokeFunction", FUNCTION), ("lambda:PublishVersion", FUNCTION),
        ("lambda:PutFunctionConcurrency", FUNCTION), ("lambda:PutRuntimeManagementConfig", FUNCTION), ("lambda:UpdateFunctionCode", FUNCTION),
        ("lambda:UpdateFunctionConfiguration", FUNCTION),
    ]),
    ("AWS::Lambda::Permission", &[("lambda:AddPermission", FUNCTION), ("lambda:RemovePermission", FUNCTION)]),
    ("AWS::Logs::LogGroup", &[
        ("logs:AssociateKmsKey", LOG), ("logs:DeleteLogGroup", LOG), ("logs:DeleteRetentionPolicy", LOG), ("logs:DisassociateKmsKey", LOG),
        ("logs:PutDataProtectionPolicy", LOG), ("logs:PutRetentionPolicy", LOG), ("logs:PutSubscriptionFilter", LOG),
        ("logs:DeleteLogStream", "arn:aws:logs:eu-west-1:222222222222:log-group:/relay/tasks:log-stream:a/b/c"),
        ("logs:PutLogEvents", "arn:aws:logs:eu-west-1:222222222222:log-group:/relay/tasks:log-stream:a/b/c"),
    ]),
    ("AWS::Logs::MetricFilter", &[("logs:DeleteMetricFilter", LOG), ("logs:PutMetricFilter", LOG)]),
    ("AWS::S3::Bucket", &[
        ("s3:CreateBucket", BUCKET), ("s3:DeleteBucket", BUCKET), ("s3:PutBucketAcl", BUCKET), ("s3:PutBucketLogging", BUCKET),
        ("s3:PutBucketNotification", BUCKET), ("s3:PutBucketObjectLockConfiguration", EVIDENCE), ("s3:PutBucketOwnershipControls", BUCKET),
        ("s3:PutBucketPublicAccessBlock", BUCKET), ("s3:PutBucketTagging", BUCKET), ("s3:PutBucketVersioning", BUCKET),
        ("s3:PutEncryptionConfiguration", BUCKET), ("s3:PutInventoryConfiguration", BUCKET), ("s3:PutLifecycleConfiguration", EVIDENCE),
        ("s3:PutReplicationConfiguration", EVIDENCE),
        ("s3:PutObject", "arn:aws:s3:::relay-222222222222-eu-west-1/locks/a/b/0"),
        ("s3:PutObjectRetention", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a"),
        ("s3:DeleteObjectVersion", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a"),
        ("s3:BypassGovernanceRetention", "arn:aws:s3:::relay-evidence-222222222222-eu-west-1/deployments/a"),
    ]),
    ("AWS::S3::BucketPolicy", &[("s3:PutBucketPolicy", BUCKET), ("s3:DeleteBucketPolicy", EVIDENCE)]),
    ("AWS::SNS::Topic", &[
        ("sns:DeleteTopic", TOPIC), ("sns:SetTopicAttributes", TOPIC), ("sns:PutDataProtectionPolicy", TOPIC), ("sns:TagResource", TOPIC),
    ]),
    ("AWS::SNS::TopicPolicy", &[("sns:AddPermission", TOPIC), ("sns:RemovePermission", TOPIC)]),
    ("AWS::SNS::Subscription", &[("sns:Subscribe", TOPIC), ("sns:ConfirmSubscription", TOPIC)]),
    ("AWS::SQS::Queue", &[("sqs:DeleteQueue", DEAD_LETTERS), ("sqs:SetQueueAttributes", DEAD_LETTERS), ("sqs:TagQueue", DEAD_LETTERS)]),
    ("AWS::SQS::QueuePolicy", &[("sqs:AddPermission", DEAD_LETTERS), ("sqs:RemovePermission", DEAD_LETTERS)]),
];
const LOG: &str = "arn:aws:logs:eu-west-1:222222222222:log-group:/relay/tasks";
const DEAD_LETTERS: &str = "arn:aws:sqs:eu-west-1:222222222222:relay-dead-letters";

/// Kinds of resources that the SCP leaves alone, and why.
const LEFT_ALONE: &[(&str, &str)] =
    &[("AWS::IAM::OIDCProvider", "the account has one for each issuer, and others may depend on it")];

/// An administrator is denied each of these calls by the SCP, and a tool by its boundary as well.
/// A new kind of resource needs a row.
#[test]
fn every_kind_of_resource_is_kept_from_administrators_and_tools() {
    let mut kinds = BTreeSet::new();
    for file in
        ["foundation.yaml", "ci-account.yaml", "ci-pipeline.yaml", "network.yaml", "examples/payments-production.yaml"]
    {
        let template = load(&fs::read_to_string(super::infra().join(file)).unwrap()).unwrap();
        let resources = template["Resources"].as_object().unwrap().values();
        kinds.extend(resources.map(|resource| resource["Type"].as_str().unwrap().to_owned()));
    }
    let covered = CHANGES.iter().map(|(kind, _)| *kind).chain(LEFT_ALONE.iter().map(|(kind, _)| *kind));
    assert_eq!(kinds, covered.map(str::to_owned).collect());

    let account = Account::read();
    let mut wrong = Vec::new();
    for (action, resource) in CHANGES.iter().flat_map(|(_, calls)| *calls) {
        let keys: &[_] = if action.starts_with("ec2:") { &[OF_RELAY] } else { &[ALIAS] };
        let row = (*action, *resource, keys, "", "");
        let (by_administrator, by_tool) =
            (account.denials(free(ADMINISTRATOR), &row), account.denials(tool(MADE), &row));
        if !by_administrator.starts_with("SCP ") || !by_tool.starts_with("boundary ") {
            wrong.push(format!("{action} on {resource}: [{by_administrator}], by a tool [{by_tool}]"));
        }
    }
    super::none(&wrong);
}

/// AWS takes no policy that is longer: a managed policy without its white space, an SCP as it is
/// sent.
#[test]
fn boundary_and_scps_are_short_enough_for_aws() {
    let foundation = load(&fs::read_to_string(super::infra().join("foundation.yaml")).unwrap()).unwrap();
    for name in ["Boundary", "DeployBoundary"] {
        let document = &foundation["Resources"][name]["Properties"]["PolicyDocument"];
        // References become longer, and the text of the intrinsic functions goes: measured with the
        // longest partition and region.
        let mut text = document.to_string();
        for (reference, value) in [
            ("{\"Fn::Sub\":", ""),
            ("\"}", "\""),
            ("${AWS::Partition}", "aws-us-gov"),
            ("${AWS::AccountId}", "222222222222"),
            ("${AWS::Region}", "ap-southeast-2"),
            ("${AWS::StackName}", "relay"),
            ("${CodeBucket}/${CodeKey}", &"c".repeat(100)),
            ("${DeployedRolePath}", "/deployed/"),
        ] {
            text = text.replace(reference, value);
        }
        assert!(text.len() <= 6_144, "{name} has {} characters", text.len());
    }
    for file in fs::read_dir(super::infra().join("scp")).unwrap().flatten() {
        let policy: serde_json::Value = serde_json::from_str(&fs::read_to_string(file.path()).unwrap()).unwrap();
        let length = policy.to_string().len();
        assert!(length <= 5_120, "{}: {length} characters", file.path().display());
    }
}
