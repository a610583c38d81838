//! The one form in which a binary says what went wrong: what happened, in whose hands it is, what to do next.

use std::{fmt, io};

use relay_aws::{AwsError, Kind};
use relay_protocol::outcome::ExitCode;

use crate::harmless;

/// A failure at the edge: rendered as `error:` and `hint:` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the program exits with.
    pub exit: ExitCode,
    /// What happened.
    pub error: String,
    /// What to do next.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(exit: ExitCode, error: impl Into<String>) -> Self {
        Self { exit, error: error.into(), hints: Vec::new() }
    }

    /// Usage or configuration.
    pub fn usage(error: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, error)
    }

    /// With one more hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// A failed call to AWS, while relay was `doing`.
    pub fn aws(doing: &str, error: &AwsError) -> Self {
        let failure = Self::new(ExitCode::Fault, format!("{doing}: {error}"));
        match error.kind {
            Kind::Denied => failure.hint(format!("the credentials in use lack {}, or the other side's resource policy does not name them", error.operation)),
            Kind::Credentials => failure.hint("there are no valid AWS credentials here: set AWS_PROFILE or AWS_ACCESS_KEY_ID, or give the CI job its role"),
            Kind::NotFound => failure.hint("check the name, the account and the region"),
            Kind::Throttled => failure.hint("AWS is throttling: try again in a minute"),
            Kind::Unreachable => failure.hint("check the network, the proxy and AWS_ENDPOINT_URL, then try again"),
            Kind::Precondition | Kind::Conflict | Kind::Invalid => failure,
        }
    }
}

/// The answer could not be written.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(ExitCode::Fault, format!("the answer cannot be written: {error}"))
    }
}

/// `error:` and `hint:` lines, [`harmless`]; what goes on in a further line is marked, so that a stranger's text cannot look like a hint.
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
