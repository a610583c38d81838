//! Vectors of the request: the bundle, the form of the payload, its times and its place.

mod forms;
mod place;

use relay_protocol::{DeploymentId, Digest, Envelope, Statement as _, encoding};

use super::keys::{self, Key};
use super::{Body, Cases, Hints, Vector, verdict};

pub(super) const TYPE: &str = relay_protocol::Request::TYPE;
pub(super) const ISSUED: &str = "2026-06-01T12:00:00Z";
const EXPIRES: &str = "2026-06-01T12:15:00Z";
const NOW: &str = "2026-06-01T12:05:00Z";
const AUDIENCE: &str = "arn:aws:sns:eu-west-1:222222222222:relay";
const ACCOUNT: &str = "111111111111";
const TARGET: &str = "payments/production";

/// The deployment id of all vectors.
pub(super) fn id() -> String {
    DeploymentId::new(1_780_315_200_000, [7; 10]).to_string()
}

/// A deployment id whose time is this many seconds after `issued_at`.
fn id_of(seconds: i64) -> String {
    let millis = u64::try_from(1_780_315_200 + seconds).unwrap() * 1_000;
    DeploymentId::new(millis, [7; 10]).to_string()
}

fn reply_of(seconds: i64) -> String {
    queue("eu-west-1", ACCOUNT, &format!("relay-{}-reply", id_of(seconds)))
}

fn queue(region: &str, account: &str, name: &str) -> String {
    format!("https://sqs.{region}.amazonaws.com/{account}/{name}")
}

fn reply() -> String {
    queue("eu-west-1", ACCOUNT, &format!("relay-{}-reply", id()))
}

/// A payload as an ordered list of members, each with its JSON text, so that a vector can malform
/// it.
#[derive(Clone)]
pub(super) struct Payload(Vec<(String, String)>);

impl Payload {
    pub(super) fn of(members: &[(&str, String)]) -> Self {
        Self(members.iter().map(|(name, json)| ((*name).to_owned(), json.clone())).collect())
    }

    /// Sets the member `name` to `json`, in its place or at the end.
    pub(super) fn with(mut self, name: &str, json: impl Into<String>) -> Self {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = json.into(),
            None => self.0.push((name.to_owned(), json.into())),
        }
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    pub(super) fn json(&self) -> String {
        let members: Vec<String> = self.0.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
        format!("{{{}}}", members.join(","))
    }

    /// The values without their names, as a JSON array.
    pub(super) fn array(&self) -> String {
        let values: Vec<&str> = self.0.iter().map(|(_, json)| json.as_str()).collect();
        format!("[{}]", values.join(","))
    }
}

pub(super) fn text(text: &str) -> String {
    format!("\"{text}\"")
}

/// A valid request with a ticket, so that it can be approved.
pub(super) fn approvable() -> Payload {
    good().with("ticket", text("0123456789abcdef0123456789abcdef"))
}

