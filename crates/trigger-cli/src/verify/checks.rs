//! The checks of `relay verify`, without any input or output. Each compares one part of the
//! evidence with the signed record (clauses REC-1 to REC-7, EVD-1 to EVD-4).

use std::collections::BTreeSet;

use relay_engine::{End, Event, Pins};
use relay_protocol::claim::{Claim, Holder};
use relay_protocol::evidence::frames;
use relay_protocol::keys::{
    Algorithm, Issuer, IssuerKeys, KnownSigner, Proof, SignerKind, SingleKey, TokenRule, TrustRoots, TrustedSigner,
};
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::{About, Deployment, Predicate, Record, RecordSigner, StreamDigest, Subject, Unfinished};
use relay_protocol::summary::Summary;
use relay_protocol::{Approval, Bundle, Digest, Envelope, PublicKey, Request, Statement as _, TargetName};
use serde::Deserialize;
use serde_json::Value;

use crate::verify::replay::Replay;

/// The files of a deployment's evidence, as far as they are there.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) record: Vec<u8>,
    pub(crate) sigstore: Option<Vec<u8>>,
    pub(crate) request: Option<Vec<u8>>,
    pub(crate) issuer_keys: Option<Vec<u8>>,
    pub(crate) claim: Option<Vec<u8>>,
    pub(crate) summary: Option<Vec<u8>>,
    pub(crate) configurations: Vec<Vec<u8>>,
    /// The objects with the runner's frames, in order.
    pub(crate) transcript: Vec<Vec<u8>>,
}

/// The keys that may have signed.
#[derive(Debug)]
pub(crate) enum Keys {
    /// The pins of the record's own target.
    Pinned(Pins),
    /// One key, of which nothing else is known.
    Bare(PublicKey),
}

/// Whether something is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// It is proved.
    Proved,
    /// The record says it, and it is as good as the record's signature.
    Says,
    /// It was given, and is not proved.
    NotProved,
    /// It was not given, or nothing here can prove it.
    Open,
}

/// The result of one check.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) level: Level,
    pub(crate) what: &'static str,
    pub(crate) text: String,
}

fn finding(level: Level, what: &'static str, text: impl Into<String>) -> Finding {
    Finding { level, what, text: text.into() }
}

fn judged(what: &'static str, result: Result<String, String>) -> Finding {
    match result {
        Ok(text) => finding(Level::Proved, what, text),
        Err(text) => finding(Level::NotProved, what, text),
    }
}

impl Keys {
    /// The keys that may have signed for a runner.
    pub(crate) fn of_target(&self) -> &[PublicKey] {
        match self {
            Self::Pinned(pins) => &pins.target,
            Self::Bare(key) => std::slice::from_ref(key),
        }
    }
}

/// A record as it was read: nothing in it is verified yet.
#[derive(Debug)]
pub(crate) struct Signed {
    envelope: Envelope,
    statement: Statement,
}

/// The two kinds of record.
#[derive(Debug)]
enum Statement {
    Runner(Box<Record<Deployment>>),
    Launcher(Box<Record<Unfinished>>),
}

