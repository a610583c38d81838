//! Tests of `target render`: the example in the repository is what the command writes, and no text
//! of a configuration can become structure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use relay_protocol::Digest;

const IMAGE: &str = "222222222222.dkr.ecr.eu-west-1.amazonaws.com/terraform@sha256:\
                     3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/examples").join(name)
}

fn render(file: &Path, more: &[&str]) -> (u8, String, String) {
    let mut arguments: Vec<OsString> = ["relay-admin", "target", "render"].map(OsString::from).to_vec();
    arguments.push(file.into());
    arguments.extend(more.iter().map(OsString::from));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = relay_admin::run(arguments, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// With RELAY_BLESS=1 the test rewrites the example. Review it before you commit it.
#[test]
fn the_example_is_what_the_command_makes() {
    let policy = example("payments-production.policy.json");
    let flags = ["--deploy-policy", policy.to_str().unwrap()];
    let (code, out, err) = render(&example("payments-production.toml"), &flags);
    assert_eq!((code, err.as_str()), (0, ""));
    let file = example("payments-production.yaml");
    if std::env::var_os("RELAY_BLESS").is_some() {
        fs::write(&file, &out).unwrap();
    }
    // Not `assert_eq`, which would print both texts.
    let same = out == fs::read_to_string(&file).unwrap();
    assert!(same, "render {} again: RELAY_BLESS=1 cargo test -p relay-admin --test render", file.display());
}

/// The example without the table `images`.
fn without_images() -> String {
    let text = fs::read_to_string(example("payments-production.toml")).unwrap();
    let (before, rest) = text.split_once("[images]").unwrap();
    let (_, after) = rest.split_once("[parameters]").unwrap();
    format!("{before}[parameters]{after}")
}

#[test]
fn the_text_is_pinned_and_stays_text() {
    let odd = "\n# @image@ ${AWS::AccountId} \" ' \\ \t {{x}} \u{1F600}\n#\"\n#        - Name: evil\n";
    let text = without_images() + odd;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("target.toml");
    fs::write(&file, &text).unwrap();
    let (code, out, err) = render(&file, &["--image", IMAGE]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("the deploy role has no permissions"), "{err}");
    let value = out.lines().find_map(|line| line.trim_start().strip_prefix("Value: \"")).unwrap();
    let value: String = serde_json::from_str(&format!("\"{value}")).unwrap();
    assert_eq!(value, text);
    let entry_point = out.lines().find_map(|line| line.trim_start().strip_prefix("EntryPoint: ")).unwrap();
    let entry_point: Vec<String> = serde_json::from_str(entry_point).unwrap();
    assert_eq!(entry_point.last().unwrap(), &Digest::of(text.as_bytes()).to_string());
    assert_eq!(out.matches("- Name: evil").count(), 1, "only inside the quoted text");
    // The runner is in the tool's own image, so there is no install container and no volume for it.
    assert!(!out.contains("DependsOn") && !out.contains("ContainerPath: /relay"), "{out}");
}

#[test]
fn what_cannot_be_is_refused() {
    let named = example("payments-production.toml");
    let (code, _, err) = render(&named, &["--image", IMAGE]);
    assert_eq!((code, err.contains("the configuration names its `images`")), (119, true), "{err}");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("without.toml");
    fs::write(&file, without_images()).unwrap();
    let (code, _, err) = render(&file, &["--image", "terraform:1.9"]);
    assert_eq!((code, err.contains("a tag can be moved")), (119, true), "{err}");
    let (code, _, err) = render(&file, &[]);
    assert_eq!((code, err.contains("no image")), (119, true), "{err}");

    let elsewhere = folder.path().join("target.toml");
    fs::write(&elsewhere, fs::read_to_string(&file).unwrap().replace("role/relay-deploy/payments", "role/admin"))
        .unwrap();
    let (code, _, err) = render(&elsewhere, &["--image", IMAGE]);
    assert_eq!(code, 119);
    assert!(err.contains("deploy roles begin with arn:aws:iam::222222222222:role/relay-deploy/"), "{err}");
    assert_eq!(render(&elsewhere, &["--image", IMAGE, "--no-deploy-role"]).0, 0);
    let (code, _, err) = render(
        &elsewhere,
        &["--image", IMAGE, "--no-deploy-role", "--managed-policy", "arn:aws:iam::aws:policy/ReadOnlyAccess"],
    );
    assert_eq!((code, err.contains("this template creates none")), (119, true), "{err}");

    fs::write(&elsewhere, fs::read_to_string(&file).unwrap() + "# {{resolve:ssm:x}}\n").unwrap();
    let (code, _, err) = render(&elsewhere, &["--image", IMAGE]);
    assert_eq!((code, err.contains("CloudFormation would replace")), (119, true), "{err}");

    let policy = folder.path().join("policy.json");
    fs::write(&policy, "{}").unwrap();
    let (code, _, err) = render(&file, &["--image", IMAGE, "--deploy-policy", policy.to_str().unwrap()]);
    assert_eq!((code, err.contains("not an IAM policy")), (119, true), "{err}");
}
