//! `relay-admin init --apply` on two ministack accounts, as a new user runs it: from nothing to a
//! first deployment, and to a second target.

use std::fs;
use std::path::Path;

use relay_tests::emulator::{CI, Outcome, TARGET};
use serde_json::json;

use crate::accounts::{named, said};
use crate::selftest::expect;
use crate::shim::Lab;

pub(crate) fn run(package: &Path) -> Outcome<()> {
    let lab = Lab::make("init", package)?;
    let folder = lab.world.folder.join("repository");
    fs::create_dir(&folder).map_err(named(folder.display()))?;
    let init = |target: &str, more: &[&str]| {
        let mut command = lab.program("relay-admin", &folder);
        command.args(["init", "--target", target, "--ci", "github", "--ci-source", "example/shop"]);
        command.args(["--ci-profile", "ci", "--target-profile", "target"]).args(more);
        command
    };
    let image = lab.image.named();
    let apply = |target: &str| -> Outcome<String> {
        let said = said(&mut init(target, &["--apply", "--new-network", "--image", &image]))?;
        println!("{said}");
        Ok(said)
    };

    let one = init("shop/production", &["--apply"]).args(["--target-account", CI]).output().map_err(named("init"))?;
    expect(one.status.code() == Some(119), "a wrong account number is refused before anything is made")?;

    apply("shop/production")?;
    deploys(&lab, &folder, "shop/production")?;
    apply("shop/staging")?;
    deploys(&lab, &folder, "shop/staging")?;
    deploys(&lab, &folder, "shop/production")?;
    let again = apply("shop/staging")?;
    expect(again.contains("kept ./relay.toml"), "a second run keeps what is there")?;
    let job = fs::read_to_string(folder.join("ci/shop-staging-github.yml")).map_err(named("the second job"))?;
    expect(job.contains("relay deploy shop/staging"), "each target has a job of its own")?;

    let stacks = lab.world.call(CI, "cloudformation", "DescribeStacks", json!({"StackName": "relay-ci"}))?;
    let subjects = "repo:example/shop:environment:production,repo:example/shop:environment:staging";
    expect(stacks.to_string().contains(subjects), "CI's role trusts both environments")?;
    println!("\nFrom nothing to two targets in {TARGET} with one command each.");
    Ok(())
}

/// Deploys with the session of CI's role, whose token the emulator does not check.
fn deploys(lab: &Lab, folder: &Path, target: &str) -> Outcome<()> {
    let mut relay = lab.program("relay", folder);
    relay.args(["deploy", target, "--param", "version=1.2.3"]).env("AWS_PROFILE", "ci").env("AWS_REGION", "eu-west-1");
    let output = relay.output().map_err(named("relay"))?;
    let words = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    expect(
        output.status.success() && output.stdout == b"deploying 1.2.3\n",
        &format!("a deployment to {target} runs: {words}"),
    )
}
