//! End to end on ministack, a third-party emulator. SNS, SQS, S3, KMS, STS, Lambda, Logs and
//! CloudFormation are ministack's. ECS is our sandbox's.
//!
//! These tests cannot show the following, because ministack differs from AWS:
//! - ECS: no `clientToken`, no ConflictException, and `entryPoint` is ignored. So ECS is ours. A
//!   configuration has one endpoint for all services, so a runner that finds a lock held asks
//!   ministack's ECS about the holder, and that knows no task. No test here contends for a lock.
//! - SNS invokes a function once and forgets it: no retries, no dead letters. The tests publish
//!   duplicates by hand.
//! - Policies are checked only if ministack is told so (`Permissions::Checked`). `aws:PrincipalArn`
//!   is then the session's ARN instead of the role's, so ministack denies the queues that the CLI
//!   creates for a deployment. In that mode, the reply queue was created in advance. ministack also
//!   requires `sqs:SendMessageBatch` and `sqs:DeleteMessageBatch`, which AWS does not have: on AWS,
//!   SendMessage and DeleteMessage cover the batches.
//! - The sandbox's ECS checks no policy in this mode, so "cannot run tasks" of P1 is not shown
//!   here.
//! - CloudFormation treats a reference to a missing resource as an empty text. The broken templates
//!   here are broken in other ways.
//! - Queues are visible everywhere immediately, and a name can be reused immediately. KMS and S3
//!   answer immediately and never throttle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use relay_protocol::{Digest, Envelope};
use relay_tests::emulator::*;
use relay_tests::kit::sandbox::bin_dir;
use serde_json::{Value, json};

/// One world for all tests except those that need another. It ends with this process.
fn world() -> &'static World {
    static WORLD: LazyLock<Outcome<World>> = LazyLock::new(|| World::start("usual", Permissions::Unchecked));
    // Every test reports the cause, not only the first.
    WORLD.as_ref().unwrap_or_else(|why| panic!("{why}"))
}

const LIMIT: Duration = Duration::from_secs(60);

fn deploy(arguments: &[&str]) -> Deployed {
    world().deploy(arguments).unwrap().end().unwrap()
}

/// The arguments of `relay deploy` that run a script.
fn script(text: &str) -> [String; 3] {
    ["demo/shell".to_owned(), "--param".to_owned(), format!("script={text}")]
}

