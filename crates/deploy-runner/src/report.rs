//! The record of a deployment, signed by the target key (clauses REC-1 to REC-4).

use std::collections::BTreeMap;

use relay_aws::keys::Keys;
use relay_aws::{AwsError, Kind};
use relay_policy::{Allowed, Asked, Pin};
use relay_protocol::keys::KnownSigner;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::{self, Predicate, Record, RecordSigner, RecordStep, StreamDigest, Subject};
use relay_protocol::{Envelope, PublicKey, Signature, Timestamp};

/// Signs an envelope with the target key.
pub(crate) async fn sign(keys: &Keys, target_key: &str, envelope: Envelope) -> Result<Envelope, AwsError> {
    let sig = keys.sign(target_key, &envelope.digest()).await?;
    let public = PublicKey::from_der(&keys.public_key(target_key).await?).map_err(|_| {
        AwsError::new("kms:GetPublicKey", Kind::Invalid, "KMS returned an unusable public key for the target key")
    })?;
    Ok(envelope.with_signature(Signature::new(public.key_id(), &sig)))
}

/// The contents of the record.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) pin: &'a Pin,
    pub(crate) allowed: Option<&'a Allowed>,
    pub(crate) task_arn: &'a str,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) subjects: Vec<Subject>,
    pub(crate) steps: Vec<RecordStep>,
    pub(crate) outcome: Outcome,
    pub(crate) streams: (StreamDigest, StreamDigest),
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) isolation: &'static str,
}

/// Builds the record's statement, ready to be signed.
pub(crate) fn record(facts: Facts<'_>) -> Envelope {
    let request = facts.asked.request();
    let named = |signers: &[KnownSigner]| {
        let one = |signer: &KnownSigner| RecordSigner { key_id: signer.key_id.clone(), name: signer.name.clone() };
        signers.iter().map(one).collect::<Vec<_>>()
    };
    let mut subjects = vec![
        Subject::new("request", facts.asked.request.digest()),
        Subject::new("configuration", facts.pin.configuration),
    ];
    subjects.extend(facts.subjects);
    let record = Record::new(
        subjects,
        Predicate {
            deployment_id: request.deployment_id.clone(),
            target: request.target.clone(),
            audience: request.audience.clone(),
            parameters: request.parameters.clone(),
            signers: named(facts.asked.request.signers()),
            approvers: facts.allowed.map(|allowed| named(&allowed.approvers)).unwrap_or_default(),
            policies: facts.allowed.map(|allowed| allowed.policies.clone()).unwrap_or_default(),
            task_arn: facts.task_arn.to_owned(),
            origin: request.origin.clone(),
            started_at: facts.started_at,
            finished_at: facts.finished_at,
            steps: facts.steps,
            outcome: facts.outcome,
            stdout: facts.streams.0,
            stderr: facts.streams.1,
            outputs: facts.outputs,
            isolation: facts.isolation.to_owned(),
        },
    );
    Envelope::new(record::TYPE, record.to_payload())
}
