//! The ledger: an hourly signed list of the claims and records of a foundation, so that one that is
//! removed or changed later is missed (clauses LED-1 to LED-4).
//!
//! Each entry names its predecessor by its SHA-256 and begins where that one ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::encoding::{Digest, to_json};
use crate::envelope::{Envelope, Statement};
use crate::limits;
use crate::strict;
use crate::time::Timestamp;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// The folder of the ledger in the evidence bucket, with a slash.
pub const FOLDER: &str = "ledger/";

/// The folder of all deployments in the evidence bucket, with a slash.
pub const DEPLOYMENTS: &str = "deployments/";

/// How many days before the end of the entry before it an entry looks for objects: a deployment runs
/// for two days at most, and its folder is that of the day on which it was asked for.
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
    /// The name of its object. Names sort by number.
    pub fn object(&self) -> String {
        format!("{}{:010}.json", day_folder(self.until), self.number)
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

/// The folder of the entries that end on this day.
pub fn day_folder(at: Timestamp) -> String {
    format!("{FOLDER}{}/", at.day())
}

/// The days whose deployments an entry at `now` looks through, in order: from [`DAYS_BACK`] before
/// the end of the entry before it, or before now if there is none, to today.
pub fn days(before: Option<Timestamp>, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    let first = before.map_or(now, |before| before.min(now)).plus(-DAYS_BACK * DAY);
    let midnight = Timestamp::from_unix(first.unix() - first.unix() % DAY);
    (0..).map(move |day| midnight.plus(day * DAY)).take_while(move |day| *day <= now)
}

/// Whether the ledger lists the object with this name: the claim, the records and the verification
/// summary of a deployment. What else the evidence holds hangs on a record by its digest.
pub fn lists(key: &str) -> bool {
    let Some(rest) = key.strip_prefix(DEPLOYMENTS) else { return false };
    let parts: Vec<&str> = rest.splitn(5, '/').collect();
    matches!(parts[..], [_, _, _, _, "claim" | "runner/record.json" | "launcher/record.json" | "launcher/vsa.json"])
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
        let folder = "deployments/demo/hello/2026-06-01/0198";
        for name in ["claim", "runner/record.json", "launcher/record.json", "launcher/vsa.json"] {
            assert!(lists(&format!("{folder}/{name}")), "{name}");
            assert_eq!(deployment_of(&format!("{folder}/{name}")), folder);
        }
        for name in ["request.json", "runner/000000.jsonl", "runner/record.sigstore.json", "x/claim", "claim/x"] {
            assert!(!lists(&format!("{folder}/{name}")), "{name}");
        }
        assert!(!lists("deployments/demo/hello/tickets/0123"));
        assert!(!lists("ledger/2026-06-01/0000000000.json"));
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
