//! `relay` prints what the tool printed, to the byte, and exits with the tool's exit code. The
//! result file and the record agree.

use std::sync::Arc;

use relay_protocol::record::Record;
use relay_protocol::{Digest, Envelope};
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Deployed, Options, Sandbox, sha256, sized};
use serde_json::{Value, json};

fn sandbox() -> Arc<Sandbox> {
    let secrets = r#"
[secrets]
PASSWORD = "arn:aws:secretsmanager:eu-west-1:222222222222:secret:demo/database-password-SaNdBx"
TOKEN = "arn:aws:ssm:eu-west-1:222222222222:parameter/demo/api-token"
"#;
    Sandbox::start(
        Options::default().target("test/secret", target("test/secret", &Head::default(), &format!("{secrets}{SHELL}"))),
    )
}

/// Reassembles both streams from `--output json`.
fn reassembled(stdout: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for line in stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let line: Value =
            serde_json::from_slice(line).unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(line)));
        if line["type"] != "output" {
            continue;
        }
        let bytes = match (line["text"].as_str(), line["base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => relay_protocol::encoding::from_base64(text).unwrap(),
            _ => panic!("neither text nor base64: {line}"),
        };
        if line["stream"] == "stdout" { &mut out } else { &mut err }.extend(bytes);
    }
    (out, err)
}

/// Asserts that the digests in the result file match what was printed.
#[track_caller]
fn agrees(done: &Deployed, stdout: &[u8], stderr: &[u8]) {
    let stream = |bytes: &[u8]| json!({ "bytes": bytes.len(), "sha256": sha256(bytes) });
    assert_eq!(*done.result("/output/verified"), json!(true));
    assert_eq!(*done.result("/output/missing_frames"), json!(0));
    assert_eq!(*done.result("/output/stdout"), stream(stdout));
    assert_eq!(*done.result("/output/stderr"), stream(stderr));
}

// clause: OUT-1
#[test]
fn the_exit_code_is_the_tools_own() {
    let sandbox = sandbox();
    for (script, code) in
        [("true", 0), ("exit 37", 37), ("exit 1", 1), ("kill -TERM $$", 143), ("kill -KILL $$", 137), ("exit 120", 120)]
    {
        let done = sandbox.shell(script).run().exits(code);
        assert_eq!(done.out(), "", "{script}");
        // A tool's own 120 can be distinguished from relay's.
        assert_eq!(*done.result("/decided_by"), json!("tool"), "{script}");
        assert_eq!(*done.result("/exit_code"), json!(code), "{script}");
    }
    sandbox.shell("kill -TERM $$").run().says("signal 15");
}

// clause: FRM-8, FRM-13, FRM-15
/// 64 MiB of incompressible noise (8 MiB with RELAY_QUICK): the spool fills, the tool waits, and
/// nothing is lost.
#[test]
fn a_large_binary_stream_arrives_to_the_byte() {
    let sandbox = sandbox();
    let size = sized(64 << 20, 8 << 20);
    let file = sandbox.folder().join("noise");
    let mut noise = vec![0; size];
    // xorshift: noise to zstd, and the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in noise.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    std::fs::write(&file, &noise).unwrap();
    // A quarter of it also goes to stderr, in parallel. With --quiet, stderr holds nothing else.
    let quarter = &noise[..size / 4];
    let script = format!("head -c {} {1} >&2 & cat {1}; wait", quarter.len(), file.display());
    let done = sandbox.shell(&script).args(&["--strict-output", "--quiet"]).run().exits(0);
    assert_eq!((done.stdout.len(), sha256(&done.stdout)), (noise.len(), sha256(&noise)));
    assert_eq!((done.stderr.len(), sha256(&done.stderr)), (quarter.len(), sha256(quarter)));
    agrees(&done, &noise, quarter);
}

/// 2,000,000 numbered lines (200,000 with RELAY_QUICK) stay in order.
#[test]
fn millions_of_lines_stay_in_order() {
    let lines = sized(2_000_000, 200_000);
    let expected: String = (1..=lines).map(|n| format!("{n}\n")).collect();
    let done = sandbox().shell(&format!("seq {lines}")).args(&["--strict-output"]).run().exits(0);
    assert_eq!(done.stdout.len(), expected.len());
    assert!(done.stdout == expected.as_bytes(), "the first wrong line: {:?}", {
        let printed = done.out();
        printed.lines().zip(1..).find(|(line, n)| *line != n.to_string()).map(|(line, n)| (line.to_owned(), n))
    });
    agrees(&done, expected.as_bytes(), b"");
}

