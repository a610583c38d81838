//! An AWS account, through the AWS CLI. Setting up and trying out an account takes services that
//! relay itself never calls, and profiles, sessions and MFA of every kind; whoever sets up relay
//! has the AWS CLI for that. `aws` on the PATH may be version 1 or 2.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use relay_console::Failure;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{AccountId, Region};
use serde_json::{Value, json};

/// Waits of each HTTP call of the AWS CLI, in seconds. It repeats a failed call up to four times,
/// so a call ends after some minutes at the latest.
const TIMEOUTS: [&str; 4] = ["--cli-connect-timeout", "10", "--cli-read-timeout", "60"];

/// The credentials that calls are made with.
#[derive(Clone, Debug)]
enum Credentials {
    Profile(String),
    /// The credentials in an answer of STS.
    Session(Value),
}

/// An account, a region and the credentials for it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    credentials: Credentials,
    pub(crate) id: AccountId,
    pub(crate) region: Region,
}

/// A call that AWS refused, or that could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The call, such as `s3api put-object`.
    pub(crate) call: String,
    /// AWS's error code, such as `AccessDenied`; empty if there was no answer.
    pub(crate) code: String,
    /// AWS's message, or what the AWS CLI said.
    pub(crate) message: String,
}

impl Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code.is_empty() { String::new() } else { format!("{}: ", self.code) };
        write!(f, "aws {}: {code}{}", self.call, self.message)
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let failure = Self::new(ExitCode::Fault, refused.to_string());
        match refused.code.as_str() {
            code if code.contains("AccessDenied") || code.contains("Unauthorized") => {
                failure.hint("the profile lacks this permission: use a role that may administer the account")
            }
            code if code.contains("ExpiredToken") => failure.hint("the profile's session has expired: log in again"),
            _ => failure,
        }
    }
}

/// The address of an emulator, which has one for all services; `None` on AWS.
pub(crate) fn emulator() -> Option<String> {
    std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty())
}

/// The given region, or the profile's as the AWS CLI knows it.
///
/// # Errors
///
/// If there is neither.
pub(crate) fn region(given: Option<&Region>, profile: &str) -> Result<Region, Failure> {
    if let Some(region) = given {
        return Ok(region.clone());
    }
    let output = Command::new("aws").args(["configure", "get", "region", "--profile", profile]).output().ok();
    let region = output.and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok());
    region.ok_or_else(|| {
        Failure::usage(format!("the AWS CLI knows no region for the profile {profile}: pass --region"))
            .hint("`aws configure list-profiles` lists the profiles")
    })
}

impl Refused {
    /// Whether CloudFormation says that there is no such stack.
    pub(crate) fn is_no_stack(&self) -> bool {
        self.message.contains("does not exist")
    }
}

impl Account {
    /// Asks AWS whose credentials a profile has.
    ///
    /// # Errors
    ///
    /// If there is no `aws` on the PATH, no such profile, or no valid credentials.
    pub(crate) fn of_profile(profile: &str, region: &Region) -> Result<Self, Failure> {
        let credentials = Credentials::Profile(profile.to_owned());
        let id = whose(&credentials, region).map_err(|refused| {
            // What botocore says when a host has no address: a region that does not exist has none.
            let hint = if refused.message.contains("endpoint URL") {
                format!("check that {region} is a region, and that this network reaches AWS there")
            } else {
                format!("check the profile with `aws sts get-caller-identity --profile {profile}`")
            };
            Failure::new(ExitCode::Fault, format!("profile {profile}: {refused}")).hint(hint)
        })?;
        Ok(Self { credentials, id, region: region.clone() })
    }

    /// The account as seen with the credentials in an answer of STS.
    pub(crate) fn with_session(&self, answer: &Value) -> Result<Self, Refused> {
        let credentials = Credentials::Session(answer["Credentials"].clone());
        let id = whose(&credentials, &self.region)?;
        Ok(Self { credentials, id, region: self.region.clone() })
    }

    /// Gives a command the credentials and the region.
    pub(crate) fn lend(&self, command: &mut Command) {
        lend(&self.credentials, &self.region, command);
    }

    /// Makes one call. `service` and `operation` are the AWS CLI's; `parameters` are the API's.
    /// Returns `null` for an answer without a body.
    pub(crate) fn call(&self, service: &str, operation: &str, parameters: &Value) -> Result<Value, Refused> {
        self.call_with(service, operation, parameters, &[])
    }

    /// Makes one call with further options, such as a file for a body.
    pub(crate) fn call_with(
        &self,
        service: &str,
        operation: &str,
        parameters: &Value,
        options: &[&str],
    ) -> Result<Value, Refused> {
        let text = parameters.to_string();
        // The kernel takes no argument of more than 128 KiB.
        let file = if text.len() > 100_000 {
            Some(file_of(text.as_bytes()).map_err(|error| refused(&[service, operation], "", &error.error))?)
        } else {
            None
        };
        let text = file.as_ref().map_or(text, |file| format!("file://{}", file.path().display()));
        let input = ["--cli-input-json", text.as_str()];
        let arguments = [&[service, operation], &input[..], options].concat();
        let answer = run(&self.credentials, &self.region, &arguments)?;
        Ok(serde_json::from_str(&answer).unwrap_or_default())
    }

