//! The archive: what the runner said, as it was signed, in the relay bucket (clauses ARC-1 to ARC-3). It is for whoever comes when the
//! reply queue is gone; the holder of the target key checks it like the queue's messages.

use crate::frame::SignedFrame;
use crate::names::{DeploymentId, TargetName};

/// The key of the object `number`, from 0 without a gap.
pub fn key(target: &TargetName, id: &DeploymentId, number: u64) -> String {
    format!("archive/{target}/{id}/{number:06}.jsonl")
}

/// The frames of an object; a line that is none is an error in its place.
pub fn frames(object: &[u8]) -> impl Iterator<Item = Result<SignedFrame, serde_json::Error>> {
    object.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(SignedFrame::from_line)
}
