//! The checks of `relay verify`, without any input or output. Each compares one part of the
//! evidence with the signed record (clauses REC-1 to REC-7, EVD-1 to EVD-4).

use std::time::Duration;

use relay_engine::{Authenticator, End, Event, Inbox, Pins, Start, Timeouts};
use relay_protocol::claim::{Claim, Holder};
use relay_protocol::evidence::frames;
use relay_protocol::keys::{Cached, IssuerKeys, SignerKind, SingleKey, TrustRoots, TrustedSigner};
use relay_protocol::limits::RECORD_MAX;
use relay_protocol::outcome::Outcome;
use relay_protocol::record::{About, Deployment, Predicate, Record, StreamDigest, Unfinished};
use relay_protocol::{Bundle, Digest, Envelope, PublicKey, Request, Statement as _, TargetName, Timestamp};
use serde::Deserialize;
use serde_json::Value;

/// The files of a deployment's evidence, as far as they are there.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) record: Vec<u8>,
    pub(super) sigstore: Option<Vec<u8>>,
    pub(super) request: Option<Vec<u8>>,
    pub(super) claim: Option<Vec<u8>>,
    pub(super) configurations: Vec<Vec<u8>>,
    /// The objects with the runner's frames, in order.
    pub(super) transcript: Vec<Vec<u8>>,
}

/// The keys that may have signed.
#[derive(Debug)]
pub(super) enum Keys {
    /// The pins of the record's own target.
    Pinned(Pins),
    /// One key, of which nothing else is known.
    Bare(PublicKey),
}

/// Whether something is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It is proved.
    Proved,
    /// It was given, and is not proved.
    NotProved,
    /// It was not given, or nothing here can prove it.
    Open,
}

/// The result of one check.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) what: &'static str,
    pub(super) text: String,
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

/// A record as it was read: nothing in it is verified yet.
#[derive(Debug)]
pub(super) struct Signed {
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
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
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
    pub(super) fn target(&self) -> &TargetName {
        self.about().target
    }