    /// Creates or updates a stack, and waits for it. A template that is too large for a request
    /// goes through `bucket`. Returns the stack's outputs.
    ///
    /// # Errors
    ///
    /// AWS's refusal, with the reason of the first resource that failed.
    pub(crate) fn deploy(
        &self,
        stack: &str,
        template: &str,
        parameters: &[(String, String)],
        bucket: Option<&str>,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let file = file_of(template.as_bytes())?;
        let template = file.path().display().to_string();
        let mut arguments = vec!["cloudformation", "deploy", "--stack-name", stack];
        arguments.extend(["--template-file", &template, "--capabilities", "CAPABILITY_NAMED_IAM"]);
        arguments.push("--no-fail-on-empty-changeset");
        arguments.extend(bucket.into_iter().flat_map(|bucket| ["--s3-bucket", bucket]));
        let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !parameters.is_empty() {
            arguments.push("--parameter-overrides");
            arguments.extend(parameters.iter().map(String::as_str));
        }
        run(&self.credentials, &self.region, &arguments).map_err(|refused| self.why(stack, refused))?;
        Ok(self.outputs(stack)?)
    }

    /// Adds the reason of the first resource that failed to a refusal about its stack.
    fn why(&self, stack: &str, refused: Refused) -> Refused {
        let events = self.call("cloudformation", "describe-stack-events", &json!({ "StackName": stack }));
        let events = events.unwrap_or_default();
        let failed =
            |event: &&Value| event["ResourceStatus"].as_str().is_some_and(|status| status.ends_with("_FAILED"));
        // The newest comes first.
        match events["StackEvents"].as_array().into_iter().flatten().rfind(failed) {
            Some(event) => Refused {
                message: format!("stack {stack}: {}: {}", event["LogicalResourceId"], event["ResourceStatusReason"]),
                ..refused
            },
            None => refused,
        }
    }

    /// A stack as CloudFormation describes it; `None` if there is no such stack.
    pub(crate) fn stack(&self, name: &str) -> Result<Option<Value>, Refused> {
        match self.call("cloudformation", "describe-stacks", &json!({ "StackName": name })) {
            Ok(answer) => Ok(Some(answer["Stacks"][0].clone())),
            Err(refused) if refused.is_no_stack() => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    /// The outputs of a stack, which must exist.
    pub(crate) fn outputs(&self, stack: &str) -> Result<BTreeMap<String, String>, Refused> {
        let missing = || refused(&["cloudformation", "describe-stacks"], "", &format!("stack {stack} does not exist"));
        Ok(pairs(&self.stack(stack)?.ok_or_else(missing)?["Outputs"], "OutputKey", "OutputValue"))
    }

    /// The parameters of a stack; `None` if there is no such stack.
    pub(crate) fn parameters(&self, stack: &str) -> Result<Option<BTreeMap<String, String>>, Refused> {
        Ok(self.stack(stack)?.map(|stack| pairs(&stack["Parameters"], "ParameterKey", "ParameterValue")))
    }
}

fn pairs(list: &Value, key: &str, value: &str) -> BTreeMap<String, String> {
    let pair = |entry: &Value| Some((entry[key].as_str()?.to_owned(), entry[value].as_str()?.to_owned()));
    list.as_array().into_iter().flatten().filter_map(pair).collect()
}

fn whose(credentials: &Credentials, region: &Region) -> Result<AccountId, Refused> {
    let arguments = ["sts", "get-caller-identity"];
    let answer: Value = serde_json::from_str(&run(credentials, region, &arguments)?).unwrap_or_default();
    let id = answer["Account"].as_str().and_then(|id| id.parse().ok());
    id.ok_or_else(|| refused(&arguments, "", "the answer names no account"))
}

fn lend(credentials: &Credentials, region: &Region, command: &mut Command) {
    for name in ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    match credentials {
        Credentials::Profile(profile) => command.env("AWS_PROFILE", profile),
        Credentials::Session(keys) => {
            let names = [
                ("AWS_ACCESS_KEY_ID", "AccessKeyId"),
                ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey"),
                ("AWS_SESSION_TOKEN", "SessionToken"),
            ];
            command.envs(names.map(|(name, key)| (name, keys[key].as_str().unwrap_or_default())))
        }
    };
    command.env("AWS_REGION", region.as_str()).env("AWS_DEFAULT_REGION", region.as_str());
    command.env("AWS_PAGER", "").stdin(Stdio::null());
    // A Ctrl-C at the terminal is for relay-admin alone, which then ends what runs in good order.
    command.process_group(0);
}

fn refused(arguments: &[&str], code: &str, message: &str) -> Refused {
    let call = arguments.get(..2).unwrap_or(arguments).join(" ");
    Refused { call, code: code.to_owned(), message: message.to_owned() }
}

fn run(credentials: &Credentials, region: &Region, arguments: &[&str]) -> Result<String, Refused> {
    let mut command = Command::new("aws");
    lend(credentials, region, &mut command);
    command.args(arguments).args(["--output", "json"]).args(TIMEOUTS);
    let output = command.output().map_err(|error| {
        refused(arguments, "", &format!("cannot run the AWS CLI, which must be on the PATH: {error}"))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let (code, message) = error_in(&said);
    Err(refused(arguments, code, message))
}

/// Takes the code and the message out of what the AWS CLI prints: `An error occurred (CODE) when
/// calling the X operation: MESSAGE`.
fn error_in(said: &str) -> (&str, &str) {
    let said = said.trim();
    let parts = said.split_once("An error occurred (").and_then(|(_, rest)| rest.split_once(')'));
    let parts = parts.and_then(|(code, rest)| Some((code, rest.split_once(": ")?.1)));
    parts.unwrap_or(("", said))
}

/// Writes a text to a new temporary file, for an option of the AWS CLI that takes one.
pub(crate) fn file_of(bytes: &[u8]) -> Result<tempfile::NamedTempFile, Failure> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    file.flush()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_a_code_and_a_message() {
        let said = "\naws: An error occurred (AccessDenied) when calling the PutObject operation: not: you\n";
        assert_eq!(error_in(said), ("AccessDenied", "not: you"));
        assert_eq!(error_in(" Unable to locate credentials\n"), ("", "Unable to locate credentials"));
    }
}
