//! The CLI in a rude world: readers that do not read, streams that do not block, full disks,
//! signals of every kind, and odd files. It stays in control, and loses nothing without a word.

use std::fs::File;
use std::io::{PipeReader, Read as _, pipe};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use relay_tests::kit::sandbox::{Task, command};
use relay_tests::kit::wait::eventually;
use relay_tests::{Options, Sandbox};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Prints more than pipes and buffers hold, and goes on until it is told to stop.
const MUCH: &str = "seq 1 400000; echo all; sleep 100";

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default())
}

fn rest(mut from: PipeReader) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

fn numbers(up_to: u32) -> String {
    (1..=up_to).map(|number| format!("{number}\n")).collect()
}

/// Waits until the CLI has written what an unread pipe holds, and has more to write.
fn until_full(reader: &PipeReader) {
    eventually("the unread pipe is full", || (rustix::io::ioctl_fionread(reader).unwrap() >= 32 * 1024).then_some(()));
}

/// Whether this process ignores the signal: SIGHUP under `nohup`, SIGQUIT as a shell's background
/// job. `relay` inherits that, and leaves such a signal ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
    u64::from_str_radix(mask, 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

// clause: CTL-5
#[test]
fn a_signal_is_heard_while_nobody_reads_the_output() {
    let sandbox = sandbox();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143), (Signal::QUIT, 143)] {
        if matches!(signal, Signal::HUP | Signal::QUIT) && is_ignored(signal) {
            eprintln!("left out: this run ignores {signal:?}");
            continue;
        }
        let (reader, writer) = pipe().unwrap();
        let running = sandbox.shell(MUCH).stdout(writer).start();
        running.until_stderr("relay step 1/1 shell");
        until_full(&reader);
        running.signal(signal);
        running.until_stderr("sent the cancel");
        let reading = std::thread::spawn(|| rest(reader));
        let done = running.wait().exits(code).says("output verified");
        assert_eq!(*done.result("/reason"), json!("cancelled"), "{signal:?}");
        assert!(reading.join().unwrap().starts_with("1\n2\n"));
    }
}

#[test]
fn a_timeout_passes_while_nobody_reads_the_output() {
    let sandbox = sandbox();
    let (reader, writer) = pipe().unwrap();
    let running = sandbox.shell(MUCH).args(&["--timeout", "3s"]).stdout(writer).start();
    running.until_stderr("the --timeout has passed: sent the cancel");
    let reading = std::thread::spawn(|| rest(reader));
    let done = running.wait().exits(124).says("stopped, because the --timeout has passed, exit 124");
    assert!(!done.err().contains("was cancelled"), "{}", done.err());
    drop(reading.join());
}

/// A stream that takes nothing for long counts as closed, so a deployment always ends.
#[test]
fn a_reader_that_never_reads_cannot_hold_a_deployment_forever() {
    let sandbox = sandbox();
    let (_unread, writer) = pipe().unwrap();
    let script = "seq 1 400000";
    let done = sandbox.shell(script).args(&["--outage-timeout", "2s", "--strict-output"]).stdout(writer).run();
    done.exits(123).says("cannot write to stdout");
}

// clause: FRM-11
/// The second signal ends the call. What nobody has read is still in the queue.
#[test]
fn who_leaves_at_a_second_signal_deletes_nothing_that_was_not_written() {
    let sandbox = sandbox();
    let (mut reader, writer) = pipe().unwrap();
    // The first lines are a frame of their own, which this reader takes whole.
    let script = "trap '' INT; seq 1 10; sleep 2; seq 11 400000; sleep 100";
    let running = sandbox.shell(script).stdout(writer).start();
    running.until_stderr("relay step 1/1 shell");
    let id = running.id();
    let mut first = [0; 4096];
    reader.read_exact(&mut first).unwrap();
    running.signal(Signal::INT);
    running.until_stderr("sent the cancel");
    std::thread::sleep(std::time::Duration::from_millis(600));
    running.signal(Signal::INT);
    running.wait().exits(130).says("to read them: relay attach");
    let seen = String::from_utf8(first.to_vec()).unwrap() + &rest(reader);
    // What the first call had written in part comes again.
    let (next, all) = (sandbox.relay(&["attach", &id]).run().out(), numbers(400_000));
    assert!(all.starts_with(&seen) && all.ends_with(&next), "{} and {} bytes", seen.len(), next.len());
    assert!(seen.len() + next.len() >= all.len(), "{} and {} bytes", seen.len(), next.len());
    assert!(!next.is_empty() && next.len() < all.len(), "{} bytes", next.len());
}

