//! Stop requests: why a deployment should stop. A request is made once, by any side, and all tasks
//! see it.

use std::time::Duration;

use relay_protocol::Reason;
use relay_protocol::outcome::Outcome;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;

/// The cause of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The deployment exceeded its timeout.
    TimedOut,
    /// A control statement requested the stop.
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

    /// The outcome of a deployment that stops for this cause.
    pub(crate) fn outcome(self) -> Outcome {
        let reason = self.reason();
        Outcome::Ended { reason, message: reason.words().to_owned() }
    }
}

/// Shares a stop request between tasks. The first request counts, but the container's end is
/// visible even after another request. Clones share the state.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    why: watch::Sender<Option<Stop>>,
    container: watch::Sender<Option<Instant>>,
}

impl Stopper {
    /// Creates a stopper without a request.
    pub(crate) fn new() -> Self {
        Self { why: watch::Sender::new(None), container: watch::Sender::new(None) }
    }

    /// Turns SIGTERM, with which ECS and Docker stop a container, into a stop request. Without this
    /// handler a process with PID 1 ignores the signal.
    pub(crate) fn listen_for_termination(&self) {
        let stopper = self.clone();
        match signal(SignalKind::terminate()) {
            Ok(mut terminations) => drop(tokio::spawn(async move {
                terminations.recv().await;
                stopper.container.send_replace(Some(Instant::now()));
                stopper.stop(Stop::Terminated);
            })),
            Err(error) => tracing::warn!(%error, "cannot handle SIGTERM"),
        }
    }

    /// Requests a stop. Only the first request counts.
    pub(crate) fn stop(&self, why: Stop) {
        self.why.send_if_modified(|now| {
            now.is_none() && {
                *now = Some(why);
                true
            }
        });
    }

    /// The stop request, if there is one.
    pub(crate) fn asked(&self) -> Option<Stop> {
        *self.why.borrow()
    }

    /// Waits for a stop request.
    pub(crate) async fn wait(&self) -> Stop {
        told(&self.why).await
    }

    /// Whether the container is being stopped, even after another request.
    pub(crate) fn is_terminated(&self) -> bool {
        self.container.borrow().is_some()
    }

    /// Waits until `long` has passed since the container was asked to stop.
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
        // The sender lives while this function waits, so this cannot fail.
        if receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
