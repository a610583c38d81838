//! Tests and rules that a document names exist: a practice or a threat that points to a test which
//! was renamed is a promise without proof. In the documents whose tables promise a proof in every
//! row, each row names a test, a rule, a clause or a source, or says that there is none.

use std::collections::BTreeSet;

use crate::tree::Tree;

/// The documents that name tests.
const DOCUMENTS: &[&str] = &["docs/compare.md", "docs/practices.md", "docs/reliability.md", "docs/threat-model.md"];

/// The documents whose tables have a proof in the last cell of each row.
const PROVEN: &[&str] = &["docs/compare.md", "docs/practices.md"];

/// A name of at least this many words is that of a test or of a rule, and of nothing else.
const WORDS: usize = 4;

/// The findings: one for each name that no function and no rule has, and one for each row without a
/// proof.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let known = known(tree);
    let documents = tree.under(&["docs/"], ".md").filter(|(path, _)| DOCUMENTS.contains(path));
    let named = documents.flat_map(|(path, text)| names(text).map(move |(at, name)| (path, at, name)));
    let unknown = named
        .filter(|(_, _, name)| !known.contains(name))
        .map(|(path, at, name)| format!("{path}:{at}: there is no test and no rule `{name}`"));
    let proven = tree.under(&["docs/"], ".md").filter(|(path, _)| PROVEN.contains(path));
    let bare = proven.flat_map(|(path, text)| {
        bare_rows(text).into_iter().map(move |at| format!("{path}:{at}: the row names no test, rule, clause or source"))
    });
    unknown.chain(bare).collect()
}

/// The rows of tables whose last cell has neither code nor a link, nor says that there is no test.
fn bare_rows(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let is_row = |at: usize| lines.get(at).is_some_and(|line| line.starts_with('|'));
    let rows = (2..lines.len()).filter(|&at| is_row(at) && is_row(at - 1) && is_row(at - 2));
    let bare = rows.filter(|&at| {
        let last = lines.get(at).and_then(|line| line.trim_end_matches('|').rsplit('|').next()).unwrap_or_default();
        !["`", "](", "**no test**"].iter().any(|proof| last.contains(proof))
    });
    bare.map(|at| at + 1).collect()
}

/// The names of all functions and rules.
fn known(tree: &Tree) -> BTreeSet<&str> {
    let code = [".rs", ".guard", ".py"].into_iter().flat_map(|end| {
        let texts = tree.texts.iter().filter(move |(path, _)| path.ends_with(end));
        texts.flat_map(|(_, text)| text.lines())
    });
    code.filter_map(|line| {
        let (_, rest) = ["fn ", "rule ", "def "].iter().find_map(|word| line.split_once(word))?;
        rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
    })
    .collect()
}

/// The names in inline code, each with its line number. A module may stand before the name.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().enumerate().flat_map(|(at, line)| {
        let inline = line.split('`').skip(1).step_by(2);
        inline.map(move |code| (at + 1, code.rsplit("::").next().unwrap_or(code)))
    });
    code.filter(|(_, name)| {
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        name.split('_').count() >= WORDS && name.split('_').all(is_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_a_proof_is_found() {
        let head = "| a | b |\n|---|---|\n";
        let rows = "| x | `a_test` |\n| x | a promise |\n| x | [a](b) |\n| x | **no test**: why |\n";
        assert_eq!(bare_rows(&format!("text\n{head}{rows}")), [5]);
    }

    #[test]
    fn a_name_that_nothing_has_is_found() {
        let document = "| `a_test_that_exists` | `e2e::another_that_is_gone`, `short_name` | `Sid_of_a_Policy` |\n";
        let tree = Tree {
            texts: [("docs/practices.md", document), ("tests/a.rs", "    fn a_test_that_exists() {\n")]
                .map(|(path, text)| (path.to_owned(), text.to_owned()))
                .into(),
            ..Tree::default()
        };
        assert_eq!(check(&tree), ["docs/practices.md:1: there is no test and no rule `another_that_is_gone`"]);
    }
}
