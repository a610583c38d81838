//! Registers the built-in targets and those from a folder, with the task definitions that a real
//! account would have.

use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::children;
use super::shared::Host;
use crate::services::{Now, TARGET_ACCOUNT, lock};

/// Targets besides the built-in ones.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// A folder of templates, with `${TOPIC}` and the like.
    pub folder: Option<PathBuf>,
    /// A platform team's own files.
    pub files: Vec<PathBuf>,
    /// The values of their secrets: TOML, `NAME = "value"`.
    pub secrets: Option<PathBuf>,
    /// Variables that the tools of these files get in addition, by name.
    pub variables: Vec<(String, String)>,
}

/// What a configuration refers to.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) endpoint: String,
    pub(super) workspace: String,
    pub(super) topic: String,
    pub(super) bucket: String,
    pub(super) evidence: String,
    pub(super) target_key: String,
    /// Its public half.
    pub(super) target_public: String,
    pub(super) signer_key: String,
    pub(super) approver_key: String,
    pub(super) path: String,
    pub(super) artifacts: String,
    /// The URLs of the issuers.
    pub(super) github: String,
    pub(super) sts: String,
}

const HEAD: &str = r#"target = "${TARGET}"
topic = "${TOPIC}"
bucket = "${BUCKET}"
evidence = "${EVIDENCE}"
target_key = "${TARGET_KEY}"
runner_role = "${RUNNER_ROLE}"
endpoint = "${ENDPOINT}"
workspace = "${WORKSPACE}"
uid = 0 # the tool runs as the user who runs the sandbox
timeout = "30m"
cancel = { signal = "INT", grace = "5s" }
concurrency = 64
policy = '''${POLICY}'''

[[signers]]
key = "${SIGNER_KEY}"
name = "sandbox-ci"
groups = ["sandbox"]
ci_accounts = ["111111111111"]

[[signers]]
name = "sandbox-github"
issuer = "github"
claims = { repository_id = "74", repository_owner_id = "65", event_name = "push", environment = "production" }
groups = ["sandbox"]
ci_accounts = ["111111111111"]

[[signers]]
name = "sandbox-role"
issuer = "aws"
claims = { sub = "arn:aws:iam::111111111111:role/ci" }
groups = ["sandbox"]
ci_accounts = ["111111111111"]

[[issuers]]
name = "github"
url = "${GITHUB_ISSUER}"
preset = "github"

[[issuers]]
name = "aws"
url = "${STS_ISSUER}"
preset = "aws"

[environment]
PATH = "${PATH}"
HOME = "/tmp"
"#;

const HELLO: &str = r#"
[parameters]
name = { pattern = "[a-z][a-z0-9-]{0,30}" }

[[steps]]
name = "greet"
run = ["echo", "hello, {name}"]

[[steps]]
name = "look"
run = ["sh", "-c", "echo this line goes to stderr >&2; uname -s"]
"#;

const SHELL: &str = r#"
[parameters]
script = { pattern = "(?s).*", multiline = true, unicode = true }

[[steps]]
name = "shell"
run = ["sh", "-c", "{script}"]
"#;

/// The policy of all built-in targets but one.
const OPEN: &str = r#"permit(principal in Group::"sandbox", action, resource);"#;

/// The policy of `demo/guarded`.
const GUARDED: &str = r#"
permit(principal in Group::"sandbox", action in [Action::"deploy", Action::"cancel"], resource)
when { context.approvals >= 1 && context.requester_known };
permit(principal in Group::"people", action == Action::"approve", resource);
"#;

const PERSON: &str = r#"
[[signers]]
key = "${APPROVER_KEY}"
name = "sandbox-person"
kind = "person"
groups = ["people"]

[[persons]]
name = "octocat"
claims = { "github/actor_id" = "12" }
"#;

const SOURCE: &str = r#"
[parameters]
source = { artifact = "s3://${ARTIFACTS}/demo/source/", max = "50MiB" }

[[steps]]
name = "run"
run = ["sh", "source/run.sh"]
"#;

