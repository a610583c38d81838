//! Secrets Manager and the SSM parameter store, as far as a runner reads them and a test writes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::clock::{epoch_seconds, now_ms, uuid};
use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::resource_policy::authorise;
use crate::world::World;
use crate::{REGION, TARGET_ACCOUNT};

pub(crate) const SECRETS_MANAGER: &[(&str, Handler)] = &[
    ("GetSecretValue", Handler::Now(get_secret)),
    ("CreateSecret", Handler::Now(create_secret)),
    ("PutSecretValue", Handler::Now(put_secret)),
];

pub(crate) const SSM: &[(&str, Handler)] = &[
    ("GetParameter", Handler::Now(get_parameter)),
    ("GetParameters", Handler::Now(get_parameters)),
    ("PutParameter", Handler::Now(put_parameter)),
];

/// Values by ARN. A secret's ARN ends in six characters that its name has not.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    secrets: Mutex<BTreeMap<String, Secret>>,
    parameters: Mutex<BTreeMap<String, Parameter>>,
}

#[derive(Debug, Clone)]
struct Secret {
    name: String,
    string: Option<String>,
    binary: Option<String>,
    version: String,
    created_ms: u64,
}

#[derive(Debug, Clone)]
struct Parameter {
    value: String,
    kind: String,
    version: u64,
}

impl Secrets {
    /// Values that tests and the built-in targets can use.
    pub(crate) fn preset(&self) {
        for (name, value) in [
            ("demo/database-password", "sandbox-secret-7f3a"),
            ("demo/json", r#"{"user":"relay","password":"sandbox-json-91c2"}"#),
        ] {
            let arn = format!("arn:aws:secretsmanager:{REGION}:{TARGET_ACCOUNT}:secret:{name}-SaNdBx");
            self.put(
                arn,
                Secret {
                    name: name.to_owned(),
                    string: Some(value.to_owned()),
                    binary: None,
                    version: uuid(),
                    created_ms: now_ms(),
                },
            );
        }
        let arn = format!("arn:aws:ssm:{REGION}:{TARGET_ACCOUNT}:parameter/demo/api-token");
        let parameter =
            Parameter { value: "sandbox-parameter-55d0".to_owned(), kind: "SecureString".to_owned(), version: 1 };
        self.parameters.lock().unwrap_or_else(PoisonError::into_inner).insert(arn, parameter);
    }

    fn put(&self, arn: String, secret: Secret) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).insert(arn, secret);
    }

    /// Finds by ARN, by ARN without its six characters, or by name in the caller's account.
    fn find(&self, call: &Call) -> Outcome<(String, Secret)> {
        let id = call.text("SecretId").unwrap_or_default();
        let own = format!("arn:aws:secretsmanager:{REGION}:{}:", call.principal.account);
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let found = secrets.iter().find(|(arn, secret)| {
            *arn == id
                || arn.rsplit_once('-').is_some_and(|(a, _)| a == id)
                || (secret.name == id && arn.starts_with(&own))
        });
        let (arn, secret) = found.ok_or_else(|| {
            AwsError::client("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
        })?;
        let owner = arn.split(':').nth(4).unwrap_or_default();
        authorise(owner, None, &call.principal, &format!("secretsmanager:{}", call.operation), arn)?;
        Ok((arn.clone(), secret.clone()))
    }
}

fn get_secret(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (arn, secret) = world.secrets.find(call)?;
    let mut answer = json!({
        "ARN": arn, "Name": secret.name, "VersionId": secret.version, "VersionStages": ["AWSCURRENT"],
        "CreatedDate": epoch_seconds(secret.created_ms),
    });
    if let Some(string) = secret.string {
        answer["SecretString"] = json!(string);
    }
    if let Some(binary) = secret.binary {
        answer["SecretBinary"] = json!(binary);
    }
    Ok(Answer::Json(answer))
}

