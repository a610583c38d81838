//! Latency from the tool's write of a line to its print: through relay, through bare SQS calls, and
//! through a pipe. The writer and the reader of a line each stamp it.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use relay_tests::{Options, Sandbox};
use serde_json::{Value, json};

use crate::bare::Bare;
use crate::statistics::summary;
use crate::tool::{self, Lines, now_ns};
use crate::{Form, Outcome, requests, script};

/// The contenders, in the order of their turns.
const CONTENDERS: [&str; 3] = ["relay", "bare", "pipe"];

/// Faults that give SQS the response time that it has across a network: a sent message becomes
/// receivable, and each receive starts, after this many milliseconds.
const FAR: &str = r#"
[[rule]]
service = "sqs"
operation = "SendMessageBatch"
kind = "delay"
delay_ms = [5, 15]
[[rule]]
service = "sqs"
operation = "ReceiveMessage"
kind = "delay"
delay_ms = [5, 15]
"#;

/// The longest time that a contender may take to print what was written.
const LATE: Duration = Duration::from_secs(60);

/// Lines as they arrive. The first word of a line is the time at which it was written.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    state: Mutex<State>,
    ready: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    took_us: Vec<u64>,
    numbers: Vec<u64>,
    partial: Vec<u8>,
}

impl Stamps {
    /// Takes bytes that were printed now. A line may arrive in several parts.
    pub(crate) fn take(&self, bytes: &[u8]) {
        let now = now_ns();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut partial = std::mem::take(&mut state.partial);
        partial.extend_from_slice(bytes);
        let whole = partial.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in String::from_utf8_lossy(&partial[..whole]).lines() {
            let mut words = line.split(' ');
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            match (number(), number()) {
                (Some(written), Some(number)) => {
                    state.took_us.push(now.saturating_sub(written) / 1_000);
                    state.numbers.push(number);
                }
                _ if line == "ready" => self.ready.store(1, Ordering::Release),
                _ => {}
            }
        }
        state.partial = partial.split_off(whole);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) > 0
    }

    fn count(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).numbers.len() as u64
    }

    /// The times in microseconds.
    ///
    /// # Errors
    ///
    /// If any of the `lines` lines is missing or arrived more than once.
    fn finish(&self, who: &str, lines: u64) -> Outcome<Vec<u64>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A bare queue does not preserve order.
        state.numbers.sort_unstable();
        if !state.numbers.iter().copied().eq(0..lines) {
            return Err(
                format!("{who}: {} of {lines} lines arrived, or some arrived twice", state.numbers.len()).into()
            );
        }
        Ok(std::mem::take(&mut state.took_us))
    }
}

/// The rate at which a tool writes, and how it takes turns with the other contenders.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: u32,
    slot: Duration,
    lines: u32,
}

impl Rate {
    /// Slow contenders take turns line by line, fast ones in slots of half a second.
    fn new(per_second: u32) -> Self {
        let of = u32::try_from(CONTENDERS.len()).unwrap_or(1);
        let slot =
            if per_second * of < 50 { Duration::from_secs(1) / per_second / of } else { Duration::from_millis(500) };
        let lines = u32::try_from(slot.as_millis() * u128::from(per_second) / 1_000).unwrap_or(1).max(1);
        Self { per_second, slot, lines }
    }

    /// The arguments for a contender's tool, chosen so that all contenders together take about
    /// `time`.
    fn lines(&self, gate: &Path, turn: usize, time: Duration) -> Lines {
        let of = u32::try_from(CONTENDERS.len()).unwrap_or(1);
        let rounds = time.as_micros() / (self.slot * of).as_micros();
        Lines {
            gate: gate.to_owned(),
            slot: self.slot,
            turn: u32::try_from(turn).unwrap_or_default(),
            of,
            slots: u32::try_from(rounds).unwrap_or(1).max(1),
            lines: self.lines,
            pause: Duration::from_secs(1) / self.per_second,
        }
    }
}

/// Measures latency at every rate, and the SQS requests of a deployment.
pub(crate) fn measure(form: Form) -> Outcome<Value> {
    let seconds = |quick, default, full| Duration::from_secs(form.pick(quick, default, full));
    let mut rows = Vec::new();
    let mut requests = Value::Null;
    for (rates, far, time) in [
        (&[1, 10][..], false, seconds(15, 40, 120)),
        (&[100], false, seconds(6, 20, 60)),
        (&[10_000], false, seconds(6, 20, 60)),
        (&[10, 100], true, seconds(6, 20, 60)),
    ] {
        // A sandbox for each race, so that no two share a log or a queue.
        let sandbox = Sandbox::start(Options::default());
        if far {
            sandbox.set_faults(FAR);
        }
        let (measured, id) = race(&sandbox, rates, time)?;
        for (rate, times) in rates.iter().zip(measured) {
            let [relay, bare, pipe] = times.map(|times| summary(&times));
            let row = json!({ "per_second": rate, "far": far, "relay": relay, "bare": bare, "pipe": pipe });
            println!("{}", one_line(&row));
            rows.push(row);
        }
        if rates.contains(&1) {
            requests = requests::of(&sandbox, &id, time)?;
            println!("{requests}");
        }
    }
    Ok(json!({ "rows": rows, "requests": requests }))
}

fn one_line(row: &Value) -> String {
    let of = |who: &str| format!("{who} {}/{} us", row[who]["p50_us"], row[who]["p99_us"]);
    let far = if row["far"] == true { " (far)" } else { "" };
    format!("{:>6}/s{far}: {}", row["per_second"], CONTENDERS.map(of).join(", "))
}

