//! The images that the configuration names are the ones that run; the record and the verification
//! summary name them, and an approval covers them.

use std::sync::Arc;

use relay_protocol::record::{Deployment, Record};
use relay_protocol::summary::{LEVEL, Summary, Verdict, resource};
use relay_protocol::{Digest, Envelope};
use relay_tests::kit::targets::{Head, SHELL, target};
use relay_tests::{Options, Sandbox};

const TARGET: &str = "test/images";

fn image(name: &str, digit: &str) -> String {
    format!("registry.example/{name}@sha256:{}", digit.repeat(64))
}

fn configuration() -> String {
    let images = format!("\n[images]\ntool = \"{}\"\nrunner = \"{}\"\n", image("tool", "a"), image("relay", "b"));
    target(TARGET, &Head::default(), SHELL) + &images
}

fn sandbox() -> Arc<Sandbox> {
    Sandbox::start(Options::default().target(TARGET, configuration()))
}

fn digest(digit: &str) -> Option<Digest> {
    Some(digit.repeat(64).parse().unwrap())
}

// clause: RUN-14, REC-2, REC-3, REC-8
#[test]
fn record_and_summary_name_the_images() {
    let sandbox = sandbox();
    let done = sandbox.deploy(TARGET).param("script", "true").run().exits(0);
    let envelope = |name: &str| Envelope::parse(&sandbox.evidence(&done.id(), name).unwrap(), 1 << 20).unwrap();
    let record = sandbox.target_key().verify::<Record<Deployment>>(&envelope("runner/record.json")).unwrap();
    let record = record.statement();
    assert_eq!((record.subject("image/runner"), record.subject("image/install")), (digest("a"), digest("b")));
    assert_eq!(record.predicate.capacity.as_deref(), Some("FARGATE"));

    let summary = sandbox.answer_key().verify::<Record<Summary>>(&envelope("launcher/vsa.json")).unwrap();
    let summary = summary.statement();
    assert_eq!((summary.subject("image/runner"), summary.subject("image/install")), (digest("a"), digest("b")));
    assert_eq!(summary.subject("request"), record.subject("request"));
    assert_eq!(summary.subject("configuration"), record.subject("configuration"));
    let Summary { verification_result, verified_levels, resource_uri, .. } = &summary.predicate;
    assert_eq!((*verification_result, verified_levels.as_slice()), (Verdict::Passed, &[LEVEL.to_owned()][..]));
    assert_eq!(*resource_uri, resource(&TARGET.parse().unwrap()));
    // A request that is refused has no summary.
    let refused = sandbox.deploy(TARGET).param("script", "true").param("other", "x").run().exits(120);
    assert!(sandbox.evidence(&refused.id(), "launcher/vsa.json").is_none());
}

// clause: RUN-14
#[test]
fn another_image_than_the_configuration_names_runs_nothing() {
    let sandbox = sandbox();
    let operator = sandbox.operator();
    let marker = sandbox.folder().join("ran");
    let script = format!("echo ran >> {}", marker.display());
    let (_, entry_point, text) = operator.definition("relay_test_images");
    let role = "relay-test-images";
    for (other, says) in [
        (image("tool", "c"), "runs the image sha256:ccc"),
        // The digest of the tool is right; the container that installs the runner is missing.
        (image("tool", "a"), "ECS does not say which image the container `install` runs"),
    ] {
        operator.register_image(&other, "relay_test_images", (&entry_point, &text), role);
        // The launcher remembers a revision for a few seconds.
        relay_tests::eventually("the new revision is used", || {
            let done = sandbox.deploy(TARGET).param("script", &script).run();
            (done.code == 120 && done.err().contains(says)).then_some(())
        });
    }
    let ran = std::fs::read_to_string(&marker).unwrap_or_default();
    let done =
        sandbox.deploy(TARGET).param("script", &script).run().exits(120).says("the target's owner should render");
    assert_eq!(std::fs::read_to_string(&marker).unwrap_or_default(), ran, "nothing ran");
    let record = sandbox.evidence(&done.id(), "runner/record.json").unwrap();
    let envelope = Envelope::parse(&record, 1 << 20).unwrap();
    let record = sandbox.target_key().verify::<Record<Deployment>>(&envelope).unwrap();
    let outcome = serde_json::to_value(&record.statement().predicate.outcome).unwrap();
    assert_eq!(outcome["ended"]["reason"], "image");
}

// clause: RUN-15, REC-3
/// The launcher passes the provider to RunTask, and the runner finds that its task runs there.
#[test]
fn a_target_that_changes_nothing_has_a_capacity_of_its_own() {
    let fields = "\nread_only = true\ncapacity = \"relay_test_plan\"\ntimeout";
    let configuration = target("test/plan", &Head::default(), SHELL).replacen("\ntimeout", fields, 1);
    let sandbox = Sandbox::start(Options::default().target("test/plan", configuration));
    let done = sandbox.deploy("test/plan").param("script", "echo planned").run().exits(0);
    let bytes = sandbox.evidence(&done.id(), "runner/record.json").unwrap();
    let record = Envelope::parse(&bytes, 1 << 20).unwrap();
    let record = sandbox.target_key().verify::<Record<Deployment>>(&record).unwrap();
    assert_eq!(record.statement().predicate.capacity.as_deref(), Some("relay_test_plan"));
}
