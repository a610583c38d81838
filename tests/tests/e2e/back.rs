//! What a deployment leaves behind can be found again: the tags of its queues, `relay status`,
//! `relay cancel`, `relay gc`, and `--wait`.

use std::sync::Arc;

use relay_tests::kit::deploy::Deploy;
use relay_tests::kit::sandbox::TARGET;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Deployed, Options, Sandbox, eventually};
use rustix::process::Signal;
use serde_json::Value;

fn sandbox() -> Arc<Sandbox> {
    let open = Head { cancel: r#"{ signal = "TERM", grace = "5s" }"#, ..Head::default() };
    let shut = Head { policy: r#"permit(principal, action == Action::"deploy", resource);"#, ..Head::default() };
    let busy = Head { concurrency: 1, ..Head::default() };
    let all = [("test/open", open), ("test/shut", shut), ("test/busy", busy)];
    let options =
        all.iter().fold(Options::default(), |options, (name, head)| options.target(name, target(name, head, SHELL)));
    Sandbox::start(options)
}

fn status(sandbox: &Sandbox, id: &str) -> Value {
    let done = sandbox.relay(&["status", id, "--output", "json"]).run().exits(0);
    serde_json::from_slice(&done.stdout).unwrap()
}

fn detach(sandbox: &Sandbox, target: &str, script: &str) -> String {
    let detached = sandbox.relay(&["deploy", target, "--detach"]).param("script", script).run().exits(0);
    detached.out().trim().to_owned()
}

fn attach(sandbox: &Sandbox, id: &str) -> Deploy {
    sandbox.relay(&["attach", id])
}

const PATIENT: &str = "trap 'echo got TERM; exit 0' TERM; echo begun; while :; do sleep 0.05; done";

// clause: CTL-2
#[test]
fn what_goes_on_is_seen_and_can_be_cancelled_from_elsewhere() {
    let sandbox = sandbox();
    let id = detach(&sandbox, "test/open", PATIENT);
    let seen = eventually("it runs", || Some(status(&sandbox, &id)).filter(|seen| seen["state"] == "running"));
    assert_eq!((&seen["target"], &seen["deployment_id"]), (&"test/open".into(), &id.as_str().into()));
    assert_eq!(seen["acknowledged"], 0);
    assert!(seen["deadline"].as_str().unwrap() > "2020" && seen["highest_waiting"].as_u64().is_some(), "{seen}");
    let text = sandbox.relay(&["status", &id]).run().exits(0).out();
    assert!(text.contains("running") && text.contains(&format!("relay attach {id}")), "{text}");
    sandbox.relay(&["cancel", &id]).run().exits(0).says("asked").says("relay attach");
    let done = attach(&sandbox, &id).run().exits(130).says("(cancelled)");
    assert_eq!(done.out(), "begun\ngot TERM\n");
    // Its queues have been deleted by now.
    for command in ["status", "cancel", "attach"] {
        sandbox.relay(&[command, &id]).run().exits(119).says("no queue of").says("hint: ");
    }
    // With the target, the record says how it ended to whom the evidence is readable.
    let text =
        sandbox.relay(&["status", &id, "--target", "test/open"]).env("AWS_ACCESS_KEY_ID", TARGET).run().exits(0).out();
    assert!(text.contains("exit 130: its record, signed by the pinned key, says so"), "{text}");
}

// clause: CTL-2
#[test]
fn whom_the_policy_does_not_allow_to_cancel_cancels_nothing() {
    let sandbox = sandbox();
    let gate = sandbox.folder().join("shut");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done; exit 9", gate.display());
    let running = sandbox.deploy("test/shut").param("script", &script).start();
    running.until_stdout("begun");
    sandbox.relay(&["cancel", &running.id()]).run().exits(0).says("the target's policy decides");
    let task = sandbox.tasks_of(&running.id()).remove(0);
    eventually("the runner has dropped it", || task.log().contains("may not stop this deployment").then_some(()));
    std::fs::write(gate, "").unwrap();
    running.wait().exits(9);
}

// clause: FRM-19
#[test]
fn what_was_acknowledged_is_tagged_and_does_not_come_again() {
    let sandbox = Sandbox::start(Options::default());
    // The first deletion has no effect and is not retried.
    let rule = "service = \"sqs\"\noperation = \"DeleteMessageBatch\"\nkind = \"error\"\ncode = \"Odd\"\ncount = 1\n";
    sandbox.set_faults(&format!("[[rule]]\n{rule}"));
    let gate = sandbox.folder().join("tagged");
    let script = format!(
        "echo one; sleep 0.3; echo two; while [ ! -e {} ]; do sleep 0.05; done; echo three; exit 4",
        gate.display()
    );
    let running = sandbox.shell(&script).args(&["--on-interrupt", "detach"]).start();
    running.until_stdout("two\n");
    let id = running.id();
    running.signal(Signal::INT);
    running.wait().exits(130);
    let seen = status(&sandbox, &id);
    let acknowledged = seen["acknowledged"].as_u64().unwrap();
    assert!(acknowledged >= 3 && seen["followed_at"].is_string(), "{seen}");
    assert_eq!(seen["state"], "running", "although all messages were read");
    std::fs::write(gate, "").unwrap();
    // A frame that was printed but not deleted comes again from the queue, followed by a gap in the
    // numbers. It is neither printed again nor reported as missing output.
    let done = attach(&sandbox, &id).run().exits(4).says("output complete from where this call began");
    assert_eq!(done.out(), "three\n");
    assert!(!done.err().contains("GAP") && !done.err().contains("arrived late"), "{}", done.err());
}

/// Runs `relay gc`.
fn gc(sandbox: &Sandbox, arguments: &[&str]) -> Deployed {
    sandbox.relay(&[&["gc"], arguments].concat()).run()
}

#[test]
fn queues_of_the_dead_are_swept_and_those_of_the_living_stay() {
    let sandbox = Sandbox::start(Options::default());
    let gate = sandbox.folder().join("gate");
    let waits = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let (living, dead) = (detach(&sandbox, "demo/shell", &waits), detach(&sandbox, "demo/shell", "echo output"));
    let reply = |id: &str| format!("https://sqs.eu-west-1.amazonaws.com/111111111111/relay-{id}-reply");
    // Its deadline has passed: `gc` judges by the tag.
    let long_ago = [("relay-deadline", "2026-01-01T00:00:00Z")];
    sandbox.ci().tag(&reply(&dead), &long_ago);
    let other = sandbox.ci().create_queue("relay-not-a-deployment-reply");
    sandbox.ci().tag(&other, &long_ago);
    let said = gc(&sandbox, &["--dry-run"]).exits(0).says("would delete the queues of 1 deployments, left those of 1");
    assert!(said.out().contains(&dead) && !said.out().contains(&living), "{}", said.out());
    status(&sandbox, &dead);
    gc(&sandbox, &["--keep", "999999h"]).exits(0).says("deleted the queues of 0 deployments, left those of 2");
    let said = gc(&sandbox, &["--keep", "0s"]).exits(0).says("deleted the queues of 1 deployments, left those of 1");
    assert!(said.out().contains(&dead), "{}", said.out());
    sandbox.relay(&["status", &dead]).run().exits(119);
    std::fs::write(gate, "").unwrap();
    attach(&sandbox, &living).run().exits(0);
    assert!(sandbox.ci().receive(&other).is_empty(), "gc leaves queues with other names alone");
}

// clause: LCK-3
#[test]
fn who_waits_gets_its_turn_under_a_new_id() {
    let sandbox = sandbox();
    let gate = sandbox.folder().join("busy");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let first = sandbox.deploy("test/busy").param("script", &script).start();
    first.until_stdout("begun");
    sandbox.deploy("test/busy").param("script", "true").args(&["--wait", "1s"]).run().exits(120).says("(busy)");
    let second = sandbox.deploy("test/busy").param("script", "echo mine; exit 5").args(&["--wait", "5m"]).start();
    second.until_stderr("busy; asking again in 5s");
    std::fs::write(gate, "").unwrap();
    first.wait().exits(0);
    let done = second.wait().exits(5);
    assert_eq!(done.out(), "mine\n");
    assert!(done.err().matches("published").count() >= 2, "{}", done.err());
}

// clause: LCK-1, LCK-2
#[test]
fn slots_are_shared_by_many_and_a_dead_holder_leaves_its_own() {
    let two = Head { concurrency: 2, ..Head::default() };
    let sandbox =
        Sandbox::start(Options::default().set("task_events=true").target("test/two", target("test/two", &two, SHELL)));
    let (inside, seen) = (sandbox.folder().join("inside"), sandbox.folder().join("seen"));
    std::fs::create_dir(&inside).unwrap();
    // A holder that dies while it has its slot.
    let dies = sandbox
        .deploy("test/two")
        .param("script", "echo begun; exec sleep 600")
        .args(&["--drain-timeout", "1s"])
        .start();
    dies.until_stdout("begun");
    let script = format!(
        "touch {0}/$RELAY_DEPLOYMENT_ID; ls {0} | wc -l >> {1}; sleep 0.5; rm {0}/$RELAY_DEPLOYMENT_ID",
        inside.display(),
        seen.display()
    );
    let many: Vec<_> =
        (0..5).map(|_| sandbox.deploy("test/two").param("script", &script).args(&["--wait", "10m"]).start()).collect();
    eventually("one has run", || seen.exists().then_some(()));
    let runner = sandbox.tasks_of(&dies.id()).remove(0).pid().unwrap();
    rustix::process::kill_process(runner, Signal::KILL).unwrap();
    dies.wait().exits(122);
    for running in many {
        running.wait().exits(0);
    }
    let seen = std::fs::read_to_string(seen).unwrap();
    let seen: Vec<u32> = seen.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(seen.len() == 5 && seen.iter().all(|inside| (1..=2).contains(inside)), "{seen:?}");
}

#[test]
fn credentials_that_end_in_mid_tail_are_named_with_the_remedy() {
    let sandbox = Sandbox::start(Options::default());
    // Longer than a receive waits. Before that, the retries go on for a minute.
    let deploy = sandbox.shell("echo begun; exec sleep 600").args(&["--silence-timeout", "21s"]);
    let running = deploy.bound(std::time::Duration::from_secs(300)).start();
    running.until_stdout("begun");
    sandbox.set_faults(
        "[[rule]]\nservice = \"sqs\"\noperation = \"ReceiveMessage\"\nkind = \"error\"\ncode = \"ExpiredToken\"\n",
    );
    running.wait().exits(122).says("ExpiredToken").says("CI's credentials expired before the deployment ended");
}

#[test]
fn a_signal_ends_the_waiting() {
    let sandbox = Sandbox::start(
        Options::default().target("test/one", target("test/one", &Head { concurrency: 1, ..Head::default() }, SHELL)),
    );
    let first = sandbox.deploy("test/one").param("script", "echo begun; exec sleep 600").start();
    first.until_stdout("begun");
    let second = sandbox.deploy("test/one").param("script", "true").args(&["--wait", "5m"]).start();
    second.until_stderr("busy; asking again");
    second.signal(Signal::TERM);
    second.wait().exits(143);
    first.signal(Signal::INT);
    first.wait().exits(130);
}
