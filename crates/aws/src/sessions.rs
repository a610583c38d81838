//! STS: tells whose credentials these are, and assumes the tool's role.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use aws_sdk_sts::types::Tag;

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// The lifetime of the tool's sessions: the shortest that STS gives. A session outlives its
/// deployment by no more than this.
pub const SESSION: Duration = Duration::from_secs(900);

/// A client of STS.
#[derive(Clone, Debug)]
pub struct Sessions {
    client: aws_sdk_sts::Client,
}

/// The owner of credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account's id.
    pub account: String,
    /// The ARN, such as `arn:aws:sts::222222222222:assumed-role/relay-payments-production/…`.
    pub arn: String,
}

impl Identity {
    pub(crate) fn from_output(output: GetCallerIdentityOutput) -> Self {
        Self { account: output.account.unwrap_or_default(), arn: output.arn.unwrap_or_default() }
    }

    /// The role's name, if the owner is a role. STS shows no path.
    pub fn role(&self) -> Option<&str> {
        self.arn.split_once(":assumed-role/")?.1.split('/').next()
    }
}

/// The credentials of the tool.
#[derive(Clone, Debug)]
pub struct Assumed {
    /// Access key, secret key and session token.
    pub credentials: Credentials,
}

impl Sessions {
    /// Creates the client from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_sts::Client::new(&sdk.config) }
    }

    /// Returns an identity token of the role in use, for one audience: `GetWebIdentityToken`, with
    /// ES384, and without tags.
    ///
    /// # Errors
    ///
    /// The error of the call. The code `OutboundWebIdentityFederationDisabled` means that the
    /// account has not enabled such tokens.
    pub async fn identity_token(&self, audience: &str, life: Duration) -> Result<String, AwsError> {
        let call = self.client.get_web_identity_token().audience(audience).signing_algorithm("ES384");
        let seconds = i32::try_from(life.as_secs()).unwrap_or(i32::MAX);
        let output = call.duration_seconds(seconds).send().await.map_err(from_sdk("sts:GetWebIdentityToken"))?;
        let nothing = || AwsError::new("sts:GetWebIdentityToken", Kind::Invalid, "the answer has no token");
        output.web_identity_token.ok_or_else(nothing)
    }

    /// Returns the owner of the credentials in use.
    ///
    /// # Errors
    ///
    /// The error of the call.
    pub async fn identity(&self) -> Result<Identity, AwsError> {
        self.client
            .get_caller_identity()
            .send()
            .await
            .map(Identity::from_output)
            .map_err(from_sdk("sts:GetCallerIdentity"))
    }

    /// Assumes `role` on behalf of a deployment, for [`SESSION`]. Session name, source identity and
    /// a tag name the deployment in CloudTrail on each call.
    ///
    /// # Errors
    ///
    /// The error of the call, or [`Kind::Unreachable`] when the answer has no credentials.
    pub async fn assume(&self, role: &str, deployment_id: &str, target: &str) -> Result<Assumed, AwsError> {
        let wrong = |error: aws_smithy_types::error::operation::BuildError| {
            AwsError::new("sts:AssumeRole", Kind::Invalid, error.to_string())
        };
        let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build().map_err(wrong);
        let call = self
            .client
            .assume_role()
            .role_arn(role)
            .role_session_name(deployment_id)
            .source_identity(deployment_id)
            .tags(tag("relay-deployment", deployment_id)?)
            .tags(tag("relay-target", target)?)
            .duration_seconds(i32::try_from(SESSION.as_secs()).unwrap_or(900));
        let output = call.send().await.map_err(from_sdk("sts:AssumeRole"))?;
        let given = output
            .credentials
            .ok_or_else(|| AwsError::new("sts:AssumeRole", Kind::Unreachable, "the response has no credentials"))?;
        let expiry = std::time::SystemTime::try_from(given.expiration).ok();
        let credentials =
            Credentials::new(given.access_key_id, given.secret_access_key, Some(given.session_token), expiry, "relay");
        Ok(Assumed { credentials })
    }
}
