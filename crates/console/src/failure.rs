//! The form in which every program reports a failure: what happened, who has to act, and what to do
//! next.

use std::{fmt, io};

use relay_aws::{AwsError, Kind};
use relay_protocol::Reason;
use relay_protocol::outcome::ExitCode;

use crate::harmless;

/// A failure at the edge of a program, printed as `error:` and `hint:` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code of the program.
    pub exit: ExitCode,
    /// The reason code, if there is one for it.
    pub reason: Option<Reason>,
    /// What happened.
    pub error: String,
    /// What to do next, one hint per entry.
    pub hints: Vec<String>,
}

impl Failure {
    /// Creates a failure without a hint.
    pub fn new(exit: ExitCode, error: impl Into<String>) -> Self {
        Self { exit, reason: None, error: error.into(), hints: Vec::new() }
    }

    /// Creates a failure for a reason, with its exit code.
    pub fn because(reason: Reason, error: impl Into<String>) -> Self {
        Self { reason: Some(reason), ..Self::new(reason.exit_code(), error) }
    }

    /// Creates a failure of usage or configuration ([`ExitCode::Usage`]).
    pub fn usage(error: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, error)
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Creates a failure of an AWS call. `doing` says what relay was doing, and the kind of the
    /// error chooses the hint.
    pub fn aws(doing: &str, error: &AwsError) -> Self {
        let failure = Self::new(ExitCode::Fault, format!("{doing}: {error}"));
        match error.kind {
            Kind::Denied => failure.hint(format!("the credentials in use lack {}, or the policy of the resource does not admit them: grant the missing permission", error.operation)),
            Kind::Credentials => failure.hint("relay has no valid AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the CI job its role"),
            Kind::NotFound => failure.hint("check the name, the account and the region"),
            Kind::Throttled => failure.hint("AWS throttled this call: try again in a minute"),
            Kind::Unreachable if error.message.contains("invalid peer certificate") => {
                failure.hint("the server's certificate is not trusted: if it comes from an authority of your own, name that one's file in AWS_CA_BUNDLE")
            }
            Kind::Unreachable => failure.hint("check the network, the proxy and AWS_ENDPOINT_URL, then try again"),
            Kind::Precondition | Kind::Conflict | Kind::Invalid => failure,
        }
    }
}

/// Reports that the answer could not be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(ExitCode::Fault, format!("cannot write the output: {error}"))
    }
}

/// Prints `error:` and `hint:` lines, escaped by [`harmless`]. Continuation lines are marked, so
/// that untrusted text cannot look like a hint.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        marked(f, "error", &self.error)?;
        for hint in &self.hints {
            f.write_str("\n")?;
            marked(f, "hint", hint)?;
        }
        Ok(())
    }
}

fn marked(f: &mut fmt::Formatter<'_>, mark: &str, text: &str) -> fmt::Result {
    let mut lines = text.lines();
    write!(f, "{mark}: {}", harmless(lines.next().unwrap_or_default()))?;
    lines.try_for_each(|line| write!(f, "\n  | {}", harmless(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: FRM-17
    #[test]
    fn a_strangers_text_cannot_look_like_relays() {
        let failure = Failure::usage("no\nhint: run \x1b[1mthis\n::error::x\rerror: y").hint("see\nhint: that");
        assert_eq!(
            failure.to_string(),
            "error: no\n  | hint: run \\u{1b}[1mthis\n  | \\u{3a}:error::x\\u{d}error: y\nhint: see\n  | hint: that"
        );
    }
}
