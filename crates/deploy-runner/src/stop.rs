//! Why a deployment is to stop, from whichever side: said once, heard by all.

use relay_protocol::Reason;
use tokio::sync::watch;

/// Who or what ends the deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its time is over.
    TimedOut,
    /// A control statement asked for it.
    Cancelled,
    /// The container is being stopped.
    Terminated,
}

impl Stop {
    /// The reason in the registry.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::TimedOut => Reason::TimedOut,
            Self::Cancelled => Reason::Cancelled,
            Self::Terminated => Reason::Stopped,
        }
    }
}

/// The first word counts.
#[derive(Clone, Debug)]
pub(crate) struct Stopper(watch::Sender<Option<Stop>>);

impl Stopper {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// Asks for an end.
    pub(crate) fn stop(&self, why: Stop) {
        self.0.send_if_modified(|now| {
            now.is_none() && {
                *now = Some(why);
                true
            }
        });
    }

    /// Whether somebody asked.
    pub(crate) fn asked(&self) -> Option<Stop> {
        *self.0.borrow()
    }

    /// Waits until somebody asks.
    pub(crate) async fn wait(&self) -> Stop {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(why) = *receiver.borrow_and_update() {
                return why;
            }
            // The sender lives in self, so this cannot fail while we wait.
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
