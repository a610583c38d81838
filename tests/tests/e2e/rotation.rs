//! Keys are replaced, as planned or because they were stolen, while deployments run. Issuers' keys
//! are in `tokens`, the ledger's in the engine's own tests.

use std::sync::Arc;

use relay_protocol::keys::{PrivateKey, SingleKey};
use relay_protocol::record::Record;
use relay_protocol::{Digest, Envelope};
use relay_tests::kit::deploy::Deploy;
use relay_tests::kit::targets::{Head, SHELL, runner_role, target};
use relay_tests::{Options, Sandbox, eventually};
use rustix::process::Signal;

const TARGET: &str = "test/rotated";
const FAMILY: &str = "relay_test_rotated";
const PATIENT: &str = "trap 'echo got INT; exit 7' INT; echo begun; while :; do sleep 0.05; done";

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default().target(TARGET, target(TARGET, &Head::default(), SHELL)))
}

/// Registers the target's configuration with a change, as the next version of its stack would.
fn change(sandbox: &Sandbox, change: impl Fn(&str) -> String) {
    let operator = sandbox.operator();
    let (_, entry_point, text) = operator.definition(FAMILY);
    let text = change(&text);
    let digest = Digest::of(text.as_bytes()).to_string();
    let entry_point = [&entry_point[..entry_point.len() - 1], &[digest]].concat();
    operator.register(FAMILY, &entry_point, &text, &runner_role(TARGET));
}

fn shell(sandbox: &Arc<Sandbox>, script: &str) -> Deploy {
    sandbox.deploy(TARGET).param("script", script)
}

fn dry_run(sandbox: &Arc<Sandbox>) -> Deploy {
    sandbox.relay(&["deploy", TARGET, "--param", "script=true", "--dry-run"])
}

fn by(call: Deploy, key: &PrivateKey) -> Deploy {
    call.env("RELAY_SIGNING_KEY", &key.to_pem())
}

// clause: KEY-1, KEY-2
#[test]
fn a_signers_key_is_replaced_while_its_deployment_runs() {
    let sandbox = sandbox();
    let new = PrivateKey::from_seed([91; 32]);
    let old = sandbox.variable("RELAY_SANDBOX_SIGNER_KEY").to_owned();
    let entry = format!(
        "\n[[signers]]\nname = \"new\"\nkey = \"{}\"\ngroups = [\"sandbox\"]\nci_accounts = [\"111111111111\"]\n",
        new.public()
    );
    // Planned: both may ask.
    change(&sandbox, |text| format!("{text}{entry}"));
    eventually("the new key may ask", || (by(shell(&sandbox, "true"), &new).run().code == 0).then_some(()));
    let running = shell(&sandbox, PATIENT).start();
    running.until_stdout("begun");
    // The old one goes, as if it was stolen.
    change(&sandbox, |text| text.replace(&old, &PrivateKey::from_seed([92; 32]).public().to_string()));
    eventually("the old key may not ask any more", || {
        let done = shell(&sandbox, "true").run();
        (done.code == 120 && done.err().contains("could not be verified")).then_some(())
    });
    by(shell(&sandbox, "true"), &new).run().exits(0);
    // What runs can be stopped by who asked for it, and is recorded.
    running.signal(Signal::INT);
    let done = running.wait().exits(130);
    let record = sandbox.evidence(&done.id(), "runner/record.json").expect("a record");
    let envelope = Envelope::parse(&record, 1 << 20).unwrap();
    let record = sandbox.target_key().verify::<Record>(&envelope).unwrap();
    assert_eq!(record.statement().predicate.signers[0].name, "sandbox-ci");
}

