//! Decisions about requests and approvals that are signed by identity tokens, with real signatures.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use relay_policy::{Asked, Configuration, Denied, authorise, check, key_names, may_cancel, verify};
use relay_protocol::keys::{IssuerKey, IssuerKeys, PrivateKey, Token, read_jwks};
use relay_protocol::request::{Origin, Stage};
use relay_protocol::{
    Approval, Bundle, Cancel, Control, DeploymentId, Digest, Envelope, Reason, Request, Signature, Statement as _,
    Ticket, Timestamp,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

const ISSUED: i64 = 1_795_300_000;
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// An issuer with one key on P-256.
struct Issuer {
    url: &'static str,
    pair: EcdsaKeyPair,
}

impl Issuer {
    fn new(url: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { url, pair: EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref(), &random).unwrap() }
    }

    fn key(&self) -> IssuerKey {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": text(x), "y": text(y)}]});
        let jwk = read_jwks(jwks.to_string().as_bytes()).unwrap().remove("k").unwrap();
        let seen_at = Timestamp::from_unix(ISSUED);
        IssuerKey { issuer: self.url.into(), kid: "k".into(), jwk, seen_at, gone_at: None, revoked: false }
    }

    /// Signs an envelope by a token with these claims beside the registered ones.
    fn sign(&self, envelope: Envelope, claims: &Value) -> Envelope {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let mut all =
            json!({"iss": self.url, "aud": Token::audience_for(envelope.digest()), "iat": ISSUED, "exp": ISSUED + 300});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let signed = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "k"})), part(&all));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        let sig = format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()));
        envelope.with_signature(Signature { keyid: String::new(), sig })
    }
}

