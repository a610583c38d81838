//! The commands that work through the AWS CLI, with a stand-in for it that answers from files: what
//! they plan, compare and refuse, and that they make nothing by mistake. tests/src/emulator/bin
//! runs them against an emulator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Notes each call, and answers from `SERVICE-OPERATION.json` or with the error in `….error`. A
/// file for one profile comes first: `PROFILE.SERVICE-OPERATION.json`.
const AWS: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "$1 $2" >>calls
for name in "$AWS_PROFILE.$1-$2" "$1-$2"; do
    [ -e "$name.error" ] && cat "$name.error" >&2 && exit 254
    [ -e "$name.json" ] && cat "$name.json" && exit 0
done
[ "$1 $2" = "configure get" ] && echo eu-west-1 && exit 0
echo '{}'
"#;

struct Aws {
    dir: TempDir,
}

impl Aws {
    /// The profile `ci` is of account 1…, and every other of account 2….
    fn new() -> Self {
        let this = Self { dir: TempDir::new().unwrap() };
        let program = this.dir.path().join("aws");
        fs::write(&program, AWS).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let identity = |account: &str| json!({"Account": account, "Arn": format!("arn:aws:iam::{account}:root")});
        this.answers("sts-get-caller-identity", &identity("222222222222"));
        this.answers("ci.sts-get-caller-identity", &identity("111111111111"));
        this
    }

    fn answers(&self, call: &str, answer: &Value) {
        fs::write(self.dir.path().join(format!("{call}.json")), answer.to_string()).unwrap();
    }

    fn refuses(&self, call: &str, code: &str, message: &str) {
        let text = format!("\nAn error occurred ({code}) when calling the X operation: {message}\n");
        fs::write(self.dir.path().join(format!("{call}.error")), text).unwrap();
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default()
    }

