//! Requests made by hand, and the answers to them. A test can change any member, sign with any key
//! or none, and publish any bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use relay_protocol::evidence::Evidence;
use relay_protocol::frame::FrameSource;
use relay_protocol::keys::{PrivateKey, SingleKey};
use relay_protocol::limits::REQUEST_LIFETIME_MAX;
use relay_protocol::request::Hints;
use relay_protocol::{
    Bundle, Cancel, Control, DeploymentId, Digest, Envelope, Message, QueueUrl, Request, RequestRef, Statement as _,
    Timestamp, Vouch, overrides,
};
use serde_json::{Value, json};

use crate::kit::account::{Launch, Message as Received};
use crate::kit::sandbox::{CI, Sandbox};
use crate::kit::wait::eventually;

/// The kinds of frames that end a deployment.
const TERMINAL: [&str; 5] = ["finished", "refused", "launch_failed", "unverified", "tried"];

/// A request that a test makes itself. The test may change its members before it is signed.
#[derive(Debug)]
pub struct Asking {
    sandbox: Arc<Sandbox>,
    /// The request, not signed yet.
    pub request: Request,
    /// The key that signs the request.
    pub key: PrivateKey,
    /// The session key, which signs control statements.
    pub session: PrivateKey,
    replies: Mutex<Vec<Reply>>,
}

/// A frame from the reply queue.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The sender: `runner` or `launcher`.
    pub from: String,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
    /// The vouch attribute, if there is one.
    pub vouch: Option<String>,
    /// Whether its sender signed it: the launcher with the answer key, or the runner with a key
    /// that the target key vouches for.
    pub genuine: bool,
    /// The message as received.
    pub raw: Received,
}

impl Reply {
    /// The kind of the frame.
    pub fn kind(&self) -> &str {
        self.body["kind"].as_str().unwrap_or_default()
    }

    /// The reason code of a refusal or of an outcome; empty if there is none.
    pub fn reason(&self) -> &str {
        let outcome = self.body.pointer("/outcome/ended/reason");
        self.body.get("reason").or(outcome).and_then(Value::as_str).unwrap_or_default()
    }

    /// The message beside the reason; empty if there is none.
    pub fn message(&self) -> &str {
        let outcome = self.body.pointer("/outcome/ended/message");
        self.body.get("message").or(outcome).and_then(Value::as_str).unwrap_or_default()
    }
}

/// 32 random bytes.
fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("randomness");
    seed
}

/// A new signing key.
pub fn new_key() -> PrivateKey {
    PrivateKey::from_seed(seed())
}

/// A new deployment id.
pub fn new_id() -> DeploymentId {
    id_at(now())
}

/// A new deployment id of this time.
pub fn id_at(time: Timestamp) -> DeploymentId {
    let mut random = [0; 10];
    random.copy_from_slice(&seed()[..10]);
    DeploymentId::new(u64::try_from(time.unix()).expect("after 1970") * 1_000, random)
}

/// The current time, in whole seconds.
pub fn now() -> Timestamp {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    Timestamp::from_unix(i64::try_from(seconds).expect("seconds"))
}

impl Asking {
    /// A valid request, with its queues created.
    pub fn new(sandbox: &Arc<Sandbox>, target: &str, parameters: &[(&str, &str)]) -> Self {
        let asking = Self::without_queues(sandbox, target, parameters);
        asking.create_queues();
        asking
    }

