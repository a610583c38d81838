//! Vectors of the forms of bundle, payload and names.

use super::*;

pub(super) fn bundles() -> Cases {
    let request = keys::envelope(TYPE, good().json(), &[&keys::ci()]);
    let json = request.to_json();
    let malformed =
        |clause: &str, comment: &str, body: String| base().odd(clause, "malformed-envelope", comment).body(body);
    let control = format!(r#"{{"control":{json}}}"#);
    let approval = approved(ISSUED, &keys::second());
    vec![
        (
            "one-mebibyte",
            base().odd("LIM-2", "too-large", "1 MiB of JSON, which would parse.").but(|v| {
                v.body = Body::Long { before: "[".into(), repeat: "0,".into(), times: 524_287, after: "0]".into() };
            }),
        ),
        (
            "one-byte-too-many",
            base().odd("LIM-2", "too-large", "A good bundle with white space up to 65537 bytes.").but(|v| {
                let body = signed(&good());
                v.body =
                    Body::Long { times: 65_537 - body.len(), before: body, repeat: " ".into(), after: String::new() };
            }),
        ),
        (
            "padded-to-the-limit",
            base().odd("LIM-2", "ok", "A good bundle with white space up to 65536 bytes.").but(|v| {
                let body = signed(&good());
                v.body =
                    Body::Long { times: 65_536 - body.len(), before: body, repeat: " ".into(), after: String::new() };
            }),
        ),
        (
            "deep-nesting",
            base().odd("BUN-1, ENC-5", "malformed-envelope", "16000 arrays, one inside the other.").but(|v| {
                v.body = Body::Long { before: String::new(), repeat: "[".into(), times: 16_000, after: String::new() };
            }),
        ),
        (
            "not-utf-8",
            base().odd("ENC-5", "malformed-envelope", "Bytes that are no UTF-8.").but(|v| {
                v.body = Body::Bytes { base64: encoding::base64(b"{\"request\":\"\xff\xfe\"}") };
            }),
        ),
        (
            "byte-order-mark",
            malformed("ENC-5", "A byte order mark before a good bundle.", format!("\u{feff}{}", signed(&good()))),
        ),
        ("empty", malformed("ENC-5", "No bytes at all.", String::new())),
        ("trailing-bytes", malformed("ENC-5", "Something after the object.", format!("{}x", signed(&good())))),
        ("two-bundles", malformed("ENC-5", "Two good bundles, one after the other.", signed(&good()).repeat(2))),
        (
            "unknown-bundle-member",
            malformed(
                "BUN-1",
                "A bundle member that nobody knows.",
                format!(r#"{{"request":{json},"approvals":[],"options":{{}}}}"#),
            ),
        ),
        (
            "duplicate-request",
            malformed(
                "BUN-1, ENC-6",
                "Two requests under one name.",
                format!(r#"{{"request":{json},"request":{json},"approvals":[]}}"#),
            ),
        ),
        ("no-approvals-member", malformed("BUN-2", "`approvals` is absent.", format!(r#"{{"request":{json}}}"#))),
        (
            "control-in-place-of-request",
            malformed("BUN-2", "A control message where a runner expects a request.", control)
                .but(|v| v.stage = "run".into()),
        ),
        (
            "request-and-control",
            malformed(
                "BUN-2",
                "A request and a control statement together.",
                format!(r#"{{"request":{json},"approvals":[],"control":{json}}}"#),
            ),
        ),
        (
            "null-control-beside-request",
            malformed(
                "BUN-2",
                "A good request, and a control statement that is null.",
                format!(r#"{{"request":{json},"approvals":[],"control":null}}"#),
            ),
        ),
        (
            "null-control-beside-request-in-the-override",
            malformed(
                "BUN-2",
                "The same where a runner reads it.",
                format!(r#"{{"request":{json},"approvals":[],"control":null}}"#),
            )
            .but(|v| v.stage = "run".into()),
        ),
        (
            "bundle-as-array",
            malformed("BUN-1, ENC-6", "The members' values in an array.", format!("[{json},[]]"))
                .but(|v| v.stage = "run".into()),
        ),
        (
            "too-many-approvals",
            malformed("LIM-5", "Nine approvals.", bundle(&request, &vec![Envelope::new("a", vec![]); 9])),
        ),
        (
            "eight-approvals",
            base()
                .odd("LIM-5", "ok", "Eight approvals, the most.")
                .body(bundle(&request, &vec![Envelope::new("a", vec![]); 8])),
        ),
        (
            "approval-in-place-of-request",
            base()
                .odd("ENV-4", "payload-type", "A signed approval where the request should stand.")
                .body(bundle(&approval, &[])),
        ),
    ]
}

pub(super) fn forms() -> Cases {
    let malformed = |clause: &str, comment: &str, json: String| {
        let body = bundle(&keys::envelope(TYPE, json, &[&keys::ci()]), &[]);
        base().odd(clause, "malformed-payload", comment).body(body)
    };
    let json = good().json();
    let odd = |clause: &str, comment: &str, name: &str, value: &str| {
        malformed(clause, comment, good().with(name, value).json())
    };
    let many: Vec<String> = (0..65).map(|at| format!("\"p{at}\":\"\"")).collect();
    let doubled = json.replacen('{', &format!("{{\"target\":\"{TARGET}\","), 1);
    let long = format!("\"{}\"", "a".repeat(16_385));
    vec![
        ("payload-empty-object", malformed("REQ-1", "An object without members.", "{}".into())),
        ("payload-as-array", malformed("REQ-1, ENC-6", "The members' values in an array, in order.", good().array())),
        ("payload-trailing-bytes", malformed("ENC-5", "Something after the payload's object.", format!("{json}{{}}"))),
        (
            "payload-not-utf-8",
            malformed("ENC-5", "The signed payload is no UTF-8.", String::new())
                .body(bundle(&keys::envelope(TYPE, b"{\"deployment_id\":\"\xff\"}", &[&keys::ci()]), &[])),
        ),
        (
            "payload-deep-nesting",
            malformed("ENC-5, ENV-7", "6000 arrays, one inside the other, signed.", "[".repeat(6_000)),
        ),
        ("unknown-member", odd("REQ-1, ENC-6", "A member that nobody knows: a command.", "command", "[\"sh\"]")),
        ("missing-member", malformed("REQ-1, ENC-6", "No session key.", good().without("session_key").json())),
        ("duplicate-member", malformed("REQ-1, ENC-6", "`target` stands twice, equal.", doubled)),
        (
            "unknown-origin-member",
            odd("ENC-6", "`origin` has a member that nobody knows.", "origin", r#"{"pipeline":"7"}"#),
        ),
        (
            "duplicate-parameter",
            odd("REQ-2", "A parameter stands twice.", "parameters", r#"{"image":"a","image":"b"}"#),
        ),
        (
            "duplicate-parameter-escaped",
            odd(
                "REQ-2",
                "A parameter stands twice, once with an escape in its name.",
                "parameters",
                r#"{"image":"a","\u0069mage":"b"}"#,
            ),
        ),
        (
            "parameter-is-a-number",
            odd("REQ-6, ENC-6", "A parameter's value is a number.", "parameters", r#"{"replicas":3}"#),
        ),
        (
            "parameters-is-an-array",
            odd("REQ-1", "`parameters` is an array of pairs.", "parameters", r#"[["image","a"]]"#),
        ),
        (
            "unpaired-surrogate",
            odd("ENC-5", "A value holds half of a surrogate pair.", "parameters", r#"{"image":"\ud800"}"#),
        ),
        ("too-many-parameters", odd("LIM-6", "65 parameters.", "parameters", &format!("{{{}}}", many.join(",")))),
        ("parameter-too-long", odd("LIM-6", "A value of 16385 bytes.", "parameters", &format!("{{\"image\":{long}}}"))),
        (
            "origin-too-long",
            odd("LIM-7", "A text of 513 bytes.", "origin", &format!("{{\"actor\":\"{}\"}}", "a".repeat(513))),
        ),
        (
            "origin-with-escape-character",
            odd(
                "LIM-7",
                "A text with ESC, which would move a terminal's cursor.",
                "origin",
                r#"{"actor":"\u001b[2J"}"#,
            ),
        ),
        (
            "traceparent-upper-case",
            odd(
                "REQ-13",
                "Upper-case hexadecimal.",
                "traceparent",
                "\"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01\"",
            ),
        ),
        ("session-key-url-safe", odd("ENC-1, ENC-4", "A key in the URL-safe alphabet.", "session_key", "\"-_8=\"")),
        (
            "session-key-is-two-texts",
            odd("ENC-1, ENC-4", "Two padded base64 texts in a row.", "session_key", "\"AAA=AAA=\""),
        ),
        (
            "ticket-upper-case",
            odd("NAM-8", "A ticket in upper case.", "ticket", "\"0123456789ABCDEF0123456789ABCDEF\""),
        ),
        ("ticket-too-short", odd("NAM-8", "A ticket of 31 digits.", "ticket", "\"0123456789abcdef0123456789abcde\"")),
        ("ticket-empty", odd("NAM-8", "An empty ticket.", "ticket", "\"\"")),
        ("session-key-unpadded", odd("ENC-1, ENC-4", "A key without padding.", "session_key", "\"AAA\"")),
        (
            "session-key-trailing-bits",
            odd("ENC-1", "Base64 whose unused bits are not zero.", "session_key", "\"AB==\""),
        ),
        ("session-key-empty", odd("ENC-4", "A key of no bytes.", "session_key", "\"\"")),
        ("time-with-offset", odd("TIM-1", "An offset in place of Z.", "issued_at", "\"2026-06-01T12:00:00+00:00\"")),
        ("time-with-fraction", odd("TIM-1", "A fraction of a second.", "issued_at", "\"2026-06-01T12:00:00.5Z\"")),
        ("time-that-is-none", odd("TIM-1", "The 30th of February.", "issued_at", "\"2026-02-30T12:00:00Z\"")),
        ("time-leap-second", odd("TIM-1", "A leap second.", "issued_at", "\"2026-06-30T23:59:60Z\"")),
    ]
}

pub(super) fn names() -> Cases {
    let odd = |clause: &str, comment: &str, name: &str, value: &str| {
        base().odd(clause, "malformed-payload", comment).body(signed(&good().with(name, text(value))))
    };
    let v4 = "9b2d7d2e-8a5e-4a3c-8f53-1f6a4a1d2c3b";
    let id_queue = format!("relay-{}-reply", id());
    vec![
        ("id-version-4", odd("NAM-7", "A UUID of version 4.", "deployment_id", v4)),
        ("id-upper-case", odd("NAM-7", "A deployment id in upper case.", "deployment_id", &id().to_uppercase())),
        (
            "id-without-hyphens",
            odd("NAM-7", "A deployment id without hyphens.", "deployment_id", &id().replace('-', "")),
        ),
        ("target-upper-case", odd("NAM-3", "A target with an upper-case letter.", "target", "Payments/production")),
        ("target-of-one-part", odd("NAM-3", "A target without an environment.", "target", "payments")),
        ("target-hyphen-at-end", odd("NAM-3", "A part that ends with a hyphen.", "target", "payments-/production")),
        (
            "parameter-name-upper-case",
            base()
                .odd("NAM-4", "malformed-payload", "A parameter's name in upper case.")
                .body(signed(&good().with("parameters", r#"{"Image":"a"}"#))),
        ),
        (
            "audience-is-a-queue",
            odd("NAM-5", "The ARN of a queue.", "audience", "arn:aws:sqs:eu-west-1:222222222222:relay"),
        ),
        (
            "audience-of-unknown-partition",
            odd("NAM-5", "A partition that is none.", "audience", "arn:other:sns:eu-west-1:222222222222:relay"),
        ),
        (
            "audience-region-of-two-parts",
            odd("NAM-2", "A region of two parts.", "audience", "arn:aws:sns:eu-1:222222222222:relay"),
        ),
        (
            "audience-account-of-11-digits",
            odd("NAM-1", "An account of eleven digits.", "audience", "arn:aws:sns:eu-west-1:22222222222:relay"),
        ),
        (
            "queue-legacy-host",
            odd(
                "NAM-6",
                "The old spelling of a queue's host.",
                "reply_queue",
                &format!("https://eu-west-1.queue.amazonaws.com/{ACCOUNT}/{id_queue}"),
            ),
        ),
        (
            "queue-user-in-url",
            odd(
                "NAM-6",
                "The true host as the user of another.",
                "reply_queue",
                &format!("https://sqs.eu-west-1.amazonaws.com@evil.example/{ACCOUNT}/{id_queue}"),
            ),
        ),
        ("queue-plain-http", odd("NAM-6", "No TLS.", "reply_queue", &reply().replace("https", "http"))),
        (
            "queue-with-query",
            odd("NAM-6", "A query after the name.", "reply_queue", &format!("{}?Action=DeleteQueue", reply())),
        ),
        (
            "queue-chinese-host",
            odd(
                "NAM-6",
                "The Chinese domain for another region.",
                "reply_queue",
                &reply().replace(".com/", ".com.cn/"),
            ),
        ),
    ]
}
