//! Secrets Manager and SSM: the values behind the configuration's `[secrets]`.

use crate::error::from_sdk;
use crate::{AwsError, Kind, Sdk};

/// Both stores.
#[derive(Clone, Debug)]
pub struct Secrets {
    manager: aws_sdk_secretsmanager::Client,
    parameters: aws_sdk_ssm::Client,
}

impl Secrets {
    /// From a set-up.
    pub fn new(sdk: &Sdk) -> Self {
        Self {
            manager: aws_sdk_secretsmanager::Client::new(&sdk.config),
            parameters: aws_sdk_ssm::Client::new(&sdk.config),
        }
    }

    /// The value at `arn`: of Secrets Manager, or of an SSM parameter, which is decrypted.
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
        output
            .secret_string
            .ok_or_else(|| AwsError::new("secretsmanager:GetSecretValue", Kind::NotFound, "the secret is not a text"))
    }
}
