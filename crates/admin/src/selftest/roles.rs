//! IAM, STS and KMS: who may do what, and whose signature it is.

use std::time::Duration;

use relay_aws::clock::now;
use relay_protocol::encoding::{base64, from_base64};
use relay_protocol::keys::{VerifyingKey, p256_with_low_s};
use relay_protocol::{Digest, PublicKey};
use serde_json::{Value, json};

use super::trial::{Outcome, Problem, Trial, Verdict, text};
use crate::account::{Account, file_of};

/// What IAM takes to make a change known everywhere.
const PATIENCE: Duration = Duration::from_secs(120);

fn key(trial: &Trial<'_>) -> Result<String, Problem> {
    let parameters = json!({"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Description": trial.name});
    let made = trial.target.call("kms", "create-key", &parameters)?;
    let arn = text(&made["KeyMetadata"], "Arn")?;
    let gone = json!({"KeyId": arn, "PendingWindowInDays": 7});
    trial.later_call(&trial.target, "kms", "schedule-key-deletion", gone);
    Ok(arn)
}

fn public(trial: &Trial<'_>, key: &str) -> Result<PublicKey, Problem> {
    let answer = trial.target.call("kms", "get-public-key", &json!({ "KeyId": key }))?;
    text(&answer, "PublicKey")?.parse().map_err(|error| Problem::Other(format!("{error}: {answer}")))
}

fn sign(trial: &Trial<'_>, key: &str, digest: &Digest) -> Result<Value, Problem> {
    let file = file_of(digest.as_bytes())?;
    let message = format!("fileb://{}", file.path().display());
    let parameters = json!({"KeyId": key, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"});
    Ok(trial.target.call_with("kms", "sign", &parameters, &["--message", &message])?)
}

pub(crate) fn public_key_is_spki(trial: &mut Trial<'_>) -> Outcome {
    let key = key(trial)?;
    let public = public(trial, &key)?;
    match VerifyingKey::from_spki(&public) {
        Ok(_) => Verdict::yes("SubjectPublicKeyInfo in DER, of the curve P-256"),
        Err(error) => Verdict::no(error.to_string()),
    }
}

pub(crate) fn signature_is_der(trial: &mut Trial<'_>) -> Outcome {
    const TEXT: &[u8] = b"what relay signs";
    let key = key(trial)?;
    let verifying =
        VerifyingKey::from_spki(&public(trial, &key)?).map_err(|error| Problem::Other(error.to_string()))?;
    let signature = text(&sign(trial, &key, &Digest::of(TEXT))?, "Signature")?;
    let bytes = from_base64(&signature).map_err(|error| Problem::Other(error.to_string()))?;
    match p256_with_low_s(&bytes) {
        Some(low) => Verdict::of(verifying.verify(TEXT, &low), format!("ECDSA in DER, {} bytes", bytes.len())),
        None => Verdict::no("the signature is not ECDSA in DER"),
    }
}

pub(crate) fn alias_names_a_key(trial: &mut Trial<'_>) -> Outcome {
    let key = key(trial)?;
    let alias = format!("alias/{}", trial.name);
    trial.later_call(&trial.target, "kms", "delete-alias", json!({ "AliasName": alias }));
    trial.target.call("kms", "create-alias", &json!({"AliasName": alias, "TargetKeyId": key}))?;
    let signed = sign(trial, &alias, &Digest::of(b"by alias"))?;
    Verdict::of(
        signed["KeyId"] == json!(key),
        format!("the answer names the key by its ARN: {}", signed["KeyId"] == json!(key)),
    )
}

pub(crate) fn disabled_key_signs_nothing(trial: &mut Trial<'_>) -> Outcome {
    let key = key(trial)?;
    trial.target.call("kms", "disable-key", &json!({ "KeyId": key }))?;
    let refused = trial.until(PATIENCE, || match sign(trial, &key, &Digest::of(b"disabled")) {
        Err(Problem::Refused(refused)) => Ok(Some(refused)),
        Ok(_) => Ok(None),
        Err(other) => Err(other),
    })?;
    match refused {
        Some(refused) => Verdict::refused_with::<()>(Err(refused), &["Disabled"]),
        None => Verdict::no("a disabled key still signs"),
    }
}

/// Makes a role and assumes it.
fn session(trial: &Trial<'_>, suffix: &str, policy: Option<Value>) -> Result<Account, Problem> {
    let account = trial.target.clone();
    let arn = trial.role(&account, suffix, &["sts:AssumeRole"], policy)?;
    trial.assume(&account, &arn)
}

pub(crate) fn nothing_is_allowed_by_default(trial: &mut Trial<'_>) -> Outcome {
    let session = session(trial, "idle", None)?;
    Verdict::refused_with(session.call("sqs", "list-queues", &json!({})), &["AccessDenied"])
}

pub(crate) fn denial_beats_permission(trial: &mut Trial<'_>) -> Outcome {
    let policy = json!([
        {"Effect": "Allow", "Action": "sqs:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "sqs:CreateQueue", "Resource": "*"},
    ]);
    let session = session(trial, "denied", Some(policy))?;
    let listed = trial.until(PATIENCE, || Ok(session.call("sqs", "list-queues", &json!({})).ok()))?;
    if listed.is_none() {
        return Verdict::no("the permission does not count");
    }
    let name = format!("{}-denied", trial.name);
    let made = session.call("sqs", "create-queue", &json!({ "QueueName": name }));
    if let Ok(made) = &made {
        trial.later_call(&trial.target, "sqs", "delete-queue", json!({ "QueueUrl": made["QueueUrl"] }));
    }
    Verdict::refused_with(made, &["AccessDenied"])
}

pub(crate) fn role_is_the_principal(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.target.clone();
    let partition = account.region.partition();
    let arn = format!("arn:{partition}:iam::{}:role/{}-principal", account.id, trial.name);
    let policy = json!([{
        "Effect": "Allow", "Action": "sqs:ListQueues", "Resource": "*",
        "Condition": {"ArnEquals": {"aws:PrincipalArn": arn}},
    }, {
        "Effect": "Allow", "Action": "sns:ListTopics", "Resource": "*",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": arn}},
    }]);
    let session = session(trial, "principal", Some(policy))?;
    let listed = trial.until(PATIENCE, || Ok(session.call("sqs", "list-queues", &json!({})).ok()))?;
    let other = session.call("sns", "list-topics", &json!({}));
    let found = format!("allowed by the role's ARN: {}; by another: {}", listed.is_some(), other.is_ok());
    Verdict::of(listed.is_some() && other.is_err(), found)
}

pub(crate) fn source_identity_needs_trust(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.target.clone();
    let arn = trial.role(&account, "plain", &["sts:AssumeRole"], None)?;
    trial.assume(&account, &arn)?;
    let with = json!({"RoleArn": arn, "RoleSessionName": "with", "SourceIdentity": "relay-selftest"});
    Verdict::refused_with(account.call("sts", "assume-role", &with), &["AccessDenied"])
}

pub(crate) fn session_tags_need_trust(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.target.clone();
    let arn = trial.role(&account, "untagged", &["sts:AssumeRole"], None)?;
    trial.assume(&account, &arn)?;
    let tags = json!([{"Key": "relay-target", "Value": "self/test"}]);
    let with = json!({"RoleArn": arn, "RoleSessionName": "with", "Tags": tags});
    Verdict::refused_with(account.call("sts", "assume-role", &with), &["AccessDenied"])
}

pub(crate) fn chained_session_lasts_an_hour(trial: &mut Trial<'_>) -> Outcome {
    let session =
        session(trial, "chain", Some(json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}])))?;
    let account = trial.target.clone();
    let next = trial.role(&account, "next", &["sts:AssumeRole"], None)?;
    trial.assume(&session, &next)?;
    let longer = json!({"RoleArn": next, "RoleSessionName": "long", "DurationSeconds": 3_601});
    Verdict::refused_with(session.call("sts", "assume-role", &longer), &["ValidationError"])
}

