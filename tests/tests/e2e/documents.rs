//! Checks that every command in the documents exists, and that every block of commands runs.
//!
//! A block that starts with three backticks and `sh` is run; all blocks of a document share one
//! folder. A block marked `sh aws` needs AWS, and one marked `sh lane` is a CI lane or part of one;
//! neither is run. A block with a file name, such as `toml shop.toml`, is written to that file.

use std::collections::BTreeSet;
use std::path::Path;

use relay_tests::kit::sandbox::{bin_dir, clean, command};

const DOCUMENTS: &[&str] = &["README.md", "CONTRIBUTING.md", "docs/ci.md", "docs/operations.md"];

/// The programs' names, as typed on the command line.
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
                        wrong.push(format!("{document}:{at}: `{program} {}` does not exist", words.join(" ")));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked.len() > 20, "commands are found: {asked:?}");
}

/// Inline code, and the lines of code blocks without their comments; each with its line number.
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

/// A code block of a document.
#[derive(Debug, PartialEq)]
struct Block {
    /// The line of the document on which the block starts.
    at: usize,
    language: String,
    /// The rest of the line: a mark, or the name of a file.
    mark: String,
    text: String,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut in_block = false;
    for (line, at) in text.lines().zip(1..) {
        match line.strip_prefix("```") {
            Some(_) if in_block => in_block = false,
            Some(head) => {
                in_block = true;
                let (language, mark) = head.split_once(' ').unwrap_or((head, ""));
                found.push(Block { at, language: language.to_owned(), mark: mark.to_owned(), text: String::new() });
            }
            None if in_block => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => {}
        }
    }
    found
}

/// Runs a block as if a reader had pasted it into a shell, but stops at the first failure.
fn run(block: &Block, folder: &Path) -> Result<(), String> {
    let mut shell = clean(std::process::Command::new("sh"));
    let own = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(bin_dir()).chain(std::env::split_paths(&own))).unwrap();
    let output = shell.args(["-euc", &block.text]).current_dir(folder).env("PATH", path).output().unwrap();
    let said = || [output.stdout.as_slice(), output.stderr.as_slice()].map(String::from_utf8_lossy).concat();
    output.status.success().then_some(()).ok_or_else(|| format!("line {}: {}\n{}", block.at, output.status, said()))
}

#[test]
fn every_block_of_commands_runs_or_says_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let documents = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "infra/README.md"].map(|name| root.join(name));
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let (mut wrong, mut ran) = (Vec::new(), 0);
    for document in documents.into_iter().chain(docs) {
        let folder = tempfile::tempdir().unwrap();
        for block in blocks(&std::fs::read_to_string(&document).unwrap()) {
            let is_cargo = |line: &str| line.split_whitespace().any(|word| word == "cargo") || line.trim().is_empty();
            let result = match (block.language.as_str(), block.mark.as_str()) {
                ("sh", "") => {
                    ran += 1;
                    run(&block, folder.path())
                }
                // The test `a_second_person_approves_what_the_launcher_has_verified` does the same.
                ("sh", "aws" | "by-hand") => Ok(()),
                ("sh", "lane") if block.text.lines().all(is_cargo) => Ok(()),
                ("sh", mark) => Err(format!("line {}: a block cannot be marked `{mark}`", block.at)),
                ("cedar", _) => relay_policy::Policies::parse(&block.text, &std::collections::BTreeMap::new())
                    .map(drop)
                    .map_err(|error| format!("line {}: {error}", block.at)),
                ("toml", file) if !file.is_empty() => {
                    std::fs::write(folder.path().join(file), &block.text).map_err(|error| error.to_string())
                }
                _ => Ok(()),
            };
            wrong.extend(result.err().map(|error| format!("{}: {error}", document.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran >= 3, "blocks are found: {ran}");
}

#[test]
fn blocks_are_found_with_their_marks() {
    let block = |at, language: &str, mark: &str, text: &str| Block {
        at,
        language: language.to_owned(),
        mark: mark.to_owned(),
        text: text.to_owned(),
    };
    let found = blocks("a\n```sh aws\none\ntwo\n```\n```\nx\n```\n");
    assert_eq!(found, [block(2, "sh", "aws", "one\ntwo\n"), block(6, "", "", "x\n")]);
    let folder = tempfile::tempdir().unwrap();
    assert!(run(&block(1, "sh", "", "false\ntrue"), folder.path()).is_err());
    assert!(run(&block(1, "sh", "", "relay --version"), folder.path()).is_ok());
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
