//! Every end is reported, and a cancel stops the task. This is what ECS's events, the watchdog and
//! a cancel by topic are for. Without them, each of these deployments would end only when a timeout
//! of the CLI passes.

use std::sync::Arc;

use relay_tests::kit::asking::new_key;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Asking, Options, Sandbox, eventually};
use rustix::process::{Signal, kill_process};

/// Options with events, and with short delays.
fn options() -> Options {
    // A grace longer than the tests: whatever ends sooner was stopped for another reason.
    let head = Head { cancel: r#"{ signal = "TERM", grace = "5m" }"#, ..Head::default() };
    let fixed = "arn:aws:sqs:eu-west-1:111111111111:fixed"
        .replace("arn:aws:sqs:eu-west-1:111111111111:", "https://sqs.eu-west-1.amazonaws.com/111111111111/");
    Options::default()
        .set("task_events=true")
        .target("test/shell", target("test/shell", &head, SHELL))
        .target("test/broken", target("test/broken", &head, SHELL))
        .target(
            "test/fixed",
            target("test/fixed", &head, SHELL)
                .replace("\ntimeout", &format!("\nfixed_queues = [\"{fixed}\"]\ntimeout")),
        )
}

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(options())
}

/// A sandbox where tasks stay PENDING.
fn pending() -> Arc<Sandbox> {
    Sandbox::start(options().set("pending_ms=600000").set("lambda_retry_1_ms=1500"))
}

fn launched(sandbox: &Sandbox, id: &str, status: &str) -> relay_tests::kit::sandbox::Task {
    eventually("the task is there", || sandbox.tasks_of(id).into_iter().find(|task| task.status() == status))
}

/// Runs a deployment whose runner is killed after its first line, and waits for its end.
#[track_caller]
fn killed(sandbox: &Sandbox) -> relay_tests::Deployed {
    let running = sandbox
        .deploy("test/shell")
        .param("script", "echo before; exec sleep 600")
        .args(&["--drain-timeout", "2s"])
        .start();
    running.until_stdout("before");
    kill_process(launched(sandbox, &running.id(), "RUNNING").pid().unwrap(), Signal::KILL).unwrap();
    running.wait()
}

// clause: LAU-12
#[test]
fn a_task_that_cannot_start_is_told_with_ecs_words() {
    let sandbox = sandbox();
    let operator = sandbox.operator();
    let (old, mut entry_point, text) = operator.definition("relay_test_broken");
    "/relay/no-such-program".clone_into(&mut entry_point[0]);
    operator.register("relay_test_broken", &entry_point, &text, "relay-test-broken");
    operator.deregister(&old);
    let done = sandbox.deploy("test/broken").param("script", "echo never").run().exits(121);
    let done = done.says("never started").says("CannotStartContainerError");
    assert_eq!(done.out(), "");
}

#[test]
fn a_runner_that_is_killed_is_told_by_ecs() {
    let sandbox = sandbox();
    let done = killed(&sandbox).exits(122).says("outcome unknown").says("(lost)").says("7 bytes of stdout");
    assert_eq!(done.out(), "before\n");
}

// clause: LAU-12
#[test]
fn what_events_have_missed_the_watchdog_tells() {
    let sandbox = Sandbox::start(options().set("task_events=false").set("schedule_ms=300"));
    killed(&sandbox).exits(122).says("(lost)");
    // The watchdog leaves running tasks alone.
    sandbox.deploy("test/shell").param("script", "sleep 2; echo after").run().exits(0);
}

// clause: CTL-6
#[test]
fn a_cancel_by_topic_stops_a_task_that_does_not_run_yet() {
    let sandbox = pending();
    let running = sandbox.deploy("test/shell").param("script", "echo never").args(&["--drain-timeout", "2s"]).start();
    let task = launched(&sandbox, &running.id(), "PENDING");
    running.signal(Signal::INT);
    running.wait().exits(130).says("cancelled");
    let stopped = sandbox.task_when(task.arn(), "STOPPED");
    assert_eq!(stopped.0["stoppedReason"], "relay: cancelled");
    assert_eq!(stopped.pid(), None, "nothing ran");
}

// clause: CTL-6
#[test]
fn a_cancel_that_overtakes_its_request_is_dropped_and_counts_when_repeated() {
    let sandbox = pending();
    let asking = Asking::new(&sandbox, "test/shell", &[("script", "echo never")]);
    let cancel = asking.cancel(&asking.session, asking.digest());
    asking.publish_as(&cancel, &asking.hints()).unwrap();
    eventually("the cancel is dropped", || sandbox.launcher_log().contains("neither a task nor a claim").then_some(()));
    asking.publish();
    let task = eventually("there is a task", || sandbox.tasks_of(&asking.id()).into_iter().next());
    asking.publish_as(&cancel, &asking.hints()).unwrap();
    let stopped = sandbox.task_when(task.arn(), "STOPPED");
    assert_eq!(stopped.0["stoppedReason"], "relay: cancelled");
}

// clause: CTL-6
#[test]
fn a_cancel_by_topic_is_passed_on_to_a_runner_and_noted() {
    let sandbox = sandbox();
    let script = "trap 'echo released; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let asking = Asking::new(&sandbox, "test/shell", &[("script", script)]);
    asking.publish();
    launched(&sandbox, &asking.id(), "RUNNING");
    // A cancel with a stranger's signature changes nothing.
    let forged = asking.cancel(&new_key(), asking.digest());
    asking.publish_as(&forged, &asking.hints()).unwrap();
    eventually("the forged one is judged", || {
        sandbox.launcher_log().contains("may not stop this deployment").then_some(())
    });
    assert_eq!(sandbox.operator().get_object(&sandbox.bucket(), &format!("cancels/{}", asking.id())), None);
    let cancel = asking.cancel(&asking.session, asking.digest());
    asking.publish_as(&cancel, &asking.hints()).unwrap();
    let end = asking.end();
    assert_eq!(end.reason(), "cancelled");
    eventually("it is noted", || sandbox.operator().get_object(&sandbox.bucket(), &format!("cancels/{}", asking.id())));
}

#[test]
fn without_a_control_queue_a_cancel_goes_by_topic_alone() {
    let sandbox = sandbox();
    let queue = sandbox.ci().create_queue("fixed");
    let running = sandbox
        .deploy("test/fixed")
        .param("script", "trap 'echo released; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        .env("RELAY_REPLY_QUEUE_URL", &queue)
        .args(&["--drain-timeout", "5s"])
        .start();
    running.until_stdout("ready");
    running.signal(Signal::TERM);
    let done = running.wait().exits(143);
    assert_eq!(done.out(), "ready\nreleased\n");
}
