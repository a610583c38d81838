//! The verdict of relay's own code on a vector. It applies the pure functions of `relay-protocol`
//! and the engine's `Authenticator` in the order that `docs/protocol.md` demands.

use relay_engine::{Authentic, Authenticator, Pins, Published, Verdict};
use relay_protocol::claim::{Claim, Lock};
use relay_protocol::envelope::{EnvelopeError, Statement};
use relay_protocol::frame::{Chunks, LauncherKind, OutputError, RunnerKind, SignedFrame};
use relay_protocol::keys::{
    Cached, Issuer, IssuerKey, IssuerKeys, KnownSigner, Proof, SignerKind, SingleKey, TokenRule, TokenTimeError,
    TrustRoots, TrustedSigner,
};
use relay_protocol::ledger::LedgerEntry;
use relay_protocol::request::{Hints, RequestError, Stage};
use relay_protocol::summary::Summary;
use relay_protocol::{
    AccountId, Approval, Bundle, Control, DryRun, Envelope, LauncherFrame, Message, PublicKey, Request, RequestRef,
    RunnerFrame, Timestamp, Verified, VerifyError, Vouch, limits,
    record::{Record, Unfinished},
};

use super::{Entry, Named, Vector};

/// The output for an accepted input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// The digest of the PAE.
    pub digest: Option<String>,
    /// The canonical form.
    pub canonical: Option<String>,
    /// The signers' key ids, for a token.
    pub signers: Vec<String>,
}

/// The verdict on `vector`, whose directory under `vectors/` is `folder`.
///
/// # Errors
///
/// If the input is rejected: its failure class.
pub fn verdict(folder: &str, vector: &Vector) -> Result<Out, &'static str> {
    match folder {
        "envelope" => envelope(vector),
        "request" => request(vector),
        "approval" => approval(vector),
        "control" => control(vector),
        "frame" => frame(vector),
        "claim" => claim(vector),
        "token" => token(vector),
        _ => Err("no reader for this directory"),
    }
}

fn roots(vector: &Vector) -> Result<TrustRoots, &'static str> {
    let ci_accounts: Vec<AccountId> = vector.ci_accounts.iter().map(|text| text.parse().unwrap()).collect();
    let signer = |(at, key): (usize, &String)| {
        let key: PublicKey = key.parse().map_err(|_| "bad-key")?;
        Ok::<_, &str>(TrustedSigner {
            proof: TrustedSigner::by_key(key).map_err(|_| "bad-key")?,
            name: format!("signer-{at}"),
            kind: SignerKind::Person(format!("person-{at}")),
            groups: std::collections::BTreeSet::default(),
            ci_accounts: ci_accounts.clone(),
        })
    };
    Ok(TrustRoots::new(vector.keys.iter().enumerate().map(signer).collect::<Result<_, _>>()?))
}

fn unreadable(error: &EnvelopeError) -> &'static str {
    match error {
        EnvelopeError::TooLarge { .. } => "too-large",
        EnvelopeError::Json(_) | EnvelopeError::Base64 | EnvelopeError::Signatures | EnvelopeError::Approvals => {
            "malformed-envelope"
        }
    }
}

fn unbelieved(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::PayloadType { .. } => "payload-type",
        VerifyError::Unsigned => "unsigned",
        VerifyError::NoValidSignature { .. } => "no-valid-signature",
        VerifyError::TooLarge { .. } => "too-large",
        VerifyError::Malformed(_) => "malformed-payload",
    }
}

fn misplaced(error: &RequestError) -> &'static str {
    match error {
        RequestError::Expired { .. } => "expired",
        RequestError::NotYetValid { .. } => "not-yet-valid",
        RequestError::Lifetime { .. } => "lifetime",
        RequestError::Audience { .. } => "audience",
        RequestError::Target { .. } => "target",
        RequestError::Queue { .. } => "queue",
    }
}

/// The statement of the DSSE specification's own vector. Any payload of its type is accepted.
#[derive(Debug)]
struct HelloWorld;

impl Statement for HelloWorld {
    const TYPE: &'static str = "http://example.com/HelloWorld";
    fn parse(_: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self)
    }
}

