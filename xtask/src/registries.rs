//! The tables of `docs/protocol.md` that repeat the code: reasons with their exit codes, and limits with their values.

use std::collections::BTreeMap;

use crate::tree::Tree;

const DOCUMENT: &str = "docs/protocol.md";
const OUTCOMES: &str = "crates/protocol/src/outcome.rs";
const LIMITS: &str = "crates/protocol/src/limits.rs";

/// The findings.
pub(crate) fn check(tree: &Tree) -> Result<Vec<String>, String> {
    let document = tree.text(DOCUMENT)?;
    let mut findings = compare(OUTCOMES, &reasons(tree.text(OUTCOMES)?), &table(document, "**OUT-2**"));
    findings.extend(compare(LIMITS, &limits(tree.text(LIMITS)?), &table(document, "## 19. Limits")));
    Ok(findings)
}

fn compare(path: &str, code: &BTreeMap<String, String>, document: &BTreeMap<String, String>) -> Vec<String> {
    let mut findings = Vec::new();
    if code.is_empty() {
        findings.push(format!("{path}: nothing was found that could be compared"));
    }
    for (name, value) in code {
        match document.get(name) {
            None => findings.push(format!("{DOCUMENT}: `{name}` of {path} is not in its table")),
            Some(said) if said != value => {
                findings.push(format!("{DOCUMENT}: `{name}` is {said}, in {path} it is {value}"));
            }
            Some(_) => {}
        }
    }
    findings.extend(
        document
            .keys()
            .filter(|name| !code.contains_key(*name))
            .map(|name| format!("{DOCUMENT}: `{name}` is in its table and not in {path}")),
    );
    findings
}

/// The first table after `anchor`: the name in backticks, and the second column.
fn table(document: &str, anchor: &str) -> BTreeMap<String, String> {
    let after = document.split_once(anchor).map_or("", |(_, after)| after);
    after
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let mut cells = line.trim_matches('|').split('|').map(str::trim);
            let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), cells.next()?.to_owned()))
        })
        .collect()
}

/// The reason codes with their exit codes: lines `Variant = "code", Exit, …` and `Exit = 120,`.
fn reasons(source: &str) -> BTreeMap<String, String> {
    let lines = || source.lines().filter_map(|line| line.trim().split_once(" = "));
    let exits: BTreeMap<&str, &str> = lines()
        .filter_map(|(name, value)| Some((name, value.strip_suffix(',')?)))
        .filter(|(_, value)| value.bytes().all(|b| b.is_ascii_digit()))
        .collect();
    lines()
        .filter_map(|(_, value)| {
            let (code, rest) = value.strip_prefix('"')?.split_once("\", ")?;
            let (exit, _) = rest.split_once(',')?;
            Some((code.to_owned(), (*exits.get(exit)?).to_owned()))
        })
        .collect()
}

/// The constants with their values, products worked out.
fn limits(source: &str) -> BTreeMap<String, String> {
    source
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("pub const ")?.split_once(':')?;
            let (_, value) = rest.split_once(" = ")?;
            let value = value.split(';').next()?;
            let mut product = value.split('*').map(|factor| factor.trim().replace('_', "").parse::<u64>().ok());
            let product = product.try_fold(1_u64, |product, factor| product.checked_mul(factor?));
            Some((name.to_owned(), product.map_or_else(|| value.to_owned(), |product| product.to_string())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_code_are_compared_both_ways() {
        let code = limits("/// A.\npub const A: i64 = 15 * 60;\npub const B: usize = 8_192;\n");
        let document =
            table("x ## 19. Limits\n\n| c | v |\n|---|---|\n| `A` | 900 | why |\n| `C` | 1 | why |\n", "## 19. Limits");
        assert_eq!(
            compare("limits.rs", &code, &document),
            [
                "docs/protocol.md: `B` of limits.rs is not in its table",
                "docs/protocol.md: `C` is in its table and not in limits.rs"
            ]
        );
        let reasons = reasons("    Refused = 120,\n    Policy = \"policy\", Refused, \"words\", \"hint\";\n");
        assert_eq!(reasons, BTreeMap::from([("policy".to_owned(), "120".to_owned())]));
    }
}
