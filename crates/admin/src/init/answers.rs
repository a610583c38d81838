//! The answers that everything else of `init` is made from, and the questions for them.

use std::fmt::Display;
use std::io::{BufRead, Write};

use clap::ValueEnum;
use relay_console::Failure;
use relay_policy::Image;
use relay_protocol::encoding::printable;
use relay_protocol::keys::PrivateKey;
use relay_protocol::{AccountId, PublicKey, Region, TargetName};

use super::accounts::{self, Accounts};
use crate::cli::{Ci, Init};
use crate::install::{flat, read_public_key};
use crate::{account, random};

/// IAM's limit for the length of a role's name.
const ROLE_NAME_MAX: usize = 64;

/// Everything that the files are made from.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) target: TargetName,
    pub(super) region: Region,
    pub(super) target_account: AccountId,
    pub(super) ci_account: AccountId,
    pub(super) ci: Ci,
    /// The token's subject, or the ARN of CI's role.
    pub(super) source: String,
    pub(super) code_bucket: String,
    /// CI's public key. It is missing until the stack of the CI account has made a key in KMS.
    pub(super) signer: Option<PublicKey>,
    pub(super) new_key: Option<PrivateKey>,
    /// The ARN of a signing key in KMS.
    pub(super) kms_key: Option<String>,
    pub(super) target_key: Option<String>,
    pub(super) target_public_key: Option<PublicKey>,
    pub(super) answer_public_key: Option<PublicKey>,
    pub(super) image: Option<Image>,
    pub(super) runner_image: Option<Image>,
    /// The address of an emulator, from AWS_ENDPOINT_URL. Emulators report no digests of images, so
    /// the configuration names none then.
    pub(super) endpoint: Option<String>,
    pub(super) arm64: bool,
}

/// The source of the answers that the flags do not give.
pub(super) struct Questions<'t, 'e, W> {
    pub(super) terminal: Option<&'t mut dyn BufRead>,
    pub(super) err: &'e mut W,
}

impl<W: Write> Questions<'_, '_, W> {
    /// Returns what is known from a profile, with which a flag must agree; without either, asks.
    fn ask_unless<T: PartialEq + Display, E: Display>(
        &mut self,
        known: Option<String>,
        (flag, question): (&str, &str),
        given: Option<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let Some(known) = known else { return self.ask(flag, question, given, read) };
        if given.as_ref().is_some_and(|given| *given != known) {
            let given = given.unwrap_or_default();
            return Err(Failure::usage(format!("{flag} is {given}, and the profile's is {known}")));
        }
        self.ask(flag, question, Some(known), read)
    }

    /// Asks with a default, which an empty answer takes. Without a terminal, takes the default.
    fn ask_default<T, E: Display>(
        &mut self,
        default: Option<String>,
        (flag, question): (&str, &str),
        given: Option<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        match (default, given) {
            (Some(default), None) if self.terminal.is_none() => {
                writeln!(self.err, "{flag} is {}, from the git remote", printable(&default))?;
                self.ask(flag, question, Some(default), read)
            }
            (Some(default), None) => {
                let question = format!("{question} [{}]", printable(&default));
                self.ask(flag, &question, None, |text| read(if text.is_empty() { &default } else { text }))
            }
            (_, given) => self.ask(flag, question, given, read),
        }
    }

    /// Asks a person for a yes. Without a terminal there is nobody to ask: whoever wrote the
    /// command has said yes.
    pub(super) fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
        if self.terminal.is_none() {
            return Ok(true);
        }
        self.ask("the answer", question, None, |text| match text {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err("write yes or no"),
        })
    }

    /// Returns the value of the flag. Without one, asks the person until the answer is usable.
    pub(super) fn ask<T, E: Display>(
        &mut self,
        flag: &str,
        question: &str,
        given: Option<String>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Failure> {
        let wrong = |error: E| format!("{flag}: {error}");
        if let Some(text) = given {
            return read(&text).map_err(|error| Failure::usage(wrong(error)));
        }
        let missing = || Failure::usage(format!("{flag} is missing: pass it, or run relay-admin at a terminal"));
        let terminal = self.terminal.as_mut().ok_or_else(missing)?;
        loop {
            write!(self.err, "{question}: ")?;
            self.err.flush()?;
            let mut line = String::new();
            if terminal.read_line(&mut line)? == 0 {
                return Err(missing());
            }
            match read(line.trim()) {
                Ok(answer) => return Ok(answer),
                Err(error) => writeln!(self.err, "{}", printable(&wrong(error)))?,
            }
        }
    }
}

