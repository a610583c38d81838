//! `soak`: runs that take too long for each merge. They are bounded and stop by themselves. Each
//! part writes what it saw to `soak` in the target folder. The parts with real processes are in
//! `tests/src/soak`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use clap::ValueEnum as _;
use serde_json::json;

use crate::Outcome;
use crate::run::{cargo, cargo_command, succeed};
use crate::tree::{programs, target};

/// The number of seeds of each simulation.
const SEEDS: f64 = 100_000.0;

/// A part of the soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Simulation,
    Deployments,
    Gigabyte,
    Long,
}

/// The parts to run, and their scale.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these parts; may be given more than once.
    #[arg(long = "part", value_enum)]
    parts: Vec<Part>,
    /// The size of each part: above 0, at most 1.
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    scale: f64,
}

fn scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| *scale > 0.0 && *scale <= 1.0);
    scale.ok_or_else(|| "above 0 and at most 1".to_owned())
}

/// Runs all parts, even if one fails.
pub(crate) fn run(options: &Options) -> Outcome {
    cargo(&["build", "--workspace", "--bins"])?;
    let folder = target()?.join("soak");
    let parts = if options.parts.is_empty() { Part::value_variants() } else { &options.parts };
    let mut failed = Vec::new();
    for part in parts {
        let name = part.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let outcome = match part {
            Part::Simulation => simulate(options.scale, &folder),
            _ => {
                let program = programs()?.join("soak");
                succeed(Command::new(program).args([&name, &options.scale.to_string()]).arg(&folder))
            }
        };
        if let Err(error) = outcome {
            writeln!(io::stdout(), "soak {name}: {error}")?;
            failed.push(name);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("soak: {} failed", failed.join(", ")).into()) }
}

/// Simulates writer and reader byte for byte, and the whole protocol on walks through its model. A
/// failure prints the line that replays its seed.
fn simulate(scale: f64, folder: &Path) -> Outcome {
    let seeds = (SEEDS * scale).ceil().to_string();
    let began = Instant::now();
    for (file, test) in [("simulation", "schedules"), ("walks", "no_rule")] {
        let arguments = ["test", "--workspace", "--test", file, test, "--", "--nocapture"];
        succeed(cargo_command().args(arguments).env("RELAY_SEEDS", &seeds))?;
    }
    let seconds = began.elapsed().as_secs();
    writeln!(
        io::stdout(),
        "soak simulation (scale {scale})\n  {:<44} {seeds}\n  {:<44} {seconds}",
        "seeds of each",
        "seconds"
    )?;
    std::fs::create_dir_all(folder)?;
    let report = json!({ "part": "simulation", "scale": scale, "facts": { "seeds of each": seeds, "seconds": seconds }, "wrong": [] });
    std::fs::write(folder.join("simulation.json"), format!("{report:#}\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::scale;

    #[test]
    fn a_scale_is_a_share() {
        assert_eq!(scale("0.1"), Ok(0.1));
        for wrong in ["0", "2", "-1", "all", "NaN"] {
            assert!(scale(wrong).is_err(), "{wrong}");
        }
    }
}
