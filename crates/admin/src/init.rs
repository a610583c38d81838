//! `init`: writes the files of a first target from a few answers. It never overwrites a file, and
//! checks for existing files before it writes the first.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use relay_console::Failure;
use relay_policy::Image;
use relay_protocol::encoding::printable;
use relay_protocol::keys::{PrivateKey, VerifyingKey};
use relay_protocol::{AccountId, PublicKey, Region, TargetName};

use crate::cli::{Ci, Init};
use crate::{account, random};
use apply::Accounts;
use files::{environment, runner_role};

mod apply;
mod files;

/// IAM's limit for the length of a role's name.
const ROLE_NAME_MAX: usize = 64;

/// Path of a new private key, in a folder that git ignores.
const KEY_FILE: &str = "keys/ci.pem";

/// Everything that the files are made from.
#[derive(Debug)]
struct Answers {
    target: TargetName,
    region: Region,
    target_account: AccountId,
    ci_account: AccountId,
    ci: Ci,
    /// The token's subject, or the ARN of CI's role.
    source: String,
    code_bucket: String,
    /// CI's public key. It is missing until the stack of the CI account has made a key in KMS.
    signer: Option<PublicKey>,
    new_key: Option<PrivateKey>,
    /// The ARN of a signing key in KMS.
    kms_key: Option<String>,
    target_key: Option<String>,
    target_public_key: Option<PublicKey>,
    answer_public_key: Option<PublicKey>,
    image: Option<Image>,
    runner_image: Option<Image>,
    /// The address of an emulator, from AWS_ENDPOINT_URL. Emulators report no digests of images, so
    /// the configuration names none then.
    endpoint: Option<String>,
    arm64: bool,
}