impl Signed {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// What is wrong with its form.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        // Base64 takes four bytes for three.
        let envelope = Envelope::parse(bytes, 2 * RECORD_MAX).map_err(|error| error.to_string())?;
        let payload = envelope.unverified_payload();
        let statement = match Record::<Deployment>::parse(payload) {
            Ok(record) => Statement::Runner(Box::new(record)),
            Err(problem) => match Record::<Unfinished>::parse(payload) {
                Ok(record) => Statement::Launcher(Box::new(record)),
                Err(_) => return Err(format!("the file is not a record of relay: {problem}")),
            },
        };
        Ok(Self { envelope, statement })
    }

    /// The target that the record names, whose pins are to be used.
    pub(crate) fn target(&self) -> &TargetName {
        self.about().target
    }

    /// What the record says of its request and its task.
    pub(crate) fn about(&self) -> About<'_> {
        match &self.statement {
            Statement::Runner(record) => record.predicate.about(),
            Statement::Launcher(record) => record.predicate.about(),
        }
    }

    /// What a runner says, if the record is a runner's.
    pub(crate) fn deployment(&self) -> Option<&Deployment> {
        match &self.statement {
            Statement::Runner(record) => Some(&record.predicate),
            Statement::Launcher(_) => None,
        }
    }

    /// Whether the right key signed: the target key for a runner's record, the answer key for a
    /// launcher's. Returns how, or what is wrong.
    pub(crate) fn verify(&self, keys: &Keys) -> Result<String, String> {
        let (name, keys) = match (&self.statement, keys) {
            (Statement::Runner(_), Keys::Pinned(pins)) => ("the pinned target key", pins.target.as_slice()),
            (Statement::Launcher(_), Keys::Pinned(pins)) => ("the pinned answer key", pins.answer.as_slice()),
            (_, Keys::Bare(key)) => ("the given key", std::slice::from_ref(key)),
        };
        let result = match &self.statement {
            Statement::Runner(_) => signed_by::<Deployment>(keys, &self.envelope),
            Statement::Launcher(_) => signed_by::<Unfinished>(keys, &self.envelope),
        };
        result
            .map(|id| format!("signed by {name}, id {id}"))
            .map_err(|problem| format!("{name} has not signed it: {problem}"))
    }

    /// What a launcher says, if the record is a launcher's.
    pub(crate) fn unfinished(&self) -> Option<&Unfinished> {
        match &self.statement {
            Statement::Runner(_) => None,
            Statement::Launcher(record) => Some(&record.predicate),
        }
    }

    /// Who asked, and who approved.
    pub(crate) fn people(&self) -> (&[RecordSigner], &[RecordSigner]) {
        match &self.statement {
            Statement::Runner(record) => (&record.predicate.signers, &record.predicate.approvers),
            Statement::Launcher(record) => (&record.predicate.signers, &record.predicate.approvers),
        }
    }

    fn subject(&self, name: &str) -> Option<Digest> {
        match &self.statement {
            Statement::Runner(record) => record.subject(name),
            Statement::Launcher(record) => record.subject(name),
        }
    }

    /// Whether the record says the same as the request that it is about.
    fn agrees_with(&self, request: &Request) -> bool {
        let About { deployment_id, target, audience, parameters, .. } = self.about();
        *deployment_id == request.deployment_id
            && *target == request.target
            && *audience == request.audience
            && *parameters == request.parameters
    }
}

/// Checks everything that is there.
pub(crate) fn check(evidence: &Evidence, signed: &Signed, keys: &Keys) -> Vec<Finding> {
    let mut all = vec![judged("record", signed.verify(keys))];
    all.extend(summary(signed));
    if let Keys::Bare(_) = keys {
        all.push(finding(Level::Open, "target", "a bare key does not prove that the record is of this target"));
    }
    if let Some(bundle) = &evidence.sigstore {
        all.push(judged("record.sigstore.json", sigstore(bundle, &signed.envelope)));
    }
    all.extend(configurations(evidence, signed));
    all.extend(issuer_keys(evidence, signed));
    all.push(match &evidence.request {
        Some(bytes) => judged("request", request(bytes, evidence, signed)),
        None => finding(Level::Open, "request", "not given (--request)"),
    });
    match (&evidence.summary, keys, &signed.statement) {
        (Some(bytes), Keys::Pinned(pins), _) => {
            all.push(judged("vsa.json", summary_of(bytes, signed, &pins.answer)));
        }
        (Some(_), Keys::Bare(_), _) => all.push(finding(Level::Open, "vsa.json", "needs the pinned answer key")),
        (None, _, Statement::Runner(_)) => all.push(finding(
            Level::Open,
            "vsa.json",
            "not given; the launcher leaves one in the evidence before it starts a task",
        )),
        (None, _, Statement::Launcher(_)) => {}
    }
    if let Some(bytes) = &evidence.claim {
        all.push(match claim(bytes, signed) {
            Ok(text) => finding(Level::Open, "claim", format!("fits: {text}; a claim is not signed")),
            Err(text) => finding(Level::NotProved, "claim", text),
        });
    }
    all.push(match (&evidence.transcript[..], keys) {
        ([], _) => finding(Level::Open, "transcript", "not given (--transcript)"),
        (objects, Keys::Pinned(pins)) => judged("transcript", transcript(objects, evidence, signed, &pins.target)),
        (objects, Keys::Bare(key)) => {
            judged("transcript", transcript(objects, evidence, signed, std::slice::from_ref(key)))
        }
    });
    all.push(finding(
        Level::Open,
        "beyond this",
        "what the tool did in the account (CloudTrail has its calls, by the deployment id as session name), what is in the image, the times, which are the runner's clock, and that no evidence was removed (relay-admin ledger verify)",
    ));
    all
}

