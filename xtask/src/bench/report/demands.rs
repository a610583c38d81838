//! The targets: for each, its limit, the measured value, and whether the limit is kept.

use std::fmt::Write as _;

use serde_json::Value;

use crate::bench::figures::{ms, number, rate, ratio, size};

/// A requirement, the measured value, and whether it is met.
struct Demand {
    what: String,
    wanted: String,
    got: String,
    met: bool,
}

/// All requirements as a table.
pub(super) fn summary(results: &Value) -> Option<String> {
    let mut out = String::from("| what | to reach | measured | |\n|---|---|---|---|\n");
    for demand in [latency, throughput, masking, starts, rest].into_iter().flat_map(|part| part(results)) {
        let met = if demand.met { "reached" } else { "**missed**" };
        let _ = writeln!(out, "| {} | {} | {} | {met} |", demand.what, demand.wanted, demand.got);
    }
    Some(out)
}

fn latency(results: &Value) -> Vec<Demand> {
    let rows = results["latency"]["rows"].as_array().into_iter().flatten();
    let demand = |row: &Value| {
        let of = |who: &str, field: &str| ms(&row[who], field);
        let compared = |field: &str| ratio(of("relay", field), of("bare", field));
        let (p50, p99, median) = (compared("p50_us")?, compared("p99_us")?, of("relay", "p50_us")?);
        let limit = if row["far"] == true { 1.1 } else { 1.5 };
        Some(Demand {
            what: format!("line written → printed, {}", rate(row)),
            wanted: format!("≤ {limit} × bare SQS, p50 and p99"),
            got: format!("{p50:.2} ×, {p99:.2} ×; {median:.1} ms"),
            met: p50 <= limit && p99 <= limit,
        })
    };
    rows.filter_map(demand).collect()
}

/// Throughput, processor time and memory. A row with secrets has its own demand.
fn throughput(results: &Value) -> Vec<Demand> {
    let mut demands = Vec::new();
    let rows = results["throughput"].as_array().into_iter().flatten();
    for row in rows.filter(|row| row["secrets"].as_u64().unwrap_or_default() == 0) {
        let Some(relay) = number(&row["relay_mb_s"]) else { continue };
        let limit = if row["what"] == "text" { 200.0 } else { 100.0 };
        demands.push(Demand {
            what: format!("{}, byte-exact", size(row)),
            wanted: format!("≥ {limit:.0} MB/s"),
            got: format!(
                "{relay:.0} MB/s, {:.2} × bare SQS",
                ratio(Some(relay), number(&row["bare_mb_s"])).unwrap_or_default()
            ),
            met: relay >= limit,
        });
        let processor = |who: &str| number(&row["memory"][who]["cpu_seconds"]);
        let gib = number(&row["bytes"]).map(|bytes| bytes / f64::from(1 << 30));
        if let (Some(runner), Some(cli), Some(gib)) = (processor("runner"), processor("cli"), gib)
            && row["what"] == "text"
        {
            let total = (runner + cli) / gib;
            demands.push(Demand {
                what: "processor time of runner and CLI, a GiB of text".to_owned(),
                wanted: "≤ 7 s".to_owned(),
                got: format!("{:.1} s + {:.1} s", runner / gib, cli / gib),
                met: total <= 7.0,
            });
        }
        for (who, name, limit) in [("runner", "runner", 48.0), ("cli", "CLI", 32.0)] {
            let memory = &row["memory"][who];
            let (Some(peak), Some(growth)) = (number(&memory["peak_mib"]), number(&memory["growth_mib"])) else {
                continue;
            };
            demands.push(Demand {
                what: format!("memory of the {name}, {}", size(row)),
                wanted: format!("≤ {limit:.0} MiB, flat"),
                got: format!("{peak:.1} MiB, {growth:+.1} MiB from the second quarter to the last"),
                met: peak <= limit && growth <= peak / 10.0,
            });
        }
    }
    demands
}

fn masking(results: &Value) -> Vec<Demand> {
    let rows = results["throughput"].as_array().map(Vec::as_slice).unwrap_or_default();
    let speed = |secrets: bool| {
        let row = rows.iter().find(|row| row["what"] == "text" && (row["secrets"].as_u64() > Some(0)) == secrets)?;
        number(&row["relay_mb_s"])
    };
    let Some(share) = ratio(speed(true), speed(false)) else { return Vec::new() };
    vec![Demand {
        what: "100 secrets masked, text".to_owned(),
        wanted: "≥ 0.5 × the speed without".to_owned(),
        got: format!("{share:.2} ×"),
        met: share >= 0.5,
    }]
}

fn starts(results: &Value) -> Vec<Demand> {
    let parts = [
        ("cli", "CLI: start → published", 8.0),
        ("launcher_cold", "launcher: process start → RunTask", 15.0),
        ("launcher_warm", "launcher: event → RunTask", 3.0),
    ];
    let demand = |(part, what, limit): (&str, &str, f64)| {
        let median = ms(&results["start"][part]["beyond_aws"], "p50_us")?;
        Some(Demand {
            what: what.to_owned(),
            wanted: format!("≤ {limit:.0} ms beyond AWS"),
            got: format!("{median:.1} ms (p50)"),
            met: median <= limit,
        })
    };
    parts.into_iter().filter_map(demand).collect()
}

/// Requests, sizes, and many deployments at once.
fn rest(results: &Value) -> Vec<Demand> {
    let mut demands = Vec::new();
    let requests = &results["latency"]["requests"];
    if let (Some(sends), Some(dollars)) = (number(&requests["sends_per_line"]), number(&requests["dollars"])) {
        demands.push(Demand {
            what: "ten minutes, a line a second".to_owned(),
            wanted: "≤ 1 send a line (without heartbeats), ≤ $0.001".to_owned(),
            got: format!("{sends:.2} sends a line, ${dollars:.5}"),
            // A heartbeat every 15 seconds is a send as well.
            met: sends <= 1.0 + 1.0 / 15.0 + 0.02 && dollars <= 0.001,
        });
    }
    for (name, what, limit) in [("relay", "`relay`", 8e6), ("relay-launcher.zip", "launcher's zip", 6e6)] {
        let Some(bytes) = number(&results["sizes"][name]) else { continue };
        demands.push(Demand {
            what: format!("size of {what}"),
            wanted: format!("≤ {:.0} MB", limit / 1e6),
            got: format!("{:.2} MB", bytes / 1e6),
            met: bytes <= limit,
        });
    }
    if let Some(row) = results["growth"]["deployments"].as_array().and_then(|rows| rows.last()) {
        demands.push(Demand {
            what: "many deployments at once".to_owned(),
            wanted: "each with its own output and exit code".to_owned(),
            // The bench fails if one is wrong.
            got: format!(
                "{} alive at the same time, {:.0} s",
                row["live"],
                number(&row["seconds"]).unwrap_or_default()
            ),
            met: true,
        });
    }
    demands
}