    /// Returns the exit code, standard output and standard error.
    fn admin(&self, dir: &Path, arguments: &[&str]) -> (i32, String, String) {
        let path = format!("{}:/usr/bin:/bin", self.dir.path().display());
        let output = Command::new(env!("CARGO_BIN_EXE_relay-admin"))
            .args(arguments)
            .current_dir(dir)
            .env_clear()
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

fn resource(kind: &str, id: &str) -> Value {
    json!({"ResourceType": kind, "PhysicalResourceId": id})
}

const TARGET: &str = "payments/staging";

#[test]
fn remove_shows_a_plan_and_keeps_evidence() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    let resources = [resource("AWS::IAM::Role", "relay-x"), resource("AWS::KMS::Key", "key-1")];
    aws.answers("cloudformation-describe-stack-resources", &json!({ "StackResources": resources }));
    let (code, out, err) = aws.admin(dir.path(), &["remove", TARGET, "--profile", "target"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    for line in ["delete stack relay-payments-staging", "delete AWS::IAM::Role relay-x", "keep AWS::KMS::Key key-1"] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(out.contains("add --apply"), "{out}");
    assert!(!aws.calls().contains("delete-stack"), "{}", aws.calls());

    aws.refuses("cloudformation-describe-stacks", "ValidationError", "Stack with id x does not exist");
    let (code, out, err) = aws.admin(dir.path(), &["remove", TARGET, "--profile", "target", "--apply"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(aws.calls().contains("cloudformation delete-stack"), "{}", aws.calls());
}

#[test]
fn remove_refuses_what_is_in_use() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    aws.answers("cloudformation-list-imports", &json!({"Imports": ["relay-payments-staging", "relay-shop"]}));
    let foundation = ["remove", TARGET, "--foundation", "--profile", "target", "--apply"];
    let (code, _, err) = aws.admin(dir.path(), &foundation);
    assert!(code == 119 && err.contains("is needed by relay-shop\n"), "{code} {err}");
    aws.answers("ecs-list-tasks", &json!({"taskArns": ["arn"]}));
    let (code, _, err) = aws.admin(dir.path(), &["remove", TARGET, "--profile", "target", "--apply"]);
    assert!(code == 119 && err.contains("1 deployments of payments/staging are running"), "{code} {err}");
    assert!(!aws.calls().contains("delete-stack"), "{}", aws.calls());
}

#[test]
fn remove_finds_nothing_in_an_empty_account() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    aws.refuses("cloudformation-describe-stack-resources", "ValidationError", "Stack with id x does not exist");
    aws.refuses("ecs-list-tasks", "ClusterNotFoundException", "Cluster not found.");
    let (code, out, _) = aws.admin(dir.path(), &["remove", TARGET, "--profile", "target"]);
    let nothing = "nothing to remove in account 222222222222 in eu-west-1: no stack relay-payments-staging\n";
    assert_eq!((code, out.as_str()), (1, nothing));
}

/// Writes the files of a target, and returns the path of its configuration and its template.
fn rendered(aws: &Aws, dir: &Path) -> (String, String) {
    let image = format!("shop@sha256:{}", "0".repeat(64));
    let more = ["--ci-account", "111111111111", "--ci", "github", "--ci-source", "example/shop", "--new-key"];
    let init = ["init", "--target", TARGET, "--target-account", "222222222222", "--region", "eu-west-1"];
    let bucket = ["--code-bucket", "code", "--image", &image];
    let (code, _, err) = aws.admin(dir, &[&init[..], &more[..], &bucket[..]].concat());
    assert_eq!(code, 0, "{err}");
    let file = "targets/payments-staging.toml".to_owned();
    let (code, template, err) = aws.admin(dir, &["target", "render", &file]);
    assert_eq!(code, 0, "{err}");
    (file, template)
}

#[test]
fn a_rendered_template_is_compared_with_the_stacks() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    let (file, template) = rendered(&aws, dir.path());
    let diff = ["target", "render", &file, "--diff", "--profile", "target"];
    aws.answers("cloudformation-get-template", &json!({ "TemplateBody": template }));
    let (code, out, _) = aws.admin(dir.path(), &diff);
    assert!(code == 0 && out == "the stack relay-payments-staging has this template\n", "{code} {out}");
    let older = template.replace("Memory: \"2048\"", "Memory: \"512\"");
    assert_ne!(older, template);
    aws.answers("cloudformation-get-template", &json!({ "TemplateBody": older }));
    let (code, out, _) = aws.admin(dir.path(), &diff);
    assert!(code == 1 && out.contains("\n-      Memory: \"512\"\n+      Memory: \"2048\"\n"), "{code} {out}");
    // A change of the configuration is shown line by line.
    let older = template.replace("timeout = \\\"45m\\\"", "timeout = \\\"30m\\\"");
    aws.answers("cloudformation-get-template", &json!({ "TemplateBody": older }));
    let (code, out, _) = aws.admin(dir.path(), &diff);
    assert!(code == 1 && out.contains("\n-timeout = \"30m\"\n+timeout = \"45m\"\n"), "{code} {out}");
    // The profile must be of the target's account.
    let (code, _, err) = aws.admin(dir.path(), &["target", "render", &file, "--diff", "--profile", "ci"]);
    assert!(code == 119 && err.contains("is of account 111111111111"), "{code} {err}");
    aws.refuses("cloudformation-get-template", "ValidationError", "Stack with id x does not exist");
    let (code, _, err) = aws.admin(dir.path(), &diff);
    assert!(code == 119 && err.contains("there is no stack relay-payments-staging"), "{code} {err}");
}

/// `init --apply` with everything but the accounts.
fn apply<'a>(accounts: &[&'a str]) -> Vec<&'a str> {
    let target = ["init", "--target", TARGET, "--ci", "github", "--ci-source", "example/shop"];
    [&target[..], &["--apply", "--launcher-zip", "/dev/null"], accounts].concat()
}

#[test]
fn init_tells_mistakes_before_it_makes_anything() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    fs::write(dir.path().join("zip"), "").unwrap();
    let both = &["--ci-profile", "ci", "--target-profile", "target"][..];
    for (more, problem) in [
        (vec!["--ci-profile", "one", "--target-profile", "one"], "as both CI's account and the target account"),
        (
            [both, &["--target-account", "333333333333"]].concat(),
            "--target-account is 333333333333, and the profile's is",
        ),
        ([both, &["--region", "nowhere"]].concat(), "--region: "),
        ([both, &["--new-network"]].concat(), "there is no /dev/null"),
    ] {
        let (code, _, err) = aws.admin(dir.path(), &apply(&more));
        assert!(code == 119 && err.contains(problem), "{problem}: {code} {err}");
    }
    let (code, _, err) = aws.admin(dir.path(), &["init", "--apply"]);
    assert!(code == 119 && err.contains("--ci-profile"), "{code} {err}");
    // Buckets of an earlier installation.
    let zip = dir.path().join("zip").display().to_string();
    let target = ["init", "--target", TARGET, "--ci", "jenkins", "--ci-source", "arn:aws:iam::111111111111:role/a"];
    let apply = ["--apply", "--launcher-zip", &zip, "--new-network"];
    aws.refuses("cloudformation-describe-stacks", "ValidationError", "Stack with id x does not exist");
    let (code, _, err) = aws.admin(dir.path(), &[&target[..], &apply[..], both].concat());
    assert!(code == 119 && err.contains("left the bucket relay-artifacts-111111111111-eu-west-1"), "{code} {err}");
    for made in ["deploy", "create", "put-"] {
        assert!(!aws.calls().contains(made), "{}", aws.calls());
    }
}

