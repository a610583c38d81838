//! Nothing is lost: SQS may be unavailable for long, the spool takes what the tool prints
//! meanwhile, and the archive has everything.

use std::path::PathBuf;
use std::sync::Arc;

use relay_protocol::evidence::Evidence;
use relay_tests::kit::sandbox::{TARGET, command};
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox, eventually};

/// A sandbox with a target whose spool is small. Every test sets faults, so each has its own
/// sandbox.
fn sandbox() -> Arc<Sandbox> {
    let small = target("test/small", &Head::default(), SHELL).replace("uid = ", "spool = \"1MiB\"\nuid = ");
    Sandbox::start(Options::default().target("test/small", small))
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    eventually(what, || condition().then_some(()));
}

/// A rule under which no message of the runner arrives for a number of milliseconds, or until the
/// faults are replaced.
fn outage(operation: &str, matching: &str, milliseconds: u64) -> String {
    format!(
        "[[rule]]\nservice = \"{}\"\noperation = \"{operation}\"\nkind = \"outage\"\nmatch = \"{matching}\"\nuntil_ms = {milliseconds}\n",
        if operation == "PutObject" { "s3" } else { "sqs" }
    )
}

/// How many bytes the archive has of a deployment of `demo/shell`.
fn archived(sandbox: &Sandbox, id: &str) -> usize {
    let object = |number: usize| sandbox.evidence(id, &format!("runner/{number:06}.jsonl"));
    (0..).map_while(|number| object(number).map(|object| object.len())).sum()
}

/// The files that the runner has open, with their lengths in bytes: its spool and the archive's
/// files have no names.
fn files(sandbox: &Sandbox, id: &str) -> Vec<(PathBuf, u64)> {
    let runner = sandbox.tasks_of(id).first().unwrap().pid().unwrap();
    let held = std::fs::read_dir(format!("/proc/{}/fd", runner.as_raw_nonzero())).unwrap();
    held.flatten()
        .filter_map(|fd| Some((fd.path(), std::fs::metadata(fd.path()).ok()?)))
        .filter(|(_, file)| file.is_file())
        .map(|(path, file)| (path, file.len()))
        .collect()
}

