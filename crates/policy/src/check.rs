//! Findings that are legal in a configuration but probably a mistake, for `relay-admin target
//! check`.

use std::collections::BTreeSet;

use relay_protocol::ParameterName;
use relay_protocol::keys::{Proof, TokenRule, TrustedSigner};

use crate::configuration::{Configuration, groups};
use crate::parameters::ParameterRule;
use crate::substitute::Template;

/// A doubtful setting, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The path of the field.
    pub field: String,
    /// What is doubtful about it.
    pub problem: String,
}

/// All findings, grouped by the kind of check. An empty list means that there is nothing to report.
pub fn check(configuration: &Configuration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |field: String, problem: String| findings.push(Finding { field, problem });
    check_parameters(configuration, &mut find);
    check_steps(configuration, &mut find);
    check_places(configuration, &mut find);
    check_resources(configuration, &mut find);
    check_policy(configuration, &mut find);
    check_approvals(configuration, &mut find);
    check_signers(configuration, &mut find);
    check_claims(configuration, &mut find);
    check_persons(configuration, &mut find);
    findings
}

type Find<'a> = &'a mut dyn FnMut(String, String);

fn check_parameters(configuration: &Configuration, find: Find<'_>) {
    let used: BTreeSet<&ParameterName> = configuration
        .steps
        .iter()
        .chain(&configuration.rollback)
        .flat_map(|step| &step.run)
        .flat_map(Template::holes)
        .collect();
    for (name, rule) in &configuration.parameters {
        let ParameterRule::Text { pattern, .. } = rule else { continue };
        let field = || format!("parameters.{name}");
        if !used.contains(name) {
            find(field(), format!("no step uses {{{name}}}; its value is only in the variable {}", name.variable()));
        }
        if pattern.starts_with('^') != pattern.ends_with('$')
            || pattern.trim_start_matches('^').contains('^') && !pattern.contains("[^")
        {
            let problem = "relay anchors the pattern at both ends; an anchor at one end only, or inside, is a mistake";
            find(field(), problem.to_owned());
        }
        let words = ["password", "passwd", "secret", "token", "credential", "private_key", "api_key", "apikey"];
        if words.iter().any(|word| name.as_str().contains(word)) {
            let problem = "parameters are no place for a secret: they stand in the record, the evidence and the tool's arguments; name the secret's ARN in [secrets]";
            find(field(), problem.to_owned());
        }
        if [".*", ".+"].contains(&pattern.trim_start_matches("(?s)")) {
            find(field(), "the pattern accepts any value: describe the values that you expect".to_owned());
        }
    }
}

fn check_steps(configuration: &Configuration, find: Find<'_>) {
    for step in configuration.steps.iter().chain(&configuration.rollback) {
        let argv: Vec<Option<String>> =
            step.run.iter().map(|part| part.fill(&std::collections::BTreeMap::new()).ok()).collect();
        let shell = argv
            .first()
            .and_then(Option::as_deref)
            .is_some_and(|program| ["sh", "bash", "dash", "/bin/sh", "/bin/bash"].contains(&program));
        let script = step.run.get(2).is_some_and(|part| part.holes().next().is_some());
        if shell && argv.get(1).and_then(Option::as_deref) == Some("-c") && script {
            find(
                format!("steps.{}", step.name),
                "a parameter inside `sh -c` lets the requester run any command: pass it as an argument".to_owned(),
            );
        }
    }
}

/// Checks the user that the tool runs as, and the queues that are created beforehand.
fn check_places(configuration: &Configuration, find: Find<'_>) {
    if configuration.uid == 0 && configuration.role.is_some() {
        find(
            "uid".to_owned(),
            "as root, the tool may reach the runner's own credentials: leave `uid` out unless the tool needs root"
                .to_owned(),
        );
    }
    for queue in &configuration.fixed_queues {
        if !(queue.name().starts_with("relay-") && queue.name().ends_with("-reply")) {
            find(
                "fixed_queues".to_owned(),
                format!(
                    "the roles of foundation.yaml may send only to queues named relay-*-reply, and `{}` has another name",
                    queue.name()
                ),
            );
        }
    }
}