/// The id of the key that signed this statement, among these.
fn signed_by<P: Predicate>(keys: &[PublicKey], envelope: &Envelope) -> Result<String, String> {
    let mut refused = "there is none".to_owned();
    for key in keys {
        let verifying = SingleKey::new(key).map_err(|error| error.to_string())?;
        match verifying.verify::<Record<P>>(envelope) {
            Ok(_) => return Ok(key.key_id()),
            Err(error) => refused = error.to_string(),
        }
    }
    Err(refused)
}

/// What the record says, in plain words. It is as good as its signature.
fn summary(signed: &Signed) -> Vec<Finding> {
    let says = |what, text: String| finding(Level::Says, what, text);
    let (requesters, approvers) = signed.people();
    let mut all = vec![
        says("what", format!("{} of {}", signed.about().deployment_id, signed.about().target)),
        says("who asked", people(requesters, "nobody")),
        says("who approved", people(approvers, "nobody")),
    ];
    match &signed.statement {
        Statement::Runner(record) => {
            let it = &record.predicate;
            let steps: Vec<&str> = it.steps.iter().map(|step| step.name.as_str()).collect();
            let role = it.role.as_deref().map_or("without a role".to_owned(), |role| format!("as {role}"));
            let bytes = |stream: Option<StreamDigest>| stream.map_or("?".to_owned(), |stream| stream.bytes.to_string());
            let how = match &it.outcome {
                Outcome::Exited { code, .. } => format!("the tool exited with {code}"),
                Outcome::Ended { reason, message } => format!("ended by relay: {message} ({reason})"),
            };
            all.extend([
                says("what allowed it", policies(&it.policies)),
                says("what ran", format!("{} {role}; isolation: {}", list(&steps), it.isolation)),
                says("from which image", images(record)),
                says(
                    "what it printed",
                    format!("{} bytes to stdout, {} to stderr", bytes(it.stdout), bytes(it.stderr)),
                ),
                says("how it ended", format!("{how}, at {}", it.finished_at)),
            ]);
        }
        Statement::Launcher(record) => {
            let it = &record.predicate;
            let outcome = format!("{:?}", it.outcome).to_lowercase();
            let text = format!("{outcome}: {} ({}), at {}", it.message, it.reason, it.recorded_at);
            all.push(says("how it ended", text));
        }
    }
    all
}

/// The images of the task by container, and what it ran on.
fn images(record: &Record<Deployment>) -> String {
    let image = |subject: &Subject| {
        let container = subject.name.strip_prefix("image/")?;
        Some(format!("{container} sha256:{}", subject.digest.get("sha256")?))
    };
    let images: Vec<String> = record.subject.iter().filter_map(image).collect();
    let images = if images.is_empty() { "ECS reported none".to_owned() } else { images.join(", ") };
    record.predicate.capacity.as_ref().map_or(images.clone(), |capacity| format!("{images}; on {capacity}"))
}