const CLOUDFORMATION: &str = r#"AWS_ENDPOINT_URL = "${CFN_ENDPOINT}"
AWS_ACCESS_KEY_ID = "${CFN_ACCESS_KEY}"
AWS_SECRET_ACCESS_KEY = "${CFN_SECRET_KEY}"
AWS_DEFAULT_REGION = "eu-west-1"
AWS_PAGER = ""

[parameters]
source = { artifact = "s3://${ARTIFACTS}/demo/cloudformation/", max = "50MiB" }
stack = { pattern = "[a-z0-9-]{1,64}" }

[[steps]]
name = "deploy"
run = [
    "${AWS}", "cloudformation", "deploy", "--template-file", "source/template.yaml", "--stack-name", "{stack}",
    "--capabilities", "CAPABILITY_NAMED_IAM", "--no-fail-on-empty-changeset",
]
"#;

/// Text as the inside of a TOML basic string; JSON has the same escapes.
fn inside(text: &str) -> String {
    let quoted = json!(text).to_string();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// Replaces each `${NAME}` with its value, in one pass, so that values are not expanded in turn.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let known = after.split_once('}').and_then(|(name, tail)| {
            let (_, value) = values.iter().find(|(n, _)| *n == name)?;
            Some((value, tail))
        });
        match known {
            Some((value, tail)) => {
                out.push_str(&inside(value));
                rest = tail;
            }
            None => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

pub(super) fn register(host: &Host, context: &Context, folder: Option<&Path>) -> Result<(), String> {
    let aws = host.settings.aws.clone().or_else(|| children::on_path("aws", std::env::var_os("PATH").as_deref()));
    let aws = aws.map(|path| path.to_string_lossy().into_owned());
    let settings = &host.settings;
    let values = |target: &str, role: &str| -> Vec<(&'static str, String)> {
        vec![
            ("TARGET", target.to_owned()),
            ("RUNNER_ROLE", role.to_owned()),
            ("TOPIC", context.topic.clone()),
            ("BUCKET", context.bucket.clone()),
            ("EVIDENCE", context.evidence.clone()),
            ("TARGET_KEY", context.target_key.clone()),
            ("TARGET_PUBLIC_KEY", context.target_public.clone()),
            ("ENDPOINT", context.endpoint.clone()),
            ("WORKSPACE", context.workspace.clone()),
            ("SIGNER_KEY", context.signer_key.clone()),
            ("APPROVER_KEY", context.approver_key.clone()),
            ("PATH", context.path.clone()),
            ("ARTIFACTS", context.artifacts.clone()),
            ("GITHUB_ISSUER", context.github.clone()),
            ("STS_ISSUER", context.sts.clone()),
            ("AWS", aws.clone().unwrap_or_default()),
            ("CFN_ENDPOINT", settings.cloudformation_endpoint.clone().unwrap_or_else(|| context.endpoint.clone())),
            ("CFN_ACCESS_KEY", settings.cloudformation_access_key.clone()),
            ("CFN_SECRET_KEY", settings.cloudformation_secret_key.clone()),
        ]
    };
    let borrow = |values: &[(&'static str, String)], template: &str| {
        let borrowed: Vec<(&str, &str)> = values.iter().map(|(n, v)| (*n, v.as_str())).collect();
        fill(template, &borrowed)
    };
    let guarded = format!("{HELLO}{PERSON}");
    let mut built_in = vec![
        ("demo/hello", OPEN, HELLO),
        ("demo/shell", OPEN, SHELL),
        ("demo/source", OPEN, SOURCE),
        ("demo/guarded", GUARDED, &guarded),
    ];
    if aws.is_some() {
        built_in.push(("demo/cloudformation", OPEN, CLOUDFORMATION));
    }
    for (target, policy, body) in built_in {
        let role = format!("relay-{}", target.replace('/', "-"));
        let text = borrow(&values(target, &role), &format!("{}{body}", HEAD.replace("${POLICY}", policy)));
        add(host, target, &role, &text);
    }
    let Some(folder) = folder else { return Ok(()) };
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    for file in files {
        let wrong = |what: &str| format!("{}: {what}", file.display());
        let template = std::fs::read_to_string(&file).map_err(|e| wrong(&e.to_string()))?;
        let text = borrow(&values("${TARGET}", "${RUNNER_ROLE}"), &template);
        let parsed: toml::Table = toml::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
        let field =
            |name: &str| parsed.get(name).and_then(toml::Value::as_str).ok_or_else(|| wrong(&format!("no `{name}`")));
        add(host, field("target")?, field("runner_role")?, &text);
    }
    Ok(())
}

/// The images that a configuration names, by container. No image is pulled: tasks are processes.
fn images(configuration: &str) -> Vec<(&'static str, String)> {
    let parsed: toml::Table = toml::from_str(configuration).unwrap_or_default();
    let named = |key: &str| Some(parsed.get("images")?.get(key)?.as_str()?.to_owned());
    let runner = ("runner", named("tool").unwrap_or_else(|| "relay-sandbox".to_owned()));
    [runner].into_iter().chain(named("runner").map(|image| ("install", image))).collect()
}

/// The task definition of one target, as `relay-admin target render` would make it.
pub(super) fn add(host: &Host, target: &str, role: &str, configuration: &str) {
    let family = format!("relay_{}", target.replace('/', "_"));
    let digest = HEXLOWER.encode(&Sha256::digest(configuration.as_bytes()));
    let container = |(name, image): (&str, String)| {
        json!({
            "name": name, "image": image, "essential": name == "runner", "cpu": 0, "portMappings": [], "mountPoints": [],
            "volumesFrom": [],
            "entryPoint": ["/relay/relay-runner", "run", "--target", target, "--configuration-sha256", digest],
            "environment": [{"name": "RELAY_CONFIGURATION", "value": configuration}],
            "dockerLabels": {"relay.subnets": "subnet-1", "relay.security-groups": "sg-1"},
            "stopTimeout": 120,
        })
    };
    let containers: Vec<Value> = images(configuration).into_iter().map(container).collect();
    let content = json!({
        "family": family,
        "taskRoleArn": format!("arn:aws:iam::{TARGET_ACCOUNT}:role/relay/{role}"),
        "executionRoleArn": format!("arn:aws:iam::{TARGET_ACCOUNT}:role/relay/relay-execution"),
        "networkMode": "awsvpc", "requiresCompatibilities": ["FARGATE"], "cpu": "256", "memory": "512", "volumes": [],
        "placementConstraints": [],
        "containerDefinitions": containers,
    });
    lock(&host.services.ecs).add_definition(Now::read(), TARGET_ACCOUNT, &family, content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_targets_are_toml_whatever_the_values() {
        let odd = r#"a"b\c${PATH}"#;
        let values = [
            "TARGET",
            "TOPIC",
            "BUCKET",
            "EVIDENCE",
            "TARGET_KEY",
            "RUNNER_ROLE",
            "ENDPOINT",
            "WORKSPACE",
            "SIGNER_KEY",
            "APPROVER_KEY",
            "PATH",
            "ARTIFACTS",
            "GITHUB_ISSUER",
            "STS_ISSUER",
            "AWS",
            "CFN_ENDPOINT",
            "CFN_ACCESS_KEY",
            "CFN_SECRET_KEY",
        ];
        let values: Vec<(&str, &str)> = values.iter().map(|n| (*n, odd)).collect();
        for body in [HELLO, SHELL, SOURCE, CLOUDFORMATION, PERSON] {
            let text = fill(&format!("{}{body}", HEAD.replace("${POLICY}", GUARDED)), &values);
            let table: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(table.get("endpoint").and_then(toml::Value::as_str), Some(odd));
            let path = table.get("environment").and_then(|e| e.get("PATH")).and_then(toml::Value::as_str);
            assert_eq!(path, Some(odd));
        }
    }
}
