//! Who a signer is: the issuers of tokens, the claims that an entry demands, and the persons behind
//! identities (clauses SIG-7, APP-4).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::keys::{Algorithm, Issuer, KnownSigner, SignerKind, SignerName, TokenRule, pointer};
use serde::Deserialize;

/// What a kind of issuer requires of the entries that use it, because other claims prove too
/// little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Preset {
    /// GitHub Actions.
    Github,
    /// Buildkite.
    Buildkite,
    /// AWS STS, `GetWebIdentityToken`.
    Aws,
}

/// The events in which a job of GitHub runs code that was merged, or that somebody with write
/// access chose.
const GITHUB_EVENTS: [&str; 4] = ["push", "workflow_dispatch", "schedule", "release"];

/// The claims of GitHub that narrow a repository down; an entry needs one of them.
const GITHUB_PLACES: [&str; 3] = ["/environment", "/ref", "/job_workflow_ref"];

/// What AWS itself sets for one person: the user of IAM Identity Center.
const AWS_PERSON: &str = "/https:~1~1sts.amazonaws.com~1/identity_store_user_id";

impl Preset {
    /// The issuers that need no entry of their own: their URL is the same for everybody.
    const BUILT_IN: [(&'static str, Self, &'static str); 2] = [
        ("github", Self::Github, "https://token.actions.githubusercontent.com"),
        ("buildkite", Self::Buildkite, "https://agent.buildkite.com"),
    ];

    /// The kind of an issuer that does not say it: a built-in one keeps its own at another URL, as
    /// GitHub Enterprise has it, and STS is known by its host.
    fn of(name: &str, url: &str) -> Option<Self> {
        let built_in = Self::BUILT_IN.iter().find(|(known, _, at)| *known == name || *at == url);
        let by_host = url.trim_end_matches('/').ends_with(".tokens.sts.global.api.aws").then_some(Self::Aws);
        built_in.map(|(_, preset, _)| *preset).or(by_host)
    }

    /// The algorithms that this kind of issuer signs with.
    fn algorithms(self) -> Vec<Algorithm> {
        match self {
            Self::Github | Self::Buildkite => vec![Algorithm::RS256],
            Self::Aws => vec![Algorithm::RS256, Algorithm::ES384],
        }
    }

    /// The first fault of these claims, if they have one.
    fn problem(self, claims: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
        let demanded: &[&str] = match self {
            Self::Github => &["/repository_id", "/repository_owner_id", "/event_name"],
            Self::Buildkite => &["/organization_id", "/pipeline_id"],
            Self::Aws => &["/sub"],
        };
        if let Some(missing) = demanded.iter().find(|claim| !claims.contains_key(**claim)) {
            return Some(format!(
                "demands no `{}`, and without it strangers could sign",
                missing.trim_start_matches('/')
            ));
        }
        if self != Self::Github {
            return None;
        }
        if !GITHUB_PLACES.iter().any(|claim| claims.contains_key(*claim)) {
            return Some(
                "demands none of `environment`, `ref` and `job_workflow_ref`, so any branch could sign".to_owned(),
            );
        }
        let event = claims.get("/event_name")?.iter().find(|event| !GITHUB_EVENTS.contains(&event.as_str()))?;
        Some(format!(
            "accepts the event `{event}`, in which code runs that nobody has merged; accepted are {}",
            GITHUB_EVENTS.join(", ")
        ))
    }
}

/// One entry of `[[issuers]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerFile {
    name: String,
    url: String,
    preset: Option<Preset>,
    algorithms: Option<Vec<Algorithm>>,
}

/// The issuers that a configuration knows, by name.
pub(crate) struct Issuers(BTreeMap<String, (Issuer, Option<Preset>)>);

