//! Plan and apply apart: one target saves a plan with its text, a person reads exactly that text,
//! and another target applies exactly that plan. Another plan, a plan of another requester, and a
//! used ticket are refused.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use relay_protocol::Ticket;
use relay_protocol::keys::PrivateKey;
use relay_tests::kit::deploy::Deploy;
use relay_tests::kit::sandbox::TARGET;
use relay_tests::kit::targets::{Head, target};
use relay_tests::{Deployed, Options, Sandbox};

/// What applies a plan: one approval, and a plan of the same requester that went well within the
/// hour.
const APPLIES: &str = r#"
permit(principal in Group::"sandbox", action == Action::"deploy", resource)
when {
    context.approvals >= 1 && context.saved.plan.exit_code == 0 &&
    context.saved.plan.same_requester && context.saved.plan.age_seconds < 3600
};
permit(principal in Group::"people", action == Action::"approve", resource)
when { context.saved.plan.exit_code == 0 };"#;

const PERSON: &str = r#"
[[signers]]
name = "approver"
kind = "person"
key = "${APPROVER_KEY}"
groups = ["people"]
"#;

fn apply(steps: &str) -> String {
    let body = format!(
        "\n[parameters]\nplan = {{ saved_by = \"test/plan\", key = \"${{TARGET_PUBLIC_KEY}}\" }}\n{steps}{PERSON}"
    );
    target("test/apply", &Head { policy: APPLIES, ..Head::default() }, &body)
}

/// A plan is a file with a word; applying it prints the word.
fn sandbox() -> Arc<Sandbox> {
    let plans = r#"
[parameters]
word = { pattern = "[a-z]+" }
code = { pattern = "[0-9]" }

[[steps]]
name = "plan"
run = ["sh", "-c", "printf %s $RELAY_PARAM_WORD > made.plan; echo \"will say $RELAY_PARAM_WORD\"; echo unseen >&2"]
save = ["made.plan"]
save_text = true

[[steps]]
name = "end"
run = ["sh", "-c", "exit $RELAY_PARAM_CODE"]

[[signers]]
key = "OTHER"
name = "other-ci"
groups = ["sandbox"]
ci_accounts = ["111111111111"]
"#;
    let plans = plans.replace("OTHER", &other().public().to_string());
    let applies = apply("\n[[steps]]\nname = \"apply\"\nrun = [\"cat\", \"plan/made.plan\"]\n");
    let head = Head::default();
    Sandbox::start(
        Options::default().target("test/plan", target("test/plan", &head, &plans)).target("test/apply", applies),
    )
}

/// Another requester of plans. The seed is the same in each test.
fn other() -> PrivateKey {
    PrivateKey::from_seed([77; 32])
}

/// The digest of the plan that a deployment saved.
fn saved(done: &Deployed, step: &str) -> String {
    done.result(&format!("/outputs/saved.{step}")).as_str().unwrap_or_else(|| panic!("{}", done.err())).to_owned()
}

fn plan(sandbox: &Arc<Sandbox>, word: &str, code: u8) -> String {
    let done =
        sandbox.deploy("test/plan").param("word", word).param("code", &code.to_string()).run().exits(code.into());
    saved(&done, "plan")
}

/// `relay approve`, by a person who may read the target account's bucket.
fn approve(sandbox: &Arc<Sandbox>, ticket: &str, more: &[&str]) -> Deploy {
    let key = sandbox.variable("RELAY_SANDBOX_APPROVER").to_owned();
    let call = sandbox.relay(&[&["approve", ticket, "--target", "test/apply", "--key", &key], more].concat());
    let profiles = call.folder().join("profiles");
    let text = format!("[target]\naws_access_key_id = {TARGET}\naws_secret_access_key = x\n");
    std::fs::write(&profiles, text).unwrap();
    let call = call.env("AWS_SHARED_CREDENTIALS_FILE", profiles.to_str().unwrap());
    call.through(&["sh", "-c", "echo test/apply | \"$0\" \"$@\""])
}

/// Asks for an approval, and returns the waiting call with its ticket.
fn waiting(sandbox: &Arc<Sandbox>, plan: &str) -> (relay_tests::kit::deploy::Running, String) {
    let waiting = sandbox.deploy("test/apply").param("plan", plan).args(&["--wait-approval", "5m"]).start();
    waiting.until_stderr("relay approve ");
    let said = waiting.stderr_so_far();
    let ticket = said.split_once("relay approve ").unwrap().1.split_whitespace().next().unwrap().to_owned();
    (waiting, ticket)
}

// clause: ART-7, ART-8, APP-4
#[test]
fn what_was_read_is_what_is_applied() {
    let sandbox = sandbox();
    let plan = plan(&sandbox, "hello", 0);
    let (asking, ticket) = waiting(&sandbox, &plan);
    // Without a right to read the plan, a person does not approve it blindly.
    approve(&sandbox, &ticket, &[]).run().says("--saved-profile");
    let approved = approve(&sandbox, &ticket, &["--saved-profile", "target"]).run().exits(0);
    for words in
        ["was saved by", "of test/plan, asked for by sandbox-ci, exit code 0", "│ will say hello", "end of the text"]
    {
        assert!(approved.out().contains(words), "{words}: {}", approved.out());
    }
    assert!(!approved.out().contains("unseen"));
    let done = asking.wait().exits(0);
    assert_eq!(done.out(), "hello");

    // A copy serves as well, and another file does not.
    let (asking, ticket) = waiting(&sandbox, &plan);
    let (operator, bucket) = (sandbox.operator(), sandbox.bucket());
    let object = operator.keys(&bucket, "saved/test/plan/").into_iter().find(|key| key.contains(&plan)).unwrap();
    let copy = sandbox.folder().join("copy.tar.zst");
    let mut bytes = operator.get_object(&bucket, &object).unwrap();
    std::fs::write(&copy, &bytes).unwrap();
    let other = sandbox.folder().join("other.tar.zst");
    bytes.push(0);
    std::fs::write(&other, &bytes).unwrap();
    approve(&sandbox, &ticket, &["--saved", other.to_str().unwrap()]).run().exits(119).says("another plan");
    let approved = approve(&sandbox, &ticket, &["--saved", copy.to_str().unwrap()]).run().exits(0);
    assert!(approved.out().contains("│ will say hello"));
    asking.wait().exits(0);
}

