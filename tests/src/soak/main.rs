//! Long runs of the whole system on the sandbox: many deployments with faults, one with much
//! output, and one that runs for a long time. Each part stops by itself, prints a short table of
//! what it saw, and writes the same as JSON. `cargo xtask soak` builds the programs and starts it.
//! `soak PART SCALE FOLDER`: SCALE is 1 for the sizes in `docs/reliability.md`, and less for a
//! trial run. The JSON file is FOLDER/PART.json.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it finds")]
#![allow(clippy::expect_used, clippy::panic, reason = "it is a test")]

mod deployments;
mod memory;
mod report;
mod streams;

use std::path::Path;
use std::process::ExitCode;

use report::Report;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [part, scale, folder] = arguments.as_slice() else { return usage() };
    let Some(scale) = scale.parse::<f64>().ok().filter(|scale| *scale > 0.0 && *scale <= 1.0) else { return usage() };
    let mut report = Report::new(part, scale);
    match *part {
        "deployments" => deployments::run(&mut report, scale),
        "gigabyte" => streams::gigabyte(&mut report, scale),
        "long" => streams::long(&mut report, scale),
        _ => return usage(),
    }
    match report.end(Path::new(folder)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: soak deployments|gigabyte|long SCALE FOLDER, with a SCALE above 0 and at most 1");
    ExitCode::FAILURE
}
