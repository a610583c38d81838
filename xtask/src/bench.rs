//! `bench`: what relay costs, compared with bare SQS calls and a pipe. `tests/src/bench` measures
//! release programs. This module turns the results into a table, a plot and docs/performance.md, so
//! that no figure is typed by hand.

mod figures;
mod plot;
mod report;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use zip::CompressionMethod;

use crate::run::{cargo, host, succeed};
use crate::tree::{root, target};
use crate::{Outcome, package};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DOCUMENT: &str = "docs/performance.md";
const PLOT: &str = "docs/performance.svg";

/// The marks around the part of the document that is made from results.
const MARKS: [&str; 2] = ["<!-- results: made by cargo xtask bench --write-docs -->", "<!-- end of results -->"];

/// How to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Measure for a minute and a half: does it work, and is any figure far off?
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Measure everything, without a limit on the time.
    #[arg(long)]
    full: bool,
    /// Use the results in this file instead of measuring.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Write docs/performance.md and its plot.
    #[arg(long)]
    write_docs: bool,
}

impl Options {
    fn form(&self) -> &'static str {
        match (self.quick, self.full) {
            (true, _) => "quick",
            (_, true) => "full",
            _ => "default",
        }
    }
}

/// Measures, or reads earlier results, and prints the report.
pub(crate) fn run(options: &Options) -> Outcome {
    let mut results: Value = match &options.from {
        Some(file) => serde_json::from_str(&fs::read_to_string(file)?)?,
        None => measure(options.form())?,
    };
    // A file that `bench measure` left when one of its parts failed.
    if results.get("sizes").is_none() {
        results["sizes"] = sizes(&release()?)?;
    }
    writeln!(io::stdout(), "\n{}", report::report(&results))?;
    if options.write_docs {
        let document = root().join(DOCUMENT);
        fs::write(&document, filled(&fs::read_to_string(&document)?, &report::report(&results))?)?;
        fs::write(root().join(PLOT), plot::plot(&results))?;
        writeln!(io::stdout(), "written: {DOCUMENT}, {PLOT}")?;
    }
    Ok(())
}

fn measure(form: &str) -> Result<Value> {
    // Build with the whole workspace. A single package would resolve other features and rebuild
    // every dependency.
    let mut build = vec!["build", "--release", "--workspace"];
    build.extend(
        ["bench", "bootstrap", "relay", "relay-runner", "relay-sandbox"].into_iter().flat_map(|name| ["--bin", name]),
    );
    cargo(&build)?;
    let release = release()?;
    let folder = target()?.join("bench");
    fs::create_dir_all(&folder)?;
    let fresh = folder.join("unfinished.json");
    succeed(Command::new(release.join("bench")).arg("measure").arg(&fresh).arg(form))?;
    let mut results: Value = serde_json::from_str(&fs::read_to_string(&fresh)?)?;
    results["sizes"] = sizes(&release)?;
    let file = folder.join(format!("{}-{form}.json", results["date"].as_str().unwrap_or("undated")));
    fs::write(&file, format!("{results:#}\n"))?;
    fs::remove_file(fresh)?;
    writeln!(io::stdout(), "results: {}", file.display())?;
    Ok(results)
}

/// The folder of the release programs.
fn release() -> Result<PathBuf> {
    Ok(target()?.join(host()?).join("release"))
}

/// The sizes of the shipped files, in bytes.
fn sizes(release: &Path) -> Result<Value> {
    let size = |name: &str| fs::metadata(release.join(name)).map(|file| file.len());
    let zip = package::zip(&fs::read(release.join("bootstrap"))?, CompressionMethod::Deflated)?.len();
    Ok(json!({ "relay": size("relay")?, "relay-runner": size("relay-runner")?, "relay-launcher.zip": zip }))
}

/// Replaces the results in the document.
fn filled(document: &str, results: &str) -> Result<String> {
    let missing = || format!("{DOCUMENT} has no line `{}` with a line `{}` after it", MARKS[0], MARKS[1]);
    let (before, rest) = document.split_once(MARKS[0]).ok_or_else(missing)?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or_else(missing)?;
    Ok(format!("{before}{}\n\n{results}\n{}{after}", MARKS[0], MARKS[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_between_their_marks() {
        let document = format!("a\n{}\nold\n{}\nb\n", MARKS[0], MARKS[1]);
        let once = filled(&document, "new\n").unwrap();
        assert_eq!(once, format!("a\n{}\n\nnew\n\n{}\nb\n", MARKS[0], MARKS[1]));
        assert_eq!(filled(&once, "new\n").unwrap(), once);
        assert!(filled("nothing", "new").is_err());
    }
}
