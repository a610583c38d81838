//! Keys and signatures that cost nothing, for tests of time and order: a keyed digest takes the
//! place of a signature.

use relay_engine::{Pins, Published, Seal};
use relay_protocol::frame::FrameSource;
use relay_protocol::keys::Verifier;
use relay_protocol::request::Hints;
use relay_protocol::{
    DeploymentId, Digest, Envelope, LauncherFrame, PublicKey, Signature, SignedFrame, Statement as _, Vouch,
};

/// Verifies such signatures.
#[derive(Debug)]
pub(crate) struct Toy;

/// Makes such a signature.
pub(crate) fn toy_sign(key: &PublicKey, pae: &[u8]) -> [u8; 64] {
    let digest = *Digest::of(&[key.der(), pae].concat()).as_bytes();
    [digest, digest].concat().try_into().unwrap()
}

impl Verifier for Toy {
    fn verify(&self, key: &PublicKey, pae: &[u8], signature: &[u8]) -> bool {
        toy_sign(key, pae) == *signature
    }

    fn is_key(&self, _: &PublicKey) -> bool {
        true
    }
}

/// The keys of one deployment, and the target key's vouch for the runner key.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) target: PublicKey,
    pub(crate) answer: PublicKey,
    pub(crate) runner: PublicKey,
    pub(crate) vouch: String,
}

impl Keys {
    /// Keys for the deployment `id`, whose task is called `task`.
    pub(crate) fn new(id: &DeploymentId, request: Digest) -> Self {
        Self::by(PublicKey::from_der(b"target").unwrap(), 7, id, request)
    }

    /// Keys for `id` with the given target key and runner key.
    pub(crate) fn by(target: PublicKey, runner: u8, id: &DeploymentId, request: Digest) -> Self {
        let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let runner = PublicKey::from_der(&[head.as_slice(), &[runner; 32]].concat()).unwrap();
        let vouch = Vouch {
            deployment_id: id.clone(),
            request_digest: request,
            task_arn: "task".into(),
            runner_key: runner.clone(),
        };
        let envelope = Envelope::new(Vouch::TYPE, vouch.to_payload());
        let signature = Signature::new(String::new(), &toy_sign(&target, &envelope.pae()));
        let answer = PublicKey::from_der(&[target.der(), b" answers"].concat()).unwrap();
        Self { target, answer, runner, vouch: envelope.with_signature(signature).to_json() }
    }

    /// The pins of a reader.
    pub(crate) fn pins(&self) -> Option<Pins> {
        Some(Pins { target: vec![self.target.clone()], answer: vec![self.answer.clone()] })
    }

    /// Signs a frame of the launcher.
    #[allow(dead_code, reason = "not every test has a launcher")]
    pub(crate) fn launcher(&self, frame: &LauncherFrame) -> SignedFrame {
        let body = frame.to_body();
        SignedFrame::new(FrameSource::Launcher, &toy_sign(&self.answer, &FrameSource::Launcher.pae(&body)), None, body)
    }
}

/// What a reader of the deployment `id` has published.
#[allow(dead_code, reason = "some readers only attach")]
pub(crate) fn published(id: &DeploymentId, request: Digest) -> Published {
    let hints = Hints {
        target: "demo/hello".parse().unwrap(),
        deployment_id: id.clone(),
        ci_account: "111111111111".parse().unwrap(),
    };
    Published { hints, request, body: Digest::of(b"body"), dry_run: false }
}

impl Seal for Keys {
    fn seal(&self, body: String, vouch: bool) -> SignedFrame {
        let sig = toy_sign(&self.runner, &FrameSource::Runner.pae(&body));
        SignedFrame::new(FrameSource::Runner, &sig, vouch.then(|| self.vouch.clone()), body)
    }
}
