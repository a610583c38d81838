//! Decides which frames are accepted, by signature, vouch, deployment and request (clauses FRM-4 to
//! FRM-6, VCH-1 to VCH-3, LAU-5).

use relay_protocol::encoding::from_base64;
use relay_protocol::frame::{FrameSource, LauncherFrame, LauncherKind, RunnerFrame, SignedFrame};
use relay_protocol::keys::Verifier;
use relay_protocol::limits::{FRAME_ATTRIBUTES_MAX, FRAME_MAX};
use relay_protocol::outcome::Reason;
use relay_protocol::{DeploymentId, Digest, Envelope, PublicKey, Signature, SignedBy, Statement as _, Vouch};

/// A frame whose sender was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentic {
    /// A frame of the runner, from the task.
    Runner(RunnerFrame),
    /// A frame of the launcher, from the Lambda function.
    Launcher(LauncherFrame),
}

/// The verdict on a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The frame is accepted.
    Authentic(Box<Authentic>),
    /// The frame may be accepted later, when a vouch for its key has arrived.
    NotYet(SignedFrame),
    /// The frame is dropped and counted.
    Rejected(Rejected),
}

/// The reason for dropping a frame (clause FRM-1). For the count and the debug log; never shown as
/// output of the tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The frame is larger than a frame may be.
    TooLarge,
    /// `from` is neither runner nor launcher.
    Sender,
    /// The vouch does not verify.
    Vouch,
    /// The vouch belongs to another deployment or request.
    WrongVouch,
    /// The vouch is for something that is not a valid key.
    Key,
    /// The frame is not signed by its sender's key.
    Signature,
    /// The frame is signed but malformed.
    Malformed,
    /// The frame belongs to another deployment.
    WrongDeployment,
    /// A launcher frame about another request.
    WrongRequest,
}

impl Rejected {
    /// The failure class, as section 21 of `docs/protocol.md` names it.
    pub fn class(self) -> &'static str {
        match self {
            Self::TooLarge => "frame-too-large",
            Self::Sender => "unknown-sender",
            Self::Vouch => "bad-vouch",
            Self::WrongVouch => "wrong-vouch",
            Self::Key => "bad-key",
            Self::Signature => "bad-frame-signature",
            Self::Malformed => "malformed-frame",
            Self::WrongDeployment => "wrong-deployment",
            Self::WrongRequest => "wrong-request",
        }
    }
}

/// Authenticates the frames of one deployment.
#[derive(Debug)]
pub struct Authenticator<V> {
    id: DeploymentId,
    /// The digests of the request and of the SNS body that carried it. A reader that attaches
    /// learns the first from a vouch, and does not need the second.
    request: Option<Digest>,
    body: Option<Digest>,
    target_key: Option<PublicKey>,
    runner: Option<Vouch>,
    verifier: V,
}

impl<V: Verifier> Authenticator<V> {
    /// For the deployment `id`. `request` is the digest of its request, `body` the digest of the
    /// SNS body that carried it. With `target_key`, every frame must trace back to that pinned key.
    /// Without it, the first vouch is trusted and launcher frames are not verified; the caller must
    /// tell the user.
    pub fn new(id: DeploymentId, request: Digest, body: Digest, target_key: Option<PublicKey>, verifier: V) -> Self {
        Self { id, request: Some(request), body: Some(body), target_key, runner: None, verifier }
    }

    /// For a reader that joins late and knows only the id. It takes the digest of the request from
    /// the first vouch (clause VCH-3).
    pub fn attaching(id: DeploymentId, target_key: Option<PublicKey>, verifier: V) -> Self {
        Self { id, request: None, body: None, target_key, runner: None, verifier }
    }

    /// The vouch that was accepted, once there is one.
    pub fn vouch(&self) -> Option<&Vouch> {
        self.runner.as_ref()
    }

    /// Judges one frame.
    pub fn judge(&mut self, frame: SignedFrame) -> Verdict {
        match self.check(&frame) {
            Ok(Some(authentic)) => Verdict::Authentic(Box::new(authentic)),
            Ok(None) => Verdict::NotYet(frame),
            Err(rejected) => Verdict::Rejected(rejected),
        }
    }

