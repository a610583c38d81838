//! Many deployments run on one sandbox at the same time: every one is right, and none is mixed with
//! another.

use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox, sized};
use serde_json::json;

/// 50 deployments; 16 with RELAY_QUICK.
#[test]
fn many_at_once_are_each_right() {
    let count = sized(50, 16);
    let sandbox = Sandbox::start(Options::default());
    let gate = sandbox.folder().join("gate");
    // Each waits until all are running, so that they overlap.
    let running: Vec<_> = (0..count)
        .map(|n| {
            let script = format!(
                "echo begun; while [ ! -e {} ]; do sleep 0.2; done; i=0; while [ $i -lt 500 ]; do echo deployment {n} line $i; echo error {n} $i >&2; i=$((i+1)); done; \
                 echo name=deployment-{n} >> $RELAY_OUTPUT; exit {n}",
                gate.display()
            );
            sandbox.shell(&script).args(&["--strict-output"]).start()
        })
        .collect();
    for deployment in &running {
        deployment.until_stdout("begun");
    }
    std::fs::write(gate, "").unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for (n, deployment) in running.into_iter().enumerate() {
        let done = deployment.wait().exits(i32::try_from(n).unwrap());
        let out: String = (0..500).map(|i| format!("deployment {n} line {i}\n")).collect();
        let err: String = (0..500).map(|i| format!("error {n} {i}\n")).collect();
        assert_eq!(done.out(), format!("begun\n{out}"));
        assert_eq!(String::from_utf8(done.tool_err()).unwrap(), err);
        assert_eq!(*done.result("/outputs"), json!({ "name": format!("deployment-{n}") }));
        assert_eq!(sandbox.tasks_of(&done.id()).len(), 1);
        assert!(ids.insert(done.id()));
    }
    assert_eq!(sandbox.tasks().len(), count);
    assert_eq!(sandbox.http("GET", "dead-letters", b"").1, "[]");
    assert_eq!(sandbox.http("GET", "queues", b"").1, "[]", "queues are left behind");
}

// clause: FRM-11, REQ-7
/// Each of the two receives messages of the other, and leaves them alone.
#[test]
fn two_deployments_may_share_a_fixed_queue() {
    let fixed = "https://sqs.eu-west-1.amazonaws.com/111111111111/fixed";
    let shared = target("test/fixed", &Head::default(), SHELL)
        .replace("\ntimeout", &format!("\nfixed_queues = [\"{fixed}\"]\ntimeout"));
    let sandbox = Sandbox::start(Options::default().target("test/fixed", shared));
    let queue = sandbox.ci().create_queue("fixed");
    let begin = |n: usize| {
        let gate = sandbox.folder().join(format!("begun-{}", 3 - n));
        let own = sandbox.folder().join(format!("begun-{n}"));
        let script = format!(
            "touch {}; while [ ! -e {} ]; do sleep 0.1; done; for i in 1 2 3 4 5; do seq {n}00000 {n}00100; sleep 0.3; done; exit {n}",
            own.display(),
            gate.display()
        );
        let deploy = sandbox.deploy("test/fixed").param("script", &script).env("RELAY_REPLY_QUEUE_URL", &queue);
        deploy.args(&["--strict-output", "--require-record"]).start()
    };
    for (n, running) in [1, 2].map(|n| (n, begin(n))) {
        let done = running.wait().exits(i32::try_from(n).unwrap());
        let once: String = (0..=100).map(|line| format!("{}\n", n * 100_000 + line)).collect();
        assert_eq!(done.out(), once.repeat(5));
        assert!(!done.err().contains("dropped"), "{}", done.err());
        assert_eq!(*done.result("/output/verified"), json!(true));
    }
}
