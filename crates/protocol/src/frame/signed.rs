//! A frame as it travels: in the reply queue, in the runner's spool, and in the archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{base64, to_json_of};
use crate::envelope::pae;
use crate::strict;

/// The type of a runner frame; the signature covers it.
pub const RUNNER_FRAME_TYPE: &str = "application/vnd.relay.runner-frame.v1+json";
/// The type of a launcher frame; the signature covers it.
pub const LAUNCHER_FRAME_TYPE: &str = "application/vnd.relay.launcher-frame.v1+json";
/// The message attribute that names the sender of a frame.
pub const ATTRIBUTE_FROM: &str = "from";
/// The message attribute that holds the detached signature in standard base64.
pub const ATTRIBUTE_SIG: &str = "sig";
/// The message attribute that holds the vouch's envelope, in `started`, `heartbeat` and `finished`.
pub const ATTRIBUTE_VOUCH: &str = "vouch";

/// Bytes of a line of the archive beside its body, and for the escapes in it, if it has few.
const LINE_SPARE: usize = 1_024;

/// The sender of a frame: the attribute `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSource {
    /// The runner, which is the ECS task.
    Runner,
    /// The launcher, which is the Lambda function.
    Launcher,
}

impl FrameSource {
    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Launcher => "launcher",
        }
    }

    /// Reads the value of the attribute.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "runner" => Some(Self::Runner),
            "launcher" => Some(Self::Launcher),
            _ => None,
        }
    }

    /// The bytes that this sender signs for `body` (clause FRM-4).
    pub fn pae(self, body: &str) -> Vec<u8> {
        let payload_type = match self {
            Self::Runner => RUNNER_FRAME_TYPE,
            Self::Launcher => LAUNCHER_FRAME_TYPE,
        };
        pae(payload_type, body.as_bytes())
    }
}

/// The body of a frame with its attributes. Nothing in it may be trusted before its signature is
/// verified.
///
/// Its JSON form is one line of the archive (section 18 of `docs/protocol.md`); members from a
/// later version are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFrame {
    /// The attribute `from`: `runner` or `launcher`, or any untrusted text.
    pub from: String,
    /// The attribute `sig`: base64 of the signature, or any untrusted text.
    pub sig: String,
    /// The attribute `vouch`: the JSON of an envelope, or any untrusted text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouch: Option<String>,
    /// The body, byte for byte.
    pub body: String,
}

impl SignedFrame {
    /// A frame from `from`, with its signature and, if its kind bears one, the vouch.
    pub fn new(from: FrameSource, sig: &[u8], vouch: Option<String>, body: String) -> Self {
        Self { from: from.as_str().to_owned(), sig: base64(sig), vouch, body }
    }

    /// A frame from a message of the queue and its string attributes. A missing attribute becomes
    /// empty.
    pub fn from_message(mut attributes: BTreeMap<String, String>, body: String) -> Self {
        Self {
            from: attributes.remove(ATTRIBUTE_FROM).unwrap_or_default(),
            sig: attributes.remove(ATTRIBUTE_SIG).unwrap_or_default(),
            vouch: attributes.remove(ATTRIBUTE_VOUCH),
            body,
        }
    }

    /// The string attributes of the message. Empty ones are omitted, because SQS refuses them.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [(ATTRIBUTE_FROM, &self.from), (ATTRIBUTE_SIG, &self.sig)]
            .into_iter()
            .chain(self.vouch.as_ref().map(|vouch| (ATTRIBUTE_VOUCH, vouch)))
            .map(|(name, value)| (name, value.as_str()))
            .filter(|(_, value)| !value.is_empty())
    }

    /// The size on the wire in bytes: the body, and the names, types and values of the attributes
    /// (clause FRM-2).
    pub fn size(&self) -> usize {
        let attribute = |(name, value): (&str, &str)| name.len() + "String".len() + value.len();
        self.body.len() + self.attributes().map(attribute).sum::<usize>()
    }

    /// The frame as one line of the archive, with its line end.
    pub fn to_line(&self) -> String {
        let mut line = to_json_of(LINE_SPARE + self.body.len(), self);
        line.push('\n');
        line
    }

    /// Reads a line of the archive, with or without its line end.
    ///
    /// # Errors
    ///
    /// If the line is not a frame in its JSON form.
    pub fn from_line(line: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(line)
    }
}
