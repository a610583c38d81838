//! The ledger: an hourly signed list of the claims and records of a foundation, so that one that is
//! removed or changed later is missed (clauses LED-1 to LED-4).
//!
//! Each entry names its predecessor by its SHA-256 and begins where that one ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::{Envelope, Statement};
use crate::limits;
use crate::names::{DeploymentId, TargetName};
use crate::strict;
use crate::time::Timestamp;

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// The folder of the ledger in the evidence bucket, with a slash.
pub const FOLDER: &str = "ledger/";

/// The folder of all deployments in the evidence bucket, with a slash.
pub const DEPLOYMENTS: &str = "deployments/";

/// The largest object that the ledger lists, in bytes: a record in its envelope. Base64 takes four
/// bytes for three.
pub const OBJECT_MAX: u64 = 2 * limits::RECORD_MAX as u64;

/// How many days before the end of the entry before it an entry looks for objects. A deployment
/// runs for two days at most, and its folder is that of the day on which it was asked for.
pub const DAYS_BACK: i64 = 3;

/// An entry of the ledger: the payload of `application/vnd.relay.ledger.v1+json`, signed by the
/// ledger key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerEntry {
    /// The evidence bucket.
    pub bucket: String,
    /// The number of the entry. The first one has 0.
    #[serde(deserialize_with = "strict::count")]
    pub number: u64,
    /// The SHA-256 of the object of the entry before; absent in the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// Where the entry begins, which is where the one before ended.
    pub from: Timestamp,
    /// Where the entry ends. What existed then is in this entry, or in an earlier one.
    pub until: Timestamp,
    /// The objects that no earlier entry lists, with the SHA-256 of their bytes.
    pub objects: BTreeMap<String, Digest>,
}

impl LedgerEntry {
    /// The name of its object. It has no day, so that no number can be written twice. Names sort by
    /// number.
    pub fn object(&self) -> String {
        format!("{FOLDER}{:010}.json", self.number)
    }

    /// The entry in its envelope, not signed yet.
    pub fn to_envelope(&self) -> Envelope {
        Envelope::new(Self::TYPE, to_json(self).into_bytes())
    }
}

impl Statement for LedgerEntry {
    const TYPE: &'static str = "application/vnd.relay.ledger.v1+json";
    const MAX: usize = limits::LEDGER_ENTRY_MAX;

    fn parse(payload: &[u8]) -> Result<Self, serde_json::Error> {
        strict::from_slice(payload)
    }
}

/// The days whose deployments an entry at `now` looks through, in order: from [`DAYS_BACK`] before
/// the end of the entry before it, or before now if there is none, to today.
pub fn days(before: Option<Timestamp>, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let first = midnight(before.map_or(now, |before| before.min(now)).plus(-DAYS_BACK * DAY));
    (0..).map(move |day| first.plus(day * DAY)).take_while(move |day| *day <= now)
}

fn midnight(at: Timestamp) -> Timestamp {
    Timestamp::from_unix(at.unix() - at.unix() % DAY)
}

/// The day of the deployment that the object with this name belongs to, as its midnight, if the
/// ledger lists such objects: the claim, the records and the verification summary of a deployment.
/// Every part of the name must be what it stands for, so that nobody can make names of their own.
pub fn day_of(key: &str) -> Option<Timestamp> {
    let mut parts = key.strip_prefix(DEPLOYMENTS)?.splitn(5, '/');
    let mut part = || parts.next();
    let (service, environment, day, id, name) = (part()?, part()?, part()?, part()?, part()?);
    let _: TargetName = format!("{service}/{environment}").parse().ok()?;
    let asked_at = id.parse::<DeploymentId>().ok()?.time();
    let is_listed = matches!(name, "claim" | "runner/record.json" | "launcher/record.json" | "launcher/vsa.json");
    (is_listed && asked_at.day() == day).then(|| midnight(asked_at))
}

