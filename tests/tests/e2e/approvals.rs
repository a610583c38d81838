//! Approvals: the policy says who may give them, and one serves exactly one deployment by exactly
//! this configuration.

use std::sync::Arc;

use relay_protocol::keys::PrivateKey;
use relay_protocol::{Approval, Bundle, Digest, DryRun, Envelope, Message, Reason, Statement as _, Ticket};
use relay_tests::kit::asking::{new_key, now};
use relay_tests::kit::deploy::{Deploy, Running};
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Asking, Deployed, Options, Sandbox};
use rustix::process::Signal;

const TARGET: &str = "test/approved";

const POLICY: &str = r#"
permit(principal in Group::"sandbox", action == Action::"deploy", resource) when { context.approvals >= 1 };
permit(principal in Group::"people", action == Action::"approve", resource);"#;

/// A sandbox whose target needs an approval, and the key of the person who may give it.
fn sandbox() -> (Arc<Sandbox>, PrivateKey) {
    let anna = new_key();
    let signer = format!(
        "\n[[signers]]\nname = \"anna\"\nkind = \"person\"\nkey = \"{}\"\ngroups = [\"people\"]\n",
        anna.public()
    );
    let configuration = target(TARGET, &Head { policy: POLICY, ..Head::default() }, SHELL) + &signer;
    (Sandbox::start(Options::default().target(TARGET, configuration)), anna)
}

fn asking(sandbox: &Arc<Sandbox>, ticket: u8, script: &str) -> Asking {
    let mut asking = Asking::new(sandbox, TARGET, &[("script", script)]);
    asking.request.ticket = Some(Ticket::new([ticket; 16]));
    asking
}

/// Publishes a dry run, and returns its answer.
fn tried(asking: &Asking, approvals: Vec<Envelope>) -> serde_json::Value {
    let dry_run = asking.key.sign_envelope(Envelope::new(DryRun::TYPE, asking.request.to_payload()));
    asking.publish_as(&Message::dry_run_json(&dry_run, &approvals), &asking.hints()).unwrap();
    asking.reply("tried").body
}

/// The digest of the target's configuration, as the launcher says it.
fn configuration(sandbox: &Arc<Sandbox>) -> Digest {
    tried(&asking(sandbox, 0, "true"), Vec::new())["configuration_digest"].as_str().unwrap().parse().unwrap()
}

fn approve(asking: &Asking, configuration: Digest, key: &PrivateKey) -> Envelope {
    let subject = asking.request.subject(configuration).unwrap();
    let approval = Approval { subject, issued_at: now(), expires_at: now().plus(3_600) };
    key.sign_envelope(Envelope::new(Approval::TYPE, approval.to_payload()))
}

fn with(asking: &Asking, approval: &Envelope) -> String {
    Bundle { request: asking.envelope(), approvals: vec![approval.clone()] }.to_json()
}

// clause: APP-2, APP-4, APP-5, DRY-2
#[test]
fn an_approval_serves_one_deployment() {
    let (sandbox, anna) = sandbox();
    let configuration = configuration(&sandbox);
    let marker = sandbox.folder().join("ran");
    let script = format!("echo ran >> {}", marker.display());
    let runs = || std::fs::read_to_string(&marker).map_or(0, |text| text.lines().count());

    let first = asking(&sandbox, 1, &script);
    let approval = approve(&first, configuration, &anna);
    assert_eq!(tried(&asking(&sandbox, 1, &script), Vec::new())["approvals_missing"], 1);
    assert_eq!(tried(&asking(&sandbox, 1, &script), vec![approval.clone()])["reason"], serde_json::Value::Null);
    first.publish_as(&with(&first, &approval), &first.hints()).unwrap();
    let end = first.end();
    assert_eq!((end.kind(), runs()), ("finished", 1), "{end:?}");

    // The same approval, with another request of the same ticket.
    let again = asking(&sandbox, 1, &script);
    again.publish_as(&with(&again, &approval), &again.hints()).unwrap();
    let end = again.end();
    assert_eq!((end.kind(), end.reason()), ("refused", Reason::Approval.code()), "{end:?}");
    assert!(end.message().contains("has used the ticket"), "{end:?}");
    assert_eq!(tried(&asking(&sandbox, 1, &script), vec![approval.clone()])["reason"], "approval");
    // If the launcher is bypassed, the runner finds the ticket used, after it has taken the lock.
    let bypassing = asking(&sandbox, 1, &script);
    let launch = bypassing.launch_of(&with(&bypassing, &approval), bypassing.digest());
    sandbox.operator().run_task(&launch).unwrap();
    let end = bypassing.end();
    assert_eq!((end.from.as_str(), end.kind(), end.reason()), ("runner", "finished", "approval"), "{end:?}");
    assert_eq!(runs(), 1);

    // Two at a time with one ticket: the runner decides which one runs.
    let both = [asking(&sandbox, 2, &script), asking(&sandbox, 2, &script)];
    let approval = approve(&both[0], configuration, &anna);
    for one in &both {
        let launch = one.launch_of(&with(one, &approval), one.digest());
        sandbox.operator().run_task(&launch).unwrap();
    }
    let ends = both.each_ref().map(|one| one.end().reason().to_owned());
    assert_eq!((ends.iter().filter(|reason| *reason == "approval").count(), runs()), (1, 2), "{ends:?}");
}

