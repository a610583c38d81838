//! Bulk output at full speed: through relay, through bare SQS calls that move as many messages of
//! the same sizes, and through a pipe. The received output is digested.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::bare::Bare;
use crate::memory::{Watch, processor_seconds};
use crate::statistics::median;
use crate::tool::{self, Kind};
use crate::{Form, Outcome, script};

/// A target like `demo/shell`, with a secret of a hundred values. None of them is in the output.
const SECRETIVE: &str = "bench/secretive";
const SECRETS: &str = r#"
[secrets]
HUNDRED = "arn:aws:secretsmanager:eu-west-1:222222222222:secret:demo/hundred-values-SaNdBx"
"#;

/// Measures text, text while a hundred secrets are masked, and random output.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let mib = |quick: u64, full: u64| form.pick(quick, full, full) << 20;
    let rounds = form.pick(1, 2, 3);
    let (plain, text) = ("demo/shell", Kind::Text);
    let rows = [(plain, text, mib(64, 1_024)), (SECRETIVE, text, mib(64, 1_024)), (plain, Kind::Random, mib(16, 256))]
        .into_iter()
        .map(|(target, kind, size)| row(target, kind, size, rounds))
        .collect::<Outcome<Vec<Value>>>()?;
    Ok(json!(rows))
}

/// One deployment that prints a lot.
pub(crate) struct Run<'a> {
    pub(crate) target: &'a str,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// The SHA-256 of the output.
    pub(crate) expected: [u8; 32],
}

/// The SHA-256 of the first `size` bytes of the output of `kind`.
pub(crate) fn expected(kind: Kind, size: u64) -> Outcome<[u8; 32]> {
    let mut hasher = Sha256::new();
    tool::output(kind, size, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finalize().into())
}

fn row(name: &str, kind: Kind, size: u64, rounds: u32) -> Outcome<Value> {
    let run = Run { target: name, kind, size, expected: expected(kind, size)? };
    let mut speeds: [Vec<f64>; 3] = Default::default();
    let mut memory = Value::Null;
    let mut wire = Value::Null;
    let mut bare_seconds = Vec::new();
    for round in 0..rounds {
        let secretive = target(SECRETIVE, &Head::default(), &format!("{SECRETS}{SHELL}"));
        let sandbox = Sandbox::start(Options::default().target(SECRETIVE, secretive));
        let (took, sampled) = by_relay(&sandbox, &run)?;
        speeds[0].push(speed(size, took));
        memory = sampled;
        let batches = batches(&sandbox);
        let sum = |part: fn(&(usize, usize)) -> usize| batches.iter().map(part).sum::<usize>();
        wire = json!({ "batches": batches.len(), "frames": sum(|batch| batch.0), "bytes": sum(|batch| batch.1) });
        let before = processor_seconds("self");
        speeds[1].push(speed(size, Bare::new(&sandbox, "bare")?.replay(&batches)?));
        bare_seconds.extend(processor_seconds("self").zip(before).map(|(after, before)| after - before));
        speeds[2].push(speed(size, by_pipe(&run)?));
        let last = |at: usize| speeds[at].last().copied().unwrap_or_default();
        println!(
            "{name}: {} {} MiB, round {}: relay {:.0}, bare {:.0}, pipe {:.0} MB/s",
            kind.name(),
            size >> 20,
            round + 1,
            last(0),
            last(1),
            last(2)
        );
    }
    let [relay, bare, pipe] = speeds.map(|speeds| median(&speeds));
    Ok(json!({
        "what": kind.name(), "secrets": if name == SECRETIVE { 100 } else { 0 }, "bytes": size, "rounds": rounds, "exact": true,
        "relay_mb_s": relay, "bare_mb_s": bare, "pipe_mb_s": pipe, "wire": wire, "memory": memory,
        "bare_cpu_seconds": median(&bare_seconds),
    }))
}

/// Megabytes of output per second.
#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn speed(size: u64, took: Duration) -> f64 {
    size as f64 / 1e6 / took.as_secs_f64()
}

/// Runs it. Returns the time from the first byte to the last, and the memory and processor time of
/// both programs.
pub(crate) fn by_relay(sandbox: &Arc<Sandbox>, run: &Run<'_>) -> Outcome<(Duration, Value)> {
    let script = script(&[run.kind.name().to_owned(), run.size.to_string()])?;
    let mut command = relay_tests::kit::sandbox::command("relay");
    command.envs(sandbox.environment()).current_dir(sandbox.folder());
    command.args(["deploy", run.target, "--quiet", "--strict-output", "--param", &format!("script={script}")]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let cli = child.id();
    let watches = [
        ("cli", Watch::start(move || Some(cli))),
        ("runner", {
            let sandbox = Arc::clone(sandbox);
            Watch::start(move || {
                let pid = sandbox.tasks().first()?.pid()?;
                u32::try_from(pid.as_raw_nonzero().get()).ok()
            })
        }),
    ];
    let took = digest(child, run)?;
    let memory = watches.map(|(name, watch)| (name.to_owned(), watch.end()));
    Ok((took, Value::Object(memory.into_iter().collect())))
}

fn by_pipe(run: &Run<'_>) -> Outcome<Duration> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["tool", run.kind.name(), &run.size.to_string()]);
    digest(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?, run)
}

/// Reads the whole output. Returns the time from the first byte to the last.
///
/// # Errors
///
/// If the size or the digest of the output is wrong.
fn digest(mut child: Child, run: &Run<'_>) -> Outcome<Duration> {
    let mut out = child.stdout.take().ok_or("no pipe")?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let (mut came, mut began, mut last) = (0, None, Instant::now());
    loop {
        let count = out.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        began.get_or_insert_with(Instant::now);
        hasher.update(&buffer[..count]);
        came += count as u64;
        last = Instant::now();
    }
    let status = child.wait()?;
    let digest: [u8; 32] = hasher.finalize().into();
    let Run { size, expected, .. } = *run;
    if !status.success() || came != size || digest != expected {
        return Err(format!("{status}; {came} of {size} bytes, digest matches: {}", digest == expected).into());
    }
    Ok(last - began.unwrap_or(last))
}

/// The batches that relay sent, as numbers of messages and bytes, from the sandbox's log.
fn batches(sandbox: &Sandbox) -> Vec<(usize, usize)> {
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let calls = sandbox.calls("sqs", "SendMessageBatch");
    let sizes =
        calls.iter().filter_map(|call| Some((number(call.detail.get("entries"))?, number(call.detail.get("bytes"))?)));
    sizes.filter(|(count, bytes)| *count > 0 && bytes >= count).collect()
}
