//! `infra`: checks the templates in `infra/` with third-party tools (cfn-lint, cfn-guard, and
//! checkov with `--checkov`), and their permissions with `tests/tests/infra.rs`. A tool that cannot
//! be installed here is reported as skipped. Tools are kept in the user's cache, not in the target
//! folder, so each is installed once.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Outcome;
use crate::run::{cargo, cargo_command, quietly, succeed};
use crate::tree::root;
use crate::venv::{Had, environment};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const GUARD: &str = "3.2.1";
const RULES: &str = "infra/guard/relay.guard";
const RULES_TESTS: &str = "infra/guard/tests/relay.yaml";

/// The tools that check the templates.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Also run checkov, which installs half a gigabyte.
    #[arg(long)]
    checkov: bool,
}

/// Runs `infra` on its own.
pub(crate) fn check(options: &Options) -> Outcome {
    let mut skipped = Vec::new();
    lint(options.checkov, &mut skipped)?;
    // With the whole workspace: a single package would resolve other features and rebuild every
    // dependency.
    cargo(&["test", "--quiet", "--workspace", "--test", "infra"])?;
    let mut out = io::stdout().lock();
    for what in &skipped {
        writeln!(out, "skipped: {what}")?;
    }
    Ok(())
}

/// Runs the tools. Adds those that cannot run here to `skipped`.
pub(crate) fn lint(with_checkov: bool, skipped: &mut Vec<String>) -> Outcome {
    let templates = templates()?;
    let mut findings = Vec::new();
    for (path, text) in &templates {
        findings.extend(unreasoned(path, text));
    }
    let read = |path: &str| fs::read_to_string(root().join(path)).map_err(|error| format!("{path}: {error}"));
    findings.extend(untested(&read(RULES)?, &read(RULES_TESTS)?));
    let paths: Vec<&str> = templates.iter().map(|(path, _)| path.as_str()).collect();
    // Every tool runs, even after another one has failed.
    let mut ask = |name: &str, tool: Had, work: &dyn Fn(&Path) -> Outcome| match tool {
        Ok(tool) => findings.extend(work(&tool).err().map(|error| error.to_string())),
        Err(why) => skipped.push(format!("{name} ({why})")),
    };
    ask("cfn-lint", environment("infra/check/cfn-lint.txt")?, &|venv| {
        succeed(Command::new(venv.join("bin/cfn-lint")).arg("--").args(&paths))
    });
    ask("cfn-guard", guard()?, &|program| {
        quietly(Command::new(program).args(["test", "--rules-file", RULES, "--test-data", RULES_TESTS]))?;
        quietly(Command::new(program).args(["validate", "--rules", RULES, "--data"]).args(&paths))
    });
    if with_checkov {
        ask("checkov", environment("infra/check/checkov.txt")?, &|venv| checkov(venv, &templates));
    }
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n       ").into()) }
}

/// Every template under `infra/`: its path from the root, and its text.
fn templates() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("infra")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                // These hold files of the tools.
                if !["infra/check", "infra/guard"].iter().any(|tools| path == Path::new(tools)) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "yaml") {
                found.push((path.display().to_string(), fs::read_to_string(root().join(&path))?));
            }
        }
    }
    found.sort();
    if found.is_empty() { Err("infra/ has no template".into()) } else { Ok(found) }
}

/// The check that a line of a template suppresses, and the reason. A suppression stands in the
/// template, beside what it applies to, and its line gives the reason. This includes checks of
/// checkov and cfn-lint, and markers of other tools.
fn suppression(line: &str) -> Option<(&str, &str)> {
    if ["SuppressedRules", "cfn_nag"].iter().any(|other| line.contains(other)) {
        return Some((line.trim(), ""));
    }
    let is_check = |word: &&str| {
        let number = word.strip_prefix(['E', 'I', 'W']);
        word.starts_with("CKV") || number.is_some_and(|n| n.len() == 4 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let check = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(is_check)?;
    let (_, reason) = line.split_once("comment:").or_else(|| line.split_once(" # ")).unwrap_or_default();
    Some((check, reason))
}

fn unreasoned(path: &str, text: &str) -> Vec<String> {
    let bare = |(at, line)| {
        let (check, reason) = suppression(line)?;
        let words = reason.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).count();
        (words < 3).then(|| format!("{path}:{}: {check} is suppressed without a reason", at + 1))
    };
    text.lines().enumerate().filter_map(bare).collect()
}

/// Rules that lack a test template that passes, or one that fails.
fn untested(rules: &str, tests: &str) -> Vec<String> {
    let expected: BTreeSet<&str> = tests.lines().map(str::trim).collect();
    let names = rules.lines().filter_map(|line| line.strip_prefix("rule ")?.split_whitespace().next());
    let missing = names.flat_map(|name| ["PASS", "FAIL"].map(|verdict| format!("{name}: {verdict}")));
    missing
        .filter(|wanted| !expected.contains(wanted.as_str()))
        .map(|wanted| format!("{RULES_TESTS}: no test expects `{wanted}`"))
        .collect()
}

/// The path of cfn-guard in the user's cache. Builds it if it is missing.
///
/// It is not a dependency: its serde_json preserves the order of keys, and one workspace would give
/// that feature to relay's programs too.
fn guard() -> Result<Had> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache"))).ok_or("HOME is not set")?;
    let folder = cache.join(format!("relay/cfn-guard-{GUARD}"));
    let program = folder.join("bin/cfn-guard");
    if program.is_file() {
        return Ok(Ok(program));
    }
    writeln!(io::stdout(), "    building cfn-guard {GUARD} into {}; this happens once", folder.display())?;
    let mut install = cargo_command();
    install.args(["install", "--quiet", "--locked", "--debug", "--force", "cfn-guard", "--version", GUARD, "--root"]);
    // Outside the workspace, whose .cargo/config.toml must not apply.
    let output = install.arg(&folder).current_dir("/").stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(Ok(program));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Ok(Err(format!("cargo could not install it: {}", said.lines().next().unwrap_or("it gives no reason"))))
}

