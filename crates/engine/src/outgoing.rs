//! What passes between writer and sender: frames one way, the state of the link the other.

/// A frame that was made: the edge signs the body and adds the attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its number.
    pub seq: u64,
    /// Its body.
    pub body: String,
    /// Whether the attribute `vouch` goes with it.
    pub vouch: bool,
    /// Whether it is output, and not one of the runner's own few words.
    pub output: bool,
    /// Whether it is the deployment's last (clause FRM-13).
    pub last: bool,
}

/// How the link to the queue is: it decides how long the writer gathers before it cuts a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// All that was sent has arrived.
    Clear,
    /// Something is on its way, and more may follow it.
    Busy,
    /// No more can be sent now, or what was sent last has failed.
    Blocked,
}
