//! The sandbox as the real AWS SDKs see it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should panic")]

use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_ecs::types as ecs;
use aws_sdk_sqs::types::{MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry};
use relay_sandbox::{Options, Sandbox, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn sandbox(faults: &str, options: &[&str]) -> (Sandbox, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("faults");
    std::fs::write(&file, faults).unwrap();
    let mut settings = Settings::default();
    options.iter().for_each(|o| settings.set(o).unwrap());
    let state = Some(dir.path().join("state"));
    let options = Options { state, faults: Some(file), settings, ..Options::default() };
    (Sandbox::start(options).await.unwrap(), dir)
}

async fn account(sandbox: &Sandbox, account: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(sandbox.endpoint())
        .region(Region::new("eu-west-1"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new(account, "sandbox", None, None, "test"))
        .load()
        .await
}

const CI: &str = "111111111111";
const TARGET: &str = "222222222222";

/// A plain HTTP request, for what is not AWS: gives the header lines and the body.
async fn http(sandbox: &Sandbox, request: &str, body: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(sandbox.endpoint().trim_start_matches("http://")).await.unwrap();
    let length = body.len();
    let text = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_across_accounts() {
    let (sandbox, _dir) = sandbox("", &[]).await;
    let ci = aws_sdk_sqs::Client::new(&account(&sandbox, CI).await);
    let target = aws_sdk_sqs::Client::new(&account(&sandbox, TARGET).await);
    let policy = r#"{"Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::222222222222:root"},"Action":"sqs:SendMessage","Resource":"*"}]}"#;
    let made = ci
        .create_queue()
        .queue_name("relay-1-reply")
        .attributes(QueueAttributeName::Policy, policy)
        .send()
        .await
        .unwrap();
    let url = made.queue_url().unwrap();
    assert_eq!(url, "https://sqs.eu-west-1.amazonaws.com/111111111111/relay-1-reply");

    // A long poll ends as soon as something arrives; the other account may send, and nothing else.
    let waiting = tokio::spawn(
        ci.receive_message()
            .queue_url(url)
            .wait_time_seconds(20)
            .message_attribute_names("All")
            .visibility_timeout(1)
            .send(),
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    let signature = MessageAttributeValue::builder().data_type("String").string_value("s").build().unwrap();
    target
        .send_message()
        .queue_url(url)
        .message_body("{\"a\":\"\u{e9}\"}")
        .message_attributes("sig", signature)
        .send()
        .await
        .unwrap();
    let began = Instant::now();
    let got = waiting.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(got.messages()[0].body(), Some("{\"a\":\"\u{e9}\"}"));
    assert_eq!(got.messages()[0].message_attributes().unwrap()["sig"].string_value(), Some("s"));
    let denied = target.receive_message().queue_url(url).send().await.unwrap_err();
    assert_eq!(denied.into_service_error().meta().code(), Some("AccessDenied"));
    let illegal = target.send_message().queue_url(url).message_body("\u{1b}[0m").send().await.unwrap_err();
    assert!(illegal.into_service_error().is_invalid_message_contents());

    // Not deleted, so it comes back; then with a new receipt it goes for good.
    let again = ci.receive_message().queue_url(url).wait_time_seconds(5).send().await.unwrap();
    ci.delete_message()
        .queue_url(url)
        .receipt_handle(again.messages()[0].receipt_handle().unwrap())
        .send()
        .await
        .unwrap();
    ci.delete_queue().queue_url(url).send().await.unwrap();
    let gone = ci.receive_message().queue_url(url).send().await.unwrap_err();
    assert!(gone.into_service_error().is_queue_does_not_exist());
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_bounded_as_a_whole() {
    let (sandbox, _dir) = sandbox("", &[]).await;
    let sqs = aws_sdk_sqs::Client::new(&account(&sandbox, CI).await);
    let url = sqs.create_queue().queue_name("q").send().await.unwrap().queue_url.unwrap();
    let entry = |id: &str, size: usize| {
        SendMessageBatchRequestEntry::builder().id(id).message_body("x".repeat(size)).build().unwrap()
    };
    let batch = |entries: Vec<_>| sqs.send_message_batch().queue_url(&url).set_entries(Some(entries)).send();
    assert_eq!(batch(vec![entry("a", 524_288), entry("b", 524_288)]).await.unwrap().successful().len(), 2);
    let long = batch(vec![entry("a", 524_288), entry("b", 524_289)]).await.unwrap_err();
    assert!(long.into_service_error().is_batch_request_too_long());
    let same = batch(vec![entry("a", 1), entry("a", 1)]).await.unwrap_err();
    assert!(same.into_service_error().is_batch_entry_ids_not_distinct());
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_writes_and_a_lost_response() {
    let rule = r#"{"rule":[{"service":"s3","operation":"PutObject","kind":"lost-response","match":"lost","count":1}]}"#;
    let (sandbox, _dir) = sandbox(rule, &[]).await;
    let s3 = aws_sdk_s3::Client::new(&account(&sandbox, TARGET).await);
    let bucket = "relay-222222222222-eu-west-1";
    let put =
        |key: &str| s3.put_object().bucket(bucket).key(key).if_none_match("*").body(b"one".to_vec().into()).send();
    let etag = put("claims/a b\u{e9}").await.unwrap().e_tag.unwrap();
    let second = put("claims/a b\u{e9}").await.unwrap_err();
    assert_eq!(second.raw_response().unwrap().status().as_u16(), 412);
    // The write that was lost took effect; the SDK's own retry then meets it.
    assert_eq!(put("claims/lost").await.unwrap_err().raw_response().unwrap().status().as_u16(), 412);
    let got = s3.get_object().bucket(bucket).key("claims/a b\u{e9}").send().await.unwrap();
    assert_eq!(got.body.collect().await.unwrap().into_bytes().as_ref(), b"one");
    s3.put_object()
        .bucket(bucket)
        .key("claims/a b\u{e9}")
        .if_match(etag)
        .body(b"two".to_vec().into())
        .send()
        .await
        .unwrap();
    let listed = s3.list_objects_v2().bucket(bucket).prefix("claims/").send().await.unwrap();
    assert_eq!(
        listed.contents().iter().map(|o| o.key().unwrap()).collect::<Vec<_>>(),
        ["claims/a b\u{e9}", "claims/lost"]
    );
    assert!(s3.get_object().bucket(bucket).key("no").send().await.unwrap_err().into_service_error().is_no_such_key());
    assert!(s3.head_object().bucket(bucket).key("no").send().await.unwrap_err().into_service_error().is_not_found());
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_is_one_task() {
    let (sandbox, _dir) = sandbox("", &[]).await;
    let client = aws_sdk_ecs::Client::new(&account(&sandbox, TARGET).await);
    let container =
        ecs::ContainerDefinition::builder().name("runner").image("x").entry_point("/bin/sh").entry_point("-c");
    let container = container.command("trap 'exit 7' TERM; while :; do sleep 0.05; done").build();
    let role = "arn:aws:iam::222222222222:role/relay/relay-x";
    client
        .register_task_definition()
        .family("f")
        .task_role_arn(role)
        .container_definitions(container)
        .send()
        .await
        .unwrap();
    let network = ecs::AwsVpcConfiguration::builder().subnets("s").build().unwrap();
    let network = ecs::NetworkConfiguration::builder().awsvpc_configuration(network).build();
    let run = |value: &str| {
        let pair = ecs::KeyValuePair::builder().name("A").value(value).build();
        let overrides = ecs::ContainerOverride::builder().name("runner").environment(pair).build();
        let overrides = ecs::TaskOverride::builder().container_overrides(overrides).build();
        let request = client.run_task().cluster("relay").task_definition("f").launch_type(ecs::LaunchType::Fargate);
        request.network_configuration(network.clone()).client_token("t").started_by("d").overrides(overrides).send()
    };
    let arn = run("1").await.unwrap().tasks()[0].task_arn().unwrap().to_owned();
    assert_eq!(run("1").await.unwrap().tasks()[0].task_arn(), Some(arn.as_str()));
    let conflict = run("2").await.unwrap_err().into_service_error();
    match conflict {
        aws_sdk_ecs::operation::run_task::RunTaskError::ConflictException(e) => {
            assert_eq!(e.resource_ids().concat(), arn)
        }
        other => panic!("{other:?}"),
    }
    let status = |wanted: &'static str| {
        let (client, arn) = (client.clone(), arn.clone());
        async move {
            for _ in 0..200 {
                let task =
                    client.describe_tasks().cluster("relay").tasks(&arn).send().await.unwrap().tasks.unwrap().remove(0);
                if task.last_status() == Some(wanted) {
                    return task;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("never {wanted}");
        }
    };
    status("RUNNING").await;
    // The shell needs a moment to set its trap.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(client.list_tasks().cluster("relay").started_by("d").send().await.unwrap().task_arns().concat(), arn);
    client.stop_task().cluster("relay").task(&arn).reason("why").send().await.unwrap();
    let stopped = status("STOPPED").await;
    assert_eq!(stopped.containers()[0].exit_code(), Some(7));
    assert_eq!((stopped.stop_code(), stopped.stopped_reason()), (Some(&ecs::TaskStopCode::UserInitiated), Some("why")));
    assert!(client.list_tasks().cluster("relay").started_by("d").send().await.unwrap().task_arns().is_empty());
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_invocation_is_tried_three_times() {
    let (sandbox, _dir) = sandbox("", &["lambda_retry_1_ms=1", "lambda_retry_2_ms=1"]).await;
    let sns = aws_sdk_sns::Client::new(&account(&sandbox, CI).await);
    sns.publish().topic_arn("arn:aws:sns:eu-west-1:222222222222:relay").message("m").send().await.unwrap();
    let unknown =
        sns.publish().topic_arn("arn:aws:sns:eu-west-1:222222222222:no").message("m").send().await.unwrap_err();
    assert!(unknown.into_service_error().is_not_found_exception());
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (head, body) = http(&sandbox, "GET /2018-06-01/runtime/invocation/next", "").await;
        assert!(body.contains("\"Message\":\"m\""), "{body}");
        let id = head.lines().find_map(|l| l.strip_prefix("lambda-runtime-aws-request-id: ")).unwrap().to_owned();
        http(&sandbox, &format!("POST /2018-06-01/runtime/invocation/{id}/error"), "{}").await;
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "a retry keeps its id");
    assert!(http(&sandbox, "GET /_sandbox/dead-letters", "").await.1.contains(&ids[0]));
    sandbox.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_secrets_and_strangers() {
    let (sandbox, _dir) = sandbox("", &[]).await;
    let (ci, target) = (account(&sandbox, CI).await, account(&sandbox, TARGET).await);
    let kms = aws_sdk_kms::Client::new(&target);
    let key = kms
        .create_key()
        .key_spec(aws_sdk_kms::types::KeySpec::EccNistP256)
        .key_usage(aws_sdk_kms::types::KeyUsageType::SignVerify);
    let key = key.send().await.unwrap().key_metadata.unwrap().arn.unwrap();
    let sign = |kms: aws_sdk_kms::Client| {
        let request = kms.sign().key_id(&key).message(aws_sdk_kms::primitives::Blob::new([7; 32]));
        request.message_type("DIGEST".into()).signing_algorithm("ECDSA_SHA_256".into()).send()
    };
    let signature = sign(kms.clone()).await.unwrap().signature.unwrap();
    let public = kms.get_public_key().key_id(&key).send().await.unwrap().public_key.unwrap();
    assert_eq!((public.as_ref().len(), signature.as_ref()[0]), (91, 0x30));
    let denied = sign(aws_sdk_kms::Client::new(&ci)).await.unwrap_err().into_service_error();
    assert_eq!(denied.meta().code(), Some("AccessDeniedException"));
    let secrets = aws_sdk_secretsmanager::Client::new(&target);
    assert!(
        secrets
            .get_secret_value()
            .secret_id("demo/json")
            .send()
            .await
            .unwrap()
            .secret_string()
            .unwrap()
            .contains("relay")
    );
    let ssm = aws_sdk_ssm::Client::new(&target);
    assert!(
        ssm.get_parameter().name("/demo/none").send().await.unwrap_err().into_service_error().is_parameter_not_found()
    );
    let sts = aws_sdk_sts::Client::new(&ci);
    let who = sts.get_caller_identity().send().await.unwrap();
    assert_eq!(who.arn(), Some("arn:aws:sts::111111111111:assumed-role/ci/ci"));
    let role = "arn:aws:iam::222222222222:role/relay-deploy/x";
    assert!(sts.assume_role().role_arn(role).role_session_name("s1").send().await.is_err());
    let stranger = aws_sdk_sts::Client::new(&account(&sandbox, "AKIAUNKNOWN").await);
    let refused = stranger.get_caller_identity().send().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("InvalidClientTokenId"));
    sandbox.stop().await;
}
