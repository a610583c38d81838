//! Why a deployment is to stop, from whichever side: said once, heard by all.

use std::time::Duration;

use relay_protocol::Reason;
use relay_protocol::outcome::Outcome;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

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

    /// What the deployment ends with.
    pub(crate) fn outcome(self) -> Outcome {
        let reason = self.reason();
        Outcome::Ended { reason, message: reason.words().to_owned() }
    }
}

/// The first word counts; but the container's end is heard behind any other.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    why: watch::Sender<Option<Stop>>,
    container: watch::Sender<Option<Instant>>,
}

impl Stopper {
    pub(crate) fn new() -> Self {
        Self { why: watch::Sender::new(None), container: watch::Sender::new(None) }
    }

    /// Turns SIGTERM, by which ECS and Docker stop a container, into a stop. Before this a process that is PID 1 would not even notice it.
    pub(crate) fn listen_for_termination(&self) {
        let stopper = self.clone();
        match signal(SignalKind::terminate()) {
            Ok(mut terminations) => drop(tokio::spawn(async move {
                terminations.recv().await;
                stopper.container.send_replace(Some(Instant::now()));
                stopper.stop(Stop::Terminated);
            })),
            Err(error) => tracing::warn!(%error, "SIGTERM cannot be heard"),
        }
    }

    /// Asks for an end.
    pub(crate) fn stop(&self, why: Stop) {
        self.why.send_if_modified(|now| {
            now.is_none() && {
                *now = Some(why);
                true
            }
        });
    }

    /// Whether somebody asked.
    pub(crate) fn asked(&self) -> Option<Stop> {
        *self.why.borrow()
    }

    /// Waits until somebody asks.
    pub(crate) async fn wait(&self) -> Stop {
        told(&self.why).await
    }

    /// Whether the container is being stopped, whatever was asked before.
    pub(crate) fn is_terminated(&self) -> bool {
        self.container.borrow().is_some()
    }

    /// Waits until the container has been being stopped for so long.
    pub(crate) async fn terminated_for(&self, long: Duration) {
        tokio::time::sleep_until(told(&self.container).await + long).await;
    }
}

async fn told<T: Copy>(watched: &watch::Sender<Option<T>>) -> T {
    let mut receiver = watched.subscribe();
    loop {
        if let Some(told) = *receiver.borrow_and_update() {
            return told;
        }
        // The sender lives as long as we wait, so this cannot fail.
        if receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
