//! `cross`: whether the programs compile for other targets. Runs `cargo check` for every target
//! whose library rustup has, with zig as the compiler of their C. It links nothing: a release is
//! made by `cargo xtask release` on a machine of its own kind.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::package;
use crate::run::{cargo_command, host, said, succeed};
use crate::venv::environment;

/// The targets, with zig's names for them. Windows is checked with GNU's library, because the C of
/// the other one needs Microsoft's headers; the code is the same.
const TARGETS: &[(&str, &str)] = &[
    ("x86_64-unknown-linux-musl", "x86_64-linux-musl"),
    ("aarch64-unknown-linux-musl", "aarch64-linux-musl"),
    ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu"),
    ("aarch64-apple-darwin", "aarch64-macos"),
    ("x86_64-pc-windows-gnu", "x86_64-windows-gnu"),
];

/// Checks each target that can be checked here, and names those that cannot.
pub(crate) fn check() -> Outcome {
    let venv = environment("xtask/zig.txt")?.map_err(|reason| format!("zig is missing: {reason}"))?;
    let compiler = format!("{} -m ziglang", venv.join("bin/python").display());
    let own = host()?;
    let mut report = Vec::new();
    for (target, zig) in TARGETS.iter().filter(|(target, _)| *target != own) {
        let libraries = said(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
        if !Path::new(&libraries).is_dir() {
            report.push(format!("skipped: {target} (rustup target add {target})"));
            continue;
        }
        let programs = package::programs(target);
        let mut cargo = cargo_command();
        cargo.args(["check", "--bins", "--target", target]);
        cargo.args(programs.iter().flat_map(|(package, _)| ["--package", package]));
        if !package::is_linux(target) {
            // It makes the release there.
            cargo.args(["--package", "xtask"]);
        }
        let name = target.replace('-', "_");
        cargo.env("CRATE_CC_NO_DEFAULTS", "1").env(format!("CC_{name}"), format!("{compiler} cc -target {zig}"));
        succeed(cargo.env(format!("AR_{name}"), format!("{compiler} ar")))?;
        let names: Vec<_> = programs.iter().map(|(_, program)| *program).collect();
        report.push(format!("checked: {target} ({})", names.join(", ")));
    }
    writeln!(io::stdout(), "{}", report.join("\n"))?;
    if report.iter().any(|line| line.starts_with("checked")) {
        Ok(())
    } else {
        Err("this toolchain has no library of another target".into())
    }
}