type Times = [Vec<u64>; 3];

/// Runs all contenders at these rates for about `time`. Also returns the id of relay's first
/// deployment.
fn race(sandbox: &Sandbox, rates: &[u32], time: Duration) -> Outcome<(Vec<Times>, String)> {
    let gate = sandbox.folder().join("gate");
    let own = std::env::current_exe()?;
    let mut deployments = Vec::new();
    let mut pipes = Vec::new();
    let mut bares = Vec::new();
    let mut runs: Vec<[(Arc<Stamps>, u64); 3]> = Vec::new();
    for per_second in rates {
        let rate = Rate::new(*per_second);
        let stamps = CONTENDERS.map(|_| Arc::new(Stamps::default()));
        let lines = [0, 1, 2].map(|turn| rate.lines(&gate, turn, time));
        let tool = |turn: usize| -> Vec<String> { [vec!["tool".to_owned()], lines[turn].arguments()].concat() };
        deployments.push(Deployment::start(sandbox, &script(&lines[0].arguments())?, &stamps[0])?);
        let bare = Bare::new(sandbox, &format!("bare-{per_second}"))?;
        bare.stream(&own, &tool(1), Arc::clone(&stamps[1]))?;
        bares.push(bare);
        pipes.push(pipe(Command::new(&own).args(tool(2)), &stamps[2])?);
        let [relay, bare, pipe] = stamps;
        runs.push([(relay, lines[0].count()), (bare, lines[1].count()), (pipe, lines[2].count())]);
    }
    until("all readers are ready", || runs.iter().flatten().all(|(stamps, _)| stamps.is_ready()))?;
    tool::open(&gate, now_ns() + 300_000_000)?;
    std::thread::sleep(time);
    until("all lines are printed", || runs.iter().flatten().all(|(stamps, lines)| stamps.count() >= *lines))?;
    let mut id = String::new();
    for deployment in deployments {
        let ended = deployment.end()?;
        id = if id.is_empty() { ended } else { id };
    }
    for mut child in pipes {
        child.wait()?;
    }
    let times = |run: &[(Arc<Stamps>, u64); 3]| -> Outcome<Times> {
        let [relay, bare, pipe] = run;
        Ok([relay.0.finish("relay", relay.1)?, bare.0.finish("bare", bare.1)?, pipe.0.finish("pipe", pipe.1)?])
    };
    Ok((runs.iter().map(times).collect::<Outcome<_>>()?, id))
}

fn until(what: &str, mut is: impl FnMut() -> bool) -> Outcome {
    let began = Instant::now();
    while !is() {
        if began.elapsed() > LATE {
            return Err(format!("{what}: this did not happen within {LATE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Starts a child process whose standard output is stamped as it arrives.
fn pipe(command: &mut Command, stamps: &Arc<Stamps>) -> Outcome<Child> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut out = child.stdout.take().ok_or("no pipe")?;
    let stamps = Arc::clone(stamps);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = out.read(&mut buffer) {
            stamps.take(&buffer[..count]);
        }
    });
    Ok(child)
}

/// A run of `relay deploy demo/shell` whose output is stamped.
struct Deployment {
    child: Child,
    result: tempfile::TempPath,
}

impl Deployment {
    fn start(sandbox: &Sandbox, script: &str, stamps: &Arc<Stamps>) -> Outcome<Self> {
        let result = tempfile::NamedTempFile::new_in(sandbox.folder())?.into_temp_path();
        let mut command = relay_tests::kit::sandbox::command("relay");
        command.envs(sandbox.environment()).current_dir(sandbox.folder());
        command.args(["deploy", "demo/shell", "--quiet", "--strict-output", "--param", &format!("script={script}")]);
        command.arg("--result-file").arg(&result);
        Ok(Self { child: pipe(&mut command, stamps)?, result })
    }

    /// Waits for the end and returns the deployment's id.
    ///
    /// # Errors
    ///
    /// If the exit code is not 0, or the result file has no id.
    fn end(mut self) -> Outcome<String> {
        let status = self.child.wait()?;
        let result: Value = serde_json::from_str(&std::fs::read_to_string(&self.result)?)?;
        match (status.code(), result["deployment_id"].as_str()) {
            (Some(0), Some(id)) => Ok(id.to_owned()),
            _ => Err(format!("relay: {status}: {result}").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contenders_never_write_at_the_same_time() {
        for per_second in [1, 10, 100, 10_000] {
            let rate = Rate::new(per_second);
            assert!(Duration::from_secs(1) / per_second * (rate.lines - 1) <= rate.slot, "{per_second}");
            let lines = rate.lines(Path::new("gate"), 1, Duration::from_secs(30));
            let written = u64::from(per_second) * 30 / if per_second < 50 { 1 } else { 3 };
            assert_eq!(lines.count(), written, "{per_second}");
        }
    }

    #[test]
    fn lines_are_counted_whatever_the_parts() {
        let stamps = Stamps::default();
        stamps.take(b"ready\n1 0 a\n2 ");
        stamps.take(b"1 b\n");
        assert!(stamps.is_ready());
        assert!(stamps.finish("x", 3).is_err());
        assert_eq!(stamps.finish("x", 2).unwrap().len(), 2);
        stamps.take(b"3 1 again\n");
        assert!(stamps.finish("x", 2).is_err());
    }
}