/// A valid request.
pub(super) fn good() -> Payload {
    Payload::of(&[
        ("deployment_id", text(&id())),
        ("audience", text(AUDIENCE)),
        ("target", text(TARGET)),
        ("parameters", r#"{"image":"sha256:6f1e","note":"a \"b\" é"}"#.into()),
        ("reply_queue", text(&reply())),
        ("control_queue", text(&queue("eu-west-1", ACCOUNT, &format!("relay-{}-control", id())))),
        ("session_key", text(&keys::session().public())),
        ("issued_at", text(ISSUED)),
        ("expires_at", text(EXPIRES)),
        ("origin", r#"{"system":"github","commit":"0123abc"}"#.into()),
        ("traceparent", text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    ])
}

/// The digest of the good request.
pub(super) fn digest() -> String {
    Envelope::new(TYPE, good().json().into_bytes()).digest().to_string()
}

pub(super) fn bundle(request: &Envelope, approvals: &[Envelope]) -> String {
    let approvals: Vec<String> = approvals.iter().map(Envelope::to_json).collect();
    format!("{{\"request\":{},\"approvals\":[{}]}}", request.to_json(), approvals.join(","))
}

fn signed(payload: &Payload) -> String {
    bundle(&keys::envelope(TYPE, payload.json(), &[&keys::ci()]), &[])
}

pub(super) fn hints() -> Hints {
    Hints { target: TARGET.into(), deployment_id: id(), ci_account: ACCOUNT.into() }
}

fn base() -> Vector {
    Vector {
        keys: vec![keys::ci().public(), keys::second().public()],
        hints: Some(hints()),
        stage: "launch".into(),
        now: NOW.into(),
        audience: AUDIENCE.into(),
        target: TARGET.into(),
        ci_accounts: vec![ACCOUNT.into()],
        ..Vector::default()
    }
    .body(signed(&good()))
}

pub(super) fn cases() -> Cases {
    let mut all = accepted();
    all.extend(dry_runs());
    all.extend(forms::bundles());
    all.extend(forms::forms());
    all.extend(forms::names());
    all.extend(place::hints_and_place());
    all.extend(place::times());
    all.extend(place::queues());
    all
}

/// An approval of the good request, signed by `key` and issued at `issued`.
fn approved(issued: &str, key: &Key) -> Envelope {
    keys::envelope(super::approval::TYPE, super::approval::good(issued).json(), &[key])
}

fn accepted() -> Cases {
    let with = |comment: &str, clause: &str, vector: Vector| vector.odd(clause, "ok", comment);
    let unfold = |vector: Vector| {
        let out = verdict("request", &vector).expect("an accepted request");
        vector.but(|v| (v.digest, v.canonical) = (out.digest, out.canonical))
    };
    let request = keys::envelope(TYPE, good().json(), &[&keys::ci()]);
    let late = approved("2026-06-01T11:00:00Z", &keys::second());
    let early = approved("2026-06-01T10:00:00Z", &keys::second());
    let unknown = approved("2026-06-01T11:00:00Z", &keys::stranger());
    let approvals = base().body(bundle(&request, &[late, unknown, early]));
    let minimal = good().without("control_queue").without("origin").without("traceparent");
    let null = good().with("control_queue", "null").with("traceparent", "null").with("origin", "null");
    vec![
        ("good", unfold(with("Nothing is odd.", "ENV-10, BUN-1, REQ-1", base()))),
        ("good-minimal", with("All optional members are absent.", "REQ-1, REQ-8", base().body(signed(&minimal)))),
        (
            "optional-members-null",
            with("Optional members are null, which means absent.", "ENC-6", base().body(signed(&null))),
        ),
        (
            "approvals-sorted-and-reduced",
            unfold(with(
                "Three approvals, one by a stranger, in no order: the canonical form sorts them and leaves that one out.",
                "BUN-3, APP-1",
                approvals,
            )),
        ),
        (
            "id-of-another-time",
            base()
                .body(signed(
                    &good()
                        .with("deployment_id", text(&id_of(-61)))
                        .with("reply_queue", text(&reply_of(-61)))
                        .without("control_queue"),
                ))
                .odd("REQ-16", "malformed-payload", "The time in the deployment id is 61 s before `issued_at`.")
                .but(|v| v.hints = Some(Hints { deployment_id: id_of(-61), ..hints() })),
        ),
        (
            "id-of-nearly-the-same-time",
            base()
                .body(signed(
                    &good()
                        .with("deployment_id", text(&id_of(60)))
                        .with("reply_queue", text(&reply_of(60)))
                        .without("control_queue"),
                ))
                .odd("REQ-16", "ok", "The time in the deployment id is 60 s after `issued_at`.")
                .but(|v| v.hints = Some(Hints { deployment_id: id_of(60), ..hints() })),
        ),
        (
            "session-key-is-no-key",
            base().body(signed(&good().with("session_key", "\"AAAA\""))).odd(
                "REQ-11",
                "malformed-payload",
                "The session key is base64 of something else than an Ed25519 key.",
            ),
        ),
    ]
}

/// The envelope of a dry run about the good request.
fn dry_run(key: &Key) -> Envelope {
    keys::envelope(relay_protocol::DryRun::TYPE, good().json(), &[key])
}

/// The digest of the dry run about the good request.
pub(super) fn dry_run_digest() -> String {
    dry_run(&keys::ci()).digest().to_string()
}

fn dry_runs() -> Cases {
    let trying = |clause: &str, expect: &str, comment: &str, body: String| {
        base().odd(clause, expect, comment).but(|v| v.stage = "try".into()).body(body)
    };
    let body = |envelope: &Envelope| relay_protocol::Message::dry_run_json(envelope, &[]);
    let json = dry_run(&keys::ci()).to_json();
    vec![
        (
            "dry-run",
            trying("DRY-1", "ok", "A dry run.", body(&dry_run(&keys::ci()))).but(|v| v.digest = Some(dry_run_digest())),
        ),
        (
            "dry-run-by-a-stranger",
            trying("DRY-1", "no-valid-signature", "A dry run by an unknown key.", body(&dry_run(&keys::stranger()))),
        ),
        (
            "request-as-dry-run",
            trying(
                "DRY-1, ENV-4",
                "payload-type",
                "A signed request in the place of a dry run.",
                body(&keys::envelope(TYPE, good().json(), &[&keys::ci()])),
            ),
        ),
        (
            "dry-run-as-request",
            base()
                .odd("DRY-1, ENV-4", "payload-type", "A signed dry run in the place of a request.")
                .body(bundle(&dry_run(&keys::ci()), &[])),
        ),
        (
            "dry-run-as-request-to-the-runner",
            base()
                .odd("DRY-1, ENV-4", "payload-type", "The same, to the runner.")
                .but(|v| v.stage = "run".into())
                .body(bundle(&dry_run(&keys::ci()), &[])),
        ),
        (
            "dry-run-to-the-runner",
            base()
                .odd("DRY-1, BUN-2", "malformed-envelope", "The runner has no reader for a dry run.")
                .but(|v| v.stage = "run".into())
                .body(body(&dry_run(&keys::ci()))),
        ),
        (
            "dry-run-beside-a-request",
            trying(
                "BUN-2",
                "malformed-envelope",
                "A dry run and a request in one bundle.",
                format!(r#"{{"dry_run":{json},"request":{json},"approvals":[]}}"#),
            ),
        ),
        (
            "dry-run-without-approvals",
            trying("BUN-2", "malformed-envelope", "`approvals` is absent.", format!(r#"{{"dry_run":{json}}}"#)),
        ),
    ]
}

/// The SHA-256 of the SNS body of the good request.
pub(super) fn body_sha256() -> String {
    Digest::of(signed(&good()).as_bytes()).to_string()
}
