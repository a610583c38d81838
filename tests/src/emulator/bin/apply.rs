//! `relay-admin init --apply` on two ministack accounts, as a new user runs it: from nothing to a
//! first deployment, and to a second target.

use std::fs;
use std::path::Path;
use std::process::Output;

use relay_tests::emulator::{CI, Outcome, TARGET, wait_for};
use serde_json::json;

use crate::accounts::{LIMIT, named, said};
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
    for apply in [false, true] {
        let mut remove = lab.program("relay-admin", &folder);
        remove.args(["remove", "shop/staging", "--profile", "target"]).args(apply.then_some("--apply"));
        println!("{}", said(&mut remove)?);
    }
    // The launcher remembers a revision for a few seconds.
    wait_for("a removed target to be refused", LIMIT, || {
        let ended = deploy(&lab, &folder, "shop/staging")?;
        Ok((ended.status.code() == Some(120)).then_some(()))
    })?;
    expect(true, "a removed target is refused")?;
    deploys(&lab, &folder, "shop/production")?;
    println!("\nFrom nothing to two targets in {TARGET} with one command each.");
    Ok(())
}

/// Deploys with the session of CI's role, whose token the emulator does not check.
fn deploy(lab: &Lab, folder: &Path, target: &str) -> Outcome<Output> {
    let mut relay = lab.program("relay", folder);
    relay.args(["deploy", target, "--param", "version=1.2.3", "--start-timeout", "20s"]);
    relay.env("AWS_PROFILE", "ci").env("AWS_REGION", "eu-west-1").output().map_err(named("relay"))
}

fn deploys(lab: &Lab, folder: &Path, target: &str) -> Outcome<()> {
    let output = deploy(lab, folder, target)?;
    let words = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
    expect(
        output.status.success() && output.stdout == b"deploying 1.2.3\n",
        &format!("a deployment to {target} runs: {words}"),
    )
}
