//! The permissions in the templates as data: what a platform team installs from `infra/`, read
//! without an account.
//!
//! [`load`] reads a template. [`Infra`] finds every policy and every role in the files that it is
//! given. [`faults`] checks them against general rules. What each role may do, and which exceptions
//! hold for which reason, is listed in the test that calls this module.

mod evaluate;
mod policy;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

use serde_json::Value;

pub use evaluate::{Call, matches};
pub use policy::{Kind, Policy, Statement};
pub use template::{load, texts};

/// A role in a template.
#[derive(Clone, Debug)]
pub struct Role {
    /// The file and the resource, such as `foundation.yaml LauncherRole`.
    pub place: String,
    /// Its path and name, such as `/relay/relay-launcher-<region>`.
    pub name: String,
    /// The value of its tag `relay-target`.
    pub target: Option<String>,
    /// Its permissions boundary, if it has one.
    pub boundary: Option<String>,
    /// Its inline policies, and the policies of its template that are attached to it.
    pub policies: Vec<Policy>,
    /// Its trust policies: who may assume it.
    pub trust: Vec<Policy>,
    /// The ARNs of attached policies that its template does not define.
    pub foreign: Vec<String>,
}

impl Role {
    /// The statements of its policies.
    pub fn statements(&self) -> impl Iterator<Item = &Statement> {
        self.policies.iter().flat_map(|policy| &policy.statements)
    }

    /// The actions that it is allowed, each with the resources.
    pub fn allowed(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut allowed = BTreeMap::<&str, BTreeSet<&str>>::new();
        for statement in self.statements().filter(|statement| statement.allows) {
            for action in &statement.actions {
                allowed.entry(action).or_default().extend(statement.resources.iter().map(String::as_str));
            }
        }
        allowed
    }
}

/// A violation of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The rule's name, which an exception refers to.
    pub rule: &'static str,
    /// The file, the resource, and the statement's Sid.
    pub at: String,
    /// What violates the rule.
    pub what: String,
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.at, self.rule, self.what)
    }
}

/// A fault that is accepted: rule, file with resource and Sid, what violates the rule, and the
/// reason.
pub type Exception = (&'static str, &'static str, &'static str, &'static str);