fn deploy_script(text: &str) -> Deployed {
    deploy(&script(text).each_ref().map(String::as_str))
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = world().folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// An object of a deployment's evidence, as bytes.
fn evidence(target: &str, id: &str, name: &str) -> Vec<u8> {
    let (folder, names) = world().evidence(target, id).unwrap();
    assert!(names.iter().any(|known| known == name), "{target} {id}: {names:?}");
    let object = json!({"Bucket": EVIDENCE, "Key": format!("{folder}{name}")});
    unwrap_bytes(&world().call(TARGET, "s3", "GetObject", object).unwrap()["Body"])
}

/// The bytes in an answer of botocore, which encodes them in JSON.
fn unwrap_bytes(value: &Value) -> Vec<u8> {
    relay_protocol::encoding::from_base64(value["$bytes"].as_str().unwrap()).unwrap()
}

// clause: CLM-1, LAU-8
#[test]
fn hello_comes_back_through_five_services() {
    let ended = deploy(&["demo/hello", "--param", "name=third-party"]);
    assert_eq!(ended.code, Some(0), "{}", ended.words());
    assert_eq!(String::from_utf8_lossy(&ended.stdout), "hello, third-party\nLinux\n");
    assert!(ended.words().contains("this line goes to stderr\n"), "{}", ended.words());
    assert_eq!(ended.result["output"]["verified"], true);
    let id = text(&ended.result, &["deployment_id"]).unwrap();
    // The queues have been deleted; the claim stays.
    let queues = world().call(CI, "sqs", "ListQueues", json!({"QueueNamePrefix": format!("relay-{id}")})).unwrap();
    assert!(queues["QueueUrls"].as_array().is_none_or(Vec::is_empty), "{queues}");
    let claim: Value = serde_json::from_slice(&evidence("demo/hello", &id, "claim")).unwrap();
    assert_eq!(claim["holder"]["runner"]["task_arn"], ended.result["task_arn"]);
    let tasks = world().tasks(&id).unwrap();
    assert_eq!(tasks.len(), 1, "startedBy is the deployment's id");
    let overrides = tasks[0]["overrides"]["containerOverrides"].as_array().unwrap();
    assert_eq!((overrides.len(), overrides[0]["environment"].as_array().unwrap().len()), (1, 1));
    assert_eq!(overrides[0]["environment"][0]["name"], "RELAY_REQUEST");
    let named: Value = serde_json::from_str(overrides[0]["environment"][0]["value"].as_str().unwrap()).unwrap();
    assert_eq!((&named["deployment_id"], &named["request_digest"]), (&json!(id), &claim["request_digest"]));
}

// clause: SIG-5, SIG-9, EVD-5
/// The issuer is the sandbox's; its keys lie in the emulator's S3, and the emulator's Lambda reads
/// them.
#[test]
fn a_token_signs_in_place_of_a_key() {
    let ended = deploy(&["demo/hello", "--param", "name=token", "--key", "oidc"]);
    assert_eq!(ended.code, Some(0), "{}", ended.words());
    let id = text(&ended.result, &["deployment_id"]).unwrap();
    let keys: Value = serde_json::from_slice(&evidence("demo/hello", &id, "issuer-keys.json")).unwrap();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "{keys}");
    let record: Value = serde_json::from_slice(&evidence("demo/hello", &id, "runner/record.json")).unwrap();
    let payload = relay_protocol::encoding::from_base64(record["payload"].as_str().unwrap()).unwrap();
    let record: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(record["predicate"]["signers"][0]["name"], "sandbox-github", "{record}");
}

// clause: SIG-6
/// The emulator's own tokens are made with a shared secret (HS256), and are for the account's root.
#[test]
fn a_token_by_a_shared_secret_is_refused() {
    let names = [
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "RELAY_TOPIC_ARN",
        "RELAY_TARGET_PUBLIC_KEY",
        "RELAY_ANSWER_PUBLIC_KEY",
    ];
    let mut relay = Command::new(bin_dir().join("relay"));
    relay.env_clear().envs(names.map(|name| (name, world().variable(name).unwrap())));
    relay.args(["deploy", "demo/hello", "--param", "name=x", "--key", "oidc"]).current_dir(folder("shared-secret"));
    let output = relay.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(119), "{said}");
    assert!(said.contains("`alg` is missing, refused, or of another form"), "{said}");
}

// clause: OUT-1
#[test]
fn the_tools_exit_code_is_the_answer() {
    let ended = deploy_script("echo to stdout; echo to stderr >&2; exit 37");
    assert_eq!(ended.code, Some(37), "{}", ended.words());
    assert_eq!(ended.result["decided_by"], "tool");
    let killed = deploy_script("kill -KILL $$");
    assert_eq!(killed.code, Some(137), "{}", killed.words());
}

