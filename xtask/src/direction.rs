//! Which crate may depend on which, from `cargo metadata`: the rules of the architecture, held by a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::Outcome;
use crate::run::said;

/// The workspace's crates that a crate may name. One that is not listed may name any but what nothing may.
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

/// Crates on top: programs. Nothing but the tests may name them.
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

/// What may name a program.
const ABOVE_TOPS: &[&str] = &["relay-tests"];

/// What a crate must not reach, by whatever way: a name, or a prefix that ends with `-`.
const MUST_NOT_REACH: &[(&[&str], &[&str])] = &[
    (&["relay-trigger-cli"], &["cedar-policy"]),
    (
        // What is fuzzed is built anew with each change: without the SDK it is soon done.
        &["relay-protocol", "relay-engine", "relay-policy", "relay-artifact", "relay-fuzz-cases", "relay-model"],
        &["tokio", "hyper", "aws-"],
    ),
];

/// SDKs that a program does not call, and so does not compile when it is built by itself. The graph of the whole workspace cannot tell, as it
/// unites the features of all.
const MUST_NOT_BUILD: &[(&str, &[&str])] = &[
    ("relay-trigger-cli", &["aws-sdk-ecs", "aws-sdk-secretsmanager", "aws-sdk-ssm"]),
    ("relay-launcher", &["aws-sdk-secretsmanager", "aws-sdk-sns", "aws-sdk-ssm"]),
    ("relay-runner", &["aws-sdk-sns"]),
];

/// Names by name: what each package depends on, development excepted.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks the whole workspace.
pub(crate) fn check() -> Outcome {
    let mut findings = findings(&graph()?);
    for (name, forbidden) in MUST_NOT_BUILD {
        let mut tree = Command::new("cargo");
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
        // What is shipped runs on Linux; other platforms need not be downloaded to know the direction.
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

/// Everything that `name` reaches, each with the shortest way there.
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
