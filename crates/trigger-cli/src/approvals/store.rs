//! The approvals bucket: `pending/<ticket>/request`, and one object beside it for each approval,
//! named by the key that signed it. Every object is written once.

use std::collections::BTreeMap;

use relay_aws::objects::Objects;
use relay_console::Failure;
use relay_protocol::Ticket;
use relay_protocol::limits::{APPROVALS_MAX, BUNDLE_MAX};

use super::{Given, PENDING_MAX, Pending};

/// The name of the request among the objects of a ticket.
const REQUEST: &str = "request";

/// The bucket, and the prefix in it.
pub(crate) struct Store {
    pub(crate) objects: Objects,
    pub(crate) bucket: String,
    pub(crate) prefix: String,
}

impl Store {
    fn folder(&self) -> String {
        format!("{}pending/", self.prefix)
    }

    fn key(&self, ticket: &Ticket, name: &str) -> String {
        format!("{}{ticket}/{name}", self.folder())
    }

    fn failed(&self, doing: &str) -> impl Fn(relay_aws::AwsError) -> Failure {
        let doing = format!("{doing} s3://{}/{}", self.bucket, self.folder());
        move |error| Failure::aws(&doing, &error)
    }

    /// Stores a request that waits.
    pub(crate) async fn put(&self, ticket: &Ticket, pending: &Pending) -> Result<(), Failure> {
        let put = self.objects.put_once(&self.bucket, &self.key(ticket, REQUEST), pending.to_bytes()?).await;
        put.map(|_| ()).map_err(self.failed("storing the request in"))
    }

    /// Reads the request with this ticket, if there is one.
    pub(crate) async fn get(&self, ticket: &Ticket) -> Result<Option<Pending>, Failure> {
        let object = self.objects.get(&self.bucket, &self.key(ticket, REQUEST), PENDING_MAX as u64).await;
        let Some(object) = object.map_err(self.failed("reading the request in"))? else { return Ok(None) };
        let odd = |problem| Failure::usage(format!("the pending request {ticket} cannot be read: {problem}"));
        Pending::parse(&object.bytes).map(Some).map_err(odd)
    }

    /// Stores an approval under the name of its approver. Returns `false` if there is one already.
    pub(super) async fn approve(&self, approver: &str, given: &Given) -> Result<bool, Failure> {
        let put = self.objects.put_once(&self.bucket, &self.key(&given.ticket, approver), given.to_bytes()?).await;
        put.map_err(self.failed("storing the approval in"))
    }

    /// The approvals of a ticket, by the name of their object. Other objects are left out.
    pub(super) async fn approvals(&self, ticket: &Ticket) -> Result<BTreeMap<String, Given>, Failure> {
        let mut all = BTreeMap::new();
        let listed = self.objects.list(&self.bucket, &self.key(ticket, "")).await;
        let keys = listed.map_err(self.failed("looking for approvals in"))?;
        for key in keys.iter().filter(|key| !key.ends_with(REQUEST)).take(APPROVALS_MAX) {
            let object = self.objects.get(&self.bucket, key, BUNDLE_MAX as u64).await;
            let Some(object) = object.map_err(self.failed("reading an approval in"))? else { continue };
            match Given::parse(&object.bytes) {
                Ok(given) if given.ticket == *ticket => drop(all.insert(key.clone(), given)),
                _ => tracing::warn!(key, "not an approval of this ticket"),
            }
        }
        Ok(all)
    }

    /// The tickets that have a request here.
    pub(crate) async fn tickets(&self) -> Result<Vec<Ticket>, Failure> {
        let listed = self.objects.list(&self.bucket, &self.folder()).await;
        let keys = listed.map_err(self.failed("looking for requests in"))?;
        let folder = self.folder();
        let ticket = |key: &String| key.strip_prefix(&folder)?.strip_suffix("/request")?.parse().ok();
        Ok(keys.iter().filter_map(ticket).collect())
    }
}
