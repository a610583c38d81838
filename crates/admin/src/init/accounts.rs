//! The accounts that `init` works on, and what a git remote says about CI.

use std::process::Command;

use relay_console::Failure;
use relay_protocol::{AccountId, Region};

use crate::account::{self, Account};
use crate::cli::{Ci, Init};

/// The accounts that profiles are for.
pub(super) struct Accounts {
    pub(super) ci: Account,
    pub(super) target: Account,
}

impl Accounts {
    /// Asks AWS for the accounts of both profiles.
    ///
    /// # Errors
    ///
    /// If only one profile is given, or both are of one account.
    pub(super) fn of(arguments: &Init) -> Result<Option<Self>, Failure> {
        let (ci, target) = match (&arguments.ci_profile, &arguments.target_profile) {
            (Some(ci), Some(target)) => (ci, target),
            (None, None) if !arguments.apply => return Ok(None),
            _ => {
                let missing = "pass --ci-profile and --target-profile: profiles of the AWS CLI for both accounts";
                return Err(Failure::usage(missing));
            }
        };
        let read = |text: &String| text.parse::<Region>().map_err(|error| Failure::usage(format!("--region: {error}")));
        let region = arguments.region.as_ref().map(read).transpose()?;
        let region = account::region(region.as_ref(), target)?;
        let home = arguments.ci_region.clone().unwrap_or_else(|| region.clone());
        let this = Self { ci: Account::of_profile(ci, &home)?, target: Account::of_profile(target, &region)? };
        two_accounts(&this.ci.id, &this.target.id)?;
        Ok(Some(this))
    }
}

/// Refuses one account in both roles.
pub(super) fn two_accounts(ci: &AccountId, target: &AccountId) -> Result<(), Failure> {
    if ci != target {
        return Ok(());
    }
    Err(Failure::usage(format!("account {ci} is given as both CI's account and the target account"))
        .hint("relay keeps CI out of the account that it deploys to: use two accounts"))
}

/// The CI system and the repository of the git remote `origin`, if they can be told from it.
pub(super) fn from_git() -> Option<(Ci, String)> {
    let output = Command::new("git").args(["remote", "get-url", "origin"]).output().ok()?;
    remote(String::from_utf8(output.stdout).ok()?.trim())
}

fn remote(url: &str) -> Option<(Ci, String)> {
    let (host, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => url.split_once(':')?,
    };
    let host = host.rsplit('@').next()?;
    let ci = match host.split(':').next()? {
        "github.com" => Ci::Github,
        "gitlab.com" => Ci::Gitlab,
        _ => return None,
    };
    let path = path.trim_matches('/');
    Some((ci, path.strip_suffix(".git").unwrap_or(path).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_tells_ci_and_repository() {
        for (url, expected) in [
            ("git@github.com:octo/shop.git", Some((Ci::Github, "octo/shop"))),
            ("https://github.com/octo/shop", Some((Ci::Github, "octo/shop"))),
            ("https://token@github.com/octo/shop.git/", Some((Ci::Github, "octo/shop.git"))),
            ("ssh://git@gitlab.com:22/group/sub/shop.git", Some((Ci::Gitlab, "group/sub/shop"))),
            ("https://git.example.com/octo/shop", None),
            ("/srv/git/shop", None),
            ("", None),
        ] {
            let expected = expected.map(|(ci, path)| (ci, path.trim_end_matches(".git").to_owned()));
            assert_eq!(remote(url), expected, "{url}");
        }
    }

    #[test]
    fn one_account_is_not_both() {
        let (a, b): (AccountId, AccountId) = ("111111111111".parse().unwrap(), "222222222222".parse().unwrap());
        assert!(two_accounts(&a, &b).is_ok() && two_accounts(&a, &a).is_err());
    }
}
