//! One set of features. Programs are built with tests and without them; if a development dependency
//! asked a package for more than the programs do, cargo would compile that package, and all that
//! depend on it, twice.

use std::collections::BTreeSet;

use crate::Outcome;
use crate::run::{cargo_command, said};

/// Compares the features of every package with and without development dependencies.
pub(crate) fn check() -> Outcome {
    let (programs, tests) = (features("normal,build")?, features("normal,build,dev")?);
    let differing: Vec<String> = differing(&programs, &tests).map(ToOwned::to_owned).collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!("compiled twice, as tests ask for more features: {}", differing.join(", ")).into())
}

/// Every package of the workspace's graph with its features, one a line.
fn features(edges: &str) -> Outcome<BTreeSet<String>> {
    let mut tree = cargo_command();
    tree.args(["tree", "--quiet", "--workspace", "--edges", edges, "--prefix", "none"]);
    // A mark stands behind a package that is listed again.
    let lines = said(tree.args(["--format", "{p} with {f}"]))?;
    Ok(lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}

/// The packages of the programs that tests build with other features.
fn differing<'a>(programs: &'a BTreeSet<String>, tests: &'a BTreeSet<String>) -> impl Iterator<Item = &'a str> {
    programs.difference(tests).filter_map(|line| line.split(" with ").next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_more_features_in_tests_is_found() {
        let set = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<BTreeSet<_>>();
        let programs = set(&["tokio v1 with net", "serde v1 with std"]);
        assert_eq!(differing(&programs, &programs.clone()).count(), 0);
        let tests = set(&["tokio v1 with net,test-util", "serde v1 with std", "proptest v1 with std"]);
        assert_eq!(differing(&programs, &tests).collect::<Vec<_>>(), ["tokio v1"]);
    }
}