fn checkov(venv: &Path, templates: &[(String, String)]) -> Outcome {
    let mut command = Command::new(venv.join("bin/checkov"));
    command.args(["--framework", "cloudformation", "--output", "json", "--skip-download", "--file"]);
    // Prevents lookups in a remote service.
    command.env("BC_SKIP_MAPPING", "TRUE").env("LOG_LEVEL", "ERROR").current_dir(root()).stdin(Stdio::null());
    let output = command.args(templates.iter().map(|(path, _)| path)).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("checkov: {error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    let findings = reported(&report, templates)?;
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n       ").into()) }
}

/// The failed checks, the files that checkov could not read, and suppressions that suppress
/// nothing.
fn reported(report: &Value, templates: &[(String, String)]) -> std::result::Result<Vec<String>, String> {
    let list = |name: &str| report["results"][name].as_array().ok_or_else(|| format!("checkov reports no {name}"));
    let text = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let mut findings: Vec<String> =
        list("parsing_errors")?.iter().map(|file| format!("checkov cannot read {file}")).collect();
    findings.extend(list("failed_checks")?.iter().map(|check| {
        format!("{}: {}: {}", text(check, "resource"), text(check, "check_id"), text(check, "check_name"))
    }));
    let skipped: BTreeSet<_> =
        list("skipped_checks")?.iter().map(|check| (text(check, "file_path"), text(check, "check_id"))).collect();
    for (path, template) in templates {
        let checks = template.lines().filter_map(suppression).filter(|(check, _)| check.starts_with("CKV"));
        let is_used = |check: &str| skipped.iter().any(|(file, id)| file.ends_with(path) && id == check);
        let unused = checks.filter(|(check, _)| !is_used(check));
        findings.extend(unused.map(|(check, _)| format!("{path}: {check} is suppressed where checkov finds nothing")));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suppression_says_why() {
        let text = "- { id: CKV_AWS_1, comment: \"nothing invokes it\" }\n- { id: CKV_AWS_2, comment: \"\" }\n- id: CKV_AWS_3\n\
                    - W1234 # made by the rule\n- W1234\nMetadata: { cfn_nag: x }\nType: AWS::EC2::VPC\n";
        let found = unreasoned("a.yaml", text);
        let lines: Vec<_> = found.iter().filter_map(|finding| finding.split(':').nth(1)).collect();
        assert_eq!(lines, ["2", "3", "5", "6"]);
    }

    #[test]
    fn a_rule_is_tested_both_ways() {
        let rules = "let a = 1\nrule one when %a !empty {\n}\nrule two {\n}\n";
        let tests = "  rules:\n    one: PASS\n    one: FAIL\n    two: PASS\n";
        assert_eq!(untested(rules, tests), [format!("{RULES_TESTS}: no test expects `two: FAIL`")]);
    }

    #[test]
    fn what_checkov_reports_is_found() {
        let check = |id: &str| serde_json::json!({"check_id": id, "check_name": "words", "file_path": "/infra/a.yaml", "resource": "A.B"});
        let report = serde_json::json!({"results": {
            "parsing_errors": ["infra/b.yaml"], "failed_checks": [check("CKV_1")], "skipped_checks": [check("CKV_2")],
        }});
        let text = "- { id: CKV_2, comment: a }\n- { id: CKV_3, comment: a }\n";
        assert_eq!(
            reported(&report, &[("infra/a.yaml".to_owned(), text.to_owned())]).unwrap(),
            [
                "checkov cannot read \"infra/b.yaml\"",
                "A.B: CKV_1: words",
                "infra/a.yaml: CKV_3 is suppressed where checkov finds nothing"
            ]
        );
        assert!(reported(&serde_json::json!({}), &[]).is_err());
    }
}