impl Issuers {
    /// The issuers of a file, and those that need no entry. An entry replaces a built-in one of the
    /// same name, as GitHub Enterprise needs it.
    pub(crate) fn read(files: Vec<IssuerFile>) -> Result<Self, (usize, String)> {
        let mut known: BTreeMap<_, _> = Preset::BUILT_IN
            .map(|(name, preset, url)| {
                let issuer = Issuer { name: name.to_owned(), url: url.to_owned(), algorithms: preset.algorithms() };
                (name.to_owned(), (issuer, Some(preset)))
            })
            .into();
        let mut names = BTreeSet::new();
        for (at, IssuerFile { name, url, preset, algorithms }) in files.into_iter().enumerate() {
            let wrong = |problem: String| Err((at, problem));
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                return wrong(format!("the name `{name}` is not of the form [a-z0-9-]+"));
            }
            if let Some(problem) = bad_url(&url) {
                return wrong(problem);
            }
            if !names.insert(name.clone()) {
                return wrong(format!("there are two issuers with the name `{name}`"));
            }
            let preset = preset.or_else(|| Preset::of(&name, &url));
            let algorithms =
                algorithms.unwrap_or_else(|| preset.map_or_else(|| Algorithm::ALL.to_vec(), Preset::algorithms));
            if algorithms.is_empty() {
                return wrong("accepts no algorithm".to_owned());
            }
            if let Some((other, _)) = known.values().find(|(other, _)| other.url == url && other.name != name) {
                return wrong(format!("has the same URL as the issuer `{}`", other.name));
            }
            known.insert(name.clone(), (Issuer { name, url, algorithms }, preset));
        }
        Ok(Self(known))
    }

    /// The rule of an entry that names an issuer and the claims that it demands.
    pub(crate) fn rule(&self, name: &str, claims: ClaimsFile) -> Result<TokenRule, String> {
        let Some((issuer, preset)) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            return Err(format!("there is no issuer `{name}`; known are {}", known.join(", ")));
        };
        let claims: BTreeMap<String, BTreeSet<String>> = claims.into_iter().map(Accepted::at_pointer).collect();
        if claims.is_empty() {
            return Err("demands no claim, so everybody whom the issuer serves could sign".to_owned());
        }
        if let Some((claim, _)) = claims.iter().find(|(_, accepted)| accepted.is_empty()) {
            return Err(format!("accepts no value of `{claim}`, so it never fits"));
        }
        match preset.and_then(|preset| preset.problem(&claims)) {
            Some(problem) => Err(problem),
            None => Ok(TokenRule { issuer: issuer.clone(), claims }),
        }
    }

    /// Why an entry cannot be one person. A job runs for everybody who can change what it runs, and
    /// the role of AWS is no person, unless the entry says that it is one person's own.
    pub(crate) fn no_person(&self, rule: &TokenRule, own_role: bool) -> Option<&'static str> {
        let (_, preset) = self.0.get(&rule.issuer.name)?;
        match preset {
            Some(Preset::Github | Preset::Buildkite) => Some(
                "is a job of CI, and a job is no person: any code in it can sign; a person signs with a key, or with a role of their own",
            ),
            Some(Preset::Aws) if !own_role && !rule.claims.contains_key(AWS_PERSON) => Some(
                "names a role of AWS, and a role is no person: several can assume it. If it is one person's own, say so with `own_role = true`",
            ),
            Some(Preset::Aws) | None => None,
        }
    }

    /// Why a tag cannot tell who a person is (clause APP-4).
    fn no_identity(&self, tag: &str) -> Option<String> {
        let (name, claim) = tag.split_once('/').filter(|(name, _)| !name.is_empty())?;
        let Some((_, preset)) = self.0.get(name) else {
            let known: Vec<&str> = self.0.keys().map(String::as_str).collect();
            return Some(format!("`{tag}` names no issuer; known are {}", known.join(", ")));
        };
        match (preset, claim) {
            (Some(Preset::Github), claim) if claim != "actor_id" => {
                Some(format!("`{tag}` tells no person: use `{name}/actor_id`, which nobody can take over"))
            }
            (Some(Preset::Aws), "sub") => Some(format!(
                "`{tag}` is a role, and a role is no person: make a signer of `kind = \"person\"` of it, with `own_role = true`"
            )),
            _ => None,
        }
    }
}

/// Why a text is not the URL of an issuer (OpenID Connect Discovery 1.0, section 2).
fn bad_url(url: &str) -> Option<String> {
    let parsed: Option<http::Uri> = url.parse().ok();
    let good = parsed.is_some_and(|uri| {
        uri.scheme_str() == Some("https")
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && uri.query().is_none()
    });
    (!good || url.contains('#')).then(|| format!("`{url}` is not the URL of an issuer, such as https://issuer.example"))
}

/// The claims that an entry demands, as the file has them.
pub(crate) type ClaimsFile = BTreeMap<String, Accepted>;

/// The accepted values of a claim: one, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Accepted {
    One(Scalar),
    Any(Vec<Scalar>),
}