/// Another process may have made the stream non-blocking; a full pipe is then not its end.
#[test]
fn a_stream_that_does_not_block_gets_everything() {
    let sandbox = sandbox();
    for (deployments, format) in [(1, "text"), (2, "json")] {
        let (reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let running = sandbox.shell("seq 1 60000").args(&["--output", format]).stdout(writer).start();
        eventually("the task has ended", || {
            let over = |task: &Task| task.status() == "STOPPED";
            let all = sandbox.tasks();
            (all.len() == deployments && all.iter().all(over)).then_some(())
        });
        let reading = std::thread::spawn(|| rest(reader));
        running.wait().exits(0);
        let text = reading.join().unwrap();
        let output = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"));
            line["text"].as_str().filter(|_| line["type"] == "output").map(str::to_owned)
        };
        let text = if format == "json" { text.lines().filter_map(output).collect() } else { text };
        assert!(text == numbers(60_000), "{format}: {} bytes", text.len());
    }
}

#[test]
fn a_full_disk_is_said_once_and_counts_when_strict() {
    let sandbox = sandbox();
    for format in ["text", "json"] {
        for (strict, code) in [(vec![], 0), (vec!["--strict-output"], 123)] {
            let full = File::options().write(true).open("/dev/full").unwrap();
            let call = sandbox.shell("seq 1 20000; echo error >&2").args(&["--output", format]).args(&strict);
            let done = call.stdout(full).run().exits(code);
            assert_eq!(done.err().matches("cannot write to stdout").count(), 1, "{format}: {}", done.err());
        }
    }
}

#[test]
fn a_file_that_may_not_grow_is_a_failed_write() {
    let sandbox = sandbox();
    let call = sandbox.shell("seq 1 20000");
    let file = File::create(call.folder().join("log")).unwrap();
    let script = "ulimit -f 8; exec \"$0\" \"$@\"";
    call.through(&["sh", "-c", script]).stdout(file).run().exits(0).says("cannot write to stdout (file too large)");
}

#[test]
fn an_ignored_hangup_stays_ignored() {
    let sandbox = sandbox();
    let running =
        sandbox.shell("sleep 2; echo done").through(&["sh", "-c", "trap '' HUP QUIT; exec \"$0\" \"$@\""]).start();
    running.until_stderr("relay step 1/1 shell");
    running.signal(Signal::HUP);
    running.signal(Signal::QUIT);
    assert_eq!(running.wait().exits(0).out(), "done\n");
}

#[test]
fn a_result_file_may_be_a_pipe_or_stdout() {
    let sandbox = sandbox();
    // Nobody reads it: a usage error, before anything is published.
    let call = sandbox.relay(&["deploy", "demo/shell", "--param", "script=exit 3", "--result-file", "fifo"]);
    fifo(&call.folder().join("fifo"));
    call.run().exits(119).says("nobody reads");
    // Somebody reads it.
    let call = sandbox.relay(&["deploy", "demo/shell", "--param", "script=exit 3", "--result-file", "fifo"]);
    let path = call.folder().join("fifo");
    fifo(&path);
    let reading = std::thread::spawn(move || std::fs::read_to_string(path).unwrap());
    call.run().exits(3);
    assert_eq!(serde_json::from_str::<Value>(&reading.join().unwrap()).unwrap()["exit_code"], 3);
    // One document follows the tool's output.
    let arguments = ["deploy", "demo/shell", "--param", "script=echo '[1]'", "--result-file", "/dev/stdout"];
    let out = sandbox.relay(&arguments).run().exits(0).out();
    let documents: Vec<Value> = serde_json::Deserializer::from_str(&out).into_iter().map(Result::unwrap).collect();
    assert_eq!((documents.len(), &documents[1]["exit_code"]), (2, &json!(0)), "{out}");
}

