//! The results as Markdown: one table for each part, each with its targets.

use std::fmt::Write as _;

use serde_json::Value;

/// The whole report.
pub(super) fn report(results: &Value) -> String {
    let mut out = String::new();
    for part in [machine, summary, latency, throughput, start, rest] {
        // A part that was not measured is left out.
        if let Some(text) = part(results) {
            let _ = writeln!(out, "{text}");
        }
    }
    out.trim_end().to_owned() + "\n"
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// A field in microseconds, as milliseconds.
fn ms(times: &Value, field: &str) -> Option<f64> {
    number(&times[field]).map(|us| us / 1_000.0)
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(one? / other.filter(|other| *other > 0.0)?)
}

fn machine(results: &Value) -> Option<String> {
    let (machine, load) = (&results["machine"], &results["load"]);
    let warning = match results["profile"].as_str()? {
        "release" => "",
        _ => "**Not release programs: this shows that the bench works, not what relay costs.**\n\n",
    };
    Some(format!(
        "{warning}{}, commit {}, {} programs, `{}` form. {}, {} cores, {} of memory, Linux {}; load average {:.1} before, {:.1} after.\n",
        results["date"].as_str()?,
        results["commit"].as_str()?,
        results["profile"].as_str()?,
        results["form"].as_str()?,
        machine["cpu"].as_str()?,
        machine["cores"],
        machine["memory"].as_str()?,
        machine["kernel"].as_str()?,
        number(&load["before"])?,
        number(&load["after"])?,
    ))
}

/// A requirement, the measured value, and whether it is met.
struct Demand {
    what: String,
    wanted: &'static str,
    got: String,
    met: bool,
}

fn summary(results: &Value) -> Option<String> {
    let mut out = String::from("| what | to reach | measured | |\n|---|---|---|---|\n");
    for demand in demands(results) {
        let met = if demand.met { "reached" } else { "**missed**" };
        let _ = writeln!(out, "| {} | {} | {} | {met} |", demand.what, demand.wanted, demand.got);
    }
    Some(out)
}

fn demands(results: &Value) -> Vec<Demand> {
    let mut demands = Vec::new();
    demanded_of_latency(results, &mut demands);
    demanded_of_throughput(results, &mut demands);
    demanded_of_the_rest(results, &mut demands);
    demands
}

fn demanded_of_latency(results: &Value, demands: &mut Vec<Demand>) {
    for row in results["latency"]["rows"].as_array().into_iter().flatten() {
        let of = |who: &str, field: &str| ms(&row[who], field);
        let ratios = ["p50_us", "p99_us"].map(|field| ratio(of("relay", field), of("bare", field)));
        let ([Some(p50), Some(p99)], Some(median)) = (ratios, of("relay", "p50_us")) else { continue };
        demands.push(Demand {
            what: format!("line written → printed, {}", rate(row)),
            wanted: "≤ 2 × bare SQS, p50 and p99; p50 ≤ 30 ms",
            got: format!("{p50:.1} ×, {p99:.1} ×; {median:.1} ms"),
            met: p50 <= 2.0 && p99 <= 2.0 && median <= 30.0,
        });
    }
}

fn demanded_of_throughput(results: &Value, demands: &mut Vec<Demand>) {
    for row in results["throughput"].as_array().into_iter().flatten() {
        let (Some(relay), Some(share)) =
            (number(&row["relay_mb_s"]), ratio(number(&row["relay_mb_s"]), number(&row["bare_mb_s"])))
        else {
            continue;
        };
        demands.push(Demand {
            what: format!("{}, byte-exact", size(row)),
            wanted: "≥ 100 MB/s, or ≥ 0.5 × bare SQS",
            got: format!("{relay:.0} MB/s, {share:.2} ×"),
            met: relay >= 100.0 || share >= 0.5,
        });
        for (who, name, limit, wanted) in
            [("runner", "runner", 48.0, "≤ 48 MiB, flat"), ("cli", "CLI", 64.0, "≤ 64 MiB, flat")]
        {
            let memory = &row["memory"][who];
            let (Some(peak), Some(growth)) = (number(&memory["peak_mib"]), number(&memory["growth_mib"])) else {
                continue;
            };
            demands.push(Demand {
                what: format!("memory of the {name}, {}", size(row)),
                wanted,
                got: format!("{peak:.1} MiB, {growth:+.1} MiB from the second quarter to the last"),
                met: peak <= limit && growth <= peak / 10.0,
            });
        }
    }
}

fn demanded_of_the_rest(results: &Value, demands: &mut Vec<Demand>) {
    for (part, what, wanted, limit) in [
        ("cli", "CLI: start → published", "≤ 50 ms beyond AWS", 50.0),
        ("launcher_cold", "launcher: process start → RunTask", "≤ 50 ms beyond AWS", 50.0),
        ("launcher_warm", "launcher: event → RunTask", "≤ 5 ms beyond AWS", 5.0),
    ] {
        let Some(median) = ms(&results["start"][part]["beyond_aws"], "p50_us") else { continue };
        demands.push(Demand {
            what: what.to_owned(),
            wanted,
            got: format!("{median:.1} ms (p50)"),
            met: median <= limit,
        });
    }
    let requests = &results["latency"]["requests"];
    if let (Some(sends), Some(dollars)) = (number(&requests["sends_per_line"]), number(&requests["dollars"])) {
        demands.push(Demand {
            what: "ten minutes, a line a second".to_owned(),
            wanted: "≤ 1 send a line (without heartbeats), ≤ $0.001",
            got: format!("{sends:.2} sends a line, ${dollars:.5}"),
            // A heartbeat every 15 seconds is a send as well.
            met: sends <= 1.0 + 1.0 / 15.0 + 0.02 && dollars <= 0.001,
        });
    }
    for (name, what, wanted, limit) in
        [("relay", "`relay`", "≤ 16 MB", 16e6), ("relay-launcher.zip", "launcher's zip", "≤ 6 MB", 6e6)]
    {
        let Some(bytes) = number(&results["sizes"][name]) else { continue };
        let what = format!("size of {what}");
        demands.push(Demand { what, wanted, got: format!("{:.2} MB", bytes / 1e6), met: bytes <= limit });
    }
    let many = &results["many"];
    if let Some(seconds) = number(&many["seconds"]) {
        demands.push(Demand {
            what: "many at once".to_owned(),
            wanted: "64 live, 1,000 in all, all correct, no output mixed up",
            got: format!(
                "{} live, {} in all, {} correct, {seconds:.0} s",
                many["live"], many["deployments"], many["right"]
            ),
            // The run fails if a deployment is wrong, and smaller forms run fewer deployments.
            met: many["right"] == many["deployments"],
        });
    }
}

fn rate(row: &Value) -> String {
    let far = if row["far"] == true { ", SQS 5–15 ms away" } else { "" };
    format!("{} lines/s{far}", thousands(&row["per_second"]))
}

fn thousands(value: &Value) -> String {
    match value.as_u64() {
        Some(n) if n >= 1_000 => format!("{},{:03}", n / 1_000, n % 1_000),
        _ => value.to_string(),
    }
}

fn size(row: &Value) -> String {
    let mib = row["bytes"].as_u64().unwrap_or_default() >> 20;
    let what = if row["what"] == "text" { "log-like text" } else { "random bytes" };
    if mib.is_multiple_of(1_024) { format!("{} GiB of {what}", mib >> 10) } else { format!("{mib} MiB of {what}") }
}

fn latency(results: &Value) -> Option<String> {
    let rows = results["latency"]["rows"].as_array()?;
    let mut out = String::from(
        "From the tool's write of a line to its print, in milliseconds, p50 / p99:\n\n\
         | lines/s | lines | relay | bare SQS | pipe | relay : bare |\n|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let of = |who: &str| -> Option<String> {
            Some(format!("{:.2} / {:.2}", ms(&row[who], "p50_us")?, ms(&row[who], "p99_us")?))
        };
        let compared = ["p50_us", "p99_us"].map(|field| ratio(ms(&row["relay"], field), ms(&row["bare"], field)));
        let [Some(p50), Some(p99)] = compared else { continue };
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {p50:.1} / {p99:.1} |",
            rate(row).replace(" lines/s", ""),
            row["relay"]["samples"],
            of("relay")?,
            of("bare")?,
            of("pipe")?,
        );
    }
    Some(out)
}

