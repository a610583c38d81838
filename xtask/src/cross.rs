//! `cross`: whether the programs compile for other targets. Runs `cargo check` for every target
//! whose library rustup has. It does not build a release; `package --release --target TRIPLE` does,
//! with a linker for the target.

use std::io::{self, Write as _};
use std::process::Command;

use crate::Outcome;
use crate::run::{cargo_command, host, said, succeed};

/// The targets that are shipped, or are planned to be.
const TARGETS: &[&str] = &[
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "aarch64-unknown-linux-gnu",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
];

/// Checks each target that can be checked here, and names those that cannot.
pub(crate) fn check() -> Outcome {
    let (mut checked, mut skipped) = (Vec::new(), Vec::new());
    let own = host()?;
    for target in TARGETS.iter().filter(|target| **target != own) {
        let libraries = said(Command::new("rustc").args(["--print", "target-libdir", "--target", target]))?;
        if std::path::Path::new(&libraries).is_dir() {
            succeed(cargo_command().args(["check", "--workspace", "--bins", "--target", target]))?;
            checked.push(*target);
        } else {
            skipped.push(*target);
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "checked: {}", if checked.is_empty() { "none".to_owned() } else { checked.join(", ") })?;
    for target in &skipped {
        writeln!(out, "skipped: {target} (rustup target add {target})")?;
    }
    if checked.is_empty() { Err("this toolchain has no library of another target".into()) } else { Ok(()) }
}
