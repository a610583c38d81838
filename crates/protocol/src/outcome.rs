//! The registry of how a deployment ends: reason codes and exit codes, each defined once, with
//! their texts (clauses OUT-1 to OUT-4).
//!
//! Codes are stable, because users write scripts against them. A code is never reused for something
//! else.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The exit codes of relay's programs. `relay deploy` exits with the tool's own code if it has one
/// (clause OUT-3). 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The answer to a question is no. Only `relay-admin` uses it; `relay deploy` leaves 1 to the
    /// tool.
    No = 1,
    /// A usage or configuration error; nothing was published. Not 2, because 2 has a meaning in
    /// `terraform plan -detailed-exitcode`.
    Usage = 119,
    /// The launcher or the runner refused the request.
    Refused = 120,
    /// The request was allowed, but ECS never started the task.
    NeverStarted = 121,
    /// The outcome is unknown; the message says how to find out.
    Unknown = 122,
    /// The output has a gap, and `--strict-output` was given; or the record does not prove the end,
    /// and `--require-record` was given.
    Incomplete = 123,
    /// The deployment timed out on the server's side.
    TimedOut = 124,
    /// A fault in relay itself, or in the AWS services that it needs.
    Fault = 125,
    /// Cancelled by SIGINT to this process, or from elsewhere.
    Interrupted = 130,
    /// Cancelled by SIGTERM to this process.
    Terminated = 143,
}

impl ExitCode {
    /// All exit codes, for documents and tests.
    pub const ALL: &'static [Self] = &[
        Self::No,
        Self::Usage,
        Self::Refused,
        Self::NeverStarted,
        Self::Unknown,
        Self::Incomplete,
        Self::TimedOut,
        Self::Fault,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The meaning in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::No => "no: what was asked does not hold, or what was given is not proved",
            Self::Usage => "usage or configuration; nothing was published",
            Self::Refused => "refused before anything ran",
            Self::NeverStarted => "allowed, and never started",
            Self::Unknown => "the outcome is unknown; the message says how to find out",
            Self::Incomplete => {
                "output is missing, with --strict-output; no record proves the end, with --require-record"
            }
            Self::TimedOut => "timed out",
            Self::Fault => "a fault in relay, or AWS refused a call",
            Self::Interrupted => "cancelled by SIGINT, or from elsewhere",
            Self::Terminated => "cancelled by SIGTERM, SIGHUP or SIGQUIT",
        }
    }

    /// The exit code as a number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// The table of reasons: variant, wire code, exit code, explanation and next step.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $exit:ident, $words:literal, $hint:literal;)*) => {
        /// Why a deployment did not end with the tool's own result: a stable code (clause OUT-2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $words] $(#[$doc])* #[serde(rename = $code)] $variant,)*
        }

        impl Reason {
            /// All reasons, for documents and tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code on the wire.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The exit code of `relay deploy` for this reason.
            pub fn exit_code(self) -> ExitCode {
                match self { $(Self::$variant => ExitCode::$exit,)* }
            }

            /// The meaning in words.
            pub fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }

            /// Who is responsible, and what to do next.
            pub fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }
        }
    };
}

