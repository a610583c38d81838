//! Registers a platform team's own target files, adapted to the sandbox's accounts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::{Table, Value};

use super::issuers;
use super::shared::Host;
use super::targets::{self, Context, Given};
use crate::services::{CI_ACCOUNT, REGION, TARGET_ACCOUNT, lock};
use crate::wire::times::random_hex;

/// Facts about the registered targets that the user needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    /// Sentences for the user.
    pub(super) sentences: Vec<String>,
    /// The bearer token of a job that the last target with a signer by tokens accepts.
    pub(super) bearer: Option<String>,
}

/// Registers the targets in the user's files, with the values of their secrets.
///
/// # Errors
///
/// If a file is unreadable or not a valid configuration, if two files have the same target, if
/// the file of secrets names one that no target has, or if `relay-admin` is not built.
pub(super) fn register(host: &Host, context: &Context, given: &Given) -> Result<Notes, String> {
    let secrets = given.secrets.as_deref();
    let values = match secrets {
        None => BTreeMap::new(),
        Some(file) => read_secrets(&read(file)?).map_err(|error| format!("{}: {error}", file.display()))?,
    };
    let mut unused: BTreeSet<&String> = values.keys().collect();
    let (mut notes, mut seen) = (Notes::default(), BTreeSet::new());
    for file in &given.files {
        let text = read(file)?;
        check(host, file)?;
        let own = adapt(&text, context, &given.variables).map_err(|error| format!("{}: {error}", file.display()))?;
        if !seen.insert(own.target.clone()) {
            return Err(format!("{}: the target {} is in two files", file.display(), own.target));
        }
        notes.bearer = own.bearer.or(notes.bearer);
        notes.sentences.push(format!(
            "{} runs in the sandbox's accounts: the sandbox replaced its topic, buckets, keys, roles and the key of the signer `{}`",
            own.target, own.signer
        ));
        for (variable, arn) in own.secrets {
            let value = values.get(&variable).cloned().unwrap_or_else(|| {
                notes.sentences.push(format!(
                    "{}: the value of the secret {variable} is made up; to set it, pass --secrets FILE with a line {variable} = \"…\"",
                    own.target
                ));
                format!("made-up-{}", random_hex::<8>())
            });
            lock(&host.services.secrets).put(&arn, &value);
            unused.remove(&variable);
        }
        targets::add(host, &own.target, &own.role, &own.text);
    }
    match (unused.first(), secrets) {
        (Some(name), Some(file)) => Err(format!("{}: no target has a secret `{name}`", file.display())),
        _ => Ok(notes),
    }
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// `NAME = "value"`, by the variable that gets the secret.
fn read_secrets(text: &str) -> Result<BTreeMap<String, String>, String> {
    toml::from_str(text).map_err(|error| format!("expected one NAME = \"value\" per line: {error}"))
}

/// Has `relay-admin` check a file, because the sandbox does not know the rules for configurations.
fn check(host: &Host, file: &Path) -> Result<(), String> {
    let program = host.places.bin_dir.join("relay-admin");
    let output = std::process::Command::new(&program).args(["target", "pin"]).arg(file).output();
    let output =
        output.map_err(|error| format!("cannot run {}: {error}; to build it, run `cargo build`", program.display()))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(said.strip_prefix("error: ").map(str::to_owned).unwrap_or(said))
        }
    }
}

/// A target's file, for the sandbox.
#[derive(Debug)]
struct Own {
    target: String,
    /// The runner's role.
    role: String,
    /// The name of the signer whose key the sandbox replaced with its own.
    signer: String,
    /// The bearer token of a job that this signer fits, if it signs with tokens.
    bearer: Option<String>,
    /// The secrets' ARNs, by the environment variable that receives the value.
    secrets: BTreeMap<String, String>,
    text: String,
}

