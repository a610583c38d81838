//! `relay deploy --wait-approval`: stores the request, and waits until the launcher says that
//! nothing is missing. It asks by dry runs, so that a refusal claims no deployment.

use std::time::{Duration, Instant};

use relay_aws::Sdk;
use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_protocol::{DeploymentId, Envelope, Reason, Request, Ticket, Timestamp};
use serde_json::json;

use super::store::Store;
use super::{Approved, Pending};
use crate::dry_run::{Trial, refused};
use crate::queues::Pair;
use crate::request::new_ticket;
use crate::show::Show;

/// The pause between two looks into the bucket.
const PAUSE: Duration = Duration::from_secs(2);

/// How long the bucket may be out of reach.
const OUTAGE: Duration = Duration::from_secs(300);

/// A request that needs approvals.
pub(crate) struct Waiting<'a> {
    pub(crate) sdk: &'a Sdk,
    pub(crate) trial: Trial<'a>,
    /// Bucket and prefix.
    pub(crate) store: (String, String),
    /// How long to wait.
    pub(crate) patience: Duration,
    /// How long nothing may be printed. Zero means forever.
    pub(crate) heartbeat: Duration,
}

impl Waiting<'_> {
    /// Waits until the request may be published, and returns what goes with it. `make` makes the
    /// request with the given ticket.
    ///
    /// # Errors
    ///
    /// If the launcher would refuse the request for another reason, or nobody approves in time.
    pub(crate) async fn approved(
        &self,
        show: &mut Show,
        make: impl Fn(&DeploymentId, Timestamp, &Pair, &Ticket) -> Request,
    ) -> Result<Approved, Failure> {
        let ticket = new_ticket()?;
        let ask = async |approvals: &[Envelope]| {
            self.trial.ask(self.sdk, approvals, |id, now, pair| make(id, now, pair, &ticket)).await
        };
        let asked = ask(&[]).await?;
        let mut missing = match (asked.tried.reason, asked.tried.approvals_missing) {
            (None, _) => return Ok(Approved { ticket: Some(ticket), approvals: Vec::new() }),
            (Some(Reason::Approval), missing @ 1..) => missing,
            (Some(reason), _) => return Err(refused(reason, &asked.tried.message)),
        };
        let (bucket, prefix) = self.store.clone();
        let store = Store { objects: Objects::new(self.sdk), bucket, prefix };
        store.put(&ticket, &Pending { dry_run: asked.dry_run, answer: asked.answer }).await?;
        say_missing(show, &ticket, missing);
        let (mut known, mut said, mut reached) = (0, Instant::now(), Instant::now());
        let until = said + self.patience;
        loop {
            if Instant::now() >= until {
                let words = format!("{} went by without the approvals that the policy requires", plain(self.patience));
                return Err(Failure::because(Reason::Approval, words).hint(
                    "nothing was published, and the ticket is unused; run yours again, and ask a colleague before",
                ));
            }
            tokio::time::sleep(PAUSE).await;
            if !self.heartbeat.is_zero() && said.elapsed() >= self.heartbeat {
                said = Instant::now();
                say_missing(show, &ticket, missing);
            }
            let given = match store.approvals(&ticket).await {
                Ok(given) => given,
                // Somebody may have been waiting for hours: one fault does not end that.
                Err(_) if reached.elapsed() < OUTAGE => continue,
                Err(failure) => return Err(failure),
            };
            reached = Instant::now();
            if given.len() == known {
                continue;
            }
            known = given.len();
            let approvals: Vec<Envelope> = given.into_values().map(|given| given.approval).collect();
            let tried = ask(&approvals).await?.tried;
            match tried.reason {
                None => return Ok(Approved { ticket: Some(ticket), approvals }),
                Some(Reason::Approval) => {
                    show.warn(&tried.message);
                    missing = tried.approvals_missing;
                    say_missing(show, &ticket, missing);
                }
                Some(reason) => return Err(refused(reason, &tried.message)),
            }
        }
    }
}

fn say_missing(show: &mut Show, ticket: &Ticket, missing: u32) {
    let persons = if missing == 1 { "one approval".to_owned() } else { format!("{missing} approvals") };
    let text = format!("for {persons}; a colleague runs: relay approve {ticket}");
    show.event("waits", &text, json!({ "ticket": ticket, "approvals_missing": missing }));
}

fn plain(time: Duration) -> String {
    relay_protocol::time::plain_duration(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