    /// A valid request whose queues do not exist.
    pub fn without_queues(sandbox: &Arc<Sandbox>, target: &str, parameters: &[(&str, &str)]) -> Self {
        let (id, session) = (new_id(), new_key());
        let account = CI.parse().expect("an account");
        let queue = |name: String| QueueUrl::of(sandbox.topic().region(), &account, &name).expect("a queue");
        let pair = |(name, value): &(&str, &str)| (name.parse().expect("a parameter's name"), (*value).to_owned());
        let request = Request {
            audience: sandbox.topic(),
            target: target.parse().expect("a target"),
            parameters: parameters.iter().map(pair).collect::<BTreeMap<_, _>>(),
            reply_queue: queue(id.reply_queue_name()),
            control_queue: Some(queue(id.control_queue_name())),
            session_key: session.public().clone(),
            ticket: None,
            issued_at: now(),
            expires_at: now().plus(REQUEST_LIFETIME_MAX),
            origin: relay_protocol::request::Origin::default(),
            traceparent: None,
            deployment_id: id,
        };
        Self { sandbox: Arc::clone(sandbox), request, key: sandbox.signing_key(), session, replies: Mutex::default() }
    }

    /// Creates its reply and control queues.
    pub fn create_queues(&self) {
        let id = &self.request.deployment_id;
        self.sandbox.ci().create_queue(&id.reply_queue_name());
        self.sandbox.ci().create_queue(&id.control_queue_name());
    }

    /// Moves its times by a number of seconds, with a new id of that time and queues for it.
    #[must_use]
    pub fn moved(mut self, seconds: i64) -> Self {
        self.request.issued_at = self.request.issued_at.plus(seconds);
        self.request.expires_at = self.request.expires_at.plus(seconds);
        let id = id_at(self.request.issued_at);
        let queue = |old: &QueueUrl, name: String| QueueUrl::of(old.region(), old.account(), &name).expect("a queue");
        self.request.reply_queue = queue(&self.request.reply_queue, id.reply_queue_name());
        self.request.control_queue = self.request.control_queue.as_ref().map(|old| queue(old, id.control_queue_name()));
        self.request.deployment_id = id;
        self.create_queues();
        self
    }

    /// The deployment id as text.
    pub fn id(&self) -> String {
        self.request.deployment_id.to_string()
    }

    /// The signed envelope.
    pub fn envelope(&self) -> Envelope {
        self.key.sign_envelope(Envelope::new(Request::TYPE, self.request.to_payload()))
    }

    /// The request digest of the signed envelope.
    pub fn digest(&self) -> Digest {
        self.envelope().digest()
    }

    /// The body to publish: a bundle with the signed request and no approvals.
    pub fn bundle(&self) -> String {
        bundle(self.envelope())
    }

    /// The hints that match the request.
    pub fn hints(&self) -> Hints {
        Hints::of(&self.request)
    }

    /// Publishes the signed request with its own hints.
    pub fn publish(&self) {
        self.publish_as(&self.bundle(), &self.hints()).expect("the request is published");
    }

    /// Publishes any body with any hints.
    ///
    /// # Errors
    ///
    /// The SDK's error as text.
    pub fn publish_as(&self, body: &str, hints: &Hints) -> Result<(), String> {
        let attributes = [
            ("target", hints.target.as_str()),
            ("deployment_id", hints.deployment_id.as_str()),
            ("ci_account", hints.ci_account.as_str()),
        ];
        self.sandbox.ci().publish(self.sandbox.topic().as_str(), body, &attributes)
    }

    /// The Lambda event that its publication turns into.
    pub fn event(&self) -> Value {
        let hints = self.hints();
        let attribute = |value: &str| json!({"Type": "String", "Value": value});
        json!({"Records": [{"EventSource": "aws:sns", "EventVersion": "1.0", "Sns": {
            "Type": "Notification", "MessageId": self.id(), "TopicArn": self.request.audience, "Message": self.bundle(),
            "MessageAttributes": {
                "target": attribute(hints.target.as_str()),
                "deployment_id": attribute(hints.deployment_id.as_str()),
                "ci_account": attribute(hints.ci_account.as_str()),
            },
        }}]})
    }

    /// A RunTask call for this request with its own client token, as any caller with that
    /// permission could make it. The request is in the evidence, as the launcher would write it.
    pub fn launch(&self) -> Launch {
        self.launch_of(&self.bundle(), self.digest())
    }

