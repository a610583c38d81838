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

    /// Reads the value at `arn`, from Secrets Manager or from an SSM parameter, which SSM decrypts.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] when there is no value or it is not text; otherwise the error of the
    /// call.
    pub async fn read(&self, arn: &str) -> Result<String, AwsError> {
        if arn.contains(":ssm:") {
            let output = self
                .parameters
                .get_parameter()
                .name(arn)
                .with_decryption(true)
                .send()
                .await
                .map_err(from_sdk("ssm:GetParameter"))?;
            return output
                .parameter
                .and_then(|parameter| parameter.value)
                .ok_or_else(|| AwsError::new("ssm:GetParameter", Kind::NotFound, "the parameter has no value"));
        }
        let output = self
            .manager
            .get_secret_value()
            .secret_id(arn)
            .send()
            .await
            .map_err(from_sdk("secretsmanager:GetSecretValue"))?;
        output.secret_string.ok_or_else(|| {
            AwsError::new("secretsmanager:GetSecretValue", Kind::NotFound, "the secret has no string value")
        })
    }
}