/// Replaces a file's AWS resources and keys with those of the sandbox, and adds the user's
/// variables to those of the tool.
fn adapt(text: &str, context: &Context, variables: &[(String, String)]) -> Result<Own, String> {
    let mut file: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let field = |name: &str| file.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(format!("no `{name}`"));
    let (target, role) = (field("target")?, field("runner_role")?);
    let own = [
        ("topic", &context.topic),
        ("bucket", &context.bucket),
        ("evidence", &context.evidence),
        ("target_key", &context.target_key),
        ("endpoint", &context.endpoint),
        ("workspace", &context.workspace),
    ];
    for (name, value) in own {
        file.insert(name.to_owned(), value.as_str().into());
    }
    // The tool may need files that only the user who runs the sandbox can reach.
    file.insert("uid".to_owned(), 0.into());
    file.remove("fixed_queues");
    if let Some(Value::String(role)) = file.get_mut("role") {
        *role = here(role);
    }
    let (signer, claims) = replace_signer(&mut file, context)?;
    replace_issuers(&mut file, context);
    let bearer = claims.as_ref().map(bearer);
    for (_, rule) in file.get_mut("parameters").and_then(Value::as_table_mut).into_iter().flatten() {
        if let Some(artifact) = rule.get_mut("artifact") {
            *artifact = format!("s3://{}/{target}/", context.artifacts).into();
        }
        if let Some(rule) = rule.as_table_mut().filter(|rule| rule.contains_key("saved_by")) {
            rule.insert("key".to_owned(), context.target_public.as_str().into());
        }
    }
    let environment = file.entry("environment").or_insert_with(|| Table::new().into());
    if let Some(environment) = environment.as_table_mut() {
        environment.entry("PATH").or_insert_with(|| context.path.as_str().into());
        environment.extend(variables.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
    }
    let mut secrets = BTreeMap::new();
    for (variable, arn) in file.get_mut("secrets").and_then(Value::as_table_mut).into_iter().flatten() {
        if let Value::String(arn) = arn {
            *arn = here(arn);
            secrets.insert(variable.to_owned(), arn.clone());
        }
    }
    Ok(Own { target, role, signer, bearer, secrets, text: file.to_string() })
}

/// Gives the sandbox's key, or its issuers' tokens, and CI account to the first signer that is not
/// a person, and returns its name with the claims that its tokens need. The first person with a key
/// gets the sandbox's key for approvals, and is the signer if all are persons.
fn replace_signer(file: &mut Table, context: &Context) -> Result<(String, Option<Table>), String> {
    let signers = file.get_mut("signers").and_then(Value::as_array_mut).into_iter().flatten();
    let is_person = |signer: &&mut Table| signer.get("kind").and_then(Value::as_str) == Some("person");
    let (people, machines): (Vec<_>, Vec<_>) = signers.filter_map(Value::as_table_mut).partition(is_person);
    let own = || Value::from(vec![Value::from(CI_ACCOUNT)]);
    let mut person = people.into_iter().find(|person| person.contains_key("key"));
    if let Some(person) = &mut person {
        person.insert("key".to_owned(), context.approver_key.as_str().into());
        if let Some(accounts) = person.get_mut("ci_accounts") {
            *accounts = own();
        }
    }
    let signer = match machines.into_iter().next() {
        Some(machine) => {
            if let Some(key) = machine.get_mut("key") {
                *key = context.signer_key.as_str().into();
            }
            machine.insert("ci_accounts".to_owned(), own());
            machine
        }
        None => person.ok_or("the sandbox can sign for no signer: none is a CI system, and no person has a `key`")?,
    };
    let claims = match signer.get("issuer").and_then(Value::as_str) {
        Some("github") => signer.get("claims").and_then(Value::as_table).cloned(),
        Some(_) => {
            let role = format!("arn:aws:iam::{CI_ACCOUNT}:role/ci");
            signer.insert("claims".to_owned(), Table::from_iter([("sub".to_owned(), role.into())]).into());
            None
        }
        None => None,
    };
    Ok((signer.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(), claims))
}

/// Has the file's issuers be the sandbox's: GitHub's and, in place of any other, that of STS.
fn replace_issuers(file: &mut Table, context: &Context) {
    let uses = |name: &str| {
        let signers = file.get("signers").and_then(Value::as_array).into_iter().flatten();
        signers.filter_map(|signer| signer.get("issuer")?.as_str()).any(|issuer| issuer == name)
    };
    let needs_github = uses("github");
    let issuers = file.entry("issuers").or_insert_with(|| Value::Array(Vec::new()));
    let Some(issuers) = issuers.as_array_mut() else { return };
    let is_github = |issuer: &Table| issuer.get("name").and_then(Value::as_str) == Some("github");
    for issuer in issuers.iter_mut().filter_map(Value::as_table_mut) {
        let url = if is_github(issuer) { &context.github } else { &context.sts };
        issuer.insert("url".to_owned(), url.as_str().into());
    }
    if needs_github && !issuers.iter().filter_map(Value::as_table).any(is_github) {
        let texts = [("name", "github"), ("url", context.github.as_str()), ("preset", "github")];
        issuers
            .push(texts.map(|(name, text)| (name.to_owned(), Value::from(text))).into_iter().collect::<Table>().into());
    }
}

/// The bearer token of a job whose tokens make these claims: for a list, the first value.
fn bearer(claims: &Table) -> String {
    let one =
        |value: &Value| value.as_array().and_then(|list| list.first()).unwrap_or(value).as_str().map(str::to_owned);
    let changes: serde_json::Map<String, serde_json::Value> =
        claims.iter().filter_map(|(name, value)| Some((name.clone(), one(value)?.into()))).collect();
    issuers::bearer(&changes)
}

/// The ARN of the same resource in the sandbox's target account and region.
fn here(arn: &str) -> String {
    let mut parts: Vec<&str> = arn.splitn(6, ':').collect();
    if let [_, partition, _, region, account, _] = parts.as_mut_slice() {
        (*partition, *account) = ("aws", TARGET_ACCOUNT);
        if !region.is_empty() {
            *region = REGION;
        }
    }
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let text = |text: &str| text.to_owned();
        Context {
            endpoint: text("http://127.0.0.1:1"),
            workspace: text("/state/work"),
            topic: text("arn:aws:sns:eu-west-1:222222222222:relay"),
            bucket: text("relay-222222222222-eu-west-1"),
            evidence: text("relay-evidence-222222222222-eu-west-1"),
            target_public: "TARGETS".to_owned(),
            target_key: text("arn:aws:kms:eu-west-1:222222222222:key/1"),
            signer_key: text("the sandbox's"),
            approver_key: text("the sandbox's person"),
            path: text("/bin"),
            artifacts: text("sandbox-artifacts"),
            github: text("https://localhost:1/issuers/github"),
            sts: text("https://localhost:1/issuers/sts"),
        }
    }

    #[test]
    fn places_keys_and_accounts_are_the_sandboxs_and_all_else_is_as_it_was() {
        let text = include_str!("../../../../infra/examples/payments-production.toml");
        let text = text.replace("eu-west-1", "eu-north-1").replace("222222222222", "333333333333");
        let with_person = text.replace("[[signers]]", "[[signers]]\nkind = 'person'\nkey = 'a'\n[[signers]]");
        let own = adapt(&with_person, &context(), &[("X".to_owned(), "y=z".to_owned())]).unwrap();
        assert_eq!((own.target.as_str(), own.signer.as_str()), ("payments/production", "ci"));
        let (before, mut after): (Table, Table) = (toml::from_str(&text).unwrap(), toml::from_str(&own.text).unwrap());
        assert_eq!(after.remove("images"), before.get("images").cloned(), "the sandbox pulls no image");
        let rest = after.to_string();
        assert!(!rest.contains("333333333333") && !rest.contains("eu-north-1"), "{rest}");
        assert_eq!(after["signers"][0]["key"].as_str(), Some("the sandbox's person"));
        assert_eq!(after["signers"][1]["key"].as_str(), Some("the sandbox's"));
        assert_eq!(after["environment"]["PATH"].as_str(), Some("/bin"));
        assert_eq!(after["environment"]["X"].as_str(), Some("y=z"));
        let source = after["parameters"]["source"]["artifact"].as_str();
        assert_eq!(source, Some("s3://sandbox-artifacts/payments/production/"));
        let secret = "arn:aws:secretsmanager:eu-west-1:222222222222:secret:payments/database-AbCdEf";
        assert_eq!(own.secrets["DATABASE_PASSWORD"], secret);
        for unchanged in ["policy", "steps", "timeout", "cancel", "runner_role"] {
            assert_eq!(after.remove(unchanged), before.get(unchanged).cloned(), "{unchanged}");
        }
    }

    #[test]
    fn a_target_needs_a_signer_that_the_sandbox_can_stand_for() {
        let text = "target = 'a/b'\nrunner_role = 'relay-a-b'\n";
        assert!(adapt(text, &context(), &[]).unwrap_err().contains("none is a CI system"));
        let with_person = format!("{text}[[signers]]\nname = 'eve'\nkind = 'person'\n");
        assert!(adapt(&with_person, &context(), &[]).unwrap_err().contains("no person has a `key`"));
        let with_key = format!("{with_person}key = 'k'\nci_accounts = ['444444444444']\n");
        let own = adapt(&with_key, &context(), &[]).unwrap();
        assert_eq!(own.signer, "eve");
        assert!(own.text.contains("the sandbox's person") && own.text.contains("111111111111"), "{}", own.text);
    }

    #[test]
    fn a_signer_by_tokens_gets_a_job_that_it_fits() {
        let text = r#"
target = "a/b"
runner_role = "relay-a-b"
[[signers]]
name = "main"
issuer = "github"
claims = { repository_id = "7", event_name = ["release", "push"] }
"#;
        let own = adapt(text, &context(), &[]).unwrap();
        let bearer = own.bearer.unwrap();
        let claims = data_encoding::BASE64URL_NOPAD.decode(bearer.split_once('.').unwrap().1.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(claims).unwrap(), r#"{"event_name":"release","repository_id":"7"}"#);
        assert!(own.text.contains("https://localhost:1/issuers/github"), "{}", own.text);
        let aws =
            text.replace("github", "aws") + "[[issuers]]\nname = 'aws'\nurl = 'https://x.example'\npreset = 'aws'\n";
        let own = adapt(&aws, &context(), &[]).unwrap();
        assert!(own.bearer.is_none() && own.text.contains("https://localhost:1/issuers/sts"), "{}", own.text);
        assert!(own.text.contains("arn:aws:iam::111111111111:role/ci"), "{}", own.text);
    }

    #[test]
    fn secrets_are_lines_of_names_and_values() {
        assert_eq!(read_secrets("A = \"b\"").unwrap()["A"], "b");
        assert!(read_secrets("A = 1").unwrap_err().contains("NAME = \"value\""));
    }
}
