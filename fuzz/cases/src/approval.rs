//! Approvals: a request with approvals of every kind, and the number of persons that count, by a
//! second reckoning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use relay_policy::{Configuration, authorise, verify};
use relay_protocol::keys::{IssuerKeys, PrivateKey};
use relay_protocol::limits::{APPROVAL_LIFETIME_MAX, APPROVALS_MAX, CLOCK_SKEW};
use relay_protocol::request::{Origin, Stage};
use relay_protocol::{
    Approval, Bundle, DeploymentId, Digest, Envelope, QueueUrl, Reason, Request, Statement as _, Ticket, Timestamp,
};

use crate::input::Input;
use crate::statement::says_the_same;

/// The signers, by the seed of their key: kind, and the person behind it.
const SIGNERS: [(&str, Option<&str>); 6] = [
    ("ci", None),
    ("person", Some("anna")),
    ("person", Some("anna")),
    ("person", Some("ben")),
    ("agent", None),
    ("person", Some("cleo")),
];

static CONFIGURATION: LazyLock<Configuration> = LazyLock::new(|| {
    let mut text = r#"
target = "a/b"
topic = "arn:aws:sns:eu-west-1:222222222222:relay"
bucket = "relay"
evidence = "evidence"
target_key = "alias/relay-a-b"
runner_role = "runner"
policy = '''
permit(principal, action == Action::"deploy", resource) when { context.approvals >= 2 };
permit(principal, action == Action::"approve", resource) unless { principal.name == "signer-5" };
'''
steps = [{ name = "x", run = ["true"] }]
"#
    .to_owned();
    for (seed, (kind, person)) in SIGNERS.iter().enumerate() {
        let person = person.map(|person| format!("person = \"{person}\"\n")).unwrap_or_default();
        let (key, name) = (key(seed), format!("signer-{seed}"));
        text += &format!(
            "[[signers]]\nname = \"{name}\"\nkind = \"{kind}\"\n{person}key = \"{}\"\nci_accounts = [\"111111111111\"]\n",
            key.public()
        );
    }
    Configuration::parse(&text).expect("a good configuration")
});

fn key(seed: usize) -> PrivateKey {
    PrivateKey::from_seed([u8::try_from(seed).unwrap_or_default() + 1; 32])
}

fn request(has_ticket: bool) -> Request {
    let issued_at = Timestamp::from_unix(1_795_300_000);
    let id = DeploymentId::new(1_795_300_000_000, [1; 10]);
    let account = "111111111111".parse().expect("an account");
    Request {
        audience: CONFIGURATION.topic.clone(),
        target: CONFIGURATION.target.clone(),
        parameters: BTreeMap::new(),
        reply_queue: QueueUrl::of(CONFIGURATION.topic.region(), &account, &id.reply_queue_name()).expect("a queue"),
        control_queue: None,
        deployment_id: id,
        session_key: PrivateKey::from_seed([99; 32]).public().clone(),
        ticket: has_ticket.then(|| Ticket::new([1; 16])),
        issued_at,
        expires_at: issued_at.plus(900),
        origin: Origin::default(),
        traceparent: None,
    }
}

/// Each operation is an approval: who signs, when it begins and ends, and what it is for.
pub fn approval(data: &[u8]) {
    if let Ok(approval) = Approval::parse(data) {
        let payload = approval.to_payload();
        says_the_same(data, &payload);
    }
    let mut input = Input(data);
    let requester = input.below(SIGNERS.len());
    let request = request(input.flag());
    let issued_at = request.issued_at;
    let subject = request.subject(CONFIGURATION.digest);
    let (mut approvals, mut persons) = (Vec::new(), BTreeSet::new());
    while let Some(operation) = input.operation() {
        if approvals.len() == APPROVALS_MAX {
            break;
        }
        let who = usize::from(operation) % (SIGNERS.len() + 1);
        let begins = i64::from(input.word()) - 32_768;
        let lasts = (i64::from(input.word()) - 1_000) * 2;
        let right = subject.filter(|_| !input.flag());
        let given = Approval {
            subject: right.unwrap_or_else(|| Digest::of(b"something else")),
            issued_at: issued_at.plus(begins),
            expires_at: issued_at.plus(begins + lasts),
        };
        approvals.push(key(who).sign_envelope(Envelope::new(Approval::TYPE, given.to_payload())));
        let in_time = (1..=APPROVAL_LIFETIME_MAX).contains(&lasts) && begins <= CLOCK_SKEW && begins + lasts >= 0;
        let person = SIGNERS.get(who).and_then(|(_, person)| *person);
        let is_requester = person.is_some() && SIGNERS[requester].1 == person;
        if let Some(person) = person.filter(|_| in_time && right.is_some() && !is_requester && who != 5) {
            persons.insert(person);
        }
    }
    let signed = key(requester).sign_envelope(Envelope::new(Request::TYPE, request.to_payload()));
    let bundle = Bundle { request: signed, approvals };
    let asked = verify(&bundle, &CONFIGURATION, &IssuerKeys::default()).expect("a signer of the target");
    match authorise(&CONFIGURATION, &asked, issued_at, Stage::Launch) {
        Ok(allowed) => {
            let counted: BTreeSet<&str> = allowed.approvers.iter().filter_map(|by| by.kind.person()).collect();
            assert_eq!(counted, persons);
            assert!(persons.len() >= 2);
        }
        Err(denied) => {
            assert_eq!((denied.reason, persons.len() < 2), (Reason::Approval, true), "{}", denied.message);
            assert_eq!(denied.approvals_missing as usize, 2 - persons.len());
        }
    }
}
