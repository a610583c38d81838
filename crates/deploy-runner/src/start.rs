//! Startup: from the container's environment to a deployment that is verified and may be claimed
//! (clauses RUN-1 to RUN-4).

use std::time::Duration;

use relay_aws::objects::Objects;
use relay_aws::sessions::Sessions;
use relay_aws::{AwsError, Kind, Sdk, issuer_keys, metadata};
use relay_engine::Backoff;
use relay_policy::{Asked, Configuration, ConfigurationError, Pin, PinError};
use relay_protocol::keys::IssuerKeys;
use relay_protocol::limits::{BUNDLE_MAX, ISSUER_KEYS_FILE_MAX};
use relay_protocol::outcome::ExitCode;
use relay_protocol::request::RequestError;
use relay_protocol::{Bundle, Digest, EnvelopeError, RequestRef, VerifyError, overrides};
use tracing::info;

use crate::install;

/// The variable of the task definition that holds the configuration.
const CONFIGURATION: &str = "RELAY_CONFIGURATION";
/// The variable with the address of the ECS agent's metadata endpoint.
const METADATA: &str = "ECS_CONTAINER_METADATA_URI_V4";

/// The variable that points the SDK to an address for credentials. ECS does not set it; the sandbox
/// does.
const CREDENTIALS: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// Where ECS's agent answers, in every task on Fargate.
const AGENT: &str = "http://169.254.170.2/";

/// How often the request is read while S3 does not answer.
const TRIES: u32 = 10;

/// A verified deployment.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) configuration: Configuration,
    pub(crate) pin: Pin,
    pub(crate) asked: Asked,
    /// The SHA-256 of the request's object in the evidence bucket.
    pub(crate) request_json: Digest,
    /// The SHA-256 of the object with the keys that its tokens were judged by, if it has tokens.
    pub(crate) issuer_keys: Option<Digest>,
    pub(crate) sdk: Sdk,
    pub(crate) task_arn: String,
}