    fn about(&self) -> About<'_> {
        match &self.statement {
            Statement::Runner(record) => record.predicate.about(),
            Statement::Launcher(record) => record.predicate.about(),
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
pub(super) fn check(evidence: &Evidence, signed: &Signed, keys: &Keys) -> Vec<Finding> {
    let mut all = vec![judged("record", signature(signed, keys)), summary(signed)];
    if let Keys::Bare(_) = keys {
        all.push(finding(Level::Open, "target", "a bare key does not prove that the record is of this target"));
    }
    if let Some(bundle) = &evidence.sigstore {
        all.push(judged("record.sigstore.json", sigstore(bundle, &signed.envelope)));
    }
    all.extend(configurations(evidence, signed));
    all.push(match &evidence.request {
        Some(bytes) => judged("request", request(bytes, evidence, signed)),
        None => finding(Level::Open, "request", "not given (--request)"),
    });
    if let Some(bytes) = &evidence.claim {
        all.push(match claim(bytes, signed) {
            Ok(text) => finding(Level::Open, "claim", format!("fits: {text}; a claim is not signed")),
            Err(text) => finding(Level::NotProved, "claim", text),
        });
    }
    all.push(match (&evidence.transcript[..], keys) {
        ([], _) => finding(Level::Open, "transcript", "not given (--transcript)"),
        (objects, Keys::Pinned(pins)) => judged("transcript", transcript(objects, evidence, signed, &pins.target)),
        (objects, Keys::Bare(key)) => judged("transcript", transcript(objects, evidence, signed, key)),
    });
    all.push(finding(
        Level::Open,
        "beyond this",
        "what the tool did in the account (CloudTrail has its calls, by the deployment id as session name), the times, which are the runner's clock, and that no evidence was removed",
    ));
    all
}

/// Whether the right key signed: the target key for a runner's record, the answer key for a
/// launcher's.
fn signature(signed: &Signed, keys: &Keys) -> Result<String, String> {
    fn by<P: Predicate>(key: &PublicKey, envelope: &Envelope) -> Result<(), String> {
        let key = SingleKey::new(key).map_err(|error| error.to_string())?;
        key.verify::<Record<P>>(envelope).map(|_| ()).map_err(|error| error.to_string())
    }
    let (name, key, result) = match (&signed.statement, keys) {
        (Statement::Runner(_), Keys::Pinned(pins)) => {
            ("the pinned target key", &pins.target, by::<Deployment>(&pins.target, &signed.envelope))
        }
        (Statement::Launcher(_), Keys::Pinned(pins)) => {
            ("the pinned answer key", &pins.answer, by::<Unfinished>(&pins.answer, &signed.envelope))
        }
        (Statement::Runner(_), Keys::Bare(key)) => ("the given key", key, by::<Deployment>(key, &signed.envelope)),
        (Statement::Launcher(_), Keys::Bare(key)) => ("the given key", key, by::<Unfinished>(key, &signed.envelope)),
    };
    result
        .map(|()| format!("signed by {name}, id {}", key.key_id()))
        .map_err(|problem| format!("{name} has not signed it: {problem}"))
}

/// What the record says, in one line. It is as good as its signature.
fn summary(signed: &Signed) -> Finding {
    let text = match &signed.statement {
        Statement::Runner(record) => {
            let it = &record.predicate;
            let how = match &it.outcome {
                Outcome::Exited { code, .. } => format!("the tool exited with {code}"),
                Outcome::Ended { reason, message } => format!("ended by relay: {message} ({reason})"),
            };
            let steps: Vec<&str> = it.steps.iter().map(|step| step.name.as_str()).collect();
            format!("{} of {} ran {} and {how}, at {}", it.deployment_id, it.target, list(&steps), it.finished_at)
        }
        Statement::Launcher(record) => {
            let it = &record.predicate;
            let outcome = format!("{:?}", it.outcome).to_lowercase();
            format!(
                "{} of {}: {outcome}: {} ({}), at {}",
                it.deployment_id, it.target, it.message, it.reason, it.recorded_at
            )
        }
    };
    finding(Level::Open, "it says", text)
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

fn roots(configuration: &[u8]) -> Option<TrustRoots> {
    let Signers { signers } = toml::from_str(std::str::from_utf8(configuration).ok()?).ok()?;
    let trusted = |signer: Signer| {
        let key = signer.key?;
        let name = signer.name.unwrap_or_else(|| key.key_id());
        Some(TrustedSigner {
            proof: TrustedSigner::by_key(key).ok()?,
            kind: SignerKind::Ci,
            name,
            groups: std::collections::BTreeSet::new(),
            ci_accounts: Vec::new(),
        })
    };
    Some(TrustRoots::new(signers.into_iter().filter_map(trusted).collect()))
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
    let roots = roots(configuration).ok_or("is the one of the record, but the configuration has no signers")?;
    let verified =
        roots.verify::<Request>(&bundle.request, &IssuerKeys::default()).map_err(|error| error.to_string())?;
    let names: Vec<&str> = verified.signers().iter().map(|signer| signer.name.as_str()).collect();
    Ok(format!("is the one of the record, {digest}; signed by {}", list(&names)))
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
    target_key: &PublicKey,
) -> Result<String, String> {
    let id = signed.about().deployment_id.clone();
    let authenticator = Authenticator::archived(id, target_key.clone(), Cached::default());
    let now = Duration::ZERO;
    let mut inbox = Inbox::new(authenticator, Start::Fresh, Timeouts::default(), now, Timestamp::from_unix(0));
    let mut vouch = None;
    for (token, frame) in objects.iter().flat_map(|object| frames(object)).enumerate() {
        let frame = frame.map_err(|error| format!("a line is not a frame: {error}"))?;
        // Once the runner key is fixed, a reader does not examine a vouch. An auditor does.
        if frame.vouch.is_some() && *vouch.get_or_insert_with(|| frame.vouch.clone()) != frame.vouch {
            return Err("has two different vouches".to_owned());
        }
        inbox.handle(now, token as u64, frame);
        while let Some(event) = inbox.poll_event() {
            if let Event::Gap(_) = event {
                return Err("has a damaged frame".to_owned());
            }
        }
        if let Some(mark) = inbox.polled() {
            inbox.written(mark);
        }
        drop(inbox.take_deletable());
    }
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
