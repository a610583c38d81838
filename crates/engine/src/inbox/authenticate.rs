//! Decides which frames are accepted, by signature, vouch, deployment and request (clauses FRM-4 to
//! FRM-6, VCH-1 to VCH-3, LAU-5).

use relay_protocol::encoding::from_base64;
use relay_protocol::frame::{Finished, FrameSource, LauncherFrame, LauncherKind, RunnerFrame, SignedFrame};
use relay_protocol::keys::Verifier;
use relay_protocol::limits::{FRAME_ATTRIBUTES_MAX, FRAME_MAX};
use relay_protocol::outcome::Reason;
use relay_protocol::request::Hints;
use relay_protocol::{
    DeploymentId, Digest, Envelope, PublicKey, Signature, SignedBy, Statement as _, VerifyError, Vouch,
};

use crate::proof::{self, About, Unproved};

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

/// The pinned keys that every frame must trace back to (clauses VCH-1, FRM-6). Each is one key and,
/// while it is being replaced, the other one too (clauses KEY-5, KEY-7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// The target key, which vouches for runner keys and signs the runner's records.
    pub target: Vec<PublicKey>,
    /// The answer key, which signs the launcher's frames and its records.
    pub answer: Vec<PublicKey>,
}

/// A key that a pin does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// The target key: a runner has answered.
    Target,
    /// The answer key: the launcher has answered.
    Answer,
}

/// What a reader has published itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The hints that it sent.
    pub hints: Hints,
    /// The digest of the request, or of the dry run.
    pub request: Digest,
    /// The digest of the SNS body that carried it.
    pub body: Digest,
    /// Whether it was a dry run. Its one answer is `tried`, and nothing else is believed; the
    /// reader of a request never believes a `tried` (clause DRY-3).
    pub dry_run: bool,
}

/// Authenticates the frames of one deployment.
#[derive(Debug)]
pub struct Authenticator<V> {
    id: DeploymentId,
    /// A reader that attaches has published nothing.
    published: Option<Published>,
    /// The digest of the request. A reader that attaches learns it from a vouch.
    request: Option<Digest>,
    pins: Option<Pins>,
    runner: Option<Vouch>,
    unfit: Option<Unfit>,
    verifier: V,
}

impl<V: Verifier> Authenticator<V> {
    /// For what was `published`. With `pins`, every frame must trace back to one of these keys.
    /// Without them, the first vouch is trusted and launcher frames are not verified; the caller
    /// must tell the user.
    pub fn new(published: Published, pins: Option<Pins>, verifier: V) -> Self {
        let (id, request) = (published.hints.deployment_id.clone(), Some(published.request));
        Self { id, published: Some(published), request, pins, runner: None, unfit: None, verifier }
    }

    /// For a reader that joins late and knows only the id. It takes the digest of the request from
    /// the first vouch (clause VCH-3).
    pub fn attaching(id: DeploymentId, pins: Option<Pins>, verifier: V) -> Self {
        Self { id, published: None, request: None, pins, runner: None, unfit: None, verifier }
    }

    /// For frames of the evidence, which has none of the launcher.
    pub fn archived(id: DeploymentId, target_keys: Vec<PublicKey>, verifier: V) -> Self {
        Self::attaching(id, Some(Pins { target: target_keys, answer: Vec::new() }), verifier)
    }

    /// The deployment whose frames are accepted.
    pub(super) fn id(&self) -> &DeploymentId {
        &self.id
    }

    /// The key whose pin does not fit, if an answer came that says it is of this deployment and
    /// that the pinned key did not sign. Anybody who may write to the queue can make such an
    /// answer, so it is a hint for people, and decides nothing.
    pub fn unfit(&self) -> Option<Unfit> {
        self.unfit
    }

    /// Whether the record in the last frame proves what the frame says.
    ///
    /// # Errors
    ///
    /// What is wrong with the record, or with the pin.
    pub(super) fn check_record(&self, finished: &Finished) -> Result<(), Unproved> {
        let signed_by = self.pins.as_ref().map(|pins| self.signed_by(&pins.target));
        proof::check(finished, About { id: &self.id, request: self.request }, signed_by)
    }

    /// Who signed a PAE: one of these keys or nobody.
    fn signed_by<'a>(&'a self, keys: &'a [PublicKey]) -> impl Fn(&[u8], &Signature) -> Option<SignedBy<()>> + 'a {
        |pae, signature| {
            let bytes = signature.bytes()?;
            let key = keys.iter().find(|key| self.verifier.verify(key, pae, &bytes))?;
            Some(SignedBy { key_id: key.key_id(), signer: () })
        }
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
            FrameSource::Runner if self.is_dry_run() => Err(Rejected::WrongRequest),
            FrameSource::Runner => self.check_runner(signed),
        }
    }

    fn is_dry_run(&self) -> bool {
        self.published.as_ref().is_some_and(|published| published.dry_run)
    }

    fn check_launcher(&mut self, signed: &SignedFrame) -> Result<Authentic, Rejected> {
        if let Some(pins) = &self.pins
            && let Err(rejected) = self.check_signature(FrameSource::Launcher, &pins.answer, signed)
        {
            if LauncherFrame::parse(&signed.body).is_ok_and(|frame| frame.deployment_id == self.id) {
                self.unfit = Some(Unfit::Answer);
            }
            return Err(rejected);
        }
        let frame = LauncherFrame::parse(&signed.body).map_err(|_| Rejected::Malformed)?;
        if frame.deployment_id != self.id {
            return Err(Rejected::WrongDeployment);
        }
        let ours = match &frame.kind {
            // Anybody may publish the same body again with other hints: the answer to that is not
            // for this reader.
            LauncherKind::Unverified { body_sha256, target, ci_account } => {
                self.published.as_ref().is_some_and(|Published { hints, body, .. }| {
                    body == body_sha256 && hints.target == *target && hints.ci_account == *ci_account
                })
            }
            LauncherKind::Tried(tried) => self.is_dry_run() && self.is_request(tried.request_digest),
            LauncherKind::Unknown => true,
            _ if self.is_dry_run() => false,
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
        self.check_signature(FrameSource::Runner, std::slice::from_ref(&vouch.runner_key), signed)?;
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

    fn check_signature(&self, from: FrameSource, keys: &[PublicKey], signed: &SignedFrame) -> Result<(), Rejected> {
        let pae = from.pae(&signed.body);
        let valid =
            from_base64(&signed.sig).is_ok_and(|sig| keys.iter().any(|key| self.verifier.verify(key, &pae, &sig)));
        if valid { Ok(()) } else { Err(Rejected::Signature) }
    }

    fn believe(&mut self, vouch: &str) -> Result<Vouch, Rejected> {
        let envelope = Envelope::parse(vouch.as_bytes(), FRAME_ATTRIBUTES_MAX).map_err(|_| Rejected::Vouch)?;
        let vouch = match &self.pins {
            Some(Pins { target: keys, .. }) => match envelope.verify::<Vouch, _, _>(self.signed_by(keys)) {
                Ok(vouch) => vouch.statement().clone(),
                Err(error) => {
                    let ours = |vouch: Vouch| vouch.deployment_id == self.id && self.is_request(vouch.request_digest);
                    if matches!(error, VerifyError::NoValidSignature { .. })
                        && Vouch::parse(envelope.unverified_payload()).is_ok_and(ours)
                    {
                        self.unfit = Some(Unfit::Target);
                    }
                    return Err(Rejected::Vouch);
                }
            },
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