    /// The same, with any bytes in place of the request, and any digest.
    pub fn launch_of(&self, body: &str, digest: Digest) -> Launch {
        let key = self.evidence().request();
        let bucket = self.sandbox.evidence_bucket();
        self.sandbox.operator().put_object(&bucket, &key, body.as_bytes().to_vec());
        let named = RequestRef::of(&self.request, digest);
        Launch {
            definition: self.request.target.family(),
            environment: vec![(overrides::VARIABLE.to_owned(), named.to_json())],
            started_by: Some(self.id()),
            ..Launch::default()
        }
    }

    /// The names of its objects in the evidence.
    pub fn evidence(&self) -> Evidence {
        Evidence::of(&self.request.target, &self.request.deployment_id)
    }

    /// A cancel statement about the request `digest`, signed by `key`.
    pub fn cancel(&self, key: &PrivateKey, digest: Digest) -> String {
        let control = Control {
            deployment_id: self.request.deployment_id.clone(),
            request_digest: digest,
            issued_at: now(),
            cancel: Cancel::Requested,
        };
        Message::control_json(&key.sign_envelope(Envelope::new(Control::TYPE, control.to_payload())))
    }

    /// Sends a body to its control queue.
    pub fn control(&self, body: &str) {
        let queue = self.request.control_queue.as_ref().expect("a control queue");
        self.sandbox.ci().send(queue.as_str(), body, &[]).expect("the statement is sent");
    }

    /// All frames so far, in the order in which they arrived.
    pub fn replies(&self) -> Vec<Reply> {
        let messages = self.sandbox.ci().receive(self.request.reply_queue.as_str());
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        replies.extend(messages.into_iter().map(|message| self.judge(&message)));
        replies.clone()
    }

    fn judge(&self, message: &Received) -> Reply {
        let text = |name: &str| message.attributes.get(name).cloned();
        let (from, sig) = (text("from").unwrap_or_default(), text("sig").unwrap_or_default());
        let target = self.sandbox.target_key();
        let key = match FrameSource::parse(&from) {
            Some(FrameSource::Launcher) => Some(self.sandbox.answer_key()),
            Some(FrameSource::Runner) => text("vouch").and_then(|vouch| runner_key(&vouch, &target, self)),
            None => None,
        };
        let pae = FrameSource::parse(&from).map(|from| from.pae(&message.body)).unwrap_or_default();
        Reply {
            genuine: key.is_some_and(|key| key.verify_detached(&pae, &sig)),
            body: serde_json::from_str(&message.body).unwrap_or_default(),
            vouch: text("vouch"),
            from,
            raw: message.clone(),
        }
    }

    /// Waits for the first frame that ends the deployment.
    #[track_caller]
    pub fn end(&self) -> Reply {
        eventually(&format!("{} ends", self.id()), || {
            self.replies().into_iter().find(|reply| TERMINAL.contains(&reply.kind()))
        })
    }

    /// Waits for the first frame of this kind.
    #[track_caller]
    pub fn reply(&self, kind: &str) -> Reply {
        eventually(&format!("{}: a frame `{kind}`", self.id()), || {
            self.replies().into_iter().find(|reply| reply.kind() == kind)
        })
    }
}

/// The runner key in a vouch, if the target key signed the vouch and it belongs to this request.
fn runner_key(vouch: &str, target: &SingleKey, asking: &Asking) -> Option<SingleKey> {
    let envelope = Envelope::parse(vouch.as_bytes(), 8_192).ok()?;
    let verified = target.verify::<Vouch>(&envelope).ok()?;
    let vouch = verified.statement();
    (vouch.deployment_id == asking.request.deployment_id && vouch.request_digest == asking.digest()).then_some(())?;
    SingleKey::new(&vouch.runner_key).ok()
}

/// A bundle with one request and no approvals.
pub fn bundle(request: Envelope) -> String {
    Bundle { request, approvals: Vec::new() }.to_json()
}
