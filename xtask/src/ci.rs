//! `ci`: everything that must hold before a merge, in order of what fails fastest. Stops at the first failure; says what it skipped.

use std::io::{self, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{Outcome, direction, docs, e2e, infra, package};

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Everything.
    Full,
    /// Without rustdoc and without the slow end-to-end tests.
    Quick,
}

/// What was done so far.
#[derive(Default)]
struct Run {
    done: Vec<(&'static str, Duration)>,
    skipped: Vec<String>,
}

/// Runs the steps.
pub(crate) fn run(form: Form) -> Outcome {
    let mut run = Run::default();
    let outcome = steps(&mut run, form);
    run.sum_up()?;
    outcome
}

/// Builds the binaries and shows one deployment.
pub(crate) fn demo() -> Outcome {
    cargo(&["build", "--quiet", "--workspace", "--bins"])?;
    cargo(&["run", "--quiet", "--package", "relay-sandbox", "--", "demo"])
}

fn steps(run: &mut Run, form: Form) -> Outcome {
    run.step("format", || cargo(&["fmt", "--all", "--check"]))?;
    run.step("direction of dependencies", direction::check)?;
    run.step("documents", docs::check)?;
    run.step("clippy", || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    match form {
        Form::Full => run.step("rustdoc", || {
            let mut command = Command::new("cargo");
            succeed(
                command
                    .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
                    .env("RUSTDOCFLAGS", "-Dwarnings -Arustdoc::private_intra_doc_links"),
            )
        })?,
        Form::Quick => run.skip("rustdoc (--quick)"),
    }
    run.step("binaries", || cargo(&["build", "--workspace", "--bins"]))?;
    match form {
        // The tests of the runner's image, and those on the third party's AWS, are about what this makes.
        Form::Full => run.step("package", || package::run(&package::Options::parse(&[])?))?,
        Form::Quick => run.skip("package and the runner's image (--quick)"),
    }
    run.step("tests", || {
        let mut command = Command::new("cargo");
        command.args(["test", "--workspace"]);
        match form {
            Form::Full => command.env_remove("RELAY_QUICK"),
            Form::Quick => command.env("RELAY_QUICK", "1"),
        };
        succeed(&mut command)
    })?;
    if form == Form::Full {
        let mut skipped = Vec::new();
        run.step("templates", || infra::lint(true, &mut skipped))?;
        run.skipped.extend(skipped);
    } else {
        run.skip("templates by cfn-lint, cfn-guard and checkov (--quick)");
    }
    match e2e::missing() {
        _ if form == Form::Quick => run.skip("end to end and least privilege on ministack (--quick)"),
        Some(why) => run.skip(&format!("end to end and least privilege on ministack ({why})")),
        None => {
            run.step("end to end on ministack", || e2e::run("e2e"))?;
            run.step("least privilege on ministack", || e2e::run("least-privilege"))?;
        }
    }
    if form == Form::Quick {
        run.skip("slow end-to-end tests (--quick)");
        run.skip("cargo deny (--quick)");
    } else if Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        run.step("cargo deny", || cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        run.skip("cargo deny (not installed: cargo install cargo-deny)");
    }
    Ok(())
}

impl Run {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) -> Outcome {
        writeln!(io::stdout(), "==> {name}")?;
        let start = Instant::now();
        work().map_err(|error| format!("{name}: {error}"))?;
        let took = start.elapsed();
        writeln!(io::stdout(), "    {name}: {:.1} s", took.as_secs_f64())?;
        self.done.push((name, took));
        Ok(())
    }

    fn skip(&mut self, what: &str) {
        self.skipped.push(what.to_owned());
    }

    fn sum_up(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let names: Vec<String> =
            self.done.iter().map(|(name, took)| format!("{name} {:.1} s", took.as_secs_f64())).collect();
        writeln!(out, "passed: {}", names.join(", "))?;
        for what in &self.skipped {
            writeln!(out, "skipped: {what}")?;
        }
        Ok(())
    }
}

pub(crate) fn cargo(arguments: &[&str]) -> Outcome {
    succeed(Command::new("cargo").args(arguments))
}

/// Runs a command in the root, its output going where ours goes.
pub(crate) fn succeed(command: &mut Command) -> Outcome {
    // A child's output would be lost behind ours otherwise.
    io::stdout().flush()?;
    let status = command.current_dir(crate::tree::root()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{status}").into()) }
}
