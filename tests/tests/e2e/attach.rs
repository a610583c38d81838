//! Reattaching: another call follows a deployment to its end after its CI job has left, on purpose
//! or not.

use std::sync::Arc;

use relay_tests::kit::deploy::Deploy;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox, eventually};
use rustix::process::Signal;

fn sandbox() -> Arc<Sandbox> {
    let head = Head { cancel: r#"{ signal = "TERM", grace = "5s" }"#, ..Head::default() };
    Sandbox::start(Options::default().set("task_events=true").target("test/shell", target("test/shell", &head, SHELL)))
}

fn attach(sandbox: &Sandbox, id: &str) -> Deploy {
    sandbox.relay(&["attach", id])
}

fn detach(sandbox: &Sandbox, script: &str) -> Deploy {
    sandbox.relay(&["deploy", "test/shell", "--detach"]).param("script", script)
}

fn queue_is_gone(sandbox: &Sandbox, id: &str) {
    let deleted = |entry: &relay_tests::kit::sandbox::Entry| {
        entry.is("sqs", "DeleteQueue") && entry.ok && entry.detail.values().any(|value| value.to_string().contains(id))
    };
    eventually("the queues are deleted", || {
        (sandbox.log().iter().filter(|entry| deleted(entry)).count() == 2).then_some(())
    });
}

// clause: FRM-19
#[test]
fn a_detached_deployment_is_followed_later() {
    let sandbox = sandbox();
    let script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; echo oops >&2; exit 7";
    let detached = detach(&sandbox, script).run().exits(0);
    let id = detached.out().trim().to_owned();
    assert_eq!(id, detached.id());
    let done = attach(&sandbox, &id).run().exits(7).says("output verified");
    assert_eq!(done.out(), "line 1\nline 2\nline 3\nline 4\nline 5\n");
    assert_eq!(String::from_utf8(done.tool_err()).unwrap(), "oops\n");
    queue_is_gone(&sandbox, &id);
    attach(&sandbox, &id).run().exits(119).says("no queue of").says("hint: ");
}

// clause: FRM-19
#[test]
fn after_a_killed_ci_agent_nothing_is_lost() {
    let sandbox = sandbox();
    let script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; exit 3";
    let running = sandbox.deploy("test/shell").param("script", script).start();
    running.until_stdout("line 20\n");
    let id = running.id();
    running.signal(Signal::KILL);
    let before = running.wait().out();
    let done = attach(&sandbox, &id).run().exits(3).says("output complete from where this call began");
    let whole: String = (1..=60).map(|i| format!("line {i}\n")).collect();
    assert!(whole.starts_with(&before), "{before}");
    let after = done.out();
    assert!(whole.ends_with(&after), "{after}");
    assert!(
        before.len() + after.len() >= whole.len(),
        "a gap between {} and {} of {} bytes",
        before.len(),
        after.len(),
        whole.len()
    );
    assert!(after.len() < whole.len(), "output that was printed and deleted is printed again");
    queue_is_gone(&sandbox, &id);
}

#[test]
fn a_signal_ends_the_following_and_not_the_deployment() {
    let sandbox = sandbox();
    let folder = sandbox.folder().join("signal");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.1; done; echo done; exit 5", folder.display());
    let detached = detach(&sandbox, &script).run().exits(0);
    let id = detached.out().trim().to_owned();
    let following = attach(&sandbox, &id).start();
    following.until_stdout("begun");
    following.signal(Signal::INT);
    following.wait().exits(130).says("the deployment continues");
    std::fs::write(folder, "").unwrap();
    attach(&sandbox, &id).run().exits(5);
}

#[test]
fn a_signal_may_leave_the_deployment_to_another_call() {
    let sandbox = sandbox();
    let gate = sandbox.folder().join("on-interrupt");
    let script = format!("echo begun; while [ ! -e {} ]; do sleep 0.1; done; exit 6", gate.display());
    let running = sandbox.deploy("test/shell").param("script", &script).args(&["--on-interrupt", "detach"]).start();
    running.until_stdout("begun");
    let id = running.id();
    running.signal(Signal::TERM);
    running.wait().exits(143).says(&format!("relay attach {id}"));
    std::fs::write(gate, "").unwrap();
    attach(&sandbox, &id).run().exits(6);
}

#[test]
fn a_queue_that_cannot_be_read_just_now_is_read_when_it_can() {
    let sandbox = Sandbox::start(Options::default());
    let detached = sandbox.relay(&["deploy", "demo/shell", "--detach"]).param("script", "echo here; exit 4").run();
    let id = detached.exits(0).id();
    sandbox.set_faults("[[rule]]\nservice = \"sqs\"\noperation = \"ReceiveMessage\"\nkind = \"outage\"\n");
    let following = attach(&sandbox, &id).start();
    let failed = |entry: &&relay_tests::kit::sandbox::Entry| entry.is("sqs", "ReceiveMessage") && !entry.ok;
    // The first read makes three attempts.
    eventually("more than the first read has failed", || {
        (sandbox.log().iter().filter(failed).count() > 3).then_some(())
    });
    sandbox.set_faults("");
    assert_eq!(following.wait().exits(4).out(), "here\n");
}

#[test]
fn what_died_is_told_to_who_comes_late() {
    let sandbox = sandbox();
    let begun = sandbox.folder().join("begun");
    let detached = detach(&sandbox, &format!("touch {}; exec sleep 600", begun.display())).run().exits(0);
    let id = detached.out().trim().to_owned();
    eventually("it runs", || begun.exists().then_some(()));
    let task = sandbox.tasks_of(&id).remove(0);
    rustix::process::kill_process(task.pid().unwrap(), Signal::KILL).unwrap();
    attach(&sandbox, &id).args(&["--drain-timeout", "2s"]).run().exits(122).says("(lost)");
}

// clause: FRM-19
#[test]
fn who_attaches_may_be_killed_too() {
    let sandbox = sandbox();
    let gate = sandbox.folder().join("twice");
    let script = format!(
        "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo line $i; sleep 0.1; done; while [ ! -e {} ]; do sleep 0.1; done; echo last",
        gate.display()
    );
    let id = detach(&sandbox, &script).run().exits(0).out().trim().to_owned();
    // It starts with the first frame, and immediately, because no reader has acknowledged any.
    let first = attach(&sandbox, &id).start();
    first.until_stdout("line 20\n");
    first.signal(Signal::KILL);
    let before = first.wait().out();
    std::fs::write(gate, "").unwrap();
    let done = attach(&sandbox, &id).run().exits(0);
    let whole: String = (1..=20).map(|i| format!("line {i}\n")).collect::<String>() + "last\n";
    assert!(whole.starts_with(&before) && whole.ends_with(&done.out()), "{before}\n{}", done.out());
    assert!(before.len() + done.out().len() >= whole.len() && !done.err().contains("GAP"), "{}", done.err());
}

/// What relay says at an open end is what it knows: it has not seen the publication, the first
/// message or the number of steps of a deployment that it only attaches to, and knows nothing of a
/// queue that somebody else made.
#[test]
fn an_open_end_says_only_what_is_known() {
    let fixed = "https://sqs.eu-west-1.amazonaws.com/111111111111/fixed";
    let own = target("test/fixed", &Head::default(), SHELL)
        .replace("\ntimeout", &format!("\nfixed_queues = [\"{fixed}\"]\ntimeout"));
    let sandbox = Sandbox::start(Options { launchers: 0, ..Options::default() }.target("test/fixed", own));
    let asking = relay_tests::Asking::new(&sandbox, "demo/shell", &[("script", "true")]);
    let silent = attach(&sandbox, &asking.id()).args(&["--target", "demo/shell", "--start-timeout", "2s"]).run();
    let silent = silent.exits(122).says("no message of the deployment arrived");
    assert!(!silent.err().contains("published the request"), "{}", silent.err());
    let queue = sandbox.ci().create_queue("fixed");
    let fixed = sandbox.deploy("test/fixed").param("script", "true").env("RELAY_REPLY_QUEUE_URL", &queue);
    let fixed = fixed.args(&["--admission-timeout", "2s"]).run().exits(122).says("fixed keeps its messages");
    assert!(!fixed.err().contains("for a day"), "{}", fixed.err());
}