pub(super) fn answers<W: Write>(
    arguments: &Init,
    accounts: Option<&Accounts>,
    questions: &mut Questions<'_, '_, W>,
) -> Result<Answers, Failure> {
    let given = arguments.clone();
    let question = "Target, as service/environment, such as payments/production";
    let target = questions.ask("--target", question, given.target, target_name)?;
    let known = accounts.map(|accounts| accounts.target.id.to_string());
    let question = ("--target-account", "ID of the target account, the one to deploy to");
    let target_account = questions.ask_unless(known, question, given.target_account, id)?;
    let known = accounts.map(|accounts| accounts.target.region.to_string());
    let question = ("--region", "Target region, such as eu-west-1");
    let region: Region = questions.ask_unless(known, question, given.region, str::parse)?;
    let known = accounts.map(|accounts| accounts.ci.id.to_string());
    let question = ("--ci-account", "ID of the account that CI runs in");
    let ci_account = questions.ask_unless(known, question, given.ci_account, id)?;
    accounts::two_accounts(&ci_account, &target_account)?;
    let remote = accounts.and_then(|_| accounts::from_git());
    let known = remote.as_ref().and_then(|(ci, _)| Some(ci.to_possible_value()?.get_name().to_owned()));
    let question = ("--ci", "CI system: github, gitlab or jenkins");
    let ci = questions.ask_default(known, question, given.ci, |text| Ci::from_str(text, false))?;
    let question = match ci {
        Ci::Github => "Repository, owner/name",
        Ci::Gitlab => "Project, group/name",
        Ci::Jenkins => "ARN of the role of the Jenkins agents",
    };
    let known = remote.filter(|(system, _)| *system == ci && given.ci_source.is_none()).map(|(_, path)| path);
    let source = questions.ask_default(known, ("--ci-source", question), given.ci_source, |text| {
        source(ci, text, &target, &ci_account, region.partition())
    })?;
    let known = accounts.map(|_| format!("relay-code-{target_account}-{region}"));
    let question = "Bucket in the target account that will hold relay-launcher.zip";
    let code_bucket = match (known, given.code_bucket) {
        (Some(usual), None) => usual,
        (_, given) => questions.ask("--code-bucket", question, given, bucket)?,
    };
    let (signer, new_key) = match given.new_key {
        true => new_key().map(|(public, private)| (Some(public), private))?,
        // The stack of the CI account makes a key.
        false if given.signer_key.is_none() && arguments.apply => (None, None),
        false => signer(given.signer_key, questions).map(|(public, private)| (Some(public), private))?,
    };
    let home = format!("arn:{}:kms:{region}:{target_account}:key/", region.partition());
    let target_key = given.target_key.map(|arn| key_arn(arn, &home));
    Ok(Answers {
        target,
        region,
        target_account,
        ci_account,
        ci,
        source,
        code_bucket,
        signer,
        new_key,
        kms_key: None,
        target_key: target_key.transpose()?,
        target_public_key: pin("--target-public-key", given.target_public_key)?,
        answer_public_key: pin("--answer-public-key", given.answer_public_key)?,
        image: given.image,
        runner_image: given.runner_image,
        endpoint: accounts.and_then(|_| account::emulator()),
        arm64: given.arm64,
    })
}

/// A public key that a flag gives.
fn pin(flag: &str, text: Option<String>) -> Result<Option<PublicKey>, Failure> {
    let key = text.map(|text| read_public_key(&text)).transpose();
    key.map_err(|error| Failure::usage(format!("{flag}: {error}")))
}

fn id(text: &str) -> Result<AccountId, relay_protocol::names::InvalidName> {
    text.parse()
}

