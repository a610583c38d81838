//! Many deployments run on one sandbox at the same time: every one is right, and none is mixed with
//! another.

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
