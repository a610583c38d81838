//! Target configurations for tests, with the head that they all share.

/// The settings in the head that differ from target to target.
#[derive(Clone, Debug)]
pub struct Head {
    /// How long all steps together may run, as a duration such as `10m`.
    pub timeout: &'static str,
    /// How a step is stopped: signal and grace, as a TOML table.
    pub cancel: &'static str,
    /// How many deployments may run at the same time.
    pub concurrency: u32,
    /// The Cedar policy.
    pub policy: &'static str,
    /// The user id of the tool; 0 leaves it the runner's user.
    pub uid: u32,
    /// The role whose credentials the tool gets.
    pub role: Option<&'static str>,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            timeout: "10m",
            cancel: r#"{ signal = "INT", grace = "5s" }"#,
            concurrency: 64,
            policy: r#"permit(principal in Group::"sandbox", action, resource);"#,
            uid: 0,
            role: None,
        }
    }
}

/// The name of the role that a target's runner has.
pub fn runner_role(target: &str) -> String {
    format!("relay-{}", target.replace('/', "-"))
}

/// A complete configuration: the head, the tool's `PATH`, and `body`, which starts inside
/// `[environment]`.
pub fn target(name: &str, head: &Head, body: &str) -> String {
    format!(
        r#"target = "{name}"
topic = "${{TOPIC}}"
bucket = "${{BUCKET}}"
evidence = "${{EVIDENCE}}"
target_key = "${{TARGET_KEY}}"
runner_role = "{runner_role}"
{role}endpoint = "${{ENDPOINT}}"
workspace = "${{WORKSPACE}}"
uid = {uid}
timeout = "{timeout}"
cancel = {cancel}
concurrency = {concurrency}
policy = '''{policy}'''

[[signers]]
key = "${{SIGNER_KEY}}"
name = "sandbox-ci"
groups = ["sandbox"]
ci_accounts = ["111111111111"]

[environment]
PATH = "${{PATH}}"
{body}"#,
        runner_role = runner_role(name),
        role = head.role.map(|role| format!("role = \"{role}\"\n")).unwrap_or_default(),
        timeout = head.timeout,
        cancel = head.cancel,
        concurrency = head.concurrency,
        policy = head.policy,
        uid = head.uid,
    )
}

/// The body of a target that runs `sh -c` on its parameter `script`.
pub const SHELL: &str = r#"
[parameters]
script = { pattern = "(?s).*", multiline = true, unicode = true }

[[steps]]
name = "shell"
run = ["sh", "-c", "{script}"]
"#;
