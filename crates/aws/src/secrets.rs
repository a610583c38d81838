//! Secrets Manager and SSM: reads the values behind the configuration's `[secrets]`.

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// A client of both stores.
#[derive(Clone, Debug)]
pub struct Secrets {
    manager: aws_sdk_secretsmanager::Client,
    parameters: aws_sdk_ssm::Client,
}

impl Secrets {
    /// Creates the clients from `sdk`.
    pub fn new(sdk: &Sdk) -> Self {
        Self {
            manager: aws_sdk_secretsmanager::Client::new(&sdk.config),
            parameters: aws_sdk_ssm::Client::new(&sdk.config),
        }
    }

    /// Reads the SSM parameter with this ARN, decrypted.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] when there is no value; otherwise the error of the call.
    pub async fn parameter(&self, arn: &str) -> Result<String, AwsError> {
        let call = self.parameters.get_parameter().name(arn).with_decryption(true);
        let output = call.send().await.map_err(from_sdk("ssm:GetParameter"))?;
        output
            .parameter
            .and_then(|parameter| parameter.value)
            .ok_or_else(|| AwsError::new("ssm:GetParameter", Kind::NotFound, "the parameter has no value"))
    }

    /// Reads the secret with this ARN, in the version that a staging label or an id names.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] when there is no value or it is not text; otherwise the error of the
    /// call.
    pub async fn secret(&self, arn: &str, stage: Option<&str>, version: Option<&str>) -> Result<String, AwsError> {
        let call = self.manager.get_secret_value().secret_id(arn);
        let call = call.set_version_stage(stage.map(str::to_owned)).set_version_id(version.map(str::to_owned));
        let output = call.send().await.map_err(from_sdk("secretsmanager:GetSecretValue"))?;
        output.secret_string.ok_or_else(|| {
            AwsError::new("secretsmanager:GetSecretValue", Kind::NotFound, "the secret has no string value")
        })
    }
}
