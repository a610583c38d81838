//! Every command that the documents name exists in the programs.

use std::collections::BTreeSet;
use std::path::Path;

use relay_tests::kit::sandbox::command;

const DOCUMENTS: &[&str] = &["README.md", "CONTRIBUTING.md", "docs/operations.md"];

/// The programs, by the name that they are called with.
const PROGRAMS: &[&str] = &["relay", "relay-admin", "relay-sandbox"];

#[test]
fn every_command_in_a_document_has_a_help() {
    let mut wrong = Vec::new();
    let mut asked = BTreeSet::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document)).unwrap();
        for (at, line) in code(&text) {
            for (program, words) in named(&line) {
                if asked.insert((program, words.clone())) {
                    let help = command(program).args(&words).arg("--help").output().unwrap();
                    if !help.status.success() {
                        wrong.push(format!("{document}:{at}: there is no `{program} {}`", words.join(" ")));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked.len() > 20, "commands are found: {asked:?}");
}

/// The lines of code blocks without their comments, and inline code, each with its line number.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push((at + 1, line.split(" #").next().unwrap_or_default().to_owned()));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(|code| (at + 1, code.to_owned())));
        }
    }
    found
}

/// The programs that a line calls, each with its subcommands. A call is at the start of the line,
/// or after a variable, a prompt, `--`, `exec`, `&&`, `||`, `|` or `;`.
fn named(line: &str) -> Vec<(&'static str, Vec<String>)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut found = Vec::new();
    let mut starts = true;
    for (at, word) in words.iter().enumerate() {
        let called = if starts { PROGRAMS.iter().find(|program| *program == word).copied() } else { None };
        if let Some(program) = called {
            found.push((program, subcommands(&words[at + 1..])));
        } else if starts && words[at..].starts_with(&["cargo", "xtask"]) {
            found.push(("xtask", subcommands(&words[at + 2..])));
        }
        let assignment = starts && word.contains('=') && !word.starts_with('-');
        starts = assignment || matches!(*word, "$" | "--" | "&&" | "||" | "|" | ";" | "exec");
    }
    found
}

/// The first word, and the second if the first has subcommands of its own.
fn subcommands(words: &[&str]) -> Vec<String> {
    let is_name = |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let count = match words.first() {
        Some(&("target" | "lock")) => 2,
        _ => 1,
    };
    words.iter().take(count).take_while(is_name).map(|word| (*word).to_owned()).collect()
}

#[test]
fn commands_are_found_in_lines() {
    let of = |line: &str| {
        named(line).into_iter().map(|(program, words)| format!("{program} {}", words.join(" "))).collect::<Vec<_>>()
    };
    assert_eq!(of("$ A=1 relay-sandbox exec -- relay deploy demo/hello"), ["relay-sandbox exec", "relay deploy"]);
    assert_eq!(
        of("relay-admin target render t.toml && cargo xtask ci --quick"),
        ["relay-admin target render", "xtask ci"]
    );
    assert_eq!(of("the relay deploy"), [""; 0]);
}
