//! A writer and a sender with no disk between them, for models and tests.

use std::time::Duration;

use relay_protocol::DeploymentId;

use crate::outgoing::Outgoing;
use crate::sender::Sender;
use crate::writer::Writer;

/// A writer and a sender with no disk between them: what the sender has no room for stays in the writer. The runner has its backlog there; this is
/// for models and tests of everything else.
#[derive(Debug)]
pub struct Direct {
    /// What makes the frames.
    pub writer: Writer,
    /// What sends them.
    pub sender: Sender<Outgoing>,
}

impl Direct {
    /// Both, new.
    pub fn new(id: DeploymentId, now: Duration) -> Self {
        Self { writer: Writer::new(id, now), sender: Sender::new() }
    }

    /// The next batch to send, if one is due.
    pub fn poll_batch(&mut self, now: Duration) -> Option<Vec<Outgoing>> {
        while self.sender.has_room()
            && let Some(frame) = self.writer.poll_frame(now, self.sender.link())
        {
            self.sender.queue(frame.seq, frame.body.len(), frame.last, frame);
        }
        Some(self.sender.poll_batch(now)?.into_iter().map(|(_, frame)| frame).collect())
    }

    /// When [`Direct::poll_batch`] has something to do next, if nothing else happens.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let writes = self.sender.has_room().then(|| self.writer.poll_timeout(self.sender.link())).flatten();
        [writes, self.sender.poll_timeout()].into_iter().flatten().min()
    }

    /// Whether all that was pushed and said has arrived.
    pub fn is_idle(&self) -> bool {
        self.writer.is_idle() && self.sender.is_idle()
    }
}
