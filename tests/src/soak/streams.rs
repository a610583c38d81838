//! One deployment with much output, and one that runs for a long time. No output is lost, and no
//! process grows.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use relay_tests::kit::sandbox::command;
use relay_tests::{Options, Sandbox, eventually};
use rustix::process::Pid;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::memory::{Sampler, processes};
use crate::report::Report;

/// A digest in lower-case hex, and a number of bytes.
type Measure = (String, u64);

/// Reads to the end without keeping the bytes.
fn measure(mut from: impl Read) -> Measure {
    let (mut digest, mut count) = (Sha256::new(), 0_u64);
    let mut buffer = vec![0; 1 << 20];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        digest.update(&buffer[..read]);
        count += read as u64;
    }
    let hex = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (hex, count)
}

/// Runs `script` as a deployment. Measures its output as it arrives and samples its processes.
fn deploy(report: &mut Report, script: &str, every: Duration, slack: u64) -> (Measure, Duration) {
    let sandbox = Sandbox::start(Options::default().set("task_events=true"));
    let result = sandbox.folder().join("result.json");
    let complaints = sandbox.folder().join("stderr");
    let began = Instant::now();
    let mut cli = command("relay")
        .args(["deploy", "demo/shell", "--strict-output", "--param", &format!("script={script}"), "--result-file"])
        .arg(&result)
        .envs(sandbox.environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&complaints).expect("a file"))
        .spawn()
        .expect("relay starts");
    let out = cli.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || measure(out));
    let sampler = Sampler::start(processes(&sandbox, Pid::from_child(&cli)), every);
    let measured = reader.join().expect("the reader does not panic");
    let status = cli.wait().expect("relay can be waited for");
    let took = began.elapsed();
    sampler.end(report, slack);
    let words = std::fs::read_to_string(&complaints).unwrap_or_default();
    report.demand(status.success(), || format!("{status}: {words}"));
    let result: Value =
        std::fs::read_to_string(&result).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    report.demand(result.pointer("/output/verified") == Some(&json!(true)), || {
        format!("the output is not verified: {words}")
    });
    // Wait until the task has ended, so that the sandbox does not cut it off.
    eventually("the task has stopped", || sandbox.tasks().iter().all(|task| task.status() == "STOPPED").then_some(()));
    (measured, took)
}

/// 1 GiB of text that resembles a log. The expected digest is that of the same command, run
/// locally. The slack is the amount that the reader and the writer may buffer.
pub(crate) fn gigabyte(report: &mut Report, scale: f64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a scale of at most 1")]
    let bytes = (scale * f64::from(1 << 30)) as u64;
    let line = "2026-01-01T00:00:00Z INFO  aws_instance.web[%.0f]: Still creating... [id=i-0123456789abcdef0]";
    let script = format!("seq -f '{line}' 100000000 | head -c {bytes}");
    let mut here = Command::new("sh").arg("-c").arg(&script).stdout(Stdio::piped()).spawn().expect("sh starts");
    let expected = measure(here.stdout.take().expect("a pipe"));
    here.wait().expect("sh can be waited for");
    let (measured, took) = deploy(report, &script, Duration::from_millis(100), 16 * 1_024);
    report.fact("bytes", measured.1);
    report.fact("sha256", measured.0.as_str());
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = measured.1 as f64 / took.as_secs_f64() / 1e6;
    report.fact("MB/s", json!((rate * 10.0).round() / 10.0));
    report.demand(measured == expected, || format!("printed {measured:?}, expected {expected:?}"));
}

/// 20 minutes with a line every 10 s.
pub(crate) fn long(report: &mut Report, scale: f64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a scale of at most 1")]
    let lines = (120.0 * scale).ceil() as u64;
    let script = format!("n=0; while [ $n -lt {lines} ]; do n=$((n + 1)); echo line $n; sleep 10; done");
    let text: String = (1..=lines).map(|n| format!("line {n}\n")).collect();
    let (measured, _) = deploy(report, &script, Duration::from_secs(1), 1_024);
    report.fact("lines", lines);
    report.demand(measured == measure(text.as_bytes()), || format!("printed {measured:?}"));
}