// clause: FRM-3, FRM-8
#[test]
fn odd_bytes_are_only_bytes() {
    let sandbox = sandbox();
    let file = sandbox.folder().join("odd");
    let every: Vec<u8> = (0..=255).collect();
    let cases: [(&str, &[u8]); 9] = [
        ("empty", b""),
        ("no final newline", b"half a line"),
        ("colours", b"\x1b[31mred\x1b[0m\x1b[2K\r\n"),
        ("NUL", b"a\0b\0\0\n"),
        ("invalid UTF-8", b"\xff\xfe\xc3\x28 \xed\xa0\x80 \xf0\x28\x8c\xbc\n"),
        ("half of a character", b"caf\xc3"),
        ("what SQS refuses", "\u{fffe}\u{ffff}\u{1f600}\u{10ffff}\u{7f}\u{85}\n".as_bytes()),
        ("every byte", &every),
        ("lines that look like relay's", b"relay finished: 0.0s exit 0\n{\"type\":\"output\"}\n"),
    ];
    for (name, bytes) in cases {
        std::fs::write(&file, bytes).unwrap();
        let script = format!("cat {0}; cat {0} >&2", file.display());
        let text = sandbox.shell(&script).run().exits(0);
        assert_eq!(text.stdout, bytes, "{name}");
        agrees(&text, bytes, bytes);
        let quiet = sandbox.shell(&script).args(&["--quiet"]).run().exits(0);
        assert_eq!((quiet.stdout.as_slice(), quiet.stderr.as_slice()), (bytes, bytes), "{name}, quietly");
        let json = sandbox.shell(&script).args(&["--output", "json"]).run().exits(0);
        let (out, err) = reassembled(&json.stdout);
        assert_eq!((out.as_slice(), err.as_slice()), (bytes, bytes), "{name}, as JSON");
        // With --output json, the tool's bytes and relay's messages are all on stdout.
        assert_eq!(json.err(), "", "{name}");
    }
}

#[test]
fn two_streams_in_turn_keep_their_own_order() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let done = sandbox().shell(script).run().exits(0);
    let expected = |name: &str| (0..3_000).map(|n| format!("{name} {n}\n")).collect::<String>();
    assert_eq!(done.out(), expected("out"));
    assert_eq!(String::from_utf8(done.tool_err()).unwrap(), expected("err"));
    agrees(&done, expected("out").as_bytes(), expected("err").as_bytes());
}

#[test]
fn relays_words_are_not_on_stdout() {
    let done = sandbox().deploy("demo/hello").param("name", "world").run().exits(0).says("relay finished:");
    let kernel = std::process::Command::new("uname").arg("-s").output().unwrap().stdout;
    assert_eq!(done.stdout, [b"hello, world\n", kernel.as_slice()].concat());
    assert_eq!(done.tool_err(), b"this line goes to stderr\n");
}

