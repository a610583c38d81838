//! The data that the parts of the outbox hand to each other.

use std::collections::BTreeMap;

use relay_protocol::outcome::Outcome;
use relay_protocol::record;
use relay_protocol::{Envelope, SignedFrame};

/// A frame on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its sequence number.
    pub seq: u64,
    /// Whether it holds output of the tool, and not one of the runner's own few messages.
    pub output: bool,
    /// Whether it is the deployment's last (clause FRM-13).
    pub last: bool,
    /// The frame as it is sent and archived.
    pub signed: SignedFrame,
}

impl Frame {
    /// Bytes of its body.
    pub(super) fn size(&self) -> usize {
        self.signed.body.len()
    }
}

/// The content of the last frame.
#[derive(Clone, Debug)]
pub struct Finish {
    /// How the deployment ended.
    pub outcome: Outcome,
    /// The step that decided the outcome.
    pub step: Option<String>,
    /// The outputs that the steps wrote to `$RELAY_OUTPUT`.
    pub outputs: BTreeMap<String, String>,
    /// The record, as the evidence has it.
    pub record: Envelope,
    /// Why the record is not signed, or not in the evidence.
    pub record_problem: Option<String>,
}

impl Finish {
    /// An outcome alone: no step, no outputs, an empty record.
    pub fn of(outcome: Outcome) -> Self {
        let record = Envelope::new(record::TYPE, Vec::new());
        Self { outcome, step: None, outputs: BTreeMap::new(), record, record_problem: None }
    }
}

/// The state of the link to the queue. It decides how long the writer gathers output before it cuts
/// a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Everything that was sent has arrived.
    Clear,
    /// Something is on its way, and more may follow it.
    Busy,
    /// No more can be sent now, or the last send failed.
    Blocked,
}