// clause: FRM-8, FRM-10, FRM-13
#[test]
fn every_byte_arrives_through_somebody_elses_sqs() {
    let files = folder("bytes");
    let mut random = vec![0; 4 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    // Bytes that are hard for JSON, for SQS and for terminals, without a final newline.
    let odd = b"\x1b[31mred\x1b[0m\0NUL \xff\xfe\xed\xa0\x80 \xef\xbf\xbe\xef\xbf\xbf \r\x08\x7f\xc2\x85 a\xcc\x81 \xf0\x9f\x9a\x80 end";
    let stdout = [&random[..], odd].concat();
    let stderr = [odd, &random[..1 << 20]].concat();
    fs::write(files.join("stdout"), &stdout).unwrap();
    fs::write(files.join("stderr"), &stderr).unwrap();
    let ended = deploy_script(&format!("cd '{}'; cat stderr >&2 & cat stdout; wait; exit 3", files.display()));
    assert_eq!(ended.code, Some(3), "{}", ended.result);
    assert!(ended.stdout == stdout, "stdout differs: {} bytes of {}", ended.stdout.len(), stdout.len());
    // On stderr, relay's messages come before and after the tool's bytes, never between them.
    let at = ended.stderr.windows(odd.len()).position(|window| window == odd).expect("the tool's stderr");
    assert!(ended.stderr[at..].starts_with(&stderr), "stderr differs");
    for (stream, bytes) in [("stdout", &stdout), ("stderr", &stderr)] {
        let said = &ended.result["output"][stream];
        assert_eq!((&said["bytes"], &said["sha256"]), (&json!(bytes.len()), &json!(Digest::of(bytes))));
    }
    assert_eq!(ended.result["output"]["verified"], true);
}

// clause: CTL-1, CTL-5
#[test]
fn an_interrupt_reaches_the_tool_through_the_control_queue() {
    let ready = folder("interrupt").join("ready");
    let tool = format!("trap 'echo released; exit 9' INT; touch '{}'; while :; do sleep 0.05; done", ready.display());
    let deploying = world().deploy(&script(&tool).each_ref().map(String::as_str)).unwrap();
    wait_for("the tool to run", LIMIT, || Ok(ready.exists().then_some(()))).unwrap();
    deploying.interrupt().unwrap();
    let ended = deploying.end().unwrap();
    assert_eq!(ended.code, Some(130), "{}", ended.words());
    assert_eq!((&ended.result["reason"], &ended.stdout[..]), (&json!("cancelled"), &b"released\n"[..]));
}

/// Creates a queue that gets a copy of every message published from now on, as a thief of messages
/// would have it.
fn tap(name: &str) -> String {
    let queue = world().call(TARGET, "sqs", "CreateQueue", json!({"QueueName": name})).unwrap();
    let topic = world().variable("RELAY_TOPIC_ARN").unwrap();
    let subscription = json!({
        "TopicArn": topic, "Protocol": "sqs", "Endpoint": format!("arn:aws:sqs:{REGION}:{TARGET}:{name}"),
        "Attributes": {"RawMessageDelivery": "true"},
    });
    world().call(TARGET, "sns", "Subscribe", subscription).unwrap();
    text(&queue, &["QueueUrl"]).unwrap()
}

/// The published message whose request contains `marker`.
fn stolen(queue: &str, marker: &str) -> Value {
    wait_for("the published request", LIMIT, || {
        let receive = json!({"QueueUrl": queue, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]});
        let answer = world().call(TARGET, "sqs", "ReceiveMessage", receive)?;
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        Ok(messages.into_iter().find(|message| {
            let body: Value = serde_json::from_str(message["Body"].as_str().unwrap()).unwrap();
            let payload = body["request"]["payload"].as_str().unwrap();
            String::from_utf8(relay_protocol::encoding::from_base64(payload).unwrap()).unwrap().contains(marker)
        }))
    })
    .unwrap()
}

fn publish_again(message: &Value) {
    let attributes: serde_json::Map<String, Value> = message["MessageAttributes"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), json!({"DataType": "String", "StringValue": value["StringValue"]})))
        .collect();
    let topic = world().variable("RELAY_TOPIC_ARN").unwrap();
    let again = json!({"TopicArn": topic, "Message": message["Body"], "MessageAttributes": attributes});
    world().call(CI, "sns", "Publish", again).unwrap();
}

