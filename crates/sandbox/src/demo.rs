//! `relay-sandbox demo`: one deployment, and then what happened on its way, read from the log.

use std::ffi::OsString;
use std::io::Write;

use crate::exec::{Signals, exec};
use crate::log::Entry;
use crate::server::Sandbox;

const BEFORE: &str = "\
This runs `relay deploy demo/hello --param name=world` against two AWS accounts, both of them on this machine:
  CI account 111111111111, which may only ask, and target account 222222222222, which decides and does the work.
The launcher (Lambda) and the runner (Fargate task) are the real binaries, as processes. What follows is what a CI log shows.
";

/// Runs the demonstration; the answer is the deployment's exit code.
pub(crate) async fn run(sandbox: &Sandbox, signals: Signals) -> Result<u8, String> {
    say(BEFORE)?;
    say("----------------------------------------------------------------\n")?;
    let command = ["relay", "deploy", "demo/hello", "--param", "name=world"].map(OsString::from);
    let code = exec(sandbox, &command, signals).await?;
    say("----------------------------------------------------------------\n")?;
    say(&format!("Exit code {code}. What happened on the way, from the sandbox's log:\n"))?;
    let mut shown: Vec<&str> = Vec::new();
    for entry in sandbox.world.log.snapshot() {
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

/// The meaning of an operation in this path; each is told once.
fn explain(entry: &Entry) -> Option<&'static str> {
    if !entry.ok {
        return None;
    }
    let role = entry.principal.rsplit('/').next().unwrap_or_default();
    let (ci, launcher) = (entry.account == crate::CI_ACCOUNT, role == "relay-launcher");
    Some(match (entry.service, entry.operation.as_str()) {
        ("sqs", "CreateQueue") => "CI made the queues that the answer comes back on and a cancel goes out on.",
        ("sns", "Publish") if ci => {
            "CI published the one signed request. It can do nothing else in the target account."
        }
        ("lambda", "Invoke") => "The topic woke the launcher with it.",
        ("ecs", "DescribeTaskDefinition") => {
            "The launcher read the target's configuration, verified the signature, and asked the policy."
        }
        ("ecs", "RunTask") => {
            "It started the task, with the deployment's id as token: however often this is repeated, it is one task."
        }
        ("kms", "Sign") if launcher => {
            "It signed its answer with the account's key, so that nobody else can answer for it."
        }
        ("credentials", "Get") => "The runner took its role's credentials.",
        ("s3", "PutObject") if !launcher && !ci => {
            "The runner verified everything again, and claimed the deployment: once, for ever."
        }
        ("kms", "Sign") => "It had its own key for this deployment vouched for by the account's key.",
        ("sqs", "SendMessage" | "SendMessageBatch") if !launcher && !ci => {
            "It ran the tool and sent the output as signed frames."
        }
        ("sqs", "ReceiveMessage") if ci => "CI received, verified and printed them.",
        ("ecs", "TaskStopped") => "The task ended.",
        ("sqs", "DeleteQueue") => "CI had the terminal frame, and removed the queues.",
        _ => return None,
    })
}
