//! The archive: the runner's frames in the relay bucket, as they were signed (clauses ARC-1 to
//! ARC-3). It serves readers that arrive after the reply queue is gone. A holder of the target key
//! verifies it like messages from the queue.

use crate::frame::SignedFrame;
use crate::names::{DeploymentId, TargetName};

/// The S3 key of the object `number`. Numbers start at 0 and have no gaps.
pub fn key(target: &TargetName, id: &DeploymentId, number: u64) -> String {
    format!("archive/{target}/{id}/{number:06}.jsonl")
}

/// The frames of an object. A line that is not a frame yields an error in its place.
pub fn frames(object: &[u8]) -> impl Iterator<Item = Result<SignedFrame, serde_json::Error>> {
    object.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(SignedFrame::from_line)
}
