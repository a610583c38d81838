//! The clauses of `docs/protocol.md` and their citations: a vector or a test cites every MUST, and
//! every cited clause exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

const DOCUMENT: &str = "docs/protocol.md";
/// The first part of every mark.
const FAMILIES: &[&str] = &[
    "ENC", "TIM", "NAM", "HNT", "BUN", "ENV", "SIG", "REQ", "DRY", "APP", "CTL", "LAU", "CLM", "LCK", "RUN", "ART",
    "VCH", "FRM", "OUT", "REC", "EVD", "ARC", "LIM", "VER", "KEY", "LED",
];

/// The findings.
pub(crate) fn check(tree: &Tree) -> Result<Vec<String>, String> {
    let (clauses, mut findings) = clauses(tree.text(DOCUMENT)?);
    let tested = tested(tree, &mut findings);
    for (mark, _) in clauses.iter().filter(|(mark, must)| **must && !tested.contains(*mark)) {
        findings.push(format!("{DOCUMENT}: {mark} has a MUST, and no vector or test cites it"));
    }
    let citing = ["crates/", "tests/", "vectors/", "docs/practices", "docs/reliability", "docs/threat-model"];
    for (path, text) in tree.under(&citing, "") {
        for (at, line) in text.lines().enumerate() {
            for mark in marks(line).into_iter().filter(|mark| !clauses.contains_key(mark)) {
                findings.push(format!("{path}:{}: {mark} is not in {DOCUMENT}", at + 1));
            }
        }
    }
    Ok(findings)
}

/// The clauses, and whether each has a MUST. Each begins with its mark in bold at the start of a
/// line, and ends at the next clause or heading. A row of a table may begin with a mark too, and
/// has to be tested in any case.
fn clauses(document: &str) -> (BTreeMap<String, bool>, Vec<String>) {
    let mut found: BTreeMap<String, bool> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut current = None;
    for line in document.lines() {
        let row = line.strip_prefix("| ");
        if let Some((mark, _)) = row.unwrap_or(line).strip_prefix("**").and_then(|rest| rest.split_once("**")) {
            if marks(mark) == [mark] {
                if found.insert(mark.to_owned(), row.is_some()).is_some() {
                    findings.push(format!("{DOCUMENT}: {mark} is defined twice"));
                }
                current = row.is_none().then(|| mark.to_owned());
            }
        } else if line.starts_with('#') {
            current = None;
        }
        if let Some(must) = current.as_ref().and_then(|mark| found.get_mut(mark)) {
            *must |= line.contains("MUST");
        }
    }
    (found, findings)
}

/// The marks in a line, such as `ENV-4`.
pub(crate) fn marks(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| {
            word.split_once('-').is_some_and(|(family, number)| {
                FAMILIES.contains(&family) && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
            })
        })
        .map(str::to_owned)
        .collect()
}

/// The marks in the `clause` of vectors, and in the lines `// clause: …` of tests.
fn tested(tree: &Tree, findings: &mut Vec<String>) -> BTreeSet<String> {
    let mut tested = BTreeSet::new();
    for (path, text) in tree.under(&["vectors/"], ".json") {
        let clause = serde_json::from_str::<serde_json::Value>(text)
            .ok()
            .and_then(|vector| vector.get("clause").and_then(|clause| clause.as_str().map(marks)));
        match clause {
            Some(clause) if !clause.is_empty() => tested.extend(clause),
            _ => findings.push(format!("{path}: names no clause")),
        }
    }
    for (path, text) in tree.under(&["crates/", "tests/"], ".rs") {
        let mut in_tests = path.contains("/tests/") || path.ends_with("tests.rs");
        for line in text.lines().map(str::trim_start) {
            in_tests |= line.starts_with("#[cfg(test)]");
            let citation = line.trim_start_matches('/').trim_start().strip_prefix("clause:");
            if let Some(citation) = citation.filter(|_| in_tests && line.starts_with("//")) {
                tested.extend(marks(citation));
            }
        }
    }
    tested
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT_TEXT: &str =
        "## A\n\n**ENV-1** Readers MUST look.\n\n**ENV-2** They may.\n\n## B\nMUST is here too.\n";
    const TEST: &str = "#[cfg(test)]\nmod tests {\n    // clause: ENV-1\n    #[test]\n    fn a() {}\n}\n";

    fn tree(files: &[(&str, &str)]) -> Tree {
        let texts = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned()));
        Tree { texts: texts.chain([(DOCUMENT.to_owned(), DOCUMENT_TEXT.to_owned())]).collect(), ..Tree::default() }
    }

    #[test]
    fn a_must_wants_a_citation() {
        assert_eq!(check(&tree(&[("crates/a/src/lib.rs", TEST)])), Ok(vec![]));
        let vector = ("vectors/envelope/a.json", r#"{"clause":"ENV-1, ENV-2"}"#);
        assert_eq!(check(&tree(&[vector])), Ok(vec![]));
    }

    #[test]
    fn without_its_citation_the_check_fails() {
        let uncited = TEST.replace("// clause: ENV-1", "");
        let findings = check(&tree(&[("crates/a/src/lib.rs", &uncited)])).unwrap();
        assert_eq!(findings, ["docs/protocol.md: ENV-1 has a MUST, and no vector or test cites it"]);
        // A citation outside a test, or in a string, does not count.
        for elsewhere in ["// clause: ENV-1\nfn a() {}\n", "#[cfg(test)]\nconst A: &str = \"clause: ENV-1\";\n"] {
            assert_eq!(check(&tree(&[("crates/a/src/lib.rs", elsewhere)])).unwrap().len(), 1, "{elsewhere}");
        }
    }

    #[test]
    fn what_is_cited_exists() {
        let findings = check(&tree(&[("crates/a/src/lib.rs", &format!("/// Clause ENV-9.\n{TEST}"))])).unwrap();
        assert_eq!(findings, ["crates/a/src/lib.rs:1: ENV-9 is not in docs/protocol.md"]);
    }

    #[test]
    fn marks_are_whole_words() {
        assert_eq!(
            marks("(clauses ENV-4 to ENV-10, SHA-256, P-256, `RUN-5`), START-1 ENV-x"),
            ["ENV-4", "ENV-10", "RUN-5"]
        );
    }
}
