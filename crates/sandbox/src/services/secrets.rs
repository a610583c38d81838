//! Secrets Manager and the SSM parameter store, as far as a runner reads them.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::json;

use super::call::Call;
use super::contract::{Effect, Reaction, Table};
use super::principal::REGION;
use super::resource_policy::authorise;
use crate::wire::answer::Answer;
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::{epoch_seconds, uuid};

pub(crate) const SECRETS_MANAGER: Table<Secrets> = &[("GetSecretValue", Secrets::get_secret)];

pub(crate) const SSM: Table<Secrets> = &[("GetParameter", Secrets::get_parameter)];

/// Values by ARN.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    secrets: BTreeMap<String, Secret>,
    parameters: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Secret {
    value: String,
    version: String,
}

impl Secrets {
    /// Stores a secret or a parameter, whichever the ARN names. A secret's ARN ends in a hyphen and
    /// six characters that its name does not have.
    pub(crate) fn put(&mut self, arn: &str, value: &str) {
        let value = value.to_owned();
        if arn.contains(":ssm:") {
            self.parameters.insert(arn.to_owned(), value);
        } else {
            self.secrets.insert(arn.to_owned(), Secret { value, version: uuid() });
        }
    }

    /// Finds a secret by its ARN, by its ARN without the six characters, or by its name in the
    /// caller's account.
    fn get_secret(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let id = call.params.text_or_empty("SecretId");
        let own = format!("arn:aws:secretsmanager:{REGION}:{}:secret:{id}", call.principal.account);
        let short = |arn: &str| arn.rsplit_once('-').map(|(short, _)| short.to_owned());
        let is = |arn: &str| arn == id || short(arn).is_some_and(|short| short == id || short == own);
        let (arn, secret) = self.secrets.iter().find(|(arn, _)| is(arn)).ok_or_else(|| {
            AwsError::client("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        })?;
        let owner = arn.split(':').nth(4).unwrap_or_default();
        authorise(owner, None, &call.principal, "secretsmanager:GetSecretValue", arn)?;
        let name = short(arn).and_then(|short| short.split_once(":secret:").map(|(_, name)| name.to_owned()));
        Ok(Answer::Json(json!({
            "ARN": arn, "Name": name, "VersionId": secret.version, "VersionStages": ["AWSCURRENT"],
            "CreatedDate": epoch_seconds(call.now.ms), "SecretString": secret.value,
        }))
        .into())
    }

    fn get_parameter(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let name = call.params.text_or_empty("Name");
        let slash = if name.starts_with('/') { "" } else { "/" };
        let arn = match name.starts_with("arn:") {
            true => name.to_owned(),
            false => format!("arn:aws:ssm:{REGION}:{}:parameter{slash}{name}", call.principal.account),
        };
        let owner = arn.split(':').nth(4).unwrap_or_default();
        authorise(owner, None, &call.principal, "ssm:GetParameter", &arn)?;
        let value = self.parameters.get(&arn).ok_or_else(|| AwsError::client("ParameterNotFound", ""))?;
        // All of them are of the type SecureString.
        let clear = call.params.flag("WithDecryption");
        let value = if clear { value.clone() } else { BASE64.encode(value.as_bytes()) };
        Ok(Answer::Json(json!({"Parameter": {
            "ARN": arn, "Name": name, "Type": "SecureString", "Value": value, "Version": 1, "DataType": "text",
        }}))
        .into())
    }
}