// clause: LAU-7, LAU-11, CLM-1, CLM-2, CLM-5
#[test]
fn a_request_that_is_published_three_times_and_launched_twice_runs_once() {
    let files = folder("once");
    let queue = tap("tap-once");
    let (runs, go) = (files.join("runs"), files.join("go"));
    let text_of = format!("echo run >> '{}'; until [ -e '{}' ]; do sleep 0.05; done", runs.display(), go.display());
    let deploying = world().deploy(&script(&text_of).each_ref().map(String::as_str)).unwrap();
    let message = stolen(&queue, &runs.display().to_string());
    let id = text(&message, &["MessageAttributes", "deployment_id", "StringValue"]).unwrap();
    wait_for("the tool to run", LIMIT, || Ok(runs.exists().then_some(()))).unwrap();

    publish_again(&message);
    publish_again(&message);
    // Counts the launcher's log lines about this deployment that contain a word.
    let said = |word: &str| world().launcher_log(&id).unwrap().iter().filter(|line| line.contains(word)).count();
    wait_for("the answers to all three", LIMIT, || Ok((said("\"admitted\"") == 3).then_some(()))).unwrap();
    assert_eq!(world().tasks(&id).unwrap().len(), 1, "the launcher started the task once");

    // A caller who may run tasks starts another for the same request. Only the claim, on
    // ministack's S3, prevents a second run.
    let first = world().tasks(&id).unwrap().remove(0);
    let second = world()
        .call(
            TARGET,
            "ecs",
            "RunTask",
            json!({
                "cluster": "relay", "taskDefinition": first["taskDefinitionArn"], "launchType": "FARGATE", "startedBy": id,
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
                "overrides": {"containerOverrides": first["overrides"]["containerOverrides"]},
            }),
        )
        .unwrap();
    let second = text(&second["tasks"][0], &["taskArn"]).unwrap();
    let stopped = wait_for("the second task to end", LIMIT, || {
        Ok(world().tasks(&id)?.into_iter().find(|task| task["taskArn"] == second && task["lastStatus"] == "STOPPED"))
    })
    .unwrap();
    assert_eq!(stopped["containers"][0]["exitCode"], 120);
    let log = ["stdout", "stderr"].map(|stream| fs::read_to_string(stopped["sandbox"][stream].as_str().unwrap()));
    assert!(log.iter().flatten().any(|text| text.contains("replayed")), "{log:?}");

    fs::write(&go, "").unwrap();
    let ended = deploying.end().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.words());
    assert_eq!(ended.result["output"]["verified"], true);
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");

    // After the end, the claim outlives queues and task. Whoever recreates the reply queue receives
    // the first answer again, and nothing more.
    let queue = json!({"QueueName": format!("relay-{id}-reply")});
    let queue = text(&world().call(CI, "sqs", "CreateQueue", queue).unwrap(), &["QueueUrl"]).unwrap();
    publish_again(&message);
    let frame = wait_for("the answer to the late one", LIMIT, || {
        let answer = world().call(CI, "sqs", "ReceiveMessage", json!({"QueueUrl": queue, "WaitTimeSeconds": 1}))?;
        Ok(answer["Messages"][0]["Body"].as_str().map(str::to_owned))
    })
    .unwrap();
    let frame: Value = serde_json::from_str(&frame).unwrap();
    assert_eq!((&frame["kind"], &frame["task_arn"]), (&json!("admitted"), &first["taskArn"]));
    assert_eq!(world().tasks(&id).unwrap().len(), 2);
    assert_eq!(fs::read_to_string(&runs).unwrap(), "run\n");
}

// clause: LAU-6, REQ-6, CLM-3, LAU-10
#[test]
fn a_bad_parameter_is_refused_and_stays_refused() {
    let ended = deploy(&["demo/hello", "--param", "name=Not A Name"]);
    assert_eq!(ended.code, Some(120), "{}", ended.words());
    assert_eq!(ended.result["reason"], "parameter");
    let id = text(&ended.result, &["deployment_id"]).unwrap();
    assert_eq!(world().tasks(&id).unwrap(), Vec::<Value>::new());
    let claim = evidence("demo/hello", &id, "claim");
    assert_eq!(serde_json::from_slice::<Value>(&claim).unwrap()["holder"]["launcher"]["verdict"], "refused");
}

// clause: LAU-3, LAU-5, ENV-8
#[test]
fn a_strangers_signature_is_not_verified_and_nothing_is_claimed() {
    let files = folder("stranger");
    let key = files.join("key.pem");
    make_key(&key);
    let ended = deploy(&["demo/hello", "--param", "name=x", "--key", key.to_str().unwrap()]);
    assert_eq!(ended.code, Some(120), "{}", ended.words());
    assert_eq!(ended.result["reason"], "unverified");
    let id = text(&ended.result, &["deployment_id"]).unwrap();
    assert_eq!(world().tasks(&id).unwrap(), Vec::<Value>::new());
    assert_eq!(world().evidence("demo/hello", &id).unwrap(), (String::new(), Vec::new()));
}

