//! Identity tokens: where the job's own token comes from, so that CI needs no key (clause SIG-5).
//!
//! GitHub and Buildkite issue a token for an audience that the job chooses. Everywhere else, the
//! job's role of AWS has one from STS, or a program prints one.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use relay_aws::fetch::{Fetch, FetchError};
use relay_aws::sessions::Sessions;
use relay_aws::{Kind, Sdk};
use relay_console::Failure;
use relay_protocol::keys::Token;
use relay_protocol::limits::SIGNATURE_MAX;
use relay_protocol::outcome::ExitCode;
use relay_protocol::{Digest, Region};
use tokio::process::Command;

/// What `--key` says for a token.
pub(crate) const OIDC: &str = "oidc";

/// The life of a token that relay may choose: the shortest of which every request lives.
const LIFE: Duration = Duration::from_secs(300);

/// How long a program may take to print a token.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer of GitHub's endpoint, in bytes.
const ANSWER_MAX: usize = 64 * 1_024;

/// The permission that a job on GitHub lacks when its endpoint is not there.
const PERMISSION: &str = "add `permissions: id-token: write` to the job";

/// Where tokens come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenSource {
    /// A program that prints a token. Its only argument is the audience.
    Program(PathBuf),
    /// GitHub's endpoint, with the job's own bearer token.
    GitHub { url: String, bearer: String },
    /// `buildkite-agent oidc request-token`.
    Buildkite,
    /// `sts:GetWebIdentityToken`, in this region or the environment's.
    Aws(Option<Region>),
}

impl TokenSource {
    /// The source for a job with this environment.
    pub(crate) fn of(region: Option<&Region>, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        match (set("ACTIONS_ID_TOKEN_REQUEST_URL"), set("ACTIONS_ID_TOKEN_REQUEST_TOKEN")) {
            (Some(url), Some(bearer)) => return Ok(Self::GitHub { url, bearer }),
            // An account in AWS does not help a job on GitHub that forgot the permission: its
            // targets expect GitHub's claims.
            _ if set("GITHUB_ACTIONS").is_some() && set("AWS_ACCESS_KEY_ID").is_none() => {
                return Err(Failure::usage("this job may not ask GitHub for an identity token").hint(PERMISSION));
            }
            _ => {}
        }
        if set("BUILDKITE").is_some() {
            return Ok(Self::Buildkite);
        }
        Ok(Self::Aws(region.cloned()))
    }

    /// The source in words.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Program(program) => format!("the program {}", program.display()),
            Self::GitHub { .. } => "GitHub's token endpoint".to_owned(),
            Self::Buildkite => "the Buildkite agent".to_owned(),
            Self::Aws(_) => "AWS STS".to_owned(),
        }
    }

    /// A token for one envelope: its only audience is the envelope's digest.
    pub(crate) async fn token(&self, digest: Digest) -> Result<String, Failure> {
        let audience = Token::audience_for(digest);
        let text = match self {
            Self::Program(program) => printed(Command::new(program).arg(&audience), &self.words()).await?,
            Self::GitHub { url, bearer } => from_github(url, bearer, &audience).await?,
            Self::Buildkite => {
                let mut agent = Command::new("buildkite-agent");
                agent.args(["oidc", "request-token", "--audience", &audience, "--lifetime", "300"]);
                agent.args(["--claim", "organization_id", "--claim", "pipeline_id"]);
                printed(&mut agent, &self.words()).await?
            }
            Self::Aws(region) => from_aws(region.as_ref(), &audience).await?,
        };
        let text = text.trim();
        self.check(text, &audience)?;
        Ok(text.to_owned())
    }

    /// Finds here what the launcher would only call `unverified`.
    fn check(&self, text: &str, audience: &str) -> Result<(), Failure> {
        let odd =
            |problem: String| Failure::usage(format!("the identity token of {} cannot sign: {problem}", self.words()));
        if text.len() > SIGNATURE_MAX {
            return Err(odd(format!("it has {} characters; the limit is {SIGNATURE_MAX}", text.len())));
        }
        let token = Token::parse(text).map_err(|error| odd(error.to_string()))?;
        if token.audience() != audience {
            return Err(odd("it is not for the audience that was asked for".to_owned()).hint(
                "the issuer must let the job choose the audience; where it does not, use the job's role of AWS",
            ));
        }
        Ok(())
    }
}

