//! The statement of the record: who asked, what ran, and how it ended (clauses REC-1 to REC-3).

use std::collections::BTreeMap;

use relay_policy::{Allowed, Asked, Pin};
use relay_protocol::keys::KnownSigner;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::{self, Deployment, Record, RecordSigner, RecordStep, StreamDigest, Subject};
use relay_protocol::{Digest, Envelope, Timestamp};

use crate::host::Host;

/// The contents of the record.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) pin: &'a Pin,
    pub(crate) request_json: Digest,
    pub(crate) issuer_keys: Option<Digest>,
    pub(crate) role: Option<String>,
    pub(crate) allowed: Option<&'a Allowed>,
    pub(crate) host: &'a Host,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) steps: Vec<RecordStep>,
    pub(crate) outcome: Outcome,
    pub(crate) streams: Option<(StreamDigest, StreamDigest)>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) isolation: &'static str,
}

/// Builds the record's statement, ready to be signed.
pub(crate) fn record(facts: Facts<'_>) -> Envelope {
    let request = facts.asked.request();
    let named = |signers: &[KnownSigner]| signers.iter().map(RecordSigner::from).collect::<Vec<_>>();
    let Facts { asked, pin, request_json, issuer_keys, .. } = &facts;
    let mut subjects = record::subjects(asked.request.digest(), *request_json, pin.configuration, *issuer_keys);
    subjects.extend(facts.host.subjects());
    subjects.extend(facts.subjects);
    let record = Record::new(
        subjects,
        Deployment {
            deployment_id: request.deployment_id.clone(),
            target: request.target.clone(),
            audience: request.audience.clone(),
            parameters: request.parameters.clone(),
            signers: named(facts.asked.request.signers()),
            approvers: facts.allowed.map(|allowed| named(&allowed.approvers)).unwrap_or_default(),
            policies: facts.allowed.map(|allowed| allowed.policies.clone()).unwrap_or_default(),
            task_arn: facts.host.task_arn.clone(),
            role: facts.role,
            capacity: facts.host.capacity.clone(),
            runner_version: env!("CARGO_PKG_VERSION").to_owned(),
            origin: request.origin.clone(),
            started_at: facts.started_at,
            finished_at: facts.finished_at,
            steps: facts.steps,
            outcome: facts.outcome,
            stdout: facts.streams.map(|(stdout, _)| stdout),
            stderr: facts.streams.map(|(_, stderr)| stderr),
            outputs: facts.outputs,
            isolation: facts.isolation.to_owned(),
        },
    );
    record.to_envelope()
}
