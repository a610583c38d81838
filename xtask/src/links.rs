//! Links in Markdown: every relative link resolves, including links to headings.

use crate::tree::Tree;

/// The findings: one for each link that does not resolve.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for (path, text) in tree.under(&[""], ".md") {
        for (at, target) in links(text) {
            if let Err(why) = resolve(tree, path, &target) {
                findings.push(format!("{path}:{at}: the link `{target}` {why}"));
            }
        }
    }
    findings
}

/// The targets of the links outside code, each with its line number.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (at, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        // Splitting at backticks puts inline code at every second position.
        let prose: String = line.split('`').step_by(2).collect();
        let mut rest = if in_code { "" } else { prose.as_str() };
        while let Some((_, after)) = rest.split_once("](") {
            let (target, next) = after.split_once(')').unwrap_or((after, ""));
            found.push((at + 1, target.to_owned()));
            rest = next;
        }
    }
    found
}

fn resolve(tree: &Tree, from: &str, target: &str) -> Result<(), &'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { from.to_owned() } else { join(from, path).ok_or("leads out of the repository")? };
    if !path.is_empty() && !tree.paths.contains(&path) {
        return Err("leads nowhere");
    }
    let headings =
        || tree.texts.get(&path).into_iter().flat_map(|text| text.lines().filter(|line| line.starts_with('#')));
    if anchor.is_empty() || headings().any(|heading| slug(heading) == anchor) {
        Ok(())
    } else {
        Err("names no heading")
    }
}

/// `path` relative to the folder of `from`, as a path from the root. Empty for the root itself.
fn join(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The anchor that forges generate for a heading.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_a_file_and_a_heading() {
        let text =
            "[a](../README.md) [b](#2-names) [c](other.md) [d](#x) [e](https://example.com/x) `[f](g)`\n## 2. Names\n";
        let tree = Tree {
            texts: [("docs/a.md".to_owned(), text.to_owned())].into(),
            paths: ["docs", "docs/a.md", "README.md"].map(str::to_owned).into(),
        };
        assert_eq!(
            check(&tree),
            ["docs/a.md:1: the link `other.md` leads nowhere", "docs/a.md:1: the link `#x` names no heading"]
        );
    }
}