async fn from_github(url: &str, bearer: &str, audience: &str) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Answer {
        value: String,
    }
    let asking = |error: FetchError| {
        let failure = Failure::new(ExitCode::Fault, format!("asking GitHub for an identity token: {error}"));
        match error {
            FetchError::Status { status: 401 | 403 | 404, .. } => failure.hint(PERMISSION),
            _ => failure.hint("check the network and the proxy, then try again"),
        }
    };
    let joined = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{joined}audience={}", audience.replace(':', "%3A"));
    let headers = [("authorization", format!("bearer {bearer}")), ("accept", "application/json".to_owned())];
    let answer = Fetch::from_environment().map_err(asking)?.get(&url, &headers, ANSWER_MAX).await.map_err(asking)?;
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| Failure::new(ExitCode::Fault, "GitHub's token endpoint answered, but not with a token"))?;
    Ok(answer.value)
}

async fn from_aws(region: Option<&Region>, audience: &str) -> Result<String, Failure> {
    let sessions = Sessions::new(&Sdk::from_environment(region).await);
    sessions.identity_token(audience, LIFE).await.map_err(|error| {
        let failure = Failure::aws("asking STS for an identity token", &error);
        match error.code.as_deref() {
            Some(code) if code.starts_with("OutboundWebIdentityFederationDisabled") => failure.hint(
                "an administrator of the CI account must enable it once: aws iam enable-outbound-web-identity-federation",
            ),
            // Without that permission, a job on GitHub has no endpoint to ask, and STS is asked.
            _ if std::env::var_os("GITHUB_ACTIONS").is_some() => {
                failure.hint(format!("for a token of GitHub, {PERMISSION}"))
            }
            _ if error.kind == Kind::Denied => {
                failure.hint("the role needs sts:GetWebIdentityToken, as the template ci-pipeline.yaml grants it")
            }
            _ => failure,
        }
    })
}

/// What a program prints. Nothing of it is logged: it may be a token.
async fn printed(command: &mut Command, what: &str) -> Result<String, Failure> {
    let failed = |problem: String| {
        Failure::new(ExitCode::Fault, format!("{what} gave no identity token: {problem}"))
            .hint("run it by hand with an audience as its only argument; it must print the token alone")
    };
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true).spawn();
    let ending = child.map_err(|error| failed(error.to_string()))?.wait_with_output();
    let seconds = PATIENCE.as_secs();
    let ended = tokio::time::timeout(PATIENCE, ending)
        .await
        .map_err(|_| failed(format!("it ran for more than {seconds} s")))?;
    let output = ended.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("it ended with {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| failed("it printed something that is not text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: SIG-5
    #[test]
    fn a_job_has_one_source() {
        let region: Region = "eu-west-1".parse().unwrap();
        let of = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
            TokenSource::of(Some(&region), value)
        };
        let github = [
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "u"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "t"),
            ("GITHUB_ACTIONS", "true"),
        ];
        assert!(matches!(of(&github), Ok(TokenSource::GitHub { .. })));
        assert_eq!(of(&[("BUILDKITE", "true")]).unwrap(), TokenSource::Buildkite);
        assert_eq!(of(&[]).unwrap(), TokenSource::Aws(Some(region.clone())));
        assert_eq!(
            of(&[("GITHUB_ACTIONS", "true"), ("AWS_ACCESS_KEY_ID", "A")]).unwrap(),
            TokenSource::Aws(Some(region.clone()))
        );
        assert!(of(&[("GITHUB_ACTIONS", "true")]).is_err());
    }
}
