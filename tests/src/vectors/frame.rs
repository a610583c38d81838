//! Vectors of frames and vouches: which frames are authentic, and which output can be unfolded.

mod outputs;
mod vouches;

use relay_protocol::frame::{Chunk, Chunks, LAUNCHER_FRAME_TYPE, Offsets, RUNNER_FRAME_TYPE, Stream};
use relay_protocol::{Digest, SignedFrame, Statement as _, Vouch, encoding};

use super::keys::{self, Key};
use super::request::{self, Payload, text};
use super::{Body, Cases, Vector};

const TASK: &str = "arn:aws:ecs:eu-west-1:222222222222:task/relay/0123456789abcdef0123456789abcdef";

fn vouch() -> Payload {
    Payload::of(&[
        ("deployment_id", text(&request::id())),
        ("request_digest", text(&request::digest())),
        ("task_arn", text(TASK)),
        ("runner_key", text(&keys::runner().public())),
    ])
}

fn vouched(vouch: &Payload, key: &Key) -> String {
    keys::envelope(Vouch::TYPE, vouch.json(), &[key]).to_json()
}

fn other_id() -> String {
    relay_protocol::DeploymentId::new(1_780_315_200_000, [8; 10]).to_string()
}

/// A reader that has pinned the target key and already has a vouch.
fn base() -> Vector {
    Vector {
        deployment_id: request::id(),
        request_digest: request::digest(),
        body_sha256: request::body_sha256(),
        target_key: Some(keys::target().public()),
        answer_key: Some(keys::answer().public()),
        hints: Some(request::hints()),
        runner_key: Some(keys::runner().public()),
        ..Vector::default()
    }
}

/// A reader that has no vouch yet.
fn fresh() -> Vector {
    base().but(|v| v.runner_key = None)
}

fn runner(vector: Vector, body: String) -> Vector {
    let sig = keys::runner().detached(RUNNER_FRAME_TYPE, &body);
    vector.body(body).but(|v| (v.from, v.sig) = (Some("runner".into()), Some(sig)))
}

fn launcher(vector: Vector, body: String) -> Vector {
    let sig = keys::answer().detached(LAUNCHER_FRAME_TYPE, &body);
    vector.body(body).but(|v| (v.from, v.sig) = (Some("launcher".into()), Some(sig)))
}