/// The claims of a push to the main branch by octocat.
fn push() -> Value {
    json!({
        "repository_id": "74", "repository_owner_id": "65", "event_name": "push", "ref": "refs/heads/main",
        "environment": "production", "actor": "octocat", "actor_id": "12", "sub": "repo:octo-org/payments",
    })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

const SIGNERS: &str = r#"
[[issuers]]
name = "github"
url = "https://token.actions.githubusercontent.com"
preset = "github"
algorithms = ["ES256"]

[[issuers]]
name = "idp"
url = "https://idp.example"

[[persons]]
name = "octocat"
claims = { "github/actor_id" = "12", "idp/sub" = ["o1", "o2"] }

[[signers]]
name = "main"
issuer = "github"
claims = { repository_id = "74", repository_owner_id = "65", event_name = ["push", "release"], ref = "refs/heads/main" }
groups = ["ci"]
ci_accounts = ["111111111111"]

[[signers]]
name = "anywhere"
issuer = "github"
claims = { repository_id = "74", repository_owner_id = "65", event_name = "push", environment = "production" }
groups = ["others"]
ci_accounts = ["111111111111"]

[[signers]]
name = "anna"
issuer = "idp"
claims = { sub = "a1" }
kind = "person"
groups = ["people"]

[[signers]]
name = "octo-at-idp"
issuer = "idp"
claims = { sub = ["o1", "x1"] }
kind = "person"
person = "octocat"
groups = ["people"]

[[signers]]
name = "x-again"
issuer = "idp"
claims = { sub = "x1" }
kind = "person"
person = "somebody-else"
groups = ["people"]
"#;

const PERMIT: &str = r#"permit(principal in Group::"ci", action, resource);
permit(principal in Group::"people", action == Action::"approve", resource);"#;

fn text(policy: &str, signers: &str) -> String {
    format!(
        r#"target = "payments/production"
topic = "arn:aws:sns:eu-west-1:222222222222:relay"
bucket = "example-relay"
evidence = "example-relay-evidence"
target_key = "alias/relay-payments-production"
runner_role = "relay-payments-production"
policy = '''{policy}'''
steps = [{{ name = "run", run = ["true"] }}]
{signers}"#
    )
}

fn configuration(policy: &str) -> Configuration {
    Configuration::parse(&text(policy, SIGNERS)).unwrap()
}

fn request() -> Request {
    let id = DeploymentId::new(u64::try_from(ISSUED).unwrap() * 1_000, [1; 10]);
    Request {
        audience: "arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap(),
        target: "payments/production".parse().unwrap(),
        parameters: BTreeMap::new(),
        reply_queue: format!("https://sqs.eu-west-1.amazonaws.com/111111111111/{}", id.reply_queue_name())
            .parse()
            .unwrap(),
        control_queue: None,
        deployment_id: id,
        session_key: PrivateKey::from_seed([9; 32]).public().clone(),
        ticket: Some(Ticket::new([7; 16])),
        issued_at: Timestamp::from_unix(ISSUED),
        expires_at: Timestamp::from_unix(ISSUED + 900),
        origin: Origin::default(),
        traceparent: None,
    }
}

fn unsigned() -> Envelope {
    Envelope::new(Request::TYPE, request().to_payload())
}

/// Both issuers, and their keys as data.
struct World {
    github: Issuer,
    idp: Issuer,
    keys: IssuerKeys,
}

fn world() -> World {
    let (github, idp) = (Issuer::new(GITHUB), Issuer::new("https://idp.example"));
    let keys = [github.key(), idp.key()].into_iter().collect();
    World { github, idp, keys }
}

impl World {
    fn asked(&self, configuration: &Configuration, claims: &Value, approvals: Vec<Envelope>) -> Asked {
        let bundle = Bundle { request: self.github.sign(unsigned(), claims), approvals };
        verify(&bundle, configuration, &self.keys).unwrap()
    }

    fn decide(&self, policy: &str, claims: &Value, at: i64, stage: Stage) -> Result<Vec<String>, Reason> {
        let configuration = configuration(policy);
        let asked = self.asked(&configuration, claims, vec![]);
        authorise(&configuration, &asked, Timestamp::from_unix(ISSUED + at), stage)
            .map(|allowed| allowed.policies)
            .map_err(|Denied { reason, .. }| reason)
    }

    /// An approval by a token of the identity provider.
    fn approval(&self, configuration: &Configuration, sub: &str, claims: &Value) -> Envelope {
        let issued_at = Timestamp::from_unix(ISSUED);
        let subject = request().subject(configuration.digest).unwrap();
        let approval = Approval { subject, issued_at, expires_at: issued_at.plus(3_600) };
        let envelope = Envelope::new(Approval::TYPE, approval.to_payload());
        self.idp.sign(envelope, &with(claims.clone(), "sub", sub))
    }
}

// clause: SIG-5, SIG-6, SIG-7
#[test]
fn a_token_signs_exactly_one_envelope_if_its_claims_fit() {
    let (world, configuration) = (world(), configuration(PERMIT));
    let signed = |claims: &Value| {
        let bundle = Bundle { request: world.github.sign(unsigned(), claims), approvals: vec![] };
        verify(&bundle, &configuration, &world.keys)
            .map(|asked| asked.request.signers().iter().map(|signer| signer.name.clone()).collect::<Vec<_>>())
            .map_err(|error| error.to_string())
    };
    let mut both = signed(&push()).unwrap();
    both.sort();
    assert_eq!(both, ["anywhere", "main"], "each entry that a token fits is a signer of its own");
    assert_eq!(signed(&with(push(), "environment", "staging")).unwrap(), ["main"]);
    for (name, odd) in [
        ("aud", json!(Token::audience_for(Digest::of(b"another")))),
        ("aud", json!([Token::audience_for(unsigned().digest()), "more"])),
        ("iss", json!("https://idp.example")),
        ("repository_id", json!("75")),
        ("repository_id", json!(["74"])),
        ("repository_id", Value::Null),
        ("event_name", json!("pull_request_target")),
        ("iat", json!("soon")),
    ] {
        assert!(signed(&with(push(), name, odd.clone())).is_err(), "{name} = {odd}");
    }
    assert!(signed(&with(push(), "aud", json!([Token::audience_for(unsigned().digest())]))).is_ok(), "a list of one");
}

// clause: SIG-6, SIG-9
#[test]
fn only_keys_of_the_issuer_count() {
    let (world, configuration) = (world(), configuration(PERMIT));
    let bundle = Bundle { request: world.github.sign(unsigned(), &push()), approvals: vec![] };
    let by = |keys: Vec<IssuerKey>| verify(&bundle, &configuration, &keys.into_iter().collect()).is_ok();
    let key = world.github.key();
    assert!(by(vec![key.clone()]));
    assert!(!by(vec![]), "no key");
    assert!(!by(vec![IssuerKey { kid: "other".into(), ..key.clone() }]), "another name");
    assert!(!by(vec![IssuerKey { jwk: world.idp.key().jwk, ..key.clone() }]), "another key");
    assert!(!by(vec![IssuerKey { issuer: world.idp.url.into(), ..key.clone() }]), "another issuer");
    let gone = |at| IssuerKey { gone_at: Some(Timestamp::from_unix(at)), ..key.clone() };
    assert!(by(vec![gone(ISSUED)]) && !by(vec![gone(ISSUED - 1)]), "tokens from before the key went stay valid");
    let names: Vec<String> = key_names(&bundle, &configuration).into_iter().map(|name| name.issuer).collect();
    assert_eq!(names, [GITHUB]);
    // The canonical form keeps the token, and is the same when it is read again.
    let asked = verify(&bundle, &configuration, &world.keys).unwrap();
    let again = verify(&Bundle::parse(asked.canonical().as_bytes()).unwrap(), &configuration, &asked.keys).unwrap();
    assert_eq!((again.canonical(), again.request.signers()), (asked.canonical(), asked.request.signers()));
    assert_eq!(asked.issuer_keys().unwrap(), [key].into_iter().collect::<IssuerKeys>().to_json());
}

// clause: SIG-8
#[test]
fn a_token_lives_by_the_launchers_clock_and_was_made_for_the_request() {
    let world = world();
    let decide = |claims: Value, at, stage| world.decide(PERMIT, &claims, at, stage);
    let ok = Ok(vec!["policy0".to_owned()]);
    assert_eq!(decide(push(), 360, Stage::Launch), ok);
    assert_eq!(decide(push(), 361, Stage::Launch), Err(Reason::Expired));
    assert_eq!(decide(push(), 900, Stage::Run), ok, "a runner starts later");
    let at = |iat: i64| with(with(push(), "iat", ISSUED + iat), "exp", ISSUED + iat + 300);
    assert_eq!(decide(at(-60), 0, Stage::Launch), ok);
    for stage in [Stage::Launch, Stage::Run] {
        assert_eq!(decide(at(-61), 0, stage), Err(Reason::Expired), "{stage:?}");
        assert_eq!(decide(at(961), 900, stage), Err(Reason::Expired), "{stage:?}");
        assert_eq!(decide(with(push(), "nbf", ISSUED + 61), 0, stage), Err(Reason::NotYetValid), "{stage:?}");
    }
}

// clause: SIG-7
#[test]
fn policies_see_claims_as_tags_and_never_an_empty_text() {
    let world = world();
    let by = |condition: &str| {
        let policy = format!("@id(\"p\") permit(principal in Group::\"ci\", action, resource) when {{ {condition} }};");
        world.decide(&policy, &push(), 0, Stage::Launch).is_ok()
    };
    assert!(by(r#"principal.hasTag("github/environment") && principal.getTag("github/environment") == "production""#));
    assert!(!by(r#"principal.hasTag("github/nothing")"#));
    assert!(!by(r#"principal.hasTag("idp/environment")"#), "no issuer imitates another's claim");
    let unguarded = r#"permit(principal, action, resource) unless { principal.getTag("github/x") == "development" };"#;
    let error = Configuration::parse(&text(unguarded, SIGNERS)).unwrap_err().to_string();
    assert!(error.contains("github/x"), "{error}");
}

// clause: APP-4
#[test]
fn whoever_started_the_job_does_not_approve_it() {
    let world = world();
    let policy = r#"permit(principal in Group::"ci", action, resource) when { context.approvals >= 1 && context.requester_known };
        permit(principal in Group::"people", action == Action::"approve", resource);"#;
    let configuration = configuration(policy);
    let decide = |claims: &Value, sub: &str, of_token: Value| {
        let approvals = vec![world.approval(&configuration, sub, &of_token)];
        let asked = world.asked(&configuration, claims, approvals);
        authorise(&configuration, &asked, Timestamp::from_unix(ISSUED), Stage::Launch)
            .map(|allowed| allowed.approvers.len())
            .map_err(|denied| denied.message)
    };
    let plain = json!({});
    assert_eq!(decide(&push(), "a1", plain.clone()), Ok(1));
    let own = decide(&push(), "o1", plain.clone()).unwrap_err();
    assert!(own.contains("this person asked for the deployment"), "{own}");
    let two = decide(&push(), "x1", plain.clone()).unwrap_err();
    assert!(two.contains("more than one person: octocat, somebody-else"), "{two}");
    assert!(decide(&with(push(), "actor_id", "99"), "a1", plain.clone()).is_err(), "nobody knows who started it");
    assert_eq!(decide(&with(push(), "run_attempt", "1"), "a1", plain.clone()), Ok(1));
    assert!(
        decide(&with(push(), "run_attempt", "2"), "a1", plain.clone()).is_err(),
        "GitHub names the first one still"
    );
    let late = decide(&push(), "a1", json!({"exp": ISSUED - 61, "iat": ISSUED - 300})).unwrap_err();
    assert!(late.contains("its token was not valid when it was given"), "{late}");
    assert_eq!(decide(&push(), "a1", json!({"exp": ISSUED + 1})), Ok(1), "the approval's own end bounds its life");
}

// clause: APP-4
/// A second token takes an entry away from the first one, and not its other persons.
#[test]
fn two_tokens_on_one_approval_are_no_second_person() {
    let world = world();
    let policy = r#"permit(principal in Group::"ci", action, resource) when { context.approvals >= 1 };
        permit(principal in Group::"people", action == Action::"approve", resource);"#;
    let configuration = configuration(policy);
    for second in ["x1", "o1", "a1"] {
        let issued_at = Timestamp::from_unix(ISSUED);
        let subject = request().subject(configuration.digest).unwrap();
        let approval = Approval { subject, issued_at, expires_at: issued_at.plus(3_600) };
        let envelope = Envelope::new(Approval::TYPE, approval.to_payload());
        let envelope = world.idp.sign(envelope, &json!({"sub": "x1"}));
        let envelope = world.idp.sign(envelope, &json!({"sub": second, "jti": "2"}));
        let asked = world.asked(&configuration, &with(push(), "actor_id", "99"), vec![envelope]);
        let allowed = authorise(&configuration, &asked, Timestamp::from_unix(ISSUED), Stage::Launch);
        let counted = allowed.map(|allowed| allowed.approvers.iter().map(|by| by.name.clone()).collect::<Vec<_>>());
        // `x1` is two persons and counts for none. Of `x1` and `o1`, which share an entry, one
        // remains.
        let count = counted.map_or(0, |names| names.len());
        assert!(
            match second {
                "x1" => count == 0,
                "o1" => count <= 1,
                _ => count == 1,
            },
            "{second}: {count}"
        );
    }
}

// clause: CTL-2, SIG-8
#[test]
fn a_token_cancels_if_the_policy_lets_it() {
    let (world, configuration) = (world(), configuration(PERMIT));
    let asked = world.asked(&configuration, &push(), vec![]);
    let may = |claims: &Value| {
        let control = Control {
            deployment_id: request().deployment_id,
            request_digest: asked.request.digest(),
            issued_at: Timestamp::from_unix(ISSUED),
            cancel: Cancel::Requested,
        };
        let envelope = world.github.sign(Envelope::new(Control::TYPE, control.to_payload()), claims);
        may_cancel(&configuration, &asked, &envelope, &world.keys, Timestamp::from_unix(ISSUED))
    };
    assert!(may(&push()));
    assert!(!may(&with(push(), "exp", ISSUED - 61)));
    assert!(!may(&with(push(), "ref", "refs/heads/feature")), "only the entry `anywhere` fits");
}

#[test]
fn entries_that_prove_too_little_are_refused() {
    let signer = |text: &str| format!("[[signers]]\nname = \"s\"\n{text}\n");
    let aws = "[[issuers]]\nname = \"aws\"\nurl = \"https://a.tokens.sts.global.api.aws\"\npreset = \"aws\"\n";
    let github = |claims: &str| signer(&format!("issuer = \"github\"\nclaims = {{ {claims} }}"));
    let ids = r#"repository_id = "1", repository_owner_id = "2""#;
    let cases = [
        (github(&format!(r#"{ids}, ref = "r""#)), "signers[0]`: demands no `event_name`"),
        (github(r#"repository_id = "1", event_name = "push", ref = "r""#), "demands no `repository_owner_id`"),
        (github(&format!(r#"{ids}, event_name = "push""#)), "so any branch could sign"),
        (github(&format!(r#"{ids}, event_name = ["push", "pull_request_target"], ref = "r""#)), "accepts the event `pull_request_target`"),
        (github(&format!(r#"{ids}, event_name = [], ref = "r""#)), "accepts no value of `/event_name`"),
        (signer("issuer = \"nobody\"\nclaims = { sub = \"x\" }"), "there is no issuer `nobody`; known are buildkite, github"),
        (signer("issuer = \"buildkite\"\nclaims = { pipeline_id = \"x\" }"), "demands no `organization_id`"),
        (signer("issuer = \"github\""), "needs either `key`, or `issuer` and `claims`"),
        ("[[signers]]\nissuer = \"github\"\nclaims = { sub = \"x\" }\n".to_owned(), "needs a `name`"),
        (format!("{aws}{}", signer("issuer = \"aws\"\nkind = \"person\"\nclaims = { sub = \"role\" }")), "a role is no person"),
        (format!("{aws}{}", signer("issuer = \"aws\"\nclaims = { org = \"o\" }")), "demands no `sub`"),
        (signer(&format!("issuer = \"github\"\nkind = \"person\"\nclaims = {{ {ids}, event_name = \"push\", environment = \"approve\" }}")), "a job is no person"),
        (github(r#"repository = "x""#) + "[[issuers]]\nname = \"github\"\nurl = \"https://ghes.example/_services/token\"\n", "demands no `repository_id`"),
        (aws.replace("preset = \"aws\"\n", "") + &signer("issuer = \"aws\"\nkind = \"person\"\nclaims = { sub = \"role\" }"), "a role is no person"),
        ("[[persons]]\nname = \"p\"\nclaims = { \"gihub/actor_id\" = \"1\" }\n".to_owned(), "`gihub/actor_id` names no issuer; known are buildkite, github"),
        ("[[persons]]\nname = \"p\"\nclaims = { \"github/actor\" = \"a\" }\n".to_owned(), "tells no person: use `github/actor_id`"),
        (format!("{aws}[[persons]]\nname = \"p\"\nclaims = {{ \"aws/sub\" = \"role\" }}\n"), "is a role, and a role is no person"),
        (aws.replace("https", "http"), "is not the URL of an issuer"),
        (aws.replace("name = \"aws\"", "name = \"A/b\""), "not of the form [a-z0-9-]+"),
        (format!("{aws}{aws}"), "there are two issuers with the name `aws`"),
        (format!("{aws}{}", aws.replace("\"aws\"\nurl", "\"aws2\"\nurl")), "has the same URL as the issuer `aws`"),
        ("[[persons]]\nname = \"p\"\nclaims = { actor_id = \"1\" }\n".to_owned(), "`actor_id` names no issuer"),
        ("[[persons]]\nname = \"p\"\nclaims = { \"github/actor_id\" = \"1\" }\n[[persons]]\nname = \"q\"\nclaims = { \"github/actor_id\" = \"1\" }\n".to_owned(), "is already the person p"),
    ];
    for (signers, words) in cases {
        let all = if signers.contains("[[signers]]") {
            signers.clone()
        } else {
            format!("{signers}{}", github(&format!(r#"{ids}, event_name = "push", ref = "r""#)))
        };
        let error = Configuration::parse(&text(PERMIT, &all)).unwrap_err().to_string();
        assert!(error.contains(words), "{signers}: {error}");
    }
    let numbers = github(r#"repository_id = 1, repository_owner_id = 2, event_name = "push", ref = "r""#);
    assert!(Configuration::parse(&text(PERMIT, &numbers)).is_ok(), "ids may be written as numbers");
    let own =
        format!("{aws}{}", signer("issuer = \"aws\"\nkind = \"person\"\nown_role = true\nclaims = { sub = \"role\" }"));
    assert!(Configuration::parse(&text(PERMIT, &own)).is_ok());
}

/// Some rules are valid but weaker than they look; each gets a warning.
#[test]
fn doubtful_claims_are_found() {
    let found = |policy: &str, more: &str| {
        let configuration = Configuration::parse(&text(policy, &format!("{SIGNERS}{more}"))).unwrap();
        let all: Vec<String> = check(&configuration).into_iter().map(|finding| finding.problem).collect();
        all.join("\n")
    };
    let permit = |condition: &str| format!("permit(principal, action, resource) {condition};");
    let tag = |name: &str| format!("when {{ principal.hasTag(\"{name}\") && principal.getTag(\"{name}\") == \"x\" }}");
    for (policy, more, words) in [
        (
            permit(&tag("github/repository")),
            "",
            "`repository` is a name, which somebody else can take over: use `repository_id`",
        ),
        (permit(&tag("github/enviroment")), "", "the tokens of github have no claim `enviroment`"),
        (permit(&tag("gitlab/ref")), "", "no signer has the tag `gitlab/ref`"),
        (
            permit("unless { principal.hasTag(\"github/ref\") && principal.getTag(\"github/ref\") == \"x\" }"),
            "",
            "asks for `github/ref` in the negative",
        ),
        (permit("when { !principal.hasTag(\"github/ref\") }"), "", "asks for `github/ref` in the negative"),
        (
            permit("when { principal.hasTag(\"github/ref\") && principal.getTag(\"github/ref\") != \"x\" }"),
            "",
            "asks for `github/ref` in the negative",
        ),
        ("forbid(principal, action, resource);".to_owned(), "", "there is no permit, so everything is denied"),
        (permit("when { context.approvals >= 1 }"), "", "whoever starts the job may approve it"),
        (
            PERMIT.to_owned(),
            "[[persons]]\nname = \"Octocat\"\nclaims = { \"github/actor_id\" = \"13\" }\n",
            "no signer is the person `Octocat`, so this entry keeps nobody from approving",
        ),
        (PERMIT.to_owned(), "", "one token can fit `octo-at-idp` and `x-again`, which are two persons"),
        (
            PERMIT.to_owned(),
            "[[signers]]\nname = \"liar\"\nissuer = \"idp\"\nclaims = { sub = \"o2\" }\nkind = \"person\"\n",
            "`liar` is another person than [[persons]] says of these claims, octocat",
        ),
    ] {
        let said = found(&policy, more);
        assert!(said.contains(words), "{policy}{more}: {said}");
    }
    let good = found(&permit(&tag("github/ref")), "");
    assert!(!good.contains("negative") && !good.contains("github"), "{good}");
}
