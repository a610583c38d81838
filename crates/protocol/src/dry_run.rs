//! The dry run: the question what would become of a request (clauses DRY-1 to DRY-3). It has the
//! members of a request and a type of its own, so that nobody can turn one into the other: the
//! runner has no parser for it.

use crate::Request;
use crate::envelope::Statement;

/// The payload of `application/vnd.relay.dry-run.v1+json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun(pub Request);

impl Statement for DryRun {
    const TYPE: &'static str = "application/vnd.relay.dry-run.v1+json";

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        Request::parse(payload).map(Self)
    }
}