fn envelope(vector: &Vector) -> Result<Out, &'static str> {
    fn verify<T: Statement>(envelope: &Envelope, roots: &TrustRoots) -> Result<Out, &'static str> {
        let verified: Verified<T, _> =
            roots.verify(envelope, &IssuerKeys::default()).map_err(|error| unbelieved(&error))?;
        let (digest, canonical) = (Some(verified.digest().to_string()), Some(verified.canonical().to_json()));
        Ok(Out { digest, canonical, ..Out::default() })
    }
    let roots = roots(vector)?;
    let limit = match vector.statement.as_str() {
        "record" | "launcher-record" | "summary" => 2 * limits::RECORD_MAX,
        "ledger-entry" => 2 * limits::LEDGER_ENTRY_MAX,
        _ => limits::BUNDLE_MAX,
    };
    let envelope = Envelope::parse(&vector.body.bytes(), limit).map_err(|error| unreadable(&error))?;
    match vector.statement.as_str() {
        "request" => verify::<Request>(&envelope, &roots),
        "approval" => verify::<Approval>(&envelope, &roots),
        "control" => verify::<Control>(&envelope, &roots),
        "vouch" => verify::<Vouch>(&envelope, &roots),
        "record" => verify::<Record>(&envelope, &roots),
        "launcher-record" => verify::<Record<Unfinished>>(&envelope, &roots),
        "summary" => verify::<Record<Summary>>(&envelope, &roots),
        "ledger-entry" => verify::<LedgerEntry>(&envelope, &roots),
        "dsse-example" => verify::<HelloWorld>(&envelope, &roots),
        _ => Err("no statement of this name"),
    }
}

fn request(vector: &Vector) -> Result<Out, &'static str> {
    let hints = match &vector.hints {
        Some(hints) => Some(Hints {
            target: hints.target.parse().map_err(|_| "hints")?,
            deployment_id: hints.deployment_id.parse().map_err(|_| "hints")?,
            ci_account: hints.ci_account.parse().map_err(|_| "hints")?,
        }),
        None => None,
    };
    let roots = roots(vector)?;
    let body = vector.body.bytes();
    let (bundle, stage) = match (vector.stage.as_str(), Message::parse(&body)) {
        ("run", _) => (Bundle::parse(&body).map_err(|error| unreadable(&error))?, Stage::Run),
        ("try", Ok(Message::DryRun(bundle))) => return dry_run(&roots, &bundle),
        (_, Ok(Message::Request(bundle))) => (bundle, Stage::Launch),
        (_, Ok(Message::Control(_) | Message::DryRun(_))) => return Err("malformed-envelope"),
        (_, Err(error)) => return Err(unreadable(&error)),
    };
    let verified =
        roots.verify::<Request>(&bundle.request, &IssuerKeys::default()).map_err(|error| unbelieved(&error))?;
    let request = verified.statement();
    if hints.is_some_and(|hints| !hints.agree_with(request)) {
        return Err("hints");
    }
    let odd = |error| misplaced(&error);
    request.check_place(&vector.audience.parse().unwrap(), &vector.target.parse().unwrap()).map_err(odd)?;
    request.check_time(vector.now.parse().unwrap(), stage).map_err(odd)?;
    let accounts: Vec<AccountId> =
        verified.signers().iter().flat_map(|signer| signer.ci_accounts.iter().cloned()).collect();
    let fixed: Vec<_> = vector.fixed_queues.iter().map(|queue| queue.parse().unwrap()).collect();
    request.check_queues(&accounts, &fixed).map_err(odd)?;
    let approvals: Vec<_> = bundle
        .approvals
        .iter()
        .filter_map(|approval| roots.verify::<Approval>(approval, &IssuerKeys::default()).ok())
        .collect();
    let canonical = Bundle::canonical(&verified, &approvals).to_json();
    Ok(Out { digest: Some(verified.digest().to_string()), canonical: Some(canonical), ..Out::default() })
}