fn create_secret(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("Name").ok_or_else(|| AwsError::client("InvalidParameterException", "Name is needed."))?;
    let account = &call.principal.account;
    let arn = format!("arn:aws:secretsmanager:{REGION}:{account}:secret:{name}-SaNdBx");
    let text = |field: &str| call.text(field).map(str::to_owned);
    let secret = Secret {
        name: name.to_owned(),
        string: text("SecretString"),
        binary: text("SecretBinary"),
        version: uuid(),
        created_ms: now_ms(),
    };
    if world.secrets.secrets.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&arn) {
        return Err(AwsError::client("ResourceExistsException", format!("The secret {name} already exists.")));
    }
    let answer = json!({"ARN": arn, "Name": name, "VersionId": secret.version});
    world.secrets.put(arn, secret);
    Ok(Answer::Json(answer))
}

fn put_secret(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let (arn, mut secret) = world.secrets.find(call)?;
    secret.string = call.text("SecretString").map(str::to_owned);
    secret.binary = call.text("SecretBinary").map(str::to_owned);
    secret.version = uuid();
    let answer = json!({"ARN": arn, "Name": secret.name, "VersionId": secret.version, "VersionStages": ["AWSCURRENT"]});
    world.secrets.put(arn, secret);
    Ok(Answer::Json(answer))
}

fn parameter_arn(call: &Call, name: &str) -> String {
    if name.starts_with("arn:") {
        return name.to_owned();
    }
    let slash = if name.starts_with('/') { "" } else { "/" };
    format!("arn:aws:ssm:{REGION}:{}:parameter{slash}{name}", call.principal.account)
}

fn look_up(world: &World, call: &Call, name: &str) -> Outcome<Value> {
    let arn = parameter_arn(call, name);
    let owner = arn.split(':').nth(4).unwrap_or_default();
    authorise(owner, None, &call.principal, &format!("ssm:{}", call.operation), &arn)?;
    let parameters = world.secrets.parameters.lock().unwrap_or_else(PoisonError::into_inner);
    let found = parameters.get(&arn).ok_or_else(|| AwsError::client("ParameterNotFound", ""))?;
    let clear =
        found.kind != "SecureString" || call.params.get("WithDecryption").and_then(Value::as_bool) == Some(true);
    let value = if clear { found.value.clone() } else { data_encoding::BASE64.encode(found.value.as_bytes()) };
    Ok(
        json!({"ARN": arn, "Name": name, "Type": found.kind, "Value": value, "Version": found.version, "DataType": "text"}),
    )
}

fn get_parameter(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let name = call.text("Name").unwrap_or_default();
    Ok(Answer::Json(json!({"Parameter": look_up(world, call, name)?})))
}

fn get_parameters(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let names = call.params.get("Names").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for name in names {
        match look_up(world, call, name) {
            Ok(parameter) => found.push(parameter),
            Err(e) if e.code == "ParameterNotFound" => invalid.push(name.to_owned()),
            Err(e) => return Err(e),
        }
    }
    Ok(Answer::Json(json!({"Parameters": found, "InvalidParameters": invalid})))
}

fn put_parameter(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let arn = parameter_arn(call, call.text("Name").unwrap_or_default());
    let value = call.text("Value").unwrap_or_default().to_owned();
    let kind = call.text("Type").unwrap_or("String").to_owned();
    let overwrite = call.params.get("Overwrite").and_then(Value::as_bool) == Some(true);
    let mut parameters = world.secrets.parameters.lock().unwrap_or_else(PoisonError::into_inner);
    let version = match parameters.get(&arn) {
        Some(_) if !overwrite => {
            return Err(AwsError::client("ParameterAlreadyExists", "The parameter already exists."));
        }
        existing => existing.map_or(1, |p| p.version + 1),
    };
    parameters.insert(arn, Parameter { value, kind, version });
    Ok(Answer::Json(json!({"Version": version, "Tier": "Standard"})))
}
