//! STS: who am I, and the tool's role.

use aws_credential_types::Credentials;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;
use aws_sdk_sts::types::Tag;

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// STS.
#[derive(Clone, Debug)]
pub struct Sessions {
    client: aws_sdk_sts::Client,
}

/// Who the credentials belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: String,
    /// The ARN, such as `arn:aws:sts::222222222222:assumed-role/relay-payments-production/…`.
    pub arn: String,
}

impl Identity {
    pub(crate) fn from_output(output: GetCallerIdentityOutput) -> Self {
        Self { account: output.account.unwrap_or_default(), arn: output.arn.unwrap_or_default() }
    }

    /// The role's name, when it is a role: STS shows no path.
    pub fn role(&self) -> Option<&str> {
        self.arn.split_once(":assumed-role/")?.1.split('/').next()
    }
}

/// Credentials for the tool.
#[derive(Clone, Debug)]
pub struct Assumed {
    /// Key, secret and token.
    pub credentials: Credentials,
}

impl Sessions {
    /// From a set-up.
    pub fn new(sdk: &Sdk) -> Self {
        Self { client: aws_sdk_sts::Client::new(&sdk.config) }
    }

    /// Who am I?
    pub async fn identity(&self) -> Result<Identity, AwsError> {
        self.client
            .get_caller_identity()
            .send()
            .await
            .map(Identity::from_output)
            .map_err(from_sdk("sts:GetCallerIdentity"))
    }

    /// Assumes `role` in the name of a deployment: session name, source identity and a tag say which, in CloudTrail, on each call. An hour
    /// is what role chaining allows at most.
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
            .duration_seconds(3_600);
        let output = call.send().await.map_err(from_sdk("sts:AssumeRole"))?;
        let given = output
            .credentials
            .ok_or_else(|| AwsError::new("sts:AssumeRole", Kind::Unreachable, "the answer has no credentials"))?;
        let expiry = std::time::SystemTime::try_from(given.expiration).ok();
        let credentials =
            Credentials::new(given.access_key_id, given.secret_access_key, Some(given.session_token), expiry, "relay");
        Ok(Assumed { credentials })
    }
}