fn fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// CI systems end a job that prints nothing for ten minutes or so.
#[test]
fn a_quiet_tool_is_said_to_run() {
    let sandbox = sandbox();
    let done = sandbox.shell("sleep 3").args(&["--heartbeat", "1s"]).run().exits(0).says("relay: shell running for 1s");
    assert!(done.err().contains("relay: shell running for 2s"), "{}", done.err());
    for silent in [&["--heartbeat", "0s"][..], &["--heartbeat", "1s", "--quiet"]] {
        assert!(!sandbox.shell("sleep 3").args(silent).run().exits(0).err().contains("running for"));
    }
}

/// One log receives both streams, as most CI systems have it. Each stream's lines and characters
/// stay whole, and relay's own lines begin and end where a line does.
#[test]
fn one_log_for_both_streams_has_whole_lines() {
    let sandbox = sandbox();
    let (reader, writer) = pipe().unwrap();
    let script = "(for i in $(seq 1 8000); do echo \"out ü $i.\"; done) & (for i in $(seq 1 8000); do echo \"err ñ $i.\" >&2; done); wait; printf 'last words'";
    let call = sandbox.shell(script).stdout(writer.try_clone().unwrap()).stderr(writer);
    let reading = std::thread::spawn(|| rest(reader));
    call.run().exits(0);
    let log = reading.join().unwrap();
    let torn = log.lines().filter(|line| {
        let whole = |mark: &str| line.starts_with(mark) && line.ends_with('.') && line.matches('.').count() == 1;
        let own = line.starts_with("relay ") || *line == "last words";
        !(whole("out ü ") || whole("err ñ ") || own)
    });
    // A line whose rest takes longer than a moment is torn, which a busy machine can bring about.
    // The unit tests have no clock and allow none.
    let torn: Vec<&str> = torn.collect();
    assert!(torn.len() <= 4, "{torn:?}");
    for mark in ["out ", "err "] {
        assert!(log.lines().filter(|line| line.starts_with(mark)).count() >= 8_000 - torn.len() * 2, "{torn:?}");
    }
    assert!(log.lines().any(|line| line.starts_with("relay finished: exit 0")), "{log}");
}

/// Programs read JSON also where something is wrong.
#[test]
fn failures_are_json_where_the_caller_reads_json() {
    let sandbox = sandbox();
    let wrong: [&[&str]; 3] = [
        &["deploy", "demo/shell", "--output", "json", "--parm", "x"],
        &["deploy", "demo/shell", "--output=json", "--param", "no-value"],
        &["deploy", "demo/shell", "--output", "json", "--topic", "nonsense"],
    ];
    for arguments in wrong {
        let done = sandbox.relay(arguments).run().exits(119).says("error: ");
        let line: Value = serde_json::from_str(&done.out()).unwrap();
        assert_eq!((&line["type"], &line["exit_code"]), (&json!("error"), &json!(119)), "{arguments:?}");
    }
    // A failed command fills the result file as well.
    let done = sandbox.deploy("demo/shell").args(&["--topic", "arn:aws:sns:eu-west-1:222222222222:elsewhere"]).run();
    assert_eq!(done.result("/decided_by"), &json!("relay"), "{}", done.err());
    assert_eq!(done.result("/exit_code").as_i64(), Some(done.code.into()));
    // Without the flag, nothing is printed for programs.
    let output = command("relay").args(["deploy", "x", "--parm"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.is_empty());
}

/// Nothing of a packed artifact is left behind, however the call ends.
#[test]
fn a_call_that_is_killed_leaves_no_artifact_behind() {
    let sandbox = sandbox();
    let temporary = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in 0..50 {
        std::fs::write(folder.path().join(format!("{name}")), vec![name; 1 << 20]).unwrap();
    }
    let artifact = format!("source={}", folder.path().display());
    for signal in [Signal::TERM, Signal::KILL] {
        let call = sandbox.deploy("demo/shell").args(&["--artifact", &artifact]);
        let running = call.env("TMPDIR", temporary.path().to_str().unwrap()).start();
        std::thread::sleep(std::time::Duration::from_millis(100));
        running.signal(signal);
        drop(running.wait());
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "{signal:?}");
    }
}