fn throughput(results: &Value) -> Option<String> {
    let rows = results["throughput"].as_array()?;
    let mut out = String::from(
        "Sustained output, median of the rounds, in MB of output a second:\n\n\
         | output | rounds | relay | bare SQS | pipe | frames | on the wire | runner | CLI \
         | processor time: runner + CLI, bare |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let of = |field: &str| number(&row[field]);
        let memory = |who: &str| number(&row["memory"][who]["peak_mib"]);
        let _ = writeln!(
            out,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {} | {:.0} MB | {:.1} MiB | {:.1} MiB | {:.1} s + {:.1} s, {:.1} s |",
            size(row),
            row["rounds"],
            of("relay_mb_s")?,
            of("bare_mb_s")?,
            of("pipe_mb_s")?,
            row["wire"]["frames"],
            number(&row["wire"]["bytes"])? / 1e6,
            memory("runner")?,
            memory("cli")?,
            number(&row["memory"]["runner"]["cpu_seconds"])?,
            number(&row["memory"]["cli"]["cpu_seconds"])?,
            number(&row["bare_cpu_seconds"])?,
        );
    }
    Some(out)
}

fn start(results: &Value) -> Option<String> {
    let parts = &results["start"];
    let mut out = String::from(
        "Starts, in milliseconds, p50 / p99; beyond AWS leaves out the time that the sandbox took to answer:\n\n\
         | what | samples | all | beyond AWS |\n|---|---|---|---|\n",
    );
    for (part, total, what) in [
        ("cli", "to_publish", "`relay deploy`: process start → published"),
        ("launcher_cold", "to_run_task", "launcher: process start → RunTask, the event waiting"),
        ("launcher_warm", "to_run_task", "launcher: event → RunTask"),
    ] {
        let times = &parts[part];
        let of = |times: &Value| Some(format!("{:.1} / {:.1}", ms(times, "p50_us")?, ms(times, "p99_us")?));
        let _ = writeln!(
            out,
            "| {what} | {} | {} | {} |",
            times[total]["samples"],
            of(&times[total])?,
            of(&times["beyond_aws"])?
        );
    }
    Some(out)
}