fn make_key(file: &Path) {
    let relay = bin_dir().join("relay");
    let made = Command::new(relay).args(["keygen", "--out"]).arg(file).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Runs the program that docs/protocol.md gives to auditors. It uses Python and `cryptography`, and
/// none of our code.
fn audit(key: &str, envelope: &Value) -> std::process::Output {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let document = fs::read_to_string(document).unwrap();
    let (_, program) = document.split_once("```python\n# audit.py").expect("the auditor's program");
    let (program, _) = program.split_once("```").unwrap();
    let mut python = Command::new(world().venv.join("bin/python"));
    python
        .args(["-c", &format!("#{program}"), key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut python = python.spawn().unwrap();
    python.stdin.take().unwrap().write_all(envelope.to_string().as_bytes()).unwrap();
    python.wait_with_output().unwrap()
}

// clause: REC-1, REC-2, REC-3, SIG-3, VCH-1, FRM-6
#[test]
fn the_record_verifies_by_ministacks_kms_and_by_the_auditors_program() {
    let ended = deploy_script("echo audited; exit 5");
    assert_eq!(ended.code, Some(5), "{}", ended.words());
    // Frames that do not verify with the pinned key of ministack's KMS are dropped, and that is
    // reported.
    assert!(!ended.words().contains("were dropped"), "{}", ended.words());
    let record = &ended.result["record"];

    let audited = audit(&world().target_public_key, record);
    assert!(audited.status.success(), "{}", String::from_utf8_lossy(&audited.stderr));
    let statement: Value = serde_json::from_slice(&audited.stdout).unwrap();
    let predicate = &statement["predicate"];
    assert_eq!(statement["predicateType"], "urn:relay:deployment:v1");
    assert_eq!(predicate["deployment_id"], ended.result["deployment_id"]);
    assert_eq!(predicate["outcome"], json!({"exited": {"code": 5}}));
    assert_eq!(predicate["stdout"]["sha256"], json!(Digest::of(b"audited\n")));

    // The request in the evidence is a subject of the record. Its signer is the one in the
    // configuration.
    let bundle = evidence("demo/shell", ended.result["deployment_id"].as_str().unwrap(), "request.json");
    let request = &serde_json::from_slice::<Value>(&bundle).unwrap()["request"];
    let asked = audit(&world().variable("RELAY_SANDBOX_SIGNER_KEY").unwrap(), request);
    let digest = String::from_utf8(asked.stderr).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    let subject = subjects.iter().find(|subject| subject["name"] == "request").unwrap();
    assert_eq!(digest.trim(), format!("digest {}", subject["digest"]["sha256"].as_str().unwrap()));

    // Asks KMS itself, which takes the signature as it is.
    let envelope = Envelope::parse(record.to_string().as_bytes(), 1 << 20).unwrap();
    let signature = envelope.signatures()[0].bytes().unwrap();
    let verify = |pae: &[u8]| {
        let base64 = |bytes: &[u8]| json!({"$bytes": relay_protocol::encoding::base64(bytes)});
        let parameters = json!({
            "KeyId": world().target_key, "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256",
            "Message": base64(Digest::of(pae).as_bytes()), "Signature": base64(&signature),
        });
        world().ask(&Caller::root(TARGET), "kms", "Verify", parameters).unwrap()
    };
    assert_eq!(verify(&envelope.pae()).unwrap()["SignatureValid"], true);
    assert_eq!(verify(b"something else").unwrap_err().code, "KMSInvalidSignatureException");

    // One changed byte, and then another key.
    let mut forged = record.clone();
    let payload = forged["payload"].as_str().unwrap().replacen('A', "B", 1);
    forged["payload"] = json!(payload);
    assert!(!audit(&world().target_public_key, &forged).status.success());
    assert!(!audit(&world().variable("RELAY_SANDBOX_SIGNER_KEY").unwrap(), record).status.success());
}

const TEMPLATE: &str = r#"
AWSTemplateFormatVersion: "2010-09-09"
Description: What a small service needs
Resources:
  Jobs:
    Type: AWS::SQS::Queue
    Properties: {QueueName: third-party-jobs, VisibilityTimeout: 77}
  News:
    Type: AWS::SNS::Topic
    Properties: {TopicName: third-party-news}
  Files:
    Type: AWS::S3::Bucket
    Properties: {BucketName: third-party-files}
  Setting:
    Type: AWS::SSM::Parameter
    Properties: {Name: /third-party/setting, Type: String, Value: !GetAtt Jobs.Arn}
  Worker:
    Type: AWS::IAM::Role
    Properties:
      RoleName: third-party-worker
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: sts:AssumeRole}]
  Log:
    Type: AWS::Logs::LogGroup
    Properties: {LogGroupName: /third-party/log, RetentionInDays: 7}
Outputs:
  JobsUrl: {Value: !Ref Jobs}
"#;

fn deploy_template(stack: &str, template: &str) -> Deployed {
    let source = tempfile::tempdir_in(folder("templates")).unwrap();
    fs::write(source.path().join("template.yaml"), template).unwrap();
    let (artifact, stack) = (format!("source={}", source.path().display()), format!("stack={stack}"));
    deploy(&["demo/cloudformation", "--artifact", &artifact, "--param", &stack])
}

// clause: ART-1, ART-3, REC-2, RUN-9, RUN-10
#[test]
fn cloudformation_deploys_a_stack_out_of_an_artifact() {
    let ended = deploy_template("third-party", TEMPLATE);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.words(), String::from_utf8_lossy(&ended.stdout));
    assert!(String::from_utf8_lossy(&ended.stdout).contains("Successfully created/updated stack - third-party"));

    let there = |service, operation, parameters| world().call(TARGET, service, operation, parameters).unwrap();
    let stack = there("cloudformation", "DescribeStacks", json!({"StackName": "third-party"}));
    assert_eq!(stack["Stacks"][0]["StackStatus"], "CREATE_COMPLETE");
    let queue = there("sqs", "GetQueueUrl", json!({"QueueName": "third-party-jobs"}));
    let attributes =
        there("sqs", "GetQueueAttributes", json!({"QueueUrl": queue["QueueUrl"], "AttributeNames": ["All"]}));
    assert_eq!(attributes["Attributes"]["VisibilityTimeout"], "77");
    let topic = format!("arn:aws:sns:{REGION}:{TARGET}:third-party-news");
    there("sns", "GetTopicAttributes", json!({"TopicArn": topic}));
    there("s3", "HeadBucket", json!({"Bucket": "third-party-files"}));
    let setting = there("ssm", "GetParameter", json!({"Name": "/third-party/setting"}));
    assert_eq!(setting["Parameter"]["Value"], attributes["Attributes"]["QueueArn"]);
    there("iam", "GetRole", json!({"RoleName": "third-party-worker"}));
    let groups = there("logs", "DescribeLogGroups", json!({"logGroupNamePrefix": "/third-party/log"}));
    assert_eq!(groups["logGroups"][0]["retentionInDays"], 7);
    // The stack is in the target account, and in no other.
    let elsewhere = world().ask(&Caller::root(CI), "sqs", "GetQueueUrl", json!({"QueueName": "third-party-jobs"}));
    assert!(elsewhere.unwrap().is_err());

    // The artifact is a subject of the record, and is stored under its digest.
    let audited = audit(&world().target_public_key, &ended.result["record"]);
    let statement: Value = serde_json::from_slice(&audited.stdout).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    let subject = subjects.iter().find(|subject| subject["name"] == "artifact/source").unwrap();
    let digest = subject["digest"]["sha256"].as_str().unwrap();
    assert_eq!(statement["predicate"]["parameters"]["source"], digest);
    let key = format!("demo/cloudformation/{digest}.tar.zst");
    let object = world().call(CI, "s3", "GetObject", json!({"Bucket": "relay-sandbox-artifacts", "Key": key})).unwrap();
    assert_eq!(Digest::of(&unwrap_bytes(&object["Body"])).to_string(), digest);

    // An empty change is a success. A real change is applied.
    let again = deploy_template("third-party", TEMPLATE);
    assert_eq!(again.code, Some(0), "{}", again.words());
    let said = [String::from_utf8_lossy(&again.stdout).into_owned(), again.words()].concat();
    assert!(said.contains("No changes to deploy"), "{said}");
    let changed = deploy_template("third-party", &TEMPLATE.replace("RetentionInDays: 7", "RetentionInDays: 14"));
    assert_eq!(changed.code, Some(0), "{}", changed.words());
    let groups = there("logs", "DescribeLogGroups", json!({"logGroupNamePrefix": "/third-party/log"}));
    assert_eq!(groups["logGroups"][0]["retentionInDays"], 14);
}

