//! The ledger: what the function writes, and what `relay-admin ledger verify` finds.

use std::sync::Arc;

use relay_tests::{Options, Sandbox, eventually};
use serde_json::json;

/// Writes an entry of the ledger. An entry is due each second.
fn write(sandbox: &Sandbox) {
    let entries = || sandbox.operator().keys(&sandbox.evidence_bucket(), "ledger/").len();
    let before = entries();
    eventually("another entry", || {
        assert_eq!(sandbox.http("POST", "ledger", b"").0, 200);
        (entries() > before).then_some(())
    });
}

/// The exit code of `ledger verify`, and what it says.
fn verify(sandbox: &Sandbox, more: &[&str]) -> (i32, String) {
    let file = sandbox.folder().join("target.toml");
    let (_, _, configuration) = sandbox.operator().definition("relay_demo_shell");
    std::fs::write(&file, configuration).unwrap();
    let key = sandbox.variable("RELAY_SANDBOX_LEDGER_PUBLIC_KEY");
    let arguments = ["ledger", "verify", file.to_str().unwrap(), "--key", key];
    let (code, out, err) = sandbox.admin(&[&arguments, more].concat());
    (code, out + &err)
}

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default())
}

// clause: LED-1, LED-2, LED-3
#[test]
fn what_is_removed_or_changed_is_found() {
    let sandbox = sandbox();
    let (operator, bucket) = (sandbox.operator(), sandbox.evidence_bucket());
    let first = sandbox.shell("echo one").run().exits(0);
    write(&sandbox);
    write(&sandbox);
    let refused = sandbox.shell("true").param("other", "x").run().exits(120);
    write(&sandbox);
    let (code, said) = verify(&sandbox, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("3 entries without a gap; 5 claims and records") && said.contains("not covered"), "{said}");

    let names = operator.keys(&bucket, "");
    let entries: Vec<&String> = names.iter().filter(|name| name.starts_with("ledger/")).collect();
    let of = |id: &str, name: &str| {
        names.iter().find(|key| key.contains(id) && key.ends_with(name)).unwrap_or_else(|| panic!("{name}"))
    };
    let victims = [
        (of(&first.id(), "/claim"), "was removed"),
        (of(&first.id(), "/runner/record.json"), "was removed"),
        (of(&first.id(), "/launcher/vsa.json"), "was removed"),
        (of(&refused.id(), "/launcher/record.json"), "was removed"),
        (entries[0], "cannot have expired"),
        (entries[1], "has the number 2"),
    ];
    for (name, says) in victims {
        let bytes = operator.get_object(&bucket, name).unwrap();
        operator.delete_object(&bucket, name);
        let (code, said) = verify(&sandbox, &[]);
        assert!(code == 1 && said.contains(says), "{name}: {said}");
        let changed = [bytes.as_slice(), b" "].concat();
        operator.put_object(&bucket, name, changed);
        let (code, said) = verify(&sandbox, &[]);
        let says = if name.starts_with("ledger/") { "another predecessor" } else { "was changed" };
        assert!(code == 1 && said.contains(says), "{name}: {said}");
        operator.put_object(&bucket, name, bytes);
    }
    // Writing the objects again made them younger than the ledger, and did not change them.
    let (code, said) = verify(&sandbox, &[]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = verify(&sandbox, &["--archive", &sandbox.bucket()]);
    assert!(code == 1 && said.contains("is not in the archive"), "{said}");
}

// clause: LED-4
#[test]
fn a_task_without_a_claim_is_found_by_cloudtrail() {
    let sandbox = sandbox();
    let done = sandbox.shell("true").run().exits(0);
    write(&sandbox);
    let trail = sandbox.folder().join("trail.json");
    let event = |id: &str| json!({"eventName": "RunTask", "requestParameters": {"startedBy": id, "cluster": "relay"}});
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (events, code) in [(vec![event(&done.id())], 0), (vec![event(&done.id()), event(unknown)], 1)] {
        std::fs::write(&trail, json!({"Records": events}).to_string()).unwrap();
        let (found, said) = verify(&sandbox, &["--cloudtrail", trail.to_str().unwrap()]);
        assert_eq!((found, said.contains(unknown)), (code, code == 1), "{said}");
    }
}