fn rest(results: &Value) -> Option<String> {
    let requests = &results["latency"]["requests"];
    let mut out = format!(
        "SQS requests of a deployment that prints a line a second for ten minutes, computed from \
         {} s: {} in all, ${:.5} at ${} a million.\n\n\
         | request | in ten minutes |\n|---|---|\n",
        requests["measured_seconds"],
        number(&requests["ten_minutes"])?,
        number(&requests["dollars"])?,
        requests["dollars_per_million"],
    );
    for (operation, row) in requests["operations"].as_object()? {
        let _ = writeln!(out, "| {operation} | {} |", number(&row["ten_minutes"])?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_demand_that_is_missed_is_said_to_be() {
        let times = |us: u64| json!({ "samples": 10, "p50_us": us, "p99_us": us });
        let row = |relay: u64| json!({ "per_second": 10_000, "far": false, "relay": times(relay), "bare": times(1_000), "pipe": times(1) });
        let results = json!({ "latency": { "rows": [row(2_000), row(2_100)] } });
        let text = report(&results);
        let said: Vec<bool> =
            text.lines().filter(|line| line.contains("10,000 lines/s")).map(|line| line.contains("missed")).collect();
        assert_eq!(said, [false, true], "{text}");
        assert!(text.contains("| 10,000 | 10 | 2.10 / 2.10 | 1.00 / 1.00 | 0.00 / 0.00 | 2.1 / 2.1 |"), "{text}");
    }
}