/// The faults that no exception covers, and the exceptions that match no fault or give no reason.
pub fn without(faults: Vec<Fault>, exceptions: &[Exception]) -> Vec<String> {
    let is =
        |fault: &Fault, (rule, at, what, _): &Exception| fault.rule == *rule && fault.at == *at && fault.what == *what;
    let mut findings: Vec<String> = faults
        .iter()
        .filter(|fault| !exceptions.iter().any(|exception| is(fault, exception)))
        .map(ToString::to_string)
        .collect();
    for exception in exceptions {
        let (rule, at, what, reason) = exception;
        if !faults.iter().any(|fault| is(fault, exception)) {
            findings.push(format!("{at}: {rule}: {what}: the exception is not needed"));
        }
        if reason.split_whitespace().count() < 4 {
            findings.push(format!("{at}: {rule}: {what}: the exception has no reason"));
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// All policies and roles of a set of files.
#[derive(Clone, Debug, Default)]
pub struct Infra {
    /// Every policy document.
    pub policies: Vec<Policy>,
    /// Every role.
    pub roles: Vec<Role>,
    /// What could not be understood, and policies that no role has.
    pub faults: Vec<Fault>,
}

impl Infra {
    /// Reads every template and policy under a folder. It skips `check` and `guard`, which hold
    /// nothing that is installed.
    ///
    /// # Errors
    ///
    /// A message with the folder or file that cannot be read or parsed.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let mut files = BTreeMap::new();
        collect(folder, "", &mut files)?;
        Self::of(files.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// Reads texts, each paired with its file name.
    ///
    /// # Errors
    ///
    /// A message with the name of a text that cannot be parsed.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut infra = Self::default();
        for (file, text) in files {
            let document = load(text).map_err(|error| format!("{file}: {error}"))?;
            if document.get("Resources").is_some() {
                infra.add_template(file, &document);
            } else if document.get("Statement").is_some() {
                let kind = match file {
                    "auditor-policy.json" => Kind::Reader,
                    file if file.starts_with("scp/") => Kind::Control,
                    _ => Kind::Identity,
                };
                infra.policies.push(policy::of_file(file, kind, &document));
            } else {
                infra.fault("unknown", file.to_owned(), "neither a template nor a policy");
            }
        }
        Ok(infra)
    }

    fn fault(&mut self, rule: &'static str, at: String, what: impl Into<String>) {
        self.faults.push(Fault { rule, at, what: what.into() });
    }

    fn add_template(&mut self, file: &str, document: &Value) {
        let resources: Vec<(&String, &Value)> = document["Resources"].as_object().into_iter().flatten().collect();
        let boundaries = boundaries(document);
        let mut by_resource = BTreeMap::new();
        for (name, resource) in &resources {
            match policy::of_resource(file, name, resource, boundaries.contains(&format!("<{name}>"))) {
                Ok(policies) => {
                    self.policies.extend(policies.iter().cloned());
                    by_resource.insert(name.as_str(), policies);
                }
                Err(words) => self.fault("unknown", format!("{file} {name}"), words),
            }
        }
        let of_type = |wanted: &'static str| resources.iter().filter(move |(_, resource)| resource["Type"] == wanted);
        let mut attached = BTreeSet::new();
        for (name, resource) in of_type("AWS::IAM::Role") {
            let properties = &resource["Properties"];
            let own = by_resource.get(name.as_str()).cloned().unwrap_or_default();
            let (trust, mut policies): (Vec<_>, Vec<_>) =
                own.into_iter().partition(|policy| policy.kind == Kind::Trust);
            let mut foreign = Vec::new();
            let by_role = of_type("AWS::IAM::ManagedPolicy")
                .chain(of_type("AWS::IAM::Policy"))
                .filter(|(_, policy)| texts(&policy["Properties"]["Roles"]).contains(&format!("<{name}>")))
                .map(|(policy, _)| format!("<{policy}>"));
            for arn in by_role.chain(texts(&properties["ManagedPolicyArns"])) {
                let known = arn.strip_prefix('<').and_then(|arn| arn.strip_suffix('>'));
                match known.and_then(|name| by_resource.get_key_value(name)) {
                    Some((name, found)) => {
                        attached.insert((*name).to_owned());
                        policies.extend(found.iter().cloned());
                    }
                    None => foreign.push(arn),
                }
            }
            let text = |property: &str| texts(&properties[property]).join("|");
            let path = if properties["Path"].is_null() { "/".to_owned() } else { text("Path") };
            let mut tags = properties["Tags"].as_array().into_iter().flatten();
            let target = tags.find(|tag| tag["Key"] == "relay-target").and_then(|tag| texts(&tag["Value"]).pop());
            self.roles.push(Role {
                target,
                place: format!("{file} {name}"),
                name: path + &text("RoleName"),
                boundary: texts(&properties["PermissionsBoundary"]).pop(),
                policies,
                trust,
                foreign,
            });
        }
        for (name, _) in of_type("AWS::IAM::ManagedPolicy").chain(of_type("AWS::IAM::Policy")) {
            if !attached.contains(*name) && !boundaries.contains(&format!("<{name}>")) {
                self.fault("attached", format!("{file} {name}"), "no role has this policy");
            }
        }
    }
}

/// The permissions boundaries of a template's own roles, and those that it exports for the roles of
/// other stacks.
fn boundaries(document: &Value) -> BTreeSet<String> {
    let values = |section: &str| document[section].as_object().into_iter().flatten().map(|(_, value)| value);
    let is_boundary =
        |output: &&Value| texts(&output["Export"]["Name"]).iter().any(|name| name.ends_with("BoundaryArn"));
    let own = values("Resources").flat_map(|resource| texts(&resource["Properties"]["PermissionsBoundary"]));
    own.chain(values("Outputs").filter(is_boundary).flat_map(|output| texts(&output["Value"]))).collect()
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(named)? {
        let path = entry.map_err(named)?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        let is_ours = !matches!(name.as_str(), "check" | "guard");
        if path.is_dir() && is_ours {
            collect(&path, &format!("{name}/"), files)?;
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "json") {
            files.insert(name, fs::read_to_string(&path).map_err(named)?);
        }
    }
    Ok(())
}

/// Checks against the general rules.
pub fn faults(infra: &Infra) -> Vec<Fault> {
    let mut faults = infra.faults.clone();
    for policy in &infra.policies {
        let mut sids = BTreeSet::new();
        for statement in &policy.statements {
            let at = format!("{} {}", place(&policy.place), statement.sid);
            let mut fault = |rule, what: &str| faults.push(Fault { rule, at: at.clone(), what: what.to_owned() });
            if statement.sid.is_empty() || (!sids.insert(&statement.sid) && !statement.again) {
                fault("sid", "each statement needs a Sid of its own");
            }
            of_statement(policy, statement, &mut fault);
        }
        let tls =
            |s: &Statement| !s.allows && s.condition(&["Bool"], "aws:SecureTransport").is_some_and(|v| v == ["false"]);
        if policy.kind == Kind::Resource && !policy.statements.iter().any(tls) {
            faults.push(Fault {
                rule: "tls",
                at: place(&policy.place),
                what: "nothing denies requests without TLS".to_owned(),
            });
        }
    }
    for role in &infra.roles {
        let mut fault = |rule, what: &str| faults.push(Fault { rule, at: role.place.clone(), what: what.to_owned() });
        of_role(role, &mut fault);
    }
    faults.sort();
    faults.dedup();
    faults
}

/// The file and the resource of a statement's place.
fn place(place: &str) -> String {
    place.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn of_statement(policy: &Policy, statement: &Statement, fault: &mut impl FnMut(&'static str, &str)) {
    for other in &statement.others {
        let is_meant = !statement.allows && ["NotAction", "NotResource"].contains(&other.as_str());
        if !is_meant {
            fault("unknown", other);
        }
    }
    if !statement.allows {
        return;
    }
    if policy.kind == Kind::Control {
        fault("control", "an organisation's policy may only deny");
    }
    const READS: &[&str] = &["Describe", "Filter", "Get", "List", "Lookup", "StartQuery"];
    const SECRETS: &[&str] = &["GetSecretValue", "GetParameter", "GetFederationToken", "GetSessionToken"];
    if policy.kind == Kind::Reader {
        let is_read = |action: &&String| {
            let verb = action.split_once(':').map_or("", |(_, verb)| verb);
            let starts = |with: &[&str]| with.iter().any(|start| verb.starts_with(start));
            starts(READS) && !starts(SECRETS)
        };
        statement.actions.iter().filter(|action| !is_read(action)).for_each(|action| fault("reader", action));
    }
    // An endpoint's policy limits whose callers reach whose resources. The callers' roles limit
    // what they may do.
    let whose = statement.condition(&["StringEquals", "StringEqualsIfExists"], "aws:ResourceAccount").is_some();
    let own = statement.condition(&["StringEquals"], "aws:PrincipalAccount").is_some_and(|who| who == ["<account>"]);
    if !(policy.kind == Kind::Endpoint && own && whose) {
        for action in statement.actions.iter().filter(|action| action.contains(['*', '?', '<'])) {
            fault("action", action);
        }
        of_resources(policy, statement, fault);
    }
    if statement.actions.iter().any(|action| action == "iam:PassRole") {
        let to = statement.condition(&["StringEquals"], "iam:PassedToService");
        if to.is_none_or(|to| to.iter().any(|service| service.contains('*'))) {
            fault("pass-role", "to any service");
        }
        if statement.actions.len() > 1 {
            fault("pass-role", "in a statement with other actions");
        }
    }
    for (kind, who) in &statement.principals {
        of_principal(policy, statement, kind, who, fault);
    }
}

fn of_resources(policy: &Policy, statement: &Statement, fault: &mut impl FnMut(&'static str, &str)) {
    match policy.kind {
        // A trust policy has no resources. In a key's policy, `*` is this key.
        Kind::Trust | Kind::Key => return,
        _ if statement.resources.is_empty() => fault("resource", "none"),
        _ => {}
    }
    let narrowed = |key| statement.condition(&["StringEquals"], key).is_some_and(|values| !values.is_empty());
    let (account, region) = (narrowed("aws:ResourceAccount"), narrowed("aws:RequestedRegion"));
    let aliased = statement.condition(&["StringEquals", "StringLike"], "kms:ResourceAliases").is_some();
    for resource in &statement.resources {
        let width = Width::of(resource);
        // A boundary names kinds of resources, and its roles name which of them. A policy for
        // readers covers all accounts and regions.
        let kind = width.kind && policy.kind != Kind::Boundary && !aliased;
        let elsewhere = (width.account && !account) || (width.region && !region);
        if width.all || kind || (elsewhere && policy.kind != Kind::Reader) {
            fault("resource", &format!("{} on {resource}", statement.actions.join(" ")));
        }
    }
}

fn of_principal(
    policy: &Policy,
    statement: &Statement,
    kind: &str,
    who: &str,
    fault: &mut impl FnMut(&'static str, &str),
) {
    const EQUAL: &[&str] = &["StringEquals", "StringLike", "ArnEquals", "ArnLike"];
    let bound = |keys: &[&str]| {
        let mut values = keys.iter().filter_map(|key| statement.condition(EQUAL, key));
        values.any(|values| !values.is_empty() && values.iter().all(|value| value != "*"))
    };
    let is_role = who.contains(":role/") || [".Arn>", "Arn>", "Arns>"].iter().any(|end| who.ends_with(end));
    match kind {
        "Service" if !bound(&["aws:SourceArn", "aws:SourceAccount"]) => fault("confused-deputy", who),
        "Federated" => {
            let claim = |end: &str| {
                let mut of_token = statement.conditions.iter().filter(|(_, key, _)| key.ends_with(end));
                of_token.any(|(operator, _, values)| {
                    EQUAL.contains(&operator.as_str()) && values.iter().all(|value| !value.starts_with('*'))
                })
            };
            if !claim(":aud") || !claim(":sub") {
                fault("federated", "a token is accepted with any audience or any subject");
            }
        }
        "AWS" if who == "*" && bound(&["aws:PrincipalArn", "aws:PrincipalAccount", "aws:PrincipalOrgID"]) => {}
        // A whole account: its own IAM decides. A key is administered that way. Its use, and
        // everything else, requires named roles.
        "AWS" if !is_role => {
            let uses = |action: &String| {
                ["kms:Sign", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:CreateGrant"]
                    .contains(&action.as_str())
            };
            let is_administration = who != "*" && policy.kind == Kind::Key && !statement.actions.iter().any(uses);
            if !is_administration && !bound(&["aws:PrincipalArn"]) {
                fault("principal", who);
            }
        }
        _ => {}
    }
}

/// In which respects a resource covers more than one named thing.
struct Width {
    /// Everything: `*`.
    all: bool,
    /// Everything of a kind: `key/*`, or a whole bucket.
    kind: bool,
    account: bool,
    region: bool,
}

impl Width {
    fn of(resource: &str) -> Self {
        let all = resource.is_empty() || resource.starts_with('*');
        let parts: Vec<&str> = resource.splitn(6, ':').collect();
        let ["arn", _, service, region, account, name] = parts.as_slice() else {
            // The ARN of a resource of the template, and what is below it.
            let kind = resource.split_once('/').is_some_and(|(_, below)| below.starts_with('*'));
            return Self { all, kind, account: false, region: false };
        };
        let below = name.split_once(['/', ':']).map_or(*name, |(_, below)| below);
        Self {
            all,
            kind: below.starts_with('*') || name.starts_with('*'),
            account: account.contains('*') || (*service == "s3" && name.starts_with('*')),
            region: region.contains('*'),
        }
    }
}

fn of_role(role: &Role, fault: &mut impl FnMut(&'static str, &str)) {
    let bound = ["/relay/", "/relay-deploy/"].iter().any(|path| role.name.starts_with(path));
    if bound && role.boundary.is_none() {
        fault("boundary", "a role of relay, or of a tool, without a boundary");
    }
    let runs = role.statements().any(|s| s.allows && s.actions.iter().any(|action| action == "ecs:RunTask"));
    let refuses_a_shell = |s: &Statement| {
        let is = |wanted: &str| s.actions.iter().any(|action| action == wanted);
        let exec = s.condition(&["Bool", "StringEquals"], "ecs:enable-execute-command");
        !s.allows
            && is("ecs:RunTask")
            && s.resources == ["*"]
            && s.conditions.len() == 1
            && exec.is_some_and(|v| v == ["true"])
    };
    if runs && !role.statements().any(refuses_a_shell) {
        fault("run-task", "a shell in the task (ecs:enable-execute-command) is not denied");
    }
    let in_cluster = |s: &Statement| s.condition(&["ArnEquals", "StringEquals"], "ecs:cluster").is_some();
    let run_statements =
        || role.statements().filter(|s| s.allows && s.actions.iter().any(|action| action == "ecs:RunTask"));
    if !run_statements().all(in_cluster) {
        fault("run-task", "in any cluster");
    }
    for policy in &role.foreign {
        fault("foreign", policy);
    }
}