/// `relay approve` by the sandbox's person, who types this.
fn approves(sandbox: &Sandbox, ticket: &str, typed: &str, more: &[&str]) -> Deployed {
    let key = sandbox.variable("RELAY_SANDBOX_APPROVER").to_owned();
    // A PEM begins with hyphens, and must not be taken for a flag: the error would print it.
    let arguments = [&["approve", ticket, "--key", &key], more].concat();
    let types = format!("printf '%s\\n' '{typed}' | \"$0\" \"$@\"");
    sandbox.relay(&arguments).through(&["sh", "-c", &types]).run()
}

/// Asked by a job whose token says who started it.
fn keyless(call: Deploy) -> Deploy {
    call.without("RELAY_SIGNING_KEY").args(&["--key", "oidc"])
}

/// The ticket that a waiting `relay deploy` has printed.
fn ticket_of(running: &Running) -> String {
    running.until_stderr("relay approve ");
    let said = running.stderr_so_far();
    let (_, rest) = said.split_once("relay approve ").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

// clause: APP-1, APP-2, APP-4, APP-5
/// Two terminals: one waits, the other one shows, asks and signs.
#[test]
fn a_second_person_approves_what_the_launcher_has_verified() {
    let sandbox = Sandbox::start(Options::default());
    let deploy = || keyless(sandbox.deploy("demo/guarded")).param("name", "you");
    deploy().run().exits(120).says("the policy requires 1 more").says("--wait-approval");
    assert!(sandbox.relay(&["approvals"]).run().exits(0).out().contains("no request waits"));

    let waiting = deploy().args(&["--wait-approval", "5m"]).start();
    let ticket = ticket_of(&waiting);
    let listed = sandbox.relay(&["approvals"]).run().exits(0).out();
    assert!(listed.contains(&format!("{ticket} demo/guarded asked ")), "{listed}");
    // Only the target's name is an approval.
    approves(&sandbox, &ticket, "yes", &[]).exits(1).says("not approved");
    approves(&sandbox, &"0".repeat(32), "demo/guarded", &[]).exits(119).says("no request with the ticket");
    // An approver whose pin does not fit gets an error, and signs nothing.
    let other = new_key().public().to_string();
    approves(&sandbox, &ticket, "demo/guarded", &["--answer-key", &other]).exits(119).says("did not sign this answer");
    // CI approves nothing, whatever it types.
    let ci = sandbox.relay(&["approve", &ticket]).through(&["sh", "-c", "echo demo/guarded | \"$0\" \"$@\""]).run();
    ci.exits(0);
    waiting.until_stderr("its kind is `ci`, and only persons approve");

    let approved = approves(&sandbox, &ticket, "demo/guarded", &[]).exits(0);
    for fact in ["requester      sandbox-github", "    name, 3 bytes", "    │ you", "missing        1 of"] {
        assert!(approved.out().contains(fact), "{fact}: {}", approved.out());
    }
    let done = waiting.wait().exits(0);
    assert!(done.out().contains("hello, you"), "{}", done.out());
    approves(&sandbox, &ticket, "demo/guarded", &[]).exits(119).says("approved this request before");
    // Nothing of the waiting was left in the target account.
    let made = sandbox.calls("sqs", "CreateQueue").len();
    assert_eq!(sandbox.calls("sqs", "DeleteQueue").iter().filter(|call| call.ok).count(), made);
}

// clause: APP-5
#[test]
fn an_approval_as_a_file_serves_once() {
    let sandbox = Sandbox::start(Options::default());
    let waiting = keyless(sandbox.deploy("demo/guarded")).param("name", "you").args(&["--wait-approval", "5m"]).start();
    let ticket = ticket_of(&waiting);
    waiting.signal(Signal::TERM);
    waiting.wait().exits(143).says("stopped before the request was published");
    let file = sandbox.folder().join("approval.json");
    let file = file.to_str().unwrap();
    approves(&sandbox, &ticket, "demo/guarded", &["--out", file]).exits(0);
    let with =
        |name: &str| keyless(sandbox.deploy("demo/guarded")).param("name", name).args(&["--approval", file]).run();
    with("other").exits(120).says("it is for other parameters");
    let dry_run = ["deploy", "demo/guarded", "--param", "name=you", "--approval", file, "--dry-run", "--key", "oidc"];
    sandbox.relay(&dry_run).run().exits(0);
    with("you").exits(0);
    sandbox.relay(&dry_run).run().exits(120).says("has used the ticket");
    with("you").exits(120).says("has used the ticket");
    std::fs::write(file, "{}").unwrap();
    with("you").exits(119).says("is not an approval of `relay approve`");
}

// clause: APP-2, APP-4
#[test]
fn an_approval_for_something_else_does_not_count() {
    let (sandbox, anna) = sandbox();
    let configuration = configuration(&sandbox);
    let asked = asking(&sandbox, 1, "true");
    let other = asking(&sandbox, 2, "true");
    for (approval, why) in [
        (approve(&other, configuration, &anna), "another ticket"),
        (approve(&asked, Digest::of(b"an older configuration"), &anna), "another configuration"),
        (approve(&asked, configuration, &asked.key), "its kind is `ci`"),
    ] {
        let asked = asking(&sandbox, 1, "true");
        asked.publish_as(&with(&asked, &approval), &asked.hints()).unwrap();
        let end = asked.end();
        assert_eq!((end.kind(), end.reason()), ("refused", Reason::Approval.code()), "{end:?}");
        assert!(end.message().contains(why), "{end:?}");
    }
}