/// Asks for what the flags leave out, writes the files and prints the next steps. Without a
/// terminal a missing flag is an error.
pub(crate) fn init(
    arguments: Init,
    terminal: Option<&mut dyn BufRead>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<u8, Failure> {
    let mut questions = Questions { terminal, err };
    let accounts = Accounts::of(&arguments)?;
    let answers = answers(&arguments, accounts.as_ref(), &mut questions)?;
    if let Some(accounts) = accounts.as_ref().filter(|_| arguments.apply) {
        return apply::apply(answers, accounts, &arguments, &mut questions, out);
    }
    let dir = arguments.dir;
    let files = answers.files()?;
    let key = answers.new_key.as_ref().map(|key| (PathBuf::from(KEY_FILE), key.to_pem()));
    let paths: Vec<&Path> =
        files.iter().map(|(path, _)| path.as_path()).chain(key.as_ref().map(|k| k.0.as_path())).collect();
    // A dangling link counts as existing: a write would go through it.
    let there: Vec<String> = paths
        .iter()
        .filter(|path| dir.join(path).symlink_metadata().is_ok())
        .map(|path| dir.join(path).display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::usage(format!("nothing was written, as these files exist: {}", there.join(", "))));
    }
    for (path, text) in &files {
        write_new(&dir.join(path), text, 0o644)?;
    }
    if let Some((path, pem)) = &key {
        write_new(&dir.join(path), pem, 0o600)?;
    }
    for path in paths {
        writeln!(out, "wrote {}", dir.join(path).display())?;
    }
    write!(out, "{}", answers.next())?;
    Ok(0)
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::usage(format!("cannot write {}: {error}; the files written before it remain", path.display()))
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// The source of the answers that the flags do not give.
struct Questions<'t, 'e, W> {
    terminal: Option<&'t mut dyn BufRead>,
    err: &'e mut W,
}

impl<W: Write> Questions<'_, '_, W> {
    /// Returns what is known from a profile, with which a flag must agree; without either, asks.
    fn ask_unless<T: PartialEq + Display, E: Display>(
        &mut self,
        known: Option<String>,
        flag: &str,
        question: &str,
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
        flag: &str,
        question: &str,
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
    fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
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
    fn ask<T, E: Display>(
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

fn answers<W: Write>(
    arguments: &Init,
    accounts: Option<&Accounts>,
    questions: &mut Questions<'_, '_, W>,
) -> Result<Answers, Failure> {
    let given = arguments.clone();
    let question = "Target, as service/environment, such as payments/production";
    let target = questions.ask("--target", question, given.target, target_name)?;
    let known = accounts.map(|accounts| accounts.target.id.to_string());
    let question = "ID of the target account, the one to deploy to";
    let target_account = questions.ask_unless(known, "--target-account", question, given.target_account, id)?;
    let known = accounts.map(|accounts| accounts.target.region.to_string());
    let question = "Target region, such as eu-west-1";
    let region: Region = questions.ask_unless(known, "--region", question, given.region, str::parse)?;
    let known = accounts.map(|accounts| accounts.ci.id.to_string());
    let ci_account =
        questions.ask_unless(known, "--ci-account", "ID of the account that CI runs in", given.ci_account, id)?;
    apply::two_accounts(&ci_account, &target_account)?;
    let remote = accounts.and_then(|_| apply::from_git());
    let known = remote.as_ref().map(|(ci, _)| ci.name().to_owned()).filter(|_| given.ci.is_none());
    let ci = questions.ask_default(known, "--ci", "CI system: github, gitlab or jenkins", given.ci, |text| {
        clap::ValueEnum::from_str(text, false)
    })?;
    let question = match ci {
        Ci::Github => "Repository, owner/name",
        Ci::Gitlab => "Project, group/name",
        Ci::Jenkins => "ARN of the role of the Jenkins agents",
    };
    let known = remote.filter(|(system, _)| *system == ci && given.ci_source.is_none()).map(|(_, path)| path);
    let source = questions.ask_default(known, "--ci-source", question, given.ci_source, |text| {
        source(ci, text, &target, &ci_account, region.partition())
    })?;
    let known = accounts.map(|_| format!("relay-code-{target_account}-{region}"));
    let question = "Bucket in the target account that will hold relay-launcher.zip";
    let code_bucket = match (known, given.code_bucket) {
        (Some(usual), None) => usual,
        (_, given) => questions.ask("--code-bucket", question, given, bucket)?,
    };
    let (signer, new_key) = match (given.new_key, &given.signer_key) {
        (true, _) => new_key().map(|(public, private)| (Some(public), private))?,
        // The stack of the CI account makes a key.
        (false, None) if arguments.apply => (None, None),
        (false, _) => signer(given.signer_key, questions).map(|(public, private)| (Some(public), private))?,
    };
    let home = format!("arn:{}:kms:{region}:{target_account}:key/", region.partition());
    let target_key = given.target_key.map(|arn| key_arn(arn, &home));
    let pin = |flag: &str, text: Option<String>| {
        let key = text.map(|text| public_key(&text)).transpose();
        key.map_err(|error| Failure::usage(format!("{flag}: {error}")))
    };
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
        text => public_key(text).map(Some),
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

fn public_key(text: &str) -> Result<PublicKey, String> {
    let key: PublicKey = text.parse().map_err(|error: relay_protocol::names::InvalidName| error.to_string())?;
    VerifyingKey::from_spki(&key).map_err(|error| error.to_string())?;
    Ok(key)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    /// Returns the exit code, standard output and the questions that were asked.
    fn at_a_terminal(dir: &Path, flags: &[&str], typed: &str) -> (Result<u8, Failure>, String, String) {
        let arguments = [&["relay-admin", "init", dir.to_str().unwrap()], flags].concat();
        let Command::Init(arguments) = Cli::try_parse_from(arguments).unwrap().command else { panic!("not init") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = init(*arguments, Some(&mut typed.as_bytes()), &mut out, &mut err);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn it_asks_for_what_the_flags_do_not_say_until_it_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let typed = "payments\npayments/production\n22\n222222222222\n111111111111\nteamcity\njenkins\n\
                     arn:aws:iam::999999999999:role/agents\narn:aws:iam::111111111111:role/ci/agents\ncode-bucket\n\n";
        let (result, out, err) = at_a_terminal(dir.path(), &["--region", "eu-west-1"], typed);
        assert_eq!(result.unwrap(), 0, "{err}");
        assert!(!err.contains("region"), "{err}");
        for asked_again in [
            "not a target such as",
            "not an AWS account id",
            "invalid variant",
            "begins with arn:aws:iam::111111111111:role/",
        ] {
            assert!(err.contains(asked_again), "{asked_again}: {err}");
        }
        assert!(out.contains("ci/Jenkinsfile") && out.contains("keys/ci.pem"), "{out}");
        let parameters = std::fs::read_to_string(dir.path().join("parameters/ci-account.json")).unwrap();
        assert!(parameters.contains("\"agents\"") && parameters.contains("\"none\""), "{parameters}");
    }

    #[test]
    fn a_person_who_leaves_has_written_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (result, _, _) = at_a_terminal(dir.path(), &[], "payments/production\n");
        assert!(result.unwrap_err().to_string().contains("--target-account is missing"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

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
