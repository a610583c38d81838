//! A target's configuration: one file in the platform team's repository, pinned by its digest and
//! read by both the launcher and the runner.
//!
//! Reading it is strict. An unknown field, a pattern that does not compile, a template that uses an
//! unknown parameter and a policy that does not parse are all errors that name their place.
//! [`crate::check()`] reports what is legal but doubtful.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use relay_protocol::keys::{Proof, SingleKey, TrustRoots, TrustedSigner};
use relay_protocol::{AccountId, Digest, ParameterName, PublicKey, QueueUrl, TargetName, TopicArn};
use serde::Deserialize;

use crate::cedar::{Policies, PolicyError};
use crate::identity::{ClaimsFile, IssuerFile, Issuers, KindFile, PersonFile, Persons};
use crate::images::Images;
use crate::parameters::{ParameterRule, S3Prefix};
use crate::secret::SecretRef;
use crate::substitute::Template;
use crate::units;

/// The largest configuration in bytes. It travels in a task definition, which may have 64 KiB in
/// all.
const CONFIGURATION_MAX: usize = 48 * 1_024;

/// The largest artifact in bytes, if its parameter has no `max` of its own.
const ARTIFACT_DEFAULT: u64 = 100 << 20;

/// The configuration of one target: what it is, who may ask, and what runs.
#[derive(Debug)]
pub struct Configuration {
    /// Its text, as the platform team wrote it.
    pub text: String,
    /// The SHA-256 of its text, which the task definition pins.
    pub digest: Digest,
    /// The name of the target.
    pub target: TargetName,
    /// The SNS topic of the target, which is the audience of its requests.
    pub topic: TopicArn,
    /// The relay bucket, which holds locks and saved files.
    pub bucket: String,
    /// The evidence bucket, which holds claims, requests, frames and records.
    pub evidence: String,
    /// The KMS key that signs vouches for runner keys, and the runner's records: an alias, or an
    /// ARN.
    pub target_key: String,
    /// The name of the role that the runner itself must run as.
    pub runner_role: String,
    /// The role that the tool assumes. Without it, the tool gets no credentials.
    pub role: Option<String>,
    /// The images that the task has to run; absent in a sandbox, whose tasks are processes.
    pub images: Option<Images>,
    /// How long all steps together may run.
    pub timeout: Duration,
    /// How a step is asked to stop.
    pub cancel: CancelRule,
    /// Whether the tool's two streams are one.
    pub output: OutputRule,
    /// The number of deployments of this target that may run at the same time.
    pub concurrency: u32,
    /// Whether every request is refused.
    pub frozen: bool,
    /// Whether the steps change nothing, as the platform team declares. Only such a target may have
    /// a capacity of its own.
    pub read_only: bool,
    /// The capacity provider that the task runs on; on Fargate without one (clause RUN-15).
    pub capacity: Option<String>,
    /// The Cedar policies.
    pub policies: Policies,
    /// The rules for the parameters, by name.
    pub parameters: BTreeMap<ParameterName, ParameterRule>,
    /// Variables of the tool's environment, beside those for parameters and secrets.
    pub environment: BTreeMap<String, String>,
    /// The secrets, by the variable that receives each.
    pub secrets: BTreeMap<String, SecretRef>,
    /// The signers whose signatures are accepted.
    pub roots: TrustRoots,
    /// The persons whom the claims of tokens identify.
    pub persons: Persons,
    /// Queues that requests may use although they are not named for a deployment.
    pub fixed_queues: Vec<QueueUrl>,
    /// The steps to run, in order.
    pub steps: Vec<Step>,
    /// The steps to run after a step failed.
    pub rollback: Vec<Step>,
    /// An endpoint for all AWS calls, used by the sandbox.
    pub endpoint: Option<String>,
    /// The folder in which work directories are created.
    pub workspace: String,
    /// Bytes of disk, beside the work directory, that may hold output which SQS has not accepted
    /// yet. The archive may use as many again for data which S3 has not accepted yet.
    pub spool: u64,
    /// The user id that the tool runs as, if the runner is root and can switch users. With 0 the
    /// tool runs as root too.
    pub uid: u32,
}

