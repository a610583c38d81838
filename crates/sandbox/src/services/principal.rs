//! The accounts, and a caller in one of them: a role's session.

use std::collections::BTreeMap;

/// The account that CI is in.
pub const CI_ACCOUNT: &str = "111111111111";
/// The account that is deployed to.
pub const TARGET_ACCOUNT: &str = "222222222222";
/// The one region.
pub const REGION: &str = "eu-west-1";

/// A caller. `role_arn` includes the role's path, as in `aws:PrincipalArn`. `caller_arn` does not,
/// as in GetCallerIdentity.
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
    /// The launcher slot, if the caller is a launcher process that the sandbox started.
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