/// Whether an entry that ended at `until` or later must list the object with this name, which was
/// written at `written_at`. A request that is refused because it is older than [`DAYS_BACK`] leaves
/// objects in a folder that no entry looks through any more (clause LED-4).
pub fn must_list(key: &str, written_at: Timestamp, until: Timestamp) -> bool {
    written_at < until
        && day_of(key).is_some_and(|day| day >= midnight(written_at.plus(-DAYS_BACK * DAY)) && day <= until)
}

/// The folder of the deployment that an object of the ledger belongs to.
pub fn deployment_of(key: &str) -> &str {
    let end = key.match_indices('/').nth(4).map_or(key.len(), |(at, _)| at);
    key.get(..end).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    // clause: LED-2
    #[test]
    fn claims_records_and_summaries_are_listed() {
        let id = DeploymentId::new(1_780_315_200_000, [7; 10]);
        let folder = format!("deployments/demo/hello/2026-06-01/{id}");
        let day: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
        for name in ["claim", "runner/record.json", "launcher/record.json", "launcher/vsa.json"] {
            assert_eq!(day_of(&format!("{folder}/{name}")), Some(day), "{name}");
            assert_eq!(deployment_of(&format!("{folder}/{name}")), folder);
        }
        for name in ["request.json", "runner/000000.jsonl", "runner/record.sigstore.json", "x/claim", "claim/x"] {
            assert_eq!(day_of(&format!("{folder}/{name}")), None, "{name}");
        }
        for odd in [
            "deployments/demo/hello/tickets/0123".to_owned(),
            "ledger/0000000000.json".to_owned(),
            // Whoever may write below a target could fill the ledger with such names.
            format!("deployments/demo/hello/2026-06-01/{}/claim", "x".repeat(900)),
            format!("deployments/demo/hello/2026-06-02/{id}/claim"),
            format!("deployments/Demo/hello/2026-06-01/{id}/claim"),
        ] {
            assert_eq!(day_of(&odd), None, "{odd}");
        }
    }

    // clause: LED-2, LED-3
    #[test]
    fn only_what_was_in_the_days_of_an_entry_must_be_listed() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let id = DeploymentId::new(1_780_315_200_000, [7; 10]);
        let claim = format!("deployments/demo/hello/2026-06-01/{id}/claim");
        let until = at("2026-06-20T00:00:00Z");
        assert!(must_list(&claim, at("2026-06-01T12:00:00Z"), until));
        assert!(must_list(&claim, at("2026-06-04T23:59:59Z"), until));
        assert!(!must_list(&claim, at("2026-06-05T00:00:00Z"), until), "a request of four days ago");
        assert!(!must_list(&claim, at("2026-06-01T12:00:00Z"), at("2026-06-01T12:00:00Z")), "not covered yet");
        assert!(!must_list(&claim, at("2026-05-20T12:00:00Z"), at("2026-05-21T00:00:00Z")), "a request of the future");
    }

    #[test]
    fn an_entry_looks_three_days_back_from_the_end_of_the_one_before() {
        let at: Timestamp = "2026-03-02T00:10:00Z".parse().unwrap();
        let of = |before: Option<&str>| {
            days(before.map(|before| before.parse().unwrap()), at).map(Timestamp::day).collect::<Vec<_>>()
        };
        let usual = ["2026-02-27", "2026-02-28", "2026-03-01", "2026-03-02"];
        assert_eq!(of(None), usual);
        assert_eq!(of(Some("2026-03-02T00:00:00Z")), usual);
        // The hour before was yesterday's, and after an outage everything since then counts.
        assert_eq!(of(Some("2026-03-01T23:00:00Z")), [&["2026-02-26"][..], &usual].concat());
        assert_eq!(of(Some("2026-02-25T12:00:00Z")).first().map(String::as_str), Some("2026-02-22"));
        assert_eq!(of(Some("2026-02-25T12:00:00Z")).len(), 9);
    }
}
