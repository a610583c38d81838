//! `relay-sandbox demo`: runs one deployment, and then explains from the log what happened.

use std::ffi::OsString;
use std::io::Write;

use super::exec::{Signals, exec};
use super::log::Entry;
use super::sandbox::Sandbox;
use crate::services::CI_ACCOUNT;

const BEFORE: &str = "\
This runs `relay deploy demo/hello --param name=world` against two AWS accounts, both of them on this machine:
  CI account 111111111111, which may only ask, and target account 222222222222, which decides and does the work.
The launcher (Lambda) and the runner (Fargate task) are the real binaries, as processes. A CI log would show the following.
";

/// Runs the demonstration, and returns the deployment's exit code.
pub(super) async fn run(sandbox: &Sandbox, signals: Signals) -> Result<u8, String> {
    say(BEFORE)?;
    say("----------------------------------------------------------------\n")?;
    let command = ["relay", "deploy", "demo/hello", "--param", "name=world"].map(OsString::from);
    let code = exec(sandbox, &command, signals).await?;
    say("----------------------------------------------------------------\n")?;
    say(&format!("Exit code {code}. What happened on the way, from the sandbox's log:\n"))?;
    let mut shown: Vec<&str> = Vec::new();
    for entry in sandbox.host.log.snapshot() {
        if let Some(line) = explain(&entry)
            && !shown.contains(&line)
        {
            shown.push(line);
            say(&format!(
                "  {:>5} ms  {:<24} {line}\n",
                entry.at_ms,
                format!("{}:{}", entry.service, entry.operation)
            ))?;
        }
    }
    Ok(code)
}

fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| format!("stdout: {e}"))
}

/// Explains an operation's part in the deployment; the caller prints each explanation once.
fn explain(entry: &Entry) -> Option<&'static str> {
    if !entry.ok {
        return None;
    }
    let role = entry.principal.rsplit('/').next().unwrap_or_default();
    let (ci, launcher) = (entry.account == CI_ACCOUNT, role == "relay-launcher");
    Some(match (entry.service, entry.operation.as_str()) {
        ("sqs", "CreateQueue") => "CI created a queue for replies and a queue for cancellation.",
        ("sns", "Publish") if ci => "CI published one signed request. It may do nothing else in the target account.",
        ("lambda", "Invoke") => "The topic delivered the request to the launcher.",
        ("ecs", "DescribeTaskDefinition") => {
            "The launcher read the target's configuration, verified the signature, and evaluated the policy."
        }
        ("ecs", "RunTask") => {
            "The launcher started the task with the deployment's id as the client token, so repeating the call never starts a second task."
        }
        ("kms", "Sign") if launcher => {
            "The launcher signed its answer with the answer key, so that no one else can forge it."
        }
        ("credentials", "Get") => "The runner fetched its role's credentials.",
        ("s3", "PutObject") if !launcher && !ci => {
            "The runner verified everything again and claimed the deployment. A claim can never be made twice."
        }
        ("s3", "PutObject") if launcher => "The launcher left the signed request in the evidence bucket.",
        ("kms", "Sign") => "The runner created a key for this deployment, and had the target key vouch for it.",
        ("sqs", "SendMessage" | "SendMessageBatch") if !launcher && !ci => {
            "The runner ran the tool and sent the output as signed frames."
        }
        ("sqs", "ReceiveMessage") if ci => "CI received, verified and printed the frames.",
        ("ecs", "TaskStopped") => "The task ended.",
        ("sqs", "DeleteQueue") => "CI received the last frame and deleted the queues.",
        _ => return None,
    })
}