/// A template that CloudFormation rejects immediately.
const NONSENSE: &str = "Resources: {A: {Type: AWS::SQS::Kueue}}\n";

/// A template that CloudFormation starts to apply and then rolls back.
const DOOMED: &str = r#"
Resources:
  First:
    Type: AWS::SQS::Queue
    Properties: {QueueName: third-party-doomed}
  Second:
    Type: AWS::SSM::Parameter
    DependsOn: First
    Properties: {Name: /third-party/doomed, Type: Strung, Value: x}
"#;

/// Runs `aws cloudformation deploy` without relay.
fn deploy_by_hand(stack: &str, template: &str) -> std::process::Output {
    let file = folder("by-hand").join(format!("{stack}.yaml"));
    fs::write(&file, template).unwrap();
    let mut aws = Command::new(world().venv.join("bin/aws"));
    aws.args(["cloudformation", "deploy", "--stack-name", stack, "--template-file"]).arg(file);
    aws.args(["--capabilities", "CAPABILITY_NAMED_IAM", "--no-fail-on-empty-changeset"]).env_clear();
    aws.envs(Caller::root(TARGET).variables()).env("AWS_ENDPOINT_URL", &world().endpoint);
    aws.env("AWS_DEFAULT_REGION", REGION).env("AWS_PAGER", "").output().unwrap()
}

