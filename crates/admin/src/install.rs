//! The stacks of an installation: their templates, in the program, and how they are made and
//! removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use relay_console::Failure;
use relay_protocol::keys::VerifyingKey;
use relay_protocol::names::InvalidName;
use relay_protocol::{AccountId, PublicKey, Region, TargetName};
use serde_json::{Value, json};

use crate::account::{Account, Refused};

pub(crate) const CI_ACCOUNT: &str = include_str!("../../../infra/ci-account.yaml");
pub(crate) const FOUNDATION: &str = include_str!("../../../infra/foundation.yaml");
pub(crate) const NETWORK: &str = include_str!("../../../infra/network.yaml");

/// The interface endpoints that network.yaml always makes, in each of its two zones.
pub(crate) const ENDPOINTS: u32 = 7;

/// The names of the stacks of ci-account.yaml, of foundation.yaml, and of network.yaml.
pub(crate) const CI_STACK: &str = "relay-ci";
pub(crate) const FOUNDATION_STACK: &str = "relay";
pub(crate) const NETWORK_STACK: &str = "relay-network";

/// The target's name in a form that files, stacks and roles can carry.
pub(crate) fn flat(target: &TargetName) -> String {
    target.as_str().replace('/', "-")
}

/// The name of a target's stack.
pub(crate) fn stack_of(target: &TargetName) -> String {
    format!("relay-{}", flat(target))
}

/// The topic that foundation.yaml makes.
pub(crate) fn topic(region: &Region, account: &AccountId) -> String {
    format!("arn:{}:sns:{region}:{account}:relay", region.partition())
}

/// What deleting a stack may take.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// The file with the launcher: the given one, or the one of the release, beside this program.
///
/// # Errors
///
/// If there is none.
pub(crate) fn launcher_zip(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let name = format!("relay-launcher-{}-{}.zip", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let released = program.with_file_name(name);
    let beside = if released.is_file() { released } else { program.with_file_name("relay-launcher.zip") };
    let file = given.map_or(beside, Path::to_owned);
    match file.is_file() {
        true => Ok(file),
        false => Err(Failure::usage(format!("there is no {}", file.display()))
            .hint("name the relay-launcher.zip of the release with --launcher-zip FILE")),
    }
}

/// Makes a bucket.
pub(crate) fn make_bucket(account: &Account, name: &str) -> Result<(), Refused> {
    let mut parameters = json!({ "Bucket": name });
    // S3 accepts no LocationConstraint for its first region.
    if account.region.as_str() != "us-east-1" {
        parameters["CreateBucketConfiguration"] = json!({ "LocationConstraint": account.region });
    }
    account.call("s3api", "create-bucket", &parameters).map(|_| ())
}

/// Puts the launcher into a bucket.
pub(crate) fn upload(account: &Account, bucket: &str, key: &str, file: &Path) -> Result<(), Failure> {
    let body = file.display().to_string();
    account.call_with("s3api", "put-object", &json!({"Bucket": bucket, "Key": key}), &["--body", &body])?;
    Ok(())
}

/// The VPC of subnets, which must be one.
pub(crate) fn vpc_of(account: &Account, subnets: &[String]) -> Result<String, Failure> {
    let answer = account.call("ec2", "describe-subnets", &json!({ "SubnetIds": subnets }))?;
    let vpcs = answer["Subnets"].as_array().into_iter().flatten().filter_map(|subnet| subnet["VpcId"].as_str());
    let vpcs: std::collections::BTreeSet<&str> = vpcs.collect();
    match (vpcs.first(), vpcs.len()) {
        (Some(vpc), 1) => Ok((*vpc).to_owned()),
        _ => Err(Failure::usage(format!("the subnets {} are not of one VPC", subnets.join(", ")))),
    }
}

/// The VPC and the subnets in the outputs of network.yaml.
pub(crate) fn network_in(outputs: &BTreeMap<String, String>) -> (String, Vec<String>) {
    let output = |name: &str| outputs.get(name).cloned().unwrap_or_default();
    (output("VpcId"), output("Subnets").split(',').map(str::to_owned).collect())
}

/// The public half of a KMS key, as CI pins it.
pub(crate) fn public_key(account: &Account, key: &str) -> Result<PublicKey, Failure> {
    let answer = account.call("kms", "get-public-key", &json!({ "KeyId": key }))?;
    read_public_key(answer["PublicKey"].as_str().unwrap_or_default()).map_err(Failure::usage)
}

/// Reads a public key in base64, which must be one that verifies signatures.
pub(crate) fn read_public_key(text: &str) -> Result<PublicKey, String> {
    let key: PublicKey = text.parse().map_err(|error: InvalidName| error.to_string())?;
    VerifyingKey::from_spki(&key).map_err(|error| error.to_string())?;
    Ok(key)
}

/// A resource that a stack has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) kind: String,
    /// The physical id.
    pub(crate) id: String,
}

/// The resources of a stack; none if there is no such stack.
pub(crate) fn resources(account: &Account, stack: &str) -> Result<Vec<Resource>, Refused> {
    let answer = account.call("cloudformation", "describe-stack-resources", &json!({ "StackName": stack }));
    let answer = match answer {
        Err(refused) if refused.is_no_stack() => return Ok(Vec::new()),
        answer => answer?,
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let one =
        |value: &Value| Some(Resource { kind: text(&value["ResourceType"])?, id: text(&value["PhysicalResourceId"])? });
    Ok(answer["StackResources"].as_array().into_iter().flatten().filter_map(one).collect())
}

/// Deletes a stack, and waits until it is gone. Keys and buckets stay, as the templates say.
pub(crate) fn delete(account: &Account, stack: &str) -> Result<(), Refused> {
    account.call("cloudformation", "delete-stack", &json!({ "StackName": stack }))?;
    let began = Instant::now();
    loop {
        let Some(described) = account.stack(stack)? else { return Ok(()) };
        let status = described["StackStatus"].as_str().unwrap_or_default().to_owned();
        if status == "DELETE_COMPLETE" {
            return Ok(());
        }
        if status == "DELETE_FAILED" || began.elapsed() > PATIENCE {
            let why = described["StackStatusReason"].as_str().unwrap_or_default();
            return Err(Refused {
                call: format!("cloudformation delete-stack {stack}"),
                code: status,
                message: why.to_owned(),
            });
        }
        std::thread::sleep(Duration::from_secs(2));
    }
}
