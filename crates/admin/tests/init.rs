//! Tests of `relay-admin init` as a platform team runs it: every file, message and exit code, and
//! the names of every partition.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use relay_protocol::keys::PrivateKey;
use serde_json::Value;
use tempfile::TempDir;

/// The flags that `init` requires, with their values.
const FLAGS: [(&str, &str); 7] = [
    ("--target", "payments/production"),
    ("--target-account", "222222222222"),
    ("--region", "eu-west-1"),
    ("--ci-account", "111111111111"),
    ("--ci", "github"),
    ("--ci-source", "example/payments"),
    ("--code-bucket", "example-code"),
];

/// Returns the exit code, standard output and standard error. There is no terminal.
fn admin(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_relay-admin"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Returns [`FLAGS`] with some values replaced. An empty value leaves the flag out.
fn flags<'a>(changes: &[(&'a str, &'a str)]) -> Vec<&'a str> {
    let value = |name, value| changes.iter().find(|(changed, _)| *changed == name).map_or(value, |(_, new)| *new);
    let pairs = FLAGS.map(|(name, own)| (name, value(name, own)));
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).flat_map(|(name, value)| [name, value]).collect()
}

fn init(dir: &Path, changes: &[(&str, &str)], more: &[&str]) -> (i32, String, String) {
    admin(dir, &[&["init"], flags(changes).as_slice(), more].concat())
}