/// How a step is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelRule {
    /// The signal to send.
    pub signal: CancelSignal,
    /// How long a step may take to stop before it is signalled once more and then killed.
    pub grace: Duration,
    /// The recipient of the signal.
    pub to: CancelTo,
}

/// The recipient of the signal that asks a step to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CancelTo {
    /// The whole process group of the step, as Ctrl-C in a terminal does.
    #[default]
    Group,
    /// The step's program alone, for a wrapper that passes the signal on to its tool, such as
    /// terragrunt. Otherwise the tool would get it twice.
    Process,
}

/// How the tool's stdout and stderr reach relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputRule {
    /// By a pipe each. Each stream is in order; between the two, the order may be off by what was
    /// written within the same moment.
    #[default]
    Separate,
    /// By one pipe, in exactly the order in which they were written. All of it is stdout then.
    Merged,
}

/// A signal that asks a tool to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum CancelSignal {
    /// SIGINT, which terraform takes as a request to finish its current work.
    #[serde(rename = "INT")]
    Int,
    /// SIGTERM.
    #[serde(rename = "TERM")]
    Term,
}

/// One program to run.
#[derive(Clone, Debug)]
pub struct Step {
    /// The name of the step.
    pub name: String,
    /// The program and its arguments. They are not passed to a shell.
    pub run: Vec<Template>,
    /// The exit codes after which the next step may begin.
    pub success_codes: BTreeSet<u8>,
    /// Paths of files to save, inside the work directory.
    pub save: Vec<String>,
    /// Whether the stdout of the step is saved with them, as the text that approvers read.
    pub save_text: bool,
}

