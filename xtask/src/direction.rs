//! The dependency rules of the architecture: which crate may depend on which, checked with
//! `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::Outcome;
use crate::run::{cargo_command, said};

/// The workspace crates that a crate may depend on. A crate that is not listed may depend on any
/// except [`TOPS`].
const MAY_NAME: &[(&str, &[&str])] = &[
    ("relay-protocol", &[]),
    ("relay-engine", &["relay-protocol"]),
    ("relay-policy", &["relay-protocol"]),
    ("relay-aws", &["relay-protocol"]),
    ("relay-artifact", &["relay-protocol"]),
    ("relay-console", &["relay-aws", "relay-protocol"]),
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

/// The packages that a crate must not reach, directly or indirectly. A name that ends with `-` is a
/// prefix.
const MUST_NOT_REACH: &[(&[&str], &[&str])] = &[
    (&["relay-trigger-cli"], &["cedar-policy"]),
    (
        // These are rebuilt after each change. Without the SDK that is fast.
        &["relay-protocol", "relay-engine", "relay-policy", "relay-artifact", "relay-fuzz-cases", "relay-model"],
        &["tokio", "hyper", "aws-"],
    ),
];

/// SDKs that a program does not call and must not compile when it is built alone. The graph of the
/// whole workspace cannot show this, as it unites the features of all packages.
const MUST_NOT_BUILD: &[(&str, &[&str])] = &[
    ("relay-trigger-cli", &["aws-sdk-ecs", "aws-sdk-secretsmanager", "aws-sdk-ssm"]),
    ("relay-launcher", &["aws-sdk-secretsmanager", "aws-sdk-sns", "aws-sdk-ssm"]),
    ("relay-runner", &["aws-sdk-sns"]),
];

/// The dependencies of each package by name, without development dependencies.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks the whole workspace.
pub(crate) fn check() -> Outcome {
    let mut findings = findings(&graph()?);
    for (name, forbidden) in MUST_NOT_BUILD {
        let mut tree = cargo_command();
        tree.args(["tree", "--quiet", "--package", name, "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        let built = said(&mut tree)?;
        let built: BTreeSet<&str> = built.lines().filter_map(|line| line.split(' ').next()).collect();
        let needless = forbidden.iter().filter(|sdk| built.contains(**sdk));
        findings.extend(needless.map(|sdk| format!("direction: {name} compiles {sdk}, and does not call it")));
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n       ").into()) }
}

fn graph() -> Result<Graph, Box<dyn std::error::Error>> {
    let metadata = MetadataCommand::new()
        .manifest_path(crate::tree::root().join("Cargo.toml"))
        // The shipped programs run on Linux, so skip the download of packages for other platforms.
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
    for (names, forbidden) in MUST_NOT_REACH {
        for name in *names {
            for (reached, way) in reach(graph, name) {
                let is = |rule: &&str| *rule == reached || (rule.ends_with('-') && reached.starts_with(*rule));
                if forbidden.iter().any(is) {
                    findings.push(format!("direction: {name} must not reach {reached} ({way})"));
                }
            }
        }
    }
    findings
}

/// Every package that `name` reaches, with the shortest path to it.
fn reach(graph: &Graph, name: &str) -> BTreeMap<String, String> {
    let mut ways = BTreeMap::from([(name.to_owned(), name.to_owned())]);
    let mut front = vec![name.to_owned()];
    while !front.is_empty() {
        let mut next = Vec::new();
        for at in front {
            for dependency in graph.get(&at).into_iter().flatten() {
                if !ways.contains_key(dependency) {
                    let way = format!("{} → {dependency}", ways.get(&at).map_or("", String::as_str));
                    ways.insert(dependency.clone(), way);
                    next.push(dependency.clone());
                }
            }
        }
        front = next;
    }
    ways
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
    fn upward_and_forbidden_edges_are_found() {
        assert_eq!(findings(&graph(&[("relay-policy", &["serde"]), ("relay-trigger-cli", &["relay-aws"])])), [""; 0]);
        assert_eq!(
            findings(&graph(&[
                ("relay-protocol", &["relay-engine", "aws-config"]),
                ("relay-trigger-cli", &["relay-policy"]),
                ("relay-policy", &["cedar-policy"]),
                ("relay-admin", &["relay-sandbox"]),
            ])),
            [
                "direction: relay-admin must not depend on relay-sandbox",
                "direction: relay-protocol must not depend on relay-engine",
                "direction: relay-trigger-cli must not reach cedar-policy (relay-trigger-cli → relay-policy → cedar-policy)",
                "direction: relay-protocol must not reach aws-config (relay-protocol → aws-config)",
            ]
        );
    }
}
