//! AWS calls as one of the accounts, through the real SDK: what a test does beside `relay`, and
//! what an intruder could do.

use std::collections::HashMap;
use std::future::Future;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ecs::types as ecs;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, MessageAttributeValue, QueueAttributeName};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Clients with one account's credentials.
#[derive(Debug)]
pub struct Account {
    runtime: Runtime,
    ecs: aws_sdk_ecs::Client,
    kms: aws_sdk_kms::Client,
    s3: aws_sdk_s3::Client,
    sns: aws_sdk_sns::Client,
    sqs: aws_sdk_sqs::Client,
}

/// A message received from a queue.
#[derive(Clone, Debug)]
pub struct Message {
    /// The message id that SQS assigned.
    pub id: String,
    /// The message body.
    pub body: String,
    /// The string attributes.
    pub attributes: HashMap<String, String>,
}

/// The parameters of a RunTask call, as any caller with that permission could set them.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The task definition: a family, or a family and revision.
    pub definition: String,
    /// Environment variables that the call overrides.
    pub environment: Vec<(String, String)>,
    /// The override of `command`; empty for none.
    pub command: Vec<String>,
    /// The `clientToken`; a new one if `None`.
    pub token: Option<String>,
    /// The `startedBy` of the task.
    pub started_by: Option<String>,
}

fn words<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