// clause: OUT-1, RUN-11
#[test]
fn a_broken_template_fails_with_the_tools_code_and_words() {
    for (stack, template) in [("nonsense", NONSENSE), ("doomed", DOOMED)] {
        let ended = deploy_template(stack, template);
        let by_hand = deploy_by_hand(&format!("{stack}-by-hand"), template);
        assert_ne!(by_hand.status.code(), Some(0));
        assert_eq!(ended.code, by_hand.status.code(), "{}", ended.words());
        assert_eq!(ended.result["decided_by"], "tool");
        let complaint = String::from_utf8(by_hand.stderr).unwrap().replace(&format!("{stack}-by-hand"), stack);
        assert!(!complaint.trim().is_empty());
        assert!(ended.words().contains(complaint.trim()), "{}\n--- by hand ---\n{complaint}", ended.words());
        assert_eq!(String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&by_hand.stdout));
    }
    let queue = world().ask(&Caller::root(TARGET), "sqs", "GetQueueUrl", json!({"QueueName": "third-party-doomed"}));
    assert!(queue.unwrap().is_err(), "the stack was rolled back");
}

// clause: RUN-10
#[test]
fn the_tool_has_a_role_of_its_own_named_for_the_deployment() {
    let ended = deploy(&["demo/role"]);
    assert_eq!(ended.code, Some(0), "{}", ended.words());
    let who: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let id = ended.result["deployment_id"].as_str().unwrap();
    assert_eq!(who["Arn"], format!("arn:aws:sts::{TARGET}:assumed-role/demo/{id}"));
}