fn dry_run(roots: &TrustRoots, bundle: &Bundle) -> Result<Out, &'static str> {
    let verified =
        roots.verify::<DryRun>(&bundle.request, &IssuerKeys::default()).map_err(|error| unbelieved(&error))?;
    Ok(Out { digest: Some(verified.digest().to_string()), ..Out::default() })
}

fn token(vector: &Vector) -> Result<Out, &'static str> {
    fn verify<T: Statement>(
        envelope: &Envelope,
        roots: &TrustRoots,
        keys: &IssuerKeys,
    ) -> Result<(Verified<T, KnownSigner>, Out), &'static str> {
        let verified: Verified<T, _> = roots.verify(envelope, keys).map_err(|error| unbelieved(&error))?;
        let out = Out {
            digest: Some(verified.digest().to_string()),
            canonical: Some(verified.canonical().to_json()),
            signers: verified.signers().iter().map(|signer| signer.key_id.clone()).collect(),
        };
        Ok((verified, out))
    }
    let entry = |entry: &Entry| {
        let Named { name, url, algorithms } = entry.issuer.clone();
        let algorithms = algorithms.iter().map(|name| name.parse().unwrap()).collect();
        let claims = entry.claims.iter().map(|(name, values)| (name.clone(), values.iter().cloned().collect()));
        TrustedSigner {
            proof: Proof::Token(TokenRule { issuer: Issuer { name, url, algorithms }, claims: claims.collect() }),
            name: entry.name.clone(),
            kind: SignerKind::Ci,
            groups: std::collections::BTreeSet::default(),
            ci_accounts: Vec::new(),
        }
    };
    let mut signers = roots(vector)?.signers().to_vec();
    signers.extend(vector.entries.iter().map(entry));
    let roots = TrustRoots::new(signers);
    let keys = IssuerKeys::parse(vector.issuer_keys.as_bytes()).map_err(|_| "malformed-payload")?;
    let envelope = Envelope::parse(&vector.body.bytes(), limits::BUNDLE_MAX).map_err(|error| unreadable(&error))?;
    match vector.statement.as_str() {
        "approval" => verify::<Approval>(&envelope, &roots, &keys).map(|(_, out)| out),
        "control" => verify::<Control>(&envelope, &roots, &keys).map(|(_, out)| out),
        "dry-run" => verify::<DryRun>(&envelope, &roots, &keys).map(|(_, out)| out),
        _ => {
            let (verified, out) = verify::<Request>(&envelope, &roots, &keys)?;
            let stage = if vector.stage == "run" { Stage::Run } else { Stage::Launch };
            for token in verified.signers().iter().filter_map(|signer| signer.token.as_ref()) {
                let checked = token.times.check_request(verified.statement(), vector.now.parse().unwrap(), stage);
                checked.map_err(|error| match error {
                    TokenTimeError::NotYetValid { .. } => "not-yet-valid",
                    TokenTimeError::Outside { .. } | TokenTimeError::Expired { .. } => "expired",
                })?;
            }
            Ok(out)
        }
    }
}

fn approval(vector: &Vector) -> Result<Out, &'static str> {
    let request = Request::parse(vector.request.as_deref().unwrap().as_bytes()).unwrap();
    let envelope = Envelope::parse(&vector.body.bytes(), limits::BUNDLE_MAX).map_err(|error| unreadable(&error))?;
    let verified =
        roots(vector)?.verify::<Approval>(&envelope, &IssuerKeys::default()).map_err(|error| unbelieved(&error))?;
    let subject = request.subject(vector.configuration.parse().unwrap());
    let covers = subject.is_some_and(|subject| verified.statement().covers(subject, request.issued_at));
    if covers { Ok(Out::default()) } else { Err("not-covering") }
}

fn claim(vector: &Vector) -> Result<Out, &'static str> {
    let body = vector.body.bytes();
    let read = match vector.object.as_str() {
        "lock" => Lock::parse(&body).map(drop),
        "issuer-key" => IssuerKey::parse(&body).map(drop),
        "issuer-keys" => IssuerKeys::parse(&body).map(drop),
        "override" => RequestRef::parse(std::str::from_utf8(&body).map_err(|_| "malformed-payload")?).map(drop),
        _ => Claim::parse(&body).map(drop),
    };
    read.map(|()| Out::default()).map_err(|_| "malformed-payload")
}