reasons! {
    // Refused before anything ran.
    Unverified = "unverified", Refused, "the request could not be verified", "check the target's name, and that its signers include the signing key, or fit the token; the launcher's log names the cause";
    Expired = "expired", Refused, "the request has expired", "run the deployment again; if this repeats, the launcher is behind: look at its dead-letter queue";
    NotYetValid = "not_yet_valid", Refused, "the request is not valid yet", "correct the CI agent's clock (NTP)";
    Lifetime = "lifetime", Refused, "the request's lifetime is too long", "create requests with this version of `relay`";
    Audience = "audience", Refused, "the request is meant for another topic", "check `topic` in relay.toml against the target's configuration";
    Target = "target", Refused, "the request is for another target", "check the target's name against its configuration";
    Queue = "queue", Refused, "the request names a queue that its signer may not use", "add the CI account to the signer's `ci_accounts`, or use that account's credentials";
    Parameter = "parameter", Refused, "a parameter does not match its rule", "correct the parameter; its rule is in the target's configuration, which the platform team keeps";
    Policy = "policy", Refused, "the target's policy does not allow this", "ask the owner of the target, whose policies decide; `relay-admin target check` finds conditions that are never true";
    Approval = "approval", Refused, "an approval is missing, or does not count", "wait for a colleague with `relay deploy --wait-approval 2h`; it prints the command for them";
    Busy = "busy", Refused, "another deployment of this target is running", "run yours again when it has ended, or let relay do it: `relay deploy --wait 20m`";
    IdInUse = "id_in_use", Refused, "another request has this deployment id", "run the deployment again; each run gets a new id";
    Frozen = "frozen", Refused, "deployments are frozen", "ask the platform team when the freeze ends";
    Artifact = "artifact", Refused, "an artifact is missing, too large, unsafe, or not what the request says", "build and upload the artifact again with `relay deploy --artifact`";
    TooLarge = "too_large", Refused, "the request, or the command line that it leads to, is too large", "shorten the parameters; put larger data into an artifact";
    Image = "image", Refused, "the task runs another image than the configuration names", "the target's owner should render the target's template again and deploy it: `images` in the configuration names both images by the digests of their manifests";
    // Allowed, but never started.
    Capacity = "capacity", NeverStarted, "ECS has no capacity at this time", "nobody's fault: run it again in a few minutes; if this repeats, the target's owner should add subnets in other zones";
    Quota = "quota", NeverStarted, "an ECS or Fargate quota is used up", "the target account's owner should ask AWS for a higher quota; until then, run fewer deployments at the same time";
    ImagePull = "image_pull", NeverStarted, "the image could not be pulled", "the target's owner should check the image's digest, the execution role and the network path to the registry";
    Network = "network", NeverStarted, "the task's network could not be set up", "the target's owner should check the subnets and security groups in the target's labels, and that the subnets have free addresses";
    TaskDefinition = "task_definition", NeverStarted, "the task definition cannot be run", "the target's owner should deploy the target's stack again";
    Launch = "launch", NeverStarted, "ECS refused to start the task", "the target's owner should read ECS's own message above and the launcher's log";
    // Started, then ended by something other than the tool.
    TimedOut = "timed_out", TimedOut, "the deployment timed out", "raise `timeout` in the target's configuration, or find out what hangs";
    Cancelled = "cancelled", Interrupted, "the deployment was cancelled", "run it again when you are ready";
    OutOfMemory = "out_of_memory", Unknown, "the container ran out of memory", "the target's owner should raise the task's memory; relay does not know how far the tool got: check what the tool had done before you run it again";
    Infrastructure = "infrastructure", Unknown, "AWS took the task's machine away", "nobody's fault; relay does not know how far the tool got: check what the tool had done before you run it again; the target's owner can keep the task off Spot capacity";
    Stopped = "stopped", Unknown, "the task was stopped from outside", "ask who stopped it: CloudTrail records the caller of StopTask; relay does not know how far the tool got: check what the tool had done before you run it again";
    Lost = "lost", Unknown, "contact with the deployment was lost", "look at the task in ECS; `relay attach` shows what may still arrive";
    Secret = "secret", Fault, "a secret could not be read", "check that the task role may read it";
    Role = "role", Fault, "the deploy role could not be assumed", "check that the deploy role trusts the task role";
    Runner = "runner", Fault, "the runner could not do its work", "see the task's log";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How a deployment ended, as the runner reports it: the `outcome` of `finished` (clause OUT-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The tool ran and ended by itself.
    Exited {
        /// The exit code of the step that failed, or else of the last step; 128+n if signal n ended
        /// it.
        code: u8,
        /// The signal that ended the step, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<i32>,
    },
    /// Something other than the tool decided the end.
    Ended {
        /// What decided it.
        reason: Reason,
        /// An explanation for people.
        message: String,
    },
}

impl Outcome {
    /// The exit code of the CLI.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited { code, .. } => *code,
            Self::Ended { reason, .. } => reason.exit_code().code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_are_what_the_wire_says() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{}\"", reason.code()));
        }
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn what_ecs_does_to_a_task_says_in_whose_hands_it_is() {
        let of_ecs = [
            Reason::Capacity,
            Reason::Quota,
            Reason::ImagePull,
            Reason::Network,
            Reason::TaskDefinition,
            Reason::Launch,
            Reason::OutOfMemory,
            Reason::Infrastructure,
            Reason::Stopped,
        ];
        for reason in of_ecs {
            let hint = reason.hint();
            let who = ["nobody's fault", "the target's owner", "the target account's owner", "ask who"];
            assert!(who.iter().any(|who| hint.starts_with(who)), "{reason}: {hint}");
            // Where a container ran, the hint must ask the reader to look before running anything
            // again.
            assert!(reason.exit_code() == ExitCode::NeverStarted || hint.contains("what the tool had done"), "{hint}");
        }
    }
}