/// Signers by name, and how each is known.
fn people(signers: &[RecordSigner], nobody: &str) -> String {
    let one = |signer: &RecordSigner| match issuer(signer) {
        Some((name, url)) => {
            let claim =
                |claim: &str| signer.claims.get(&format!("{name}/{claim}")).map(|value| format!(", {claim} {value}"));
            let claims: String = ["sub", "actor"].into_iter().filter_map(claim).collect();
            format!("{}, by an identity token of {url}{claims}", signer.name)
        }
        None => format!("{}, by the key {}", signer.name, signer.key_id),
    };
    let all: Vec<String> = signers.iter().map(one).collect();
    if all.is_empty() { nobody.to_owned() } else { all.join("; ") }
}

/// The issuer of a signer's token, as the configuration names it, with its URL; `None` for a key.
fn issuer(signer: &RecordSigner) -> Option<(&str, &str)> {
    signer.claims.iter().find_map(|(tag, url)| {
        // A claim inside an object may be called `iss` too.
        let name = tag.strip_suffix("/iss").filter(|name| !name.contains('/'))?;
        Some((name, url.as_str()))
    })
}

fn policies(names: &[String]) -> String {
    if names.is_empty() { "no policy".to_owned() } else { format!("the policies {}", names.join(", ")) }
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "no step".to_owned() } else { names.join(", ") }
}

fn sigstore(bundle: &[u8], record: &Envelope) -> Result<String, String> {
    let bundle: Value = serde_json::from_slice(bundle).map_err(|error| error.to_string())?;
    let inner = bundle.get("dsseEnvelope").map(Value::to_string).unwrap_or_default();
    let inner = Envelope::parse(inner.as_bytes(), 2 * RECORD_MAX).map_err(|error| error.to_string())?;
    if inner == *record { Ok("has the same envelope".to_owned()) } else { Err("has another envelope".to_owned()) }
}

fn configurations(evidence: &Evidence, signed: &Signed) -> Vec<Finding> {
    let Some(wanted) = signed.subject("configuration") else {
        return vec![finding(Level::NotProved, "configuration", "the record names none")];
    };
    match &evidence.configurations[..] {
        [] => vec![finding(Level::Open, "configuration", "not given (--configuration)")],
        all if all.iter().any(|text| Digest::of(text) == wanted) => {
            vec![finding(Level::Proved, "configuration", format!("is the one of the record, {wanted}"))]
        }
        _ => vec![finding(Level::NotProved, "configuration", format!("is not the one of the record, {wanted}"))],
    }
}

/// Whether the issuers' keys are those of the record. That they were the issuers' is the record's
/// word: its runner compared them.
fn issuer_keys(evidence: &Evidence, signed: &Signed) -> Option<Finding> {
    let what = "issuer-keys.json";
    Some(match (signed.subject(what), &evidence.issuer_keys) {
        (None, None) => return None,
        (None, Some(_)) => finding(Level::NotProved, what, "the record names none"),
        (Some(_), None) => finding(Level::Open, what, "not given: it lies beside the request in the evidence"),
        (Some(wanted), Some(bytes)) if Digest::of(bytes) == wanted => {
            finding(Level::Proved, what, "has the keys by which the record says that the tokens were judged")
        }
        (Some(_), Some(_)) => finding(Level::NotProved, what, "is not the one of the record"),
    })
}

/// The signers in a configuration, without anything else of it.
#[derive(Deserialize)]
struct Signers {
    signers: Vec<Signer>,
}

#[derive(Deserialize)]
struct Signer {
    name: Option<String>,
    key: Option<PublicKey>,
}

fn signers(configuration: &[u8]) -> Option<Vec<TrustedSigner>> {
    let Signers { signers } = toml::from_str(std::str::from_utf8(configuration).ok()?).ok()?;
    let trusted = |signer: Signer| {
        let key = signer.key?;
        let name = signer.name.unwrap_or_else(|| key.key_id());
        Some(TrustedSigner {
            proof: TrustedSigner::by_key(key).ok()?,
            kind: SignerKind::Ci,
            name,
            groups: BTreeSet::new(),
            ci_accounts: Vec::new(),
        })
    };
    Some(signers.into_iter().filter_map(trusted).collect())
}

