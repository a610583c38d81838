//! The cost of a deployment in SQS requests, from the sandbox's log of a deployment that prints one
//! line a second.

use std::collections::BTreeMap;
use std::time::Duration;

use relay_tests::Sandbox;
use relay_tests::kit::sandbox::Entry;
use serde_json::{Value, json};

use crate::Outcome;

/// The price of a million requests to a standard queue, in dollars: SQS's first price tier in
/// eu-west-1. A request of more than 64 KiB counts as several; none here is that large.
const PRICE: f64 = 0.40;

/// The length in seconds of the deployment whose cost is computed.
const TEN_MINUTES: f64 = 600.0;

/// Microseconds after the first send and before the last one that the rate leaves out, because they
/// belong to the start and the end of the deployment.
const EDGE: u64 = 3_000_000;

/// Whether an entry of the log is a request that a program made of AWS.
pub(crate) fn is_billed(entry: &Entry) -> bool {
    let of_aws = ["sns", "sqs", "s3", "kms", "ecs", "events", "sts"].contains(&entry.service.as_str());
    of_aws && entry.principal != "sandbox"
}

/// The requests of the deployment `id`, which printed one line a second for `time`.
pub(crate) fn of(sandbox: &Sandbox, id: &str, time: Duration) -> Outcome<Value> {
    let log = sandbox.log();
    let calls: Vec<&Entry> =
        log.iter().filter(|entry| entry.service == "sqs" && entry.text("queue").contains(id)).collect();
    let sends: Vec<&&Entry> = calls.iter().filter(|entry| entry.operation.starts_with("SendMessage")).collect();
    let (Some(first), Some(last)) = (sends.first(), sends.last()) else { return Err("nothing was sent".into()) };
    let (from, to) = (first.at_unix_us + EDGE, last.at_unix_us.saturating_sub(EDGE));
    let mut counts: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for entry in &calls {
        let (all, steady) = counts.entry(&entry.operation).or_default();
        *all += 1;
        *steady += u32::from((from..to).contains(&entry.at_unix_us));
    }
    let window = Duration::from_micros(to.saturating_sub(from)).as_secs_f64();
    let mut total = 0.0;
    let mut by_operation = BTreeMap::new();
    for (operation, (all, steady)) in counts {
        let rate = f64::from(steady) / window;
        let ten_minutes = f64::from(all) + rate * (TEN_MINUTES - time.as_secs_f64());
        total += ten_minutes;
        by_operation
            .insert(operation, json!({ "counted": all, "per_second": rate, "ten_minutes": ten_minutes.round() }));
    }
    let sent = by_operation.get("SendMessageBatch").and_then(|row| row["per_second"].as_f64()).unwrap_or_default();
    Ok(json!({
        "measured_seconds": time.as_secs(),
        "operations": by_operation,
        "sends_per_line": sent,
        "ten_minutes": total.round(),
        "dollars": total / 1e6 * PRICE,
        "dollars_per_million": PRICE,
    }))
}
