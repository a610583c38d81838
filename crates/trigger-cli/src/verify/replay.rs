//! Reads archived frames again: they are verified and ordered as those of a live deployment are.

use std::time::Duration;

use relay_engine::{Authenticator, Event, Inbox, Start, Timeouts};
use relay_protocol::frame::SignedFrame;
use relay_protocol::keys::Cached;
use relay_protocol::{DeploymentId, PublicKey, Timestamp};

/// The archive of one deployment, as far as it was read.
pub(crate) struct Replay {
    pub(crate) inbox: Inbox<Cached>,
    frames: u64,
}

impl Replay {
    /// Nothing was read yet. Only frames that a vouched key of these has signed count.
    pub(crate) fn new(id: &DeploymentId, target_keys: &[PublicKey]) -> Self {
        let authenticator = Authenticator::archived(id.clone(), target_keys.to_vec(), Cached::default());
        let (now, then) = (Duration::ZERO, Timestamp::from_unix(0));
        Self { inbox: Inbox::new(authenticator, Start::Fresh, Timeouts::default(), now, then), frames: 0 }
    }

    /// Reads the next frame, and returns what happens because of it.
    pub(crate) fn take(&mut self, frame: SignedFrame) -> Vec<Event> {
        self.inbox.handle(Duration::ZERO, self.frames, frame);
        self.frames += 1;
        let events = std::iter::from_fn(|| self.inbox.poll_event()).collect();
        if let Some(mark) = self.inbox.polled() {
            self.inbox.written(mark);
        }
        drop(self.inbox.take_deletable());
        events
    }
}