fn frame(kind: &str, members: &str) -> String {
    format!(r#"{{"deployment_id":"{}","seq":3,"kind":"{kind}"{members}}}"#, request::id())
}

fn started() -> String {
    frame(
        "started",
        &format!(r#","task_arn":"{TASK}","steps":["plan","apply"],"deadline":"2026-06-01T13:00:00Z","grace":120"#),
    )
    .replace("\"seq\":3", "\"seq\":0")
}

fn heartbeat() -> String {
    frame("heartbeat", r#","elapsed_ms":15000"#)
}

/// A frame that fixes the runner key for a reader: the runner signed it, and it carries the target
/// key's vouch.
pub(super) fn by_the_runner() -> SignedFrame {
    let body = heartbeat();
    SignedFrame {
        from: "runner".to_owned(),
        sig: keys::runner().detached(RUNNER_FRAME_TYPE, &body),
        vouch: Some(vouched(&vouch(), &keys::target())),
        body,
    }
}

fn refused(digest: &str) -> String {
    format!(
        r#"{{"deployment_id":"{}","kind":"refused","request_digest":"{digest}","reason":"policy","message":"no policy allows it"}}"#,
        request::id()
    )
}

pub(super) fn cases() -> Cases {
    let mut all = accepted();
    all.extend(strict());
    all.extend(senders());
    all.extend(dry_runs());
    all.extend(vouches::vouches());
    all.extend(outputs::forms());
    all.extend(outputs::outputs());
    all
}

fn accepted() -> Cases {
    let ok = |clause: &str, comment: &str, body: String| runner(base().odd(clause, "ok", comment), body);
    let empty = Digest::of(b"");
    let finished = |outcome: &str| {
        frame(
            "finished",
            &format!(
                r#","outcome":{outcome},"step":"apply","frames":4,"stdout":{{"bytes":0,"sha256":"{empty}"}},"stderr":{{"bytes":0,"sha256":"{empty}"}},"outputs":{{"url":"https://example.com/"}},"record_sha256":"{empty}""#
            ),
        )
    };
    let said = |clause: &str, comment: &str, body: String| launcher(base().odd(clause, "ok", comment), body);
    let admitted = refused(&request::digest()).replace("refused", "admitted").replace(
        r#""reason":"policy","message":"no policy allows it""#,
        &format!(r#""task_arn":"{TASK}","deadline":"2026-06-01T13:00:00Z","policies":["policy0"]"#),
    );
    let unverified = |sha256: &str| {
        format!(
            r#"{{"deployment_id":"{}","kind":"unverified","body_sha256":"{sha256}","target":"payments/production","ci_account":"111111111111"}}"#,
            request::id()
        )
    };
    vec![
        (
            "started-with-vouch",
            runner(fresh().odd("VCH-1, VCH-2, FRM-5", "ok", "The first frame, with its vouch."), started())
                .but(|v| v.vouch = Some(vouched(&vouch(), &keys::target()))),
        ),
        ("heartbeat", ok("FRM-4, FRM-5", "The runner key is known; no vouch is needed.", heartbeat())),
        ("step", ok("FRM-5", "A step begins; `rollback` is absent.", frame("step", r#","index":0,"name":"plan""#))),
        ("note", ok("FRM-5", "Relay's own words.", frame("note", r#","text":"the reply queue is gone""#))),
        ("finished-exited", ok("OUT-1", "The tool ended with code 0.", finished(r#"{"exited":{"code":0}}"#))),
        (
            "finished-by-signal",
            ok("OUT-1", "The tool ended by signal 9.", finished(r#"{"exited":{"code":137,"signal":9}}"#)),
        ),
        (
            "finished-ended",
            ok("OUT-1, OUT-2", "Relay ended it.", finished(r#"{"ended":{"reason":"timed_out","message":"45m00s"}}"#)),
        ),
        (
            "finished-of-unknown-reason",
            runner(
                base().odd("OUT-2", "malformed-frame", "A reason that nobody knows."),
                finished(r#"{"ended":{"reason":"bored","message":""}}"#),
            ),
        ),
        ("admitted", said("FRM-6", "Admitted by the launcher.", admitted)),
        ("refused", said("FRM-6", "Refused by the launcher.", refused(&request::digest()))),
        (
            "unverified",
            said(
                "FRM-18",
                "The launcher could not verify the body that this reader sent.",
                unverified(&request::body_sha256()),
            ),
        ),
        (
            "unverified-of-another-body",
            said(
                "FRM-18",
                "The launcher could not verify a body that somebody else sent.",
                unverified(&"0".repeat(64)),
            )
            .but(|v| v.expect = "wrong-request".into()),
        ),
        (
            "unverified-of-another-target",
            said(
                "FRM-18",
                "Somebody published this reader's body with another target among the hints.",
                unverified(&request::body_sha256()).replace("payments/production", "payments/staging"),
            )
            .but(|v| v.expect = "wrong-request".into()),
        ),
        (
            "unverified-of-another-account",
            said(
                "FRM-18",
                "Somebody published this reader's body with another account among the hints.",
                unverified(&request::body_sha256()).replace("111111111111", "999999999999"),
            )
            .but(|v| v.expect = "wrong-request".into()),
        ),
        (
            "finished-with-a-problem",
            ok(
                "FRM-20",
                "The record could not be signed.",
                finished(r#"{"exited":{"code":0}}"#).replace(
                    r#""outputs""#,
                    r#""record_problem":"the record is not signed: kms:Sign: AccessDenied","outputs""#,
                ),
            ),
        ),
        (
            "finished-without-a-digest-of-the-record",
            runner(
                base().odd("FRM-20", "malformed-frame", "`record_sha256` is absent."),
                finished(r#"{"exited":{"code":0}}"#).replace(&format!(r#","record_sha256":"{empty}""#), ""),
            ),
        ),
        (
            "unknown-kind",
            runner(
                base().odd("VER-3", "ignored", "A kind that a later version may have."),
                frame("progress", r#","percent":[1,{}]"#),
            ),
        ),
        (
            "unknown-launcher-kind",
            launcher(
                base().odd("VER-3", "ignored", "A kind that a later version may have."),
                format!(r#"{{"deployment_id":"{}","kind":"queued"}}"#, request::id()),
            ),
        ),
        (
            "unknown-launcher-kind-of-another-request",
            launcher(
                base().odd(
                    "VER-3, FRM-1",
                    "ignored",
                    "A kind that nobody knows, whose other members are not examined.",
                ),
                format!(
                    r#"{{"deployment_id":"{}","kind":"queued","request_digest":"{}"}}"#,
                    request::id(),
                    "0".repeat(64)
                ),
            ),
        ),
        (
            "unknown-member",
            ok(
                "VER-3, ENV-2",
                "Members that a later version may have.",
                frame("heartbeat", r#","elapsed_ms":1,"load":[0.5],"memory":{"rss":1}"#),
            ),
        ),
    ]
}

/// Bodies that are ambiguous, or that one parser would accept and another reject.
fn strict() -> Cases {
    let odd = |clause: &str, comment: &str, body: String| runner(base().odd(clause, "malformed-frame", comment), body);
    let beat = |member: &str| frame("heartbeat", &format!(r#","elapsed_ms":1{member}"#));
    let nested = |levels: usize| format!(r#","later":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    let empty = Digest::of(b"");
    let stream = format!(r#"{{"bytes":0,"sha256":"{empty}"}}"#);
    let finished = |outcome: &str, stream: &str, rest: &str| {
        frame(
            "finished",
            &format!(
                r#","outcome":{outcome},"frames":4,"stdout":{stream},"stderr":{stream},"record_sha256":"{empty}"{rest}"#
            ),
        )
    };
    let (exited, outputs) = (r#"{"exited":{"code":0}}"#, r#","outputs":{}"#);
    let chunk = r#"{"stream":"stdout","ms":1,"text":"x"}"#;
    let output = |offset: &str, chunk: &str| frame("output", &format!(r#","offset":{offset},"chunks":[{chunk}]"#));
    let offset = r#"{"stdout":0,"stderr":0}"#;
    vec![
        (
            "unknown-member-twice",
            odd("ENC-5, VER-3", "A member that nobody knows stands twice.", beat(r#","later":1,"later":2"#)),
        ),
        (
            "unknown-member-with-a-member-twice",
            odd(
                "ENC-5, VER-3",
                "In a member that nobody knows, one stands twice.",
                beat(r#","later":[{"a":1,"a":1}]"#),
            ),
        ),
        (
            "unknown-member-beyond-a-double",
            odd("ENC-5, VER-3", "A member that nobody knows, 1e400.", beat(r#","later":1e400"#)),
        ),
        (
            "unknown-member-with-half-a-character",
            odd(
                "ENC-5, VER-3",
                "A member that nobody knows, with an unpaired surrogate.",
                beat(r#","later":"\ud800""#),
            ),
        ),
        (
            "unknown-member-of-126-levels",
            runner(base().odd("ENC-5, VER-3", "ok", "With the frame itself 127 levels, the most."), beat(&nested(126))),
        ),
        ("unknown-member-of-127-levels", odd("ENC-5, VER-3", "With the frame itself 128 levels.", beat(&nested(127)))),
        (
            "unknown-kind-with-a-member-twice",
            odd("ENC-5, VER-3", "A kind that nobody knows, malformed all the same.", frame("later", r#","a":1,"a":2"#)),
        ),
        (
            "optional-members-null",
            runner(
                base().odd("ENC-6", "ok", "Optional members are null, which means absent."),
                finished(
                    r#"{"exited":{"code":0,"signal":null}}"#,
                    &stream,
                    r#","outputs":{},"step":null,"record":null,"record_problem":null"#,
                ),
            ),
        ),
        (
            "rollback-null",
            runner(
                base().odd("ENC-6", "ok", "`rollback` is null, which means absent."),
                frame("step", r#","index":0,"name":"plan","rollback":null"#),
            ),
        ),
        (
            "output-name-twice",
            odd(
                "ENC-5, FRM-14",
                "Two outputs of one name.",
                finished(exited, &stream, r#","outputs":{"url":"a","url":"b"}"#),
            ),
        ),
        ("frame-as-array", odd("ENC-6", "The members' values in an array.", r#"["heartbeat",3,1]"#.into())),
        ("offset-as-array", odd("ENC-6", "The offset's values in an array.", output("[0,0]", chunk))),
        ("chunk-as-array", odd("ENC-6", "A chunk's values in an array.", output(offset, r#"["stdout",1,"x"]"#))),
        (
            "stream-as-object",
            odd(
                "ENC-6",
                "A stream's name as the name of a member.",
                output(offset, &chunk.replace(r#""stdout""#, r#"{"stdout":null}"#)),
            ),
        ),
        (
            "stream-digest-as-array",
            odd(
                "ENC-6",
                "Length and digest of a stream in an array.",
                finished(exited, &format!(r#"[0,"{empty}"]"#), outputs),
            ),
        ),
        (
            "outcome-as-array",
            odd("ENC-6", "The outcome's values in an array.", finished(r#"{"exited":[0,null]}"#, &stream, outputs)),
        ),
        (
            "two-outcomes",
            odd(
                "ENC-6, OUT-1",
                "An outcome of two kinds.",
                finished(r#"{"exited":{"code":0},"ended":{"reason":"timed_out","message":""}}"#, &stream, outputs),
            ),
        ),
    ]
}

/// The reader has published a dry run.
fn dry_runs() -> Cases {
    let tried = |digest: &str| {
        format!(
            r#"{{"deployment_id":"{}","kind":"tried","request_digest":"{digest}","reason":"approval","message":"2 more","policies":[],"requesters":["ci"],"approvals_missing":2,"configuration_digest":"{}","revision":"arn:aws:ecs:eu-west-1:222222222222:task-definition/relay_payments_production:7","target_key_id":"{}"}}"#,
            request::id(),
            "1".repeat(64),
            keys::target().id(),
        )
    };
    let trying = |clause: &str, expect: &str, comment: &str| {
        base().odd(clause, expect, comment).but(|v| {
            v.stage = "try".into();
            v.request_digest = request::dry_run_digest();
            v.runner_key = None;
        })
    };
    let digest = request::dry_run_digest();
    let with_saved = |saved: &str| {
        let tried = tried(&digest);
        format!(r#"{},"saved":{saved}}}"#, tried.trim_end_matches('}'))
    };
    vec![
        ("tried", launcher(trying("DRY-2, DRY-3", "ok", "The answer to a dry run."), tried(&digest))),
        (
            "tried-with-a-saved-artifact",
            launcher(
                trying("ART-8, DRY-2", "ok", "The answer says who saved an artifact of the request."),
                with_saved(&format!(
                    r#"[{{"parameter":"plan","target":"payments/plan","location":"s3://relay/saved/payments/plan/x.tar.zst","deployment_id":"{}","requesters":["ci"],"exit_code":0,"finished_at":"2026-06-01T11:00:00Z"}}]"#,
                    request::id()
                )),
            ),
        ),
        (
            "tried-with-an-odd-saved-artifact",
            launcher(
                trying("ART-8, FRM-1", "malformed-frame", "What is said of a saved artifact lacks its target."),
                with_saved(r#"[{"parameter":"plan"}]"#),
            ),
        ),
        (
            "tried-of-another-dry-run",
            launcher(
                trying("DRY-3, FRM-18", "wrong-request", "The answer to another dry run."),
                tried(&"0".repeat(64)),
            ),
        ),
        (
            "tried-for-a-request",
            launcher(
                base().odd(
                    "DRY-3",
                    "wrong-request",
                    "The answer to a dry run, and the reader has published a request.",
                ),
                tried(&request::digest()),
            ),
        ),
        (
            "refused-for-a-dry-run",
            launcher(
                trying("DRY-3", "wrong-request", "A refusal, and the reader has published a dry run."),
                refused(&digest),
            ),
        ),
        (
            "unknown-kind-for-a-dry-run",
            launcher(
                trying("VER-3, DRY-3", "ignored", "A kind that a later version may have, for a dry run."),
                refused(&digest).replace("\"refused\"", "\"considered\""),
            ),
        ),
        (
            "started-for-a-dry-run",
            runner(
                trying("DRY-3", "wrong-request", "A runner's frame, and the reader has published a dry run."),
                started(),
            )
            .but(|v| v.vouch = Some(vouched(&vouch(), &keys::target()))),
        ),
    ]
}

fn senders() -> Cases {
    let bad = |clause: &str, comment: &str, vector: Vector| vector.odd(clause, "bad-frame-signature", comment);
    let by = |key: &Key, payload_type: &str, from: &str, body: String| {
        let sig = key.detached(payload_type, &body);
        base().body(body).but(|v| (v.from, v.sig) = (Some(from.into()), Some(sig)))
    };
    let heart = || runner(base(), heartbeat());
    let url_safe = |sig: &str| sig.replace('+', "-").replace('/', "_");
    // A body whose signature has a character in which the base64 alphabets differ.
    let differs = (0..64)
        .map(|ms| runner(base(), frame("heartbeat", &format!(r#","elapsed_ms":{ms}"#))))
        .find(|v| v.sig.as_deref().is_some_and(|sig| sig.contains(['+', '/'])))
        .unwrap();
    vec![
        (
            "runner-frame-by-the-target-key",
            bad(
                "FRM-5",
                "A runner frame signed by the target key.",
                by(&keys::target(), RUNNER_FRAME_TYPE, "runner", heartbeat()),
            ),
        ),
        (
            "launcher-frame-by-the-runner-key",
            bad(
                "FRM-6",
                "A refusal signed by the runner key.",
                by(&keys::runner(), LAUNCHER_FRAME_TYPE, "launcher", refused(&request::digest())),
            ),
        ),
        (
            "runner-frame-by-a-stranger",
            bad(
                "FRM-5",
                "A frame by somebody who can write to the queue.",
                by(&keys::stranger(), RUNNER_FRAME_TYPE, "runner", heartbeat()),
            ),
        ),
        (
            "runner-frame-by-the-session-key",
            bad(
                "FRM-5",
                "A frame by the CLI's own session key.",
                by(&keys::session(), RUNNER_FRAME_TYPE, "runner", heartbeat()),
            ),
        ),
        (
            "launcher-frame-by-the-target-key",
            bad(
                "FRM-6",
                "A refusal signed by the target key, which signs no launcher frames.",
                by(&keys::target(), LAUNCHER_FRAME_TYPE, "launcher", refused(&request::digest())),
            ),
        ),
        (
            "launcher-frame-of-the-runner-type",
            bad(
                "FRM-4",
                "Signed by the answer key, but as a runner frame.",
                by(&keys::answer(), RUNNER_FRAME_TYPE, "launcher", refused(&request::digest())),
            ),
        ),
        (
            "runner-frame-presented-as-the-launchers",
            bad(
                "FRM-4, FRM-6",
                "A good runner frame whose `from` was changed.",
                heart().but(|v| v.from = Some("launcher".into())),
            ),
        ),
        (
            "body-changed",
            bad("FRM-4", "A byte of the body was changed after signing.", heart())
                .body(heartbeat().replace("15000", "15001")),
        ),
        (
            "body-with-white-space",
            bad("FRM-4", "The same JSON, laid out otherwise.", heart()).body(heartbeat().replace(',', ", ")),
        ),
        ("no-sig", bad("FRM-4", "No attribute `sig`.", heart()).but(|v| v.sig = None)),
        (
            "sig-url-safe",
            bad("FRM-4, ENC-1", "A good signature in the URL-safe alphabet, which frames do not take.", differs)
                .but(|v| v.sig = v.sig.as_deref().map(url_safe)),
        ),
        (
            "launcher-frame-high-s",
            bad("SIG-2", "A launcher frame's signature with n − s.", launcher(base(), refused(&request::digest())))
                .but(|v| {
                    let sig = keys::answer()
                        .sign(&relay_protocol::pae(LAUNCHER_FRAME_TYPE, refused(&request::digest()).as_bytes()));
                    v.sig = Some(encoding::base64(&keys::with_high_s(&sig)));
                }),
        ),
        (
            "launcher-frame-without-a-pin",
            launcher(
                base().odd("VCH-5", "ok", "A launcher frame, and no keys are pinned: taken at its word."),
                refused(&request::digest()),
            )
            .but(|v| {
                v.sig = Some(keys::stranger().detached(LAUNCHER_FRAME_TYPE, &refused(&request::digest())));
                (v.target_key, v.answer_key) = (None, None);
            }),
        ),
        ("from-nobody", heart().odd("FRM-1", "unknown-sender", "No attribute `from`.").but(|v| v.from = None)),
        (
            "from-somebody-else",
            heart()
                .odd("FRM-1", "unknown-sender", "`from` is neither of the two.")
                .but(|v| v.from = Some("Runner".into())),
        ),
        (
            "of-another-deployment",
            runner(
                base().odd("FRM-18", "wrong-deployment", "The runner's word about another deployment."),
                heartbeat().replace(&request::id(), &other_id()),
            ),
        ),
        (
            "launcher-frame-of-another-deployment",
            launcher(
                base().odd("FRM-18", "wrong-deployment", "The launcher's word about another deployment."),
                refused(&request::digest()).replace(&request::id(), &other_id()),
            ),
        ),
        (
            "launcher-frame-of-another-request",
            launcher(
                base().odd("FRM-18", "wrong-request", "The launcher's word about another request of this id."),
                refused(&"0".repeat(64)),
            ),
        ),
    ]
}
