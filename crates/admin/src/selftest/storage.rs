//! S3: the claim, the lock and the archive rest on conditional writes.

use std::process::Command;

use serde_json::{Value, json};

use super::trial::{Outcome, Problem, Trial, Verdict, text};
use crate::account::{Account, Refused, file_of};

fn put(account: &Account, bucket: &str, key: &str, condition: &Value) -> Result<Value, Refused> {
    let mut parameters = json!({"Bucket": bucket, "Key": key, "ContentType": "text/plain"});
    if let (Some(to), Some(more)) = (parameters.as_object_mut(), condition.as_object()) {
        to.extend(more.clone());
    }
    account.call("s3api", "put-object", &parameters)
}

pub(crate) fn creates_once(trial: &mut Trial<'_>) -> Outcome {
    let bucket = trial.bucket("once")?;
    put(&trial.target, &bucket, "claim", &json!({"IfNoneMatch": "*"}))?;
    let second = put(&trial.target, &bucket, "claim", &json!({"IfNoneMatch": "*"}));
    Verdict::refused_with(second, &["PreconditionFailed"])
}

pub(crate) fn one_creator_wins(trial: &mut Trial<'_>) -> Outcome {
    let bucket = trial.bucket("race")?;
    let start = |body: &tempfile::NamedTempFile| -> Result<_, Problem> {
        let mut aws = Command::new("aws");
        trial.target.lend(&mut aws);
        aws.args(["s3api", "put-object", "--bucket", &bucket, "--key", "claim", "--if-none-match", "*", "--body"]);
        aws.arg(body.path()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        Ok(aws.spawn()?)
    };
    let bodies = (0..4).map(|n| file_of(format!("creator {n}").as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let racing = bodies.iter().map(start).collect::<Result<Vec<_>, _>>()?;
    let ended = racing.into_iter().map(|mut child| child.wait()).collect::<Result<Vec<_>, _>>()?;
    let won = ended.iter().filter(|status| status.success()).count();
    Verdict::of(won == 1, format!("{won} of 4 creators succeeded"))
}

pub(crate) fn replaces_what_was_read(trial: &mut Trial<'_>) -> Outcome {
    let bucket = trial.bucket("replace")?;
    let first = put(&trial.target, &bucket, "lock", &json!({"Metadata": {"holder": "a"}}))?;
    let tag = text(&first, "ETag")?;
    put(&trial.target, &bucket, "lock", &json!({ "IfMatch": tag }))?;
    let other = json!({"IfMatch": "\"00000000000000000000000000000000\""});
    Verdict::refused_with(put(&trial.target, &bucket, "lock", &other), &["PreconditionFailed"])
}

pub(crate) fn reads_what_was_written(trial: &mut Trial<'_>) -> Outcome {
    let bucket = trial.bucket("read")?;
    put(&trial.target, &bucket, "a/b", &json!({}))?;
    let listed = trial.target.call("s3api", "list-objects-v2", &json!({"Bucket": bucket, "Prefix": "a/"}))?;
    trial.target.call("s3api", "head-object", &json!({"Bucket": bucket, "Key": "a/b"}))?;
    let is_listed = listed["Contents"][0]["Key"] == "a/b";
    Verdict::of(is_listed, format!("read at once; listed: {is_listed}"))
}

pub(crate) fn policy_demands_a_condition(trial: &mut Trial<'_>) -> Outcome {
    let bucket = trial.bucket("policy")?;
    let resource = format!("arn:{}:s3:::{bucket}/*", trial.target.region.partition());
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": resource,
        "Condition": {"Null": {"s3:if-none-match": "true"}},
    }]});
    let policy = json!({"Bucket": bucket, "Policy": policy.to_string()});
    trial.target.call("s3api", "put-bucket-policy", &policy)?;
    put(&trial.target, &bucket, "claim", &json!({"IfNoneMatch": "*"}))?;
    Verdict::refused_with(put(&trial.target, &bucket, "other", &json!({})), &["AccessDenied"])
}