// clause: REQ-7
#[test]
fn with_policies_checked_ci_may_publish_to_one_topic_and_read_one_queue_and_nothing_else() {
    let world = World::start("checked", Permissions::Checked).unwrap();
    let queue = "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-made-before-reply";
    let (topic, queue_arn) =
        (world.variable("RELAY_TOPIC_ARN").unwrap(), format!("arn:aws:sqs:{REGION}:{CI}:relay-made-before-reply"));
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{TARGET}:root")}, "Action": ["sqs:SendMessage", "sqs:SendMessageBatch"],
        "Resource": queue_arn,
    }]});
    let attributes = json!({"QueueName": "relay-made-before-reply", "Attributes": {"Policy": policy.to_string()}});
    world.call(CI, "sqs", "CreateQueue", attributes).unwrap();
    // P1, in full: everything that the CI role may do.
    let may = json!([
        {"Effect": "Allow", "Action": "sns:Publish", "Resource": topic},
        {"Effect": "Allow", "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:DeleteMessageBatch"], "Resource": queue_arn},
    ]);
    let role = world.make_role(CI, "/ci", &json!({"AWS": format!("arn:aws:iam::{CI}:root")}), &may).unwrap();
    let ci = world.session(&role, "job-1").unwrap();

    let ended = world.deploy_as(Some(&ci), &["demo/fixed", "--reply-queue-url", queue]).unwrap().end().unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.words());
    assert_eq!(ended.stdout, b"hello, strictly\n");
    assert_eq!(ended.result["output"]["verified"], true);

    // What it may not do. The first call proves that policies are checked at all. Without it, the
    // others would prove nothing.
    let id = ended.result["deployment_id"].as_str().unwrap();
    let sign = |key| json!({"KeyId": key, "Message": {"$bytes": "eA=="}, "SigningAlgorithm": "ECDSA_SHA_256"});
    let (folder, _) = world.evidence("demo/fixed", id).unwrap();
    let of_evidence = |name: &str| json!({"Bucket": EVIDENCE, "Key": format!("{folder}{name}")});
    for (service, operation, parameters) in [
        ("iam", "ListRoles", json!({})),
        ("sns", "SetTopicAttributes", json!({"TopicArn": topic, "AttributeName": "Policy", "AttributeValue": "{}"})),
        ("sqs", "CreateQueue", json!({"QueueName": "relay-x-reply"})),
        ("sqs", "SendMessage", json!({"QueueUrl": queue, "MessageBody": "forged"})),
        ("kms", "Sign", sign(&world.target_key)),
        ("kms", "Sign", sign(&world.answer_key)),
        ("s3", "GetObject", of_evidence("claim")),
        ("s3", "GetObject", of_evidence("runner/record.json")),
        ("s3", "ListObjectsV2", json!({"Bucket": EVIDENCE})),
        ("s3", "PutObject", of_evidence("launcher/record.json")),
        ("s3", "PutObject", json!({"Bucket": "relay-222222222222-eu-west-1", "Key": "locks/demo/fixed/0"})),
        ("lambda", "Invoke", json!({"FunctionName": format!("arn:aws:lambda:{REGION}:{TARGET}:function:{FUNCTION}")})),
        (
            "sts",
            "AssumeRole",
            json!({"RoleArn": format!("arn:aws:iam::{TARGET}:role/relay/relay-demo-fixed"), "RoleSessionName": "thief"}),
        ),
        (
            "sts",
            "AssumeRole",
            json!({"RoleArn": format!("arn:aws:iam::{TARGET}:role/relay-deploy/demo"), "RoleSessionName": "thief"}),
        ),
    ] {
        let answer = world.ask(&ci, service, operation, parameters).unwrap();
        let refused = answer.expect_err(&format!("{service}:{operation} is denied"));
        assert!(
            refused.code.contains("AccessDenied") || refused.code == "AuthorizationError",
            "{service}:{operation}: {refused}"
        );
    }
    // An account that is not in the topic's policy may not even publish.
    let publish = json!({"TopicArn": topic, "Message": "x"});
    let stranger = world.ask(&Caller::root("333333333333"), "sns", "Publish", publish).unwrap();
    assert!(stranger.unwrap_err().code.starts_with("Auth"));
}
