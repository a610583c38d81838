//! `skew`: two versions work together. Builds an earlier revision beside this one, and runs
//! deployments on the sandbox with every mix of CLI, launcher and runner. A record that one version
//! signed is verified by the other.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Outcome;
use crate::run::{cargo, cargo_command, host, quietly, said, succeed};
use crate::tree::{programs, target};

/// The programs that are mixed.
const MIXED: [&str; 3] = ["relay", "bootstrap", "relay-runner"];

/// The deployments of each mix: a name, the arguments of `relay deploy`, and the exit code.
const CASES: &[(&str, &str, i32)] = &[
    ("a dry run", "demo/hello --param name=you --dry-run", 0),
    ("success", "demo/hello --param name=you --require-record --result-file result.json", 0),
    ("failure", "demo/shell --param script='echo oops >&2; exit 37'", 37),
    ("much output", "demo/shell --param script='head -c 3000000 /dev/zero'", 0),
    ("a signature by token", "demo/hello --param name=you --key oidc", 0),
    ("a refusal", "demo/hello --param name='$(id)'", 120),
    ("a cancellation", "demo/shell --param script='kill -INT \"$(cat RESULTS/pid)\"; sleep 60'", 130),
];

/// The revision to compare with.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// A tag or commit [default: the newest tag before this commit]
    #[arg(long, value_name = "REVISION")]
    previous: Option<String>,
}

/// Builds both versions, and tries every mix of them.
pub(crate) fn run(options: &Options) -> Outcome {
    let previous = match &options.previous {
        Some(revision) => revision.clone(),
        None => said(Command::new("git").args(["describe", "--tags", "--abbrev=0", "HEAD^"]))
            .map_err(|error| format!("there is no tag yet: pass --previous REVISION ({error})"))?,
    };
    let previous =
        said(Command::new("git").args(["rev-parse", "--short", "--verify", &format!("{previous}^{{commit}}")]))?;
    let folder = target()?.join("skew");
    let old = built(&previous, &folder)?;
    cargo(&["build", "--workspace", "--bins"])?;
    let new = programs()?;
    let mut failed = Vec::new();
    // One bit for each program: whether it is the old one.
    for mix in 0..1_u8 << MIXED.len() {
        let is_old = |at: usize| mix >> at & 1 == 1;
        let words: Vec<String> = (0..MIXED.len())
            .map(|at| format!("{} {}", MIXED[at], if is_old(at) { &previous } else { "new" }))
            .collect();
        let programs = folder.join(format!("mix-{mix}"));
        fs::create_dir_all(&programs)?;
        for name in ["relay-sandbox", "relay-admin"] {
            replace(&new.join(name), &programs.join(name))?;
        }
        for (at, name) in MIXED.iter().enumerate() {
            replace(&if is_old(at) { old.join(name) } else { new.join(name) }, &programs.join(name))?;
        }
        let outcome = try_mix(&programs, &[&old, &new]);
        io::Write::write_fmt(
            &mut io::stdout(),
            format_args!("{}: {}\n", words.join(", "), outcome.as_ref().err().map_or("works", String::as_str)),
        )?;
        failed.extend(outcome.err().map(|_| words.join(", ")));
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("these do not work together: {failed:?}").into()) }
}

/// Builds a revision in a work tree of its own. Returns the folder of its programs.
fn built(revision: &str, folder: &Path) -> Outcome<PathBuf> {
    let source = folder.join("source");
    let place = source.display().to_string();
    if source.exists() {
        quietly(Command::new("git").args(["-C", &place, "checkout", "--force", "--detach", revision]))?;
    } else {
        quietly(Command::new("git").args(["worktree", "prune"]))?;
        quietly(Command::new("git").args(["worktree", "add", "--force", "--detach", &place, revision]))?;
    }
    let build = folder.join("build");
    let mut cargo = cargo_command();
    cargo.args(["build", "--workspace", "--bins", "--manifest-path"]).arg(source.join("Cargo.toml"));
    succeed(cargo.args(["--target", &host()?, "--target-dir"]).arg(&build))?;
    Ok(build.join(host()?).join("debug"))
}

/// Copies a program over another. A link would let the programs look for each other at its end.
fn replace(from: &Path, to: &Path) -> Outcome {
    if to.exists() {
        fs::remove_file(to)?;
    }
    fs::copy(from, to)?;
    Ok(())
}

/// Runs all cases on a sandbox with these programs, and has both versions verify a record.
fn try_mix(mixed: &Path, versions: &[&Path]) -> Result<(), String> {
    let seen = |error: &dyn std::fmt::Display| error.to_string();
    let results = mixed.join("results");
    if results.exists() {
        fs::remove_dir_all(&results).map_err(|error| seen(&error))?;
    }
    fs::create_dir_all(&results).map_err(|error| seen(&error))?;
    let mut script = format!("cd '{}'; echo \"$RELAY_TARGET_PUBLIC_KEY\" >key\n", results.display());
    for (at, (_, arguments, _)) in CASES.iter().enumerate() {
        // The tool of the cancellation interrupts the CLI.
        let arguments = arguments.replace("RESULTS", &results.display().to_string());
        let _ = writeln!(
            script,
            "sh -c 'echo $$ >pid; exec \"$@\"' sh '{}' deploy {arguments} >{at}.out 2>{at}.err\n\
             echo $? >{at}.code",
            mixed.join("relay").display()
        );
    }
    let output = Command::new(mixed.join("relay-sandbox"))
        .args(["exec", "--bin-dir"])
        .arg(mixed)
        .args(["--", "sh", "-c", &script])
        .output();
    let output = output.map_err(|error| seen(&error))?;
    if !output.status.success() {
        return Err(format!("the sandbox ends with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let read = |name: String| fs::read_to_string(results.join(&name)).map_err(|error| format!("{name}: {error}"));
    for (at, (name, _, code)) in CASES.iter().enumerate() {
        let found = read(format!("{at}.code"))?;
        if found.trim() != code.to_string() {
            return Err(format!("{name} ends with {}: {}", found.trim(), read(format!("{at}.err"))?.trim()));
        }
    }
    let result: Value = serde_json::from_str(&read("result.json".to_owned())?).map_err(|error| seen(&error))?;
    let record = results.join("record.json");
    fs::write(&record, result["record"].to_string()).map_err(|error| seen(&error))?;
    let key = read("key".to_owned())?;
    for version in versions {
        let verified =
            Command::new(version.join("relay")).arg("verify").arg(&record).args(["--key", key.trim()]).output();
        let verified = verified.map_err(|error| seen(&error))?;
        if !verified.status.success() {
            let why = String::from_utf8_lossy(&verified.stderr).into_owned();
            return Err(format!("{} does not verify the record: {why}", version.display()));
        }
    }
    Ok(())
}
