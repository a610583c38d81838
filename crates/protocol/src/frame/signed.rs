//! A frame as it travels: in the reply queue, in the runner's spool, and in the archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ATTRIBUTE_FROM, ATTRIBUTE_SIG, ATTRIBUTE_VOUCH, FrameSource};
use crate::encoding::{base64, to_json};
use crate::strict;

/// A frame's body with its attributes. Nothing in it may be believed before its signature is verified.
///
/// Its JSON form is one line of the archive (section 18 of `docs/protocol.md`): a later version's member is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedFrame {
    /// The attribute `from`: `runner`, `launcher`, or a stranger's text.
    pub from: String,
    /// The attribute `sig`: base64 of 64 bytes, or a stranger's text.
    pub sig: String,
    /// The attribute `vouch`: the JSON of an envelope, or a stranger's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouch: Option<String>,
    /// The body, byte for byte.
    pub body: String,
}

impl SignedFrame {
    /// A frame of `from`, with its signature and, where it bears one, the vouch.
    pub fn new(from: FrameSource, sig: &[u8; 64], vouch: Option<String>, body: String) -> Self {
        Self { from: from.as_str().to_owned(), sig: base64(sig), vouch, body }
    }

    /// A message of the queue, with its string attributes. One that is not there is empty.
    pub fn from_message(mut attributes: BTreeMap<String, String>, body: String) -> Self {
        Self {
            from: attributes.remove(ATTRIBUTE_FROM).unwrap_or_default(),
            sig: attributes.remove(ATTRIBUTE_SIG).unwrap_or_default(),
            vouch: attributes.remove(ATTRIBUTE_VOUCH),
            body,
        }
    }

    /// The message's string attributes. SQS takes no empty one.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [(ATTRIBUTE_FROM, &self.from), (ATTRIBUTE_SIG, &self.sig)]
            .into_iter()
            .chain(self.vouch.as_ref().map(|vouch| (ATTRIBUTE_VOUCH, vouch)))
            .map(|(name, value)| (name, value.as_str()))
            .filter(|(_, value)| !value.is_empty())
    }

    /// Bytes on the wire: the body, and names, types and values of the attributes (clause FRM-2).
    pub fn size(&self) -> usize {
        let attribute = |(name, value): (&str, &str)| name.len() + "String".len() + value.len();
        self.body.len() + self.attributes().map(attribute).sum::<usize>()
    }

    /// One line, with its end.
    pub fn to_line(&self) -> String {
        let mut line = to_json(self);
        line.push('\n');
        line
    }

    /// Reads a line, with or without its end.
    pub fn from_line(line: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(line)
    }
}
