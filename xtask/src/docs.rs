//! `docs`: checks that documents, code, vectors and tests agree. Prints one line for each finding.

use std::io::{self, Write as _};

use crate::tree::Tree;
use crate::{Outcome, clauses, columns, links, names};

/// Runs all checks, and prints every finding before it fails.
pub(crate) fn check() -> Outcome {
    let tree = Tree::load()?;
    let mut findings = clauses::check(&tree)?;
    findings.extend(links::check(&tree));
    findings.extend(columns::check(&tree));
    findings.extend(names::check(&tree));
    let mut out = io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    writeln!(out, "docs: {} findings", findings.len())?;
    if findings.is_empty() { Ok(()) } else { Err(format!("docs: {} findings", findings.len()).into()) }
}