/// Compares the names of resources with those that relay's stacks give them.
fn check_resources(configuration: &Configuration, find: Find<'_>) {
    let (account, region) = (configuration.topic.account(), configuration.topic.region());
    let alias = configuration.target.key_alias();
    if configuration.target_key != alias && !configuration.target_key.starts_with("arn:") {
        let problem =
            format!("the target's stack makes the key {alias}; `{}` has another name", configuration.target_key);
        find("target_key".to_owned(), problem);
    }
    if configuration.target_key.starts_with("arn:") {
        let parts: Vec<&str> = configuration.target_key.split(':').collect();
        if parts.get(2) != Some(&"kms")
            || parts.get(3) != Some(&region.as_str())
            || parts.get(4) != Some(&account.as_str())
        {
            let problem = format!("is not the ARN of a KMS key in {account} and {region}, where the topic is");
            find("target_key".to_owned(), problem);
        }
    }
    if configuration.topic.name() != "relay" {
        let problem =
            format!("foundation.yaml makes the topic `relay`; `{}` has another name", configuration.topic.name());
        find("topic".to_owned(), problem);
    }
    for (field, bucket, name) in [
        ("bucket", &configuration.bucket, format!("relay-{account}-{region}")),
        ("evidence", &configuration.evidence, configuration.topic.evidence_bucket()),
    ] {
        if *bucket != name {
            let problem = format!(
                "foundation.yaml makes the bucket {name} in the topic's account and region; `{bucket}` has another name"
            );
            find(field.to_owned(), problem);
        }
    }
    for (at, signer) in configuration.roots.signers().iter().enumerate() {
        if signer.ci_accounts.contains(account) {
            let problem = format!(
                "`ci_accounts` names {account}, the target's own account: CI would run where the power to deploy is"
            );
            find(format!("signers[{at}]"), problem);
        }
    }
}

/// A policy that asks for approvals which cannot be given can never permit.
fn check_approvals(configuration: &Configuration, find: Find<'_>) {
    let signers = configuration.roots.signers();
    let persons: BTreeSet<&str> = signers.iter().filter_map(|signer| signer.kind.person()).collect();
    let is_requester =
        |signer: &TrustedSigner| !signer.ci_accounts.is_empty() || !configuration.fixed_queues.is_empty();
    // A person who asks does not count. If only persons can ask, one of them always does.
    let only_persons_ask = signers.iter().all(|signer| signer.kind.person().is_some() || !is_requester(signer));
    let others = persons.len().saturating_sub(usize::from(only_persons_ask));
    let needed = configuration.policies.approvals();
    if let Some(needed) = needed.iter().find(|needed| usize::try_from(**needed).is_ok_and(|needed| needed > others)) {
        let problem = format!(
            "it asks for {needed} approvals, and beside the requester there are only {others} persons among the signers (`kind = \"person\"`)"
        );
        find("policy".to_owned(), problem);
    }
    let is_unknown = |signer: &TrustedSigner| is_requester(signer) && signer.kind.person().is_none();
    if needed.iter().any(|needed| *needed > 0)
        && signers.iter().any(is_unknown)
        && !configuration.policies.ask_for_the_requester()
    {
        let problem = "it asks for approvals and not for `context.requester_known`, so whoever starts the job may approve it: add the condition, and name persons by their claims in [[persons]]";
        find("policy".to_owned(), problem.to_owned());
    }
    if needed.iter().any(|needed| *needed > 0) && configuration.images.is_none() {
        let problem =
            "the policy asks for approvals, and they do not cover the images: name both images by their digests";
        find("images".to_owned(), problem.to_owned());
    }
    if needed.iter().any(|needed| *needed > 0) && !configuration.policies.can_approve() {
        let problem = "it asks for approvals, but no permit applies to the action `approve`, so none ever counts";
        find("policy".to_owned(), problem.to_owned());
    }
}

fn check_policy(configuration: &Configuration, find: Find<'_>) {
    if !configuration.policies.can_permit() {
        find("policy".to_owned(), "there is no permit, so everything is denied".to_owned());
    }
    for tag in configuration.policies.negated_tags() {
        let problem = format!(
            "a permit asks for `{tag}` in the negative (unless, ! or !=), so it also applies to whoever lacks the claim: say which values are permitted"
        );
        find("policy".to_owned(), problem);
    }
    for warning in configuration.policies.warnings() {
        find("policy".to_owned(), warning);
    }
    let known = groups(&configuration.roots);
    for group in configuration.policies.groups().iter().filter(|group| !known.contains(group.as_str())) {
        find(
            "policy".to_owned(),
            format!("no signer is in the group `{group}`, so a condition on this group is never true"),
        );
    }
}

fn check_signers(configuration: &Configuration, find: Find<'_>) {
    for (at, signer) in configuration.roots.signers().iter().enumerate() {
        let may_deploy = !signer.ci_accounts.is_empty() || !configuration.fixed_queues.is_empty();
        if !may_deploy && signer.kind.person().is_none() {
            let problem = format!(
                "`{}` has no `ci_accounts`, so it can never deploy; if it is there to approve, it needs `kind = \"person\"`",
                signer.name
            );
            find(format!("signers[{at}]"), problem);
        }
    }
}

/// Claims that are names, which another can take over, with the ids to use instead.
const NAMES: [(&str, &str); 5] = [
    ("repository", "repository_id"),
    ("repository_owner", "repository_owner_id"),
    ("actor", "actor_id"),
    ("organization_slug", "organization_id"),
    ("pipeline_slug", "pipeline_id"),
];

/// What every issuer's tokens claim.
const REGISTERED: [&str; 7] = ["aud", "exp", "iat", "iss", "jti", "nbf", "sub"];

