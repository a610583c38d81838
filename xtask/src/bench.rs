//! `bench`: what relay costs, side by side with bare SQS calls and a pipe. `tests/src/bin/bench` measures, on release programs; here
//! the results
//! become a table, a plot and docs/performance.md, so that no figure is typed by hand.

mod plot;
mod report;

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::tree::root;
use crate::{Outcome, ci, package};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where results are kept, one file for each run.
const RESULTS: &str = "target/bench";

const DOCUMENT: &str = "docs/performance.md";
const PLOT: &str = "docs/performance.svg";

/// What of the document is made from results.
const MARKS: [&str; 2] = ["<!-- results: made by cargo xtask bench --write-docs -->", "<!-- end of results -->"];

/// How to measure.
pub(crate) struct Options {
    form: &'static str,
    from: Option<PathBuf>,
    write_docs: bool,
}

impl Options {
    /// From the command line: `[--quick|--full] [--write-docs] [--from FILE]`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self { form: "default", from: None, write_docs: false };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--quick" => options.form = "quick",
                "--full" => options.form = "full",
                "--write-docs" => options.write_docs = true,
                "--from" => options.from = Some(PathBuf::from(rest.next().ok_or("--from wants a file")?)),
                _ => return Err(format!("`bench` does not know {argument}").into()),
            }
        }
        Ok(options)
    }
}

/// Measures, or takes what was measured, and tells it.
pub(crate) fn run(options: &Options) -> Outcome {
    let results = match &options.from {
        Some(file) => serde_json::from_str(&fs::read_to_string(file)?)?,
        None => measure(options.form)?,
    };
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
    // With the whole workspace, as one package alone would resolve other features, and build every dependency anew.
    let mut build = vec!["build", "--release", "--workspace"];
    build.extend(
        ["bench", "bootstrap", "relay", "relay-runner", "relay-sandbox"].into_iter().flat_map(|name| ["--bin", name]),
    );
    ci::cargo(&build)?;
    let folder = root().join(RESULTS);
    fs::create_dir_all(&folder)?;
    let fresh = folder.join("unfinished.json");
    ci::succeed(Command::new(root().join("target/release/bench")).arg("measure").arg(&fresh).arg(form))?;
    let mut results: Value = serde_json::from_str(&fs::read_to_string(&fresh)?)?;
    results["sizes"] = sizes()?;
    let file = folder.join(format!("{}-{form}.json", results["date"].as_str().unwrap_or("undated")));
    fs::write(&file, format!("{results:#}\n"))?;
    fs::remove_file(fresh)?;
    writeln!(io::stdout(), "results: {}", file.display())?;
    Ok(results)
}

/// Bytes of what is shipped: of `cargo xtask package`, where that was made, else of the release build.
fn sizes() -> Result<Value> {
    let packaged = root().join("target/package");
    let (folder, what) = if packaged.join("relay").is_file() {
        (packaged, "static, by cargo xtask package")
    } else {
        (root().join("target/release"), "of the release build, not static")
    };
    let size = |name: &str| fs::metadata(folder.join(name)).map(|file| file.len());
    let zip = package::zip(&fs::read(folder.join("bootstrap"))?)?.len();
    Ok(
        json!({ "what": what, "relay": size("relay")?, "relay-runner": size("relay-runner")?, "relay-launcher.zip": zip }),
    )
}

/// The document with these results in place of those before.
fn filled(document: &str, results: &str) -> Result<String> {
    let missing = || format!("{DOCUMENT} has no line `{}`, or none `{}` behind it", MARKS[0], MARKS[1]);
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