/// A value as a claim may have it; its text is what counts.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Scalar {
    Text(String),
    Number(i64),
    Truth(bool),
}

impl From<Scalar> for String {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => text,
            Scalar::Number(number) => number.to_string(),
            Scalar::Truth(truth) => truth.to_string(),
        }
    }
}

impl Accepted {
    /// A claim's name, or its JSON pointer, as a pointer, with the values.
    fn at_pointer((name, accepted): (String, Self)) -> (String, BTreeSet<String>) {
        let pointer = if name.starts_with('/') { name } else { format!("/{}", pointer(&name)) };
        let values = match accepted {
            Self::One(value) => BTreeSet::from([value.into()]),
            Self::Any(values) => values.into_iter().map(String::from).collect(),
        };
        (pointer, values)
    }
}

/// One entry of `[[persons]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersonFile {
    name: SignerName,
    /// Claims by their tag, `<issuer>/<JSON pointer>`. Any of them shows that it is this person.
    claims: ClaimsFile,
}

/// The persons whom claims identify.
#[derive(Clone, Debug, Default)]
pub struct Persons {
    /// The name of the person, by tag and value.
    by_claim: BTreeMap<(String, String), SignerName>,
}

impl Persons {
    pub(crate) fn read(files: Vec<PersonFile>, issuers: &Issuers) -> Result<Self, (usize, String)> {
        let mut by_claim = BTreeMap::new();
        for (at, PersonFile { name, claims }) in files.into_iter().enumerate() {
            for (tag, accepted) in claims {
                let (pointer, values) = Accepted::at_pointer((format!("/{tag}"), accepted));
                let tag = pointer.trim_start_matches('/').to_owned();
                if !tag.contains('/') {
                    return Err((at, format!("`{tag}` names no issuer: write it as in `github/actor_id`")));
                }
                if let Some(problem) = issuers.no_identity(&tag) {
                    return Err((at, problem));
                }
                for value in values {
                    let other = by_claim.insert((tag.clone(), value.clone()), name.clone());
                    if let Some(other) = other.filter(|other| *other != name) {
                        return Err((at, format!("`{tag}` = `{value}` is already the person {other}")));
                    }
                }
            }
        }
        Ok(Self { by_claim })
    }

    /// The names of all of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_claim.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter()
    }

    /// The person whom this claim identifies, if it does.
    pub(crate) fn of(&self, tag: &str, value: &str) -> Option<&str> {
        self.by_claim.get(&(tag.to_owned(), value.to_owned())).map(String::as_str)
    }

    /// The persons behind a signer: the one for whom the entry stands, and those whom the claims of
    /// its token identify.
    pub(crate) fn behind<'a>(&'a self, signer: &'a KnownSigner) -> BTreeSet<&'a str> {
        let by_claim = signer.claims.iter().filter(|(tag, _)| is_of_this_run(tag, signer));
        let by_claim = by_claim.filter_map(|(tag, value)| self.of(tag, value));
        signer.kind.person().into_iter().chain(by_claim).collect()
    }
}

/// Whether a claim is about whoever started this very run. GitHub names the first one also when
/// another person runs it again, and somebody also when a schedule started it.
fn is_of_this_run(tag: &str, signer: &KnownSigner) -> bool {
    let Some(issuer) = tag.strip_suffix("/actor_id") else { return true };
    let claim = |name: &str| signer.claims.get(&format!("{issuer}/{name}")).map(String::as_str);
    claim("run_attempt").is_none_or(|attempt| attempt == "1") && claim("event_name") != Some("schedule")
}

/// The kind of an entry, as the file has it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindFile {
    #[default]
    Ci,
    Agent,
    Person,
}

impl KindFile {
    /// The kind of the entry `name`.
    pub(crate) fn read(self, name: &str, person: Option<SignerName>) -> Result<SignerKind, String> {
        match (self, person) {
            (Self::Person, person) => Ok(SignerKind::Person(person.unwrap_or_else(|| name.to_owned()))),
            (Self::Ci, None) => Ok(SignerKind::Ci),
            (Self::Agent, None) => Ok(SignerKind::Agent),
            (Self::Ci | Self::Agent, Some(_)) => {
                Err("has a `person`, but only an entry with `kind = \"person\"` can be one".to_owned())
            }
        }
    }
}
