//! The dependency rules of the architecture: which crate may depend on which, checked with
//! `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::Outcome;
use crate::run::{cargo_command, said};
use crate::tree::Tree;

/// The workspace crates that a crate may depend on. A crate that is not listed may depend on any
/// except [`TOPS`].
const MAY_NAME: &[(&str, &[&str])] = &[
    ("relay-protocol", &[]),
    ("relay-engine", &["relay-protocol"]),
    ("relay-policy", &["relay-protocol"]),
    ("relay-aws", &["relay-protocol"]),
    ("relay-platform", &[]),
    ("relay-artifact", &["relay-platform", "relay-protocol"]),
    ("relay-console", &["relay-aws", "relay-platform", "relay-protocol"]),
    ("relay-model", &["relay-engine", "relay-protocol"]),
    ("relay-fuzz-cases", &["relay-artifact", "relay-engine", "relay-policy", "relay-protocol"]),
];

/// The crates at the top: programs. Only the tests may depend on them.
const TOPS: &[&str] = &[
    "relay-trigger-cli",
    "relay-admin",
    "relay-launcher",
    "relay-runner",
    "relay-sandbox",
    "relay-model",
    "relay-fuzz-cases",
    "relay-tests",
    "xtask",
];

/// The crates that may depend on a program.
const ABOVE_TOPS: &[&str] = &["relay-tests"];

/// The packages that a crate must not compile, directly or indirectly, when it is built alone. A
/// name that ends with `-` is a prefix. The graph of the whole workspace cannot show this, as it
/// unites the features of all packages.
const MUST_NOT_BUILD: &[(&[&str], &[&str])] = &[
    (&["relay-trigger-cli"], &["cedar-policy", "aws-sdk-ecs", "aws-sdk-secretsmanager", "aws-sdk-ssm"]),
    (&["relay-launcher"], &["aws-sdk-secretsmanager", "aws-sdk-sns", "aws-sdk-ssm"]),
    (&["relay-runner"], &["aws-sdk-sns"]),
    (
        // These are rebuilt after each change. Without the SDK that is fast.
        &["relay-protocol", "relay-engine", "relay-policy", "relay-artifact", "relay-fuzz-cases", "relay-model"],
        &["tokio", "hyper", "aws-"],
    ),
];

/// What only `relay-platform` may name, of the crates of `relay`, which runs on every system: these
/// modules, and conditions with these words.
const OF_ONE_SYSTEM: &[&str] = &["os::unix", "os::fd", "os::windows", "signal::unix", "signal::windows", "rustix::"];
const CONDITIONS: &[&str] = &["unix", "windows", "target_os", "target_family"];

/// The crates of `relay`, with the files that are built for the runner alone.
const PORTABLE: &[&str] = &["trigger-cli", "console", "artifact", "aws", "engine", "protocol"];
const OF_THE_RUNNER: &str = "crates/artifact/src/unpack.rs";

/// The dependencies of each package by name, without development dependencies.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks the whole workspace.
pub(crate) fn check() -> Outcome {
    let mut findings = findings(&graph()?);
    for (names, forbidden) in MUST_NOT_BUILD {
        for name in *names {
            let mut tree = cargo_command();
            tree.args(["tree", "--quiet", "--package", name, "--edges", "normal,build", "--prefix", "none"]);
            let built = said(tree.args(["--format", "{p}"]))?;
            let built: BTreeSet<&str> = built.lines().filter_map(|line| line.split(' ').next()).collect();
            let finding = |found| {
                format!("direction: {name} must not build {found}; why it does: cargo tree -p {name} -i {found}")
            };
            findings.extend(needless(&built, forbidden).map(finding));
        }
    }
    let tree = Tree::load()?;
    for name in PORTABLE {
        let folder = format!("crates/{name}/src/");
        for (path, text) in tree.under(&[&folder], ".rs").filter(|(path, _)| *path != OF_THE_RUNNER) {
            findings.extend(of_one_system(text).map(|line| format!("direction: {path} is for one system: {line}")));
        }
        let manifest = format!("crates/{name}/Cargo.toml");
        if tree.text(&manifest)?.contains("\n[target.") {
            findings.push(format!("direction: {manifest} has dependencies for one system"));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n       ").into()) }
}

/// The packages that are built although a rule forbids them.
fn needless<'a>(built: &BTreeSet<&'a str>, forbidden: &[&str]) -> impl Iterator<Item = &'a str> {
    let is = |name: &str, rule: &str| rule == name || (rule.ends_with('-') && name.starts_with(rule));
    built.iter().copied().filter(move |name| forbidden.iter().any(|rule| is(name, rule)))
}