fn control(vector: &Vector) -> Result<Out, &'static str> {
    let envelope = match Message::parse(&vector.body.bytes()).map_err(|error| unreadable(&error))? {
        Message::Control(envelope) => envelope,
        Message::Request(_) | Message::DryRun(_) => return Err("malformed-envelope"),
    };
    let by_session = match vector.session_key.as_deref().map(|key| SingleKey::new(&key.parse().unwrap())) {
        Some(Ok(key)) => key.verify::<Control>(&envelope).map(|verified| verified.statement().clone()),
        _ => Err(VerifyError::NoValidSignature { count: 0 }),
    };
    let control = match by_session {
        Err(VerifyError::NoValidSignature { .. }) => roots(vector)?
            .verify::<Control>(&envelope, &IssuerKeys::default())
            .map(|verified| verified.statement().clone()),
        decided => decided,
    };
    let control = control.map_err(|error| unbelieved(&error))?;
    let is_for = control.is_for(
        &vector.deployment_id.parse().unwrap(),
        vector.request_digest.parse().unwrap(),
        vector.now.parse().unwrap(),
    );
    if is_for { Ok(Out::default()) } else { Err("not-for-this-deployment") }
}

/// Judges the frame with the CLI's own [`Authenticator`], and unfolds its output with
/// [`Chunks::unfold`].
fn frame(vector: &Vector) -> Result<Out, &'static str> {
    let key = |text: &Option<String>| text.as_deref().map(|key| key.parse().unwrap());
    let pins = key(&vector.target_key).zip(key(&vector.answer_key));
    let hints = vector.hints.as_ref().unwrap();
    let published = Published {
        hints: Hints {
            target: hints.target.parse().unwrap(),
            deployment_id: vector.deployment_id.parse().unwrap(),
            ci_account: hints.ci_account.parse().unwrap(),
        },
        request: vector.request_digest.parse().unwrap(),
        body: vector.body_sha256.parse().unwrap(),
        dry_run: vector.stage == "try",
    };
    let pins = pins.map(|(target, answer)| Pins { target: vec![target], answer: vec![answer] });
    let mut reader = Authenticator::new(published, pins, Cached::default());
    if let Some(key) = &vector.runner_key {
        let earlier = reader.judge(super::frame::by_the_runner());
        assert!(matches!(earlier, Verdict::Authentic(_)), "{earlier:?}");
        assert_eq!(reader.vouch().map(|vouch| vouch.runner_key.to_string()).as_ref(), Some(key));
    }
    let frame = SignedFrame {
        from: vector.from.clone().unwrap_or_default(),
        sig: vector.sig.clone().unwrap_or_default(),
        vouch: vector.vouch.clone(),
        body: String::from_utf8(vector.body.bytes()).map_err(|_| "malformed-frame")?,
    };
    match reader.judge(frame) {
        Verdict::NotYet(_) => Err("no-vouch"),
        Verdict::Rejected(rejected) => Err(rejected.class()),
        Verdict::Authentic(authentic) => match *authentic {
            Authentic::Runner(RunnerFrame { kind: RunnerKind::Unknown, .. })
            | Authentic::Launcher(LauncherFrame { kind: LauncherKind::Unknown, .. }) => Err("ignored"),
            Authentic::Runner(RunnerFrame { kind: RunnerKind::Output(chunks), .. }) => unfold(*chunks),
            _ => Ok(Out::default()),
        },
    }
}

fn unfold(chunks: Chunks) -> Result<Out, &'static str> {
    chunks.unfold().map(|_| Out::default()).map_err(|error| match error {
        OutputError::Form => "output-form",
        OutputError::Packed => "output-packed",
        OutputError::Sizes => "output-sizes",
        OutputError::TooLarge => "output-too-large",
    })
}

/// A timestamp that is `plus` seconds after `text`, as text.
pub(super) fn moment(text: &str, plus: i64) -> String {
    text.parse::<Timestamp>().unwrap().plus(plus).to_string()
}