/// Whether this is the request of the record and, if the configuration is there, who signed it.
fn request(bytes: &[u8], evidence: &Evidence, signed: &Signed) -> Result<String, String> {
    let bundle = Bundle::parse(bytes).map_err(|error| error.to_string())?;
    let digest = bundle.request.digest();
    if signed.subject("request") != Some(digest) {
        return Err("is not the one of the record".to_owned());
    }
    let request = Request::parse(bundle.request.unverified_payload()).map_err(|error| error.to_string())?;
    if !signed.agrees_with(&request) {
        return Err("differs from what the record says of it".to_owned());
    }
    if signed.subject("request.json") != Some(Digest::of(bytes)) {
        return Err(
            "is the one of the record, but the file has other bytes (approvals, signatures or white space)".to_owned()
        );
    }
    let wanted = signed.subject("configuration");
    let configuration = evidence.configurations.iter().find(|text| Some(Digest::of(text)) == wanted);
    let Some(configuration) = configuration else {
        return Ok(format!("is the one of the record, {digest}; who signed it is open without the configuration"));
    };
    let mut signers = signers(configuration).ok_or("is the one of the record, but the configuration has no signers")?;
    let (requesters, approvers) = signed.people();
    signers.extend(requesters.iter().chain(approvers).filter_map(by_token));
    let roots = TrustRoots::new(signers);
    let keys = match &evidence.issuer_keys {
        Some(bytes) => IssuerKeys::parse(bytes).map_err(|error| format!("issuer-keys.json: {error}"))?,
        None => IssuerKeys::default(),
    };
    let verified = roots.verify::<Request>(&bundle.request, &keys).map_err(|error| error.to_string())?;
    let found = names(verified.signers());
    let said: BTreeSet<&str> = requesters.iter().map(|signer| signer.name.as_str()).collect();
    if found != said {
        return Err(format!("is signed by {}, and the record says by {}", listed(&found), listed(&said)));
    }
    let approvals: Vec<_> =
        bundle.approvals.iter().filter_map(|approval| roots.verify::<Approval>(approval, &keys).ok()).collect();
    let given: BTreeSet<&str> = approvals.iter().flat_map(|approval| names(approval.signers())).collect();
    if let Some(missing) = approvers.iter().find(|approver| !given.contains(approver.name.as_str())) {
        return Err(format!("has no approval by {}, whom the record names", missing.name));
    }
    let approved = if approvers.is_empty() { String::new() } else { format!(", approved by {}", listed(&given)) };
    Ok(format!("is the one of the record, {digest}; signed by {}{approved}", listed(&found)))
}

fn names(signers: &[KnownSigner]) -> BTreeSet<&str> {
    signers.iter().map(|signer| signer.name.as_str()).collect()
}

fn listed(names: &BTreeSet<&str>) -> String {
    list(&names.iter().copied().collect::<Vec<_>>())
}

/// A signer of the record who signed with a token. Whether the entry of the configuration fits is
/// the record's word; the token must be the issuer's, for this envelope, with these claims.
fn by_token(signer: &RecordSigner) -> Option<TrustedSigner> {
    let (name, url) = issuer(signer)?;
    let issuer = Issuer { name: name.to_owned(), url: url.to_owned(), algorithms: Algorithm::ALL.to_vec() };
    let claim =
        |(tag, value): (&String, &String)| Some((tag.strip_prefix(name)?.to_owned(), BTreeSet::from([value.clone()])));
    let rule = TokenRule { issuer, claims: signer.claims.iter().filter_map(claim).collect() };
    (rule.key_id(&signer.name) == signer.key_id).then(|| TrustedSigner {
        proof: Proof::Token(rule),
        name: signer.name.clone(),
        kind: SignerKind::Ci,
        groups: BTreeSet::new(),
        ci_accounts: Vec::new(),
    })
}

