//! Artifacts that another target saved, such as a terraform plan: what the record of the deployment
//! that saved one says about it (clause ART-8).

use std::collections::{BTreeMap, BTreeSet};

use relay_protocol::artifact::{object_key, saved_prefix};
use relay_protocol::frame::TriedArtifact;
use relay_protocol::keys::{KnownSigner, SingleKey};
use relay_protocol::record::{Deployment, Record, RecordSigner};
use relay_protocol::{DeploymentId, Digest, Envelope, ParameterName, Request, RequestRef, TargetName, Timestamp};

use crate::parameters::ParameterRule;

/// The rules for a target's parameters.
type Rules = BTreeMap<ParameterName, ParameterRule>;

/// What lies in the evidence for a saved artifact: the deployment that saved it, and its record.
pub type Found = BTreeMap<Digest, (RequestRef, Envelope)>;

/// What the record says of the deployment that saved an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The deployment.
    pub deployment_id: DeploymentId,
    /// The signers of its request.
    pub signers: Vec<RecordSigner>,
    /// Its exit code.
    pub exit_code: u8,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Saved {
    /// Whether `signer` asked for that deployment: its key did, or a token that fits the same entry
    /// and has the same subject.
    pub fn is_by(&self, signer: &KnownSigner) -> bool {
        let same = |by: &RecordSigner| match (subject(&by.claims), subject(&signer.claims)) {
            (Some(by), Some(subject)) => by == subject,
            // Keys have no claims. Tokens without a subject may be anybody's.
            (None, None) => by.claims.is_empty() && signer.claims.is_empty(),
            _ => false,
        };
        self.signers.iter().any(|by| by.key_id == signer.key_id && same(by))
    }
}

/// The subject that a token claims, with the name of its issuer.
fn subject(claims: &BTreeMap<String, String>) -> Option<(&String, &String)> {
    claims.iter().find(|(tag, _)| tag.strip_suffix("/sub").is_some_and(|issuer| !issuer.contains('/')))
}

/// The artifacts of a request that another target saved, each by that target and its digest.
pub fn saved_artifacts(rules: &Rules, request: &Request) -> BTreeSet<(TargetName, Digest)> {
    each(rules, request).map(|(_, target, digest, _)| (target.clone(), digest)).collect()
}

fn each<'a>(
    rules: &'a Rules,
    request: &'a Request,
) -> impl Iterator<Item = (&'a ParameterName, &'a TargetName, Digest, &'a SingleKey)> {
    rules.iter().filter_map(|(name, rule)| {
        let ParameterRule::SavedBy { target, key, .. } = rule else { return None };
        let digest = request.parameters.get(name)?.parse().ok()?;
        Some((name, target, digest, key))
    })
}

/// Verifies the records of all artifacts of a request that another target saved, each by the key
/// that the configuration names. One that does not verify has the reason in its place.
pub(crate) fn judge(rules: &Rules, request: &Request, found: &Found) -> BTreeMap<ParameterName, Result<Saved, String>> {
    let mut judged = BTreeMap::new();
    for (name, target, digest, key) in each(rules, request) {
        let result = match found.get(&digest) {
            None => Err("no record says so".to_owned()),
            Some((named, record)) => verify((target, digest), key, named, record),
        };
        judged.insert(name.clone(), result.map_err(|problem| format!("{target} did not save it: {problem}")));
    }
    judged
}

fn verify(
    (target, artifact): (&TargetName, Digest),
    key: &SingleKey,
    named: &RequestRef,
    record: &Envelope,
) -> Result<Saved, String> {
    let verified = key.verify::<Record<Deployment>>(record).map_err(|error| error.to_string())?;
    let (record, it) = (verified.statement(), &verified.statement().predicate);
    if it.target != *target {
        return Err(format!("the record is of {}", it.target));
    }
    if it.deployment_id != named.deployment_id || record.subject("request") != Some(named.request_digest) {
        return Err("the record is of another deployment".to_owned());
    }
    let saved = record.subject.iter().filter(|subject| subject.name.starts_with("saved/"));
    if !saved.filter_map(|subject| subject.digest.get("sha256")).any(|digest| *digest == artifact) {
        return Err("the record does not name it".to_owned());
    }
    let exit_code = it.outcome.exit_code();
    Ok(Saved {
        deployment_id: it.deployment_id.clone(),
        signers: it.signers.clone(),
        exit_code,
        finished_at: it.finished_at,
    })
}

/// What a trial assumes.
pub(crate) fn assumed(
    rules: &Rules,
    request: &Request,
    signers: &[KnownSigner],
) -> BTreeMap<ParameterName, Result<Saved, String>> {
    let saved = Saved {
        deployment_id: request.deployment_id.clone(),
        signers: signers.iter().map(RecordSigner::from).collect(),
        exit_code: 0,
        finished_at: request.issued_at,
    };
    each(rules, request).map(|(name, ..)| (name.clone(), Ok(saved.clone()))).collect()
}

/// What an approver is told about the saved artifacts.
pub(crate) fn told(
    bucket: &str,
    rules: &Rules,
    request: &Request,
    saved: &BTreeMap<ParameterName, Result<Saved, String>>,
) -> Vec<TriedArtifact> {
    let mut all = Vec::new();
    for (name, target, digest, _) in each(rules, request) {
        let Some(Ok(it)) = saved.get(name) else { continue };
        all.push(TriedArtifact {
            parameter: name.clone(),
            target: target.clone(),
            location: format!("s3://{}/{}", bucket, object_key(&saved_prefix(target), digest)),
            deployment_id: it.deployment_id.clone(),
            requesters: it.signers.iter().map(|signer| signer.name.clone()).collect(),
            exit_code: it.exit_code,
            finished_at: it.finished_at,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use relay_protocol::keys::SignerKind;

    use super::*;

    fn signer(key_id: &str, claims: &[(&str, &str)]) -> KnownSigner {
        KnownSigner {
            key_id: key_id.to_owned(),
            name: "ci".parse().unwrap(),
            kind: SignerKind::Ci,
            groups: BTreeSet::new(),
            ci_accounts: Vec::new(),
            claims: claims.iter().map(|(tag, value)| ((*tag).to_owned(), (*value).to_owned())).collect(),
            token: None,
        }
    }

    // clause: ART-8
    #[test]
    fn the_same_requester_has_the_same_key_or_the_same_subject() {
        let is_by = |by: &KnownSigner, signer: &KnownSigner| {
            let saved = Saved {
                deployment_id: DeploymentId::new(0, [0; 10]),
                signers: vec![RecordSigner::from(by)],
                exit_code: 0,
                finished_at: Timestamp::from_unix(0),
            };
            saved.is_by(signer)
        };
        let (key, token) = (signer("a", &[]), signer("b", &[("github/sub", "repo:x"), ("github/ref", "main")]));
        assert!(is_by(&key, &key) && is_by(&token, &token));
        assert!(is_by(&token, &signer("b", &[("github/sub", "repo:x"), ("github/ref", "other")])));
        assert!(!is_by(&key, &signer("c", &[])) && !is_by(&key, &token));
        assert!(!is_by(&token, &signer("b", &[("github/sub", "repo:y")])));
        // A token without a subject may be anybody's, and a nested claim is no subject.
        for claims in [&[("github/ref", "main")][..], &[("github/act/sub", "x")]] {
            let nobody = signer("b", claims);
            assert!(!is_by(&nobody, &nobody), "{claims:?}");
        }
        assert!(!is_by(&signer("b", &[]), &token) && !is_by(&token, &signer("b", &[])));
    }
}
