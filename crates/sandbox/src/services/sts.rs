//! STS: sessions, and the principals that access keys belong to. The trust rules are fixed: relay's
//! runner roles may assume the deploy roles of their own account. An access key of 12 digits is an
//! account id, and stands for a built-in role of that account. All other keys are issued here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::call::{Call, Now};
use super::contract::{Effect, Reaction, Rules, Table};
use super::issuer::Issuer;
use super::principal::{CI_ACCOUNT, Principal, REGION, TARGET_ACCOUNT};
use crate::wire::answer::{Answer, xml_escape};
use crate::wire::error::{AwsError, Outcome};
use crate::wire::times::{iso_seconds, random_hex};

pub(crate) const OPERATIONS: Table<Sts> = &[
    ("GetCallerIdentity", Sts::get_caller_identity),
    ("AssumeRole", Sts::assume_role),
    ("GetWebIdentityToken", Sts::get_web_identity_token),
];

/// Credentials as minted.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: String,
    expires_ms: u64,
}

impl Credentials {
    pub(crate) fn expiration(&self) -> String {
        iso_seconds(self.expires_ms)
    }
}

#[derive(Debug)]
pub(crate) struct Sts {
    /// The default lifetime of a session and, for AssumeRole, the maximum.
    life: Duration,
    /// By access key: whose session it is, and when it ends.
    sessions: HashMap<String, (Arc<Principal>, u64)>,
    /// With a third-party emulator, it issues the keys. Then any key stands for the target
    /// account's operator.
    pub(crate) any_key: bool,
    /// Signs identity tokens.
    pub(crate) issuer: Issuer,
}

impl Sts {
    pub(crate) fn new(rules: Rules, issuer: Issuer) -> Self {
        Self { life: rules.credentials, sessions: HashMap::new(), any_key: false, issuer }
    }

    /// The principal of an access key.
    pub(crate) fn resolve(&self, now: Now, access_key: &str) -> Outcome<Arc<Principal>> {
        if access_key.len() == 12 && access_key.bytes().all(|b| b.is_ascii_digit()) {
            let role = match access_key {
                CI_ACCOUNT => "ci",
                TARGET_ACCOUNT => "operator",
                _ => "stranger",
            };
            return Ok(Arc::new(Principal::role(access_key, role, role)));
        }
        let forbidden = |code: &'static str, message: &str| Err(AwsError::new(403, code, message));
        match self.sessions.get(access_key) {
            Some((_, expires)) if *expires <= now.ms => {
                forbidden("ExpiredTokenException", "The security token included in the request is expired")
            }
            Some((principal, _)) => Ok(Arc::clone(principal)),
            None if self.any_key => Ok(Arc::new(Principal::role(TARGET_ACCOUNT, "operator", "operator"))),
            None => forbidden("InvalidClientTokenId", "The security token included in the request is invalid."),
        }
    }

    /// Creates a session. If `life` is `None`, it has the sandbox's default lifetime.
    pub(crate) fn mint(&mut self, now: Now, principal: Principal, life: Option<Duration>) -> Credentials {
        let life = u64::try_from(life.unwrap_or(self.life).as_millis()).unwrap_or(u64::MAX);
        let credentials = Credentials {
            access_key: format!("ASIA{}", random_hex::<8>().to_ascii_uppercase()),
            secret_key: random_hex::<20>(),
            token: random_hex::<48>(),
            expires_ms: now.ms.saturating_add(life),
        };
        self.sessions.insert(credentials.access_key.clone(), (Arc::new(principal), credentials.expires_ms));
        credentials
    }

    fn get_caller_identity(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let caller = &call.principal;
        let (arn, session) = (xml_escape(&caller.caller_arn()), xml_escape(&caller.session));
        let account = &caller.account;
        let identity = format!("<Arn>{arn}</Arn><UserId>AROASANDBOX:{session}</UserId><Account>{account}</Account>");
        Ok(Answer::Xml(identity).into())
    }

