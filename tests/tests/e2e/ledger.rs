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

// clause: LED-3
#[test]
fn the_archive_shows_what_was_removed_at_the_end_and_written_anew() {
    let sandbox = sandbox();
    let (operator, bucket, archive) = (sandbox.operator(), sandbox.evidence_bucket(), sandbox.bucket());
    sandbox.shell("true").run().exits(0);
    write(&sandbox);
    let done = sandbox.shell("echo two").run().exits(0);
    write(&sandbox);
    let copy = |name: &str| {
        operator.put_object(&archive, &format!("{bucket}/{name}"), operator.get_object(&bucket, name).unwrap());
    };
    let entries = operator.keys(&bucket, "ledger/");
    entries.iter().for_each(|name| copy(name));
    let (code, said) = verify(&sandbox, &["--archive", &archive]);
    assert_eq!(code, 0, "{said}");
    // The newest entry goes, with all that it lists.
    let last = entries.last().unwrap();
    let of_it: Vec<String> =
        operator.keys(&bucket, "deployments/").into_iter().filter(|key| key.contains(&done.id())).collect();
    [&of_it[..], std::slice::from_ref(last)].concat().iter().for_each(|name| operator.delete_object(&bucket, name));
    assert_eq!(verify(&sandbox, &[]).0, 0, "nothing but a copy or the log can show it");
    let (code, said) = verify(&sandbox, &["--archive", &archive]);
    assert!(code == 1 && said.contains(&format!("{last}: was removed: its copy is")), "{said}");
    // The function writes another entry under its number.
    write(&sandbox);
    let (code, said) = verify(&sandbox, &["--archive", &archive]);
    assert!(code == 1 && said.contains("differs from the entry"), "{said}");
}

// clause: LED-2, LED-3
#[test]
fn whoever_writes_below_a_target_cannot_stop_the_ledger() {
    let sandbox = sandbox();
    let (operator, bucket) = (sandbox.operator(), sandbox.evidence_bucket());
    let done = sandbox.shell("true").run().exits(0);
    let claim = operator.keys(&bucket, "deployments/").into_iter().find(|key| key.ends_with("/claim")).unwrap();
    let day = claim.split('/').nth(3).unwrap();
    // Names that no deployment has, and an object that is larger than any record.
    for odd in ["x".repeat(900), "not-an-id".to_owned()] {
        operator.put_object(&bucket, &format!("deployments/demo/shell/{day}/{odd}/runner/record.json"), Vec::new());
    }
    let id = done.id();
    let other = if id.ends_with('0') { "1" } else { "0" };
    let large = format!("deployments/demo/shell/{day}/{}{other}/runner/record.json", &id[..id.len() - 1]);
    operator.put_object(&bucket, &large, vec![b'x'; 2 << 20]);
    write(&sandbox);
    write(&sandbox);
    let (code, said) = verify(&sandbox, &[]);
    assert!(code == 1 && said.contains(&format!("{large}: is in no entry")), "{said}");
    assert!(said.contains(": 1 of "), "{said}");
    operator.delete_object(&bucket, &large);
    assert_eq!(verify(&sandbox, &[]).0, 0);
}

// clause: LED-4
#[test]
fn a_task_without_a_claim_is_found_by_cloudtrail() {
    let sandbox = sandbox();
    let done = sandbox.shell("true").run().exits(0);
    write(&sandbox);
    let trail = sandbox.folder().join("trail.json");
    let event = |family: &str, id: Option<&str>| {
        let definition = format!("arn:aws:ecs:eu-west-1:222222222222:task-definition/{family}:7");
        let parameters = json!({"startedBy": id, "taskDefinition": definition, "cluster": "relay"});
        json!({"eventID": "11-22", "eventName": "RunTask", "requestParameters": parameters})
    };
    let (unknown, own) = ("01890a5d-ac96-774b-bcce-b302099a8057", done.id());
    let fine = event("relay_demo_shell", Some(&own));
    let cases = [
        (vec![fine.clone(), event("another", Some("a service")), event("another", None)], None),
        (vec![fine, event("relay_demo_shell", Some(unknown))], Some(unknown)),
        (vec![event("relay_demo_hello", Some(&own))], Some("demo/hello, which has no claim")),
        (vec![event("relay_demo_shell", None)], Some("a task of demo/shell for no deployment")),
        (vec![event("another", Some(&own))], Some("which is no target's")),
    ];
    for (events, says) in cases {
        std::fs::write(&trail, json!({"Records": events}).to_string()).unwrap();
        let (found, said) = verify(&sandbox, &["--cloudtrail", trail.to_str().unwrap()]);
        assert_eq!(found, i32::from(says.is_some()), "{said}");
        assert!(said.contains(says.unwrap_or("without a gap")), "{said}");
    }
}