/// The lines of a source that are for one system, before its tests, which run on Linux.
fn of_one_system(source: &str) -> impl Iterator<Item = &str> {
    let shipped = source.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let names = |line: &str, words: &[&str]| words.iter().any(|word| line.contains(word));
    shipped
        .lines()
        .map(str::trim)
        .filter(move |line| names(line, OF_ONE_SYSTEM) || (line.contains("cfg") && names(line, CONDITIONS)))
}

fn graph() -> Result<Graph, Box<dyn std::error::Error>> {
    let metadata = MetadataCommand::new()
        .manifest_path(crate::tree::root().join("Cargo.toml"))
        // Packages for other systems need no download for this.
        .other_options(["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()])
        .exec()?;
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.to_string())).collect();
    let resolve = metadata.resolve.as_ref().ok_or("cargo metadata did not resolve the dependencies")?;
    let mut graph = Graph::new();
    for node in &resolve.nodes {
        let Some(name) = names.get(&node.id) else { continue };
        let wanted = |kind: DependencyKind| kind != DependencyKind::Development;
        let shipped = node.deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| wanted(kind.kind)));
        graph.entry(name.clone()).or_default().extend(shipped.filter_map(|dep| names.get(&dep.pkg).cloned()));
    }
    Ok(graph)
}

fn findings(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, dependencies) in graph.iter().filter(|(name, _)| name.starts_with("relay-") || *name == "xtask") {
        let own = dependencies.iter().filter(|dependency| dependency.starts_with("relay-") || *dependency == "xtask");
        for dependency in own {
            let listed = MAY_NAME.iter().find(|(known, _)| known == name);
            let allowed = match listed {
                Some((_, allowed)) => allowed.contains(&dependency.as_str()),
                None => !TOPS.contains(&dependency.as_str()) || ABOVE_TOPS.contains(&name.as_str()),
            };
            if !allowed {
                findings.push(format!("direction: {name} must not depend on {dependency}"));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Graph {
        edges.iter().map(|(name, to)| ((*name).to_owned(), to.iter().map(|t| (*t).to_owned()).collect())).collect()
    }

    #[test]
    fn the_workspace_keeps_to_the_direction() {
        check().unwrap();
    }

    #[test]
    fn upward_edges_are_found() {
        assert_eq!(findings(&graph(&[("relay-policy", &["serde"]), ("relay-trigger-cli", &["relay-aws"])])), [""; 0]);
        assert_eq!(
            findings(&graph(&[
                ("relay-protocol", &["relay-engine", "aws-config"]),
                ("relay-admin", &["relay-sandbox"])
            ])),
            [
                "direction: relay-admin must not depend on relay-sandbox",
                "direction: relay-protocol must not depend on relay-engine",
            ]
        );
    }

    #[test]
    fn what_must_not_be_built_or_named_is_found() {
        let built = BTreeSet::from(["aws-config", "serde", "tokio-util"]);
        assert_eq!(needless(&built, &["tokio", "aws-"]).collect::<Vec<_>>(), ["aws-config"]);
        let source = "use std::os::fd::AsFd;\nlet all = bytes.windows(2);\nif cfg!(not(windows)) {}\n#[cfg(test)]\nuse a;\n\
                      use std::{os::unix::fs};\n#[cfg(test)]\nmod tests {\nuse std::os::unix::fs::symlink;\n}";
        let found: Vec<_> = of_one_system(source).collect();
        assert_eq!(found, ["use std::os::fd::AsFd;", "if cfg!(not(windows)) {}", "use std::{os::unix::fs};"]);
        assert_eq!(of_one_system("use std::io;").count(), 0);
    }
}