/// Runs `relay-admin log`. Returns exit code, stdout and stderr.
fn log(sandbox: &Sandbox, name: &str, id: &str) -> (i32, Vec<u8>, String) {
    let (_, _, configuration) = sandbox.operator().definition(&format!("relay_{}", name.replace('/', "_")));
    let file = sandbox.folder().join(format!("{}-{id}.toml", name.replace('/', "-")));
    std::fs::write(&file, configuration).unwrap();
    let mut admin = command("relay-admin");
    admin.envs(sandbox.environment()).env("AWS_ACCESS_KEY_ID", TARGET).arg("log").arg(&file).arg(id);
    let output = admin.output().unwrap();
    (output.status.code().unwrap(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

// clause: FRM-15, ARC-1, ARC-2
#[test]
fn what_was_printed_while_sqs_was_away_comes_afterwards_and_is_archived() {
    let sandbox = Sandbox::start(Options::default());
    let marker = sandbox.folder().join("printed");
    // Three times what the runner holds in memory, of data that does not compress. The tool ends
    // although SQS has taken none of it.
    let script = format!(
        "echo first; while [ ! -e {0} ]; do sleep 0.05; done; head -c 24000000 /dev/urandom | tee {0}.bytes; echo end >&2; touch {0}.end; exit 3",
        marker.display()
    );
    let deployment = sandbox.shell(&script).start();
    deployment.until_stdout("first");
    sandbox.set_faults(&outage("SendMessageBatch", "-reply", 600_000));
    std::fs::write(&marker, "").unwrap();
    until("the tool has ended, and did not wait for SQS", || marker.with_extension("end").exists());
    sandbox.set_faults("");
    let done = deployment.wait().exits(3);
    let mut expected = b"first\n".to_vec();
    expected.extend(std::fs::read(marker.with_extension("bytes")).unwrap());
    assert!(done.stdout == expected, "{} bytes of {}", done.stdout.len(), expected.len());
    assert_eq!(*done.result("/output/verified"), true);
    let (code, stdout, stderr) = log(&sandbox, "demo/shell", &done.id());
    assert!(code == 0 && stdout == expected && stderr.contains("end\n"), "{code} {} {stderr}", stdout.len());
    assert!(stderr.contains("exit code 3"), "{stderr}");
}

#[test]
fn while_sqs_is_away_it_is_not_the_runner_that_is_silent() {
    let sandbox = Sandbox::start(Options::default());
    let script = "echo begun; i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; sleep 1; done; exit 6";
    // Longer than a receive that had already begun, and shorter than the outage.
    let deployment = sandbox.shell(script).args(&["--silence-timeout", "30s"]).start();
    deployment.until_stdout("begun");
    sandbox.set_faults("[[rule]]\nservice = \"sqs\"\nkind = \"outage\"\nuntil_ms = 45000\n");
    let done = deployment.wait().exits(6);
    assert_eq!(done.out().lines().count(), 51);
    // The CLI waits no longer than `--outage-timeout`.
    let deployment =
        sandbox.shell("echo begun; sleep 600").args(&["--silence-timeout", "21s", "--outage-timeout", "3s"]).start();
    deployment.until_stdout("begun");
    sandbox.set_faults("[[rule]]\nservice = \"sqs\"\nkind = \"outage\"\n");
    deployment.wait().exits(122).says("ServiceUnavailable");
}

// clause: FRM-15
#[test]
fn the_tool_waits_only_when_the_spool_is_full_and_that_is_said() {
    let sandbox = sandbox();
    let folder = sandbox.folder().join("small");
    std::fs::create_dir(&folder).unwrap();
    // The tool blocks on the pipe once memory and spool are full: 2 MiB in flight, 1 MiB waiting, 1
    // MiB on disk, and a few buffers.
    let script = format!(
        "echo first; while [ ! -e {0}/go ]; do sleep 0.05; done; head -c 1000000 /dev/urandom; touch {0}/one; head -c 29000000 /dev/urandom; touch {0}/all",
        folder.display()
    );
    let deployment = sandbox.deploy("test/small").param("script", &script).start();
    deployment.until_stdout("first");
    sandbox.set_faults(&outage("SendMessageBatch", &deployment.id(), 600_000));
    std::fs::write(folder.join("go"), "").unwrap();
    until("everything that fits is accepted", || folder.join("one").exists());
    let spooled = || files(&sandbox, &deployment.id()).iter().map(|(_, length)| length).sum::<u64>();
    // Counts the archive's files too: the tool is blocked when neither they nor the spool grow.
    // relay reports a wait of a second or more.
    until("the spool is full, and stays so for more than a second", || {
        let before = spooled();
        std::thread::sleep(std::time::Duration::from_millis(1_200));
        before > 1 << 20 && spooled() == before
    });
    assert!(!folder.join("all").exists(), "the waiting output has no bound");
    sandbox.set_faults("");
    let done = deployment.wait().exits(0).says("relay made the tool wait for");
    assert_eq!(done.stdout.len(), 30_000_006);
    assert_eq!(*done.result("/output/verified"), true);
}

// clause: FRM-15
#[test]
fn what_a_stopped_tool_had_printed_waits_for_the_queue_as_long_as_it_must() {
    let sandbox = sandbox();
    let bytes = sandbox.folder().join("stopped");
    let script = format!(
        "trap 'touch {0}.dead; exit 9' INT; echo first; while [ ! -e {0}.go ]; do sleep 0.05; done; head -c 29000000 /dev/urandom | tee {0}",
        bytes.display()
    );
    let deployment = sandbox.deploy("test/small").param("script", &script).start();
    deployment.until_stdout("first");
    sandbox.set_faults(&outage("SendMessageBatch", &format!("{}-reply", deployment.id()), 600_000));
    std::fs::write(bytes.with_extension("go"), "").unwrap();
    let written = || std::fs::metadata(&bytes).map_or(0, |file| file.len());
    until("memory and spool are full: the tool hangs in its pipe", || {
        let before = written();
        std::thread::sleep(std::time::Duration::from_millis(1_200));
        before > 0 && written() == before
    });
    deployment.signal(rustix::process::Signal::INT);
    until("the tool has ended", || bytes.with_extension("dead").exists());
    // Longer than the runner waits for a pipe that another process holds open.
    std::thread::sleep(std::time::Duration::from_secs(7));
    sandbox.set_faults("");
    let done = deployment.wait().exits(130);
    // The tool's copy in the file is never ahead of what it wrote to the pipe.
    let expected = [b"first\n".to_vec(), std::fs::read(&bytes).unwrap()].concat();
    assert!(done.stdout.starts_with(&expected), "{} bytes of {}", done.stdout.len(), expected.len());
    assert!(*done.result("/output/verified") == true && !done.err().contains("missing"), "{}", done.err());
}

// clause: ARC-1
#[test]
fn what_sqs_does_not_take_is_archived_as_it_is_made() {
    let sandbox = Sandbox::start(Options::default().set("task_events=true"));
    let bytes = sandbox.folder().join("bytes");
    // Far more than memory holds. Then the runner is killed, with most of it on its disk and none
    // of it in the queue.
    let script = format!(
        "echo first; while [ ! -e {0}.go ]; do sleep 0.05; done; head -c 24000000 /dev/urandom | tee {0}; sleep 600",
        bytes.display()
    );
    let deployment = sandbox.shell(&script).args(&["--drain-timeout", "2s"]).start();
    deployment.until_stdout("first");
    let id = deployment.id();
    sandbox.set_faults(&outage("SendMessageBatch", &id, 600_000));
    std::fs::write(bytes.with_extension("go"), "").unwrap();
    // In base64 it is 32 MB. Less than one object may still be waiting to be archived.
    until("the archive has it", || archived(&sandbox, &id) > 30_000_000);
    rustix::process::kill_process(sandbox.tasks_of(&id).remove(0).pid().unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    sandbox.set_faults("");
    let done = deployment.wait().exits(122);
    let (code, stdout, stderr) = log(&sandbox, "demo/shell", &id);
    let expected = [b"first\n".to_vec(), std::fs::read(bytes).unwrap()].concat();
    assert!(code == 1 && expected.starts_with(&stdout) && expected.starts_with(&done.stdout), "{code} {stderr}");
    assert!(stdout.len() > 22_000_000 && stdout.len() > done.stdout.len(), "{} of {}", stdout.len(), expected.len());
}

// clause: FRM-15, ARC-1
#[test]
fn a_disk_that_forgets_what_waits_is_told_and_the_archive_has_it_all() {
    let sandbox = Sandbox::start(Options::default());
    let bytes = sandbox.folder().join("bytes");
    let script = format!(
        "echo first; while [ ! -e {0}.go ]; do sleep 0.05; done; head -c 24000000 /dev/urandom | tee {0}; touch {0}.end; while [ ! -e {0}.exit ]; do sleep 0.05; done; echo last; exit 3",
        bytes.display()
    );
    let deployment = sandbox.shell(&script).start();
    deployment.until_stdout("first");
    let id = deployment.id();
    sandbox.set_faults(&outage("SendMessageBatch", &id, 600_000));
    std::fs::write(bytes.with_extension("go"), "").unwrap();
    until("the tool has printed it", || bytes.with_extension("end").exists());
    until("nothing of it waits on disk for the archive", || archived(&sandbox, &id) > 30_000_000);
    let spooled: Vec<_> = files(&sandbox, &id).into_iter().filter(|(_, length)| *length > 1 << 20).collect();
    assert!(!spooled.is_empty(), "what waits is not on disk");
    for (path, _) in spooled {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(3).unwrap();
    }
    sandbox.set_faults("");
    deployment.until_stderr("output is missing here: the runner's disk failed");
    std::fs::write(bytes.with_extension("exit"), "").unwrap();
    let done = deployment.wait().says("output INCOMPLETE");
    let expected = [b"first\n".to_vec(), std::fs::read(bytes).unwrap(), b"last\n".to_vec()].concat();
    // The beginning was in memory, and the end came after the loss.
    let same = done.stdout.iter().zip(&expected).take_while(|(ours, tools)| ours == tools).count();
    assert!(
        same > 1 << 20 && done.stdout.len() < expected.len() && done.stdout.ends_with(b"last\n"),
        "{same} of {}: {}",
        done.stdout.len(),
        done.err()
    );
    done.exits(3);
    let (code, stdout, stderr) = log(&sandbox, "demo/shell", &id);
    assert!(code == 0 && stdout == expected, "{code} {} {stderr}", stdout.len());
}

// clause: ARC-2
#[test]
fn an_archive_that_takes_nothing_for_a_while_is_whole_in_the_end() {
    let sandbox = Sandbox::start(Options::default());
    // S3 is away, and S3 denies, as while a permission is on its way.
    let denied = "[[rule]]\nservice = \"s3\"\noperation = \"PutObject\"\nkind = \"error\"\ncode = \"AccessDenied\"\n\
                  match = \"/runner/0\"\ncount = 3\n";
    for rule in [outage("PutObject", "/runner/0", 4_000).as_str(), denied] {
        sandbox.set_faults(rule);
        let done = sandbox.shell("head -c 6000000 /dev/urandom; echo done >&2").run().exits(0);
        until("the runner has ended", || sandbox.tasks_of(&done.id()).iter().all(|task| task.status() == "STOPPED"));
        let (code, stdout, stderr) = log(&sandbox, "demo/shell", &done.id());
        assert_eq!((code, stdout == done.stdout), (0, true), "{rule}: {stderr}");
    }
}

// clause: ARC-1, ARC-3
#[test]
fn a_killed_runner_leaves_what_it_had_archived_and_nobody_can_add_to_it() {
    let sandbox = Sandbox::start(Options::default().set("task_events=true"));
    // Enough for a first object. Then the runner is killed.
    let deployment =
        sandbox.shell("head -c 4000000 /dev/urandom; echo; sleep 600").args(&["--drain-timeout", "2s"]).start();
    let id = deployment.id();
    let object = |number: usize| format!("runner/{number:06}.jsonl");
    until("an object is in the archive", || sandbox.evidence(&id, &object(0)).is_some());
    let task = sandbox.tasks_of(&id).remove(0);
    rustix::process::kill_process(task.pid().unwrap(), rustix::process::Signal::KILL).unwrap();
    let done = deployment.wait().exits(122);
    let (code, stdout, stderr) = log(&sandbox, "demo/shell", &id);
    assert!(code == 1 && stderr.contains("does not have the deployment's end"), "{code} {stderr}");
    // An object is 1 MiB of lines, of which base64 and attributes are a quarter. The archive may be
    // ahead of the queue or behind it; what both have is the same. Four batches are in flight at a
    // time. When the runner is killed, an earlier one of these may be missing, and then the CLI
    // reports it.
    let both = stdout.len().min(done.stdout.len());
    let same = stdout.iter().zip(&done.stdout).take_while(|(archived, printed)| archived == printed).count();
    assert!(stdout.len() > 700_000 && same > 0, "{} and {}", stdout.len(), done.stdout.len());
    assert!(same == both || done.err().contains("GAP in the output"), "they differ from {same} on: {}", done.err());
    // A line that another writer put there is not believed.
    let forged = r#"{"from":"runner","sig":"","body":"{\"deployment_id\":\"x\",\"seq\":1,\"kind\":\"heartbeat\"}"}"#;
    let free = (1..).map(object).find(|name| sandbox.evidence(&id, name).is_none()).unwrap();
    let evidence = Evidence::of(&"demo/shell".parse().unwrap(), &id.parse().unwrap());
    let key = format!("{}/{free}", evidence.folder());
    sandbox.operator().put_object(&sandbox.evidence_bucket(), &key, forged.as_bytes().to_vec());
    let (code, again, stderr) = log(&sandbox, "demo/shell", &id);
    assert!(code == 1 && again == stdout && stderr.contains("1 frames were dropped"), "{stderr}");
}
