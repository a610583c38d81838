//! Every policy document in a template, wherever it stands.

use serde_json::Value;

use super::template::{branches, intrinsic, texts};

/// What a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What its role may do.
    Identity,
    /// The most that roles may do which carry it.
    Boundary,
    /// Who may become the role.
    Trust,
    /// Who may use a topic, a queue, a bucket.
    Resource,
    /// Who may use the key that it is part of: `*` is this key.
    Key,
    /// What may go through an endpoint.
    Endpoint,
    /// What somebody may look at, in whichever account.
    Reader,
    /// What an organisation forbids.
    Control,
}

/// A policy document.
#[derive(Clone, Debug)]
pub struct Policy {
    /// `foundation.yaml LauncherRole Policies.0.PolicyDocument`.
    pub place: String,
    /// The logical name of the resource that it is part of.
    pub resource: String,
    /// What it decides.
    pub kind: Kind,
    /// Its statements. One with `Fn::If` in its conditions comes once for each branch.
    pub statements: Vec<Statement>,
}

/// A statement.
#[derive(Clone, Debug, Default)]
pub struct Statement {
    /// Its name.
    pub sid: String,
    /// Whether it is another branch of the one before.
    pub again: bool,
    /// Whether it allows.
    pub allows: bool,
    /// `Action`.
    pub actions: Vec<String>,
    /// `Resource`.
    pub resources: Vec<String>,
    /// `Principal`: its kind, and who.
    pub principals: Vec<(String, String)>,
    /// `Condition`: the operator, the key, the values.
    pub conditions: Vec<(String, String, Vec<String>)>,
    /// `NotAction`, `NotResource`, `NotPrincipal`, and what nobody knows.
    pub others: Vec<String>,
}

impl Statement {
    /// The values of a condition, whatever set operator stands before it. Names of keys are compared as IAM does it: without case.
    pub fn condition(&self, operators: &[&str], key: &str) -> Option<&[String]> {
        let holds = |operator: &str| operators.contains(&operator.rsplit(':').next().unwrap_or_default());
        let mut found =
            self.conditions.iter().filter(|(operator, name, _)| holds(operator) && name.eq_ignore_ascii_case(key));
        found.next().map(|(_, _, values)| values.as_slice())
    }
}

/// The policies of a resource of a template. An unknown place is an error: no policy may hide from the checks.
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
            _ => return Err(format!("{place}: no check knows a policy here")),
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
            // The place is what it is without the choice.
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

/// The items of a list, or the one that stands there without a list.
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