fn target_name(text: &str) -> Result<TargetName, String> {
    let target: TargetName = text.parse().map_err(|error: relay_protocol::names::InvalidName| error.to_string())?;
    match runner_role(&target).len() {
        ..=ROLE_NAME_MAX => Ok(target),
        _ => Err("the name of the runner's role would be too long: choose a shorter target name".to_owned()),
    }
}

/// Returns CI's public key as given, or a new key pair.
fn signer<W: Write>(
    given: Option<String>,
    questions: &mut Questions<'_, '_, W>,
) -> Result<(PublicKey, Option<PrivateKey>), Failure> {
    let question = "CI's public signing key, in base64 (leave empty to make a new key pair)";
    let is_open = questions.terminal.is_some();
    let signer = questions.ask("--signer-key (or --new-key)", question, given, |text| match text {
        "" if is_open => Ok(None),
        text => read_public_key(text).map(Some),
    })?;
    match signer {
        Some(signer) => Ok((signer, None)),
        None => new_key(),
    }
}

/// Accepts only a KMS key of the target's account and region, whose ARN begins with `home`.
fn key_arn(arn: String, home: &str) -> Result<String, Failure> {
    match arn.strip_prefix(home) {
        Some(id) if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => Ok(arn),
        _ => Err(Failure::usage(format!("--target-key: write the ARN of a key, which begins with {home}"))),
    }
}

fn new_key() -> Result<(PublicKey, Option<PrivateKey>), Failure> {
    let key = PrivateKey::from_seed(random()?);
    Ok((key.public().clone(), Some(key)))
}

/// Returns the one subject or role that ci-account.yaml will trust. A wildcard is an error.
fn source(ci: Ci, text: &str, target: &TargetName, account: &AccountId, partition: &str) -> Result<String, String> {
    let name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@-".contains(&b));
    let parts = text.split('/').count();
    let path = text.split('/').all(name);
    match ci {
        Ci::Github if parts == 2 && path => Ok(format!("repo:{text}:environment:{}", environment(target))),
        Ci::Gitlab if parts >= 2 && path => Ok(format!("project_path:{text}:ref_type:branch:ref:main")),
        Ci::Jenkins => {
            let home = format!("arn:{partition}:iam::{account}:role/");
            let role = text.strip_prefix(&home).unwrap_or_default();
            let legal = |b: u8| b.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&b);
            match !role.is_empty() && !role.ends_with('/') && role.bytes().all(legal) {
                true => Ok(text.to_owned()),
                false => Err(format!("write the ARN of one role, which begins with {home}")),
            }
        }
        Ci::Github => Err("write it as owner/name".to_owned()),
        Ci::Gitlab => Err("write it as group/name".to_owned()),
    }
}

fn bucket(text: &str) -> Result<String, &'static str> {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    match (3..=63).contains(&text.len()) && text.bytes().all(legal) {
        true => Ok(text.to_owned()),
        false => Err("not a bucket name"),
    }
}

/// The last part of the target's name.
pub(super) fn environment(target: &TargetName) -> &str {
    target.as_str().split_once('/').map_or("", |(_, environment)| environment)
}

pub(super) fn runner_role(target: &TargetName) -> String {
    format!("relay-{}", flat(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_has_a_wildcard_or_is_of_another_account() {
        let target: TargetName = "a/b".parse().unwrap();
        let account: AccountId = "111111111111".parse().unwrap();
        let source = |ci, text| source(ci, text, &target, &account, "aws");
        assert_eq!(source(Ci::Github, "octo@1/shop@2").unwrap(), "repo:octo@1/shop@2:environment:b");
        assert_eq!(source(Ci::Gitlab, "a/b/c").unwrap(), "project_path:a/b/c:ref_type:branch:ref:main");
        for (ci, odd) in [
            (Ci::Github, "octo"),
            (Ci::Github, "octo/*"),
            (Ci::Github, "octo/"),
            (Ci::Github, "octo/a:environment:x"),
            (Ci::Gitlab, "a"),
            (Ci::Gitlab, "a/*"),
            (Ci::Jenkins, "agents"),
            (Ci::Jenkins, "arn:aws:iam::222222222222:role/agents"),
            (Ci::Jenkins, "arn:aws:iam::111111111111:role/*"),
        ] {
            assert!(source(ci, odd).is_err(), "{odd}");
        }
    }
}