// clause: ART-8, APP-5
#[test]
fn another_plan_another_requester_and_a_used_ticket_are_refused() {
    let sandbox = sandbox();
    let good = plan(&sandbox, "good", 0);
    let deploy = |plan: &str| sandbox.deploy("test/apply").param("plan", plan);
    deploy(&good).run().exits(120).says("0 persons have approved");
    // Nobody saved these.
    deploy(&"0".repeat(64)).run().exits(120).says("test/plan did not save it: no record says so");
    // It went wrong.
    let bad = plan(&sandbox, "bad", 3);
    deploy(&bad).run().exits(120).says("no policy of test/apply permits");
    // Somebody else made it.
    let done = sandbox.deploy("test/plan").param("word", "theirs").param("code", "0");
    let done = done.env("RELAY_SIGNING_KEY", &other().to_pem()).run().exits(0);
    deploy(&saved(&done, "plan")).run().exits(120).says("no policy of test/apply permits");

    // An approval of one plan lets no other one run, and no second deployment.
    let (asking, ticket) = waiting(&sandbox, &good);
    let file = sandbox.folder().join("approval");
    let out = ["--saved-profile", "target", "--out", file.to_str().unwrap()];
    approve(&sandbox, &ticket, &out).run().exits(0);
    asking.signal(rustix::process::Signal::INT);
    asking.wait();
    let second = plan(&sandbox, "second", 0);
    let with = |plan: &str| deploy(plan).args(&["--approval", file.to_str().unwrap()]).run();
    with(&second).exits(120).says("other parameters");
    with(&good).exits(0);
    with(&good).exits(120).says("has used the ticket");
    assert!(ticket.parse::<Ticket>().is_ok());

    // Whoever writes into the bucket without the plan target's key saves nothing.
    let operator = sandbox.operator();
    let forged = "f".repeat(64);
    let marks = operator.keys(&sandbox.evidence_bucket(), "deployments/test/plan/saved/");
    let mark = operator.get_object(&sandbox.evidence_bucket(), marks.first().unwrap()).unwrap();
    operator.put_object(&sandbox.evidence_bucket(), &format!("deployments/test/plan/saved/{forged}"), mark);
    deploy(&forged).run().exits(120).says("the record does not name it");
}

/// The `terraform` on PATH; without one, the test is skipped.
fn terraform() -> Option<PathBuf> {
    let found = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>())
        .map(|folder| folder.join("terraform"))
        .find(|file| file.is_file())?;
    Command::new(&found).arg("version").output().is_ok_and(|output| output.status.success()).then_some(found)
}

// clause: ART-7, ART-8
/// The plan target has no right to change anything, and the apply target runs nothing but a plan
/// that was approved. `terraform_data` needs no provider and no network.
#[test]
fn terraform_plans_and_applies_apart() {
    let Some(terraform) = terraform() else {
        eprintln!("skipped: there is no terraform on PATH");
        return;
    };
    let terraform = terraform.to_str().unwrap();
    let plans = format!(
        r#"CHECKPOINT_DISABLE = "1"

[parameters]
source = {{ artifact = "s3://${{ARTIFACTS}}/test/plan/" }}

[[steps]]
name = "init"
run = ["{terraform}", "-chdir=source", "init", "-input=false", "-no-color"]

[[steps]]
name = "plan"
run = ["{terraform}", "-chdir=source", "plan", "-input=false", "-no-color", "-out=tfplan"]

[[steps]]
name = "show"
run = ["{terraform}", "-chdir=source", "show", "-no-color", "tfplan"]
save = ["source"]
save_text = true
"#
    );
    let applies = apply(&format!(
        r#"
[[steps]]
name = "apply"
run = ["{terraform}", "-chdir=plan/source", "apply", "-input=false", "-no-color", "tfplan"]
"#
    ));
    let sandbox = Sandbox::start(
        Options::default()
            .target("test/plan", target("test/plan", &Head::default(), &plans))
            .target("test/apply", applies),
    );
    let (source, marker) = (sandbox.folder().join("source"), sandbox.folder().join("applied"));
    std::fs::create_dir(&source).unwrap();
    let main = format!(
        r#"resource "terraform_data" "shop" {{
  input = "version 7"
  provisioner "local-exec" {{ command = "echo applied >> {}" }}
}}
"#,
        marker.display()
    );
    std::fs::write(source.join("main.tf"), main).unwrap();
    let planned = sandbox.deploy("test/plan").args(&["--artifact", &format!("source={}", source.display())]);
    let planned = saved(&planned.run().exits(0), "show");
    assert!(!marker.exists(), "a plan changes nothing");
    let (asking, ticket) = waiting(&sandbox, &planned);
    let approved = approve(&sandbox, &ticket, &["--saved-profile", "target"]).run().exits(0);
    assert!(approved.out().contains("│ Plan: 1 to add, 0 to change, 0 to destroy."), "{}", approved.out());
    let done = asking.wait().exits(0);
    assert!(done.out().contains("Apply complete! Resources: 1 added"), "{}", done.out());
    assert_eq!(std::fs::read_to_string(&marker).unwrap(), "applied\n");
}
