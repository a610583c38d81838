//! Strangers flood the topic. They cost the launcher little: verified requests are answered about
//! as fast as before, no invocation fails, and nothing becomes a dead letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use relay_protocol::{Control, Envelope, Message, Statement as _};
use relay_tests::kit::asking::{new_key, now};
use relay_tests::{Asking, Options, Sandbox};

/// How many verified requests are measured, without and with the flood.
const REQUESTS: usize = 20;

/// The 95th percentile of the time from a dry run's publication to its answer. A dry run takes the
/// launcher's whole path but RunTask, which would be ECS's time.
fn p95(sandbox: &Arc<Sandbox>) -> Duration {
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|_| {
            let asking = Asking::new(sandbox, "demo/hello", &[("name", "x")]);
            let envelope =
                asking.key.sign_envelope(Envelope::new(relay_protocol::DryRun::TYPE, asking.request.to_payload()));
            let began = Instant::now();
            asking.publish_as(&Message::dry_run_json(&envelope), &asking.hints()).unwrap();
            assert_eq!(asking.reply("tried").reason(), "");
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[REQUESTS * 95 / 100]
}

/// Hostile messages of every kind, one after the other: what is no JSON, what is large, what is not
/// signed, what somebody else has signed, a stranger's control statement, a target that there is
/// not, and a queue that there is not.
fn hostile(sandbox: &Arc<Sandbox>, at: usize) {
    let target = if at.is_multiple_of(3) { "demo/nothing" } else { "demo/hello" };
    let mut asking = Asking::without_queues(sandbox, target, &[("name", "x")]);
    if at.is_multiple_of(2) {
        asking.create_queues();
    }
    asking.key = new_key();
    let control = Control {
        deployment_id: asking.request.deployment_id.clone(),
        request_digest: asking.digest(),
        issued_at: now(),
        cancel: relay_protocol::Cancel::Requested,
    };
    let control = new_key().sign_envelope(Envelope::new(Control::TYPE, control.to_payload()));
    let body = match at % 5 {
        0 => "x".to_owned(),
        1 => format!("{{\"request\":\"{}\"}}", "x".repeat(100_000)),
        2 => asking.bundle(),
        3 => Message::control_json(&control),
        _ => "{\"control\":{\"payloadType\":\"x\",\"payload\":\"\",\"signatures\":[]}}".to_owned(),
    };
    // The sandbox may already be ending.
    drop(asking.publish_as(&body, &asking.hints()));
}

// clause: LAU-5, CTL-6
#[test]
fn a_flood_of_hostile_messages_delays_nobody_and_fails_nothing() {
    let sandbox = Sandbox::start(Options { launchers: 2, ..Options::default() });
    // Both containers are warm.
    p95(&sandbox);
    let before = p95(&sandbox);
    let (over, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    let during = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                hostile(&sandbox, sent.fetch_add(1, Ordering::Relaxed));
            }
        });
        let during = p95(&sandbox);
        over.store(true, Ordering::Relaxed);
        during
    });
    let sent = sent.into_inner();
    eprintln!("p95 {before:?} before, {during:?} during {sent} hostile messages");
    assert!(sent > REQUESTS, "{sent}");
    // The least that is told from noise is 50 ms.
    assert!(during <= (before * 2).max(before + Duration::from_millis(50)), "{before:?}, then {during:?}");
    let failed: Vec<_> =
        sandbox.calls("lambda", "InvocationEnded").into_iter().filter(|entry| entry.error.is_some()).collect();
    assert!(failed.is_empty() && sandbox.calls("lambda", "DeadLetter").is_empty(), "{failed:?}");
}