#[test]
fn a_self_test_needs_two_accounts_and_plans_without_making() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    let image = format!("shell@sha256:{}", "0".repeat(64));
    aws.refuses("cloudformation-describe-stacks", "ValidationError", "Stack with id x does not exist");
    let with = |more: &[&'static str]| {
        let selftest = ["selftest", "--target-profile", "target", "--image", &image];
        aws.admin(dir.path(), &[&selftest[..], more].concat())
    };
    let (code, _, err) = with(&["--ci-profile", "target"]);
    assert!(code == 119 && err.contains("both profiles are of account 222222222222"), "{code} {err}");
    let (code, out, err) = with(&["--ci-profile", "ci", "--dry-run"]);
    assert!(code == 0 && out.contains("cost: about 0.") && err.is_empty(), "{code} {out} {err}");
    let (code, _, err) = with(&["--ci-profile", "ci", "--only", "weather"]);
    assert!(code == 119 && err.contains("there is no check weather"), "{code} {err}");
    fs::write(dir.path().join("known"), "weather: it rains\n").unwrap();
    let (code, _, err) = with(&["--ci-profile", "ci", "--known-differences", "known"]);
    assert!(code == 119 && err.contains("known: there is no check weather"), "{code} {err}");
    assert!(!aws.calls().contains("create"), "{}", aws.calls());
}

#[test]
fn a_refusal_by_aws_names_the_call_and_what_to_do() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    aws.refuses("sts-get-caller-identity", "ExpiredToken", "The security token has expired");
    let (code, _, err) = aws.admin(dir.path(), &["remove", TARGET, "--profile", "target"]);
    assert!(code == 125 && err.contains("profile target: aws sts get-caller-identity: ExpiredToken"), "{code} {err}");
    assert!(err.contains("hint: check the profile with `aws sts get-caller-identity --profile target`"), "{err}");

    let text = "\nCould not connect to the endpoint URL: \"https://sts.eu-west-9.amazonaws.com/\"\n";
    fs::write(aws.dir.path().join("sts-get-caller-identity.error"), text).unwrap();
    let (code, _, err) = aws.admin(dir.path(), &["remove", TARGET, "--profile", "target", "--region", "eu-west-9"]);
    assert!(code == 125 && err.contains("hint: check that eu-west-9 is a region"), "{code} {err}");
}

#[test]
fn doctor_compares_every_file_with_its_account() {
    let (aws, dir) = (Aws::new(), TempDir::new().unwrap());
    let (file, template) = rendered(&aws, dir.path());
    let digest = template.split_once("--configuration-sha256\",\"").unwrap().1.split('"').next().unwrap();
    let pinned = |digest: &str| {
        let container = json!({"name": "runner", "entryPoint": ["/relay/relay-runner", "run", digest]});
        json!({"taskDefinition": {"containerDefinitions": [container]}})
    };
    let stack = |status: &str, key: &str| {
        let code = json!({"ParameterKey": "CodeKey", "ParameterValue": key});
        json!({"Stacks": [{"StackStatus": status, "Parameters": [code]}]})
    };
    let doctor = ["doctor", "--all", "--profile", "audit-{account}"];
    let current = format!("relay-launcher-{}-x86_64.zip", env!("CARGO_PKG_VERSION"));
    aws.answers("ecs-describe-task-definition", &pinned(digest));
    aws.answers("cloudformation-describe-stacks", &stack("UPDATE_COMPLETE", &current));
    let (code, out, err) = aws.admin(dir.path(), &doctor);
    assert_eq!((code, out.as_str(), err.as_str()), (0, format!("{file}: ok\n").as_str(), ""));

    aws.answers("ecs-describe-task-definition", &pinned("0000"));
    aws.answers("cloudformation-describe-stacks", &stack("UPDATE_ROLLBACK_COMPLETE", "relay-launcher-0.0.1.zip"));
    let (code, out, _) = aws.admin(dir.path(), &doctor);
    assert_eq!(code, 1, "{out}");
    for problem in [
        "the launcher is relay-launcher-0.0.1.zip",
        "is in the state UPDATE_ROLLBACK_COMPLETE",
        "another version of this file is deployed",
        "1 of 1 targets need somebody",
    ] {
        assert!(out.contains(problem), "{problem}: {out}");
    }
    aws.refuses("cloudformation-describe-stacks", "ValidationError", "Stack with id x does not exist");
    let (code, out, _) = aws.admin(dir.path(), &doctor);
    assert!(code == 1 && out.contains("has no stack relay\n"), "{code} {out}");
    let (code, out, _) = aws.admin(dir.path(), &["doctor", &file, "--profile", "ci"]);
    assert!(code == 1 && out.contains("is of account 111111111111, not 222222222222"), "{code} {out}");
}