// clause: KEY-5, KEY-6
#[test]
fn a_target_key_is_replaced_while_its_deployment_runs() {
    let sandbox = sandbox();
    let old = sandbox.variable("RELAY_TARGET_PUBLIC_KEY").to_owned();
    let (arn, public) = sandbox.operator().create_signing_key();
    let new = relay_protocol::encoding::base64(&public);
    let both = format!("{new},{old}");
    let pinned = |call: Deploy, pins: &str| call.env("RELAY_TARGET_PUBLIC_KEY", pins);
    let running = pinned(shell(&sandbox, PATIENT), &both).start();
    running.until_stdout("begun");
    change(&sandbox, |text| {
        let key = text.lines().find(|line| line.starts_with("target_key")).unwrap();
        text.replace(key, &format!("target_key = \"{arn}\""))
    });
    // The dry run compares the pins with the key that the target has now.
    eventually("the new key is used", || {
        let tried = pinned(dry_run(&sandbox), &old).run();
        (tried.code == 119 && tried.err().contains("the pinned target key")).then_some(())
    });
    // Each container of the launcher remembers a revision for a few seconds.
    let new_key = SingleKey::new(&new.parse().unwrap()).unwrap();
    let fresh = eventually("the new key signs a record", || {
        let fresh = pinned(shell(&sandbox, "echo new"), &both).args(&["--require-record"]).run().exits(0);
        assert_eq!(fresh.out(), "new\n");
        let record = sandbox.evidence(&fresh.id(), "runner/record.json").expect("a record");
        new_key.verify::<Record>(&Envelope::parse(&record, 1 << 20).unwrap()).is_ok().then_some(fresh)
    });
    running.signal(Signal::INT);
    let before = running.wait().exits(130);
    // Records of both keys are proved while both are pinned.
    for (id, pins, code) in
        [(fresh.id(), &both, 0), (before.id(), &both, 0), (before.id(), &new, 1), (fresh.id(), &old, 1)]
    {
        let folder = sandbox.folder().join(&id);
        std::fs::create_dir_all(&folder).unwrap();
        let record = folder.join("record.json");
        std::fs::write(&record, sandbox.evidence(&id, "runner/record.json").unwrap()).unwrap();
        let config = folder.join("relay.toml");
        let answer = sandbox.variable("RELAY_ANSWER_PUBLIC_KEY");
        let list = pins.split(',').map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ");
        let text = format!("[targets.\"{TARGET}\"]\ntarget_key = [{list}]\nanswer_key = \"{answer}\"\n");
        std::fs::write(&config, &text).unwrap();
        let call = sandbox.relay(&["verify", record.to_str().unwrap(), "--config", config.to_str().unwrap()]);
        let done = call.without("RELAY_TARGET_PUBLIC_KEY").without("RELAY_ANSWER_PUBLIC_KEY").run();
        assert_eq!(done.code, code, "{}", done.out());
    }
    // A stolen key's pin is gone: what it vouches for is not believed.
    let doubted = pinned(shell(&sandbox, "echo unbelieved"), &old).start();
    doubted.until_stderr("the pinned target key does not fit the answer");
    doubted.signal(Signal::INT);
    doubted.until_stderr("sent the cancel");
    // A second signal within the same moment counts as the first.
    std::thread::sleep(std::time::Duration::from_millis(600));
    doubted.signal(Signal::INT);
    let done = doubted.wait();
    assert!(done.code != 0 && done.out().is_empty(), "{} {}", done.code, done.out());
}

// clause: KEY-7, KEY-8
#[test]
fn an_answer_key_is_believed_while_it_is_pinned() {
    let sandbox = sandbox();
    let own = sandbox.variable("RELAY_ANSWER_PUBLIC_KEY").to_owned();
    let other = PrivateKey::from_seed([93; 32]).public().to_string();
    let dry = |pins: &str| dry_run(&sandbox).env("RELAY_ANSWER_PUBLIC_KEY", pins);
    dry(&format!("{other},{own}")).run().exits(0);
    dry(&format!("{own},{other}")).run().exits(0);
    dry(&other).run().exits(119).says("answer key");
    dry(&format!("{own},nonsense")).run().exits(119).says("the pinned answer key is");
    // Without any key, that of [default] must not count in its place.
    let config = sandbox.folder().join("empty.toml");
    std::fs::write(&config, format!("[default]\nanswer_key = \"{own}\"\n[targets.\"a/b\"]\nanswer_key = []\n"))
        .unwrap();
    let config = ["--config", config.to_str().unwrap()];
    dry_run(&sandbox).args(&config).run().exits(119).says("the list of keys is empty");
}
