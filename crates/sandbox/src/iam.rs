//! Who calls: access keys to principals. A 12-digit key is that account's own role; every other key was minted here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{iso_seconds, now_ms, random_hex};
use crate::error::AwsError;
use crate::{CI_ACCOUNT, TARGET_ACCOUNT};

/// A caller. `role_arn` has the role's path, as `aws:PrincipalArn` does; `caller_arn` has not, as GetCallerIdentity does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// Account id.
    pub(crate) account: String,
    /// `arn:aws:iam::222222222222:role/relay/NAME`
    pub(crate) role_arn: String,
    /// RoleSessionName.
    pub(crate) session: String,
    /// SourceIdentity; it persists through chaining.
    pub(crate) source_identity: Option<String>,
    /// Session tags.
    pub(crate) tags: BTreeMap<String, String>,
    /// The launcher's process that it is, of the sandbox's own.
    pub(crate) slot: Option<usize>,
}

impl Principal {
    pub(crate) fn role(account: &str, path_and_name: &str, session: &str) -> Self {
        Self {
            account: account.to_owned(),
            role_arn: format!("arn:aws:iam::{account}:role/{path_and_name}"),
            session: session.to_owned(),
            source_identity: None,
            tags: BTreeMap::new(),
            slot: None,
        }
    }

    pub(crate) fn from_role_arn(role_arn: &str, session: &str) -> Option<Self> {
        let rest = role_arn.strip_prefix("arn:aws:iam::")?;
        let (account, role) = rest.split_once(":role/")?;
        (account.len() == 12 && !role.is_empty()).then(|| Self::role(account, role, session))
    }

    pub(crate) fn role_name(&self) -> &str {
        self.role_arn.rsplit('/').next().unwrap_or_default()
    }

    /// `arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION`
    pub(crate) fn caller_arn(&self) -> String {
        format!("arn:aws:sts::{}:assumed-role/{}/{}", self.account, self.role_name(), self.session)
    }
}

/// Credentials as minted.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
    pub(crate) token: String,
    pub(crate) expires_ms: u64,
}

impl Credentials {
    pub(crate) fn expiration(&self) -> String {
        iso_seconds(self.expires_ms)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Iam {
    sessions: Mutex<HashMap<String, (Arc<Principal>, u64)>>,
    /// With a third-party emulator the keys are not ours: any key is the target account's operator.
    pub(crate) any_key: bool,
}

impl Iam {
    pub(crate) fn resolve(&self, access_key: &str) -> Result<Arc<Principal>, AwsError> {
        if access_key.len() == 12 && access_key.bytes().all(|b| b.is_ascii_digit()) {
            let role = match access_key {
                CI_ACCOUNT => "ci",
                TARGET_ACCOUNT => "operator",
                _ => "stranger",
            };
            return Ok(Arc::new(Principal::role(access_key, role, role)));
        }
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match sessions.get(access_key) {
            Some((_, expires)) if *expires <= now_ms() => Err(AwsError::new(
                403,
                "ExpiredTokenException",
                "The security token included in the request is expired",
            )),
            Some((principal, _)) => Ok(Arc::clone(principal)),
            None if self.any_key => Ok(Arc::new(Principal::role(TARGET_ACCOUNT, "operator", "operator"))),
            None => Err(AwsError::new(
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            )),
        }
    }

    pub(crate) fn mint(&self, principal: Principal, life: Duration) -> Credentials {
        let life = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        let credentials = Credentials {
            access_key: format!("ASIA{}", random_hex::<8>().to_ascii_uppercase()),
            secret_key: random_hex::<20>(),
            token: random_hex::<48>(),
            expires_ms: now_ms().saturating_add(life),
        };
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(credentials.access_key.clone(), (Arc::new(principal), credentials.expires_ms));
        credentials
    }
}
