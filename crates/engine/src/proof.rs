//! Whether the record in the last frame proves what that frame says (clauses FRM-20, REC-4).

use relay_protocol::frame::Finished;
use relay_protocol::record::Record;
use relay_protocol::{DeploymentId, Digest, Signature, SignedBy};

/// Why the record does not prove how a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    /// The runner says itself what went wrong.
    #[error("the runner says: {0}")]
    Problem(String),
    /// The record did not fit into the last frame.
    #[error("the record does not fit into the last frame; the evidence bucket has it")]
    NotCarried,
    /// The record is not the one of `record_sha256`.
    #[error("the record is not the one whose digest the runner names")]
    Digest,
    /// No target key is pinned.
    #[error("no target key is pinned")]
    NoPin,
    /// The pinned target key did not sign the record, or the record is malformed.
    #[error("the record does not verify: {0}")]
    Signature(String),
    /// The record disagrees with the last frame, or is about another deployment.
    #[error("the record differs from the last frame in {0}")]
    Differs(&'static str),
}

/// The deployment that a record must be about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The deployment.
    pub id: &'a DeploymentId,
    /// The digest of its request.
    pub request: Option<Digest>,
}

/// Checks the record in `finished`. `signed_by` says whether the pinned target key made a signature
/// over a PAE; without it, no key is pinned.
///
/// # Errors
///
/// If the record is missing, does not verify, or differs from the frame.
pub fn check(
    finished: &Finished,
    about: About<'_>,
    signed_by: Option<impl Fn(&[u8], &Signature) -> Option<SignedBy<()>>>,
) -> Result<(), Unproved> {
    if let Some(problem) = &finished.record_problem {
        return Err(Unproved::Problem(problem.clone()));
    }
    let envelope = finished.record.as_ref().ok_or(Unproved::NotCarried)?;
    if Digest::of(envelope.to_json().as_bytes()) != finished.record_sha256 {
        return Err(Unproved::Digest);
    }
    let signed_by = signed_by.ok_or(Unproved::NoPin)?;
    let verified =
        envelope.verify::<Record, (), _>(signed_by).map_err(|error| Unproved::Signature(error.to_string()))?;
    let record = verified.statement();
    let agrees = [
        ("the deployment's id", record.predicate.deployment_id == *about.id),
        ("the request", about.request.is_none() || record.subject("request") == about.request),
        ("the outcome", record.predicate.outcome == finished.outcome),
        ("stdout", record.predicate.stdout == Some(finished.stdout)),
        ("stderr", record.predicate.stderr == Some(finished.stderr)),
        ("the outputs", record.predicate.outputs == finished.outputs),
    ];
    match agrees.into_iter().find(|(_, agrees)| !agrees) {
        Some((what, _)) => Err(Unproved::Differs(what)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use relay_protocol::encoding::base64;
    use relay_protocol::outcome::Outcome;
    use relay_protocol::record::{Deployment, StreamDigest, Subject};
    use relay_protocol::{Envelope, Timestamp};

    use super::*;

    const EXITED: Outcome = Outcome::Exited { code: 3, signal: None };

    fn id() -> DeploymentId {
        DeploymentId::new(1_000, [1; 10])
    }

    fn record(change: impl FnOnce(&mut Record)) -> Envelope {
        let empty = StreamDigest { bytes: 0, sha256: Digest::of(b"") };
        let deployment = Deployment {
            deployment_id: id(),
            target: "demo/hello".parse().unwrap(),
            audience: "arn:aws:sns:eu-west-1:222222222222:relay".parse().unwrap(),
            parameters: BTreeMap::new(),
            signers: Vec::new(),
            approvers: Vec::new(),
            policies: Vec::new(),
            task_arn: "task".into(),
            role: None,
            capacity: None,
            runner_version: "1".into(),
            origin: relay_protocol::request::Origin::default(),
            started_at: Timestamp::from_unix(1),
            finished_at: Timestamp::from_unix(2),
            steps: Vec::new(),
            outcome: EXITED,
            stdout: Some(empty),
            stderr: Some(empty),
            outputs: BTreeMap::new(),
            isolation: "none".into(),
        };
        let mut record = Record::new(vec![Subject::new("request", Digest::of(b"request"))], deployment);
        change(&mut record);
        let unsigned = record.to_envelope();
        let signature = Signature::new("toy".into(), Digest::of(&unsigned.pae()).as_bytes());
        unsigned.with_signature(signature)
    }

    fn finished(record: Envelope) -> Finished {
        let empty = StreamDigest { bytes: 0, sha256: Digest::of(b"") };
        Finished {
            outcome: EXITED,
            step: None,
            frames: 1,
            stdout: empty,
            stderr: empty,
            outputs: BTreeMap::new(),
            record_sha256: Digest::of(record.to_json().as_bytes()),
            record: Some(record),
            record_problem: None,
        }
    }

    fn checked(finished: &Finished, request: Option<Digest>, pinned: bool) -> Result<(), Unproved> {
        let key = |pae: &[u8], signature: &Signature| {
            let valid = signature.sig == base64(Digest::of(pae).as_bytes());
            valid.then(|| SignedBy { key_id: "toy".into(), signer: () })
        };
        check(finished, About { id: &id(), request }, pinned.then_some(key))
    }

    fn judge(finished: &Finished) -> Result<(), Unproved> {
        checked(finished, Some(Digest::of(b"request")), true)
    }

    // clause: FRM-20, REC-4
    #[test]
    fn a_record_proves_an_end_only_if_it_says_the_same() {
        assert_eq!(judge(&finished(record(|_| ()))), Ok(()));
        assert_eq!(checked(&finished(record(|_| ())), None, true), Ok(()), "a reader that does not know the request");
        type Change = fn(&mut Record);
        let changes: [(&str, Change); 6] = [
            ("the deployment's id", |r| r.predicate.deployment_id = DeploymentId::new(1_000, [2; 10])),
            ("the request", |r| r.subject = vec![Subject::new("request", Digest::of(b"another"))]),
            ("the outcome", |r| r.predicate.outcome = Outcome::Exited { code: 0, signal: None }),
            ("stdout", |r| r.predicate.stdout = None),
            ("stderr", |r| r.predicate.stderr = Some(StreamDigest { bytes: 1, sha256: Digest::of(b"x") })),
            ("the outputs", |r| drop(r.predicate.outputs.insert("a".into(), "b".into()))),
        ];
        for (what, change) in changes {
            assert_eq!(judge(&finished(record(change))), Err(Unproved::Differs(what)));
        }
    }

    // clause: FRM-20
    #[test]
    fn without_a_record_that_the_pin_fits_nothing_is_proved() {
        let good = || finished(record(|_| ()));
        assert_eq!(checked(&good(), None, false), Err(Unproved::NoPin));
        let problem = Finished { record_problem: Some("denied".into()), ..good() };
        assert_eq!(judge(&problem), Err(Unproved::Problem("denied".into())));
        assert_eq!(judge(&Finished { record: None, ..good() }), Err(Unproved::NotCarried));
        assert_eq!(judge(&Finished { record_sha256: Digest::of(b"x"), ..good() }), Err(Unproved::Digest));
        let unsigned = Envelope::new(relay_protocol::record::TYPE, record(|_| ()).unverified_payload().to_vec());
        assert!(matches!(judge(&finished(unsigned.clone())), Err(Unproved::Signature(_))));
        let forged = unsigned.with_signature(Signature::new("toy".into(), &[0; 32]));
        assert!(matches!(judge(&finished(forged)), Err(Unproved::Signature(_))));
    }
}
