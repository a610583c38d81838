//! A target's configuration: parsing it, the findings of `check`, and the authorisation of a
//! request under it.

use std::collections::BTreeMap;

use relay_policy::{Configuration, ParameterRule, Pin, Step, authorise, check, verify};
use relay_protocol::keys::PrivateKey;
use relay_protocol::request::{Origin, Stage};
use relay_protocol::{
    Bundle, DeploymentId, Digest, Envelope, ParameterName, QueueUrl, Request, Statement as _, Timestamp,
};

/// Parses the text before the first NUL as a configuration. Then requests a deployment in which
/// every parameter has the text after that NUL as its value.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, value) = text.split_once('\0').unwrap_or((text, "value"));
    let Ok(configuration) = Configuration::parse(text) else { return };
    for finding in check(&configuration) {
        assert!(!finding.field.is_empty() && !finding.problem.is_empty());
    }
    assert!(!configuration.steps.is_empty() && !configuration.roots.signers().is_empty());
    assert!(configuration.longest_run() >= 1);
    let pin = Pin::of(&configuration.target, text);
    assert_eq!(Pin::parse(&pin.entry_point("relay-runner")[1..]), Ok(pin.clone()));
    assert!(pin.fits(text) && !pin.fits(value));
    let values: BTreeMap<_, _> = configuration.parameters.keys().map(|name| (name.clone(), value.to_owned())).collect();
    let steps: Vec<&Step> = configuration.steps.iter().chain(&configuration.rollback).collect();
    steps.iter().for_each(|step| filled(step, value, &values));
    asked(&configuration, &values);
}

/// A parameter's value stays inside its argument and cannot turn it into an option (clause RUN-9).
fn filled(step: &Step, value: &str, values: &BTreeMap<ParameterName, String>) {
    assert!(
        step.run.first().is_some_and(|program| program.holes().next().is_none()),
        "a parameter must not choose the program"
    );
    for template in &step.run {
        let holes = template.holes().count();
        let of = |value: &str| template.fill(&values.keys().map(|name| (name.clone(), value.to_owned())).collect());
        let shape = of("\u{1}").expect("a value that is not an option");
        match template.fill(values) {
            Ok(argument) => {
                assert!(!(shape.starts_with('\u{1}') && argument.starts_with('-')), "an option: {argument}");
                assert!(holes == 0 || argument.contains(value));
                assert_eq!(argument.len(), shape.len() - holes + holes * value.len());
            }
            Err(_) => assert!(shape.starts_with('\u{1}'), "only a parameter at the start can become an option"),
        }
    }
}

fn asked(configuration: &Configuration, values: &BTreeMap<ParameterName, String>) {
    let signer = PrivateKey::from_seed([1; 32]);
    let id = DeploymentId::new(1_795_300_000_000, [1; 10]);
    let Some(account) = configuration.roots.signers().iter().find_map(|signer| signer.ci_accounts.first()) else {
        return;
    };
    let queue = QueueUrl::of(configuration.topic.region(), account, &id.reply_queue_name());
    let Ok(reply_queue) = queue else { return };
    let issued_at = Timestamp::from_unix(1_795_300_000);
    let request = Request {
        audience: configuration.topic.clone(),
        target: configuration.target.clone(),
        parameters: values.clone(),
        reply_queue,
        control_queue: None,
        deployment_id: id,
        session_key: PrivateKey::from_seed([9; 32]).public().clone(),
        ticket: None,
        issued_at,
        expires_at: issued_at.plus(900),
        origin: Origin::default(),
        traceparent: None,
    };
    let envelope = signer.sign_envelope(Envelope::new(Request::TYPE, request.to_payload()));
    let bundle = Bundle { request: envelope, approvals: Vec::new() };
    let Ok(asked) = verify(&bundle, configuration, &relay_protocol::keys::IssuerKeys::default()) else { return };
    let answer = authorise(configuration, &asked, issued_at, Stage::Launch);
    assert_eq!(
        answer,
        authorise(configuration, &asked, issued_at, Stage::Run),
        "the runner decides as the launcher did"
    );
    let Ok(allowed) = answer else { return };
    assert!(!configuration.frozen && !allowed.policies.is_empty());
    let words = allowed.commands.0.iter().chain(&allowed.commands.1).flatten();
    assert!(values.is_empty() || words.into_iter().all(|word| !word.contains('\0')));
    for (name, rule) in &configuration.parameters {
        let value = values.get(name).map(String::as_str).unwrap_or_default();
        match rule {
            ParameterRule::Text { regex, multiline, unicode, .. } => {
                let whole = regex.find(value).is_some_and(|found| found.len() == value.len());
                assert!(whole, "the pattern must match the whole value");
                assert!(*unicode || value.is_ascii());
                assert!(value.chars().all(|c| !c.is_control() || *multiline && "\n\r\t".contains(c)));
            }
            ParameterRule::Artifact { .. } | ParameterRule::SavedBy { .. } => assert!(value.parse::<Digest>().is_ok()),
        }
    }
}