fn files(dir: &Path) -> Vec<String> {
    fn walk(dir: &Path, root: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, root, found),
                false => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

fn read(dir: &TempDir, name: &str) -> String {
    std::fs::read_to_string(dir.path().join(name)).unwrap()
}

fn parameter(text: &str, name: &str) -> String {
    let list: Vec<Value> = serde_json::from_str(text).unwrap();
    let found = list.iter().find(|pair| pair["ParameterKey"] == name).unwrap_or_else(|| panic!("no {name}: {text}"));
    found["ParameterValue"].as_str().unwrap().to_owned()
}

#[test]
fn what_it_writes_passes_the_check_and_says_how_to_go_on() {
    let dir = TempDir::new().unwrap();
    let (code, out, err) = init(dir.path(), &[], &["--new-key"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let expected = [
        "ci/github.yml",
        "keys/.gitignore",
        "keys/ci.pem",
        "parameters/ci-account.json",
        "parameters/foundation.json",
        "relay.toml",
        "targets/payments-production.policy.json",
        "targets/payments-production.toml",
    ];
    assert_eq!(files(dir.path()), expected);
    for file in expected {
        assert!(out.contains(&format!("wrote ./{file}\n")), "{file}: {out}");
    }
    let (code, said, err) = admin(dir.path(), &["target", "check", "targets/payments-production.toml"]);
    assert_eq!(code, 0, "{said}{err}");
    let ask = ["target", "test", "targets/payments-production.toml", "--signer", "ci", "--param", "version=1.2.3"];
    let (code, said, err) = admin(dir.path(), &ask);
    assert!(code == 0 && said.contains("deploying 1.2.3"), "{said}{err}");
    // Only the owner may read the private key, and git ignores it.
    let key = dir.path().join("keys/ci.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(read(&dir, "keys/.gitignore"), "*\n");
    let key = PrivateKey::from_pem(&read(&dir, "keys/ci.pem")).unwrap();
    assert!(read(&dir, "targets/payments-production.toml").contains(&format!("key = \"{}\"", key.public())));
    assert!(!format!("{out}{err}").contains("PRIVATE KEY"));
    // The stacks come in this order, and `relay doctor` last.
    let at = |words: &str| out.find(words).unwrap_or_else(|| panic!("`{words}` is not in: {out}"));
    let order = ["infra/ci-account.yaml", "infra/foundation.yaml", "relay-admin target render", "relay doctor"].map(at);
    assert!(order.is_sorted(), "{out}");
}

#[test]
fn each_file_of_parameters_fits_its_template() {
    let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra");
    for (ci, source) in [
        ("github", "example/payments"),
        ("gitlab", "example/sub/payments"),
        ("jenkins", "arn:aws:iam::111111111111:role/ci/agents"),
    ] {
        let dir = TempDir::new().unwrap();
        let (code, _, err) = init(dir.path(), &[("--ci", ci), ("--ci-source", source)], &["--new-key", "--arm64"]);
        assert_eq!(code, 0, "{err}");
        for name in ["ci-account", "foundation"] {
            let template = std::fs::read_to_string(infra.join(format!("{name}.yaml"))).unwrap();
            let known = template.split_once("\nParameters:\n").unwrap().1;
            let known = known.split_once("\nRules:\n").unwrap_or((known, "")).0;
            // A parameter without a default must be given, and a given one must exist.
            let mut blocks: Vec<(String, bool)> = Vec::new();
            for line in known.lines() {
                if let Some(name) = line.strip_prefix("  ").filter(|line| !line.starts_with([' ', '#'])) {
                    blocks.push((name.trim_end_matches(':').to_owned(), false));
                } else if let Some(block) = blocks.last_mut().filter(|_| line.trim_start().starts_with("Default:")) {
                    block.1 = true;
                }
            }
            let text = read(&dir, &format!("parameters/{name}.json"));
            let given: Vec<Value> = serde_json::from_str(&text).unwrap();
            let given: Vec<&str> = given.iter().map(|pair| pair["ParameterKey"].as_str().unwrap()).collect();
            assert!(blocks.len() > 5, "{name}: {blocks:?}");
            for name in &given {
                assert!(blocks.iter().any(|(block, _)| block == name), "{name} is not a parameter of the template");
            }
            for (block, _) in blocks.iter().filter(|(_, default)| !default) {
                assert!(given.contains(&block.as_str()), "{block} is missing");
            }
        }
        let (ci_account, foundation) =
            (read(&dir, "parameters/ci-account.json"), read(&dir, "parameters/foundation.json"));
        assert_eq!(parameter(&ci_account, "TopicArns"), "arn:aws:sns:eu-west-1:222222222222:relay");
        assert_eq!(parameter(&foundation, "Architecture"), "arm64");
        let (provider, subject, role) = match ci {
            "github" => ("github", "repo:example/payments:environment:production", "relay-ci/relay-ci"),
            "gitlab" => ("gitlab", "project_path:example/sub/payments:ref_type:branch:ref:main", "relay-ci/relay-ci"),
            _ => ("none", "", "ci/agents"),
        };
        assert_eq!(
            (parameter(&ci_account, "Provider"), parameter(&ci_account, "Subjects")),
            (provider.into(), subject.into())
        );
        assert_eq!(parameter(&foundation, "CiRoleArns"), format!("arn:aws:iam::111111111111:role/{role}"));
    }
}

#[test]
fn nothing_is_overwritten_and_no_half_is_written() {
    for existing in ["relay.toml", "targets/payments-production.policy.json", "keys/ci.pem"] {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join(existing);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        // A dangling link counts as existing: a write would go through it.
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &file).unwrap();
        let (code, out, err) = init(dir.path(), &[], &["--new-key"]);
        assert_eq!((code, out.as_str()), (119, ""), "{err}");
        assert!(err.contains("nothing was written") && err.contains(existing), "{err}");
        assert_eq!(files(dir.path()), [existing]);
    }
    let dir = TempDir::new().unwrap();
    assert_eq!(init(dir.path(), &[], &["--new-key"]).0, 0);
    let before = read(&dir, "keys/ci.pem");
    let (code, _, err) = init(dir.path(), &[], &["--new-key"]);
    assert!(code == 119 && files(dir.path()).iter().all(|file| err.contains(file)), "{err}");
    assert_eq!(read(&dir, "keys/ci.pem"), before);
}

#[test]
fn without_a_terminal_a_missing_flag_is_named() {
    let dir = TempDir::new().unwrap();
    for (flag, _) in FLAGS {
        let (code, _, err) = init(dir.path(), &[(flag, "")], &["--new-key"]);
        assert!(code == 119 && err.contains(&format!("{flag} is missing")), "{flag}: {err}");
    }
    let (code, _, err) = init(dir.path(), &[], &[]);
    assert!(code == 119 && err.contains("--signer-key (or --new-key) is missing"), "{err}");
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let dir = TempDir::new().unwrap();
    let long = format!("{}/production", "a".repeat(60));
    for (flag, odd) in [
        ("--target", "payments"),
        ("--target", long.as_str()),
        ("--target-account", "2222"),
        ("--region", "Europe"),
        ("--ci-account", "x"),
        ("--ci", "teamcity"),
        ("--ci-source", "example/*"),
        ("--code-bucket", "Code Bucket"),
    ] {
        let (code, _, err) = init(dir.path(), &[(flag, odd)], &["--new-key"]);
        assert!(code == 119 && err.contains(flag), "{flag} {odd}: {err}");
    }
    let other = "arn:aws:kms:eu-west-1:333333333333:key/x";
    for (flag, odd) in
        [("--signer-key", "no key"), ("--signer-key", ""), ("--target-key", other), ("--target-public-key", "AAAA")]
    {
        let more: &[&str] = if flag == "--signer-key" { &[flag, odd] } else { &["--new-key", flag, odd] };
        let (code, _, err) = init(dir.path(), &[], more);
        assert!(code == 119 && err.contains(flag), "{flag} {odd}: {err}");
    }
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn what_is_known_already_is_used() {
    let dir = TempDir::new().unwrap();
    let (signer, target) = (PrivateKey::from_seed([1; 32]), PrivateKey::from_seed([2; 32]));
    let (signer, public) = (signer.public().to_string(), target.public().to_string());
    let arn = "arn:aws:kms:eu-west-1:222222222222:key/6f1f1f0e-5a0b-4b0e-9d3a-0c5d7f6a9b11";
    let known = ["--signer-key", &signer, "--target-key", arn, "--target-public-key", &public];
    let (code, out, err) = init(dir.path(), &[], &known);
    assert_eq!(code, 0, "{err}");
    assert!(!files(dir.path()).iter().any(|file| file.starts_with("keys")) && !out.contains("TargetKeyArn"), "{out}");
    assert!(read(&dir, "targets/payments-production.toml").contains(&format!("target_key = \"{arn}\"")));
    assert!(read(&dir, "relay.toml").contains(&format!("\ntarget_key = \"{public}\"")));
}

/// A region of each partition, the partition, and the host of S3 there. (botocore,
/// `data/partitions.json`)
const REGIONS: [(&str, &str, &str); 8] = [
    ("eu-west-1", "aws", "s3.eu-west-1.amazonaws.com"),
    ("cn-north-1", "aws-cn", "s3.cn-north-1.amazonaws.com.cn"),
    ("us-gov-west-1", "aws-us-gov", "s3.us-gov-west-1.amazonaws.com"),
    ("eusc-de-east-1", "aws-eusc", "s3.eusc-de-east-1.amazonaws.eu"),
    ("us-iso-east-1", "aws-iso", "s3.us-iso-east-1.c2s.ic.gov"),
    ("us-isob-east-1", "aws-iso-b", "s3.us-isob-east-1.sc2s.sgov.gov"),
    ("eu-isoe-west-1", "aws-iso-e", "s3.eu-isoe-west-1.cloud.adc-e.uk"),
    ("us-isof-south-1", "aws-iso-f", "s3.us-isof-south-1.csp.hci.ic.gov"),
];

/// The partitions of the ARNs in a text. An ARN may leave its partition to CloudFormation.
fn partitions(text: &str) -> Vec<&str> {
    let after = text.split("arn:").skip(1).filter_map(|rest| rest.split(':').next());
    after.filter(|partition| partition.starts_with("aws")).collect()
}

#[test]
fn a_target_of_each_partition_names_no_other() {
    for (region, partition, s3) in REGIONS {
        let dir = tempfile::tempdir().unwrap();
        let (code, next, err) = init(dir.path(), &[("--region", region)], &["--new-key"]);
        assert_eq!(code, 0, "{err}");
        let (configuration, policy) = ("targets/payments-production.toml", "targets/payments-production.policy.json");
        let image = format!("example/payments@sha256:{}", "0".repeat(64));
        let render = ["target", "render", configuration, "--image", &image, "--deploy-policy", policy];
        let (code, template, err) = admin(dir.path(), &render);
        assert_eq!(code, 0, "{err}");
        let written: Vec<String> = files(dir.path()).iter().map(|name| read(&dir, name)).collect();
        let all = [next, written.concat(), template.clone()].concat();
        let found = partitions(&all);
        assert!(found.len() > 5 && found.iter().all(|one| *one == partition), "{region}: {found:?}");
        assert!(template.contains(s3), "{region}: the template does not name {s3}");
        // Principals of services end with amazonaws.com in other partitions too; hosts do not.
        let domain = s3.rsplit_once(&format!("{region}.")).unwrap().1;
        let in_host = format!(".{region}.");
        let mut hosts = template.split(&in_host).skip(1);
        assert!(hosts.all(|rest| rest.starts_with(domain)), "{region}: a host of another domain");
    }
}

#[test]
fn no_template_names_a_partition() {
    let infra = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra");
    for name in [
        "ci-account.yaml",
        "ci-pipeline.yaml",
        "foundation.yaml",
        "governance.yaml",
        "managed-instances.yaml",
        "network.yaml",
        "approver-policy.json",
        "auditor-policy.json",
        "scp/no-shell.json",
        "scp/protect-evidence.json",
        "scp/protect-relay.json",
    ] {
        let text = std::fs::read_to_string(infra.join(name)).unwrap();
        // A pattern of a parameter says arn:aws[a-z-]*, and descriptions give examples.
        for line in text.lines().filter(|line| !line.contains("Pattern") && !line.contains("Description")) {
            let found = partitions(line);
            assert!(found.is_empty(), "{name} names {found:?}: {line}");
        }
    }
}
