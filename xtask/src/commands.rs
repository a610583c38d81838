//! The commands that README.md names: each is one of the binaries' own.

use crate::tree::Tree;

/// A binary and the folder of its crate.
const BINARIES: &[(&str, &str)] = &[
    ("relay", "crates/trigger-cli/src/"),
    ("relay-admin", "crates/admin/src/"),
    ("relay-runner", "crates/deploy-runner/src/"),
    ("relay-sandbox", "crates/sandbox/src/"),
];

/// The findings.
pub(crate) fn check(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    let Some(readme) = tree.texts.get("README.md") else { return findings };
    for (at, words) in code(readme) {
        for (binary, command) in named(&words) {
            if !exists(tree, binary, command) {
                findings.push(format!("README.md:{at}: there is no `{binary} {command}`"));
            }
        }
    }
    findings
}

/// Lines of code blocks, and inline code, as words.
fn code(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (at, line) in text.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        if in_block && !fence {
            let line = line.split(" #").next().unwrap_or_default();
            found.push((at + 1, line.split_whitespace().collect()));
        } else if !fence {
            found.extend(line.split('`').skip(1).step_by(2).map(|code| (at + 1, code.split_whitespace().collect())));
        }
    }
    found
}

/// The commands in a line: at its start, behind a prompt, behind `--`, and behind `&&`, `|` or `;`.
fn named<'a>(words: &[&'a str]) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    let mut starts = true;
    for (at, word) in words.iter().enumerate() {
        let next =
            |n: usize| words.get(at + n).copied().filter(|next| next.starts_with(|c: char| c.is_ascii_lowercase()));
        if starts {
            match (*word, next(1)) {
                ("cargo", Some("xtask")) => found.extend(next(2).map(|command| ("cargo xtask", command))),
                (binary, Some(command)) if BINARIES.iter().any(|(known, _)| *known == binary) => {
                    found.push((binary, command));
                }
                _ => {}
            }
        }
        // A variable set in front leaves the command still to come.
        let assignment = starts && word.contains('=') && !word.starts_with('-');
        starts = assignment || matches!(*word, "$" | "--" | "&&" | "||" | "|" | ";" | "exec");
    }
    found
}

/// Whether the crate of `binary` has a subcommand of that name: a variant of a clap enum, or a string.
fn exists(tree: &Tree, binary: &str, command: &str) -> bool {
    if binary == "cargo xtask" {
        return crate::COMMANDS.iter().any(|(name, _)| *name == command);
    }
    let variant: String = command
        .split('-')
        .map(|part| {
            part.chars().take(1).map(|c| c.to_ascii_uppercase()).chain(part.chars().skip(1)).collect::<String>()
        })
        .collect();
    let Some((_, folder)) = BINARIES.iter().find(|(known, _)| *known == binary) else { return false };
    tree.under(&[folder], ".rs").any(|(_, text)| {
        let is_variant = |line: &str| {
            line.trim_start().strip_prefix(&variant).is_some_and(|rest| rest.starts_with(['(', ',', ' ', '{']))
        };
        (text.contains("Subcommand") && text.lines().any(is_variant)) || text.contains(&format!("\"{command}\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_exist_or_are_found_missing() {
        let readme = "Run `relay deploy` or `relay fly`.\n```sh\n$ cargo xtask ci --quick\nA=1 relay-sandbox exec -- relay status # now\ncargo xtask dance\n```\n";
        let cli = "#[derive(clap::Subcommand)]\nenum Command {\n    Deploy(Deploy),\n    Status,\n}\n";
        let sandbox = "match argument { \"exec\" => 1 }";
        let texts =
            [("README.md", readme), ("crates/trigger-cli/src/cli.rs", cli), ("crates/sandbox/src/cli.rs", sandbox)];
        let texts = texts.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        assert_eq!(
            check(&Tree { texts, ..Tree::default() }),
            ["README.md:1: there is no `relay fly`", "README.md:5: there is no `cargo xtask dance`"]
        );
    }
}