// clause: REC-1, REC-2, REC-3, FRM-13
#[test]
fn the_record_is_signed_and_says_what_happened() {
    let sandbox = sandbox();
    let script = "echo to stdout; echo to stderr >&2; echo url=https://example.org/a=b >> $RELAY_OUTPUT; exit 3";
    let done = sandbox.shell(script).env("GITHUB_ACTIONS", "true").env("GITHUB_SHA", "0abc").run().exits(3);
    agrees(&done, b"to stdout\n", b"to stderr\n");
    assert_eq!(*done.result("/outputs"), json!({ "url": "https://example.org/a=b" }));
    assert_eq!(*done.result("/step"), json!("shell"));
    assert_eq!(*done.result("/target"), json!("demo/shell"));
    assert_eq!(*done.result("/deployment_id"), json!(done.id()));
    for phase in ["published", "admitted", "started", "finished"] {
        assert!(done.result(&format!("/milliseconds/{phase}")).is_u64(), "{phase}");
    }

    let envelope = Envelope::parse(done.result("/record").to_string().as_bytes(), 1 << 20).unwrap();
    let verified = sandbox.target_key().verify::<Record>(&envelope).expect("the target key signed it");
    let record = verified.statement();
    let subject = |name: &str| {
        record
            .subject
            .iter()
            .find(|subject| subject.name == name)
            .and_then(|subject| subject.digest.get("sha256").copied())
    };
    let (_, _, configuration) = sandbox.operator().definition("relay_demo_shell");
    assert_eq!(subject("configuration"), Some(Digest::of(configuration.as_bytes())));
    let task = sandbox.tasks_of(&done.id()).pop().unwrap();
    let bundle = sandbox.evidence(&done.id(), "request.json").unwrap();
    let request = relay_protocol::Bundle::parse(&bundle).unwrap().request;
    assert_eq!((subject("request"), subject("request.json")), (Some(request.digest()), Some(Digest::of(&bundle))));
    // The override names the request and has nothing of it.
    let named = task.0["overrides"]["containerOverrides"][0]["environment"][0]["value"].as_str().unwrap();
    assert!(named.contains(&request.digest().to_string()) && !named.contains("script"), "{named}");

    let predicate = serde_json::to_value(&record.predicate).unwrap();
    assert_eq!(predicate["deployment_id"], json!(done.id()));
    assert_eq!(predicate["target"], json!("demo/shell"));
    assert_eq!(predicate["audience"], json!(sandbox.topic()));
    assert_eq!(predicate["parameters"], json!({ "script": script }));
    assert_eq!(
        predicate["signers"],
        json!([{ "key_id": sandbox.signing_key().public().key_id(), "name": "sandbox-ci" }])
    );
    assert_eq!(predicate["approvers"], json!([]));
    assert_eq!(predicate["policies"].as_array().map(Vec::len), Some(1));
    assert_eq!(predicate["task_arn"], json!(task.arn()));
    assert_eq!(predicate["origin"], json!({ "system": "github", "commit": "0abc" }));
    assert_eq!(predicate["steps"][0]["name"], json!("shell"));
    assert_eq!(predicate["steps"][0]["argv"], json!(["sh", "-c", script]));
    assert_eq!(predicate["steps"][0]["exit_code"], json!(3));
    assert!(predicate["steps"][0]["milliseconds"].is_u64());
    assert_eq!(predicate["outcome"], json!({ "exited": { "code": 3 } }));
    assert_eq!(predicate["outputs"], *done.result("/outputs"));
    assert_eq!(predicate["stdout"], *done.result("/output/stdout"));
    assert_eq!(predicate["stderr"], *done.result("/output/stderr"));
    assert_eq!(predicate["isolation"], json!("none"));
    assert!(predicate["started_at"].as_str() <= predicate["finished_at"].as_str());

    // The signature does not verify with another key.
    let other = relay_protocol::keys::SingleKey::new(sandbox.signing_key().public()).unwrap();
    assert!(other.verify::<Record>(&envelope).is_err());
}

// clause: FRM-14
#[test]
fn outputs_beyond_their_bound_are_refused_and_said() {
    let sandbox = sandbox();
    let fits = sandbox.shell("printf 'a=%032000d\\nb=2\\n' 1 >> $RELAY_OUTPUT").run().exits(0);
    assert_eq!(fits.result("/outputs/a").as_str().map(str::len), Some(32_000));
    assert_eq!(*fits.result("/outputs/b"), json!("2"));
    let over = sandbox.shell("printf 'a=%033000d\\n' 1 >> $RELAY_OUTPUT").run().exits(0);
    assert_eq!(*over.result("/outputs"), json!({}));
    over.says("larger than the limit of 32768 bytes");
    let odd = sandbox.shell("echo no equals sign >> $RELAY_OUTPUT; echo good=1 >> $RELAY_OUTPUT").run().exits(0);
    assert_eq!(*odd.result("/outputs"), json!({ "good": "1" }));
    odd.says("neither name=value nor name<<END");
}

// clause: REC-4
/// Secrets from Secrets Manager and from SSM, in every place to which a tool could carry them.
#[test]
fn secrets_are_masked_everywhere() {
    let sandbox = sandbox();
    let secrets = ["sandbox-secret-7f3a", "sandbox-parameter-55d0"];
    let script = "echo password $PASSWORD; echo token $TOKEN >&2; printf '%s' \"$PASSWORD\" | base64; \
                  printf 'sandbox-sec'; sleep 0.2; printf 'ret-7f3a split\\n'; echo pw=$PASSWORD >> $RELAY_OUTPUT; \
                  : literal sandbox-secret-7f3a";
    let done = sandbox.deploy("test/secret").param("script", script).run().exits(0);
    assert_eq!(done.out(), "password ***\n***==\n*** split\n");
    assert_eq!(done.tool_err(), b"token ***\n");
    assert_eq!(*done.result("/outputs/pw"), json!("***"));
    let envelope = Envelope::parse(done.result("/record").to_string().as_bytes(), 1 << 20).unwrap();
    let record: Value = serde_json::from_slice(envelope.unverified_payload()).unwrap();
    let argv = record["predicate"]["steps"][0]["argv"].to_string();
    for secret in secrets {
        assert!(!argv.contains(secret), "argv in the record: {argv}");
        assert!(!record["predicate"]["outputs"].to_string().contains(secret), "outputs in the record");
        // The runner's copy of the output, which CloudWatch would hold.
        let log = sandbox.tasks_of(&done.id()).pop().unwrap().log();
        assert!(!log.contains(secret), "the mirror has a secret: {log}");
    }
    agrees(&done, done.out().as_bytes(), b"token ***\n");
}
