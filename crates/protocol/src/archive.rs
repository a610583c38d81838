//! The archive: what the runner said, as it was signed, in the relay bucket (clauses ARC-1 to ARC-3). It is for whoever comes when the reply queue
//! is gone; who has the target key checks it like the queue's messages.

use serde::{Deserialize, Serialize};

use crate::encoding::to_json;
use crate::names::{DeploymentId, TargetName};

/// One line of an object: a runner frame with its attributes. Another field is somebody's later idea, and is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedFrame {
    /// The attribute `from`.
    pub from: String,
    /// The attribute `sig`.
    pub sig: String,
    /// The attribute `vouch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vouch: Option<String>,
    /// The body, byte for byte.
    pub body: String,
}

impl ArchivedFrame {
    /// The key of the object `number`, from 0 without a gap.
    pub fn key(target: &TargetName, id: &DeploymentId, number: u64) -> String {
        format!("archive/{target}/{id}/{number:06}.jsonl")
    }

    /// One line, with its end.
    pub fn to_line(&self) -> String {
        let mut line = to_json(self);
        line.push('\n');
        line
    }

    /// The frames of an object; a line that is none is an error in its place.
    pub fn lines(object: &[u8]) -> impl Iterator<Item = Result<Self, serde_json::Error>> {
        object.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice)
    }
}
