//! Strangers flood the topic. They cost the launcher little: verified requests are answered about
//! as fast as before, no invocation fails, and nothing becomes a dead letter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use relay_protocol::{Control, Envelope, Message, Statement as _};
use relay_tests::kit::asking::{new_key, now};
use relay_tests::{Asking, Options, Sandbox};

/// How many verified requests are measured in a round, without and with the flood.
const REQUESTS: usize = 20;

/// How many rounds may fail: a round is a comparison, and this machine may do other things.
const ROUNDS: usize = 4;

/// The time from a dry run's publication to its answer. A dry run takes the launcher's whole path
/// but RunTask, which would be ECS's time.
fn measure(sandbox: &Arc<Sandbox>) -> Duration {
    let asking = Asking::new(sandbox, "demo/hello", &[("name", "x")]);
    let envelope = Envelope::new(relay_protocol::DryRun::TYPE, asking.request.to_payload());
    let body = Message::dry_run_json(&asking.key.sign_envelope(envelope), &[]);
    let began = Instant::now();
    asking.publish_as(&body, &asking.hints()).unwrap();
    assert_eq!(asking.reply("tried").reason(), "");
    began.elapsed()
}

fn p95(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 95 / 100]
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
    for _ in 0..10 {
        measure(&sandbox);
    }
    let (over, flooding, sent) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let rounds = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match flooding.load(Ordering::Relaxed) {
                    // The publisher shares two cores with all that it floods.
                    true => {
                        hostile(&sandbox, sent.fetch_add(1, Ordering::Relaxed));
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    false => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let mut rounds = Vec::new();
        while rounds.len() < ROUNDS && rounds.last().is_none_or(|(calm, flooded)| *flooded > *calm * 2) {
            // In turn, so that whatever else slows this machine down slows down both.
            let (mut calm, mut flooded) = (Vec::new(), Vec::new());
            for _ in 0..REQUESTS {
                flooding.store(false, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                calm.push(measure(&sandbox));
                flooding.store(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                flooded.push(measure(&sandbox));
            }
            rounds.push((p95(calm), p95(flooded)));
        }
        over.store(true, Ordering::Relaxed);
        rounds
    });
    let sent = sent.into_inner();
    eprintln!("p95 without and with the flood, by rounds: {rounds:?}; {sent} hostile messages");
    assert!(sent > REQUESTS, "{sent}");
    let (calm, flooded) = rounds[rounds.len() - 1];
    assert!(flooded <= calm * 2, "{rounds:?}");
    let failed: Vec<_> =
        sandbox.calls("lambda", "InvocationEnded").into_iter().filter(|entry| entry.error.is_some()).collect();
    assert!(failed.is_empty() && sandbox.calls("lambda", "DeadLetter").is_empty(), "{failed:?}");
}
