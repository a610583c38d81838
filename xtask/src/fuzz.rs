//! `fuzz`: runs every target of `fuzz/` in turn, in one process, for its share of the time, and
//! prints a table. It installs nothing. New inputs go into `fuzz/corpus` of the target folder,
//! findings into `fuzz/artifacts`. Those worth keeping are moved by hand to `fuzz/corpus` (by
//! `cargo fuzz cmin`) and `fuzz/regressions` (named for what they show).

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::run::{answers, cargo_command};

/// The default of the minutes for all targets together.
const MINUTES: u64 = 120;

/// The toolchain for the targets, as coverage counters are not stable yet.
const TOOLCHAIN: &str = "nightly";

/// The largest input, in bytes. The corpus keeps nothing larger.
const LENGTH_MAX: &str = "-max_len=4096";

struct Row {
    target: String,
    cpu_seconds: f64,
    executions: u64,
    corpus: usize,
    findings: usize,
}

/// The run time and the compiler.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Minutes for all targets together.
    #[arg(long, default_value_t = MINUTES)]
    minutes: u64,
    /// A toolchain that supports coverage counters.
    #[arg(long, default_value = TOOLCHAIN)]
    toolchain: String,
}

/// Runs every target for its share of the time.
pub(crate) fn run(options: &Options) -> Outcome {
    let minutes = options.minutes;
    let root = crate::tree::root();
    let toolchain = format!("+{}", options.toolchain);
    if let Some(missing) = missing(&toolchain) {
        return Err(missing.into());
    }
    let built = cargo_fuzz(&toolchain, "build").status()?;
    if !built.success() {
        return Err(format!("cargo fuzz build: {built}").into());
    }
    let targets = folders(&root.join("fuzz/corpus"))?;
    // Zero would mean no limit to libFuzzer.
    let seconds = (minutes * 60 / (targets.len() as u64).max(1)).max(1);
    let mut rows = Vec::new();
    for target in targets {
        writeln!(io::stdout(), "==> {target}, {seconds} s")?;
        rows.push(one(&root, target, seconds)?);
    }
    writeln!(io::stdout(), "{}", table(&rows))?;
    let findings: usize = rows.iter().map(|row| row.findings).sum();
    if findings == 0 { Ok(()) } else { Err(format!("{findings} findings: see fuzz/artifacts").into()) }
}

/// What is not installed, and how to install it.
fn missing(toolchain: &str) -> Option<String> {
    if !answers("cargo", &[toolchain, "--version"]) {
        return Some(format!(
            "the toolchain {} is not installed: rustup toolchain install nightly",
            toolchain.trim_start_matches('+')
        ));
    }
    (!answers("cargo", &[toolchain, "fuzz", "--version"]))
        .then(|| "cargo-fuzz is not installed: cargo install cargo-fuzz".to_owned())
}

/// No memory sanitizer: relay's code is safe Rust, and the rest (zstd) is built by a C compiler
/// that the sanitizers do not instrument.
fn cargo_fuzz(toolchain: &str, what: &str) -> Command {
    let mut command = cargo_command();
    command.args([toolchain, "fuzz", what, "--sanitizer", "none", "--fuzz-dir", "fuzz"]);
    // The toolchain that runs this command must not influence the other one.
    command.current_dir(crate::tree::root()).env_remove("RUSTUP_TOOLCHAIN").env("CARGO_TARGET_DIR", "fuzz/target");
    command
}

/// Runs the target's program for `seconds`, at the lowest priority.
fn one(root: &Path, target: String, seconds: u64) -> Result<Row, Box<dyn std::error::Error>> {
    let fresh = crate::tree::target()?.join("fuzz/corpus").join(&target);
    let artifacts = root.join("fuzz/artifacts").join(&target);
    fs::create_dir_all(&fresh)?;
    fs::create_dir_all(&artifacts)?;
    let before = cpu_seconds_of_children()?;
    let folders = ["fuzz/corpus", "fuzz/regressions"].map(|kept| root.join(kept).join(&target));
    let program =
        root.join("fuzz/target").join(format!("{}-unknown-linux-gnu", std::env::consts::ARCH)).join("release");
    let output = Command::new("nice")
        .args(["-n", "19"])
        .arg(program.join(&target))
        // This timeout counts elapsed time. It is long, as a machine that pauses the program must
        // not cause a finding.
        .args([LENGTH_MAX, "-timeout=300", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&fresh)
        .args(folders.iter().filter(|folder| folder.is_dir()))
        .stdout(Stdio::inherit())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        // The last lines from libFuzzer contain the assertion and the name of the input.
        let lines: Vec<&str> = said.lines().collect();
        writeln!(io::stderr(), "{}", lines[lines.len().saturating_sub(40)..].join("\n"))?;
    }
    Ok(Row {
        cpu_seconds: cpu_seconds_of_children()? - before,
        executions: executions(&said),
        corpus: files(&fresh)?.len() + files(&folders[0])?.len(),
        findings: files(&artifacts)?.len(),
        target,
    })
}

fn executions(said: &str) -> u64 {
    let line = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

/// The CPU time that the children have used so far, in seconds, as the kernel counts it. On a busy
/// machine it is less than the elapsed time.
fn cpu_seconds_of_children() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Fields 14 and 15 after the name, which may contain anything, are the user and system time of
    // children that were waited for, in hundredths of a second (proc(5)).
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(f64::from(ticks) / 100.0)
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn folders(folder: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The table in Markdown, as in `docs/reliability.md`.
fn table(rows: &[Row]) -> String {
    let mut out = "| target | CPU minutes | executions | corpus | findings |\n|---|---|---|---|---|\n".to_owned();
    let (mut minutes, mut executions) = (0.0, 0);
    for row in rows {
        minutes += row.cpu_seconds / 60.0;
        executions += row.executions;
        let (cpu, target) = (row.cpu_seconds / 60.0, &row.target);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "| {target} | {cpu:.1} | {} | {} | {} |", row.executions, row.corpus, row.findings);
    }
    let _ = writeln!(out, "| all | {minutes:.1} | {executions} | | |");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_becomes_a_table() {
        let said = "Done 5 runs\nstat::number_of_executed_units: 1234\nstat::average_exec_per_sec:     5\n";
        assert_eq!(executions(said), 1_234);
        let row = Row { target: "frame".to_owned(), cpu_seconds: 90.0, executions: 1_234, corpus: 7, findings: 0 };
        assert!(table(&[row]).contains("| frame | 1.5 | 1234 | 7 | 0 |\n| all | 1.5 | 1234 | | |"));
        assert!(cpu_seconds_of_children().unwrap() >= 0.0);
    }
}
