//! Vectors of the form of a frame, and of the output in it.

use super::*;

pub(super) fn forms() -> Cases {
    let odd = |clause: &str, comment: &str, body: String| runner(base().odd(clause, "malformed-frame", comment), body);
    vec![
        ("not-json", odd("FRM-1", "Signed, and no JSON.", "relay".into())),
        ("no-kind", odd("FRM-1", "A frame without a kind.", frame("", "").replace(r#","kind":"""#, ""))),
        ("negative-seq", odd("FRM-1", "A negative number.", heartbeat().replace(":3,", ":-1,"))),
        ("seq-beyond-a-count", odd("ENC-7", "A number of 2^53.", heartbeat().replace(":3,", ":9007199254740992,"))),
        (
            "seq-as-large-as-a-count",
            runner(
                base().odd("ENC-7", "ok", "A number of 2^53 − 1, the most."),
                heartbeat().replace(":3,", ":9007199254740991,"),
            ),
        ),
        ("count-as-a-fraction", odd("ENC-7", "A time of 1.0.", frame("heartbeat", r#","elapsed_ms":1.0"#))),
        ("count-as-text", odd("ENC-7", "A time in quotes.", frame("heartbeat", r#","elapsed_ms":"1""#))),
        (
            "negative-size",
            odd(
                "ENC-7, FRM-8",
                "A chunk of -1 bytes.",
                frame(
                    "output",
                    r#","offset":{"stdout":0,"stderr":0},"chunks":[{"stream":"stdout","ms":1,"size":-1}],"packed":"""#,
                ),
            ),
        ),
        (
            "unknown-stream",
            odd(
                "FRM-8",
                "A stream that there is not.",
                frame(
                    "output",
                    r#","offset":{"stdout":0,"stderr":0},"chunks":[{"stream":"stdlog","ms":1,"text":"x"}]"#,
                ),
            ),
        ),
        (
            "deployment-id-of-another-form",
            odd(
                "NAM-7",
                "A deployment id in upper case.",
                heartbeat().replace(&request::id(), &request::id().to_uppercase()),
            ),
        ),
        ("member-absent", odd("FRM-1", "A heartbeat without its time.", frame("heartbeat", ""))),
        ("kind-twice", odd("FRM-1", "Two kinds.", frame("heartbeat", r#","elapsed_ms":1,"kind":"note","text":"""#))),
        ("trailing-bytes", odd("ENC-5", "Something after the object.", heartbeat() + "x")),
        ("deadline-with-offset", odd("TIM-1", "A time with an offset.", started().replace("00Z", "00+00:00"))),
        (
            "digest-upper-case",
            launcher(
                base().odd("ENC-3", "malformed-frame", "A digest in upper case."),
                refused(&request::digest().to_uppercase()),
            ),
        ),
        (
            "too-large",
            base().odd("FRM-2", "frame-too-large", "A body of 262145 bytes.").but(|v| {
                (v.from, v.sig) = (Some("runner".into()), Some(String::new()));
                v.body = Body::Long { before: String::new(), repeat: " ".into(), times: 262_145, after: String::new() };
            }),
        ),
    ]
}

/// Members of a frame whose `packed` is two concatenated zstd frames. Together they hold as many
/// bytes as the chunk declares.
fn two_frames() -> String {
    let packed = |byte: u8| {
        let chunk = Chunk { stream: Stream::Stdout, ms: 1, bytes: vec![byte] };
        let json = serde_json::to_value(Chunks::packed(Offsets::default(), &[chunk], 3)).unwrap();
        encoding::from_base64(json["packed"].as_str().unwrap()).unwrap()
    };
    let both = encoding::base64(&[packed(b'a'), packed(b'b')].concat());
    format!(r#""chunks":[{{"stream":"stdout","ms":1,"size":2}}],"packed":"{both}""#)
}

pub(super) fn outputs() -> Cases {
    let output = |members: &str| frame("output", &format!(r#","offset":{{"stdout":7,"stderr":0}},{members}"#));
    let odd = |clause: &str, expect: &str, comment: &str, members: &str| {
        runner(base().odd(clause, expect, comment), output(members))
    };
    let one = |chunk: &str| format!(r#""chunks":[{{"stream":"stdout","ms":1,{chunk}}}]"#);
    let chunk = |stream, bytes: &[u8]| Chunk { stream, ms: 1, bytes: bytes.to_vec() };
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000).collect();
    let folded = |chunks: &Chunks| {
        serde_json::to_string(chunks).unwrap().trim_start_matches('{').trim_end_matches('}').to_owned()
    };
    let packed =
        Chunks::packed(Offsets::default(), &[chunk(Stream::Stdout, &bytes), chunk(Stream::Stderr, b"\x1b[0m")], 3);
    let packed = folded(&packed).split_once(",\"chunks\"").map(|(_, rest)| format!("\"chunks\"{rest}")).unwrap();
    let bomb = Chunks::packed(Offsets::default(), &[chunk(Stream::Stdout, &vec![0; 1_048_577])], 3);
    let bomb = folded(&bomb).split_once(",\"chunks\"").map(|(_, rest)| format!("\"chunks\"{rest}")).unwrap();
    let full = Chunks::packed(Offsets::default(), &[chunk(Stream::Stdout, &vec![0; 1_048_576])], 3);
    let full = folded(&full).split_once(",\"chunks\"").map(|(_, rest)| format!("\"chunks\"{rest}")).unwrap();
    vec![
        (
            "output-legible",
            odd(
                "FRM-8",
                "ok",
                "Text, and bytes that are no UTF-8.",
                r#""chunks":[{"stream":"stdout","ms":1,"text":"a\u001b[1mb\n"},{"stream":"stderr","ms":2,"base64":"/w=="}]"#,
            ),
        ),
        ("output-packed", odd("FRM-8, FRM-10", "ok", "Two chunks in one zstd frame.", &packed)),
        ("output-full", odd("FRM-9", "ok", "1 MiB unpacked, the most.", &full)),
        ("output-bomb", odd("FRM-9", "output-packed", "Unpacks to 1 MiB and 1 byte.", &bomb)),
        (
            "output-more-than-full",
            odd(
                "FRM-9",
                "output-too-large",
                "1 MiB packed, and 1 byte of text beside it.",
                &full.replace("}],", r#"},{"stream":"stdout","ms":2,"text":"a"}],"#),
            ),
        ),
        (
            "output-text-and-base64",
            odd("FRM-8", "output-form", "A chunk with text and base64.", &one(r#""text":"a","base64":"YQ==""#)),
        ),
        (
            "output-without-bytes",
            odd(
                "FRM-8",
                "output-form",
                "A chunk with neither text, base64 nor size.",
                r#""chunks":[{"stream":"stdout","ms":1}]"#,
            ),
        ),
        (
            "output-chunk-base64-url-safe",
            odd("ENC-1, FRM-8", "output-packed", "A chunk in the URL-safe alphabet.", &one(r#""base64":"_w==""#)),
        ),
        (
            "output-chunk-base64-twice",
            odd("ENC-1, FRM-8", "output-packed", "Two padded base64 texts in a row.", &one(r#""base64":"YQ==Yg==""#)),
        ),
        (
            "output-sizes-too-small",
            odd("FRM-10", "output-sizes", "One byte stays over.", &packed.replace("\"size\":3000", "\"size\":2999")),
        ),
        (
            "output-sizes-too-large",
            odd("FRM-10", "output-sizes", "One byte is missing.", &packed.replace("\"size\":3000", "\"size\":3001")),
        ),
        (
            "output-size-without-packed",
            odd("FRM-10", "output-sizes", "Sizes, and nothing packed.", &one(r#""size":1"#)),
        ),
        (
            "output-packed-is-no-zstd",
            odd(
                "FRM-10",
                "output-packed",
                "The packed bytes are no zstd.",
                &format!("{},\"packed\":\"YWJj\"", one(r#""size":3"#)),
            ),
        ),
        (
            "output-packed-is-two-frames",
            odd("FRM-10", "output-packed", "Two zstd frames, one byte in each.", &two_frames()),
        ),
        (
            "output-packed-is-nothing",
            odd(
                "FRM-10",
                "output-packed",
                "No zstd frame at all, and no byte that is missing.",
                &format!("{},\"packed\":\"\"", one(r#""size":0"#)),
            ),
        ),
        (
            "output-packed-is-no-base64",
            odd(
                "FRM-10, ENC-1",
                "output-packed",
                "The packed text is no base64.",
                &format!("{},\"packed\":\"a\"", one(r#""size":1"#)),
            ),
        ),
        (
            "output-of-unknown-stream",
            odd("FRM-8", "malformed-frame", "A third stream.", r#""chunks":[{"stream":"stdlog","ms":1,"text":"a"}]"#),
        ),
        (
            "output-without-offset",
            runner(base().odd("FRM-8", "malformed-frame", "No offset."), frame("output", r#","chunks":[]"#)),
        ),
    ]
}
