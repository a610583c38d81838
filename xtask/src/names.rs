//! Tests and rules that a document names exist: a practice or a threat that points to a test which
//! was renamed is a promise without proof.

use std::collections::BTreeSet;

use crate::tree::Tree;

/// The documents that name tests.
const DOCUMENTS: &[&str] = &["docs/practices.md", "docs/reliability.md", "docs/threat-model.md"];

/// A name of at least this many words is that of a test or of a rule, and of nothing else.
const WORDS: usize = 4;

/// The findings: one for each name that no function and no rule has.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let known = known(tree);
    let documents = tree.under(&["docs/"], ".md").filter(|(path, _)| DOCUMENTS.contains(path));
    let named = documents.flat_map(|(path, text)| names(text).map(move |(at, name)| (path, at, name)));
    named
        .filter(|(_, _, name)| !known.contains(name))
        .map(|(path, at, name)| format!("{path}:{at}: there is no test and no rule `{name}`"))
        .collect()
}

/// The names of all functions and rules.
fn known(tree: &Tree) -> BTreeSet<&str> {
    let code = [".rs", ".guard"].into_iter().flat_map(|end| {
        let texts = tree.texts.iter().filter(move |(path, _)| path.ends_with(end));
        texts.flat_map(|(_, text)| text.lines())
    });
    code.filter_map(|line| {
        let (_, rest) = line.split_once("fn ").or_else(|| line.split_once("rule "))?;
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
