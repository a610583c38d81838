//! `soak`: what takes too long for each merge. Bounded, and stops by itself; each part leaves what it saw in `target/soak`. The parts with
//! real processes are in `tests/src/bin/soak`.

use std::io::{self, Write as _};
use std::process::Command;
use std::time::Instant;

use serde_json::json;

use crate::{Outcome, ci, tree};

/// Where the reports go.
const FOLDER: &str = "target/soak";

/// Seeds of each simulation.
const SEEDS: f64 = 100_000.0;

const PARTS: [&str; 4] = ["simulation", "deployments", "gigabyte", "long"];

/// What is run, and how much of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    parts: Vec<&'static str>,
    scale: f64,
}

impl Options {
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self, Box<dyn std::error::Error>> {
        let mut options = Self { parts: Vec::new(), scale: 1.0 };
        for pair in arguments.chunks(2) {
            match *pair {
                ["--part", part] => {
                    let known = PARTS.into_iter().find(|known| *known == part);
                    options.parts.push(known.ok_or_else(|| format!("--part is one of {}", PARTS.join(", ")))?);
                }
                ["--scale", scale] => {
                    let scale = scale.parse().ok().filter(|scale| *scale > 0.0 && *scale <= 1.0);
                    options.scale = scale.ok_or("--scale is above 0 and at most 1")?;
                }
                _ => return Err("usage: cargo xtask soak [--part PART]… [--scale S]".into()),
            }
        }
        if options.parts.is_empty() {
            options.parts = PARTS.to_vec();
        }
        Ok(options)
    }
}

/// Runs the parts, all of them even when one fails.
pub(crate) fn run(options: &Options) -> Outcome {
    ci::cargo(&["build", "--quiet", "--workspace", "--bins"])?;
    let mut failed = Vec::new();
    for part in &options.parts {
        let outcome = match *part {
            "simulation" => simulate(options.scale),
            part => {
                let program = std::env::current_exe()?.with_file_name("soak");
                ci::succeed(Command::new(program).args([part, &options.scale.to_string(), FOLDER]))
            }
        };
        if let Err(error) = outcome {
            writeln!(io::stdout(), "soak {part}: {error}")?;
            failed.push(*part);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("soak: {} failed", failed.join(", ")).into()) }
}

/// Writer and reader byte for byte, and the whole protocol on walks through its model; what fails prints the line that replays its seed.
fn simulate(scale: f64) -> Outcome {
    let seeds = (SEEDS * scale).ceil().to_string();
    let began = Instant::now();
    for (file, test) in [("simulation", "schedules"), ("walks", "no_rule")] {
        let arguments = ["test", "--workspace", "--test", file, test, "--", "--nocapture"];
        ci::succeed(Command::new("cargo").args(arguments).env("RELAY_SEEDS", &seeds))?;
    }
    let seconds = began.elapsed().as_secs();
    writeln!(
        io::stdout(),
        "soak simulation (scale {scale})\n  {:<44} {seeds}\n  {:<44} {seconds}",
        "seeds of each",
        "seconds"
    )?;
    let folder = tree::root().join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let report = json!({ "part": "simulation", "scale": scale, "facts": { "seeds of each": seeds, "seconds": seconds }, "wrong": [] });
    std::fs::write(folder.join("simulation.json"), format!("{report:#}\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_may_be_chosen() {
        let all = Options { parts: PARTS.to_vec(), scale: 1.0 };
        assert_eq!(Options::parse(&[]).unwrap(), all);
        let some = Options { parts: vec!["long", "gigabyte"], scale: 0.1 };
        assert_eq!(Options::parse(&["--part", "long", "--scale", "0.1", "--part", "gigabyte"]).unwrap(), some);
        for wrong in [["--part", "short"].as_slice(), &["--scale", "2"], &["--scale"], &["long"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