/// Why a text is not a configuration. It is for the platform team to correct.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// The text does not fit into a task definition.
    #[error("the configuration is {found} bytes; the limit is {CONFIGURATION_MAX}")]
    TooLarge {
        /// The size in bytes.
        found: usize,
    },
    /// The text is not TOML of the expected form.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// The value of a field is not allowed.
    #[error("`{field}`: {problem}")]
    Field {
        /// The path of the field.
        field: String,
        /// What is wrong with the value.
        problem: String,
    },
    /// The Cedar policies are missing or invalid.
    #[error("`policy`: {0}")]
    Policy(#[from] PolicyError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    target: TargetName,
    topic: TopicArn,
    bucket: String,
    evidence: String,
    target_key: String,
    runner_role: String,
    role: Option<String>,
    images: Option<Images>,
    #[serde(default = "default_timeout")]
    timeout: String,
    #[serde(default)]
    cancel: CancelFile,
    #[serde(default)]
    output: OutputRule,
    #[serde(default = "one")]
    concurrency: u32,
    #[serde(default)]
    frozen: bool,
    #[serde(default)]
    read_only: bool,
    capacity: Option<String>,
    policy: String,
    #[serde(default)]
    parameters: BTreeMap<ParameterName, ParameterFile>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, String>,
    signers: Vec<SignerFile>,
    #[serde(default)]
    issuers: Vec<IssuerFile>,
    #[serde(default)]
    persons: Vec<PersonFile>,
    #[serde(default)]
    fixed_queues: Vec<QueueUrl>,
    steps: Vec<StepFile>,
    #[serde(default)]
    rollback: Vec<StepFile>,
    endpoint: Option<String>,
    #[serde(default = "default_workspace")]
    workspace: String,
    #[serde(default = "default_spool")]
    spool: String,
    #[serde(default = "nonroot")]
    uid: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelFile {
    #[serde(default = "int")]
    signal: CancelSignal,
    #[serde(default = "default_grace")]
    grace: String,
    #[serde(default)]
    to: CancelTo,
}

impl Default for CancelFile {
    fn default() -> Self {
        Self { signal: int(), grace: default_grace(), to: CancelTo::Group }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterFile {
    pattern: Option<String>,
    #[serde(default)]
    multiline: bool,
    #[serde(default)]
    unicode: bool,
    artifact: Option<String>,
    saved_by: Option<TargetName>,
    key: Option<PublicKey>,
    max: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignerFile {
    name: Option<String>,
    #[serde(default)]
    kind: KindFile,
    person: Option<String>,
    key: Option<PublicKey>,
    issuer: Option<String>,
    claims: Option<ClaimsFile>,
    /// Whether the role of AWS that `claims` name is one person's own.
    #[serde(default)]
    own_role: bool,
    #[serde(default)]
    groups: BTreeSet<String>,
    #[serde(default)]
    ci_accounts: Vec<AccountId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    name: String,
    run: Vec<String>,
    #[serde(default = "zero")]
    success_codes: BTreeSet<u8>,
    #[serde(default)]
    save: Vec<String>,
    #[serde(default)]
    save_text: bool,
}

fn default_timeout() -> String {
    "1h".to_owned()
}
fn default_grace() -> String {
    "2m".to_owned()
}
fn default_workspace() -> String {
    "/work".to_owned()
}
/// Ten minutes of output at nearly 2 MB/s. With an equal share for the archive, this is a tenth of
/// Fargate's default disk.
fn default_spool() -> String {
    "1GiB".to_owned()
}
/// The user that distroless images call `nonroot`. No file of an image belongs to it.
fn nonroot() -> u32 {
    65_532
}
fn int() -> CancelSignal {
    CancelSignal::Int
}
fn one() -> u32 {
    1
}
fn zero() -> BTreeSet<u8> {
    BTreeSet::from([0])
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> ConfigurationError {
    ConfigurationError::Field { field: field.into(), problem: problem.into() }
}

impl File {
    /// Checks each value by itself.
    fn check(&self) -> Result<(), ConfigurationError> {
        if !(1..=1_000).contains(&self.concurrency) {
            return Err(wrong("concurrency", "must be from 1 to 1000"));
        }
        // Larger values are refused, because the two largest have special meanings in system calls.
        if i32::try_from(self.uid).is_err() {
            return Err(wrong("uid", "must be less than 2147483648"));
        }
        for (field, names) in [("environment", self.environment.keys()), ("secrets", self.secrets.keys())] {
            for name in names {
                variable(field, name)?;
            }
        }
        if let Some(twice) = self.secrets.keys().find(|name| self.environment.contains_key(*name)) {
            return Err(wrong(format!("secrets.{twice}"), "is also in `environment`"));
        }
        self.capacity.as_deref().map_or(Ok(()), |name| self.check_capacity(name))?;
        self.endpoint.as_deref().map_or(Ok(()), check_endpoint)
    }

    /// Hosts of a capacity provider are shared by the tasks on them, so each provider is for one
    /// target, and for one that changes nothing.
    fn check_capacity(&self, name: &str) -> Result<(), ConfigurationError> {
        let own = self.target.family();
        if name != own {
            return Err(wrong("capacity", format!("must be `{own}`: a capacity provider serves one target")));
        }
        if !self.read_only {
            return Err(wrong(
                "capacity",
                "needs `read_only = true`: tasks share its hosts, so its steps may change nothing",
            ));
        }
        Ok(())
    }
}

impl Configuration {
    /// The longest run of a deployment in seconds: the steps and their grace period, and twice that
    /// if there is a rollback.
    pub fn longest_run(&self) -> i64 {
        let once = (self.timeout + self.cancel.grace).as_secs();
        let all = if self.rollback.is_empty() { once } else { once * 2 };
        i64::try_from(all).unwrap_or(i64::MAX)
    }

    /// Reads a configuration from TOML.
    ///
    /// ```
    /// use relay_policy::Configuration;
    /// use relay_protocol::keys::PrivateKey;
    ///
    /// let configuration = Configuration::parse(&format!(
    ///     r#"
    ///     target = "demo/hello"
    ///     topic = "arn:aws:sns:eu-west-1:222222222222:relay"
    ///     bucket = "example-relay"
    ///     evidence = "example-relay-evidence"
    ///     target_key = "alias/relay-demo-hello"
    ///     runner_role = "relay-runner"
    ///     policy = "permit(principal, action, resource);"
    ///     signers = [{{ name = "ci", key = "{}" }}]
    ///     steps = [{{ name = "greet", run = ["echo", "hello"] }}]
    ///     "#,
    ///     PrivateKey::from_seed([7; 32]).public(),
    /// ))?;
    /// assert_eq!(configuration.timeout.as_secs(), 3_600);
    /// # Ok::<(), relay_policy::ConfigurationError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If the text is too long, is not TOML of the expected form, has a value that is not allowed,
    /// or has no valid policy.
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        if text.len() > CONFIGURATION_MAX {
            return Err(ConfigurationError::TooLarge { found: text.len() });
        }
        let file: File = toml::from_str(text)?;
        file.check()?;
        let parameters = file
            .parameters
            .into_iter()
            .map(|(name, rule)| Ok((name.clone(), parameter(&name, rule)?)))
            .collect::<Result<_, ConfigurationError>>()?;
        let secrets = file.secrets.into_iter().map(secret).collect::<Result<_, _>>()?;
        let (roots, persons) = trusted(file.signers, file.issuers, file.persons)?;
        let steps = steps("steps", file.steps, &parameters)?;
        if steps.is_empty() {
            return Err(wrong("steps", "there is nothing to run: add at least one step"));
        }
        let timeout = duration("timeout", &file.timeout)?;
        let grace = duration("cancel.grace", &file.cancel.grace)?;
        if timeout.is_zero() || timeout > Duration::from_secs(24 * 3_600) {
            return Err(wrong("timeout", "must be more than 0 and at most 24h"));
        }
        let spool = units::size(&file.spool)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| wrong("spool", format!("`{}` is not a size such as 512MiB or 2GiB", file.spool)))?;
        let policies = Policies::parse(&file.policy, &parameters)?;
        Ok(Self {
            text: text.to_owned(),
            digest: Digest::of(text.as_bytes()),
            rollback: self::steps("rollback", file.rollback, &parameters)?,
            target: file.target,
            topic: file.topic,
            bucket: file.bucket,
            evidence: file.evidence,
            target_key: file.target_key,
            runner_role: file.runner_role,
            role: file.role,
            images: file.images,
            timeout,
            cancel: CancelRule { signal: file.cancel.signal, grace, to: file.cancel.to },
            output: file.output,
            concurrency: file.concurrency,
            frozen: file.frozen,
            read_only: file.read_only,
            capacity: file.capacity,
            policies,
            parameters,
            environment: file.environment,
            secrets,
            roots,
            persons,
            fixed_queues: file.fixed_queues,
            steps,
            endpoint: file.endpoint,
            workspace: file.workspace,
            spool,
            uid: file.uid,
        })
    }
}

fn secret((name, text): (String, String)) -> Result<(String, SecretRef), ConfigurationError> {
    match text.parse() {
        Ok(reference) => Ok((name, reference)),
        Err(problem) => Err(wrong(format!("secrets.{name}"), problem)),
    }
}

fn duration(field: &str, text: &str) -> Result<Duration, ConfigurationError> {
    units::duration(text).ok_or_else(|| wrong(field, format!("`{text}` is not a duration such as 90s, 45m or 2h")))
}

fn parameter(name: &ParameterName, file: ParameterFile) -> Result<ParameterRule, ConfigurationError> {
    let field = format!("parameters.{name}");
    let max = match &file.max {
        Some(text) => {
            units::size(text).ok_or_else(|| wrong(&field, format!("`{text}` is not a size such as 50MiB")))?
        }
        None => ARTIFACT_DEFAULT,
    };
    match (file.pattern, file.artifact, file.saved_by) {
        (Some(pattern), None, None) if file.max.is_none() && file.key.is_none() => {
            ParameterRule::text(&pattern, file.multiline, file.unicode)
                .map_err(|error| wrong(&field, error.to_string()))
        }
        (None, Some(text), None) if file.key.is_none() => {
            let location = S3Prefix::parse(&text)
                .ok_or_else(|| wrong(&field, format!("`{text}` is not of the form s3://bucket/prefix/")))?;
            Ok(ParameterRule::Artifact { location, max })
        }
        (None, None, Some(target)) => {
            let problem =
                format!("needs `key`, the target key of {target}: the output RelayToml of its stack prints it");
            let key = file.key.ok_or_else(|| wrong(&field, problem))?;
            let key = SingleKey::new(&key).map_err(|error| wrong(&field, error.to_string()))?;
            Ok(ParameterRule::SavedBy { target, key, max })
        }
        _ => Err(wrong(
            field,
            "needs exactly one of `pattern`, `artifact` and `saved_by` (`max` is only for the last two, `key` for the last)",
        )),
    }
}

/// Who may sign, and who the persons are.
fn trusted(
    signers: Vec<SignerFile>,
    issuers: Vec<IssuerFile>,
    persons: Vec<PersonFile>,
) -> Result<(TrustRoots, Persons), ConfigurationError> {
    let in_list = |list: &'static str| move |(at, problem)| wrong(format!("{list}[{at}]"), problem);
    let issuers = Issuers::read(issuers).map_err(in_list("issuers"))?;
    let persons = Persons::read(persons, &issuers).map_err(in_list("persons"))?;
    let signers = signers.into_iter().enumerate().map(|(at, entry)| signer(at, entry, &issuers));
    let signers = signers.collect::<Result<Vec<_>, _>>()?;
    if signers.is_empty() {
        return Err(wrong("signers", "no signer could ever deploy: add at least one"));
    }
    one_entry_for_each_key(&signers)?;
    one_name_for_each_rule(&signers)?;
    Ok((TrustRoots::new(signers), persons))
}

fn signer(at: usize, file: SignerFile, issuers: &Issuers) -> Result<TrustedSigner, ConfigurationError> {
    let wrong = |problem: String| wrong(format!("signers[{at}]"), problem);
    let (proof, name) = match (file.key, file.issuer, file.claims) {
        (Some(key), None, None) => {
            let short = key.key_id().chars().take(12).collect::<String>();
            (TrustedSigner::by_key(key).map_err(|error| wrong(error.to_string()))?, file.name.unwrap_or(short))
        }
        (None, Some(issuer), Some(claims)) => {
            let name = file.name.ok_or_else(|| wrong("needs a `name`, because it has no key".to_owned()))?;
            (Proof::Token(issuers.rule(&issuer, claims).map_err(wrong)?), name)
        }
        _ => return Err(wrong("needs either `key`, or `issuer` and `claims`".to_owned())),
    };
    let kind = file.kind.read(&name, file.person).map_err(wrong)?;
    if let Proof::Token(rule) = &proof
        && kind.person().is_some()
        && let Some(problem) = issuers.no_person(rule, file.own_role)
    {
        return Err(wrong(problem.to_owned()));
    }
    Ok(TrustedSigner { proof, name, kind, groups: file.groups, ci_accounts: file.ci_accounts })
}

/// One key under two names would be two signers, and perhaps two persons.
fn one_entry_for_each_key(signers: &[TrustedSigner]) -> Result<(), ConfigurationError> {
    let mut first: BTreeMap<&PublicKey, usize> = BTreeMap::new();
    for (at, signer) in signers.iter().enumerate() {
        if let Proof::Key { public, .. } = &signer.proof
            && let Some(other) = first.insert(public, at)
        {
            return Err(wrong(format!("signers[{at}]"), format!("has the same key as signers[{other}]")));
        }
    }
    Ok(())
}

/// The name of an entry with claims is part of its id.
fn one_name_for_each_rule(signers: &[TrustedSigner]) -> Result<(), ConfigurationError> {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (at, signer) in signers.iter().enumerate() {
        if matches!(signer.proof, Proof::Token(_))
            && let Some(other) = first.insert(&signer.name, at)
        {
            return Err(wrong(format!("signers[{at}]"), format!("has the same name as signers[{other}]")));
        }
    }
    Ok(())
}

fn steps(
    list: &str,
    files: Vec<StepFile>,
    parameters: &BTreeMap<ParameterName, ParameterRule>,
) -> Result<Vec<Step>, ConfigurationError> {
    files.into_iter().enumerate().map(|(at, file)| step(&format!("{list}[{at}]"), file, parameters)).collect()
}

fn step(
    field: &str,
    file: StepFile,
    parameters: &BTreeMap<ParameterName, ParameterRule>,
) -> Result<Step, ConfigurationError> {
    let run = file
        .run
        .iter()
        .map(|text| Template::parse(text).map_err(|error| wrong(format!("{field}.run"), error.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(program) = run.first() else { return Err(wrong(format!("{field}.run"), "is empty")) };
    if program.holes().next().is_some() {
        return Err(wrong(format!("{field}.run"), "a parameter may not choose the program"));
    }
    if let Some(hole) = run.iter().flat_map(Template::holes).find(|hole| !parameters.contains_key(hole)) {
        return Err(wrong(format!("{field}.run"), format!("there is no parameter `{hole}`")));
    }
    if let Some(path) =
        file.save.iter().find(|path| relay_protocol::artifact::components(path).map_or(true, |parts| parts.is_empty()))
    {
        return Err(wrong(format!("{field}.save"), format!("`{path}` is not a path inside the work directory")));
    }
    if file.name.is_empty() || file.name.len() > 64 || file.name.chars().any(|c| c.is_control()) {
        return Err(wrong(format!("{field}.name"), "must be 1 to 64 bytes, without control characters"));
    }
    if file.save_text && file.save.is_empty() {
        return Err(wrong(format!("{field}.save_text"), "needs `save`: the text is saved with what it describes"));
    }
    let StepFile { name, success_codes, save, save_text, .. } = file;
    Ok(Step { name, run, success_codes, save, save_text })
}

fn variable(field: &str, name: &str) -> Result<(), ConfigurationError> {
    let good = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !good {
        return Err(wrong(field, format!("`{name}` is not a valid variable name")));
    }
    if name.starts_with("RELAY_") {
        return Err(wrong(field, format!("`{name}`: names that start with RELAY_ are reserved for relay")));
    }
    Ok(())
}

/// Checks that an endpoint uses https, or http on a loopback address. Any other endpoint would
/// receive credentials in plain text.
fn check_endpoint(endpoint: &str) -> Result<(), ConfigurationError> {
    let not_a_url = |_| wrong("endpoint", "is not a URL such as https://host:port");
    let uri: http::Uri = endpoint.parse().map_err(not_a_url)?;
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        && uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
    let loopback = matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]"));
    match uri.scheme_str() {
        _ if !plain => Err(wrong("endpoint", "must be a scheme, a host and a port, and nothing else")),
        Some("https") => Ok(()),
        Some("http") if loopback => Ok(()),
        _ => Err(wrong("endpoint", "must use https, or http on a loopback address")),
    }
}

/// The names of all groups that have a signer.
pub(crate) fn groups(roots: &TrustRoots) -> BTreeSet<&str> {
    roots.signers().iter().flat_map(|signer| signer.groups.iter().map(String::as_str)).collect()
}