    fn check(&mut self, signed: &SignedFrame) -> Result<Option<Authentic>, Rejected> {
        if signed.size() > FRAME_MAX {
            return Err(Rejected::TooLarge);
        }
        let from = FrameSource::parse(&signed.from).ok_or(Rejected::Sender)?;
        match from {
            FrameSource::Launcher => self.check_launcher(signed).map(Some),
            FrameSource::Runner => self.check_runner(signed),
        }
    }

    fn check_launcher(&self, signed: &SignedFrame) -> Result<Authentic, Rejected> {
        if let Some(key) = &self.target_key {
            self.check_signature(FrameSource::Launcher, key, signed)?;
        }
        let frame = LauncherFrame::parse(&signed.body).map_err(|_| Rejected::Malformed)?;
        if frame.deployment_id != self.id {
            return Err(Rejected::WrongDeployment);
        }
        let ours = match &frame.kind {
            LauncherKind::Unverified { body_sha256, .. } => Some(*body_sha256) == self.body,
            // While the reader does not know its own request, this refusal belongs to another one.
            LauncherKind::Refused { reason: Reason::IdInUse, .. } if self.request.is_none() => false,
            kind => kind.request_digest().is_none_or(|digest| self.is_request(digest)),
        };
        if ours { Ok(Authentic::Launcher(frame)) } else { Err(Rejected::WrongRequest) }
    }

    fn check_runner(&mut self, signed: &SignedFrame) -> Result<Option<Authentic>, Rejected> {
        let fresh = match (&self.runner, &signed.vouch) {
            (None, Some(vouch)) => Some(self.believe(vouch)?),
            _ => None,
        };
        let Some(vouch) = fresh.as_ref().or(self.runner.as_ref()) else { return Ok(None) };
        self.check_signature(FrameSource::Runner, &vouch.runner_key, signed)?;
        // Stored only now. Without a pinned key, a vouch whose key did not sign its own frame must
        // not lock out the genuine one.
        if let Some(vouch) = fresh {
            self.request = Some(vouch.request_digest);
            self.runner = Some(vouch);
        }
        let frame = RunnerFrame::parse(&signed.body).map_err(|_| Rejected::Malformed)?;
        if frame.deployment_id != self.id {
            return Err(Rejected::WrongDeployment);
        }
        Ok(Some(Authentic::Runner(frame)))
    }

    fn check_signature(&self, from: FrameSource, key: &PublicKey, signed: &SignedFrame) -> Result<(), Rejected> {
        let sig = from_base64(&signed.sig).ok().and_then(|sig| <[u8; 64]>::try_from(sig).ok());
        let valid = sig.is_some_and(|sig| self.verifier.verify(key, &from.pae(&signed.body), &sig));
        if valid { Ok(()) } else { Err(Rejected::Signature) }
    }

    fn believe(&self, vouch: &str) -> Result<Vouch, Rejected> {
        let envelope = Envelope::parse(vouch.as_bytes(), FRAME_ATTRIBUTES_MAX).map_err(|_| Rejected::Vouch)?;
        let vouch = match &self.target_key {
            Some(key) => {
                let signed_by = |pae: &[u8], signature: &Signature| {
                    let valid = self.verifier.verify(key, pae, &signature.bytes()?);
                    valid.then(|| SignedBy { key_id: key.key_id(), signer: () })
                };
                envelope.verify::<Vouch, _>(signed_by).map_err(|_| Rejected::Vouch)?.statement().clone()
            }
            // No pinned key: the first vouch is trusted as it is.
            None if envelope.payload_type() != Vouch::TYPE => return Err(Rejected::Vouch),
            None => Vouch::parse(envelope.unverified_payload()).map_err(|_| Rejected::Vouch)?,
        };
        if vouch.deployment_id != self.id || !self.is_request(vouch.request_digest) {
            return Err(Rejected::WrongVouch);
        }
        if self.verifier.is_key(&vouch.runner_key) { Ok(vouch) } else { Err(Rejected::Key) }
    }

    fn is_request(&self, digest: Digest) -> bool {
        self.request.is_none_or(|request| request == digest)
    }
}