pub(crate) fn account_issues_tokens(trial: &mut Trial<'_>) -> Outcome {
    let parameters = json!({"Audience": ["relay-selftest"], "SigningAlgorithm": "ES384", "DurationSeconds": 300});
    let answer = match trial.ci.call("sts", "get-web-identity-token", &parameters) {
        Ok(answer) => answer,
        Err(refused) if refused.code.contains("OutboundWebIdentityFederationDisabled") => {
            return Ok(Verdict::NotApplicable("the account does not issue tokens; it can be switched on".to_owned()));
        }
        Err(refused) => return Err(refused.into()),
    };
    let token = text(&answer, "WebIdentityToken")?;
    let part = |at: usize| -> Option<Value> {
        let part = token.split('.').nth(at)?;
        serde_json::from_slice(&data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).ok()?).ok()
    };
    let (Some(header), Some(claims)) = (part(0), part(1)) else { return Verdict::no("the token is no JWT") };
    let issuer = claims["iss"].as_str().is_some_and(|issuer| issuer.starts_with("https://"));
    let soon = claims["exp"].as_i64().is_some_and(|expires| expires <= now().unix() + 360);
    let holds = header["alg"] == "ES384" && header["kid"].is_string() && issuer && soon;
    Verdict::of(holds, format!("alg {}, issuer with https: {issuer}, expires in time: {soon}", header["alg"]))
}

/// A JWT that nobody signed, with the issuer of GitHub.
fn unsigned_token() -> String {
    let part = |value: Value| base64(value.to_string().as_bytes()).replace('+', "-").replace('/', "_").replace('=', "");
    let claims = json!({
        "iss": "https://token.actions.githubusercontent.com", "aud": "sts.amazonaws.com",
        "sub": "repo:example/example:environment:production", "exp": now().unix() + 300, "iat": now().unix(),
    });
    format!("{}.{}.AAAA", part(json!({"alg": "RS256", "typ": "JWT", "kid": "none"})), part(claims))
}

pub(crate) fn forged_token_is_refused(trial: &mut Trial<'_>) -> Outcome {
    let account = trial.ci.clone();
    let name = format!("{}-federated", trial.name);
    let partition = account.region.partition();
    let provider = format!("arn:{partition}:iam::{}:oidc-provider/token.actions.githubusercontent.com", account.id);
    if account.call("iam", "get-open-id-connect-provider", &json!({"OpenIDConnectProviderArn": provider})).is_err() {
        let made = json!({"Url": "https://token.actions.githubusercontent.com", "ClientIDList": ["sts.amazonaws.com"]});
        account.call("iam", "create-open-id-connect-provider", &made)?;
        let gone = json!({"OpenIDConnectProviderArn": provider});
        trial.later_call(&account, "iam", "delete-open-id-connect-provider", gone);
    }
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"Federated": provider}, "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:example/example:environment:production",
        }},
    }]});
    trial.later_call(&account, "iam", "delete-role", json!({ "RoleName": name }));
    let role = json!({"RoleName": name, "AssumeRolePolicyDocument": trust.to_string()});
    let arn = text(&account.call("iam", "create-role", &role)?["Role"], "Arn")?;
    let ask = json!({"RoleArn": arn, "RoleSessionName": "forged", "WebIdentityToken": unsigned_token()});
    Verdict::refused_with(
        account.call("sts", "assume-role-with-web-identity", &ask),
        &["InvalidIdentityToken", "AccessDenied"],
    )
}