/// Whether the launcher signed the verification summary, and whether it is about this request.
fn summary_of(bytes: &[u8], signed: &Signed, answer_keys: &[PublicKey]) -> Result<String, String> {
    let envelope = Envelope::parse(bytes, 2 * RECORD_MAX).map_err(|error| error.to_string())?;
    signed_by::<Summary>(answer_keys, &envelope)
        .map_err(|problem| format!("the answer key has not signed it: {problem}"))?;
    let summary = Record::<Summary>::parse(envelope.unverified_payload()).map_err(|error| error.to_string())?;
    for name in ["request", "request.json", "configuration"] {
        if summary.subject(name) != signed.subject(name) {
            return Err(format!("is about another {name} than the record"));
        }
    }
    let at = summary.predicate.time_verified;
    Ok(format!("the launcher found at {at} that the target's policies permit this request"))
}

/// Whether the claim fits the record.
fn claim(bytes: &[u8], signed: &Signed) -> Result<String, String> {
    let claim = Claim::parse(bytes).map_err(|error| error.to_string())?;
    if signed.subject("request") != Some(claim.request_digest) {
        return Err("is for another request".to_owned());
    }
    match (&claim.holder, &signed.statement) {
        (Holder::Runner { task_arn, .. }, _) if Some(task_arn.as_str()) == signed.about().task_arn => {
            Ok(format!("it is held by the task of the record, {task_arn}"))
        }
        (Holder::Launcher { .. }, Statement::Launcher(_)) => {
            Ok("it is held by the launcher, as the record says".to_owned())
        }
        (Holder::Runner { task_arn, .. }, _) => Err(format!("is held by another task, {task_arn}")),
        (Holder::Launcher { .. }, Statement::Runner(_)) => Err("is held by the launcher, not by the runner".to_owned()),
    }
}

/// Whether the archived frames are the runner's, are whole, and have the output of the record.
fn transcript(
    objects: &[Vec<u8>],
    evidence: &Evidence,
    signed: &Signed,
    target_keys: &[PublicKey],
) -> Result<String, String> {
    let mut replay = Replay::new(signed.about().deployment_id, target_keys);
    let mut vouch = None;
    for frame in objects.iter().flat_map(|object| frames(object)) {
        let frame = frame.map_err(|error| format!("a line is not a frame: {error}"))?;
        // Once the runner key is fixed, a reader does not examine a vouch. An auditor does.
        if frame.vouch.is_some() && *vouch.get_or_insert_with(|| frame.vouch.clone()) != frame.vouch {
            return Err("has two different vouches".to_owned());
        }
        if replay.take(frame).iter().any(|event| matches!(event, Event::Gap(_))) {
            return Err("has a damaged frame".to_owned());
        }
    }
    let inbox = &replay.inbox;
    if inbox.dropped() > 0 || inbox.unvouched() > 0 {
        return Err(format!(
            "has {} frames that the runner has not signed",
            inbox.dropped() + inbox.unvouched() as u64
        ));
    }
    let offset = inbox.offset();
    let length = format!("{} bytes of stdout and {} of stderr", offset.stdout, offset.stderr);
    match (inbox.poll_end(), &signed.statement) {
        (Some(End::Finished { finished, verified: true, .. }), Statement::Runner(record)) => {
            let it = &record.predicate;
            let same = |said: Option<StreamDigest>, found| said == Some(found);
            if !same(it.stdout, finished.stdout) || !same(it.stderr, finished.stderr) || it.outcome != finished.outcome
            {
                return Err("ends in another way than the record says".to_owned());
            }
            if finished.record_sha256 != Digest::of(&evidence.record) {
                return Err("names another record, by its digest".to_owned());
            }
            Ok(format!("whole: {length}, with the digests of the record"))
        }
        (Some(End::Finished { .. }), Statement::Launcher(_)) => {
            Err("has the runner's end, and the record is the launcher's".to_owned())
        }
        (Some(End::Finished { .. }), _) => Err(format!("is incomplete: it has {length}")),
        (_, Statement::Launcher(_)) => Ok(format!("{length}, up to where the runner's frames end")),
        _ => Err(format!("does not have the deployment's end: it has {length}")),
    }
}
