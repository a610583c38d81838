//! Python packages for a test, which `tests/venv.sh` installs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The virtual environment with the packages that `requirements` lists, a path relative to
/// `tests/`.
///
/// # Errors
///
/// Why there is none: this machine has no suitable Python, or reaches no package index.
pub fn virtual_environment(requirements: &str) -> Result<PathBuf, String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let make = tests.join("venv.sh");
    let output = Command::new(&make).arg(tests.join(requirements)).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", make.display()))?;
    if output.status.success() {
        return Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    Err(format!("{} failed, so nothing was tested:\n{}", make.display(), String::from_utf8_lossy(&output.stderr)))
}