impl Account {
    /// Creates clients for an account. Its id is the access key.
    pub fn new(account: &str, endpoint: &str) -> Self {
        // Several threads may wait on it at the same time.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .endpoint_url(endpoint)
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                account, "tests", None, None, "tests",
            )))
            .http_client(http)
            .build();
        let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
        Self {
            runtime,
            ecs: aws_sdk_ecs::Client::new(&config),
            kms: aws_sdk_kms::Client::new(&config),
            s3: aws_sdk_s3::Client::from_conf(s3),
            sns: aws_sdk_sns::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
        }
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(Box::pin(future))
    }

    /// Publishes a message with string attributes.
    ///
    /// # Errors
    ///
    /// The SDK's error as text.
    pub fn publish(&self, topic: &str, body: &str, attributes: &[(&str, &str)]) -> Result<(), String> {
        let mut publish = self.sns.publish().topic_arn(topic).message(body);
        for (name, value) in attributes {
            let value = aws_sdk_sns::types::MessageAttributeValue::builder().data_type("String").string_value(*value);
            publish = publish.message_attributes(*name, value.build().expect("a complete attribute"));
        }
        self.wait(publish.send()).map(drop).map_err(words)
    }

    /// Creates a P-256 signing key. Returns its ARN and its public half as DER.
    pub fn create_signing_key(&self) -> (String, Vec<u8>) {
        use aws_sdk_kms::types::{KeySpec, KeyUsageType};
        let create = self.kms.create_key().key_spec(KeySpec::EccNistP256).key_usage(KeyUsageType::SignVerify);
        let made = self.wait(create.send()).expect("CreateKey").key_metadata.expect("a key");
        let arn = made.arn.expect("an ARN");
        let public = self.wait(self.kms.get_public_key().key_id(&arn).send()).expect("GetPublicKey");
        (arn, public.public_key.expect("a public half").into_inner())
    }

    /// Creates a topic that admits no other account. Returns its ARN.
    pub fn create_topic(&self, name: &str) -> String {
        self.wait(self.sns.create_topic().name(name).send())
            .expect("CreateTopic")
            .topic_arn
            .expect("a topic has an ARN")
    }

    /// Creates a queue that the target account's roles may send to and read from. Returns its URL.
    pub fn create_queue(&self, name: &str) -> String {
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{}:root", crate::kit::sandbox::TARGET)},
            "Action": ["sqs:SendMessage", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"], "Resource": "*",
        }]});
        let create = self
            .sqs
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::Policy, policy.to_string())
            .attributes(QueueAttributeName::VisibilityTimeout, "600");
        self.wait(create.send()).expect("CreateQueue").queue_url.expect("a queue has a URL")
    }

    /// Sets tags on a queue.
    pub fn tag(&self, url: &str, tags: &[(&str, &str)]) {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.wait(self.sqs.tag_queue().queue_url(url).set_tags(Some(tags)).send()).expect("TagQueue");
    }

    /// Deletes a queue.
    pub fn delete_queue(&self, url: &str) {
        self.wait(self.sqs.delete_queue().queue_url(url).send()).expect("DeleteQueue");
    }

    /// Sends one message with string attributes.
    ///
    /// # Errors
    ///
    /// The SDK's error as text.
    pub fn send(&self, url: &str, body: &str, attributes: &[(&str, &str)]) -> Result<(), String> {
        let mut send = self.sqs.send_message().queue_url(url).message_body(body);
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*value);
            send = send.message_attributes(*name, value.build().expect("a complete attribute"));
        }
        self.wait(send.send()).map(drop).map_err(words)
    }

    /// Receives up to ten messages and deletes them. Empty if the call fails.
    pub fn receive(&self, url: &str) -> Vec<Message> {
        let receive =
            self.sqs.receive_message().queue_url(url).max_number_of_messages(10).message_attribute_names("All");
        let Ok(answer) = self.wait(receive.send()) else { return Vec::new() };
        let messages = answer.messages.unwrap_or_default();
        if !messages.is_empty() {
            let entries = messages.iter().zip(0..).map(|(message, n)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(n.to_string())
                    .receipt_handle(message.receipt_handle().unwrap_or_default())
                    .build()
                    .expect("a complete entry")
            });
            let delete = self.sqs.delete_message_batch().queue_url(url).set_entries(Some(entries.collect()));
            // A message that is not deleted stays hidden for longer than any test lasts.
            let _ = self.wait(delete.send());
        }
        let text = |(name, value): (String, MessageAttributeValue)| (name, value.string_value.unwrap_or_default());
        messages
            .into_iter()
            .map(|message| Message {
                id: message.message_id.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
                attributes: message.message_attributes.unwrap_or_default().into_iter().map(text).collect(),
            })
            .collect()
    }

    /// Starts a task. Returns its ARN.
    ///
    /// # Errors
    ///
    /// The SDK's error as text, or ECS's failures if it starts no task.
    pub fn run_task(&self, launch: &Launch) -> Result<String, String> {
        let pair = |(name, value): &(String, String)| ecs::KeyValuePair::builder().name(name).value(value).build();
        let overridden = ecs::ContainerOverride::builder()
            .name("runner")
            .set_environment(Some(launch.environment.iter().map(pair).collect()))
            .set_command((!launch.command.is_empty()).then(|| launch.command.clone()))
            .build();
        let network = ecs::AwsVpcConfiguration::builder().subnets("subnet-1").security_groups("sg-1").build();
        let run = self
            .ecs
            .run_task()
            .cluster("relay")
            .task_definition(&launch.definition)
            .launch_type(ecs::LaunchType::Fargate)
            .network_configuration(
                ecs::NetworkConfiguration::builder().awsvpc_configuration(network.expect("subnets are there")).build(),
            )
            .overrides(ecs::TaskOverride::builder().container_overrides(overridden).build())
            .client_token(launch.token.clone().unwrap_or_else(|| crate::kit::asking::new_id().to_string()))
            .set_started_by(launch.started_by.clone());
        let answer = self.wait(run.send()).map_err(words)?;
        let task = answer.tasks().first().ok_or_else(|| format!("{:?}", answer.failures()))?;
        Ok(task.task_arn().unwrap_or_default().to_owned())
    }

    /// Stops a task.
    pub fn stop_task(&self, arn: &str, reason: &str) {
        self.wait(self.ecs.stop_task().cluster("relay").task(arn).reason(reason).send()).expect("StopTask");
    }

    /// The newest revision of a family: its ARN, its entry point, and the value of
    /// `RELAY_CONFIGURATION`.
    pub fn definition(&self, family: &str) -> (String, Vec<String>, String) {
        let answer = self.wait(self.ecs.describe_task_definition().task_definition(family).send());
        let definition = answer.expect("DescribeTaskDefinition").task_definition.expect("there is one");
        let container = definition.container_definitions().first().expect("a container").clone();
        let text = container.environment().iter().find(|pair| pair.name() == Some("RELAY_CONFIGURATION"));
        let text = text.and_then(|pair| pair.value()).unwrap_or_default().to_owned();
        (definition.task_definition_arn().unwrap_or_default().to_owned(), container.entry_point().to_vec(), text)
    }

    /// Registers a revision like the sandbox's own, with another entry point, configuration and
    /// role. Returns its ARN.
    pub fn register(&self, family: &str, entry_point: &[String], configuration: &str, role: &str) -> String {
        self.register_image("relay-sandbox", family, (entry_point, configuration), role)
    }

    /// The same, with another image.
    pub fn register_image(
        &self,
        image: &str,
        family: &str,
        (entry_point, configuration): (&[String], &str),
        role: &str,
    ) -> String {
        let variable = ecs::KeyValuePair::builder().name("RELAY_CONFIGURATION").value(configuration).build();
        let container = ecs::ContainerDefinition::builder()
            .name("runner")
            .image(image)
            .essential(true)
            .set_entry_point(Some(entry_point.to_vec()))
            .environment(variable)
            .docker_labels("relay.subnets", "subnet-1")
            .docker_labels("relay.security-groups", "sg-1")
            .stop_timeout(120)
            .build();
        let register = self
            .ecs
            .register_task_definition()
            .family(family)
            .task_role_arn(format!("arn:aws:iam::{}:role/relay/{role}", crate::kit::sandbox::TARGET))
            .network_mode(ecs::NetworkMode::Awsvpc)
            .requires_compatibilities(ecs::Compatibility::Fargate)
            .cpu("256")
            .memory("512")
            .container_definitions(container);
        let answer = self.wait(register.send()).expect("RegisterTaskDefinition");
        answer.task_definition.and_then(|definition| definition.task_definition_arn).expect("an ARN")
    }

    /// Deregisters a revision, which makes it INACTIVE.
    pub fn deregister(&self, arn: &str) {
        self.wait(self.ecs.deregister_task_definition().task_definition(arn).send()).expect("DeregisterTaskDefinition");
    }

    /// The bytes of an object; `None` if it is not there or cannot be read.
    pub fn get_object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        self.wait(async {
            let answer = self.s3.get_object().bucket(bucket).key(key).send().await.ok()?;
            Some(answer.body.collect().await.ok()?.to_vec())
        })
    }

    /// An object parsed as JSON; `None` if it is not there or is not JSON.
    pub fn get_json(&self, bucket: &str, key: &str) -> Option<Value> {
        serde_json::from_slice(&self.get_object(bucket, key)?).ok()
    }

    /// The names of the objects that begin with `prefix`.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut after = String::new();
        loop {
            let list = self.s3.list_objects_v2().bucket(bucket).prefix(prefix).start_after(&after);
            let page = self.wait(list.send()).expect("ListObjectsV2").contents.unwrap_or_default();
            let Some(last) = page.last().and_then(|object| object.key.clone()) else { return keys };
            keys.extend(page.into_iter().filter_map(|object| object.key));
            after = last;
        }
    }

    /// Deletes an object.
    pub fn delete_object(&self, bucket: &str, key: &str) {
        self.wait(self.s3.delete_object().bucket(bucket).key(key).send()).expect("DeleteObject");
    }

    /// Writes an object.
    pub fn put_object(&self, bucket: &str, key: &str, body: Vec<u8>) {
        self.wait(self.s3.put_object().bucket(bucket).key(key).body(body.into()).send()).expect("PutObject");
    }
}
