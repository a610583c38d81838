//! What separates the tool from the runner: credentials of its own role, which outlive a session,
//! and another user.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use relay_tests::kit::deploy::Deployed;
use relay_tests::kit::sandbox::bin_dir;
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};
use serde_json::Value;

const ROLE: &str = "arn:aws:iam::222222222222:role/relay-deploy/payments";

/// The length of a session here, in milliseconds. In an account it is 15 minutes.
const SESSION_MS: u32 = 2_000;

fn sandbox() -> Arc<Sandbox> {
    let with_role = |name: &str| {
        target(
            name,
            &Head { role: Some(ROLE), ..Head::default() },
            &format!("AWS_ENDPOINT_URL = \"${{ENDPOINT}}\"\nAWS_REGION = \"eu-west-1\"\n{SHELL}"),
        )
    };
    Sandbox::start(
        Options::default().set(&format!("credentials_ms={SESSION_MS}")).target("test/role", with_role("test/role")),
    )
}

fn isolation(done: &Deployed) -> String {
    let record = relay_protocol::Envelope::parse(done.result("/record").to_string().as_bytes(), 1 << 20).unwrap();
    let record: Value = serde_json::from_slice(record.unverified_payload()).unwrap();
    record["predicate"]["isolation"].as_str().unwrap().to_owned()
}

fn caller() -> String {
    bin_dir().join("aws-caller").display().to_string()
}

// clause: RUN-10
#[test]
fn a_deployment_outlives_the_session_of_its_role_and_each_call_bears_its_id() {
    let sandbox = sandbox();
    let calls = 3 * SESSION_MS / 500;
    let done = sandbox.deploy("test/role").param("script", &format!("{} {calls} 500", caller())).run().exits(0);
    let arn = format!("arn:aws:sts::222222222222:assumed-role/payments/{}", done.id());
    assert_eq!(done.out().lines().collect::<Vec<_>>(), vec![arn.as_str(); calls as usize]);
    assert_eq!(isolation(&done), "credentials");

    let of_the_role: Vec<_> =
        sandbox.log().into_iter().filter(|entry| entry.principal == ROLE && entry.session == done.id()).collect();
    assert_eq!(of_the_role.len(), calls as usize, "each call of the tool has the deployment's id as its session name");
    let assumed: Vec<_> =
        sandbox.calls("sts", "AssumeRole").into_iter().filter(|entry| entry.text("session") == done.id()).collect();
    assert!(assumed.len() >= 3, "assumed {} times for three sessions' time", assumed.len());
    for entry in assumed {
        assert_eq!((entry.text("role"), entry.text("sourceIdentity")), (ROLE, done.id().as_str()));
        assert_eq!(entry.detail["tags"]["relay-target"], "test/role");
        assert_eq!(entry.detail["seconds"], 900);
    }
}

#[test]
fn the_credentials_endpoint_wants_its_token() {
    let done = sandbox().deploy("test/role").param("script", &format!("{} knock", caller())).run().exits(0);
    assert!(done.out().starts_with("HTTP/1.1 403"), "{}", done.out());
}

/// Needs root, as the runner does to switch users. Without root, the test says so and checks the
/// other half: the user is not switched, and the record does not claim that it was.
#[test]
fn the_tool_runs_as_another_user_where_the_runner_is_root() {
    // A folder that another user can enter: the sandbox's own folder is closed to it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let body = SHELL.replace("[parameters]", "[parameters]\nsource = { artifact = \"s3://${ARTIFACTS}/test/uid/\" }");
    let configuration = target("test/uid", &Head { uid: 65_532, ..Head::default() }, &body)
        .replace("${WORKSPACE}", &folder.path().display().to_string());
    let sandbox = Sandbox::start(Options::default().target("test/uid", configuration));
    let source = sandbox.folder().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "from CI").unwrap();
    let script = "id -u; id -G; cat source/file; echo; touch source/new here $TMPDIR/there && echo wrote; echo out > /dev/stdout; \
                  cat /proc/$PPID/environ > /dev/null 2>&1 || echo closed; kill -0 $PPID 2> /dev/null || echo safe; \
                  touch ../beside 2> /dev/null || echo bounded; echo name=value > $RELAY_OUTPUT; exit 3";
    let done = sandbox
        .deploy("test/uid")
        .param("script", script)
        .args(&["--artifact", &format!("source={}", source.display())])
        .run()
        .exits(3);
    if rustix::process::geteuid().is_root() {
        assert_eq!(done.out(), "65532\n65532\nfrom CI\nwrote\nout\nclosed\nsafe\nbounded\n", "{}", done.err());
        assert_eq!(isolation(&done), "uid");
    } else {
        eprintln!("skipped: switching users needs root");
        assert_eq!(isolation(&done), "none");
    }
    assert_eq!(done.result("/outputs/name"), "value");
    // The work directory could be removed, although its files belonged to the other user. That is
    // the last thing that the runner does.
    sandbox.task_when(sandbox.tasks_of(&done.id())[0].arn(), "STOPPED");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
