//! `ci`: the checks that must pass before a merge, in lanes. A lane runs the steps that fail
//! fastest first and stops at the first failure. It prints the time of each step and the skipped
//! steps. CONTRIBUTING.md lists the lanes. Everything is compiled in two configurations: clippy's
//! and dev. Each call of cargo names the whole workspace, as a single package would resolve other
//! features and rebuild every dependency.

use std::io::{self, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use cargo_metadata::{MetadataCommand, TargetKind};

use crate::run::{answers, cargo, cargo_command, has_engine, said, succeed};
use crate::tree::{programs, root, target};
use crate::venv::environment;
use crate::{Outcome, cycles, direction, docs, emulator, features, infra, mutants, package};

/// The choice of a lane.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run the lane for each commit: no end-to-end tests, model, image, emulator or templates.
    #[arg(long, conflicts_with = "integrations")]
    quick: bool,
    /// Run only the lane of third-party tools: CI files, recipes, verifiers.
    #[arg(long)]
    integrations: bool,
    /// With --integrations: run only the checks whose paths changed since this commit.
    #[arg(long, value_name = "COMMIT", requires = "integrations")]
    changed_since: Option<String>,
}

/// The programs that the demo starts.
const DEMO: &[&str] = &["relay", "relay-sandbox", "bootstrap", "relay-runner"];

/// Test binaries that the quick lane leaves out. All others count as unit tests, which need none of
/// relay's programs.
const MODEL: &[&str] = &["checks", "walks"];
const END_TO_END: &[&str] = &["e2e"];
const IMAGE: &[&str] = &["image"];
const EMULATOR: &[&str] = &["emulator"];
const VERIFIERS: &[&str] = &["verifiers"];
const NONE: &[&str] = &[];

/// A check by third-party tools, and the paths that it covers.
struct Integration {
    name: &'static str,
    paths: &'static [&'static str],
    run: fn() -> Outcome,
}

const INTEGRATIONS: &[Integration] = &[
    Integration {
        name: "third-party verifiers",
        paths: &["crates/", "tests/", "Cargo.lock"],
        run: || {
            cargo(&["build", "--workspace", "--bins"])?;
            tests(&[], VERIFIERS)
        },
    },
    Integration {
        name: "CI systems",
        paths: &[
            ".github/",
            "action.yml",
            "ci/",
            "crates/console/",
            "crates/platform/",
            "crates/trigger-cli/",
            "docs/schema/",
            "infra/push-images",
            "infra/runner/Dockerfile",
            "infra/cli/Dockerfile",
            "tests/ci/",
            "tests/kit.py",
        ],
        run: || python("tests/ci"),
    },
    Integration {
        name: "recipes",
        paths: &["docs/recipes/", "infra/", "crates/", "tests/recipes/", "tests/kit.py"],
        run: || python("tests/recipes"),
    },
    Integration {
        name: "least privilege",
        paths: &["infra/", "crates/admin/src/target.yaml", "tests/src/emulator"],
        run: || match has_engine() {
            true => emulator::run("least-privilege", &emulator::Options::default()),
            false => Ok(writeln!(io::stdout(), "    skipped: there is no Docker engine")?),
        },
    },
    Integration {
        name: "policies proved by cvc5",
        paths: &["prove/", "docs/policies/", "docs/recipes/", "crates/policy/"],
        run: prove,
    },
];

/// Runs the Python tests of a folder, in the environment of its requirements.txt: integrations of
/// CI systems in what can be had of these systems, recipes with their real tools. A test whose tool
/// is missing says so.
fn python(tests: &str) -> Outcome {
    let venv = match environment(&format!("{tests}/requirements.txt"))? {
        Ok(venv) => venv,
        Err(why) => return Ok(writeln!(io::stdout(), "    skipped: {why}")?),
    };
    cargo(&["build", "--workspace", "--bins"])?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(venv.join("bin")).chain(std::env::split_paths(&path));
    let mut command = Command::new(venv.join("bin/python"));
    // The tests wait for other programs most of the time.
    command.args(["-m", "unittest_parallel", "--verbose", "--level", "class", "--jobs", "4"]);
    command.arg("--start-directory").arg(root().join(tests)).arg("--top-level-directory").arg(root().join(tests));
    command.env("RELAY_PROGRAMS", programs()?).env("PYTHONPATH", root().join("tests"));
    succeed(command.env("PATH", std::env::join_paths(folders)?))
}

