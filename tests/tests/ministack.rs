//! End to end on ministack, which nobody here wrote: SNS, SQS, S3, KMS, STS, Lambda and CloudFormation are its own, ECS is our sandbox's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::sync::LazyLock;

use relay_tests::ministack::*;

static WORLD: LazyLock<World> = LazyLock::new(|| World::start("usual", Permissions::Unchecked).unwrap());

#[test]
fn a_deployment_succeeds() {
    let ended = WORLD.deploy(&["demo/hello", "--param", "name=third-party"]).unwrap().end().unwrap();
    println!("{}", ended.words());
    assert_eq!(ended.code, Some(0), "{}", ended.words());
    println!("{}", ended.result);
    let id = text(&ended.result, &["deployment_id"]).unwrap();
    println!("{:#?}", WORLD.launcher_log(&id));
    println!("{:#?}", WORLD.tasks(&id));
}
