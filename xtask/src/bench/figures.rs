//! How figures of the results are read and written.

use serde_json::Value;

pub(super) fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// A field in microseconds, as milliseconds.
pub(super) fn ms(times: &Value, field: &str) -> Option<f64> {
    number(&times[field]).map(|us| us / 1_000.0)
}

pub(super) fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other.filter(|other| *other > 0.0)?)
}

pub(super) fn rate(row: &Value) -> String {
    let far = if row["far"] == true { ", SQS 5–15 ms away" } else { "" };
    format!("{} lines/s{far}", thousands(&row["per_second"]))
}

fn thousands(value: &Value) -> String {
    match value.as_u64() {
        Some(n) if n >= 1_000 => format!("{},{:03}", n / 1_000, n % 1_000),
        _ => value.to_string(),
    }
}

pub(super) fn size(row: &Value) -> String {
    let mib = row["bytes"].as_u64().unwrap_or_default() >> 20;
    let what = if row["what"] == "text" { "log-like text" } else { "random bytes" };
    let secrets = match row["secrets"].as_u64() {
        Some(count @ 1..) => format!(", {count} secrets masked"),
        _ => String::new(),
    };
    let (size, unit) = if mib.is_multiple_of(1_024) { (mib >> 10, "GiB") } else { (mib, "MiB") };
    format!("{size} {unit} of {what}{secrets}")
}

/// A size in the largest unit that divides it.
pub(super) fn binary(bytes: u64) -> (u64, &'static str) {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift);
    unit.map_or((bytes, "B"), |(shift, unit)| (bytes >> shift, unit))
}