/// Proves the shipped policies. The crate is a workspace of its own.
fn prove() -> Outcome {
    if !answers("cvc5", &["--version"]) {
        writeln!(io::stdout(), "    skipped: cvc5 is not installed (Debian's package is `cvc5`)")?;
        return Ok(());
    }
    let mut command = cargo_command();
    command.args(["test", "--locked", "--manifest-path"]).arg(root().join("prove/Cargo.toml"));
    succeed(command.env("CARGO_TARGET_DIR", target()?.join("prove")))
}

/// The steps that ran, and the skipped ones.
#[derive(Default)]
struct Run {
    done: Vec<(&'static str, Duration)>,
    skipped: Vec<String>,
}

/// Runs a lane.
pub(crate) fn run(options: &Options) -> Outcome {
    let began = Instant::now();
    let mut run = Run::default();
    let (lane, outcome) = match (options.quick, options.integrations) {
        (true, _) => ("quick", quick(&mut run)),
        (_, true) => ("integrations", integrations(&mut run, options.changed_since.as_deref())),
        _ => ("ci", full(&mut run)),
    };
    run.sum_up(lane, began.elapsed(), outcome.is_ok())?;
    outcome
}

/// Builds the demo's programs and runs one deployment.
pub(crate) fn demo() -> Outcome {
    let mut out = io::stdout();
    writeln!(out, "Building {}: this takes some minutes the first time, seconds later.", DEMO.join(", "))?;
    let mut build = vec!["build", "--workspace"];
    build.extend(DEMO.iter().flat_map(|name| ["--bin", name]));
    cargo(&build)?;
    let programs = programs()?;
    succeed(Command::new(programs.join("relay-sandbox")).arg("demo"))?;
    writeln!(
        out,
        "\nTo deploy your own, put the programs on your PATH:\n  export PATH=\"{}:$PATH\"",
        programs.display()
    )?;
    Ok(())
}

fn quick(run: &mut Run) -> Outcome {
    run.step("format", || cargo(&["fmt", "--all", "--check"]))?;
    run.step("direction of dependencies", direction::check)?;
    run.step("one set of features", features::check)?;
    run.step("import cycles", cycles::check)?;
    run.step("documents", docs::check)?;
    run.step("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run.step("unit tests and vectors", || tests(&["--lib", "--bins"], &unit_tests()?))
}

fn full(run: &mut Run) -> Outcome {
    quick(run)?;
    run.step("rustdoc", || {
        let flags = "-Dwarnings -Arustdoc::private_intra_doc_links";
        let mut doc = cargo_command();
        succeed(doc.args(["doc", "--workspace", "--no-deps", "--document-private-items"]).env("RUSTDOCFLAGS", flags))
    })?;
    run.step("examples in the documentation", || tests(&["--doc"], NONE))?;
    run.step("programs and tests", || cargo(&["build", "--workspace", "--bins", "--tests"]))?;
    run.step("end to end", || tests(&[], END_TO_END))?;
    run.step("model", || tests(&[], MODEL))?;
    run.step("emulator", || tests(&[], EMULATOR))?;
    let mut skipped = Vec::new();
    run.step("templates", || infra::lint(false, &mut skipped))?;
    run.skipped.extend(skipped);
    let mut folder = None;
    run.step("package of dev programs", || {
        folder = Some(package::run(&package::Options::default())?);
        Ok(())
    })?;
    match folder {
        Some(folder) if has_engine() => {
            run.step("runner's image", || {
                let mut command = cargo_command();
                command.args(["test", "--workspace"]).args(IMAGE.iter().flat_map(|name| ["--test", name]));
                succeed(command.env("RELAY_PACKAGE", &folder))
            })?;
            run.step("package on the emulator", || emulator::on("e2e", &folder))?;
            run.step("init --apply on the emulator", || emulator::on("init", &folder))?;
            run.step("self-test on the emulator", || emulator::on("selftest", &folder))?;
        }
        _ => run.skip("runner's image, package, init and self-test on the emulator (no Docker engine)"),
    }
    if answers("cargo", &["deny", "--version"]) {
        run.step("cargo deny", || cargo(&["deny", "check", "bans", "licenses", "sources"]))
    } else {
        run.skip("cargo deny (not installed: cargo install cargo-deny)");
        Ok(())
    }
}

fn integrations(run: &mut Run, changed_since: Option<&str>) -> Outcome {
    let changed = match changed_since {
        Some(commit) => Some(said(Command::new("git").args(["diff", "--name-only", commit, "HEAD"]))?),
        None => None,
    };
    for integration in INTEGRATIONS {
        let is_about = |path: &str| integration.paths.iter().any(|own| path.starts_with(own));
        if changed.as_ref().is_none_or(|paths| paths.lines().any(is_about)) {
            run.step(integration.name, integration.run)?;
        } else {
            run.skip(&format!("{} (nothing of it changed)", integration.name));
        }
    }
    match changed_since {
        Some(commit) if mutants::can_run() => run.step("mutants of what changed", || mutants::of_change(commit)),
        Some(_) => {
            run.skip("mutants of what changed (not installed: cargo install --locked cargo-mutants)");
            Ok(())
        }
        None => Ok(()),
    }
}

/// The integration tests of all crates, except those that have a step of their own.
fn unit_tests() -> Outcome<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec()?;
    let own_step =
        |name: &str| [MODEL, END_TO_END, IMAGE, EMULATOR, VERIFIERS].iter().any(|names| names.contains(&name));
    let targets = metadata.packages.into_iter().flat_map(|package| package.targets);
    let tests = targets.filter(|target| target.kind.contains(&TargetKind::Test) && !own_step(&target.name));
    Ok(tests.map(|target| target.name).collect())
}

/// Runs the test binaries with these names. `arguments` are further arguments of `cargo test`.
fn tests<S: AsRef<str>>(arguments: &[&str], names: &[S]) -> Outcome {
    let mut command = cargo_command();
    command.args(["test", "--workspace"]).args(arguments);
    succeed(command.args(names.iter().flat_map(|name| ["--test", name.as_ref()])))
}

impl Run {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) -> Outcome {
        writeln!(io::stdout(), "==> {name}")?;
        let start = Instant::now();
        work().map_err(|error| format!("{name}: {error}"))?;
        let took = start.elapsed();
        writeln!(io::stdout(), "    {name}: {}", minutes(took))?;
        self.done.push((name, took));
        Ok(())
    }

    fn skip(&mut self, what: &str) {
        self.skipped.push(what.to_owned());
    }

    fn sum_up(&self, lane: &str, took: Duration, passed: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "\nlane {lane}: {} in {}", if passed { "passed" } else { "FAILED" }, minutes(took))?;
        for (name, took) in &self.done {
            writeln!(out, "  {:>9}  {name}", minutes(*took))?;
        }
        for what in &self.skipped {
            writeln!(out, "  skipped: {what}")?;
        }
        Ok(())
    }
}

/// A duration in minutes, such as `2.5 min`.
fn minutes(took: Duration) -> String {
    format!("{:.1} min", took.as_secs_f64() / 60.0)
}

#[cfg(test)]
mod tests {
    use super::unit_tests;

    #[test]
    fn a_new_test_binary_is_in_the_quick_lane_unless_it_has_a_step_of_its_own() {
        let names = unit_tests().unwrap();
        assert!(names.iter().any(|name| name == "conformance") && names.iter().any(|name| name == "simulation"));
        assert!(!names.iter().any(|name| name == "e2e"));
    }
}