/// What GitHub's and Buildkite's tokens claim beside that, by the issuer's name in a configuration
/// (docs.github.com, "OpenID Connect reference"; buildkite.com, "OIDC in Buildkite Pipelines").
const CLAIMS: [(&str, &[&str]); 2] = [
    (
        "github",
        &[
            "actor",
            "actor_id",
            "base_ref",
            "check_run_id",
            "enterprise",
            "enterprise_id",
            "environment",
            "environment_node_id",
            "event_name",
            "head_ref",
            "job_workflow_ref",
            "job_workflow_sha",
            "ref",
            "ref_protected",
            "ref_type",
            "repository",
            "repository_id",
            "repository_owner",
            "repository_owner_id",
            "repository_visibility",
            "run_attempt",
            "run_id",
            "run_number",
            "runner_environment",
            "sha",
            "workflow",
            "workflow_ref",
            "workflow_sha",
        ],
    ),
    (
        "buildkite",
        &[
            "agent_id",
            "build_branch",
            "build_commit",
            "build_number",
            "build_source",
            "build_tag",
            "cluster_id",
            "cluster_name",
            "job_id",
            "organization_id",
            "organization_slug",
            "pipeline_id",
            "pipeline_slug",
            "queue_id",
            "queue_key",
            "runner_environment",
            "step_key",
        ],
    ),
];

/// Checks the claims that entries demand and that policies ask for.
fn check_claims(configuration: &Configuration, find: Find<'_>) {
    let mut issuers = BTreeSet::new();
    for (at, signer) in configuration.roots.signers().iter().enumerate() {
        let Proof::Token(rule) = &signer.proof else { continue };
        issuers.insert(rule.issuer.name.as_str());
        for pointer in rule.claims.keys() {
            if let Some(problem) = doubtful(&rule.issuer.name, pointer.trim_start_matches('/')) {
                find(format!("signers[{at}]"), problem);
            }
        }
    }
    for tag in configuration.policies.tags() {
        let problem = match tag.split_once('/') {
            Some((issuer, claim)) if issuers.contains(issuer) => doubtful(issuer, claim),
            _ => Some(format!("no signer has the tag `{tag}`: a tag is <issuer>/<claim> of a signer's issuer")),
        };
        if let Some(problem) = problem {
            find("policy".to_owned(), problem);
        }
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

/// The reason to doubt a claim of this issuer, if there is one.
fn doubtful(issuer: &str, claim: &str) -> Option<String> {
    if let Some((_, id)) = NAMES.iter().find(|(name, _)| *name == claim) {
        return Some(format!("`{claim}` is a name, which somebody else can take over: use `{id}`"));
    }
    let (_, given) = CLAIMS.iter().find(|(name, _)| *name == issuer)?;
    let is_given = given.contains(&claim) || REGISTERED.contains(&claim) || claim.starts_with("repo_property_");
    (!is_given).then(|| format!("the tokens of {issuer} have no claim `{claim}`, so a condition on it is never true"))
}

/// An identity that is two persons could approve twice, so it counts for neither.
fn check_persons(configuration: &Configuration, find: Find<'_>) {
    let rules: Vec<(usize, &TrustedSigner, &TokenRule)> = configuration
        .roots
        .signers()
        .iter()
        .enumerate()
        .filter_map(|(at, signer)| match &signer.proof {
            Proof::Token(rule) if signer.kind.person().is_some() => Some((at, signer, rule)),
            Proof::Token(_) | Proof::Key { .. } => None,
        })
        .collect();
    let names: BTreeSet<&str> =
        configuration.roots.signers().iter().filter_map(|signer| signer.kind.person()).collect();
    for name in configuration.persons.names().filter(|name| !names.is_empty() && !names.contains(name)) {
        let problem = format!(
            "no signer is the person `{name}`, so this entry keeps nobody from approving; persons are {}",
            list(&names)
        );
        find("persons".to_owned(), problem);
    }
    for (index, (at, signer, rule)) in rules.iter().enumerate() {
        for (_, other, other_rule) in rules.iter().take(index) {
            let overlap = rule.issuer == other_rule.issuer
                && rule.claims.iter().all(|(pointer, values)| {
                    other_rule.claims.get(pointer).is_none_or(|others| !values.is_disjoint(others))
                });
            if overlap && signer.kind != other.kind {
                let problem = format!(
                    "one token can fit `{}` and `{}`, which are two persons; then its approval counts for neither",
                    other.name, signer.name
                );
                find(format!("signers[{at}]"), problem);
            }
        }
        for (pointer, values) in &rule.claims {
            let tag = format!("{}{pointer}", rule.issuer.name);
            let other = values.iter().find_map(|value| configuration.persons.of(&tag, value));
            if let Some(other) = other.filter(|other| Some(*other) != signer.kind.person()) {
                let problem =
                    format!("`{}` is another person than [[persons]] says of these claims, {other}", signer.name);
                find(format!("signers[{at}]"), problem);
            }
        }
    }
}
