//! Why a deployment is to stop, from whichever side: said once, heard by all.

use relay_protocol::Reason;
use tokio::signal::unix::{SignalKind, signal};
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

    /// Turns SIGTERM, by which ECS and Docker stop a container, into a stop. Before this a process that is PID 1 would not even notice it.
    pub(crate) fn listen_for_termination(&self) {
        let stopper = self.clone();
        match signal(SignalKind::terminate()) {
            Ok(mut terminations) => drop(tokio::spawn(async move {
                terminations.recv().await;
                stopper.stop(Stop::Terminated);
            })),
            Err(error) => tracing::warn!(%error, "SIGTERM cannot be heard"),
        }
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