/// Why nothing runs and no frame reports it: no reader would accept one, or none needs to know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Arguments(#[from] PinError),
    #[error("the environment variable {0} is missing")]
    Missing(&'static str),
    #[error("{0} points to another place than ECS's agent; only the sandbox does that")]
    Agent(&'static str),
    #[error("the configuration does not have the digest that the entry point pins")]
    ConfigurationDigest,
    #[error("cannot read the configuration: {0}")]
    Configuration(#[from] ConfigurationError),
    #[error("the configuration is for the target {0}, not for the pinned one")]
    ConfigurationTarget(String),
    #[error("this task runs as {found}; the configuration requires the role {role} in the account {account}")]
    Identity { found: String, role: String, account: String },
    #[error("RELAY_REQUEST does not name a request: {0}")]
    RequestRef(#[from] serde_json::Error),
    #[error("RELAY_REQUEST names a request for {0}, which is another target")]
    OtherTarget(String),
    #[error("the evidence bucket has no {0}")]
    NoRequest(String),
    #[error("the request in the evidence bucket is not the one that RELAY_REQUEST names")]
    OtherRequest,
    #[error("{0}")]
    Tokens(String),
    #[error("the issuers' keys in the evidence are not those by which the tokens of this request are valid")]
    IssuerKeys,
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    #[error("{0}")]
    Unverified(#[from] VerifyError),
    #[error("{0}")]
    Place(#[from] RequestError),
    #[error("replayed: the deployment is already claimed by {0}")]
    Replayed(String),
    #[error("{0}")]
    Aws(#[from] AwsError),
}

impl Refusal {
    /// The container's exit code.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Aws(_) => ExitCode::Fault,
            _ => ExitCode::Refused,
        }
    }
}

/// Verifies the arguments, the configuration, the request and the task's own identity.
pub(crate) async fn start(arguments: &[String], variable: impl Fn(&str) -> Option<String>) -> Result<Started, Refusal> {
    let pin = Pin::parse(arguments)?;
    let text = variable(CONFIGURATION).ok_or(Refusal::Missing(CONFIGURATION))?;
    if !pin.fits(&text) {
        return Err(Refusal::ConfigurationDigest);
    }
    let configuration = Configuration::parse(&text)?;
    if configuration.target != pin.target {
        return Err(Refusal::ConfigurationTarget(configuration.target.to_string()));
    }
    let endpoint = variable(METADATA).ok_or(Refusal::Missing(METADATA))?;
    if configuration.endpoint.is_none() {
        check_agent(&endpoint, variable(CREDENTIALS).is_some())?;
    }
    let named = variable(overrides::VARIABLE).ok_or(Refusal::Missing(overrides::VARIABLE))?;
    let named = RequestRef::parse(&named)?;
    if named.target != configuration.target {
        return Err(Refusal::OtherTarget(named.target.to_string()));
    }
    let sdk = Sdk::pinned(configuration.topic.region(), configuration.endpoint.as_deref(), install::authorities());
    check_identity(&sdk, &configuration).await?;
    let objects = Objects::new(&sdk);
    let bytes = read(&objects, &configuration, named.evidence().request(), BUNDLE_MAX as u64).await?;
    let (asked, issuer_keys) = verify(&objects, &configuration, &named, &Bundle::parse(&bytes)?).await?;
    if !named.fits(asked.request(), asked.request.digest()) {
        return Err(Refusal::OtherRequest);
    }
    asked.request().check_place(&configuration.topic, &configuration.target)?;
    let task_arn = metadata::task_arn(&endpoint).await?;
    let id = &asked.request().deployment_id;
    info!(deployment_id = %id, target = %configuration.target, task_arn, "verified");
    Ok(Started { configuration, pin, asked, request_json: Digest::of(&bytes), issuer_keys, sdk, task_arn })
}

/// Checks that credentials and metadata come from ECS's agent: an override could name another
/// address, and the runner would use what answers there (clause RUN-3).
fn check_agent(metadata: &str, other_credentials: bool) -> Result<(), Refusal> {
    match (metadata.starts_with(AGENT), other_credentials) {
        (true, false) => Ok(()),
        (false, _) => Err(Refusal::Agent(METADATA)),
        (true, true) => Err(Refusal::Agent(CREDENTIALS)),
    }
}

/// Verifies the request. Tokens are judged by the issuers' keys as they are now, and again by those
/// that the launcher left in the evidence: both must say the same, because later readers have the
/// launcher's alone (clause SIG-8). The digest is that of the launcher's.
async fn verify(
    objects: &Objects,
    configuration: &Configuration,
    named: &RequestRef,
    bundle: &Bundle,
) -> Result<(Asked, Option<Digest>), Refusal> {
    let names = relay_policy::key_names(bundle, configuration);
    if names.is_empty() {
        return Ok((relay_policy::verify(bundle, configuration, &IssuerKeys::default())?, None));
    }
    let now = issuer_keys::read(objects, &configuration.bucket, &names).await?;
    let by_now = relay_policy::verify(bundle, configuration, &now)
        .map_err(|error| Refusal::Tokens(relay_policy::explain(&error, bundle, configuration, &now)))?;
    let left = read(objects, configuration, named.evidence().issuer_keys(), ISSUER_KEYS_FILE_MAX).await?;
    let keys = IssuerKeys::parse(&left).map_err(|_| Refusal::IssuerKeys)?;
    let asked = relay_policy::verify(bundle, configuration, &keys)?;
    if asked.canonical() != by_now.canonical() || !keys.have_the_keys_of(&by_now.keys) {
        return Err(Refusal::IssuerKeys);
    }
    Ok((asked, Some(Digest::of(&left))))
}

/// Reads an object of the evidence. While S3 does not answer, it tries again, for about half a
/// minute.
async fn read(objects: &Objects, configuration: &Configuration, key: String, max: u64) -> Result<Vec<u8>, Refusal> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for attempt in 1.. {
        match objects.get(&configuration.evidence, &key, max).await {
            Ok(Some(object)) => return Ok(object.bytes),
            Err(error) if error.is_transient() && attempt < TRIES => {}
            Err(error) if error.kind != Kind::NotFound => return Err(error.into()),
            // A bucket that is not there has no request either.
            Ok(None) | Err(_) => break,
        }
        tokio::time::sleep(backoff.pause()).await;
    }
    Err(Refusal::NoRequest(key))
}

/// Checks that the account and the role's name are those of the configuration (clause RUN-4). A
/// task started under another role holds other power.
async fn check_identity(sdk: &Sdk, configuration: &Configuration) -> Result<(), Refusal> {
    let identity = Sessions::new(sdk).identity().await?;
    let account = configuration.topic.account();
    if identity.account == account.as_str() && identity.role() == Some(configuration.runner_role.as_str()) {
        return Ok(());
    }
    Err(Refusal::Identity {
        found: identity.arn,
        role: configuration.runner_role.clone(),
        account: account.to_string(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    // clause: RUN-3
    #[test]
    fn only_ecs_tells_the_runner_who_it_is() {
        assert!(check_agent("http://169.254.170.2/v4/abc", false).is_ok());
        for other in ["http://169.254.170.2.evil.example/", "http://169.254.170.2:80@evil.example/", "http://10.0.0.1/"]
        {
            assert!(matches!(check_agent(other, false), Err(Refusal::Agent(METADATA))), "{other}");
        }
        assert!(matches!(check_agent("http://169.254.170.2/v4", true), Err(Refusal::Agent(CREDENTIALS))));
    }
}
