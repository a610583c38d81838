//! The policy documents in the templates, wherever they occur.

use serde_json::Value;

use super::template::{branches, intrinsic, texts};

/// The kind of decision that a policy makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The permissions of its role.
    Identity,
    /// The upper bound of the permissions of the roles that carry it.
    Boundary,
    /// The principals that may assume the role.
    Trust,
    /// The principals that may use a topic, a queue or a bucket.
    Resource,
    /// The principals that may use the key that it belongs to. `*` stands for this key.
    Key,
    /// The calls that may pass through a VPC endpoint.
    Endpoint,
    /// The resources that a reader, such as an auditor, may inspect in any account.
    Reader,
    /// The actions that an organisation forbids (a service control policy).
    Control,
}

/// A policy document with its place and kind.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Its place, such as `foundation.yaml LauncherRole Policies.0.PolicyDocument`.
    pub place: String,
    /// The logical name of the resource that it belongs to.
    pub resource: String,
    /// The kind of decision that it makes.
    pub kind: Kind,
    /// Its statements. A statement with `Fn::If` in its conditions occurs once for each branch.
    pub statements: Vec<Statement>,
}

/// A statement of a policy.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// Its `Sid`.
    pub sid: String,
    /// Whether it is another branch of the statement before it.
    pub again: bool,
    /// Whether its `Effect` is `Allow`.
    pub allows: bool,
    /// The values of `Action`.
    pub actions: Vec<String>,
    /// The values of `Resource`.
    pub resources: Vec<String>,
    /// The values of `NotResource`.
    pub not_resources: Vec<String>,
    /// `Principal`: the kind and the name of each.
    pub principals: Vec<(String, String)>,
    /// `Condition`: the operator, the key and the values of each.
    pub conditions: Vec<(String, String, Vec<String>)>,
    /// Elements that the checks do not read: `NotAction`, `NotResource`, `NotPrincipal`, and
    /// unknown ones.
    pub others: Vec<String>,
}

impl Statement {
    /// The values of the first condition on `key` with one of these operators. A set operator
    /// before the operator is ignored. Keys are compared without case, as IAM does.
    pub fn condition(&self, operators: &[&str], key: &str) -> Option<&[String]> {
        let holds = |operator: &str| operators.contains(&operator.rsplit(':').next().unwrap_or_default());
        let mut found =
            self.conditions.iter().filter(|(operator, name, _)| holds(operator) && name.eq_ignore_ascii_case(key));
        found.next().map(|(_, _, values)| values.as_slice())
    }
}

/// The policies of a template's resource. A policy in an unknown place is an error, so that none
/// escapes the checks.
pub(super) fn of_resource(file: &str, name: &str, resource: &Value, is_boundary: bool) -> Result<Vec<Policy>, String> {
    let kind = resource["Type"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    documents(&resource["Properties"], String::new(), &mut found);
    let policy = |(path, document): (String, &Value)| {
        let place = format!("{file} {name} {path}");
        let property = path.rsplit('.').next().unwrap_or_default();
        let kind = match (kind, property) {
            ("AWS::IAM::Role", "AssumeRolePolicyDocument") => Kind::Trust,
            ("AWS::IAM::ManagedPolicy", "PolicyDocument") if is_boundary => Kind::Boundary,
            (
                "AWS::IAM::Role" | "AWS::IAM::ManagedPolicy" | "AWS::IAM::Policy" | "AWS::IAM::RolePolicy",
                "PolicyDocument",
            ) => Kind::Identity,
            ("AWS::KMS::Key", "KeyPolicy") => Kind::Key,
            ("AWS::EC2::VPCEndpoint", "PolicyDocument") => Kind::Endpoint,
            ("AWS::SNS::TopicPolicy" | "AWS::SQS::QueuePolicy" | "AWS::S3::BucketPolicy", "PolicyDocument") => {
                Kind::Resource
            }
            _ => return Err(format!("{place}: no check covers a policy here")),
        };
        Ok(Policy { resource: name.to_owned(), kind, statements: statements(document), place })
    };
    found.into_iter().map(policy).collect()
}

/// A policy in a file of its own.
pub(super) fn of_file(file: &str, kind: Kind, document: &Value) -> Policy {
    Policy { place: file.to_owned(), resource: file.to_owned(), kind, statements: statements(document) }
}

fn documents<'a>(value: &'a Value, path: String, found: &mut Vec<(String, &'a Value)>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) if fields.contains_key("Statement") => found.push((path, value)),
        Value::Object(fields) => match intrinsic(value) {
            // A branch has the same place as the whole choice.
            Some(("Fn::If", _)) => {
                branches(value).into_iter().for_each(|branch| documents(branch, path.clone(), found));
            }
            _ => fields.iter().for_each(|(name, value)| documents(value, below(name), found)),
        },
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| documents(item, below(&at.to_string()), found));
        }
        _ => {}
    }
}

fn statements(document: &Value) -> Vec<Statement> {
    let mut all = Vec::new();
    for statement in listed(&document["Statement"]) {
        let mut conditions = branches(&statement["Condition"]);
        if conditions.is_empty() {
            conditions.push(&Value::Null);
        }
        let of_branch = |(at, condition)| Statement { again: at > 0, ..parsed(statement, condition) };
        all.extend(conditions.into_iter().enumerate().map(of_branch));
    }
    all
}

/// The items of a list, or the single value that stands in place of a list.
fn listed(value: &Value) -> Vec<&Value> {
    let mut items = Vec::new();
    for branch in branches(value) {
        match branch {
            Value::Array(list) => items.extend(list.iter().flat_map(branches)),
            one => items.push(one),
        }
    }
    items
}

fn parsed(value: &Value, condition: &Value) -> Statement {
    let mut statement = Statement::default();
    for (name, value) in value.as_object().into_iter().flatten() {
        match name.as_str() {
            "Sid" => statement.sid = texts(value).join(","),
            "Effect" if value == "Allow" => statement.allows = true,
            "Effect" if value == "Deny" => {}
            "Action" => statement.actions = texts(value),
            "Resource" => statement.resources = texts(value),
            "NotResource" => {
                statement.not_resources = texts(value);
                statement.others.push(name.clone());
            }
            "Principal" => statement.principals = principals(value),
            "Condition" => {}
            other => statement.others.push(other.to_owned()),
        }
    }
    for (operator, keys) in condition.as_object().into_iter().flatten() {
        let keys = keys.as_object().into_iter().flatten();
        statement.conditions.extend(keys.map(|(key, values)| (operator.clone(), key.clone(), texts(values))));
    }
    statement
}

fn principals(value: &Value) -> Vec<(String, String)> {
    let one = |value: &Value| match value {
        Value::Object(kinds) if intrinsic(value).is_none() => {
            kinds.iter().flat_map(|(kind, who)| texts(who).into_iter().map(|who| (kind.clone(), who))).collect()
        }
        other => texts(other).into_iter().map(|who| ("AWS".to_owned(), who)).collect::<Vec<_>>(),
    };
    branches(value).into_iter().flat_map(one).collect()
}
