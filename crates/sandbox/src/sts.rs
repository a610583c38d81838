//! STS: who one is, and becoming somebody else. Trust is fixed: relay's runner roles may assume the deploy roles of their account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::dispatch::{Answer, Call, Handler};
use crate::error::{AwsError, Outcome};
use crate::iam::Principal;
use crate::wire::xml_escape;
use crate::world::World;

pub(crate) const OPERATIONS: &[(&str, Handler)] =
    &[("GetCallerIdentity", Handler::Now(get_caller_identity)), ("AssumeRole", Handler::Now(assume_role))];

fn get_caller_identity(_: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let p = &call.principal;
    Ok(Answer::Xml(format!(
        "<Arn>{}</Arn><UserId>AROASANDBOX:{}</UserId><Account>{}</Account>",
        xml_escape(&p.caller_arn()),
        xml_escape(&p.session),
        p.account
    )))
}

/// `[\w+=,.@-]{2,64}`, for session names and source identities.
fn check_name(what: &str, name: &str) -> Outcome<()> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b);
    if (2..=64).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    let message = format!(
        "1 validation error detected: Value '{name}' at '{what}' failed to satisfy constraint: [\\w+=,.@-]{{2,64}}"
    );
    Err(AwsError::client("ValidationError", message))
}

/// Every caller that the trust lets in is itself a session, so this is always role chaining.
fn session_seconds(call: &Call) -> Outcome<u64> {
    let Some(text) = call.text("DurationSeconds") else { return Ok(3600) };
    text.parse().ok().filter(|seconds| (900..=3600).contains(seconds)).ok_or_else(|| {
        let message =
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
        AwsError::client("ValidationError", message)
    })
}

fn session_tags(call: &Call) -> BTreeMap<String, String> {
    let mut tags: BTreeMap<u32, (String, String)> = BTreeMap::new();
    for (key, value) in call.params.as_object().into_iter().flatten() {
        let Some((number, field)) = key.strip_prefix("Tags.member.").and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let (Ok(number), Some(value)) = (number.parse(), value.as_str()) else { continue };
        let tag = tags.entry(number).or_default();
        match field {
            "Key" => value.clone_into(&mut tag.0),
            _ => value.clone_into(&mut tag.1),
        }
    }
    tags.into_values().collect()
}

fn assume_role(world: &Arc<World>, call: &mut Call) -> Outcome<Answer> {
    let role_arn = call.text("RoleArn").unwrap_or_default();
    let session = call.text("RoleSessionName").unwrap_or_default();
    check_name("roleSessionName", session)?;
    let denied = || {
        let message = format!(
            "User: {} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
            call.principal.caller_arn()
        );
        AwsError::new(403, "AccessDenied", message)
    };
    let mut assumed = Principal::from_role_arn(role_arn, session).ok_or_else(denied)?;
    let deploy_role = role_arn.contains(":role/relay-deploy/");
    let runner = call.principal.role_arn.contains(":role/relay/") && call.principal.role_name() != "relay-launcher";
    if !deploy_role || !runner || assumed.account != call.principal.account {
        return Err(denied());
    }
    let seconds = session_seconds(call)?;
    assumed.tags = session_tags(call);
    assumed.source_identity = call.principal.source_identity.clone();
    if let Some(identity) = call.text("SourceIdentity") {
        check_name("sourceIdentity", identity)?;
        if assumed.source_identity.as_deref().is_some_and(|held| held != identity) {
            return Err(denied());
        }
        assumed.source_identity = Some(identity.to_owned());
    }
    let source =
        assumed.source_identity.as_ref().map(|s| format!("<SourceIdentity>{}</SourceIdentity>", xml_escape(s)));
    let arn = assumed.caller_arn();
    let tags = serde_json::json!(assumed.tags);
    let answer = {
        let life = Duration::from_secs(seconds).min(world.settings.credentials);
        let minted = world.iam.mint(assumed, life);
        format!(
            "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
             <Expiration>{}</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>AROASANDBOX:{}</AssumedRoleId>\
             <Arn>{}</Arn></AssumedRoleUser>{}",
            minted.access_key,
            minted.secret_key,
            minted.token,
            minted.expiration(),
            xml_escape(session),
            xml_escape(&arn),
            source.unwrap_or_default()
        )
    };
    call.note("tags", tags);
    Ok(Answer::Xml(answer))
}