    /// A token that names the caller's role. Its claims about the session are nested, as AWS has
    /// them, with the tags that the caller chose.
    fn get_web_identity_token(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let invalid = |message: &str| AwsError::client("ValidationError", message);
        let audience = call.text("Audience.member.1").ok_or_else(|| invalid("Audience is missing"))?.to_owned();
        let seconds: u64 = call.text("DurationSeconds").unwrap_or("300").parse().unwrap_or_default();
        if !(60..=3600).contains(&seconds) {
            return Err(invalid("DurationSeconds must be from 60 to 3600"));
        }
        if call.text("SigningAlgorithm") != Some("ES384") {
            return Err(invalid("the sandbox signs with ES384 only"));
        }
        let role = &call.principal.role_arn;
        let claims = json!({"sub": role, "https://sts.amazonaws.com/": {
            "aws_account": call.principal.account, "source_region": REGION, "principal_id": role,
            "request_tags": session_tags(call),
        }});
        let token = self.issuer.token(call.now, &audience, seconds, claims);
        let token = token.map_err(|problem| AwsError::new(500, "InternalFailure", problem))?;
        let expires = iso_seconds(call.now.ms + seconds * 1_000);
        Ok(Answer::Xml(format!("<WebIdentityToken>{token}</WebIdentityToken><Expiration>{expires}</Expiration>"))
            .into())
    }

    fn assume_role(&mut self, call: &mut Call, _: &mut Vec<Effect>) -> Outcome<Reaction> {
        let (assumed, seconds) = assumed(call)?;
        let source = assumed.source_identity.as_deref().map(xml_escape);
        let source = source.map(|source| format!("<SourceIdentity>{source}</SourceIdentity>")).unwrap_or_default();
        let (session, arn) = (xml_escape(&assumed.session), xml_escape(&assumed.caller_arn()));
        call.note("tags", json!(assumed.tags));
        call.note("seconds", json!(seconds));
        let minted = self.mint(call.now, assumed, Some(Duration::from_secs(seconds).min(self.life)));
        let (key, secret, token, expires) =
            (&minted.access_key, &minted.secret_key, &minted.token, minted.expiration());
        Ok(Answer::Xml(format!(
            "<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
             <SessionToken>{token}</SessionToken><Expiration>{expires}</Expiration></Credentials><AssumedRoleUser>\
             <AssumedRoleId>AROASANDBOX:{session}</AssumedRoleId><Arn>{arn}</Arn></AssumedRoleUser>{source}"
        ))
        .into())
    }
}

/// The session that a call asks for, and its life in seconds, if the trust allows it.
fn assumed(call: &Call) -> Outcome<(Principal, u64)> {
    let role_arn = call.params.text_or_empty("RoleArn");
    let session = call.params.text_or_empty("RoleSessionName");
    check_name("roleSessionName", session)?;
    let denied = || {
        let caller = call.principal.caller_arn();
        let message = format!("User: {caller} is not authorized to perform: sts:AssumeRole on resource: {role_arn}");
        AwsError::new(403, "AccessDenied", message)
    };
    let mut assumed = Principal::from_role_arn(role_arn, session).ok_or_else(denied)?;
    let deploy_role = role_arn.contains(":role/relay-deploy/");
    let runner = call.principal.role_arn.contains(":role/relay/") && call.principal.role_name() != "relay-launcher";
    if !deploy_role || !runner || assumed.account != call.principal.account {
        return Err(denied());
    }
    assumed.tags = session_tags(call);
    assumed.source_identity = call.principal.source_identity.clone();
    if let Some(identity) = call.text("SourceIdentity") {
        check_name("sourceIdentity", identity)?;
        if assumed.source_identity.as_deref().is_some_and(|held| held != identity) {
            return Err(denied());
        }
        assumed.source_identity = Some(identity.to_owned());
    }
    // As in the trust policy of a rendered deploy role.
    if assumed.source_identity.is_none() {
        return Err(denied());
    }
    Ok((assumed, session_seconds(call)?))
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

/// The duration of the requested session. Every caller that may assume a role is itself a session,
/// so the limits of role chaining apply.
fn session_seconds(call: &Call) -> Outcome<u64> {
    let Some(text) = call.text("DurationSeconds") else { return Ok(3600) };
    text.parse().ok().filter(|seconds| (900..=3600).contains(seconds)).ok_or_else(|| {
        let message =
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining";
        AwsError::client("ValidationError", message)
    })
}

fn session_tags(call: &Call) -> BTreeMap<String, String> {
    let tags = call.params.numbered("Tags.member").into_values();
    tags.map(|mut tag| (tag.remove("Key").unwrap_or_default(), tag.remove("Value").unwrap_or_default())).collect()
}
