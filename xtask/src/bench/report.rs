//! The results as Markdown: one table for each part. `demands` compares them with what is to be
//! reached, `quotas` with AWS's limits.

mod demands;
mod quotas;

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{binary, ms, number, rate, ratio, size};

/// The whole report.
pub(super) fn report(results: &Value) -> String {
    let mut out = String::new();
    for part in [
        machine,
        demands::summary,
        path,
        latency,
        throughput,
        start,
        growth,
        quotas::on_paper,
        quotas::on_the_sandbox,
        rest,
    ] {
        // A part that was not measured is left out.
        if let Some(text) = part(results) {
            let _ = writeln!(out, "{text}");
        }
    }
    out.trim_end().to_owned() + "\n"
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

/// The output path without AWS.
fn path(results: &Value) -> Option<String> {
    let part = &results["path"];
    let mut out = String::from(
        "relay's own output path in one process, on one core, without AWS: allocated bytes for a byte of output, and \
         seconds of processor time for a GiB. The floor is what the protocol itself asks for, computed with the same \
         libraries on the same frames: SHA-256 of the output on both sides, SHA-512 of the frames (twice to sign, once \
         to verify), zstd and base64 there and back.\n\n\
         | output | allocated, writing | allocated, reading | writing | reading | floor | path : floor |\n|---|---|---|---|---|---|---|\n",
    );
    let per_gib = |half: &Value| Some(f64::from(1 << 30) / 1e6 / number(&half["mb_s"])?);
    for row in part["halves"].as_array()? {
        let (writing, reading, floor) =
            (per_gib(&row["writing"])?, per_gib(&row["reading"])?, number(&row["floor_s_gib"])?);
        let _ = writeln!(
            out,
            "| {} | {:.1} | {:.1} | {writing:.1} s | {reading:.1} s | {floor:.1} s | {:.2} |",
            size(row),
            number(&row["writing"]["allocated_per_byte"])?,
            number(&row["reading"]["allocated_per_byte"])?,
            (writing + reading) / floor,
        );
    }
    let masker = &part["masker"];
    let _ = writeln!(
        out,
        "\nThe masker alone: without secrets it allocates {:.1} bytes for a byte and passes on what came; with {} secrets, \
         {:.1} bytes and {:.0} MB/s.",
        number(&masker["without"]["allocated_per_byte"])?,
        masker["secrets"],
        number(&masker["with"]["allocated_per_byte"])?,
        number(&masker["with"]["mb_s"])?,
    );
    Some(out)
}

fn growth(results: &Value) -> Option<String> {
    let part = &results["growth"];
    let mut out = String::from(
        "Growth. All deployments of a row are alive at the same time; each is checked for its own output and exit code. \
         Memory is what the whole machine had less of, with all CLIs, runners, tools and the sandbox.\n\n\
         | deployments at a time | targets | all alive after | all ended after | memory | AWS requests each |\n|---|---|---|---|---|---|\n",
    );
    for row in part["deployments"].as_array()?.iter().chain(part["targets"].as_array()?) {
        let _ = writeln!(
            out,
            "| {} | {} | {:.1} s | {:.1} s | {} MiB | {:.0} |",
            row["live"],
            row["targets"],
            number(&row["all_live_after"])?,
            number(&row["seconds"])?,
            row["memory_mib"],
            number(&row["requests"])? / number(&row["live"])?,
        );
    }
    out += "\n| output of one deployment | from start to end | AWS requests | runner | CLI |\n|---|---|---|---|---|\n";
    for row in part["output"].as_array()? {
        let (bytes, unit) = binary(row["bytes"].as_u64()?);
        let _ = writeln!(
            out,
            "| {bytes} {unit} | {:.2} s | {} | {:.1} MiB | {:.1} MiB |",
            number(&row["seconds"])?,
            row["requests"],
            number(&row["runner_mib"])?,
            number(&row["cli_mib"])?,
        );
    }
    Some(out)
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
        ("cli_tls", "to_publish", "`relay deploy`, over TLS"),
        ("launcher_cold_tls", "to_run_task", "launcher: process start → RunTask, over TLS"),
        ("launcher_warm_tls", "to_run_task", "launcher: event → RunTask, over TLS"),
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
        let results = json!({ "latency": { "rows": [row(1_400), row(2_100)] } });
        let text = report(&results);
        let said: Vec<bool> =
            text.lines().filter(|line| line.contains("10,000 lines/s")).map(|line| line.contains("missed")).collect();
        assert_eq!(said, [false, true], "{text}");
        assert!(text.contains("| 10,000 | 10 | 2.10 / 2.10 | 1.00 / 1.00 | 0.00 / 0.00 | 2.1 / 2.1 |"), "{text}");
    }
}
